"""The words for how often, how far away and how a sound is made, and how often they are said."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dac_diffusion.data.soundscapes.phrases.forms import EventPhrases
from dac_diffusion.data.soundscapes.scenes import PlacedEvent

# By the number of repeats (4 stands for more). Exact words only where occurrences can be counted.
EXACT_COUNTS = {2: ("twice", "two times"), 3: ("three times",)}
LOOSE_COUNTS = {
    2: ("more than once", "a few times", "again and again"),
    3: ("a few times", "several times", "repeatedly", "over and over", "again and again"),
    4: ("several times", "many times", "repeatedly", "over and over", "again and again"),
}
NOUN_COUNTS = {2: "two", 3: "three"}
NEAR_PLACES = ("nearby", "close by")
NEAR_ADVERBS = ("loudly",)
FAR_PLACES = ("in the distance", "far away", "in the distance")
FAR_ADVERBS = ("faintly",)
DURATIONS = ("for a while", "for some time")
NEAR_ADJECTIVES = ("loud",)
FAR_ADJECTIVES = ("distant", "faint")

# Chances of mention by the number of events in the scene: long captions leave details out.
SAY_REPEATS = {1: 0.7, 2: 0.4, 3: 0.2}
SAY_DISTANCE = {1: 0.6, 2: 0.4, 3: 0.2}
SAY_MANNER = {1: 0.25, 2: 0.08, 3: 0.0}
SAY_DURATION = {1: 0.12, 2: 0.0, 3: 0.0}


class Details(NamedTuple):
    """What a clause says beside the event: an adverb, a closing phrase, and whether it counts.

    `counted`: the adverb tells a number ('twice'), which the progressive cannot stand.
    `distance`: whether the distance is to be mentioned, for noun phrases.
    """

    adverb: str = ""
    place: str = ""
    counted: bool = False
    distance: bool = False


def draw_details(
    event: PlacedEvent,
    phrases: EventPhrases,
    num_events: int,
    said: set[str],
    draw: random.Random,
) -> Details:
    """Details true of the event and not yet `said` in the caption; each only with some chance."""
    if event.role == "background":  # 'in the background' says it all
        return Details()
    adverb, counted = "", False
    if _is_repeated(event, phrases) and draw.random() < SAY_REPEATS[num_events]:
        adverb = _pick(_repeat_words(event, phrases), said, draw)
        counted = adverb.endswith(("times", "twice", "once"))
    distance, place = False, ""
    if event.distance != "middle" and event.distance not in said:  # once for all far events
        distance = draw.random() < SAY_DISTANCE[num_events]
    if distance:
        said.add(event.distance)
        adverb, place = _distance_words(event, phrases, adverb, said, draw)
    if not adverb and draw.random() < SAY_MANNER[num_events]:
        adverb = _pick(phrases.adverbs, said, draw)
    if not (adverb or place) and phrases.continuous and draw.random() < SAY_DURATION[num_events]:
        place = _pick(DURATIONS, said, draw)
    return Details(adverb, place, counted, distance)


def noun_details(
    event: PlacedEvent, phrases: EventPhrases, details: Details, said: set[str], draw: random.Random
) -> tuple[str, str | None]:
    """The adjective of distance ('' for none) and the word of number (None for one event)."""
    adjective = ""
    if details.distance:
        words = NEAR_ADJECTIVES if event.distance == "near" else FAR_ADJECTIVES
        adjective = _pick(words, said, draw)
    if not _is_repeated(event, phrases):
        return adjective, None
    if phrases.countable and event.repeats in NOUN_COUNTS:
        return adjective, NOUN_COUNTS[event.repeats]
    return adjective, "several" if event.repeats > 2 else ""


def _is_repeated(event: PlacedEvent, phrases: EventPhrases) -> bool:
    return event.repeats > 1 and not phrases.continuous


def _repeat_words(event: PlacedEvent, phrases: EventPhrases) -> Sequence[str]:
    loose = LOOSE_COUNTS[min(event.repeats, 4)]
    if not phrases.countable or event.repeats not in EXACT_COUNTS:
        return loose
    return EXACT_COUNTS[event.repeats] + (loose if event.repeats > 2 else ())


def _distance_words(
    event: PlacedEvent, phrases: EventPhrases, adverb: str, said: set[str], draw: random.Random
) -> tuple[str, str]:
    """The distance as an adverb ('loudly') or, where one is there already, as a place."""
    near = event.distance == "near"
    adverbs = NEAR_ADVERBS if near else FAR_ADVERBS
    places = () if near and phrases.ambient else NEAR_PLACES if near else FAR_PLACES
    as_adverb = not adverb and (not places or draw.random() < (0.6 if near else 0.2))
    if as_adverb:
        return _pick(adverbs, said, draw), ""
    return adverb, _pick(places, said, draw)


def _pick(options: Iterable[str], said: set[str], draw: random.Random) -> str:
    """One of the options not yet said, or '' where there is none."""
    left = [option for option in options if option not in said]
    return left[int(draw.random() * len(left))] if left else ""
