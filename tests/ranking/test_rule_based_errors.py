"""The rules by examples, each with captions that it must find and others that it must not."""

from __future__ import annotations

import numpy as np
import pytest

from dac_diffusion.data.soundscapes.captions import labels, phrasings, write_captions
from dac_diffusion.data.soundscapes.scenes import PlacedEvent, Scene
from dac_diffusion.ranking import rule_based_errors as rules
from dac_diffusion.ranking.error_filter import ErrorDetector
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector

DETECTOR = RuleBasedErrorDetector()
FAULTY = {
    rules.NO_WORDS: ["", " ", "...", "?!"],
    rules.REPEATED_WORDS: [
        "a dog barks barks",
        "a a dog barks",
        "a dog barks a dog barks while it rains",
        "rain falls on a roof on a roof",
        "in the distance in the distance a train passes",
        "water, water drips",
    ],
    rules.REPEATED_EVENT: [
        "a dog barks and a dog barks",
        "a dog barks while a dog is barking",
        "birds chirp, rain falls, and birds chirp",
        "a dog is barking followed by a dog barking",
        "a fly buzzes around and then a fly buzzes nearby",
        "some rustling and rustling",
        "a baby cries and cries",
        "another man speaks loudly as another man speaks loudly",
    ],
    rules.BREAKS_OFF: [
        "a dog barks and a",
        "rain falls on",
        "a man speaks while",
        "birds sing in the",
    ],
    rules.BROKEN_PHRASE: [
        "a dog a of barks loudly",
        "water flows of a over rocks and of falls",
        "a man with and speaks",
        "the and birds sing",
        "rain is while a car passes",
        "someone laughs while as a dog barks",
        "a car horn honks followed and",
        "a dog barks followed by",
        "a the dog barks",
    ],
    rules.MISSING_VERB: [
        "a dog while birds sing",
        "a man a speech",
        "birds chirp while a dog",
        "a woman speaks as the wind in the background",
        "a man speaks while music in the background",
        "an engine and stops",
        "a dog barks and a man",
        "a woman briefly in a room",
        "the fireworks off and then pop",
        "a dog barks, then a man",
        "a dog barks followed by a man",
        "a small brown dog",
    ],
    rules.MISSING_SUBJECT: [
        "is barking loudly",
        "speaks while birds sing",
        "a dog barks while is raining",
        "birds sing as speaks",
        "birds sing while barks loudly",
        "are chirping and a car passes by",
    ],
    rules.MISSING_CONJUNCTION: [
        "a dog barks a man speaks",
        "rain falls birds are chirping",
        "birds are chirping a car passes by",
        "a man is talking people laugh",
        "a door opening a man screaming",
        "a man speaks another man laughs",
    ],
}
GOOD = [
    "a dog barks while birds sing",
    "rain falling on a tin roof",
    "footsteps on gravel followed by a door closing",
    "someone speaking",
    "A dog barks!",
    "Birds chirp, a man speaks, and a car passes by.",
    "Applause",
    "a loud bang",
    "constant rattling noise and sharp vibrations",
    "heavy rain and distant thunder",
    "the sound of a crowd cheering in the distance",
    "a man and a woman talk",
    "a man speaks, then another man speaks",
    "a man speaks again after a man laughs",
    "a bell rings over and over and then stops",
    "someone laughs and laughs again",
    "a clock goes tick tick tick",
    "beep beep",
    "a car drives by",
    "waves roll in and out",
    "a dog can be heard",
    "a dog barks and growls at something",
    "water is running and then is turned off",
    "leaves rustle as the wind blows",
    "as the train passes by the bell rings",
    "a person speaks for a while",
    "a sewing machine runs",
    "a crowd rejoices as a team scores",
    "it sounds like water is running",
    "a bird sings a melody",
    "a dog barks a few times",
    "people talk as well as laugh",
    "a can of soda is opened",
    "a machine that is loud runs",
    "birds are singing and the wind is blowing",
    "a man speaks with music in the background",
    "someone makes keys jingle",
    "the cat's meowing is louder than the dog",
    "a dog\u2019s bark",
]


@pytest.mark.parametrize(("name", "caption"), [(n, c) for n, cs in FAULTY.items() for c in cs])
def test_errors_are_found_and_named(name: str, caption: str) -> None:
    assert name in DETECTOR.errors(caption)
    assert DETECTOR.probabilities([caption]) == [1.0]


@pytest.mark.parametrize("caption", GOOD)
def test_good_captions_pass(caption: str) -> None:
    assert DETECTOR.errors(caption) == []
    assert DETECTOR.probabilities([caption]) == [0.0]


def test_it_is_a_detector_of_the_ranking() -> None:
    assert isinstance(DETECTOR, ErrorDetector)
    assert DETECTOR.probabilities([]) == []
    assert DETECTOR.probabilities(["a dog barks", "a dog a dog", "rain falls"]) == [0.0, 1.0, 0.0]


def test_case_and_a_final_mark_change_nothing() -> None:
    for caption in [*GOOD, *(c for captions in FAULTY.values() for c in captions)]:
        errors = DETECTOR.errors(caption)
        assert DETECTOR.errors(caption.upper()) == errors
        assert DETECTOR.errors(f"{caption} .") == errors


def test_odd_texts_do_no_harm() -> None:
    odd = ["1 2 3", "?a", "der Hund bellt", "\u96e8", "a" * 5000, "a dog " * 500, "of, of; of."]
    assert all(p in (0.0, 1.0) for p in DETECTOR.probabilities(odd))


def test_no_phrase_of_the_built_in_captions_has_an_error() -> None:
    flagged = {text for label in labels() for text in phrasings(label) if DETECTOR.errors(text)}
    # Things that are heard, but nothing says so.
    assert flagged == {"a train on the tracks", "a washing machine"}


def test_the_built_in_captions_pass() -> None:
    rng = np.random.default_rng(0)
    captions = []
    for _ in range(100):
        names = rng.choice(labels(), 2, replace=False)
        first, second = (PlacedEvent(str(name), at * 4.0, 3.0) for at, name in enumerate(names))
        captions += write_captions(Scene((first, second), "sequence", 10.0), rng)
    assert sum(DETECTOR.probabilities(captions)) < 0.01 * len(captions)
