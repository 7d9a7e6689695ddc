import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dac_diffusion.data.soundscapes.banks import ClipFolderBank
from dac_diffusion.data.soundscapes.captions import is_continuous
from dac_diffusion.data.soundscapes.dataset import (
    RELATIONS,
    SceneExample,
    SoundscapeConfig,
    SoundscapeDataset,
    Split,
)
from dac_diffusion.data.soundscapes.synthesizers import SYNTHESIZERS
from dac_diffusion.errors import ConfigError, DataError

ROOT = Path(__file__).parents[3]
REAL_CLIPS = ROOT / "../shared/data/clips"
RATE = 32000
COUNTS = {
    "single": {1},
    "sequence": {2, 3},
    "overlap": {2},
    "background": {2},
    "sequence_over_background": {3},
}


def config(
    clips: Path | None = None, relation: str | None = None, **settings: Any
) -> SoundscapeConfig:
    shares = tuple(float(relation == name) if relation else 0.2 for name in RELATIONS)
    folder = None if clips is None else str(clips)
    return SoundscapeConfig(clips=folder, relation_shares=shares, **settings)


@pytest.fixture(scope="module")
def synthesized() -> list[SceneExample]:
    """Scenes of every relation."""
    dataset = SoundscapeDataset(config(), "train")
    examples = [dataset.example(index) for index in range(50)]
    assert {example.scene.relation for example in examples} == set(RELATIONS)
    return examples


@pytest.fixture(scope="module")
def recorded(clip_folder: Path) -> list[SceneExample]:
    """The same of recordings alone."""
    dataset = SoundscapeDataset(config(clip_folder, synthesizer_share=0.0), "train")
    return [dataset.example(index) for index in range(30)]


def assert_same(first: SceneExample, second: SceneExample) -> None:
    assert np.array_equal(first.waveform, second.waveform)
    assert (first.scene, first.captions) == (second.scene, second.captions)


def test_an_example_depends_on_seed_split_and_index_alone(
    synthesized: list[SceneExample], clip_folder: Path, recorded: list[SceneExample]
) -> None:
    again = SoundscapeDataset(config(), "train")
    for index in (7, 2, 7):
        assert_same(again.example(index), synthesized[index])
    settings = config(clip_folder, synthesizer_share=0.0)
    assert_same(SoundscapeDataset(settings, "train").example(11), recorded[11])


def test_other_seeds_splits_and_indices_are_other_scenes(synthesized: list[SceneExample]) -> None:
    others = [
        SoundscapeDataset(config(seed=seed), split).example(0)
        for seed, split in ((1, "train"), (0, "validation"), (0, "test"))
    ]
    waveforms = [example.waveform for example in [*synthesized, *others]]
    assert len({waveform.tobytes() for waveform in waveforms}) == len(waveforms)


@pytest.mark.parametrize("source", ["synthesized", "recorded"])
def test_relations_are_what_they_claim(source: str, request: pytest.FixtureRequest) -> None:
    for example in request.getfixturevalue(source):
        scene = example.scene
        events, relation = scene.events, scene.relation
        assert len(events) in COUNTS[relation]
        assert len({event.label for event in events}) == len(events)
        foreground = [event for event in events if event.role == "foreground"]
        if "background" in relation:
            assert events[-1].role == "background"
            assert is_continuous(events[-1].label)
            assert events[-1].onset == 0
            assert events[-1].seconds == pytest.approx(scene.seconds, abs=1e-3)
            assert all(event.distance != "far" for event in foreground)
        assert len(foreground) == len(events) - ("background" in relation)
        if "sequence" in relation:
            ends = [event.onset + event.seconds for event in foreground]
            starts = [event.onset for event in foreground]
            assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


@pytest.mark.parametrize("source", ["synthesized", "recorded"])
def test_sound_lies_within_bounds(source: str, request: pytest.FixtureRequest) -> None:
    for example in request.getfixturevalue(source):
        assert example.waveform.dtype == np.float32
        assert np.isfinite(example.waveform).all()
        assert 0.001 < np.abs(example.waveform).max() <= 1
        assert len(example.waveform) == pytest.approx(example.scene.seconds * RATE, abs=1)
        assert len(set(example.captions)) == 5
        for label, onset, offset in example.activity:
            assert 0 <= onset < offset <= example.scene.seconds + 1e-3, label


