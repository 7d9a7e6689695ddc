"""Validation scenes with what is heard in them, and what one caption of each is worth."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from common import SYNONYMS, Row, in_chunks, validation_scenes

from dac_diffusion.audio.loading import prepare_waveform
from dac_diffusion.captioning.window_encoding import Window
from dac_diffusion.data.soundscapes.dataset import SceneExample, SoundscapeDataset
from dac_diffusion.errors import DataError
from dac_diffusion.metrics.cider import CiderD
from dac_diffusion.metrics.event_naming import EventNamer, load_event_namer
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector
from dac_diffusion.text.faults import is_well_formed
from dac_diffusion.text.words import tokenize

if TYPE_CHECKING:
    from dac_diffusion.metrics.sentence_similarity import SentenceVectors

LOOKED_AT = 100  # scenes, for each that is wanted
NUMBERS = {
    "cider_d": "CIDEr-D|.3f",
    "minilm_similarity": "MiniLM|.3f",
    "events_named": "events named|.1%",
    "faults": "faults|.1%",
    "errors": "errors by rule|.1%",
    "mean_words": "words|.2f",
}


@dataclass(frozen=True)
class LabelledScene:
    """What is heard in a scene: waveform (T,), labels of its events, and reference captions."""

    waveform: np.ndarray
    sampling_rate: int
    labels: list[str]
    references: list[str]

    @classmethod
    def of(cls, example: SceneExample) -> LabelledScene:
        """What the benchmarks need of an example."""
        labels = sorted({event.label for event in example.scene.events})
        return cls(example.waveform, example.sampling_rate, labels, list(example.captions))

    def row(self) -> Row:
        """What is kept of it in a result file."""
        return {"labels": self.labels, "references": self.references}


def find_scenes(
    dataset: SoundscapeDataset, count: int, wanted: Callable[[Collection[str]], bool]
) -> list[LabelledScene]:
    """The first `count` scenes with labels that are wanted. Raises DataError for too few."""
    found: list[LabelledScene] = []
    for index in range(count * LOOKED_AT):
        if len(found) == count:
            break
        scene = LabelledScene.of(dataset.example(index))
        if wanted(scene.labels):
            found.append(scene)
    if len(found) < count:
        raise DataError(
            f"only {len(found)} of {count * LOOKED_AT} scenes are of the kind that is wanted; give "
            "other labels, or a smaller --limit"
        )
    return found


def windows_of(scenes: Sequence[LabelledScene], sampling_rate: int) -> list[Window]:
    """The sound of scenes as captioners of this rate hear it."""
    return [
        Window("", 0.0, prepare_waveform(s.waveform, s.sampling_rate, sampling_rate, "a scene"))
        for s in scenes
    ]


@dataclass
class Judge:
    """Scores one caption for each of N scenes; what it found of a caption is kept.

    cider_d: document frequencies are those of all N scenes' references. faults: the caption is
    empty, repeats a word or a pair of words, or breaks off (text/faults.py). errors: the rules of
    ranking/rule_based_errors.py find one.
    """

    labels: Sequence[Sequence[str]]
    references: Sequence[list[str]]
    minilm: SentenceVectors | None = None
    namer: EventNamer = field(default_factory=lambda: load_event_namer(SYNONYMS))
    _kept: dict[tuple[int, str], Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._scorer, self._detector = CiderD(self.references), RuleBasedErrorDetector()

    def judge(self, captions: Sequence[str]) -> list[Row]:
        """What each of N captions is worth, in the order of the scenes."""
        keys = list(enumerate(captions))
        missing = [key for key in keys if key not in self._kept]
        similarities = self._similarities(missing)
        for (place, text), similarity in zip(missing, similarities, strict=True):
            share = self.namer.named_share([text], self.labels[place])
            self._kept[place, text] = {
                "cider_d": self._scorer.score(text, place),
                "minilm_similarity": similarity,
                "named": share * len(self.labels[place]),
                "events": len(self.labels[place]),
                "faults": not is_well_formed(text),
                "errors": bool(self._detector.errors(text)),
                "words": len(tokenize(text)),
            }
        return [self._kept[key] for key in keys]

    def _similarities(self, keys: Sequence[tuple[int, str]]) -> list[float | None]:
        if self.minilm is None or not keys:
            return [None] * len(keys)
        from dac_diffusion.metrics.sentence_similarity import minilm_similarity

        references = [self.references[place] for place, _ in keys]
        return list(minilm_similarity([text for _, text in keys], references, self.minilm)[1])


def means(judged: Sequence[Row]) -> Row:
    """The numbers of a table's line; events are counted one by one, not scene by scene."""
    count = len(judged)
    found: Row = {
        name: sum(row[name] for row in judged) / count for name in ("cider_d", "faults", "errors")
    }
    if judged[0]["minilm_similarity"] is not None:
        found["minilm_similarity"] = sum(row["minilm_similarity"] for row in judged) / count
    return {
        **found,
        "events_named": sum(row["named"] for row in judged) / sum(row["events"] for row in judged),
        "mean_words": sum(row["words"] for row in judged) / count,
    }


def add_minilm(parser: argparse.ArgumentParser) -> None:
    """Adds --minilm, without which there is no similarity."""
    parser.add_argument("--minilm", action="store_true", help="similarity by all-MiniLM-L6-v2 too")


def load_any_captioner(args: argparse.Namespace) -> Any:
    """The captioner that --model names, of whichever kind; `args.dtype` becomes what it is."""
    from common import use_threads

    from dac_diffusion.systems import load_captioner

    use_threads(args)
    captioner: Any = load_captioner(args.model, args.dtype)
    args.dtype = str(captioner.dtype).removeprefix("torch.")
    return captioner


def labelled_scenes(args: argparse.Namespace) -> list[Row]:
    """Labels and references of the scenes."""
    clips = None if str(args.clips) == "none" else args.clips
    chunks = in_chunks(validation_scenes(clips, args.scene_seed), args.limit)
    return [LabelledScene.of(example).row() for examples in chunks for example in examples]
