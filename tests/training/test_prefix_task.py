"""The task of captioners with audio as a prefix: greedy captions, and what is exported."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from prefix_parts import CAPTIONS, descend, feature_batch, make, waveform_batch

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.language_models import LanguageModel
from dac_diffusion.autoregressive.low_rank import has_adapters
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.loading import random_encoder
from dac_diffusion.errors import CheckpointError
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.training.autoregressive import DecodingConfig
from dac_diffusion.training.caption_sources import CaptionBatch, FrozenParts
from dac_diffusion.training.captioner import CaptionerTrainingConfig
from dac_diffusion.training.prefix import PrefixTask, PrefixTrainer, prefix_captioner
from tests.autoregressive.language_model_folders import write_folder
from tests.helpers import RATE, noise


class _Source:
    """A CaptionSource of one batch."""

    def __init__(self, batch: CaptionBatch, tokenizer: Any) -> None:
        self._batch, self.tokenizer = batch, tokenizer

    def batch(self, step: int, rank: int) -> CaptionBatch:
        return self._batch

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        return self._batch.audio, [[text] for text in CAPTIONS[:2]]


def make_task(trainer: PrefixTrainer, model: LanguageModel, encoder: Any) -> PrefixTask:
    scorer = AudioTextScorer(len(model.tokenizer), pooled_dim=48, width=24, max_length=8)
    parts = FrozenParts(encoder, scorer, model.tokenizer)
    source = _Source(feature_batch(model), model.tokenizer)
    captioner = partial(prefix_captioner, trainer, parts, 8, DecodingConfig())
    return PrefixTask(trainer.eval(), CaptionerTrainingConfig(), source, source, captioner)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_greedy_captions_of_validation_clips(tmp_path: Path, dtype: str) -> None:
    write_folder(tmp_path, "llama")
    trainer, model = make(language_model=str(tmp_path), dtype=dtype)
    ids = make_task(trainer, model, random_encoder("ced")).sample(feature_batch(model).audio)
    assert ids.shape[0] == 2
    assert 1 <= ids.shape[1] <= 8


def test_what_is_exported_needs_no_adapters(tmp_path: Path) -> None:
    write_folder(tmp_path / "llama", "llama")
    encoder = random_encoder("ced")
    settings = {"language_model": str(tmp_path / "llama"), "train_encoder": True}
    trainer, model = make(encoder, **settings)
    descend(trainer, waveform_batch(model), steps=3)
    task = make_task(trainer, model, encoder)
    task.export(tmp_path / "model")
    assert has_adapters(trainer.network)
    assert has_adapters(encoder)
    loaded = AutoregressiveCaptioner.from_pretrained(tmp_path / "model", "float32", "cpu")
    assert list(loaded.network.state_dict()) == list(_stock_names(tmp_path / "llama"))
    assert list(loaded.encoder.state_dict()) == list(random_encoder("ced").state_dict())
    prompts = list(trainer.prompt.left), list(trainer.prompt.right)
    assert (loaded.config.prompt_left, loaded.config.prompt_right) == prompts
    batch = waveform_batch(model)
    audio = batch.audio
    with torch.no_grad():
        heard = loaded.encode(loaded.encoder(audio.waveform, audio.num_samples)).prefix
        expected = task.captioner().encode(trainer.features(batch)).prefix
    torch.testing.assert_close(heard, expected, rtol=0, atol=1e-5)


def test_a_network_may_have_rows_that_are_no_tokens(tmp_path: Path) -> None:
    """Published Llamas have, to a round number of rows; with too few rows it cannot be loaded."""
    network = write_folder(tmp_path / "llama", "llama")
    network.resize_token_embeddings(16)
    network.save_pretrained(tmp_path / "llama")
    encoder = random_encoder("ced")
    trainer, model = make(encoder, language_model=str(tmp_path / "llama"))
    make_task(trainer, model, encoder).export(tmp_path / "model")
    loaded = AutoregressiveCaptioner.from_pretrained(tmp_path / "model", "float32", "cpu")
    assert (len(loaded.tokenizer), loaded.network.config.vocab_size) == (12, 16)
    assert loaded(noise(1.0), RATE, num_captions=1).captions
    loaded.tokenizer.add_tokens([f"word{i}" for i in range(5)])
    loaded.tokenizer.save_pretrained(tmp_path / "model/tokenizer")
    with pytest.raises(CheckpointError, match="has 17 tokens, but the network has 16; they come"):
        AutoregressiveCaptioner.from_pretrained(tmp_path / "model")


def _stock_names(folder: Path) -> list[str]:
    from dac_diffusion.autoregressive.language_models import load_language_model

    return list(load_language_model(folder).network.state_dict())
