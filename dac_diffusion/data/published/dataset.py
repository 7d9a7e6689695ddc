"""What every reader of captioned recordings returns, and what builds it entry by entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dac_diffusion.errors import DataError
from dac_diffusion.text.words import tokenize

NAMES_IN_PROBLEMS = 3


@dataclass(frozen=True)
class CaptionedClip:
    """A recording with its captions; `name` is unique in its data set."""

    name: str
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionDataset:
    """Captioned recordings below the folder `audio`, in the order of their table.

    problems: a line for every fault, naming the file and the line; what it spoils is left out.
    excluded: the names of clips that were left out because a setting says so.
    """

    audio: Path
    clips: tuple[CaptionedClip, ...]
    problems: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


class ClipCollector:
    """Keeps the good entries of a table as clips, and a line about each of the others."""

    def __init__(self, audio: Path) -> None:
        self.audio = audio
        self.clips: list[CaptionedClip] = []
        self.problems: list[str] = []
        self.excluded: list[str] = []
        self._first_seen: dict[str, str] = {}

    def report(self, where: str, fault: str) -> None:
        """Enter a problem; `where` names the file and the line."""
        line = " ".join(f"{where}: {fault}".splitlines())
        self.problems.append(line.encode("utf-8", "backslashreplace").decode("utf-8"))

    def is_repeated(self, where: str, name: str) -> bool:
        """Whether there was an entry of this name before, which is then reported."""
        first = self._first_seen.setdefault(name, where)
        if first != where:
            self.report(where, f"'{name}' was already in {first}; that one is used")
        return first != where

    def add(self, where: str, name: str, found: Sequence[Path], captions: Iterable[str]) -> None:
        """Enter a clip once; `found` are the recordings that could be its own.

        A clip without a recording, with several that fit equally well, or without captions that
        hold words is reported and left out.
        """
        texts = [" ".join(caption.split()) for caption in captions]
        with_words = tuple(text for text in texts if tokenize(text))
        if len(with_words) < len(texts):
            count = len(texts) - len(with_words)
            self.report(where, f"{count} of {len(texts)} captions of '{name}' hold no words")
        if not with_words:
            self.report(where, f"'{name}' has no caption, so it is left out")
        elif not found:
            self.report(where, f"no recording of '{name}' in {self.audio}")
        elif len(found) > 1:
            more = ", ..." if len(found) > NAMES_IN_PROBLEMS else ""
            paths = ", ".join(str(path) for path in found[:NAMES_IN_PROBLEMS])
            self.report(where, f"several recordings fit '{name}' ({paths}{more}); keep one of them")
        else:
            self.clips.append(CaptionedClip(name, found[0], with_words))

    def finish(self, table: Path) -> CaptionDataset:
        """The data set; raises DataError where nothing is left of the table."""
        if not self.clips:
            faults = f", {len(self.problems)} problems" if self.problems else ""
            first = f", the first: {self.problems[0]}" if self.problems else ""
            excluded = f", {len(self.excluded)} clips excluded" if self.excluded else ""
            raise DataError(f"{table}: no clip is left{excluded}{faults}{first}")
        return CaptionDataset(
            self.audio, tuple(self.clips), tuple(self.problems), tuple(self.excluded)
        )
