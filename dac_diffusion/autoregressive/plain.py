"""The plain baseline's network: audio features into a stock transformer encoder-decoder.

The encoder-decoder is transformers' MBart, which is BART with layer normalisation before each
branch: such a network trains from scratch without care, and its `generate` has the KV cache and
the decoding methods of the field. Nothing of it is pretrained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import MBartConfig, MBartForConditionalGeneration

from dac_diffusion.autoregressive.network import choose_attention
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.text.tokenizer import BOS_ID, EOS_ID, PAD_ID

MAX_FRAMES = 128


class AudioProjection(ModelMixin, ConfigMixin):
    """Audio features as input embeddings: the pooled vector in front, then the frames."""

    @register_to_config
    def __init__(self, audio_dim: int, pooled_dim: int, width: int) -> None:
        super().__init__()
        self.frames_norm, self.frames_in = nn.LayerNorm(audio_dim), nn.Linear(audio_dim, width)
        self.pooled_norm, self.pooled_in = nn.LayerNorm(pooled_dim), nn.Linear(pooled_dim, width)

    def forward(self, audio: AudioFeatures) -> tuple[Tensor, Tensor]:
        """features (B, S, D), pooled (B, P) -> embeddings (B, S + 1, W), mask (B, S + 1)."""
        frames = self.frames_in(self.frames_norm(audio.features))  # (B, S, W)
        pooled = self.pooled_in(self.pooled_norm(audio.pooled))  # (B, W)
        mask = F.pad(audio.mask, (1, 0), value=True)  # (B, S + 1)
        return torch.cat([pooled[:, None], frames], dim=1), mask.long()


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Sizes of the encoder-decoder; by default as many parameters as the diffusion captioner.

    max_frames: audio frames that have a position, the pooled vector included (None: 128, or more
    where the longest window of the encoder or the longest caption has more).
    """

    width: int = 256
    encoder_layers: int = 2
    decoder_layers: int = 7
    heads: int = 4
    feed_forward: int = 1024
    dropout: float = 0.1
    max_frames: int | None = None


def build_network(
    config: AutoregressiveConfig, vocabulary_size: int, places: int = 0
) -> MBartForConditionalGeneration:
    """A randomly initialised encoder-decoder with tied embeddings.

    places: positions that it has at least, unless the config says how many it has.
    """
    positions = max(MAX_FRAMES, places) if config.max_frames is None else config.max_frames
    settings = MBartConfig(
        vocab_size=vocabulary_size,
        d_model=config.width,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        encoder_ffn_dim=config.feed_forward,
        decoder_ffn_dim=config.feed_forward,
        dropout=config.dropout,
        max_position_embeddings=positions,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        decoder_start_token_id=BOS_ID,
        forced_eos_token_id=None,  # a caption that never ends is cut, as the diffusion captioner's
    )
    network = MBartForConditionalGeneration(settings)
    choose_attention(network, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    # A saved model carries the generation settings; the ones given at each call are what counts.
    network.generation_config.forced_eos_token_id = None
    return network
