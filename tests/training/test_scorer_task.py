"""Training of a scorer on pooled vectors of a frozen encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.tokenizer import encode_captions, train_tokenizer
from dac_diffusion.training.caption_sources import CaptionBatch
from dac_diffusion.training.loop import fit
from dac_diffusion.training.scorer import ScorerTask, ScorerTrainer
from dac_diffusion.training.task import LoopConfig

SOUNDS = ["dog", "cat", "rain", "wind", "bell", "horn", "drum", "frog"]


class Sounds:
    """Eight sounds, each with a pooled vector of its own and one caption."""

    def __init__(self) -> None:
        self.tokenizer = train_tokenizer([f"a {sound} is heard" for sound in SOUNDS], 100)
        generator = torch.Generator().manual_seed(0)
        self.pooled = torch.randn(len(SOUNDS), 16, generator=generator)

    def of(self, chosen: list[int]) -> CaptionBatch:
        pooled = self.pooled[chosen]
        audio = AudioFeatures(pooled[:, None], torch.ones(len(chosen), 1, dtype=torch.bool), pooled)
        texts = [f"a {SOUNDS[i]} is heard" for i in chosen]
        return CaptionBatch(audio, encode_captions(self.tokenizer, texts, 8)[:, None])

    def batch(self, step: int, rank: int) -> CaptionBatch:
        generator = torch.Generator().manual_seed(step)
        return self.of(torch.randperm(len(SOUNDS), generator=generator).tolist())

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        chosen = list(range(len(SOUNDS)))[:count]
        return self.of(chosen).audio, [[f"a {SOUNDS[i]} is heard", "noise"] for i in chosen]


def make_task() -> ScorerTask:
    torch.manual_seed(0)
    sounds = Sounds()
    scorer = AudioTextScorer(len(sounds.tokenizer), 16, 24, 1, 3, 8, 16, dropout=0.0)
    return ScorerTask(ScorerTrainer(scorer), sounds, sounds)


def test_it_learns_which_caption_belongs_to_which_sound(tmp_path: Path) -> None:
    task = make_task()
    before = task.evaluate(0, task.model, None)
    config = LoopConfig(max_steps=100, learning_rate=3e-3, warmup_steps=5, num_workers=0)
    fit(task, config, tmp_path, progress=False)
    after = task.evaluate(100, task.model, None)
    assert before["retrieved"] < 0.9
    assert after["retrieved"] == 1.0
    assert after["loss"] < 0.5 * before["loss"]
    loaded = AudioTextScorer.from_pretrained(tmp_path / "model").eval()
    saved = ScorerTask(ScorerTrainer(loaded), task.training, task.validation)
    assert saved.evaluate(100, saved.model, None)["retrieved"] == 1.0


@torch.no_grad()
def test_clips_with_one_caption_are_no_negatives_of_each_other() -> None:
    task = make_task()
    task.trainer.eval()
    sounds = task.training
    twice = task.trainer(sounds.of([0, 0, 1]), torch.Generator())["loss"]
    audio = task.trainer.scorer.embed_audio(sounds.pooled[[0, 0, 1]])
    text = task.trainer.scorer.embed_text(sounds.of([0, 0, 1]).token_ids[:, 0])
    logits = task.trainer.scorer.logit_scale.exp() * audio @ text.T
    expected = 0.0
    for side in (logits, logits.T):
        for row, others in ((0, [0, 2]), (1, [1, 2]), (2, [0, 1, 2])):
            expected -= float(side[row, row] - side[row, others].logsumexp(0)) / 6
    assert float(twice) == pytest.approx(expected, rel=1e-4)
