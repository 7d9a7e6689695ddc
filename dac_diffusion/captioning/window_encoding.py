"""Windows of audio through the audio encoder, each as if it were alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from dac_diffusion.captioning.invariance import ACCELERATOR_CLIPS
from dac_diffusion.encoders.base import AudioEncoder, AudioFeatures

T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """A part of a recording that is captioned by itself: waveform (T,), start in seconds."""

    file_name: str
    start: float
    waveform: np.ndarray


def window_batches(
    windows: Sequence[Window], encoder: AudioEncoder, size: int
) -> Iterator[list[int]]:
    """The places of windows that go through the networks together, at most `size` each time."""
    by_canvas: dict[int, list[int]] = defaultdict(list)
    for index, window in enumerate(windows):
        by_canvas[encoder.canvas_samples(len(window.waveform))].append(index)
    for indices in by_canvas.values():
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


def encode_windows(encoder: Any, windows: Sequence[Window], device: torch.device) -> AudioFeatures:
    """Features of windows of one canvas; the same for a window in every batch (invariance.py)."""
    if device.type != "cpu":
        features = _encode_at_once(encoder, fill_up(list(windows), device), device)
        return features.select(slice(0, len(windows)))
    parts = [_encode_at_once(encoder, [window], device) for window in windows]
    return AudioFeatures(
        torch.cat([part.features for part in parts]),
        torch.cat([part.mask for part in parts]),
        torch.cat([part.pooled for part in parts]),
    )


def fill_up(items: list[T], device: torch.device) -> list[T]:
    """As many items as every call on an accelerator has, by copies of the first; as is on a CPU."""
    missing = 0 if device.type == "cpu" else ACCELERATOR_CLIPS - len(items)
    return items + [items[0]] * missing


def _encode_at_once(encoder: Any, windows: Sequence[Window], device: torch.device) -> AudioFeatures:
    canvas = encoder.canvas_samples(len(windows[0].waveform))
    waveforms = torch.zeros(len(windows), canvas)  # (B, T)
    for row, window in zip(waveforms, windows, strict=True):
        row[: len(window.waveform)] = torch.from_numpy(window.waveform)
    num_samples = torch.tensor([len(window.waveform) for window in windows])
    audio: AudioFeatures = encoder(waveforms.to(device), num_samples.to(device))
    return audio
