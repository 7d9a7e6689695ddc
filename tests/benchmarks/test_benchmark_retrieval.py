"""The trial of datastores: what is looked up, what is shown, what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.configuration import load_config
from dac_diffusion.metrics.event_naming import load_event_namer
from dac_diffusion.training.settings import TrainingConfig
from tests.benchmarks.tiny_systems import STORED, tiny_recap
from tests.helpers import tiny_autoregressive

HELD_OUT = ["siren", "helicopter", "thunderstorm", "train"]
LIMIT = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and what it was trained with."""
    folder = tmp_path_factory.mktemp("recap")
    tiny_recap().save_pretrained(folder / "model")
    labels = f"soundscapes: {{held_out_labels: [{', '.join(HELD_OUT)}]}}\n"
    (folder / "config.yaml").write_text(labels, encoding="utf-8")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> None:
    import retrieval
    from common import run_main

    given = ["--model", str(folder / "model"), "--config", str(folder / "config.yaml")]
    given += ["--clips", "none", "--limit", str(LIMIT), "--store-scenes", "25"]
    monkeypatch.setattr("sys.argv", ["retrieval.py", *given, "--dtype", "float32", *options])
    run_main(retrieval.main)


@pytest.fixture(scope="module")
def found(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        output = folder / "retrieval.json"
        run(patch, folder, "--k", "1", "2", "--shares", "0.4", "--output", str(output))
        return json.loads(output.read_text(encoding="utf-8"))


def rows(found: Any, name: str) -> list[Any]:
    return found["raw"][f"captions of {name}"]


def one(found: Any, name: str, store: str, k: int, shuffled: str = "") -> Any:
    (row,) = [
        row
        for row in rows(found, name)
        if (row["store"], row["k"], row["shuffled"]) == (store, k, shuffled)
    ]
    return row


def test_every_store_with_every_k(found: Any) -> None:
    expected = [("none", 0, "")]
    for store in ("40 %", "100 %", "100 % + unseen", "unseen"):
        expected += [(store, 1, ""), (store, 2, "")]
        if store.startswith("100 %"):
            expected.append((store, 2, "yes"))
    for name in ("unseen", "seen"):
        assert [(r["store"], r["k"], r["shuffled"]) for r in rows(found, name)] == expected
    assert [row["set"] for row in found["table"]] == [
        *["unseen"] * len(expected), *["seen"] * len(expected),
    ]  # fmt: skip
    texts = sum(map(len, STORED.values()))
    sizes = {row["store"]: row["captions"] for row in found["table"]}
    assert (sizes["none"], sizes["100 %"]) == (0, texts)
    assert 0 < sizes["40 %"] < texts
    assert sizes["100 % + unseen"] == texts + sizes["unseen"]
    assert sizes["unseen"] > 0


def test_the_scenes_are_of_the_two_kinds(found: Any) -> None:
    assert all(set(HELD_OUT) & set(scene["labels"]) for scene in found["raw"]["unseen"])
    assert not any(set(HELD_OUT) & set(scene["labels"]) for scene in found["raw"]["seen"])
    assert [len(found["raw"][name]) for name in ("unseen", "seen")] == [LIMIT, LIMIT]


def test_with_its_own_store_it_writes_what_the_captioner_writes(found: Any, folder: Path) -> None:
    from common import validation_scenes
    from judged_scenes import find_scenes

    from dac_diffusion.systems import load_captioner

    captioner: Any = load_captioner(folder / "model", "float32")
    dataset = validation_scenes(None, 0)
    for name in ("unseen", "seen"):
        scenes = find_scenes(
            dataset, LIMIT, lambda labels, n=name: bool({*HELD_OUT} & {*labels}) == (n == "unseen")
        )
        sounds = [(scene.waveform, scene.sampling_rate) for scene in scenes]
        results = captioner(sounds, num_captions=1, decoding="greedy")
        captions = [result.candidates[0] for result in results]
        assert one(found, name, "100 %", 2)["captions"] == captions


def test_shown_are_the_nearest_or_those_of_another_scene(found: Any) -> None:
    for name in ("unseen", "seen"):
        assert one(found, name, "none", 0)["found"] == [[]] * LIMIT
        first = one(found, name, "100 % + unseen", 1)["found"]
        both = one(found, name, "100 % + unseen", 2)["found"]
        assert [texts[:1] for texts in both] == first
        exchanged = one(found, name, "100 % + unseen", 2, "yes")["found"]
        assert sorted(exchanged) == sorted(both)
        known = {text for own in STORED.values() for text in own}
        assert {text for texts in one(found, name, "100 %", 2)["found"] for text in texts} <= known
        unseen = one(found, name, "unseen", 2)["found"]
        assert not {text for texts in unseen for text in texts} & known
    # What is shown matters, or nothing was shown.
    written = [one(found, "unseen", "none", 0), one(found, "unseen", "100 % + unseen", 2)]
    assert written[0]["captions"] != written[1]["captions"]


def test_the_captions_of_held_out_sounds_are_of_scenes_with_them(folder: Path) -> None:
    from argparse import Namespace

    from common import SYNONYMS
    from retrieval_parts import unseen_captions

    args = Namespace(clips="none", config=folder / "config.yaml", store_scenes=25)
    captions = unseen_captions(HELD_OUT, args)
    namer = load_event_namer(SYNONYMS)
    assert 0 < len(captions) < 25
    for texts in captions.values():
        assert len(texts) == 5
        assert namer.named_share(texts, HELD_OUT) > 0


def test_what_is_counted_by_hand() -> None:
    import torch
    from common import SYNONYMS
    from retrieval import Shown, naming
    from retrieval_parts import HeardScenes

    from dac_diffusion.retrieval.datastore import Retrieved

    namer = load_event_namer(SYNONYMS)
    labels = [["siren"], ["siren", "train"]]
    found = [
        Retrieved(("a siren wails", "rain falls"), (0.5, 0.3), (0, 1)),
        Retrieved(("rain falls",), (0.1,), (1,)),
    ]
    shown = Shown("a store", 2, 2, False, found)
    assert shown.row()["cosine"] == pytest.approx(0.3)
    captions = ["a siren wails", "a train passes"]
    unseen = HeardScenes("unseen", [], labels, [], torch.zeros(0))
    assert naming(unseen, shown, captions, HELD_OUT, namer) == {
        "found": pytest.approx(1 / 3),
        "held_out_named": pytest.approx(2 / 3),
    }
    seen = HeardScenes("seen", [], [[], []], [], torch.zeros(0))
    counted = naming(seen, shown, ["a siren wails", "rain falls"], HELD_OUT, namer)
    assert counted == {"found": None, "held_out_named": 0.5}


def test_captions_of_held_out_sounds_in_its_own_store_are_counted(found: Any) -> None:
    from retrieval import named_in

    different = {text for own in STORED.values() for text in own}
    assert found["named_in_training"] == [len(different), 0]
    assert named_in({**STORED, "x": ["a siren wails", "a siren wails"]}, HELD_OUT) == [
        len(different) + 1,
        1,
    ]


def test_the_config_holds_out_what_no_caption_of_the_others_names() -> None:
    from common import SYNONYMS
    from retrieval import CONFIG

    from dac_diffusion.data.soundscapes.captions import labels, phrasings

    held_out = load_config(TrainingConfig, CONFIG).soundscapes.held_out_labels
    assert len(held_out) == 10
    namer = load_event_namer(SYNONYMS)
    for label in labels():
        named = {text for text in phrasings(label) if namer.named_share([text], held_out) > 0}
        assert bool(named) == (label in held_out), (label, named)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "0"], "--k 0: must be at least 1"),
        (["--k", "40"], "the network has 256 positions; give smaller ones"),
        (["--store-scenes", "1"], "--store-scenes 1: none of them has a held-out sound"),
    ],
)
def test_bad_settings_are_one_line(
    options: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, folder, *options)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_captioners_and_configs_that_cannot_be_asked(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_autoregressive().save_pretrained(tmp_path / "plain")
    with pytest.raises(SystemExit):
        run(monkeypatch, folder, "--model", str(tmp_path / "plain"))
    assert "looks nothing up; give a RECAP captioner" in capsys.readouterr().err
    (tmp_path / "all.yaml").write_text("seed: 0\n")
    with pytest.raises(SystemExit):
        run(monkeypatch, folder, "--config", str(tmp_path / "all.yaml"))
    assert "soundscapes.held_out_labels is empty; name some" in capsys.readouterr().err
