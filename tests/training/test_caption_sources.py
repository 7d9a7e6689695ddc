"""Batches from feature caches, with stand-ins for the caches."""

from __future__ import annotations

import pytest
import torch

from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import DataError
from dac_diffusion.text.tokenizer import decode_captions, train_tokenizer
from dac_diffusion.training import caption_sources
from dac_diffusion.training.caption_sources import BatchShape, CachedCaptions, open_caches

WORDS = ["dog", "cat", "rain", "wind", "bell", "horn", "drum", "frog"]


class Cache:
    """Clip i of the cache numbered n has features n * 100 + i, and captions that name both."""

    def __init__(self, number: int, size: int, captions: int, encoder: str = "one") -> None:
        self.number, self.size, self.count = number, size, captions
        self.encoder = {"name": encoder}

    def __len__(self) -> int:
        return self.size

    def captions(self, i: int) -> tuple[str, ...]:
        return tuple(f"{WORDS[i]} {WORDS[self.number]} {WORDS[k]}" for k in range(self.count))

    def batch(self, indices: list[int]) -> AudioFeatures:
        frames = torch.tensor([int(i) + 1 for i in indices])
        mask = torch.arange(int(frames.max())) < frames[:, None]
        values = torch.tensor([self.number * 100.0 + int(i) for i in indices])
        features = values[:, None, None] * mask[..., None]
        return AudioFeatures(features.expand(-1, -1, 2), mask, values[:, None])


def source(*caches: Cache, captions: int = 2, seed: int = 0) -> CachedCaptions:
    tokenizer = train_tokenizer([" ".join(WORDS)], 200)
    return CachedCaptions(caches, tokenizer, BatchShape(16, captions, 6), seed)  # type: ignore[arg-type]


def test_captions_belong_to_their_clip_in_every_data_set() -> None:
    captions = source(Cache(0, 3, 4), Cache(1, 5, 1))
    seen = set()
    for step in range(5):
        batch = captions.batch(step, 0)
        assert batch.token_ids.shape == (16, 2, 6)
        texts = decode_captions(captions.tokenizer, batch.token_ids.flatten(0, 1))
        for row in range(16):
            value = int(batch.audio.pooled[row, 0])
            number, clip = divmod(value, 100)
            seen.add(value)
            first, second = (text.split() for text in texts[2 * row : 2 * row + 2])
            assert first[:2] == second[:2] == [WORDS[clip], WORDS[number]]
            # Different captions where there are enough, the same one twice where not.
            assert (first != second) == (number == 0)
            assert batch.audio.mask[row].sum() == clip + 1
            assert (batch.audio.features[row, : clip + 1] == value).all()
            assert (batch.audio.features[row, clip + 1 :] == 0).all()
    assert seen == {0, 1, 2, 100, 101, 102, 103, 104}


def test_a_batch_is_a_function_of_seed_step_and_rank() -> None:
    captions = source(Cache(0, 8, 3))
    first, again = captions.batch(3, 1), captions.batch(3, 1)
    assert torch.equal(first.token_ids, again.token_ids)
    assert torch.equal(first.audio.features, again.audio.features)
    others = [
        captions.batch(4, 1),
        captions.batch(3, 0),
        source(Cache(0, 8, 3), seed=1).batch(3, 1),
    ]
    assert all(not torch.equal(first.token_ids, other.token_ids) for other in others)


def test_the_first_clips_come_with_all_their_captions() -> None:
    audio, references = source(Cache(0, 3, 4), Cache(1, 5, 1)).first(4)
    assert audio.pooled[:, 0].tolist() == [0, 1, 2, 100]
    assert [len(group) for group in references] == [4, 4, 4, 1]
    assert len(source(Cache(0, 3, 4)).first(10)[1]) == 3


def test_caches_of_two_encoders_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"a": Cache(0, 2, 1), "b": Cache(1, 2, 1), "c": Cache(1, 2, 1, encoder="two")}
    monkeypatch.setattr(FeatureCache, "open", lambda folder: made[folder])
    assert len(open_caches(["a", "b"])) == 2
    with pytest.raises(DataError, match="c: holds features of another encoder than a"):
        caption_sources.open_caches(["a", "c"])
