"""Arm (b): standardised latents of a frozen sentence encoder, read back by a small decoder."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from math import pi
from typing import TYPE_CHECKING

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.errors import ConfigError
from dac_diffusion.text.latent_space import (
    Prediction,
    cross_entropy,
    signal_and_noise,
    weighted_mean,
)
from dac_diffusion.text.sentence_encoder import SentenceEncoder
from dac_diffusion.text.sentence_encoder import load_sentence_encoder as load_sentence_encoder
from dac_diffusion.text.tokenizer import EOS_ID, PAD_ID, encode_captions, join_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class LatentDecoder(nn.Module):
    """A one- or two-layer transformer from latents (N, L, D) to token logits (N, L, V)."""

    def __init__(
        self,
        vocabulary_size: int,
        latent_dim: int,
        max_length: int,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(latent_dim, width)
        self.positions = nn.Parameter(torch.randn(max_length, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                4 * width,
                dropout=0.0,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.to_logits = nn.Linear(width, vocabulary_size)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = self.project(latents.to(self.positions.dtype))  # (N, L, W)
        hidden = hidden + self.positions[: latents.shape[1]]
        for layer in self.layers:
            hidden = layer(hidden)
        with torch.autocast(latents.device.type, enabled=False):  # bfloat16 logits change words
            hidden = self.norm(hidden.to(self.norm.weight.dtype))
            return self.to_logits(hidden).float()  # (N, L, V)


class ContextualSpace(ModelMixin, ConfigMixin):
    """Latents of our tokens in their caption, as a frozen sentence encoder sees them.

    A token's latent is the mean over the encoder's pieces that share characters with it,
    standardised per dimension; [EOS] takes the latent of the encoder's [SEP]. [PAD] takes one
    fixed vector of random signs: unit variance like all targets, and far from every word.

    The denoiser's output is x0-hat itself (x0-prediction). Only the decoder and the statistics
    are saved; training needs `attach_encoder` and, once, `fit_statistics`; captioning neither.
    """

    @register_to_config
    def __init__(
        self,
        vocabulary_size: int,
        latent_dim: int = 384,
        max_length: int = 24,
        decoder_width: int = 256,
        decoder_depth: int = 1,
        decoder_heads: int = 4,
        mse_weight: float = 1.0,
        cross_entropy_weight: float = 0.2,
        decoder_weight: float = 0.2,
    ) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.latent_dim = latent_dim
        self.max_length = max_length
        self.loss_weights = {
            "mse": mse_weight,
            "cross_entropy": cross_entropy_weight,
            "decoder_cross_entropy": decoder_weight,
        }
        self.decoder = LatentDecoder(
            vocabulary_size, latent_dim, max_length, decoder_width, decoder_depth, decoder_heads
        )
        signs = torch.randint(0, 2, (latent_dim,), generator=torch.Generator().manual_seed(0))
        self.pad_latent: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("pad_latent", signs * 2.0 - 1.0)  # (D,)
        self.register_buffer("mean", torch.zeros(latent_dim))  # (D,)
        self.register_buffer("std", torch.ones(latent_dim))  # (D,)
        self.sentence_encoder: SentenceEncoder | None = None
        self.tokenizer: PreTrainedTokenizerFast | None = None

    def attach_encoder(
        self, sentence_encoder: SentenceEncoder, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        """Give the space what `encode` needs; neither is saved with it. Raises ConfigError."""
        width = sentence_encoder.model.config.hidden_size
        if width != self.latent_dim or len(tokenizer) != self.vocabulary_size:
            raise ConfigError(
                f"the latent space has latent_dim={self.latent_dim} and vocabulary_size="
                f"{self.vocabulary_size}, but the sentence encoder has width {width} and the "
                f"tokenizer {len(tokenizer)} tokens: set them alike"
            )
        self.sentence_encoder = sentence_encoder
        self.tokenizer = tokenizer

    @torch.no_grad()
    def fit_statistics(self, captions: Iterable[str], batch_size: int = 256) -> None:
        """Set mean and standard deviation per dimension from captions ([PAD] does not count)."""
        _, tokenizer = self._attached()
        total = torch.zeros(self.latent_dim, dtype=torch.float64)
        total_of_squares = torch.zeros(self.latent_dim, dtype=torch.float64)
        count = 0
        remaining = iter(captions)
        while batch := list(islice(remaining, batch_size)):
            token_ids = encode_captions(tokenizer, batch, self.max_length).to(self.mean.device)
            latents = self._raw_latents(token_ids)[token_ids != PAD_ID].cpu().double()  # (n, D)
            total += latents.sum(dim=0)
            total_of_squares += latents.square().sum(dim=0)
            count += len(latents)
        if count == 0:
            raise ConfigError("fit_statistics needs at least one caption")
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((total_of_squares / count - mean.square()).clamp_min(1e-8).sqrt())

    @torch.no_grad()
    def encode(self, token_ids: Tensor) -> Tensor:
        """Clean latents (..., L, D) of token ids (..., L).

        Raises ConfigError where no sentence encoder is attached.
        """
        rows = rearrange(token_ids, "... l -> (...) l")
        latents = (self._raw_latents(rows) - self.mean.float()) / self.std.float()  # (N, L, D)
        latents = torch.where((rows == PAD_ID)[..., None], self.pad_latent.float(), latents)
        return latents.view(*token_ids.shape, self.latent_dim)  # (..., L, D)

    def predict(
        self, output: Tensor, noisy: Tensor, log_nsr: Tensor, with_logits: bool = True
    ) -> Prediction:
        """The output (..., L, D) is x0-hat; logits (..., L, V) are the decoder's, in float32."""
        latents = output.float()
        return Prediction(latents, self._decode(latents) if with_logits else None)

    def losses(
        self,
        prediction: Prediction,
        token_ids: Tensor,
        clean: Tensor,
        position_weights: Tensor,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Squared error, cross-entropy on x0-hat, and the decoder's own, per example (...,).

        See LatentSpace.losses. The decoder's own is the cross-entropy on clean latents with a
        little noise, so that it forgives small errors; without a generator they get none.
        """
        if prediction.logits is None:
            raise ValueError("losses need a prediction made with with_logits=True")
        squared_error = (prediction.latents - clean).square().mean(dim=-1)  # (..., L)
        if generator is not None:
            clean = add_decoder_noise(clean, generator)
        return {
            "mse": weighted_mean(squared_error, position_weights),
            "cross_entropy": cross_entropy(prediction.logits, token_ids, position_weights),
            "decoder_cross_entropy": cross_entropy(
                self._decode(clean), token_ids, position_weights
            ),
        }

    def _decode(self, latents: Tensor) -> Tensor:
        rows = rearrange(latents, "... l d -> (...) l d")
        return self.decoder(rows).view(*latents.shape[:-1], self.vocabulary_size)  # (..., L, V)

    def _attached(self) -> tuple[SentenceEncoder, PreTrainedTokenizerFast]:
        if self.sentence_encoder is None or self.tokenizer is None:
            raise ConfigError(
                "this latent space was loaded for captioning only: to train with it, call "
                "attach_encoder(load_sentence_encoder(), tokenizer) first"
            )
        return self.sentence_encoder, self.tokenizer

    def _raw_latents(self, token_ids: Tensor) -> Tensor:
        """Latents (N, L, D) of token ids (N, L) before standardisation; zeros at [PAD]."""
        sentence_encoder, tokenizer = self._attached()
        texts, spans = caption_spans(tokenizer, token_ids)
        spans = spans.to(token_ids.device)
        hidden, piece_spans, num_pieces = sentence_encoder(texts, token_ids.device)  # (N, P, D)
        shares = shared_characters(spans, piece_spans)  # (N, L, P)
        last = torch.arange(hidden.shape[1], device=hidden.device) == num_pieces[:, None] - 1
        is_end = token_ids == EOS_ID  # (N, L)
        shares = torch.where(is_end[..., None], last[:, None], shares).float()  # (N, L, P)
        shares = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1)
        return shares @ hidden  # (N, L, D)


def caption_spans(
    tokenizer: PreTrainedTokenizerFast, token_ids: Tensor
) -> tuple[list[str], Tensor]:
    """The texts of token ids (N, L), and token spans in characters (N, L, 2), (0, 0) from [EOS]."""
    texts = []
    spans = torch.zeros(*token_ids.shape, 2, dtype=torch.long)
    for row, ids in enumerate(token_ids.tolist()):
        end = next((i for i, token_id in enumerate(ids) if token_id in (EOS_ID, PAD_ID)), len(ids))
        text, token_spans = join_tokens(tokenizer.convert_ids_to_tokens(ids[:end]))
        texts.append(text)
        if token_spans:
            spans[row, :end] = torch.tensor(token_spans)
    return texts, spans


def shared_characters(spans: Tensor, piece_spans: Tensor) -> Tensor:
    """Which tokens, spans (N, L, 2), and pieces, (N, P, 2), share a character: bool (N, L, P)."""
    starts, ends = spans[:, :, None].unbind(dim=-1)  # (N, L, 1)
    piece_starts, piece_ends = piece_spans[:, None].unbind(dim=-1)  # (N, 1, P)
    return (starts < piece_ends) & (piece_starts < ends)


def add_decoder_noise(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Clean latents (..., L, D) with the noise of TEncDM's decoder (Shabalin et al. 2024).

    One t in [.001, .15] per example; tangent schedule, log-NSR = 2 log(7 tan(pi t / 2)).
    """
    uniform = torch.rand(clean.shape[:-2], generator=generator, device=generator.device)
    time = (0.001 + 0.149 * uniform).to(clean.device)  # (...,)
    alpha, sigma = signal_and_noise(2 * torch.log(7 * torch.tan(pi / 2 * time)))
    noise = torch.randn(clean.shape, generator=generator, device=generator.device)
    return alpha[..., None, None] * clean + sigma[..., None, None] * noise.to(clean.device)
