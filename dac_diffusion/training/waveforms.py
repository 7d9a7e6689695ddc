"""Batches of recordings themselves, for training what hears them, in place of cached features."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.captioning.inputs import DECODING_THREADS, Source, decode_ahead
from dac_diffusion.data.published.dataset import CaptionDataset, CaptionedClip
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import DataError
from dac_diffusion.training.caption_sources import (
    BatchShape,
    CaptionBatch,
    Waveforms,
    draw_captions,
    encode_batch,
)

# So many times more clips than a batch has are tried before broken ones are too many.
TRIES = 10
CLIPS_PER_CALL = 16  # that `first` encodes at once


def encode_waveforms(encoder: Any, audio: Waveforms) -> AudioFeatures:
    """Features of B clips; clips of one canvas go through the encoder together.

    As in the feature cache, a clip's padding thus depends on its own length only. Gradients reach
    the encoder's weights.
    """
    by_canvas: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(audio.num_samples.tolist()):
        by_canvas[encoder.canvas_samples(length)].append(row)
    parts = []
    for canvas, rows in by_canvas.items():
        waveform = audio.waveform[rows, :canvas]
        waveform = F.pad(waveform, (0, canvas - waveform.shape[1]))  # (rows, canvas)
        parts.append(encoder(waveform, audio.num_samples[rows]))
    order = torch.tensor([row for rows in by_canvas.values() for row in rows])
    return join_features(parts).select(order.argsort().to(audio.waveform.device))


def join_features(parts: Sequence[AudioFeatures]) -> AudioFeatures:
    """The clips of several batches as one, (B, S, D), with padding up to the longest."""
    longest = max(part.features.shape[1] for part in parts)
    missing = [longest - part.features.shape[1] for part in parts]
    pairs = list(zip(parts, missing, strict=True))
    return AudioFeatures(
        torch.cat([F.pad(part.features, (0, 0, 0, more)) for part, more in pairs]),  # (B, S, D)
        torch.cat([F.pad(part.mask, (0, more)) for part, more in pairs]),  # (B, S)
        torch.cat([part.pooled for part in parts]),
    )


@dataclass(frozen=True)
class WaveformCaptions:
    """Recordings of one or several data sets with their captions; a CaptionSource.

    Its batches hold `Waveforms` in place of features. Every clip of every data set is equally
    likely; one with fewer captions than a batch wants has some of them twice. Files are decoded
    anew each time, by `threads` at once, whole, however little of them is used.

    window_seconds: of a longer recording a random part of this length is heard in training, or with
    random_crop=False its beginning, as in the feature cache. (CED + Q-Former + Llama-2 trained on
    10 s; which 10 s of a longer clip is not published.) normalise: captions are lower-cased and
    lose their punctuation, as published. encoder: encodes the clips that `first` gives, with its
    weights of that moment. A recording that cannot be decoded is named once and left out.
    """

    datasets: Sequence[CaptionDataset]
    encoder: Any
    tokenizer: PreTrainedTokenizerFast
    shape: BatchShape
    seed: int
    window_seconds: float = 10.0
    random_crop: bool = True
    normalise: bool = True
    threads: int = DECODING_THREADS
    _broken: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    def __len__(self) -> int:
        return sum(len(dataset.clips) for dataset in self.datasets)

    def batch(self, step: int, rank: int) -> CaptionBatch:
        """Random clips, each with captions drawn from its own.

        Raises DataError where nearly no recording can be decoded.
        """
        rng = np.random.default_rng([self.seed, 5, step, rank])
        shape = self.shape
        texts: list[str] = []
        waveforms: list[np.ndarray] = []
        for clip, waveform in self._draw(rng):
            waveforms.append(self._cut(waveform, rng if self.random_crop else None))
            texts += draw_captions(clip.captions, shape.captions, rng)
        token_ids = encode_batch(self.tokenizer, texts, shape, self.normalise)
        return CaptionBatch(pad_waveforms(waveforms), token_ids)

    @torch.no_grad()
    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """Features of the first clips that can be decoded, from their start, and all captions.

        Raises DataError where none can be.
        """
        clips: list[CaptionedClip] = []
        waveforms: list[np.ndarray] = []
        for clip, waveform in self._decode(range(len(self))):
            clips.append(clip)
            waveforms.append(self._cut(waveform, None))
            if len(clips) == count:
                break
        if not clips:
            raise DataError(f"{self.datasets[0].audio}: none of the recordings can be decoded")
        device = next(self.encoder.parameters()).device
        parts = []
        for start in range(0, len(waveforms), CLIPS_PER_CALL):
            audio = pad_waveforms(waveforms[start : start + CLIPS_PER_CALL])
            moved = Waveforms(audio.waveform.to(device), audio.num_samples.to(device))
            parts.append(encode_waveforms(self.encoder, moved).to("cpu", torch.float32))
        return join_features(parts), [list(clip.captions) for clip in clips]

    def _draw(self, rng: np.random.Generator) -> list[tuple[CaptionedClip, np.ndarray]]:
        """Random clips with their waveforms, others in place of broken ones."""
        wanted = self.shape.clips
        drawn: list[tuple[CaptionedClip, np.ndarray]] = []
        for _ in range(TRIES):
            # As many draws whether a broken file was met before or not, so that a batch is always
            # the same.
            for decoded in self._decode(rng.integers(len(self), size=wanted)):
                drawn.append(decoded)
                if len(drawn) == wanted:
                    return drawn
        raise DataError(
            f"{self.datasets[0].audio}: of {TRIES * wanted} recordings only {len(drawn)} can be "
            "decoded; check the folder"
        )

    def _decode(
        self, places: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[CaptionedClip, np.ndarray]]:
        """Clips by their place in all data sets together, in order, without the broken ones."""
        rate = self.encoder.sampling_rate
        clips = [
            clip for clip in map(self._find, map(int, places)) if str(clip.path) not in self._broken
        ]
        sources = [
            Source(str(clip.path), partial(load_audio, clip.path, rate), str(clip.path))
            for clip in clips
        ]
        for clip, recording in zip(clips, decode_ahead(sources, self.threads), strict=True):
            if recording.waveform is not None:
                yield clip, recording.waveform
            elif str(clip.path) not in self._broken:
                self._broken.add(str(clip.path))
                logging.getLogger("dac_diffusion").warning("left out: %s", recording.error)

    def _find(self, place: int) -> CaptionedClip:
        for dataset in self.datasets:
            if place < len(dataset.clips):
                return dataset.clips[place]
            place -= len(dataset.clips)
        raise IndexError(place)

    def _cut(self, waveform: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """A part of window_seconds: a random one, or without a generator the first."""
        size = round(self.window_seconds * self.encoder.sampling_rate)
        spare = max(0, len(waveform) - size)
        start = 0 if rng is None else int(rng.integers(spare + 1))
        return waveform[start : start + size]


def pad_waveforms(waveforms: Sequence[np.ndarray]) -> Waveforms:
    """Waveforms (T,) of different lengths as one batch."""
    tensors = [torch.from_numpy(np.array(waveform, dtype=np.float32)) for waveform in waveforms]
    return Waveforms(
        pad_sequence(tensors, batch_first=True),  # (B, T)
        torch.tensor([len(waveform) for waveform in waveforms]),
    )
