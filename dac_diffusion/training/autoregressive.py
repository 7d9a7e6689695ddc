"""Training of the plain autoregressive captioner on features of a frozen audio encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dac_diffusion.autoregressive.caption_tokens import CaptionTokens
from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner, Ranking
from dac_diffusion.autoregressive.decoding import DecodingMethod, DecodingSettings, decode
from dac_diffusion.autoregressive.network import EncodedAudio, caption_logits, encode_audio
from dac_diffusion.captioning.defaults import given_or
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.files import atomic_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.ranking.detectors import RULES, check_detector
from dac_diffusion.ranking.hybrid import Normalisation
from dac_diffusion.training.caption_sources import CaptionBatch, CaptionSource, FrozenParts
from dac_diffusion.training.captioner import CaptionerTrainingConfig
from dac_diffusion.training.detectors import report_samples


@dataclass(frozen=True)
class DecodingConfig:
    """How the captioner decodes and ranks unless a call says otherwise.

    See AutoregressiveCaptioner.__call__; evaluation in training is always greedy. min_length:
    tokens before a caption may end; decoded_length: tokens after which it is cut (None:
    text.max_length, which training captions are cut at). error_detector: "rules", or the checkpoint
    of FENSE's detector with its BERT's folder as error_encoder; the files stay where they are.
    """

    decoding: DecodingMethod = "nucleus"
    num_candidates: int = 10
    num_beams: int = 4
    temperature: float = 1.0
    top_p: float = 0.9
    length_penalty: float = 1.0
    diversity_penalty: float = 0.5
    no_repeat_ngram: int = 0
    early_stopping: bool = False
    min_length: int = 1
    decoded_length: int | None = None
    ranking: Ranking = "audio_text"
    audio_text_weight: float = 1.0
    likelihood_weight: float = 0.0
    agreement_weight: float = 0.0
    score_normalisation: Normalisation = "none"
    error_threshold: float | None = None
    error_detector: str = RULES
    error_encoder: str | None = None
    redundancy_weight: float = 0.0

    def __post_init__(self) -> None:
        """Raise ConfigError for a detector without what it needs."""
        check_detector(self.error_detector, self.error_encoder)


class AutoregressiveTrainer(nn.Module):
    """Projection and encoder-decoder with their loss; the audio side is frozen and encoded."""

    def __init__(
        self, projection: nn.Module, network: nn.Module, pad_id: int, label_smoothing: float
    ) -> None:
        super().__init__()
        self.projection, self.network = projection, network
        self.pad_id, self.label_smoothing = pad_id, label_smoothing

    def forward(self, batch: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of every token given those before it, over B clips with K captions."""
        encoded = encode_audio(self.projection, self.network, batch.features)
        return caption_loss(
            self.network, encoded, batch.token_ids, self.pad_id, self.label_smoothing
        )


def caption_loss(
    network: Any, audio: EncodedAudio, token_ids: Tensor, pad_id: int, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """ "loss", smoothed, and "cross_entropy", not, per token of captions (B, K, L) of B clips.

    Padding is no target. Networks and prompts may be of any kind (autoregressive/network.py).
    """
    flat_ids = token_ids.flatten(0, 1)  # (B K, L)
    logits = caption_logits(network, audio.repeat(token_ids.shape[1]), flat_ids)
    flat, targets = logits.float().flatten(0, 1), flat_ids.flatten()
    loss = F.cross_entropy(flat, targets, ignore_index=pad_id, label_smoothing=label_smoothing)
    with torch.no_grad():
        plain = F.cross_entropy(flat, targets, ignore_index=pad_id)
    return {"loss": loss, "cross_entropy": plain}


class CaptionTrainer(Protocol):
    """What every trainer of an autoregressive captioner has."""

    @property
    def projection(self) -> nn.Module:
        """From audio features to embeddings."""

    @property
    def network(self) -> Any:
        """The transformers model that writes."""


def captioner_of(
    trainer: CaptionTrainer, parts: FrozenParts, max_length: int, decoding: DecodingConfig
) -> AutoregressiveCaptioner:
    """The captioner made of a trainer's current weights."""
    return AutoregressiveCaptioner(
        encoder=parts.encoder,
        projection=trainer.projection,
        network=trainer.network,
        tokenizer=parts.tokenizer,
        scorer=parts.scorer,
        max_length=max_length,
        **dataclasses.asdict(decoding),
    )


class AutoregressiveTask:
    """An autoregressive captioner's training as the loop sees it (`training/loop.py`)."""

    def __init__(
        self,
        model: nn.Module,
        config: CaptionerTrainingConfig,
        training: CaptionSource,
        validation: CaptionSource,
        make_captioner: Callable[[], AutoregressiveCaptioner],
    ) -> None:
        """make_captioner: the captioner of the model's current weights; see `captioner_of`."""
        self.model = model  # what the loop trains
        self.config, self.captioner = config, make_captioner
        self.training, self.validation = training, validation

    def batch(self, step: int, rank: int, world_size: int) -> CaptionBatch:
        """Random scenes of the pool, each with new captions."""
        return self.training.batch(step, rank)

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        """Nothing to do between steps."""

    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        """Caption fixed validation clips greedily; see training/detectors.py."""
        audio, references = self.validation.first(self.config.evaluation_clips)
        tokenizer = self.validation.tokenizer
        return report_samples(self.sample, tokenizer, audio, references, writer, step)

    def sample(self, audio: AudioFeatures) -> Tensor:
        """The greedy caption of every clip as token ids (B, L)."""
        captioner = self.captioner()
        encoded = captioner.encode(audio.to(captioner.network.device))
        settings = DecodingSettings(
            method="greedy",
            min_length=captioner.config.min_length,
            max_length=given_or(captioner.config.decoded_length, captioner.config.max_length),
        )
        tokens = CaptionTokens.of(captioner.tokenizer)
        return decode(captioner.network, tokens, encoded, settings, [])[:, 0]

    def state(self) -> dict[str, Any]:
        """Nothing beyond the weights."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing beyond the weights."""

    def export(self, folder: Path) -> None:
        """Write the whole captioner, ready for `AutoregressiveCaptioner.from_pretrained`."""
        with atomic_folder(folder) as partial, quiet_libraries():
            self.captioner().save_pretrained(partial)
