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

from dac_diffusion.encoders.base import AudioFeatures


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
