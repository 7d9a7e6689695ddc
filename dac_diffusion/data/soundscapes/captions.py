"""Reference captions of a scene: several different sentences that tell the same facts.

A caption is a template of the scene's relation whose slots are filled with phrasings of its events.
Slots name the event's number and the form wanted: `s` a clause in the simple present, `f` a clause,
simple or progressive, `g` a gerund phrase, `n` a noun phrase (gerund or plain).
"""

from __future__ import annotations

import bisect
import difflib
import itertools
import random
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np

from dac_diffusion.data.soundscapes.phrases import PHRASES
from dac_diffusion.data.soundscapes.phrases.details import (
    NEAR_PLACES,
    Details,
    draw_details,
    noun_details,
)
from dac_diffusion.data.soundscapes.phrases.forms import EventPhrases
from dac_diffusion.data.soundscapes.phrases.templates import TEMPLATES
from dac_diffusion.data.soundscapes.scenes import PlacedEvent, Scene
from dac_diffusion.errors import DataError

T = TypeVar("T")

MAX_WORDS = 20
# Enough for any scene (6 phrasings x 12 templates); a bound only so that a bug cannot hang.
_ATTEMPTS_PER_CAPTION = 60
_RANK_EXPONENT = 1.3  # phrasing number r of a list is drawn in proportion to r ** -1.3
_OMIT_BACKGROUND = 0.3  # chance that one caption in five leaves the background out
_SOUND_WORDS = frozenset({"sound", "sounds", "sounding"})


def labels() -> list[str]:
    """All labels that can be captioned, sorted."""
    return sorted(PHRASES)


def is_continuous(label: str) -> bool:
    """Whether the sound lasts (rain, an engine) and is never counted. Raises DataError."""
    return event_phrases(label).continuous


def phrasings(label: str) -> list[str]:
    """Every surface phrase of a label, without details of distance or number. Raises DataError."""
    event = event_phrases(label)
    found: dict[str, None] = {}
    for clause in event.clauses:
        for text in (clause.finite(), clause.finite(progressive=True), clause.participle()):
            found[text] = None
    for noun in event.nouns:
        found[noun.phrase()] = None
        if noun.plural:
            found[noun.phrase(many="")] = None
    return list(found)


