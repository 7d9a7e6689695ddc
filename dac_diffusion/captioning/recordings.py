"""From recordings to results: windows, captions of every window, the best for the whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from dac_diffusion.audio.windows import window_bounds
from dac_diffusion.captioning.inputs import AudioInput, Recording, decode_ahead, find_sources
from dac_diffusion.captioning.ranking import Candidates
from dac_diffusion.captioning.results import ClipCaptions, Segment
from dac_diffusion.captioning.scoring import Ranker
from dac_diffusion.captioning.window_encoding import Window, encode_windows
from dac_diffusion.encoders.base import AudioEncoder
from dac_diffusion.errors import AudioError, ConfigError

MINIMUM_TAIL_SECONDS = 2.5  # a shorter rest of a long recording joins the window before it


class Drawer(Protocol):
    """What makes candidates for windows of audio."""

    def draw(self, windows: Sequence[Window]) -> list[Candidates]:
        """Candidates for every window, in order."""


@dataclass(frozen=True)
class CallSettings:
    """What a call says about its recordings, whatever makes the captions.

    num_captions: distinct captions per recording. batch_size: windows taken into memory at a time.
    progress: a bar over the recordings; None: for more than one, on a terminal. on_result: called
    with every recording's result as soon as it is known, in order.
    """

    num_captions: int
    batch_size: int
    progress: bool | None = None
    on_result: Callable[[ClipCaptions], None] | None = None


def caption_recordings(
    audio: AudioInput,
    sampling_rate: int | None,
    encoder: AudioEncoder,
    drawer: Drawer,
    ranker: Ranker,
    settings: CallSettings,
) -> ClipCaptions | list[ClipCaptions]:
    """Caption one recording, or a list or folder of them; see DiffusionCaptioner.__call__.

    Raises AudioError where a single recording cannot be captioned, ConfigError for a batch size
    that makes no sense.
    """
    if settings.batch_size < 1:
        raise ConfigError(f"batch_size={settings.batch_size}: must be at least 1")
    sources, single = find_sources(audio, sampling_rate, encoder.sampling_rate)
    show = settings.progress
    if show is None:
        show = len(sources) > 1 and sys.stderr.isatty()
    results: list[ClipCaptions] = []
    with tqdm(total=len(sources), unit="clip", disable=not show) as bar:
        for chunk in _chunks(decode_ahead(sources), encoder, settings.batch_size):
            for result in _caption_chunk(chunk, encoder, drawer, ranker, settings.num_captions):
                results.append(result)
                bar.update()
                if settings.on_result is not None:
                    settings.on_result(result)
    if not single:
        return results
    if results[0].error is not None:
        raise AudioError(results[0].error)
    return results[0]


def _chunks(
    recordings: Iterator[Recording], encoder: AudioEncoder, num_windows: int
) -> Iterator[list[Recording]]:
    """Groups of recordings with about `num_windows` windows each, so memory is bounded."""
    chunk: list[Recording] = []
    collected = 0
    for recording in recordings:
        chunk.append(recording)
        if recording.waveform is not None:
            collected += len(_bounds(recording.waveform, encoder))
        if collected >= num_windows:
            yield chunk
            chunk, collected = [], 0
    if chunk:
        yield chunk


def _caption_chunk(
    chunk: list[Recording],
    encoder: AudioEncoder,
    drawer: Drawer,
    ranker: Ranker,
    num_captions: int,
) -> Iterator[ClipCaptions]:
    windows = [window for recording in chunk for window in _windows(recording, encoder)]
    drawn = iter(drawer.draw(windows))
    rate = encoder.sampling_rate
    for recording in chunk:
        if recording.waveform is None:
            yield ClipCaptions(recording.file_name, 0.0, error=str(recording.error))
            continue
        bounds = _bounds(recording.waveform, encoder)
        of_windows = list(islice(drawn, len(bounds)))
        lengths = [end - start for start, end in bounds]
        best, captions = ranker.best(of_windows, lengths, num_captions)
        yield ClipCaptions(
            file_name=recording.file_name,
            duration_seconds=len(recording.waveform) / rate,
            captions=captions,
            candidates=tuple(text for candidates in of_windows for text in candidates.texts),
            segments=tuple(
                Segment(start / rate, end / rate, of_window)
                for (start, end), of_window in zip(bounds, best, strict=True)
            ),
            repeats_removed=sum(candidates.repeats_removed for candidates in of_windows),
        )


def _windows(recording: Recording, encoder: AudioEncoder) -> list[Window]:
    waveform = recording.waveform
    if waveform is None:
        return []
    return [
        Window(recording.file_name, start / encoder.sampling_rate, waveform[start:end])
        for start, end in _bounds(waveform, encoder)
    ]


def _bounds(waveform: np.ndarray, encoder: AudioEncoder) -> list[tuple[int, int]]:
    rate = encoder.sampling_rate
    return window_bounds(
        len(waveform),
        round(encoder.window_seconds * rate),
        round(MINIMUM_TAIL_SECONDS * rate),
        getattr(encoder, "window_is_limit", False),
    )


@torch.no_grad()
def most_features(encoder: Any) -> int:
    """How many features a window of a recording has at most, those of its padding included.

    Found by encoding silence. encoder: an AudioEncoder in evaluation mode.
    """
    rate = encoder.sampling_rate
    samples = round(encoder.window_seconds * rate)
    if not getattr(encoder, "window_is_limit", False):
        samples += round(MINIMUM_TAIL_SECONDS * rate) - 1
    silence = Window("silence", 0.0, np.zeros(samples, np.float32))
    return encode_windows(encoder, [silence], encoder.device).features.shape[1]
