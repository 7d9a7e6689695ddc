"""Training of the plain autoregressive captioner on features of a frozen audio encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MBartForConditionalGeneration

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.decoding import DecodingSettings, decode
from dac_diffusion.autoregressive.network import AudioProjection, caption_logits, encode_audio
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.files import atomic_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.text.tokenizer import PAD_ID
from dac_diffusion.training.caption_sources import CaptionBatch, CaptionSource, FrozenParts
from dac_diffusion.training.captioner import CaptionerTrainingConfig
from dac_diffusion.training.detectors import report_samples


class AutoregressiveTrainer(nn.Module):
    """Projection and encoder-decoder with their loss; the audio side is frozen and encoded."""

    def __init__(
        self,
        projection: AudioProjection,
        network: MBartForConditionalGeneration,
        label_smoothing: float,
    ) -> None:
        super().__init__()
        self.projection, self.network = projection, network
        self.label_smoothing = label_smoothing

    def forward(self, batch: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of every token given those before it, over B clips with K captions."""
        encoded = encode_audio(self.projection, self.network, batch.audio)
        token_ids = batch.token_ids.flatten(0, 1)  # (B K, L)
        logits = caption_logits(self.network, encoded.repeat(batch.token_ids.shape[1]), token_ids)
        flat, targets = logits.float().flatten(0, 1), token_ids.flatten()
        loss = F.cross_entropy(
            flat, targets, ignore_index=PAD_ID, label_smoothing=self.label_smoothing
        )
        with torch.no_grad():
            plain = F.cross_entropy(flat, targets, ignore_index=PAD_ID)
        return {"loss": loss, "cross_entropy": plain}


class AutoregressiveTask:
    """The autoregressive captioner's training as the loop sees it (`training/loop.py`)."""

    def __init__(
        self,
        model: AutoregressiveTrainer,
        config: CaptionerTrainingConfig,
        parts: FrozenParts,
        training: CaptionSource,
        validation: CaptionSource,
        max_length: int,
    ) -> None:
        self.model: nn.Module = model  # what the loop trains
        self.trainer, self.config, self.parts = model, config, parts
        self.max_length = max_length
        self.training, self.validation = training, validation

    def batch(self, step: int, rank: int, world_size: int) -> CaptionBatch:
        """Random scenes of the pool, each with new captions."""
        return self.training.batch(step, rank)

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        """Nothing to do between steps."""

    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        """Caption fixed validation clips greedily; see training/detectors.py."""
        audio, references = self.validation.first(self.config.evaluation_clips)
        return report_samples(self.sample, self.parts.tokenizer, audio, references, writer, step)

    def sample(self, audio: AudioFeatures) -> Tensor:
        """The greedy caption of every clip as token ids (B, L)."""
        audio = audio.to(self.trainer.network.device)
        encoded = encode_audio(self.trainer.projection, self.trainer.network, audio)
        settings = DecodingSettings(method="greedy", max_length=self.max_length)
        return decode(self.trainer.network, encoded, settings, [])[:, 0]

    def captioner(self) -> AutoregressiveCaptioner:
        """The captioner made of the current weights."""
        return AutoregressiveCaptioner(
            encoder=self.parts.encoder,
            projection=self.trainer.projection,
            network=self.trainer.network,
            tokenizer=self.parts.tokenizer,
            scorer=self.parts.scorer,
            max_length=self.max_length,
        )

    def state(self) -> dict[str, Any]:
        """Nothing beyond the weights."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing beyond the weights."""

    def export(self, folder: Path) -> None:
        """Write the whole captioner, ready for `AutoregressiveCaptioner.from_pretrained`."""
        with atomic_folder(folder) as partial, quiet_libraries():
            self.captioner().save_pretrained(partial)
