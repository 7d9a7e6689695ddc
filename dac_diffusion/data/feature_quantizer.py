"""Fitting a residual quantiser to the features of a feature cache, which stay on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dac_diffusion.codecs.quantizer_fitting import QuantizerFitting, fit_quantizer
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.errors import ConfigError, DataError

BATCH_FRAMES = 32768  # 100 MB of 768 dimensions


@dataclass(frozen=True)
class CacheFrames:
    """The real frames of a cache in batches (R, D), clip by clip, the clips in random order.

    The same order every time it is gone through. The last batch is a smaller one.
    """

    cache: FeatureCache
    batch_frames: int = BATCH_FRAMES
    seed: int = 0

    def __iter__(self) -> Iterator[Tensor]:
        waiting: list[Tensor] = []
        count = 0
        for clip in np.random.default_rng(self.seed).permutation(len(self.cache)):
            audio = self.cache.batch([int(clip)])
            waiting.append(audio.features[audio.mask])  # (S, D)
            count += len(waiting[-1])
            while count >= self.batch_frames:
                whole = torch.cat(waiting)
                yield whole[: self.batch_frames]
                waiting = [whole[self.batch_frames :].clone()]  # lets the rest of it go
                count -= self.batch_frames
        if count > 0:
            yield torch.cat(waiting)


def fit_quantizer_on_cache(
    cache: FeatureCache,
    num_codebooks: int = 16,
    codebook_size: int = 1024,
    normalise: bool = False,
    fitting: QuantizerFitting | None = None,
    batch_frames: int = BATCH_FRAMES,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[ResidualQuantizer, list[float]]:
    """A quantiser of a cache's features, and the share of their variance left after each stage.

    The seed decides the order of the clips as well. Raises ConfigError for settings that make no
    sense, DataError for a cache of codes or one with too few frames.
    """
    if cache.codebook_size is not None:
        raise DataError(f"{cache.folder}: holds codes already; give a cache of features")
    if batch_frames < 1:
        raise ConfigError(f"batch_frames={batch_frames}: must be at least 1")
    fitting = fitting or QuantizerFitting()
    quantizer = ResidualQuantizer(
        cache.feature_dim, num_codebooks, codebook_size, normalise, fitted_on=cache.encoder
    ).to(device)
    batches = CacheFrames(cache, batch_frames, fitting.seed)
    left = fit_quantizer(quantizer, batches, fitting, progress)
    return quantizer.cpu().eval(), left