def test_synthesized_scenes_last_as_long_as_asked() -> None:
    dataset = SoundscapeDataset(config(shortest_seconds=2.0, longest_seconds=3.0), "train")
    seconds = [dataset.example(index).scene.seconds for index in range(20)]
    assert 2.0 <= min(seconds) <= max(seconds) <= 3.0


@pytest.mark.parametrize("source", ["synthesized", "recorded"])
def test_activity_is_where_the_energy_is(source: str, request: pytest.FixtureRequest) -> None:
    for example in request.getfixturevalue(source):
        silent = np.ones(len(example.waveform), bool)
        for label, onset, offset in example.activity:
            first, last = round(onset * RATE), round(offset * RATE)
            # The recordings sound all through, but for the pauses between repeats.
            heard = np.square(example.waveform[first:last]).max()
            assert heard > 1e-6, label
            silent[max(0, first - 32) : last + 32] = False  # to the millisecond
        # A recording taken whole may have noise that is no event, 32 dB below the loudest.
        loudest = np.square(example.waveform).max()
        assert np.square(example.waveform[silent]).max(initial=0) <= loudest * 10**-3.2


def test_a_whole_recording_is_left_as_it_is(clip_folder: Path) -> None:
    settings = config(clip_folder, "single", synthesizer_share=0.0, whole_recording_share=1.0)
    dataset = SoundscapeDataset(settings, "validation")
    examples = [dataset.example(index) for index in range(12)]
    seen = {example.scene.events[0].label: example for example in examples}
    assert len({"dog", "car_horn", "door_wood_knock"} & seen.keys()) >= 2
    for label, example in seen.items():
        original, _ = soundfile.read(clip_folder / f"val_{label}_1.wav", dtype="float32")
        np.testing.assert_allclose(example.waveform, original, atol=1e-4)
        (event,) = example.scene.events
        if is_continuous(label):
            assert (event.onset, event.seconds, event.repeats) == (0.0, 4.0, 1)
        else:
            assert event.repeats == 3
            assert (event.onset, event.seconds) == pytest.approx((0.5, 2.3), abs=0.02)


def test_a_recording_longer_than_a_scene_is_not_taken_whole(clip_folder: Path) -> None:
    settings = config(
        clip_folder,
        "single",
        synthesizer_share=0.0,
        whole_recording_share=1.0,
        shortest_seconds=2.0,
        longest_seconds=3.0,
    )
    dataset = SoundscapeDataset(settings, "validation")
    assert all(dataset.example(index).scene.seconds <= 3.0 for index in range(5))


def tone_energy(waveform: np.ndarray, pitch: float) -> float:
    """The share of energy within a quarter of a pitch."""
    power = np.square(np.abs(np.fft.rfft(waveform)))
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    near = np.abs(frequencies - pitch) < pitch / 4
    return float(power[near].sum() / power.sum())


@pytest.mark.parametrize(
    ("split", "own", "other"),
    [("train", 1000, 3000), ("validation", 3000, 1000), ("test", 3000, 1000)],
)
def test_no_recording_of_the_other_split_is_heard(
    clip_folder: Path, split: Split, own: float, other: float
) -> None:
    dataset = SoundscapeDataset(config(clip_folder, synthesizer_share=0.0), split)
    for index in range(12):
        waveform = dataset.example(index).waveform
        assert tone_energy(waveform, own) > 0.9
        assert tone_energy(waveform, other) < 0.01