def event_phrases(label: str) -> EventPhrases:
    """The phrase table of a label. Raises DataError naming the nearest label."""
    if label in PHRASES:
        return PHRASES[label]
    nearest = difflib.get_close_matches(label, PHRASES, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise DataError(f"no phrasings for the label {label!r}{hint}")


def write_captions(scene: Scene, rng: np.random.Generator, count: int = 5) -> list[str]:
    """`count` different captions of a scene: lower case, no final period, at most 20 words.

    Every caption names every foreground event in order; a background event is missing from at
    most one caption in five. Raises DataError for unknown labels, impossible scenes, and a count
    that the grammar cannot reach.
    """
    # One draw of the caller's generator seeds a generator whose single draws are cheap.
    draw = random.Random(int(rng.integers(2**62)))
    events = sorted(scene.events, key=lambda event: event.role == "background")
    writers = [_EventWriter(event, len(events), draw) for event in events]
    templates = _templates(scene.relation, len(events))
    omissions = _omissions(events, count, draw)
    captions: list[str] = []
    seen: set[str] = set()
    for _ in range(count * _ATTEMPTS_PER_CAPTION):
        if len(captions) == count:
            return captions
        if len(captions) in omissions:
            template = _choose(_templates(*_without_background(events)), draw)
        else:
            template = _choose(templates, draw)
        text = _fill(template, writers, draw)
        key = text.replace(",", "")
        if key not in seen and _acceptable(text):
            seen.add(key)
            captions.append(text)
    if len(captions) < count:
        names = ", ".join(event.label for event in events)
        raise DataError(
            f"only {len(captions)} different captions found for ({scene.relation}: {names}),"
            f" {count} were asked for; ask for fewer"
        )
    return captions


class _EventWriter:
    """Names one event of a scene, in its usual words more often than in unusual ones."""

    def __init__(self, event: PlacedEvent, num_events: int, draw: random.Random) -> None:
        self.event, self.num_events, self.draw = event, num_events, draw
        self.phrases = event_phrases(event.label)

    def write(self, form: str, said: set[str]) -> str:
        """The event in the form `s`, `f`, `g` or `n`; `said` holds details not to be repeated."""
        details = draw_details(self.event, self.phrases, self.num_events, said, self.draw)
        if form == "n" and self.draw.random() < 0.4:
            return self._noun(details, said)
        clause = _choose(self.phrases.clauses, self.draw)
        adverb, place = details.adverb, details.place
        if clause.rest and place in NEAR_PLACES:  # 'at the door nearby' reads badly
            place = ""
        said.update(word for word in (adverb, place) if word)
        if form in "gn":
            return clause.participle(adverb, place)
        progressive = form == "f" and not details.counted and self.draw.random() < 0.4
        return clause.finite(adverb, place, progressive)

    def _noun(self, details: Details, said: set[str]) -> str:
        noun = _choose(self.phrases.nouns, self.draw)
        adjective, many = noun_details(self.event, self.phrases, details, said, self.draw)
        if adjective:
            said.add(adjective)
        return noun.phrase(adjective, many)


def _fill(template: str, writers: Sequence[_EventWriter], draw: random.Random) -> str:
    said: set[str] = set()
    return "".join(
        writers[int(piece[1])].write(piece[0], said) if is_slot else piece
        for is_slot, piece in _pieces(template)
    )


@cache
def _pieces(template: str) -> tuple[tuple[bool, str], ...]:
    """'{s0} and {n1}' -> slots and the text between them."""
    halves = template.replace("{", "|").replace("}", "|").split("|")
    return tuple((index % 2 == 1, piece) for index, piece in enumerate(halves) if piece)


def _acceptable(text: str) -> bool:
    words = text.replace(",", "").split()
    if not 2 <= len(words) <= MAX_WORDS:
        return False
    if any(first == second for first, second in itertools.pairwise(words)):
        return False
    # Not 'the sound of the sound of rain', nor 'with a hiss with someone laughing'.
    if sum(word in _SOUND_WORDS for word in words) > 1 or words.count("with") > 1:
        return False
    # 'a pig oinks and snorts and bubbles rise': what the second 'and' joins is unclear.
    return not any(
        words[i] == words[i + 2] == "and" and words[i + 3] not in ("then", "afterwards")
        for i in range(len(words) - 3)
    )


def _templates(relation: str, num_events: int) -> tuple[str, ...]:
    if (relation, num_events) not in TEMPLATES:
        raise DataError(f"no caption templates for {num_events} events in the relation {relation}")
    return TEMPLATES[relation, num_events]


def _omissions(events: Sequence[PlacedEvent], count: int, draw: random.Random) -> set[int]:
    """Which captions leave the background out: at most one in every full five."""
    if events[-1].role != "background":
        return set()
    blocks = range(0, count - count % 5, 5)
    return {start + int(draw.random() * 5) for start in blocks if draw.random() < _OMIT_BACKGROUND}


def _without_background(events: Sequence[PlacedEvent]) -> tuple[str, int]:
    foreground = sum(event.role == "foreground" for event in events)
    return ("single" if foreground == 1 else "sequence"), foreground


def _choose(options: Sequence[T], draw: random.Random) -> T:
    """One of the options, the earlier the likelier: people's phrasings follow a power law too."""
    cumulative = _cumulative_weights(len(options))
    return options[bisect.bisect(cumulative, draw.random() * cumulative[-1])]


@cache
def _cumulative_weights(count: int) -> tuple[float, ...]:
    return tuple(itertools.accumulate((rank + 1) ** -_RANK_EXPONENT for rank in range(count)))
