"""Batches of clips and captions, which every captioner here is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.scene_features import SceneFeatures
from dac_diffusion.data.soundscapes.captions import write_captions
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError, DataError
from dac_diffusion.text.tokenizer import encode_captions, normalise_caption


@dataclass(frozen=True)
class FrozenParts:
    """What the captioner needs and its training leaves as it is.

    encoder: any AudioEncoder; scorer: any CaptionScorer.
    """

    encoder: Any
    scorer: Any
    tokenizer: PreTrainedTokenizerFast


@dataclass(frozen=True)
class Waveforms:
    """Recordings of B clips: waveform (B, T) with zeros behind each, num_samples (B,)."""

    waveform: Tensor
    num_samples: Tensor


@dataclass(frozen=True)
class CaptionBatch:
    """Audio of B clips and K captions of each, token_ids (B, K, L).

    audio: features, or for a training that reaches the encoder the recordings themselves.
    clips: their places in the source, where it has places.
    """

    audio: AudioFeatures | Waveforms
    token_ids: Tensor
    clips: tuple[int, ...] = ()

    @property
    def features(self) -> AudioFeatures:
        """The audio as features; raises ConfigError for a batch of recordings."""
        if isinstance(self.audio, Waveforms):
            raise ConfigError("train_encoder=false: batches must hold features, not recordings")
        return self.audio


@dataclass(frozen=True)
class Clips:
    """All N clips of a source: their names and captions, and pooled vectors (N, P)."""

    names: Sequence[str]
    captions: Sequence[Sequence[str]]
    pooled: Tensor

    def captions_by_name(self) -> dict[str, list[str]]:
        """The captions of all clips of a name, which clips of two data sets may share.

        By such a name the captions of all of them are excluded (retrieval/datastore.py), so that no
        clip finds its own.
        """
        found: dict[str, list[str]] = {}
        for name, own in zip(self.names, self.captions, strict=True):
            found.setdefault(name, []).extend(own)
        return found


@dataclass(frozen=True)
class BatchShape:
    """How many clips a batch has, how many captions each, of how many tokens."""

    clips: int
    captions: int
    length: int


class CaptionSource(Protocol):
    """Where batches come from: scenes with fresh captions, or a feature cache of recordings."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """What the captions are tokenized with."""

    def batch(self, step: int, rank: int) -> CaptionBatch:
        """Random clips with captions; a pure function of its arguments."""

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """Features and references of the first clips: fixed validation clips."""


@dataclass(frozen=True)
class SceneCaptions:
    """Rendered scenes and their features, with new captions in every batch.

    normalise: captions are lower-cased and without punctuation.
    """

    pool: ScenePool
    features: SceneFeatures
    tokenizer: PreTrainedTokenizerFast
    shape: BatchShape
    seed: int
    normalise: bool = False

    def batch(self, step: int, rank: int) -> CaptionBatch:
        """Random scenes of the pool, each with new captions."""
        rng = np.random.default_rng([self.seed, 2, step, rank])
        shape = self.shape
        scenes = rng.integers(len(self.pool), size=shape.clips)
        views = rng.integers(self.features.num_views, size=shape.clips)
        texts: list[str] = []
        for index in scenes:
            texts += write_captions(self.pool.scenes[int(index)], rng, shape.captions)
        token_ids = encode_batch(self.tokenizer, texts, shape, self.normalise)
        return CaptionBatch(self.features.select(scenes, views), token_ids, tuple(scenes.tolist()))

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """Features of the first scenes, unaltered, and their references."""
        count = min(count, len(self.pool))
        audio = self.features.select(np.arange(count), np.zeros(count, dtype=np.int64))
        return audio, [list(self.pool.captions[i]) for i in range(count)]

    def clips(self) -> Clips:
        """All scenes, unaltered, with numbers as names."""
        names = [str(i) for i in range(len(self.pool))]
        return Clips(names, self.pool.captions, self.features.pooled[0].float())


@dataclass(frozen=True)
class PooledCaptions:
    """Clips that are heard as their pooled vectors alone, which is all that a scorer asks for.

    Every clip is equally likely; see CachedCaptions for captions and `normalise`.
    """

    pool: Clips
    tokenizer: PreTrainedTokenizerFast
    shape: BatchShape
    seed: int
    normalise: bool = False

    def batch(self, step: int, rank: int) -> CaptionBatch:
        """Random clips, each with captions drawn from its own."""
        rng = np.random.default_rng([self.seed, 6, step, rank])
        chosen = rng.integers(len(self.pool.names), size=self.shape.clips)
        texts: list[str] = []
        for index in chosen:
            texts += draw_captions(self.pool.captions[int(index)], self.shape.captions, rng)
        token_ids = encode_batch(self.tokenizer, texts, self.shape, self.normalise)
        return CaptionBatch(self._features(chosen), token_ids, tuple(chosen.tolist()))

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """The vectors of the first clips, and all captions they have."""
        chosen = np.arange(min(count, len(self.pool.names)))
        return self._features(chosen), [list(own) for own in self.pool.captions[: len(chosen)]]

    def _features(self, chosen: np.ndarray) -> AudioFeatures:
        """The vectors (B, P) of clips, also as a single feature each, (B, 1, P)."""
        pooled = self.pool.pooled[torch.from_numpy(chosen)]  # (B, P)
        mask = torch.ones(len(chosen), 1, dtype=torch.bool)
        return AudioFeatures(pooled[:, None], mask, pooled)


@dataclass(frozen=True)
class CachedCaptions:
    """Recordings of one or several data sets with features and captions from their caches.

    Every clip of every data set is equally likely. A clip with fewer captions than a batch wants
    has some of them twice. normalise: captions are lower-cased and without punctuation.
    """

    caches: Sequence[FeatureCache]
    tokenizer: PreTrainedTokenizerFast
    shape: BatchShape
    seed: int
    normalise: bool = False

    def __len__(self) -> int:
        return sum(len(cache) for cache in self.caches)

    def batch(self, step: int, rank: int) -> CaptionBatch:
        """Random clips, each with captions drawn from its own."""
        rng = np.random.default_rng([self.seed, 3, step, rank])
        shape = self.shape
        chosen = rng.integers(len(self), size=shape.clips)
        texts: list[str] = []
        for index in chosen:
            cache, place = self._find(int(index))
            texts += draw_captions(cache.captions(place), shape.captions, rng)
        token_ids = encode_batch(self.tokenizer, texts, shape, self.normalise)
        return CaptionBatch(self._features(chosen), token_ids, tuple(chosen.tolist()))

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """Features of the first clips, and all captions they have."""
        chosen = np.arange(min(count, len(self)))
        found = [self._find(int(index)) for index in chosen]
        return self._features(chosen), [list(cache.captions(i)) for cache, i in found]

    def clips(self) -> Clips:
        """All clips, by their names in their data sets."""
        places = [(cache, i) for cache in self.caches for i in range(len(cache))]
        return Clips(
            [cache.name(i) for cache, i in places],
            [cache.captions(i) for cache, i in places],
            torch.cat([cache.pooled() for cache in self.caches]),
        )

    def _find(self, index: int) -> tuple[FeatureCache, int]:
        for cache in self.caches:
            if index < len(cache):
                return cache, index
            index -= len(cache)
        raise IndexError(index)

    def _features(self, chosen: np.ndarray) -> AudioFeatures:
        """The features of clips, (B, S, D), by their place in all caches together."""
        if len(self.caches) == 1:
            return self.caches[0].batch(chosen)
        found = [self._find(int(index)) for index in chosen]
        single = [cache.batch([place]) for cache, place in found]
        longest = max(each.features.shape[1] for each in single)
        shape = (len(single), longest)
        features = single[0].features.new_zeros(*shape, single[0].features.shape[2])  # (B, S, D)
        mask = torch.zeros(shape, dtype=torch.bool)
        for row, each in enumerate(single):
            count = each.features.shape[1]
            features[row, :count], mask[row, :count] = each.features[0], each.mask[0]
        return AudioFeatures(features, mask, torch.cat([each.pooled for each in single]))


def draw_captions(own: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """So many of a clip's captions, in random order; some twice where it has fewer."""
    order = rng.permutation(max(len(own), count)) % len(own)
    return [own[i] for i in order[:count]]


def encode_batch(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], shape: BatchShape, normalise: bool
) -> Tensor:
    """Token ids (B, K, L) of B times K captions."""
    if normalise:
        texts = [normalise_caption(text) for text in texts]
    token_ids = encode_captions(tokenizer, texts, shape.length)
    return token_ids.view(shape.clips, shape.captions, shape.length)


def open_caches(folders: Sequence[str]) -> list[FeatureCache]:
    """The feature caches in some folders; raises DataError where they are of several encoders."""
    caches = [FeatureCache.open(folder) for folder in folders]
    for folder, cache in zip(folders, caches, strict=True):
        if cache.encoder != caches[0].encoder:
            raise DataError(
                f"{folder}: holds features of another encoder than {folders[0]}; prepare both with "
                "the same encoder, weights and window_seconds"
            )
    return caches