def test_only_training_changes_the_speed(clip_folder: Path) -> None:
    def pitches(split: Split) -> set[int]:
        settings = config(clip_folder, "single", synthesizer_share=0.0, whole_recording_share=0.0)
        dataset = SoundscapeDataset(settings, split)
        waveforms = [dataset.example(index).waveform for index in range(8)]
        return {round(np.abs(np.fft.rfft(w, 16 * RATE)).argmax() / 16 / 50) * 50 for w in waveforms}

    assert pitches("validation") == {3000}
    assert len(pitches("train")) > 2
    assert all(800 <= pitch <= 1200 for pitch in pitches("train"))


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="needs ../shared/data/clips")
def test_the_real_recordings_of_the_two_splits_are_disjoint() -> None:
    with (REAL_CLIPS / "clips.csv").open(encoding="utf-8", newline="") as file:
        # Of a label: one recording was cut into a clock's alarm and a clock's ticking.
        source = {row["file"]: (row["label"], row["recording"]) for row in csv.DictReader(file)}
    used = {}
    for split in ("train", "validation"):
        dataset = SoundscapeDataset(config(REAL_CLIPS, synthesizer_share=0.0), split)
        assert isinstance(dataset.clips, ClipFolderBank)
        for index in range(3):
            dataset.example(index)
        files = {file for _, file in dataset.clips.files()}
        assert set(dataset.clips._loaded) <= files
        assert dataset.clips._loaded
        used[split] = {source[file] for file in files}
    assert not used["train"] & used["validation"]


@pytest.mark.parametrize(
    "settings",
    [
        {"relation_shares": (0.5, 0.5)},
        {"relation_shares": (0.5, 0.5, 0.5, 0.0, 0.0)},
        {"relation_shares": (1.5, -0.5, 0.0, 0.0, 0.0)},
        {"shortest_seconds": 5.0, "longest_seconds": 4.0},
        {"shortest_seconds": 0.0},
    ],
)
def test_settings_without_sense_are_errors_of_one_line(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))) as caught:
        SoundscapeConfig(**settings)
    assert "\n" not in str(caught.value)


def test_a_label_without_phrases_is_named(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("file,label,split\na.wav,doog,train\n")
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(RATE), RATE)
    dataset = SoundscapeDataset(config(tmp_path, synthesizer_share=0.0), "train")
    with pytest.raises(DataError, match="'doog'; did you mean 'dog'"):
        dataset.example(0)


def test_a_held_out_label_is_in_no_scene(clip_folder: Path) -> None:
    held_out = ("dog", "car_horn", "siren")
    named = re.compile(r"\b(dogs?|sirens?)\b")
    for split in ("train", "validation"):
        every = SoundscapeDataset(config(clip_folder), split)
        rest = SoundscapeDataset(config(clip_folder, held_out_labels=held_out), split)
        heard = [every.example(index) for index in range(40)]
        # Else nothing would be shown by what follows.
        assert set(held_out) & {event.label for each in heard for event in each.scene.events}
        assert any(named.search(text) for example in heard for text in example.captions)
        for index in range(40):
            example = rest.example(index)
            assert not set(held_out) & {event.label for event in example.scene.events}
            assert not any(named.search(text) for text in example.captions), example.captions


def test_scenes_without_held_out_labels_are_as_before(synthesized: list[SceneExample]) -> None:
    # Holding out what no synthesizer makes changes nothing.
    rest = SoundscapeDataset(config(held_out_labels=("dog",)), "train")
    for index in (3, 8):
        assert_same(rest.example(index), synthesized[index])


def test_a_held_out_label_must_be_one() -> None:
    with pytest.raises(
        ConfigError, match="held_out_labels: there is no label dogg; did you mean dog"
    ):
        SoundscapeConfig(held_out_labels=("rain", "dogg"))


def test_something_must_be_left_to_hear() -> None:
    continuous = tuple(label for label in SYNTHESIZERS if is_continuous(label))
    rest = config(relation="background", held_out_labels=continuous)
    with pytest.raises(
        ConfigError, match="held_out_labels: they leave no continuous sound to go on with"
    ):
        SoundscapeDataset(rest, "train").example(0)
    nothing = config(relation="single", held_out_labels=tuple(SYNTHESIZERS))
    with pytest.raises(ConfigError, match="held_out_labels: they leave no sound to go on with"):
        SoundscapeDataset(nothing, "train").example(0)
