"""Clips for an encoder inside another: lengths, rates, batches, windows."""

from __future__ import annotations

import numpy as np
import soxr
import torch
from torch import Tensor

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.clips import (
    common_canvas,
    encode_clips,
    join_clips,
    resample_clip,
    resampled_length,
    window_vectors,
)

SOUND = torch.randn(48000, generator=torch.Generator().manual_seed(0))


class Sums:
    """Pools how many samples it hears, and their sum; features are the samples."""

    sampling_rate, window_seconds, pooled_dim = 10, 3.0, 2

    def __init__(self, unit: int = 5, rate: int = 10, is_limit: bool = False) -> None:
        self.unit, self.sampling_rate, self.window_is_limit = unit, rate, is_limit

    def canvas_samples(self, num_samples: int) -> int:
        return -(-num_samples // self.unit) * self.unit

    def __call__(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
        assert waveform.shape[1] == self.canvas_samples(int(num_samples.max()))
        mask = torch.arange(waveform.shape[1]) < num_samples[:, None]
        pooled = torch.stack([num_samples.float(), (waveform * mask).sum(dim=1)], dim=1)
        return AudioFeatures(waveform[:, :, None], mask, pooled)


def test_resampling_gives_the_length_it_promises() -> None:
    for source, target in ((48000, 24000), (48000, 16000), (24000, 16000), (32000, 24000)):
        for length in (1, 2, 1000, 24001, 47999):
            clip = SOUND[:length]
            found = resample_clip(clip, source, target)
            assert len(found) == resampled_length(length, source, target)
            expected = soxr.resample(clip.numpy(), source, target, "HQ")[: len(found)]
            np.testing.assert_array_equal(found[: len(expected)], expected)
            assert abs(len(found) - length * target / source) < 1
    assert resample_clip(clip, 24000, 24000) is clip


def test_on_an_accelerator_every_call_has_as_many_clips() -> None:
    """With the "meta" device in its place, whose tensors have shapes only."""
    shapes = []

    class Encoder:
        def canvas_samples(self, num_samples: int) -> int:
            return -(-num_samples // 100) * 100

        def __call__(self, waveform: Tensor, num_samples: Tensor) -> AudioFeatures:
            shapes.append((*waveform.shape, *num_samples.shape))
            return AudioFeatures(waveform[:, :, None], waveform > 0, waveform[:, :1])

    clips = [torch.zeros(length, device="meta") for length in (90, 250, 30, 100, 210)]
    found = encode_clips(Encoder(), clips, batch_size=5)
    assert shapes == [(5, 100, 5), (5, 300, 5)]
    assert [each.features.shape for each in found] == [
        (1, canvas, 1) for canvas in (100, 300, 100, 100, 300)
    ]


def test_clips_of_several_lengths_as_one_batch() -> None:
    clips = [torch.arange(1.0, length + 1) for length in (7, 3, 10)]
    audio = join_clips(encode_clips(Sums(), clips, 3))
    assert audio.features.shape == (3, 10, 1)
    for row, clip in enumerate(clips):
        assert audio.mask[row].tolist() == [place < len(clip) for place in range(10)]
        assert audio.features[row, :, 0].tolist() == clip.tolist() + [0.0] * (10 - len(clip))
        assert audio.pooled[row].tolist() == [len(clip), float(clip.sum())]


def test_vectors_of_long_clips_are_means_of_their_windows() -> None:
    clips = [torch.ones(length) for length in (20, 75, 62)]
    expected = [
        [20, 20],
        [(30 * 30 + 30 * 30 + 15 * 15) / 75] * 2,
        [(30 * 30 + 32 * 32) / 62] * 2,  # 0.2 s are no window of their own
    ]
    torch.testing.assert_close(window_vectors(Sums(), clips), torch.tensor(expected))
    limited = window_vectors(Sums(is_limit=True), clips)
    expected[2] = [30, 30]  # three windows of 30 samples, of which the last two overlap
    torch.testing.assert_close(limited, torch.tensor(expected))


def test_a_single_window_gives_the_encoders_own_bits() -> None:
    clip = SOUND[:29]
    (alone,) = encode_clips(Sums(), [clip], 1)
    assert torch.equal(window_vectors(Sums(), [clip, SOUND])[0], alone.pooled[0])


def test_windows_of_one_canvas_have_one_canvas_in_every_encoder() -> None:
    encoders, seen = [Sums(unit=30, rate=60), Sums(unit=7, rate=20)], {}
    for length in range(1, 500):
        canvas = common_canvas(encoders, length, 60)
        assert canvas >= length
        assert common_canvas(encoders, canvas, 60) == canvas
        own = [e.canvas_samples(resampled_length(length, 60, e.sampling_rate)) for e in encoders]
        assert seen.setdefault(canvas, own) == own
    assert len(seen) > 500 / 30
