"""Which sounds a caption names, and that every phrasing of a label names that label alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dac_diffusion.data.soundscapes.captions import is_continuous, labels, phrasings, write_captions
from dac_diffusion.data.soundscapes.scenes import PlacedEvent, Relation, Scene
from dac_diffusion.errors import DataError
from dac_diffusion.metrics.event_naming import EventNamer, load_event_namer, stem

TABLE = Path(__file__).parents[2] / "benchmarks/event_synonyms.yaml"


@pytest.fixture(scope="module")
def namer() -> EventNamer:
    return load_event_namer(TABLE)


def named(namer: EventNamer, caption: str) -> set[str]:
    return {label for event in namer.find(caption) for label in event.labels}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Water drips slowly into a sink.", {"water_drops"}),
        ("water drops", {"water_drops"}),
        ("drops of rain patter on a tent", {"rain"}),
        ("rain pours down", {"rain"}),
        ("a train rumbles past", {"train"}),
        ("a train passes, blowing its whistle", {"train", "whistling"}),
        ("a train whistle blows", {"train"}),
        ("someone whistles a tune", {"whistling"}),
        ("the wind whistles", {"wind"}),
        ("a rooster crows at dawn", {"rooster"}),
        ("a crow caws, and a rooster is crowing", {"crow", "rooster"}),
        ("a rooster calls, then a crow", {"crow", "rooster"}),
        ("an alarm clock rings", {"clock_alarm"}),
        ("an alarm clock ticks", {"clock_tick"}),
        ("a clock is ticking", {"clock_tick"}),
        ("a doorbell rings", {"doorbell"}),
        ("a bell rings", {"church_bells", "alarm_bell"}),
        ("church bells toll", {"church_bells"}),
        ("an alarm bell rings", {"alarm_bell"}),
        ("a cow bell rings", set()),
        ("a fire engine passes", {"siren"}),
        ("a fire near an engine", {"crackling_fire", "engine"}),
        ("insects chirp at night", {"crickets"}),
        ("birds chirp", {"chirping_birds"}),
        ("insects buzz", {"insects"}),
        ("a baby laughs", {"laughing"}),
        ("a baby cries", {"crying_baby"}),
        ("a man opens a can of soda", {"can_opening"}),
        ("a door creaking open can be heard", {"door_wood_creaks"}),
        ("water is poured into a glass", {"pouring_water"}),
        ("glass shatters", {"glass_breaking"}),
        ("people clap with thunder in the background", {"clapping", "thunderstorm"}),
        ("a vacuum cleaner hums", {"vacuum_cleaner"}),
        ("a gun fires", set()),
        ("some type of machine runs", set()),
        ("strained raining brainy trains", {"rain", "train"}),
        ("", set()),
    ],
)
def test_named_events(namer: EventNamer, caption: str, expected: set[str]) -> None:
    assert named(namer, caption) == expected


def test_every_phrasing_names_its_label_and_no_other(namer: EventNamer) -> None:
    missed = [(x, text) for x in labels() for text in phrasings(x) if not namer.names(text, x)]
    foreign = {
        (label, text): namer.foreign(text, [label])
        for label in labels()
        for text in phrasings(label)
        if namer.foreign(text, [label])
    }
    assert missed == []
    assert foreign == {}


def test_the_table_has_exactly_the_labels_that_can_be_captioned(namer: EventNamer) -> None:
    assert list(namer.labels) == labels()


def random_scene(rng: np.random.Generator) -> Scene:
    relations: tuple[Relation, ...] = ("single", "sequence", "overlap", "background")
    relation = relations[int(rng.integers(4))]
    chosen = rng.choice(labels(), 1 if relation == "single" else 2, replace=False).tolist()
    if relation == "background":
        steady = [x for x in labels() if is_continuous(x) and x != chosen[0]]
        chosen[1] = str(rng.choice(steady))
    events = [
        PlacedEvent(label, 4.0 * i, 3.0, 1 if is_continuous(label) else int(rng.integers(1, 4)))
        for i, label in enumerate(chosen)
    ]
    if relation == "background":
        events[1] = PlacedEvent(chosen[1], 0.0, 8.0, role="background")
    return Scene(tuple(events), relation, 8.0)


def test_reference_captions_name_their_events_and_nothing_else(namer: EventNamer) -> None:
    rng = np.random.default_rng(7)
    wrong, count = [], 0
    for _ in range(200):
        scene = random_scene(rng)
        foreground = [e.label for e in scene.events if e.role == "foreground"]
        for caption in write_captions(scene, rng, 5):
            count += 1
            missed = [x for x in foreground if not namer.names(caption, x)]
            foreign = namer.foreign(caption, [e.label for e in scene.events])
            wrong += [(caption, missed, foreign)] * bool(missed or foreign)
    assert len(wrong) <= 0.005 * count, wrong[:5]


def test_shares_over_several_captions(namer: EventNamer) -> None:
    captions = ["a dog barks", "rain falls while wind blows"]
    assert namer.named_share(captions, ["dog", "rain", "cat", "wind"]) == 3 / 4
    assert namer.named_share([], ["dog"]) == 0.0
    assert [e.words for e in namer.foreign("a dog barks as a cat purrs", ["dog"])] == [
        ("cat",),
        ("purrs",),
    ]


def test_events_come_in_the_order_of_the_caption(namer: EventNamer) -> None:
    found = namer.find("a siren wails, then a dog, and finally a phone ringing")
    assert [sorted(event.labels)[0] for event in found] == ["siren", "dog", "telephone_ringing"] + (
        ["telephone_ringing"] * (len(found) - 3)
    )


@pytest.mark.parametrize(
    "family",
    [
        "drip drips dripping dripped",
        "ring rings ringing rang rung",
        "chime chimes chiming chimed",
        "crash crashes crashing crashed",
        "buzz buzzes buzzing buzzed",
        "cry cries crying cried",
        "call calls calling called",
        "hum hums humming hummed",
        "box boxes",
        "mouse mice",
        "foot feet",
    ],
)
def test_inflections_share_a_stem(family: str) -> None:
    assert len({stem(word) for word in family.split()}) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [("bee", "be"), ("rain", "train"), ("beep", "bee"), ("hiss", "his"), ("string", "stir"),
     ("glass", "glas"), ("wing", "wind"), ("sing", "sin"), ("bus", "bu")],
)  # fmt: skip
def test_other_words_keep_other_stems(first: str, second: str) -> None:
    assert stem(first) != stem(second)


def test_no_two_words_of_the_captions_are_joined_by_accident(namer: EventNamer) -> None:
    words = {w for x in labels() for text in phrasings(x) for w in text.split()}
    by_stem: dict[str, set[str]] = {}
    for word in words:
        by_stem.setdefault(stem(word), set()).add(word.replace("teeth", "tooth"))
    for family in by_stem.values():
        assert len({word[:2] for word in family}) == 1, family


def test_an_exact_form_allows_no_inflection() -> None:
    namer = EventNamer({"crow": ["=crow"], "rooster": ["=crowing"]})
    assert named(namer, "a crow") == {"crow"}
    assert named(namer, "it is crowing") == {"rooster"}


def test_words_may_stand_three_apart_but_not_more() -> None:
    namer = EventNamer({"bell": ["bell ring"]})
    assert named(namer, "ringing of a large bell") == {"bell"}
    assert named(namer, "ring one two three four bell") == set()
    assert named(namer, "a bell, then a ring") == set()


def test_unknown_label_is_an_error(namer: EventNamer) -> None:
    with pytest.raises(DataError, match="dgo"):
        namer.names("a dog barks", "dgo")


@pytest.mark.parametrize(
    "text",
    ["- dog", "dog: bark", "dog: []", "dog: [1]", "dog: ['a-b']", "dog: ['']", "dog: [a", ""],
)
def test_bad_tables_are_one_line_errors(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        load_event_namer(path)
    assert "\n" not in str(error.value)


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.yaml"):
        load_event_namer(tmp_path / "nowhere.yaml")
