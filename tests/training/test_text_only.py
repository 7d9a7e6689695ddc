"""Training from captions alone: its batches, and that what learns from them names sounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.objective import ObjectiveConfig
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import decode_captions, train_tokenizer
from dac_diffusion.training.caption_sources import BatchShape, FrozenParts
from dac_diffusion.training.captioner import (
    CaptionerTask,
    CaptionerTrainer,
    CaptionerTrainingConfig,
    SamplingConfig,
)
from dac_diffusion.training.loop import LoopConfig, fit
from dac_diffusion.training.text_only import EmbeddedCaptions, TextOnlyCaptions, embed_captions
from tests.helpers import RATE

GROUPS = [
    ["a dog barks", "one dog is barking", "barking of a dog"],
    ["rain falls"],
    ["birds sing", "a dog barks"],
]
SIZE = 6
LENGTH = 12


def embed_toys(texts: Sequence[str]) -> Tensor:
    """Unit vectors that depend on the text alone."""
    rows = [
        torch.randn(SIZE, generator=torch.Generator().manual_seed(sum(map(ord, text))))
        for text in texts
    ]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([text for own in GROUPS for text in own], 200)


def make_source(
    tokenizer: PreTrainedTokenizerFast, clips: int = 50, captions: int = 1, variance: float = 0.0
) -> TextOnlyCaptions:
    pool = embed_captions(GROUPS, embed_toys, progress=False)
    return TextOnlyCaptions(pool, tokenizer, BatchShape(clips, captions, LENGTH), 3, variance)


# --- Captions with their vectors ---


def test_every_text_is_embedded_once_and_keeps_its_vector() -> None:
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> Tensor:
        seen.extend(texts)
        return embed_toys(texts)

    pool = embed_captions(GROUPS, embed, progress=False)
    assert Counter(seen) == dict.fromkeys({text for own in GROUPS for text in own}, 1)
    for clip, own in enumerate(GROUPS):
        for number, text in enumerate(own):
            found = pool.select(np.array([clip]), np.array([number]))
            assert torch.equal(found, embed_toys([text]))


def test_a_caption_stands_behind_its_own_vector(tokenizer: PreTrainedTokenizerFast) -> None:
    batch = make_source(tokenizer).batch(0, 0)
    assert batch.token_ids.shape == (50, 1, LENGTH)
    assert batch.audio.features.shape == (50, 1, SIZE)
    assert batch.audio.mask.all()
    assert torch.equal(batch.audio.features[:, 0], batch.audio.pooled)
    texts = decode_captions(tokenizer, batch.token_ids[:, 0])
    torch.testing.assert_close(batch.audio.pooled, embed_toys(texts) * SIZE**0.5)
    assert set(texts) == {text for own in GROUPS for text in own}
    # Clips are equally likely, not captions: the one of a single caption comes a third of the time.
    many = make_source(tokenizer, clips=3000).batch(0, 0)
    share = decode_captions(tokenizer, many.token_ids[:, 0]).count("rain falls") / 3000
    assert abs(share - 1 / 3) < 5 * math.sqrt(2 / 9 / 3000)


def test_a_vector_may_stand_for_the_clips_other_captions(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    batch = make_source(tokenizer, captions=2).batch(0, 0)
    assert batch.token_ids.shape == (50, 2, LENGTH)
    pairs = [decode_captions(tokenizer, ids) for ids in batch.token_ids]
    torch.testing.assert_close(
        batch.audio.pooled, embed_toys([pair[0] for pair in pairs]) * SIZE**0.5
    )
    for pair in pairs:
        assert any(set(pair) <= set(own) for own in GROUPS)
        assert (pair[0] == pair[1]) == (pair[0] == "rain falls")  # that clip has no other


@pytest.mark.parametrize("variance", [0.015, 0.3])
def test_the_noise_has_the_given_variance_in_every_element(
    variance: float, tokenizer: PreTrainedTokenizerFast
) -> None:
    count = 4000
    quiet = make_source(tokenizer, count).batch(7, 0)
    loud = make_source(tokenizer, count, variance=variance).batch(7, 0)
    assert torch.equal(quiet.token_ids, loud.token_ids)
    # In units of the unit vector: the features are sqrt(E) times as long.
    drawn = (loud.audio.pooled - quiet.audio.pooled).double() / SIZE**0.5  # (count, E)
    deviation = math.sqrt(variance)
    assert drawn.mean(dim=0).abs().max() < 5 * deviation / math.sqrt(count)
    error = (drawn.square().mean(dim=0) / variance - 1).abs()
    assert error.max() < 5 * math.sqrt(2 / count)
    within = (drawn.abs() < deviation).double().mean()
    assert abs(within - 0.6827) < 5 * math.sqrt(0.22 / (SIZE * count))  # Gaussian
    correlation = torch.corrcoef(drawn.T) - torch.eye(SIZE)
    assert correlation.abs().max() < 5 / math.sqrt(count)


def test_renormalised_vectors_have_unit_length_and_the_same_direction(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    source = make_source(tokenizer, variance=0.3)
    plain = source.batch(1, 0).audio.pooled
    again = replace(source, renormalise=True).batch(1, 0).audio.pooled
    torch.testing.assert_close(again.norm(dim=-1), torch.full((50,), SIZE**0.5))
    expected = plain / plain.norm(dim=-1, keepdim=True) * SIZE**0.5
    torch.testing.assert_close(again, expected)
    assert plain.norm(dim=-1).std() > 0.1


def test_a_batch_is_a_function_of_seed_step_and_rank(tokenizer: PreTrainedTokenizerFast) -> None:
    source = make_source(tokenizer, variance=0.015)
    first = source.batch(5, 0)
    source.batch(6, 0)
    torch.manual_seed(77)
    np.random.seed(77)
    for same in (source.batch(5, 0), make_source(tokenizer, variance=0.015).batch(5, 0)):
        assert torch.equal(same.token_ids, first.token_ids)
        assert torch.equal(same.audio.features, first.audio.features)
    for other in (source.batch(6, 0), source.batch(5, 1), replace(source, seed=4).batch(5, 0)):
        assert not torch.equal(other.token_ids, first.token_ids)
        assert not torch.equal(other.audio.features, first.audio.features)


def test_validation_clips_are_not_compared_with_the_caption_they_are_given(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    vectors, references = make_source(tokenizer, variance=0.3).first(9)
    assert references == [GROUPS[0][1:], GROUPS[1], GROUPS[2][1:]]
    firsts = embed_toys([own[0] for own in GROUPS])
    torch.testing.assert_close(vectors.pooled, firsts * SIZE**0.5)  # and without noise


# --- The mechanism: learn from texts, then caption sounds ---

SOUNDS = ("a dog barks", "rain falls", "birds sing", "a bell rings")
VARIANTS = ("{}", "{} far away", "then {}", "{} again")


def toy_sound(kind: int, seed: int) -> np.ndarray:
    """One of four sounds that an untrained encoder tells apart: bands of noise, somewhat varied."""
    spectrum = np.fft.rfft(np.random.default_rng([kind, seed]).normal(size=RATE))
    hertz = np.fft.rfftfreq(RATE, 1 / RATE)
    low, high = ((100, 400), (600, 1500), (2500, 5000), (8000, 14000))[kind]
    band = np.fft.irfft(spectrum * ((hertz > low) & (hertz < high)))
    return (0.1 * band / band.std()).astype(np.float32)


def toy_encoder(directions: Tensor) -> JointEmbeddingEncoder:
    """Its joint vectors of the four sounds nearly coincide with `directions` (4, E)."""
    torch.manual_seed(0)
    size = directions.shape[1]
    encoder = ConvolutionalEncoder(channels=(4, 8, 8, 16), width=32, depth=1, dropout=0.0).eval()
    first, second = torch.nn.Linear(32, size), torch.nn.Linear(size, size)
    projection = torch.nn.Sequential(first, torch.nn.GELU(), second)
    sounds = [torch.from_numpy(toy_sound(kind, seed)) for kind in range(4) for seed in range(6)]
    waveform = torch.nn.functional.pad(
        torch.stack(sounds), (0, encoder.canvas_samples(RATE) - RATE)
    )
    with torch.no_grad():
        pooled = encoder(waveform, torch.full((24,), RATE)).pooled
        spread = pooled.std(dim=0)
        first.weight.copy_(torch.randn(size, 32) / spread / 32**0.5)
        first.bias.copy_(-first.weight @ pooled.mean(dim=0))
        hidden = torch.nn.functional.gelu(first(pooled))
        wanted = directions.repeat_interleave(6, dim=0)
        inputs = torch.cat([hidden, torch.ones(24, 1)], dim=1)
        ridge = inputs.T @ inputs + 0.01 * torch.eye(size + 1)
        solved = torch.linalg.solve(ridge, inputs.T @ wanted)
        second.weight.copy_(solved[:-1].T)
        second.bias.copy_(solved[-1])
    return JointEmbeddingEncoder.from_encoder(encoder, projection)


def toy_texts(directions: Tensor) -> Callable[[Sequence[str]], Tensor]:
    """Texts near the direction of the sound they name, each a little beside it."""

    def embed(texts: Sequence[str]) -> Tensor:
        vectors = []
        for text in texts:
            (kind,) = [i for i, sound in enumerate(SOUNDS) if sound in text]
            own = torch.Generator().manual_seed(sum(map(ord, text)))
            beside = torch.randn(directions.shape[1], generator=own)
            vectors.append(directions[kind] + 0.3 * torch.nn.functional.normalize(beside, dim=-1))
        return torch.nn.functional.normalize(torch.stack(vectors), dim=-1)

    return embed


def test_a_captioner_that_read_only_captions_names_sounds(tmp_path: Path) -> None:
    directions = torch.linalg.qr(torch.randn(16, 4, generator=torch.Generator().manual_seed(2)))[
        0
    ].T
    groups = [[variant.format(sound) for variant in VARIANTS] for sound in SOUNDS]
    tokenizer = train_tokenizer([text for own in groups for text in own], 200)
    pool: EmbeddedCaptions = embed_captions(groups, toy_texts(directions), progress=False)
    source = TextOnlyCaptions(pool, tokenizer, BatchShape(16, 1, 8), 0, noise_variance=0.015)
    torch.manual_seed(1)
    denoiser = CaptionDenoiser(
        latent_dim=16, audio_dim=16, pooled_dim=16, width=48, depth=2, heads=2, max_length=8
    )
    space = EmbeddingSpace(len(tokenizer), 16, initial_std=0.1)
    trainer = CaptionerTrainer(denoiser, space, NoiseSchedule.gumbel(), ObjectiveConfig(), 0)
    scorer = AudioTextScorer(len(tokenizer), 16, width=24, depth=1).eval()
    task = CaptionerTask(
        trainer,
        CaptionerTrainingConfig(evaluation_clips=4, fit_schedule_from=100, fit_schedule_every=50),
        FrozenParts(toy_encoder(directions), scorer, tokenizer),
        source,
        source,
        SamplingConfig(num_candidates=1),
    )
    losses: list[float] = []
    after_step = task.after_step

    def remember(step: int, outputs: dict[str, Tensor]) -> None:
        losses.append(float(outputs["loss"]))
        after_step(step, outputs)

    task.after_step = remember  # type: ignore[method-assign]
    loop = LoopConfig(
        200,
        learning_rate=3e-3,
        warmup_steps=20,
        ema_decay=0.98,
        evaluate_every=200,
        num_workers=0,
        best_metric="+cider_d",
    )
    fit(task, loop, tmp_path, progress=False)
    assert np.mean(losses[-40:]) < 0.5 * np.mean(losses[:40])

    captioner = DiffusionCaptioner.from_pretrained(tmp_path, "float32")
    heard = [(kind, toy_sound(kind, seed)) for kind in range(4) for seed in (100, 101, 102)]
    results = captioner([(sound, RATE) for _, sound in heard], num_captions=1)
    assert isinstance(results, list)
    right = [
        SOUNDS[kind] in result.captions[0].text
        for (kind, _), result in zip(heard, results, strict=True)
    ]
    assert sum(right) >= 11, [result.captions[0].text for result in results]
