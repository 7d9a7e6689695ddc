"""Audio features as a few tokens of a language model: one Q-Former query per window of features.

After SALMONN's window-level Q-Former (Tang et al., arXiv 2310.13289), with the sizes of the
DCASE 2024 system of CED, Q-Former and Llama-2 (arXiv 2406.13275, "LOAE").
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange, repeat
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError

# What a window is cut from: "frequency_major" has the first band of a part of the clip over time,
# then the next band; "time_major" has the bands of the first moment, then those of the next.
FeatureOrder = Literal["frequency_major", "time_major"]


class WindowQFormer(ModelMixin, ConfigMixin):
    """Features (B, S, D) -> embeddings (B, S // window, W), one for each window of features.

    Windows follow one another without overlap, and what is left behind the last is dropped:
    248 features (10 s of CED) in windows of 17 give 14 embeddings. keep_remainder: the last window
    may be shorter instead. A clip with less than one window has one all the same. Features that
    the mask hides are not attended to.

    Our encoders give features time-major, `bands` of them for each moment: 4 of CED, and 1 of
    encoders without bands, for which both orders are the same. The published code has them
    frequency-major within each part of `time_patches` that CED hears at once (63: 10.08 s), so
    that a window holds up to 17 moments of one band. Here that is done with a clip's own features
    only. Its embeddings depend neither on its batch nor on the padding there; the mask must show
    its features first and the padding behind them.

    Raises ConfigError for sizes that make no network, and for features that are not of `bands`.
    """

    @register_to_config
    def __init__(
        self,
        audio_dim: int,
        width: int,
        window: int = 17,
        order: FeatureOrder = "frequency_major",
        bands: int = 4,
        time_patches: int = 63,
        keep_remainder: bool = False,
        hidden: int = 768,
        layers: int = 2,
        heads: int = 12,
        feed_forward: int = 3072,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        _check(window, order, bands, time_patches, hidden, heads)
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, hidden))
        settings = Blip2QFormerConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=feed_forward,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            cross_attention_frequency=1,
            encoder_hidden_size=audio_dim,
            # Fused kernels are chosen by whether anything in the batch is masked, and differ in
            # their last bits; for a single query they save nothing.
            attn_implementation="eager",
        )
        self.qformer = Blip2QFormerModel(settings)
        self.to_network = nn.Linear(hidden, width)

    def forward(self, audio: AudioFeatures) -> tuple[Tensor, Tensor]:
        """Embeddings (B, windows, W), and their mask (B, windows) of 0 and 1.

        A window counts if all of its features are audio, or with keep_remainder any of them. The
        first counts always. The others' embeddings are 0.
        """
        config = self.config
        features = audio.features.to(self.query.dtype)
        if config.order == "frequency_major" and config.bands > 1:
            features = frequency_major(features, audio.mask, config.bands, config.time_patches)
        windows, heard = self._windows(features, audio.mask)  # (B, N, w, D), (B, N, w)
        counts = heard.any(dim=-1) if config.keep_remainder else heard.all(dim=-1)  # (B, N)
        counts[:, 0] = heard[:, 0].any(dim=-1)
        # A softmax over nothing is not a number, so the others attend to whatever is there.
        attended = heard | ~counts[..., None]
        hidden = self.qformer(
            query_embeds=self.query.expand(counts.numel(), -1, -1),
            encoder_hidden_states=rearrange(windows, "b n w d -> (b n) w d"),
            encoder_attention_mask=rearrange(attended, "b n w -> (b n) w").long(),
        ).last_hidden_state[:, 0]  # (B N, hidden)
        embeddings = rearrange(self.to_network(hidden), "(b n) w -> b n w", n=counts.shape[1])
        return embeddings.masked_fill(~counts[..., None], 0.0), counts.long()

    def num_windows(self, length: int) -> int:
        """How many embeddings are made of so many features, those of padding included."""
        size = self.config.window
        return max(1, -(-length // size) if self.config.keep_remainder else length // size)

    def _windows(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, S, D) cut into windows (B, N, w, D), and the mask (B, N, w)."""
        size, length = self.config.window, features.shape[1]
        total = self.num_windows(length) * size
        features = F.pad(features[:, :total], (0, 0, 0, max(0, total - length)))  # (B, N w, D)
        mask = F.pad(mask[:, :total].bool(), (0, max(0, total - length)))  # (B, N w)
        return (
            rearrange(features, "b (n w) d -> b n w d", w=size),
            rearrange(mask, "b (n w) -> b n w", w=size),
        )


def frequency_major(features: Tensor, mask: Tensor, bands: int, time_patches: int) -> Tensor:
    """Time-major features (B, S, D) in the order (part, band, time), the padding as it was.

    The parts are those of at most `time_patches` moments that the encoder heard at once; the last
    of a clip has as many as are the clip's own. Raises ConfigError where S is no multiple of bands.
    """
    length = features.shape[1]
    if length % bands:
        raise ConfigError(
            f"bands={bands}: {length} features per clip are not those of {bands} bands; give the "
            "projection the encoder's number of bands (1 with frequency_pooling=mean)"
        )
    own = torch.div(mask.sum(dim=1), bands, rounding_mode="floor")[:, None]  # (B, 1) moments
    places = torch.arange(length, device=features.device)  # (S,)
    part = torch.div(places, time_patches * bands, rounding_mode="floor")
    inside = places % (time_patches * bands)
    moments = (own - part * time_patches).clamp(1, time_patches)  # (B, S)
    band = torch.div(inside, moments, rounding_mode="floor")
    source = (part * time_patches + inside % moments) * bands + band  # (B, S)
    source = torch.where(places < own * bands, source, places)
    return features.gather(1, repeat(source, "b s -> b s d", d=features.shape[2]))


def _check(window: int, order: str, bands: int, time_patches: int, hidden: int, heads: int) -> None:
    if order not in get_args(FeatureOrder):
        raise ConfigError(f"order={order!r}: must be one of {', '.join(get_args(FeatureOrder))}")
    for name, value in (("window", window), ("bands", bands), ("time_patches", time_patches)):
        if value < 1:
            raise ConfigError(f"{name}={value}: must be at least 1")
    if heads < 1 or hidden % heads:
        raise ConfigError(f"a width of {hidden} cannot be divided into {heads} attention heads")
