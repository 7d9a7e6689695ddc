"""Captions of scenes: grammar, order, distinctness and coverage of every label and relation."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from dac_diffusion.data.soundscapes.captions import (
    MAX_WORDS,
    event_phrases,
    is_continuous,
    labels,
    phrasings,
    write_captions,
)
from dac_diffusion.data.soundscapes.scenes import Distance, PlacedEvent, Relation, Scene
from dac_diffusion.errors import DataError

# One stem per way of naming a label, written down independently of the phrase tables.
NAMES = {
    "airplane": "airplane plane jet aircraft",
    "alarm_bell": "alarm",
    "bouncing_ball": "ball",
    "breathing": "breath inhal",
    "brushing_teeth": "teeth tooth",
    "bubbling": "bubbl",
    "buzzer": "buzzer",
    "can_opening": "can",
    "car_horn": "horn honk",
    "cat": "cat kitten",
    "chainsaw": "chainsaw",
    "chirping_birds": "bird songbird",
    "church_bells": "church",
    "clapping": "clap applau",
    "clock_alarm": "alarm",
    "clock_tick": "tick",
    "coughing": "cough",
    "cow": "cow cattle",
    "crackling_fire": "fire campfire flame",
    "crickets": "cricket",
    "crow": "crow raven caw",
    "crying_baby": "baby infant newborn",
    "dog": "dog hound",
    "door_wood_creaks": "creak squeak",
    "door_wood_knock": "knock",
    "doorbell": "doorbell",
    "drinking_sipping": "drink sip gulp slurp",
    "drum_beat": "drum",
    "electric_hum": "hum electric",
    "electronic_beep": "beep",
    "engine": "engine motor",
    "fireworks": "firework firecracker",
    "footsteps": "footstep walk",
    "frog": "frog toad bullfrog",
    "glass_breaking": "glass",
    "hand_saw": "saw",
    "heartbeat": "heart",
    "helicopter": "helicopter",
    "hen": "hen chicken",
    "insects": "insect bug bee fly",
    "keyboard_typing": "keyboard typ",
    "laser_zap": "laser zap",
    "laughing": "laugh giggl chuckl",
    "morse_code": "morse",
    "mouse_click": "mouse",
    "music_box": "box",
    "organ_chord": "organ",
    "pig": "pig hog",
    "plucked_string": "string pluck",
    "pouring_water": "pour",
    "rain": "rain",
    "rooster": "rooster cockerel",
    "sea_waves": "wave sea surf",
    "sheep": "sheep lamb",
    "siren": "siren",
    "sneezing": "sneez",
    "snoring": "snor",
    "sonar_ping": "sonar submarine",
    "static_noise": "static noise",
    "telephone_ringing": "phone telephone",
    "thunderstorm": "thunder",
    "toilet_flush": "toilet",
    "train": "train locomotive",
    "vacuum_cleaner": "vacuum",
    "washing_machine": "washing",
    "water_drops": "drip drop faucet tap",
    "whistling": "whistl",
    "wind": "wind",
}
RELATIONS: tuple[tuple[Relation, int], ...] = (
    ("single", 1),
    ("sequence", 2),
    ("sequence", 3),
    ("overlap", 2),
    ("background", 2),
    ("sequence_over_background", 3),
)
DISTANCES: tuple[Distance, ...] = ("near", "middle", "far")
# Three labels whose names occur in no phrase of another label of the test.
PARTNERS = ("siren", "dog", "rain")
ONLY_REPEATED = (
    "twice",
    "two times",
    "three times",
    "several times",
    "over and over",
    "many times",
)


def make_scene(
    relation: Relation, names: tuple[str, ...], repeats: int = 1, distance: int = 1
) -> Scene:
    behind = "background" in relation
    events = tuple(
        PlacedEvent(
            name,
            float(index),
            1.0,
            repeats,
            DISTANCES[distance],
            "background" if behind and index == len(names) - 1 else "foreground",
        )
        for index, name in enumerate(names)
    )
    return Scene(events, relation, 10.0)


def random_scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng(0)
    scenes = []
    for index in range(count):
        relation, num_events = RELATIONS[index % len(RELATIONS)]
        names = rng.choice(labels(), size=num_events, replace=False)
        repeats, distance = int(rng.integers(1, 7)), int(rng.integers(3))
        scenes.append(make_scene(relation, tuple(map(str, names)), repeats, distance))
    return scenes


@pytest.fixture(scope="module")
def corpus() -> list[tuple[Scene, list[str]]]:
    rng = np.random.default_rng(1)
    return [(scene, write_captions(scene, rng)) for scene in random_scenes(1500)]


def named_at(caption: str, label: str) -> int:
    """Position of the first word that names the label, or -1."""
    stems = tuple(NAMES[label].split())
    words = caption.replace(",", "").split()
    return next((i for i, word in enumerate(words) if word.startswith(stems)), -1)


def test_the_68_labels_are_there() -> None:
    assert labels() == sorted(NAMES)
    assert len(labels()) == 68


@pytest.mark.parametrize("label", sorted(NAMES))
def test_phrase_table_of_each_label(label: str) -> None:
    event = event_phrases(label)
    assert 6 <= len(event.clauses) + len(event.nouns) <= 10
    assert len({(c.subject, c.verb, c.rest) for c in event.clauses}) == len(event.clauses)
    for phrase in phrasings(label):
        assert named_at(phrase, label) >= 0, phrase
        assert phrase == " ".join(phrase.lower().split())
    for noun in event.nouns:  # a counted noun of a repeated sound needs its plural
        assert event.continuous or noun.plural or noun.article != "a"
    for clause in event.clauses:
        # The gerund belongs to the verb: same first letter, or a passive.
        assert clause.gerund[0] == clause.verb[0] or clause.gerund.startswith("being ")
        singular_verb = clause.verb.split()[0].endswith("s")
        assert clause.plural != singular_verb, clause


@pytest.mark.parametrize(("relation", "num_events"), RELATIONS)
@pytest.mark.parametrize("label", sorted(NAMES))
def test_every_label_in_every_relation(label: str, relation: Relation, num_events: int) -> None:
    others = [name for name in PARTNERS if name != label]
    for place in range(num_events):
        names = (*others[:place], label, *others[place:])[:num_events]
        scene = make_scene(relation, names, repeats=1 + place, distance=place)
        captions = write_captions(scene, np.random.default_rng(place), 5)
        assert len(set(captions)) == 5
        foreground = [event.label for event in scene.events if event.role == "foreground"]
        for caption in captions:
            positions = [named_at(caption, name) for name in foreground]
            assert min(positions) >= 0, (caption, foreground)
            if label not in ("crow", "clock_alarm", "chirping_birds"):  # 'crow' in 'rooster crows'
                assert positions == sorted(positions), (caption, foreground)
        behind = [event.label for event in scene.events if event.role == "background"]
        for name in behind:
            assert sum(named_at(caption, name) >= 0 for caption in captions) >= 4


def test_the_five_differ_even_without_punctuation(corpus: list[tuple[Scene, list[str]]]) -> None:
    for _, captions in corpus:
        assert len({caption.replace(",", "") for caption in captions}) == 5


def test_form_of_every_caption(corpus: list[tuple[Scene, list[str]]]) -> None:
    for caption in itertools.chain.from_iterable(captions for _, captions in corpus):
        words = caption.replace(",", "").split()
        assert len(words) <= MAX_WORDS
        assert caption == " ".join(caption.lower().split())
        assert caption[-1].isalpha()
        assert all(character.isalpha() or character in " ," for character in caption), caption
        assert " ," not in caption
        for first, second in itertools.pairwise(words):
            assert first != second, caption
            if first in ("a", "an"):
                assert (first == "an") == (second[0] in "aeiou"), caption
        for once in ("in the distance", "in the background", "loudly", "nearby", "repeatedly"):
            assert caption.count(once) <= 1, caption


def test_typical_lengths(corpus: list[tuple[Scene, list[str]]]) -> None:
    bounds = {1: (4, 8), 2: (8, 13), 3: (12, 18)}
    for num_events, (low, high) in bounds.items():
        lengths = [
            len(caption.split())
            for scene, captions in corpus
            if len(scene.events) == num_events
            for caption in captions
        ]
        assert low <= np.mean(lengths) <= high


def test_number_words_fit(corpus: list[tuple[Scene, list[str]]]) -> None:
    for scene, captions in corpus:
        counted = [event for event in scene.events if not is_continuous(event.label)]
        repeats = max((event.repeats for event in counted), default=1)
        for caption in captions:
            if repeats == 1:
                assert not any(words in caption for words in ONLY_REPEATED), caption
            if "twice" in caption or "two" in caption.split():
                assert repeats == 2, caption
            if "three" in caption.split():
                assert repeats == 3, caption


def test_distance_words_fit(corpus: list[tuple[Scene, list[str]]]) -> None:
    near, far = {"loudly", "nearby", "close", "loud"}, {"distance", "far", "faintly", "distant"}
    said = 0
    for scene, captions in corpus:
        distance = scene.events[0].distance  # the same for all events of a scene here
        for caption in captions:
            words = set(caption.replace(",", "").split())
            assert distance == "near" or not words & near, caption
            assert distance == "far" or not words & far, caption
            said += bool(words & (near | far))
    assert said > 1000


def test_vocabulary(corpus: list[tuple[Scene, list[str]]]) -> None:
    words = {w for _, captions in corpus for c in captions for w in c.replace(",", "").split()}
    assert len(words) > 500


def test_same_generator_same_captions() -> None:
    scene = make_scene("sequence", ("dog", "cow"), repeats=2, distance=2)
    first, again, other = (write_captions(scene, np.random.default_rng(s)) for s in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("count", [1, 4, 10, 20])
def test_any_count_of_captions(count: int) -> None:
    scene = make_scene("background", ("dog", "rain"))
    captions = write_captions(scene, np.random.default_rng(0), count)
    assert len(set(captions)) == count
    assert sum(named_at(caption, "rain") < 0 for caption in captions) <= count // 5


def test_speed() -> None:
    scenes, rng = random_scenes(200), np.random.default_rng(0)
    start = time.process_time()
    for scene in scenes:
        write_captions(scene, rng)
    assert (time.process_time() - start) / len(scenes) < 0.002  # typically 0.00015


def test_unknown_label_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"'dogg'.*'dog'"):
        write_captions(make_scene("single", ("dogg",)), np.random.default_rng(0))


def test_impossible_scene() -> None:
    with pytest.raises(DataError, match="2 events in the relation single"):
        write_captions(make_scene("single", ("dog", "cat")), np.random.default_rng(0))


def test_a_count_out_of_reach_is_an_error() -> None:
    with pytest.raises(DataError, match="different captions"):
        write_captions(make_scene("single", ("dog",)), np.random.default_rng(0), 600)
