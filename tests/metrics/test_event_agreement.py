"""Event naming against references, on captions worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.event_agreement import events_named, foreign_events
from dac_diffusion.metrics.event_naming import EventNamer, load_event_namer
from tests.metrics.real_captions import real_captions

NAMER = EventNamer(
    {
        "dog": ["dog", "bark"],
        "rain": ["rain"],
        "church_bells": ["bell ring"],
        "doorbell": ["doorbell", "bell ring"],
    }
)


def test_an_event_counts_where_half_of_the_references_name_it() -> None:
    references = [
        ["a dog barks in the rain", "barking", "it rains", "dogs"],  # dog in 3 of 4, rain in 2
        ["a dog barks", "silence", "silence"],  # dog in 1 of 3
        ["a bell rings", "a bell rings"],  # of one or the other
    ]
    mean, shares = events_named(["a dog", "a dog", "a doorbell"], references, NAMER)
    assert shares == [0.5, None, None]
    assert mean == 0.5
    assert events_named(["rain and dogs"] * 3, references, NAMER)[1][0] == 1.0
    assert events_named(["it"], [["silence"]], NAMER) == (None, [None])


def test_foreign_is_what_no_reference_names() -> None:
    references = [["a dog barks in the rain", "silence"], ["a bell rings"], ["a dog"]]
    assert foreign_events(["rain", "a doorbell", "dog and rain"], references, NAMER) == [0, 0, 1]


def test_the_references_agree_with_themselves_on_real_captions() -> None:
    table = Path(__file__).parents[2] / "benchmarks" / "event_synonyms.yaml"
    captions = real_captions("audiocaps/val.csv", clips=100)
    namer = load_event_namer(table)
    others = [of_clip[1:] for of_clip in captions]
    own, _ = events_named([of_clip[0] for of_clip in captions], others, namer)
    moved, _ = events_named([of_clip[0] for of_clip in captions[1:] + captions[:1]], others, namer)
    assert own is not None
    assert moved is not None
    assert own > 0.7 > 0.3 > moved


def test_lists_that_do_not_fit() -> None:
    with pytest.raises(DataError):
        events_named(["a"], [], NAMER)
    with pytest.raises(DataError):
        foreign_events(["a"], [], NAMER)
