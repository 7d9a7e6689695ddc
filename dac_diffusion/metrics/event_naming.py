"""Which sound events a caption names, by a published table of names (benchmarks/).

The table (YAML) lists names for each label. A name is one or more words; it is found where all its
words, in any order and inflection, stand in one clause with at most three other words between
neighbours: "bell ring" is found in "the ringing of a large bell". "a/b" in a name means a or b;
"=crow" means exactly this form, no inflection of it. Names of more words win over shorter ones and
take their words with them: "water drips" is water_drops and names nothing else. A name may stand
under several labels; it then names either of them. What stands under "other_sounds" names nothing:
it only takes its words ("cow bell" is neither a cow nor a church bell).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dac_diffusion.errors import DataError
from dac_diffusion.text.words import tokenize

MOST_WORDS_BETWEEN = 3
OTHER_SOUNDS = "other_sounds"
# A name never reaches across these: they join two events.
_CONNECTORS = (
    "and while as then before after until when whilst whereas but followed follows following "
    "preceded over behind beneath beside near alongside during amid with plus"
)
CONNECTORS = frozenset(_CONNECTORS.split())
_CLAUSE = re.compile(r"[,;.:!?]|\s-\s|\u2013|\u2014")
_IRREGULAR = {
    "rang": "ring", "rung": "ring", "blew": "blow", "blown": "blow", "struck": "strike",
    "broke": "break", "broken": "break", "sang": "sing", "sung": "sing", "ran": "run",
    "drank": "drink", "drunk": "drink", "beaten": "beat", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "shook": "shake", "drove": "drive", "flew": "fly",
    "calves": "calf", "hooves": "hoof", "fell": "fall", "fallen": "fall",
}  # fmt: skip


def stem(word: str) -> str:
    """The form shared by the inflections of a lower-case word: drips, dripping, dripped -> drip.

    A light stemmer for matching only (plural, third person, -ing, -ed, silent e); it never joins
    words of different meaning in the table, which a test checks.
    """
    word = _IRREGULAR.get(word, word)
    if len(word) > 4 and word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("ches", "shes", "sses", "xes", "zzes")) else word[:-1]
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) > 1 and re.search("[aeiouy]", base):
            doubled = len(base) > 2 and base[-1] == base[-2] and base[-1] not in "aeioulsfz"
            word = base[:-1] if doubled else base
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


@dataclass(frozen=True)
class EventName:
    """One entry of the table: the labels it stands for, and for each word its allowed forms."""

    labels: frozenset[str]
    words: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class NamedEvent:
    """A name found in a caption; more than one label where the name is ambiguous."""

    labels: frozenset[str]
    words: tuple[str, ...]


class EventNamer:
    """Finds the events that a caption names; `names` maps each label to its list of names."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        by_words: dict[tuple[frozenset[str], ...], set[str]] = {}
        for label, entries in names.items():
            for entry in entries:
                by_words.setdefault(_parse(entry, label), set()).add(label)
        self.labels = tuple(sorted(set(names) - {OTHER_SOUNDS}))
        # By the forms of the first word, so that a clause is compared with few of the names.
        self._names: dict[str, list[EventName]] = {}
        for words, labels in by_words.items():
            for form in words[0]:
                self._names.setdefault(form, []).append(EventName(frozenset(labels), words))

    def find(self, caption: str) -> list[NamedEvent]:
        """The events named in a caption, in the order of their first words."""
        found: list[tuple[int, NamedEvent]] = []
        offset = 0
        for clause in _clauses(caption):
            forms = [frozenset((stem(word), "=" + word)) for word in clause]
            for positions, labels in self._choose(forms):
                words = tuple(clause[p] for p in positions)
                if OTHER_SOUNDS not in labels:
                    found.append((offset + positions[0], NamedEvent(labels, words)))
            offset += len(clause)
        return [event for _, event in sorted(found, key=lambda item: item[0])]

    def names(self, caption: str, label: str) -> bool:
        """Whether a caption names the label. Raises DataError for a label not in the table."""
        if label not in self.labels:
            raise DataError(f"no synonyms for the label '{label}'; add it to the synonym table")
        return any(label in event.labels for event in self.find(caption))

    def named_share(self, captions: Iterable[str], labels: Sequence[str]) -> float:
        """The share of the labels that at least one of the captions names (0 to 1)."""
        found = [event.labels for caption in captions for event in self.find(caption)]
        return sum(any(label in names for names in found) for label in labels) / len(labels)

    def foreign(self, caption: str, labels: Iterable[str]) -> list[NamedEvent]:
        """The events that a caption names although none of the labels is meant."""
        wanted = set(labels)
        return [event for event in self.find(caption) if not wanted & event.labels]

    def _choose(
        self, forms: Sequence[frozenset[str]]
    ) -> list[tuple[tuple[int, ...], frozenset[str]]]:
        """Matches in one clause, most words first, then the closest; labels never share words."""
        candidates = {
            name for form in frozenset().union(*forms) for name in self._names.get(form, ())
        }
        matches: dict[tuple[int, ...], frozenset[str]] = {}
        for name in candidates:
            for positions in _occurrences(name.words, forms):
                matches[positions] = matches.get(positions, frozenset()) | name.labels
        chosen: list[tuple[tuple[int, ...], frozenset[str]]] = []
        owners: dict[int, frozenset[str]] = {}
        for positions in sorted(matches, key=lambda p: (-len(p), p[-1] - p[0], p)):
            labels = matches[positions]
            # A train that "passes, blowing its whistle" may give its word to two of its own names.
            if all(labels <= owners.get(p, labels) for p in positions):
                chosen.append((positions, labels))
                owners.update(dict.fromkeys(positions, labels))
        return chosen


