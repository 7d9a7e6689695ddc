"""A tiny trainer of captioners with audio as a prefix, and batches for it."""

from __future__ import annotations

from typing import Any

import torch

from dac_diffusion.autoregressive.language_models import LanguageModel, SmallModelConfig
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.text.tokenizer import encode_captions, train_tokenizer
from dac_diffusion.training.caption_sources import CaptionBatch, Waveforms
from dac_diffusion.training.prefix import (
    PrefixConfig,
    PrefixTrainer,
    QFormerConfig,
    build_prefix_trainer,
    make_language_model,
)

CAPTIONS = ["a dog barks", "rain falls", "describe the detail of this audio detailed"]
QFORMER = QFormerConfig(window=3, width=16, layers=1, heads=2, feed_forward=24, dropout=0.0)
SMALL = SmallModelConfig(width=16, layers=2, heads=2, feed_forward=24, dropout=0.0)
GENERATOR = torch.Generator()


def config(**settings: Any) -> PrefixConfig:
    return PrefixConfig(**{"qformer": QFORMER, "small": SMALL, **settings})


def make(encoder: Any = None, **settings: Any) -> tuple[PrefixTrainer, LanguageModel]:
    """A tiny trainer, the same at every call, and its language model."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(CAPTIONS, 200)
    chosen = config(**settings)
    model = make_language_model(chosen, tokenizer)
    encoder = random_encoder("ced") if encoder is None else encoder
    return build_prefix_trainer(chosen, model, encoder, 8), model


def feature_batch(model: LanguageModel, dim: int = 48) -> CaptionBatch:
    """Random features of two clips of CED, the second with padding, and their captions."""
    features = torch.randn(2, 24, dim, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(24) < torch.tensor([[24], [12]])
    ids = encode_captions(model.tokenizer, CAPTIONS[:2], 8)
    return CaptionBatch(AudioFeatures(features, mask, features[:, 0]), ids[:, None])


def waveform_batch(model: LanguageModel) -> CaptionBatch:
    waveform = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(1))
    audio = Waveforms(waveform, torch.tensor([16000, 12000]))
    ids = encode_captions(model.tokenizer, CAPTIONS[:2], 8)
    return CaptionBatch(audio, ids[:, None])


def descend(trainer: PrefixTrainer, batch: CaptionBatch, steps: int = 40) -> list[float]:
    """The losses of some steps of training on one batch."""
    weights = [p for p in trainer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    losses = []
    trainer.train()
    for _ in range(steps):
        loss = trainer(batch, GENERATOR)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
