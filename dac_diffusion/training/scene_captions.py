"""Batches of scenes with fresh captions, which every captioner here is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.scene_features import SceneFeatures
from dac_diffusion.data.soundscapes.captions import write_captions
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.tokenizer import encode_captions


@dataclass(frozen=True)
class FrozenParts:
    """What the captioner needs and its training leaves as it is."""

    encoder: ConvolutionalEncoder
    scorer: AudioTextScorer
    tokenizer: PreTrainedTokenizerFast


@dataclass(frozen=True)
class CaptionBatch:
    """Features of B clips and K captions of each, token_ids (B, K, L)."""

    audio: AudioFeatures
    token_ids: Tensor


@dataclass(frozen=True)
class SceneCaptions:
    """Rendered scenes, their features, and how many of them make a batch."""

    pool: ScenePool
    features: SceneFeatures
    tokenizer: PreTrainedTokenizerFast
    clips_per_batch: int
    captions_per_clip: int
    max_length: int
    seed: int

    @classmethod
    def of_both(
        cls,
        training: tuple[ScenePool, SceneFeatures],
        validation: tuple[ScenePool, SceneFeatures],
        tokenizer: PreTrainedTokenizerFast,
        batch_shape: tuple[int, int, int],
        seed: int,
    ) -> tuple[SceneCaptions, SceneCaptions]:
        """Training and validation scenes; batch_shape: clips, captions of each, tokens of each."""
        clips, captions, length = batch_shape
        first, second = (
            cls(pool, features, tokenizer, clips, captions, length, seed)
            for pool, features in (training, validation)
        )
        return first, second

    def batch(self, step: int, rank: int) -> CaptionBatch:
        """Random scenes of the pool, each with new captions; a pure function of its arguments."""
        rng = np.random.default_rng([self.seed, 2, step, rank])
        clips, per_clip = self.clips_per_batch, self.captions_per_clip
        scenes = rng.integers(len(self.pool), size=clips)
        views = rng.integers(self.features.num_views, size=clips)
        texts: list[str] = []
        for index in scenes:
            texts += write_captions(self.pool.scenes[int(index)], rng, per_clip)
        token_ids = encode_captions(self.tokenizer, texts, self.max_length)
        return CaptionBatch(
            self.features.select(scenes, views), token_ids.view(clips, per_clip, self.max_length)
        )

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """Features of the first scenes, unaltered, and their references: fixed validation clips."""
        count = min(count, len(self.pool))
        audio = self.features.select(np.arange(count), np.zeros(count, dtype=np.int64))
        return audio, [list(self.pool.captions[i]) for i in range(count)]
