"""The scene generator: example number i of a split is a pure function of (seed, split, i)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dac_diffusion.data.soundscapes.banks import ClipFolderBank, Recording, SynthesizerBank
from dac_diffusion.data.soundscapes.captions import is_continuous, labels, write_captions
from dac_diffusion.data.soundscapes.rendering import (
    change_speed,
    extend_continuous,
    place_at_distance,
    repeat_occurrences,
)
from dac_diffusion.data.soundscapes.scenes import (
    Distance,
    PlacedEvent,
    Relation,
    Role,
    Scene,
)
from dac_diffusion.errors import ConfigError
from dac_diffusion.seeds import check_seed

Split = Literal["train", "validation", "test"]
SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}
CLIP_SPLITS: dict[Split, str] = {"train": "train", "validation": "val", "test": "val"}
RELATIONS: tuple[Relation, ...] = (
    "single",
    "sequence",
    "overlap",
    "background",
    "sequence_over_background",
)
DISTANCES: tuple[Distance, ...] = ("near", "middle", "far")
BACKGROUND_GAIN = 0.5


@dataclass(frozen=True)
class SoundscapeConfig:
    """What scenes are made of; `clips` is a folder with `clips.csv`, None: synthesizers only.

    held_out_labels: sounds that occur in no scene of any split, and so in no caption.
    """

    clips: str | None = None
    synthesizer_share: float = 0.35  # of the events, where there are clips as well
    sampling_rate: int = 32000
    shortest_seconds: float = 4.0
    longest_seconds: float = 10.0
    relation_shares: tuple[float, ...] = (0.4, 0.22, 0.13, 0.17, 0.08)  # in the order of RELATIONS
    whole_recording_share: float = 0.6  # of the single scenes made of real recordings
    speed_range: float = 0.16  # training only: played up to this much faster or slower
    seed: int = 0
    held_out_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ConfigError for values that make no sense."""
        check_seed(self.seed)
        for label in self.held_out_labels:
            if label not in labels():
                nearest = difflib.get_close_matches(label, labels(), n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                raise ConfigError(f"held_out_labels: there is no label {label}{hint}")
        shares = self.relation_shares
        if len(shares) != len(RELATIONS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-8:
            raise ConfigError(
                f"relation_shares={list(shares)}: needs {len(RELATIONS)} shares that add up to 1, "
                f"of {', '.join(RELATIONS)}"
            )
        if not 0 < self.shortest_seconds <= self.longest_seconds:
            raise ConfigError(
                f"shortest_seconds={self.shortest_seconds}: must be above 0 and at most "
                f"longest_seconds={self.longest_seconds}"
            )


@dataclass(frozen=True)
class SceneExample:
    """One scene: its sound (T,), what is in it, and five captions.

    `activity` lists (label, onset seconds, offset seconds) of everything audible.
    """

    waveform: np.ndarray
    sampling_rate: int
    scene: Scene
    captions: tuple[str, ...]
    activity: tuple[tuple[str, float, float], ...]


@dataclass
class _Canvas:
    """A scene under construction."""

    waveform: np.ndarray
    events: list[PlacedEvent] = field(default_factory=list)


class SoundscapeDataset:
    """Scenes of one split. Validation and test use only recordings that training never saw."""

    def __init__(self, config: SoundscapeConfig, split: Split) -> None:
        self.config, self.split = config, split
        self.synthesizers = SynthesizerBank(config.sampling_rate)
        self.clips = (
            ClipFolderBank(config.clips, CLIP_SPLITS[split], config.sampling_rate)
            if config.clips
            else None
        )

    def generator(self, index: int) -> np.random.Generator:
        """The source of all randomness of example `index`."""
        return np.random.default_rng([self.config.seed, SPLIT_NUMBERS[self.split], index])

    def example(self, index: int) -> SceneExample:
        """Plan, render and describe scene number `index`."""
        rng = self.generator(index)
        relation = RELATIONS[int(rng.choice(len(RELATIONS), p=self.config.relation_shares))]
        if relation == "single":
            scene, waveform = self._single(rng)
        else:
            scene, waveform = self._several(relation, rng)
        captions = tuple(write_captions(scene, rng, 5))
        activity = tuple((e.label, e.onset, e.onset + e.seconds) for e in scene.events)
        peak = float(np.abs(waveform).max())
        if peak > 0.99:
            waveform = waveform * np.float32(0.99 / peak)
        return SceneExample(waveform, self.config.sampling_rate, scene, captions, activity)

    def _draw(self, rng: np.random.Generator, used: Sequence[str], steady: bool) -> Recording:
        """A recording of a label not used yet; `steady` asks for a continuous sound."""
        bank: ClipFolderBank | SynthesizerBank
        if self.clips is None or rng.random() < self.config.synthesizer_share:
            bank = self.synthesizers
        else:
            bank = self.clips
        left_out = {*used, *self.config.held_out_labels}
        choice = [x for x in bank.labels if x not in left_out and (not steady or is_continuous(x))]
        if not choice:
            kind = "continuous sound" if steady else "sound"
            raise ConfigError(
                f"held_out_labels: they leave no {kind} to go on with; hold out fewer"
            )
        weights = np.array([bank.weight(x) for x in choice])
        label = choice[int(rng.choice(len(choice), p=weights / weights.sum()))]
        recording = bank.draw(label, rng)
        if self.split == "train" and rng.random() < 0.7:
            recording = self._at_another_speed(recording, rng)
        return recording

    def _at_another_speed(self, recording: Recording, rng: np.random.Generator) -> Recording:
        factor = float(rng.uniform(1 - self.config.speed_range, 1 + self.config.speed_range))
        waveform = change_speed(recording.waveform, factor)
        moved = [(int(a / factor), int(b / factor)) for a, b in recording.occurrences]
        kept = tuple((a, min(b, len(waveform))) for a, b in moved if a < len(waveform))
        return Recording(recording.label, waveform, kept)

    def _single(self, rng: np.random.Generator) -> tuple[Scene, np.ndarray]:
        recording = self._draw(rng, (), steady=False)
        rate = self.config.sampling_rate
        longest = self.config.longest_seconds * rate
        real = self.clips is not None and 3 * rate < len(recording.waveform) <= longest
        if real and rng.random() < self.config.whole_recording_share:
            return self._whole_recording(recording)
        total = float(rng.uniform(self.config.shortest_seconds, self.config.longest_seconds))
        canvas = _Canvas(np.zeros(int(total * rate), np.float32))
        self._place(canvas, recording, (0.0, total), "foreground", rng)
        return Scene(tuple(canvas.events), "single", total), canvas.waveform

    def _whole_recording(self, recording: Recording) -> tuple[Scene, np.ndarray]:
        """The recording as it is, which is what a user's file looks like."""
        rate = self.config.sampling_rate
        count = len(recording.occurrences)
        repeats = 1 if is_continuous(recording.label) else min(count, 8)
        onset, end = recording.occurrences[0][0] / rate, recording.occurrences[-1][1] / rate
        event = PlacedEvent(recording.label, onset, end - onset, repeats)
        seconds = len(recording.waveform) / rate
        return Scene((event,), "single", seconds), recording.waveform.copy()

    def _several(self, relation: Relation, rng: np.random.Generator) -> tuple[Scene, np.ndarray]:
        longest = self.config.longest_seconds
        low = max(self.config.shortest_seconds, 6.0 if "sequence" in relation else 5.0)
        total = float(rng.uniform(min(low, longest), longest))
        canvas = _Canvas(np.zeros(int(total * self.config.sampling_rate), np.float32))
        spans = self._foreground_spans(relation, total, rng)
        for span in spans:
            used = [event.label for event in canvas.events]
            recording = self._draw(rng, used, steady=False)
            self._place(canvas, recording, span, "foreground", rng, "background" in relation)
        if "background" in relation:
            used = [event.label for event in canvas.events]
            recording = self._draw(rng, used, steady=True)
            self._place(canvas, recording, (0.0, total), "background", rng)
        return Scene(tuple(canvas.events), relation, total), canvas.waveform

    @staticmethod
    def _foreground_spans(
        relation: Relation, total: float, rng: np.random.Generator
    ) -> list[tuple[float, float]]:
        """The (start, end) in seconds that each foreground event may fill."""
        if relation == "overlap":
            return [(0.0, total), (0.0, total)]
        if relation == "background":
            return [(0.0, total)]
        three = relation == "sequence" and total > 8.0 and rng.random() < 0.35
        shares = rng.uniform(0.8, 1.2, size=3 if three else 2)
        ends = np.cumsum(shares / shares.sum()) * total
        starts = np.concatenate(([0.0], ends[:-1]))
        return [(float(a), float(b) - 0.1) for a, b in zip(starts, ends, strict=True)]

    def _place(
        self,
        canvas: _Canvas,
        recording: Recording,
        span: tuple[float, float],
        role: Role,
        rng: np.random.Generator,
        over_background: bool = False,
    ) -> None:
        """Mix one event into the span and note where it sounds."""
        rate = self.config.sampling_rate
        start, room = int(span[0] * rate), int((span[1] - span[0]) * rate)
        distance = DISTANCES[int(rng.choice(3, p=_distance_shares(role, over_background)))]
        if is_continuous(recording.label):
            share = rng.uniform(0.6, 1.0) if role == "foreground" else 1.0
            track, repeats = extend_continuous(recording, int(share * room), rate, rng), 1
        else:
            wanted = int(rng.choice([1, 2, 3, 4, 6], p=[0.5, 0.14, 0.14, 0.12, 0.1]))
            track, repeats = repeat_occurrences(recording, wanted, room, rate, rng)
        track = place_at_distance(track, distance, rate, rng)
        if role == "background":
            track = track * np.float32(BACKGROUND_GAIN)
        onset = start + int(rng.integers(max(1, room - len(track) + 1)))
        end = min(onset + len(track), len(canvas.waveform))
        canvas.waveform[onset:end] += track[: end - onset]
        event = PlacedEvent(
            recording.label, onset / rate, (end - onset) / rate, repeats, distance, role
        )
        canvas.events.append(event)


def _distance_shares(role: Role, over_background: bool) -> tuple[float, float, float]:
    """How often an event is near, middle or far; nothing far is put in front of a background."""
    if role == "background":
        return (0.0, 0.5, 0.5)
    return (0.4, 0.6, 0.0) if over_background else (0.25, 0.45, 0.3)
