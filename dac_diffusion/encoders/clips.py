"""Clips of a batch through an encoder inside another: resampled, and each as if it were alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import soxr
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dac_diffusion.audio.windows import window_bounds
from dac_diffusion.encoders.base import AudioFeatures

SHORTEST_TAIL_SECONDS = 1.0  # a shorter rest belongs to the window before it


def resampled_length(num_samples: int, source_rate: int, sampling_rate: int) -> int:
    """How many samples `resample_clip` gives for so many."""
    return -(-num_samples * sampling_rate // source_rate)


def resample_clip(clip: Tensor, source_rate: int, sampling_rate: int) -> Tensor:
    """One clip (n,) at another sampling rate, (ceil(n * rate / source_rate),), by soxr (HQ)."""
    if source_rate == sampling_rate:
        return clip
    wanted = resampled_length(len(clip), source_rate, sampling_rate)
    samples = soxr.resample(clip.float().cpu().numpy(), source_rate, sampling_rate, quality="HQ")
    found = torch.from_numpy(samples)[:wanted]
    return F.pad(found, (0, wanted - len(found))).to(clip.device)  # soxr rounds, perhaps down


def encode_clips(encoder: Any, clips: Sequence[Tensor], batch_size: int) -> list[AudioFeatures]:
    """The features of every clip (n,), each by itself, (1, S, D).

    Equal shapes give equal bits (captioning/invariance.py): on a CPU the encoder is given one clip
    at a time, on an accelerator always `batch_size` clips of one canvas, filled up with copies.
    """
    by_canvas: dict[int, list[int]] = defaultdict(list)
    for place, clip in enumerate(clips):
        by_canvas[encoder.canvas_samples(len(clip))].append(place)
    found: dict[int, AudioFeatures] = {}
    for canvas, places in by_canvas.items():
        size = 1 if clips[0].device.type == "cpu" else batch_size
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            filled = chosen + chosen[:1] * (size - len(chosen))
            batch = torch.stack([F.pad(clips[i], (0, canvas - len(clips[i]))) for i in filled])
            lengths = torch.tensor([len(clips[i]) for i in filled], device=batch.device)
            audio: AudioFeatures = encoder(batch, lengths)  # (size, S, D)
            found.update((place, audio.select([row])) for row, place in enumerate(chosen))
    return [found[place] for place in range(len(clips))]


def join_clips(single: Sequence[AudioFeatures]) -> AudioFeatures:
    """Features of one clip each as those of a batch, (B, S, D), 0 behind the shorter ones."""
    return AudioFeatures(
        pad_sequence([each.features[0] for each in single], batch_first=True),
        pad_sequence([each.mask[0] for each in single], batch_first=True),
        torch.cat([each.pooled for each in single]),
    )


def window_vectors(encoder: Any, clips: Sequence[Tensor]) -> Tensor:
    """An encoder's vectors (B, P) of clips (n,) at its own rate, each clip by itself.

    Of one longer than the encoder's window, the mean over its windows, weighted by their lengths.
    """
    window, tail = (
        round(seconds * encoder.sampling_rate)
        for seconds in (encoder.window_seconds, SHORTEST_TAIL_SECONDS)
    )
    is_limit = getattr(encoder, "window_is_limit", False)
    bounds = [window_bounds(len(clip), window, tail, is_limit) for clip in clips]
    vectors = clips[0].new_zeros(len(clips), encoder.pooled_dim)  # (B, P)
    for turn in range(max(map(len, bounds))):  # the first window of every clip, the second, ...
        places = [place for place, own in enumerate(bounds) if turn < len(own)]
        parts = [clips[place][slice(*bounds[place][turn])] for place in places]
        for place, part, audio in zip(
            places, parts, encode_clips(encoder, parts, len(clips)), strict=True
        ):
            heard = sum(end - start for start, end in bounds[place])
            vectors[place] += audio.pooled[0] * (len(part) / heard)
    return vectors


def common_canvas(encoders: Sequence[Any], num_samples: int, sampling_rate: int) -> int:
    """The padded length of a window at a rate: the least at which an encoder would pad it further.

    So two windows of one canvas have one canvas in every one of the encoders.
    """
    canvases = []
    for encoder in encoders:
        own_rate = encoder.sampling_rate
        own = encoder.canvas_samples(resampled_length(num_samples, sampling_rate, own_rate))
        canvases.append(own * sampling_rate // own_rate)
    return min(canvases)
