"""The paper's arm: the lower layers of a BERT encode captions, the upper ones and a head decode.

DAC (arXiv 2409.09401, section 2.2) after LaDiC: q(x0 | caption) from a frozen text encoder,
rounding by an "embedding transition module" of BERT's top layers and a trainable head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.errors import ConfigError
from dac_diffusion.text.bert import PredictionHead, PretrainedBert
from dac_diffusion.text.latent_space import (
    Prediction,
    cross_entropy,
    signal_and_noise,
    weighted_mean,
)
from dac_diffusion.text.tokenizer import encode_captions

PREDICTION_TYPES = ("sample", "epsilon", "v_prediction")
SMALLEST_STD = 1e-3  # a dimension that never varies would otherwise be divided by zero


class SplitBertSpace(ModelMixin, ConfigMixin):
    """Latents are the hidden states of a BERT after `split_layer` layers, standardised.

    All positions have one: [CLS], words, [SEP], and the padding, which BERT sees as words where
    `attend_to_padding` is set. mean and std per dimension come from `fit_statistics` and count
    the padding too. The upper layers (frozen unless `train_upper`) and the head read latents back;
    with as many extra linear layers as `extra_linear_layers` says, which start as the identity.

    prediction_type: what the denoiser's output is: the clean latents ("sample"), the noise
    ("epsilon") or alpha eps - sigma x0 ("v_prediction"). distance: "squared", the mean squared
    error per element, or "l2_norm", the norm of a token's error vector as in LaDiC's code; both are
    of what the network puts out. The lower layers are not saved: training needs `attach_encoder`.
    """

    @register_to_config
    def __init__(
        self,
        bert: dict[str, Any],
        split_layer: int = 6,
        extra_linear_layers: int = 1,
        train_upper: bool = False,
        attend_to_padding: bool = True,
        prediction_type: str = "sample",
        distance: str = "squared",
        mse_weight: float = 1.0,
        cross_entropy_weight: float = 0.2,
        valid_token_weight: float = 1.0,
    ) -> None:
        super().__init__()
        from transformers import BertConfig
        from transformers.models.bert.modeling_bert import BertEncoder

        if prediction_type not in PREDICTION_TYPES:
            raise ConfigError(f"prediction_type={prediction_type!r}: use one of {PREDICTION_TYPES}")
        if distance not in ("squared", "l2_norm"):
            raise ConfigError(f"distance={distance!r}: use squared or l2_norm")
        config = BertConfig(**bert)
        layers = config.num_hidden_layers
        if not 0 <= split_layer <= layers:
            raise ConfigError(f"split_layer={split_layer}: this BERT has layers 0 to {layers}")
        self.vocabulary_size: int = config.vocab_size
        self.latent_dim: int = config.hidden_size
        self.split_layer, self.train_upper = split_layer, train_upper
        self.attend_to_padding = attend_to_padding
        self.prediction_type, self.distance = prediction_type, distance
        self.loss_weights = {
            "mse": mse_weight,
            "cross_entropy": cross_entropy_weight,
            "valid_token": valid_token_weight,
        }
        upper = copy.deepcopy(config)
        upper.num_hidden_layers = layers - split_layer
        upper._attn_implementation = "sdpa"
        self.upper = BertEncoder(upper).requires_grad_(train_upper)
        width = self.latent_dim
        extra = [nn.Linear(width, width) for _ in range(extra_linear_layers)]
        for layer in extra:
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.extra = nn.Sequential(*extra)
        self.head = PredictionHead(config)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(width))  # (D,)
        self.register_buffer("std", torch.ones(width))  # (D,)
        self._encoder: tuple[PretrainedBert] | None = None  # in a tuple: not a part to save

    @classmethod
    def from_bert(
        cls,
        bert: PretrainedBert,
        split_layer: int = 6,
        extra_linear_layers: int = 1,
        train_upper: bool = False,
        attend_to_padding: bool = True,
        prediction_type: Literal["sample", "epsilon", "v_prediction"] = "sample",
        distance: Literal["squared", "l2_norm"] = "squared",
        loss_weights: tuple[float, float, float] = (1.0, 0.2, 1.0),
    ) -> SplitBertSpace:
        """Split a BERT; without a head of its own, the output layer starts as its embeddings.

        loss_weights: of mse, cross_entropy and valid_token. Raises ConfigError.
        """
        mse, cross, valid = loss_weights
        space: SplitBertSpace = cls(
            _plain_config(bert.model.config),
            split_layer,
            extra_linear_layers,
            train_upper,
            attend_to_padding,
            prediction_type,
            distance,
            mse,
            cross,
            valid,
        )
        for ours, theirs in zip(
            space.upper.layer, bert.model.encoder.layer[split_layer:], strict=True
        ):
            ours.load_state_dict(theirs.state_dict())
        if bert.head is not None:
            space.head.load_state_dict(bert.head.state_dict())
        else:
            with torch.no_grad():
                space.head.decoder.weight.copy_(bert.model.embeddings.word_embeddings.weight)
        space.attach_encoder(bert)
        return space.eval()

    def attach_encoder(self, bert: PretrainedBert) -> None:
        """Give the space the BERT whose lower layers encode; raises ConfigError if it is another.

        It is not saved with the space.
        """
        width, size = bert.model.config.hidden_size, bert.model.config.vocab_size
        if (width, size) != (self.latent_dim, self.vocabulary_size):
            raise ConfigError(
                f"the latent space has width {self.latent_dim} and {self.vocabulary_size} tokens, "
                f"but this BERT has width {width} and {size} tokens: name the same BERT for both"
            )
        self._encoder = (bert,)

    def train(self, mode: bool = True) -> SplitBertSpace:
        """Training mode for what is trained: dropout in frozen layers would make targets noisy."""
        super().train(mode)
        if not self.train_upper:
            self.upper.eval()
        return self

    @torch.no_grad()
    def fit_statistics(self, captions: Iterable[str], length: int, batch_size: int = 256) -> None:
        """Set mean and standard deviation per dimension from captions, padding included."""
        tokenizer = self._attached().tokenizer
        total = torch.zeros(self.latent_dim, dtype=torch.float64)
        total_of_squares = torch.zeros(self.latent_dim, dtype=torch.float64)
        count = 0
        remaining = iter(captions)
        while batch := list(islice(remaining, batch_size)):
            ids = encode_captions(tokenizer, batch, length).to(self.mean.device)
            latents = self._raw_latents(ids).flatten(0, 1).cpu().double()  # (N L, D)
            total += latents.sum(dim=0)
            total_of_squares += latents.square().sum(dim=0)
            count += len(latents)
        if count == 0:
            raise ConfigError("fit_statistics needs at least one caption")
        mean = total / count
        self.mean.copy_(mean)
        variance = (total_of_squares / count - mean.square()).clamp_min(0)
        self.std.copy_(variance.sqrt().clamp_min(SMALLEST_STD))

    @torch.no_grad()
    def encode(self, token_ids: Tensor) -> Tensor:
        """Clean latents (..., L, D) of token ids (..., L).

        Raises ConfigError where no BERT is attached.
        """
        rows = rearrange(token_ids, "... l -> (...) l")
        latents = (self._raw_latents(rows) - self.mean.float()) / self.std.float()  # (N, L, D)
        return latents.view(*token_ids.shape, self.latent_dim)  # (..., L, D)

    def predict(
        self, output: Tensor, noisy: Tensor, log_nsr: Tensor, with_logits: bool = True
    ) -> Prediction:
        """Clean latents (..., L, D) from what the network predicts, and logits (..., L, V)."""
        output, noisy = output.float(), noisy.float()
        alpha, sigma = (part[..., None, None] for part in signal_and_noise(log_nsr.float()))
        if self.prediction_type == "epsilon":
            latents, scale = (noisy - sigma * output) / alpha, alpha / sigma
        elif self.prediction_type == "v_prediction":
            latents, scale = alpha * noisy - sigma * output, 1.0 / sigma
        else:
            latents, scale = output, torch.ones_like(alpha)
        logits = self.decode(latents) if with_logits else None
        return Prediction(latents, logits, error_scale=scale)

    def losses(
        self,
        prediction: Prediction,
        token_ids: Tensor,
        clean: Tensor,
        position_weights: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The paper's three losses per example (...,); see LatentSpace.losses.

        mse: over all positions, weighted by `position_weights`; valid_token: over [CLS], words and
        [SEP] only; cross_entropy: of the caption, on the predicted clean latents.
        """
        if prediction.logits is None:
            raise ValueError("losses need a prediction made with with_logits=True")
        error = prediction.latents - clean  # (..., L, D)
        if prediction.error_scale is not None:
            error = error * prediction.error_scale
        squared = error.square()
        if self.distance == "l2_norm":
            distance = (squared.sum(dim=-1) + 1e-12).sqrt()  # (..., L)
        else:
            distance = squared.mean(dim=-1)
        valid = (token_ids != self._attached().tokenizer.pad_token_id).float()
        return {
            "mse": weighted_mean(distance, position_weights),
            "cross_entropy": cross_entropy(prediction.logits, token_ids, position_weights),
            "valid_token": weighted_mean(distance, valid),
        }

    def decode(self, latents: Tensor) -> Tensor:
        """Logits (..., L, V), in float32, of standardised latents (..., L, D)."""
        rows = rearrange(latents, "... l d -> (...) l d")
        hidden = rows * self.std.float() + self.mean.float()  # (N, L, D)
        hidden = self.upper(hidden.to(self.std.dtype)).last_hidden_state
        logits = self.head(self.extra(hidden)).float()  # (N, L, V)
        return logits.view(*latents.shape[:-1], self.vocabulary_size)  # (..., L, V)

    def _attached(self) -> PretrainedBert:
        if self._encoder is None:
            raise ConfigError(
                "this latent space was loaded for captioning only: to train with it, call "
                "attach_encoder(load_bert(NAME)) first"
            )
        return self._encoder[0]

    def _raw_latents(self, token_ids: Tensor) -> Tensor:
        """Hidden states (N, L, D) after the lower layers, before standardisation."""
        bert = self._attached()
        model = bert.model.to(token_ids.device)
        mask = None if self.attend_to_padding else token_ids != bert.tokenizer.pad_token_id
        return lower_layers(model, token_ids, mask, self.split_layer)


def lower_layers(model: Any, token_ids: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """Hidden states (N, L, D) of token ids (N, L) after a BertModel's first `count` layers.

    mask: (N, L) bool, True where a position may be attended to, or None for everywhere.
    """
    hidden = model.embeddings(input_ids=token_ids)  # (N, L, D)
    bias = None
    if mask is not None:
        bias = torch.zeros_like(mask, dtype=hidden.dtype)
        bias = bias.masked_fill(~mask, torch.finfo(hidden.dtype).min)[:, None, None]  # (N, 1, 1, L)
    for layer in model.encoder.layer[:count]:
        hidden = layer(hidden, bias)
    return hidden.float()


def _plain_config(config: Any) -> dict[str, Any]:
    """What decides the shape and the mathematics of a BertConfig, as JSON can hold it."""
    names = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "hidden_act", "max_position_embeddings", "type_vocab_size",
        "layer_norm_eps", "pad_token_id", "hidden_dropout_prob", "attention_probs_dropout_prob",
    )  # fmt: skip
    return {name: getattr(config, name) for name in names}
