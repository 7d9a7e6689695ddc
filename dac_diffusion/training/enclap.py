"""Training of captioners on audio codes: EnCLAP, EnCLAP++ and CLAP-ART."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dac_diffusion.autoregressive.bart import build_bart, is_shifted, shift_encoder_positions
from dac_diffusion.autoregressive.code_embedding import CodeEmbedding, crop_codes, hide
from dac_diffusion.autoregressive.language_models import LanguageModel
from dac_diffusion.autoregressive.masked_codec import MaskedCodecHeads, draw_spans
from dac_diffusion.autoregressive.network import caption_logits, encode_audio
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError
from dac_diffusion.training.caption_sources import CaptionBatch

FRAME = 3  # the places that are no codes: vector, <s>, </s>


@dataclass(frozen=True)
class EnclapConfig:
    """The network that reads audio codes, and its two losses; the defaults are EnCLAP's.

    bart: the folder or Hub id of a published BART (facebook/bart-base, facebook/bart-large), with
    its own sizes and tokenizer; None: a small random one of the sizes below, over our own words.
    max_codes: codes of a clip that are heard, at most the network's positions less 3; of a longer
    clip a random run in training, the first ones otherwise. sequence_vector: whether the clip's
    vector stands in front of them (autoregressive/code_embedding.py). label_smoothing: of the
    captions' cross-entropy. mcm_weight: of masked codec modelling. mask_probability, mask_span:
    which share of the codes is hidden, in spans of how many; 0 hides none. codebook_decay: codebook
    i counts codebook_decay^i in masked codec modelling.
    """

    bart: str | None = None
    width: int = 256
    encoder_layers: int = 3
    decoder_layers: int = 3
    heads: int = 4
    feed_forward: int = 1024
    dropout: float = 0.1
    max_codes: int = 1021
    sequence_vector: bool = True
    label_smoothing: float = 0.2
    mcm_weight: float = 0.7
    mask_probability: float = 0.15
    mask_span: int = 10
    codebook_decay: float = 0.5

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that makes no sense."""
        for name in ("width", "encoder_layers", "decoder_layers", "heads", "feed_forward",
                     "max_codes", "mask_span"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.width % self.heads:
            raise ConfigError(f"width={self.width}: must be a multiple of heads={self.heads}")
        for name in ("dropout", "label_smoothing", "mask_probability"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be from 0 to below 1")
        for name in ("mcm_weight", "codebook_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 0")


@dataclass(frozen=True)
class CodeSizes:
    """What an encoder of codes gives, by the names that it has for it.

    num_codebooks: N; codebook_size: entries of each; pooled_dim: numbers of the clip's vector.
    """

    num_codebooks: int
    codebook_size: int
    pooled_dim: int


class EnclapTrainer(nn.Module):
    """Code embedding, BART and the heads of masked codec modelling, with their loss.

    The heads belong to the training: a saved captioner is without them. With a sequence vector the
    network's encoder positions are shifted (autoregressive/bart.py), unless they are already.
    Raises ConfigError where the parts or the config contradict each other.
    """

    def __init__(self, projection: CodeEmbedding, network: Any, config: EnclapConfig) -> None:
        super().__init__()
        self.projection, self.network, self.config = projection, network, config
        sizes, positions = projection.config, network.config.max_position_embeddings
        if sizes.max_codes + FRAME > positions:
            raise ConfigError(
                f"max_codes={sizes.max_codes}: the network has {positions} positions, and {FRAME} "
                f"are for the clip's vector, <s> and </s>; set it to {positions - FRAME} or less"
            )
        if sizes.sequence_vector:
            shift_encoder_positions(network)
        elif is_shifted(network):
            raise ConfigError(
                "sequence_vector=false: this network was trained with the clip's vector in front; "
                "set it to true, or begin with another network"
            )
        self.heads = MaskedCodecHeads(
            sizes.width, sizes.num_codebooks, sizes.codebook_size, config.codebook_decay
        )

    def forward(self, batch: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """loss = caption + mcm_weight * masked_codec, over B clips with K captions each.

        caption: smoothed cross-entropy of every token given those before it and the audio, part of
        whose codes is hidden: the encoder runs once, for both losses. masked_codec: see
        MaskedCodecHeads. cross_entropy: that of the captions without smoothing, for comparison.
        Which codes are hidden is drawn from `generator`, and in training mode which are heard.
        """
        projection, config = self.projection, self.config
        projection.check(batch.features, masked=False)
        audio = crop_codes(
            batch.features, projection.config.max_codes, generator if self.training else None
        )
        hidden = self._draw(audio, generator)  # (B, S, N)
        heard = hide(audio.features.long(), hidden, projection.mask_id)
        encoded = encode_audio(
            projection, self.network, AudioFeatures(heard, audio.mask, audio.pooled)
        )
        assert encoded.hidden is not None
        places = slice(projection.codes_start, projection.codes_start + heard.shape[1])
        masked_codec = self.heads(encoded.hidden[:, places], audio.features, hidden)
        token_ids = batch.token_ids.flatten(0, 1)  # (B K, L)
        logits = caption_logits(self.network, encoded.repeat(batch.token_ids.shape[1]), token_ids)
        flat, targets = logits.float().flatten(0, 1), token_ids.flatten()
        padding = self.network.config.pad_token_id
        caption = F.cross_entropy(
            flat, targets, ignore_index=padding, label_smoothing=config.label_smoothing
        )
        with torch.no_grad():
            plain = F.cross_entropy(flat, targets, ignore_index=padding)
        return {
            "loss": caption + config.mcm_weight * masked_codec,
            "caption": caption,
            "masked_codec": masked_codec,
            "cross_entropy": plain,
        }

    def _draw(self, audio: AudioFeatures, generator: torch.Generator) -> Tensor:
        """Which codes to hide, (B, S, N)."""
        _, places, books = audio.features.shape
        config = self.config
        lengths = audio.mask.sum(dim=1)  # (B,)
        return draw_spans(
            lengths, places, books, config.mask_probability, config.mask_span, generator
        )


def build_enclap(
    config: EnclapConfig,
    sizes: CodeSizes,
    tokenizer: Any,
    max_length: int,
    bart: LanguageModel | None = None,
) -> EnclapTrainer:
    """Everything that is trained, for an encoder of some sizes.

    tokenizer: of the captions; max_length: their tokens; bart: what load_language_model made of
    config.bart, or that of a captioner to go on from, with its tokenizer; None: a small random one.
    Raises ConfigError where they do not fit, or the network is no BART.
    """
    if bart is None and config.bart is not None:
        raise ConfigError(f"bart={config.bart}: load the network that the config names")
    if bart is not None and bart.network.config.model_type != "bart":
        raise ConfigError(
            f"bart={config.bart}: is a {bart.network.config.model_type}, not a BART; name one such "
            "as facebook/bart-base"
        )
    if bart is None:
        network = build_bart(
            tokenizer,
            width=config.width,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            heads=config.heads,
            feed_forward=config.feed_forward,
            dropout=config.dropout,
            max_positions=max(config.max_codes + FRAME, max_length + 1),
        )
    else:
        network = bart.network.train()
    if max_length > network.config.max_position_embeddings:
        raise ConfigError(
            f"max_length={max_length}: the network has {network.config.max_position_embeddings} "
            "positions; set it to at most as many"
        )
    projection = CodeEmbedding(
        num_codebooks=sizes.num_codebooks,
        codebook_size=sizes.codebook_size,
        pooled_dim=sizes.pooled_dim,
        width=network.config.d_model,
        max_codes=config.max_codes,
        sequence_vector=config.sequence_vector,
    )
    projection.take_frame(network)
    return EnclapTrainer(projection, network, config)
