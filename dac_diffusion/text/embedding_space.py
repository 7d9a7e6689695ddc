"""Arm (a): learned unit-norm token embeddings, trained by cross-entropy alone."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional

from dac_diffusion.errors import ConfigError
from dac_diffusion.text.latent_space import Prediction, cross_entropy, signal_and_noise

LIKELIHOODS = ("off", "learned", "exact")
# Beyond this evidence the posterior is one-hot anyway, and larger logits only lose precision.
MAX_LIKELIHOOD_SCALE = 1.0
STABLE_TERMS = 256


class EmbeddingSpace(ModelMixin, ConfigMixin):
    """Latents are rows of an embedding table E; the same table reads the denoiser's output.

    logits = scale * <output, E> and x0-hat = softmax(logits) E (CDCD, Dieleman et al. 2022,
    section 3.1). Cross-entropy through x0-hat, with embeddings of fixed norm, is what keeps the
    table from collapsing to a point: a squared error on learned embeddings would reward it.

    likelihood: "off"; "exact" adds log p(noisy | token), the Gaussian evidence of the noisy
    latents themselves, to the logits; "learned" adds it times a scale that starts at zero.
    Raises ConfigError for another value.
    """

    @register_to_config
    def __init__(
        self,
        vocabulary_size: int,
        latent_dim: int = 128,
        initial_std: float = 0.1,
        likelihood: str = "off",
    ) -> None:
        super().__init__()
        if likelihood not in LIKELIHOODS:
            raise ConfigError(
                f"likelihood={likelihood!r} is unknown: use one of {', '.join(LIKELIHOODS)}"
            )
        self.vocabulary_size = vocabulary_size
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.loss_weights = {"cross_entropy": 1.0}
        # Rows are normalised before use, so the initial scale says how far an optimiser step turns
        # a row. At .001 the first steps of Adam turned all rare tokens the same way, away from the
        # frequent ones, and they stayed together (mean nearest-neighbour distance .3 of 1).
        self.weight = nn.Parameter(torch.randn(vocabulary_size, latent_dim) * initial_std)
        self.log_scale = nn.Parameter(torch.zeros(()))
        if likelihood == "learned":
            self.likelihood_scale = nn.Parameter(torch.zeros(()))

    def embeddings(self) -> Tensor:
        """The table (V, D) in float32; rows have norm sqrt(D): unit variance per dimension."""
        return functional.normalize(self.weight.float(), dim=-1) * self.latent_dim**0.5

    def encode(self, token_ids: Tensor) -> Tensor:
        """Clean latents (..., L, D) of token ids (..., L); gradients reach the table."""
        return functional.embedding(token_ids, self.embeddings())  # (..., L, D)

    def predict(
        self, output: Tensor, noisy: Tensor, log_nsr: Tensor, with_logits: bool = True
    ) -> Prediction:
        """Clean latents and logits, in float32 even under autocast.

        output and noisy: (..., L, D), log_nsr: (...,). In bfloat16 two logits near 10 are equal
        up to 0.04 apart, which is enough to change words.
        """
        with torch.autocast(output.device.type, enabled=False):
            table = self.embeddings()
            scale = self.log_scale.float().exp() / self.latent_dim**0.5
            query = output.float() * scale  # (..., L, D)
            if self.likelihood != "off":
                query = query + noisy.float() * self._evidence_scale(log_nsr)
            logits = query @ table.mT  # (..., L, V)
            latents = self._expected_embedding(logits.softmax(dim=-1), table)  # (..., L, D)
        return Prediction(latents, logits if with_logits else None)

    def losses(
        self,
        prediction: Prediction,
        token_ids: Tensor,
        clean: Tensor,
        position_weights: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Cross-entropy per example (...,); see LatentSpace.losses. Draws no noise of its own."""
        if prediction.logits is None:
            raise ValueError("losses need a prediction made with with_logits=True")
        return {"cross_entropy": cross_entropy(prediction.logits, token_ids, position_weights)}

    @torch.no_grad()
    def mean_nearest_neighbour_distance(self, token_ids: Tensor) -> float:
        """Mean distance of these tokens' embeddings to the nearest other of them (0 to 2).

        On the unit sphere: about 1 in a healthy table; below .5 the embeddings are collapsing into
        each other. token_ids: (N,) different ones that occur in captions. The others learn nothing
        but to stay away from these, so they end up side by side.
        """
        rows = functional.normalize(self.weight[token_ids].float(), dim=-1)  # (N, D)
        nearest = []
        for start in range(0, len(rows), 1024):  # bounds the memory to 1024 x N
            cosine = rows[start : start + 1024] @ rows.mT  # (<=1024, N)
            own = torch.arange(len(cosine), device=rows.device)
            cosine[own, own + start] = -1.0
            nearest.append((2 - 2 * cosine.amax(dim=-1)).clamp_min(0).sqrt())
        return torch.cat(nearest).mean().item()

    def _expected_embedding(self, probabilities: Tensor, table: Tensor) -> Tensor:
        """Probabilities (..., L, V) times the table (V, D).

        A matrix product over many terms may add them in another order for another number of
        rows, and a caption must not depend on its batch: outside training, sum in short parts.
        """
        if self.training:
            return probabilities @ table  # (..., L, D)
        parts = zip(
            probabilities.split(STABLE_TERMS, dim=-1), table.split(STABLE_TERMS), strict=True
        )
        first, *others = (part @ rows for part, rows in parts)
        return sum(others, start=first)  # (..., L, D)

    def _evidence_scale(self, log_nsr: Tensor) -> Tensor:
        """What to multiply <noisy, E> by: alpha / sigma^2 (times the learned scale), (..., 1, 1).

        log N(z; alpha E, sigma^2) = <z, alpha E> / sigma^2 - alpha^2 |E|^2 / (2 sigma^2) + const;
        all rows have one norm, so the second term is the same for all tokens and drops out.
        """
        alpha, sigma = signal_and_noise(log_nsr.float())
        scale = (alpha / sigma.square()).clamp_max(MAX_LIKELIHOOD_SCALE)
        if self.likelihood == "learned":
            scale = scale * self.likelihood_scale.float()
        return scale[..., None, None]  # (..., 1, 1)
