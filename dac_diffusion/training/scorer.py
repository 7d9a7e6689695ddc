"""Training of a scorer on the pooled vectors of a frozen audio encoder.

The small encoder is trained together with its scorer (training/encoder.py). Where the encoder
comes from elsewhere, or the captions are tokenized in another way, this is the stage that gives the
captioner something to rank by.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dac_diffusion.files import atomic_folder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.tokenizer import encode_captions
from dac_diffusion.training.batches import to_device
from dac_diffusion.training.caption_sources import CaptionBatch, CaptionSource


@dataclass(frozen=True)
class ScorerTrainingConfig:
    """What ranks captions: a published CLAP, or a text tower that is trained here.

    clap: the CLAP whose audio embedding the clips' vectors are; its text side ranks, and nothing is
    trained (training/clap_ranking.py). The folder or Hub id of a ClapModel, or a .pt file of
    laion-clap, whose tokenizer is clap_tokenizer, a folder or Hub id. The other settings are for a
    tower of our own: its sizes, and how many clips are told apart in a step.
    """

    clap: str | None = None
    clap_tokenizer: str = "roberta-base"
    batch_size: int = 128
    width: int = 192
    depth: int = 2
    heads: int = 3
    embedding_dim: int = 256
    dropout: float = 0.1


class ScorerTrainer(nn.Module):
    """A scorer with its contrastive loss over the clips of a batch."""

    def __init__(self, scorer: AudioTextScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, batch: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Symmetric InfoNCE over B clips with one caption each (CLIP, arXiv 2103.00020).

        Clips with the same caption are no negatives of one another.
        """
        captions = batch.token_ids[:, 0]  # (B, L)
        audio = self.scorer.embed_audio(batch.features.pooled)  # (B, E)
        text = self.scorer.embed_text(captions)  # (B, E)
        logits = self.scorer.logit_scale.exp().clamp(max=100.0) * audio @ text.T  # (B, B)
        same = (captions[:, None] == captions[None]).all(dim=-1)  # (B, B)
        itself = torch.eye(len(captions), dtype=torch.bool, device=captions.device)
        logits = logits.masked_fill(same & ~itself, -1e4)
        target = torch.arange(len(captions), device=captions.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        right = (logits.argmax(dim=1) == target).float().mean()
        return {"loss": loss, "retrieved": right.detach()}


class ScorerTask:
    """The scorer's training as the loop sees it (`training/loop.py`)."""

    def __init__(
        self, model: ScorerTrainer, training: CaptionSource, validation: CaptionSource
    ) -> None:
        self.model: nn.Module = model  # what the loop trains
        self.trainer = model
        self.training, self.validation = training, validation

    def batch(self, step: int, rank: int, world_size: int) -> CaptionBatch:
        """Random clips with one caption each."""
        return self.training.batch(step, rank)

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        """Nothing to do between steps."""

    @torch.no_grad()
    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        """The loss, and how often a caption finds its clip, among up to 200 validation clips."""
        audio, references = self.validation.first(200)
        length = self.trainer.scorer.config.max_length
        texts = [group[0] for group in references]
        ids = encode_captions(self.validation.tokenizer, texts, length)[:, None]  # (B, 1, L)
        batch = to_device(CaptionBatch(audio, ids), self.trainer.scorer.device)
        outputs = self.trainer(batch, torch.Generator())
        return {name: float(value) for name, value in outputs.items()}

    def state(self) -> dict[str, Any]:
        """Nothing beyond the weights."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing beyond the weights."""

    def export(self, folder: Path) -> None:
        """Write the scorer."""
        with atomic_folder(folder) as partial:
            self.trainer.scorer.save_pretrained(partial)
