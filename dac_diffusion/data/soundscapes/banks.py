"""Where the sound events come from: a folder of labelled recordings, or the synthesizers."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.data.soundscapes.synthesizers import SYNTHESIZERS
from dac_diffusion.errors import AudioError, DataError

Waveform = np.ndarray
FRAME_SECONDS = 0.02
QUIET_DECIBELS = -32.0  # below the loudest frame of the recording
LONGEST_GAP_SECONDS = 0.2  # shorter pauses belong to one occurrence
LONGEST_OCCURRENCE_SECONDS = 2.5


@dataclass(frozen=True)
class Recording:
    """One recording (T,) of one kind of event and the sample ranges in which it sounds."""

    label: str
    waveform: Waveform
    occurrences: tuple[tuple[int, int], ...]


def find_occurrences(waveform: Waveform, sampling_rate: int) -> tuple[tuple[int, int], ...]:
    """Sample ranges (start, end) of a waveform (T,) whose energy stands out, in order."""
    frame = max(1, int(FRAME_SECONDS * sampling_rate))
    padded = np.pad(waveform, (0, -len(waveform) % frame))
    energy = np.square(padded.reshape(-1, frame)).mean(axis=1)  # (frames,)
    active = energy > energy.max() * 10 ** (QUIET_DECIBELS / 10)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0]))))
    ranges: list[tuple[int, int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if ranges and (start - ranges[-1][1]) * FRAME_SECONDS < LONGEST_GAP_SECONDS:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((start, end))
    audible = [(a, b) for a, b in ranges if energy[a:b].max() > 0.02 * energy.max()]
    return tuple((a * frame, min(b * frame, len(waveform))) for a, b in audible)


class ClipFolderBank:
    """Labelled recordings of one split of a `clips.csv` (columns file, label, split)."""

    def __init__(self, folder: str | Path, split: str, sampling_rate: int) -> None:
        self.sampling_rate = sampling_rate
        self.folder = Path(folder)
        self._files: dict[str, list[str]] = {}
        for row in _read_clip_table(self.folder / "clips.csv"):
            if row["split"] == split:
                self._files.setdefault(row["label"], []).append(row["file"])
        if not self._files:
            raise DataError(f"{self.folder / 'clips.csv'}: no clip has the split '{split}'")
        self._loaded: dict[str, Recording] = {}
        self.labels = tuple(sorted(self._files))

    def weight(self, label: str) -> float:
        """How often a label is drawn: by the square root of its number of recordings."""
        return float(np.sqrt(len(self._files[label])))

    def draw(self, label: str, rng: np.random.Generator) -> Recording:
        """A random recording of the label."""
        files = self._files[label]
        return self.recording(label, files[int(rng.integers(len(files)))])

    def recording(self, label: str, file: str) -> Recording:
        """One recording by its file name, decoded once and kept as 16-bit samples."""
        if file not in self._loaded:
            waveform = load_audio(self.folder / file, self.sampling_rate)
            occurrences = find_occurrences(waveform, self.sampling_rate)
            samples = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
            if not samples.any():
                raise AudioError(f"{self.folder / file}: too quiet to be heard; leave it out")
            self._loaded[file] = Recording(label, samples, occurrences)
        kept = self._loaded[file]
        return Recording(label, kept.waveform.astype(np.float32) / 32767, kept.occurrences)

    def files(self) -> list[tuple[str, str]]:
        """Every (label, file) of the split, in the order of the labels."""
        return [(label, file) for label in self.labels for file in self._files[label]]


class SynthesizerBank:
    """The procedural synthesizers: every draw is a new sound."""

    def __init__(self, sampling_rate: int) -> None:
        self.sampling_rate = sampling_rate
        self.labels = tuple(sorted(SYNTHESIZERS))

    def weight(self, label: str) -> float:
        """All synthesizers are drawn alike."""
        return 1.0

    def draw(self, label: str, rng: np.random.Generator) -> Recording:
        """A newly synthesized occurrence of the label."""
        waveform = SYNTHESIZERS[label](rng, self.sampling_rate)
        return Recording(label, waveform, ((0, len(waveform)),))


def _read_clip_table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); a clip folder needs it") from error
    missing = {"file", "label", "split"} - set(columns)
    if missing:
        raise DataError(f"{path}: needs the columns file,label,split; missing: {sorted(missing)}")
    return rows