def load_event_namer(path: str | Path) -> EventNamer:
    """Read a synonym table: a YAML mapping of label to a list of names. Raises DataError."""
    import yaml

    try:
        table = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a synonym table ({reason})") from error
    well_formed = isinstance(table, dict) and all(
        isinstance(entries, list) and entries and all(isinstance(e, str) for e in entries)
        for entries in table.values()
    )
    if not well_formed:
        raise DataError(f"{path}: a synonym table maps each label to a list of names")
    return EventNamer(table)


def _parse(entry: str, label: str) -> tuple[frozenset[str], ...]:
    """The words of a table entry, each as its set of forms."""
    words = []
    for word in entry.split():
        forms = word.lower().split("/")
        if not all(re.fullmatch(r"=?[^\W_]+", form) for form in forms):
            raise DataError(f"synonym '{entry}' of '{label}': words of letters, a/b or =a only")
        words.append(frozenset(f if f.startswith("=") else stem(f) for f in forms))
    if not words:
        raise DataError(f"synonym table: an empty name under '{label}'")
    return tuple(words)


def _clauses(caption: str) -> list[list[str]]:
    """The words of a caption, cut at punctuation and at connectors."""
    clauses: list[list[str]] = []
    for part in _CLAUSE.split(caption.lower()):
        clause: list[str] = []
        for word in tokenize(part):
            if word in CONNECTORS:
                clauses.append(clause)
                clause = []
            else:
                clause.append(word)
        clauses.append(clause)
    return [clause for clause in clauses if clause]


def _occurrences(
    words: tuple[frozenset[str], ...], forms: Sequence[frozenset[str]]
) -> Iterable[tuple[int, ...]]:
    """Positions, in order, at which all words of a name stand close enough together."""
    places = [[i for i, f in enumerate(forms) if f & word] for word in words]
    if not all(places):
        return
    for combination in itertools.product(*places):
        positions = tuple(sorted(combination))
        gaps = [b - a - 1 for a, b in itertools.pairwise(positions)]
        if all(0 <= gap <= MOST_WORDS_BETWEEN for gap in gaps):
            yield positions
