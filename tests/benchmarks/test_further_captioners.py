"""Captioners that --also puts in the tables of the comparison, from end to end and part by part."""

from __future__ import annotations

import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.systems import load_captioner
from dac_diffusion.training.autoregressive import DecodingConfig
from tests.benchmarks.tiny_systems import tiny_clap_art, tiny_recap
from tests.helpers import noise, tiny_autoregressive, tiny_captioner

pytest.importorskip("faiss", reason='needs pip install ".[retrieval]"')

# As the systems' papers decode, but with fewer candidates.
BEAM = {"decoding": "beam", "num_beams": 3, "length_penalty": 0.0, "early_stopping": True}
HYBRID = {"num_candidates": 6, "temperature": 0.5, "top_p": 0.95, "no_repeat_ngram": 3,
          "audio_text_weight": 0.6, "likelihood_weight": 0.4}  # fmt: skip
# (setting, captions per clip, whether it is timed) of each one's rows on the scenes.
EXPECTED = {
    "recap": {
        ("greedy", 1, True), ("beam 3", 1, True), ("nucleus", 5, True),
        ("diverse beam", 5, True), ("nucleus, ranked", 5, False),
    },
    "clap_art": {
        ("greedy", 1, True), ("nucleus", 5, True), ("diverse beam", 5, True),
        ("nucleus, ranked", 5, False),
    },
    "enclap++": {
        ("greedy", 1, True), ("nucleus, best of 6", 1, True), ("nucleus", 5, True),
        ("diverse beam", 5, True), ("nucleus, ranked of 6", 5, False),
    },
    "other": {("8 steps", 1, True), ("8 steps", 5, True), ("8 steps, ranked", 5, False)},
}  # fmt: skip
CLIPS = [(noise(1.0, seed=i), 32000) for i in range(3)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    captioners: dict[str, Any] = {
        "diffusion": tiny_captioner(),
        "autoregressive": tiny_autoregressive(),
        "recap": tiny_recap(),
        "clap_art": tiny_clap_art(),
        "enclap++": tiny_clap_art(num_codebooks=3),
        "other": tiny_captioner(depth=1),
    }
    captioners["recap"].register_to_config(**BEAM)
    captioners["clap_art"].register_to_config(num_candidates=DecodingConfig().num_candidates)
    captioners["enclap++"].register_to_config(**HYBRID)
    for name, captioner in captioners.items():
        captioner.save_pretrained(folder / name)
    return {name: str(folder / name) for name in captioners}


def also(models: dict[str, str], *names: str) -> list[str]:
    return [f"{name}={models[name]}" for name in names or EXPECTED]


def command(
    models: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> None:
    """Set the command line of a small comparison."""
    given = ["--model", models["diffusion"], "--autoregressive", models["autoregressive"]]
    given += ["--clips", "none", "--limit", "2", "--steps", "8", "--dtype", "float32"]
    given += ["--dtypes", "bfloat16", "--batch-sizes", "1", "--rounds", "1", "--threads", "1"]
    given += ["--folder", str(folder), "--human-captions", str(folder), *options]
    monkeypatch.setattr(sys, "argv", ["run.py", *given])


def test_they_are_in_the_same_tables(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kept_captions
    import quality
    import run as script
    import timing

    # These have tests of their own and take long.
    monkeypatch.setattr(quality, "sweep_settings", lambda *_: [])
    monkeypatch.setattr(quality, "all_differences", lambda *_: [])
    monkeypatch.setattr(script, "draw_plots", lambda *_: [])
    command(models, tmp_path, monkeypatch, "--also", *also(models))
    script.main()
    rows = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    for name, expected in EXPECTED.items():
        own = [row for row in rows if row["system"] == name]
        found = {(r["setting"], r["captions_per_clip"], r["aps"] is not None) for r in own}
        assert found == expected
        assert len(own) == len(expected)
        for row in own:
            assert row["cider_d"] is not None
            assert row["mtld"] > 0
            assert (row["best_of_5_cider_d"] is None) == (row["captions_per_clip"] == 1)
    timed = [row for row in rows if row["aps"] is not None]
    assert {row["dtype"] for row in timed} == {"bfloat16"}
    for row in timed:
        if row["setting"] == ("greedy" if row["captions_per_clip"] == 1 else "nucleus"):
            assert (row["aps_ratio"] == 1.0) == (row["system"] == "autoregressive")
        assert row["tps"] > 0
        if row["system"] == "other":
            assert row["network_calls"] == 8
    table = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| enclap++ | nucleus, best of 6 | 1 |" in table

    def fail(*_: Any) -> None:
        raise AssertionError("made again")

    # All of it is kept. No score that captions were chosen by is a number in the table: nothing is
    # lost where the scorer cannot be used any more.
    before = (tmp_path / "summary.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(kept_captions, "make_captions", fail)
        patch.setattr(timing, "time_group", fail)
        patch.setattr(timing, "load_captioners", lambda *_: {})
        patch.setattr(AudioTextScorer, "embed_text", fail)
        patch.setattr(AudioTextScorer, "embed_audio", fail)
        script.main()
    assert (tmp_path / "summary.json").read_bytes() == before
    # With others beside them, no caption of a setting is made again, but every speed is measured.
    groups: list[str] = []
    monkeypatch.setattr(kept_captions, "make_captions", fail)
    monkeypatch.setattr(timing, "time_group", lambda group, *_: groups.append(group.key) or [])
    monkeypatch.setattr(timing, "load_captioners", lambda *_: {})
    for given in (also(models, "recap"), also(models, "recap"), []):
        command(models, tmp_path, monkeypatch, "--also", *given)
        if not given:
            sys.argv.remove("--also")
        args = script.parse_arguments()
        for setting in quality.settings(args):
            kept_captions.caption_all(setting, args)
        timing.time_all(args)
    assert groups == ["bfloat16_K1_B1", "bfloat16_K5_B1"] * 2  # not for the second of the three


def test_other_weights_or_another_name_are_timed_anew(models: dict[str, str]) -> None:
    from timed_group import Group
    from timing import group_head

    def head(*given: str) -> dict[str, Any]:
        args = Namespace(
            model=models["diffusion"], autoregressive=models["autoregressive"], also=list(given),
            steps=[8], rounds=1, fixed_length=None, device="cpu",
        )  # fmt: skip
        return group_head(Group("float32", 1, 1), args)

    heads = [
        head(),
        head(f"a={models['other']}"),
        head(f"b={models['other']}"),
        head(f"a={models['diffusion']}"),
        head(f"a={models['other']}", f"b={models['diffusion']}"),
    ]
    assert all(heads.count(one) == 1 for one in heads)
    assert head(f"a={models['other']}") == heads[1]
    assert set(heads[0]) == {
        "weights", "steps", "rounds", "fixed_length", "machine", "device"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["recap", "enclap++"])
def test_its_own_row_is_what_the_checkpoint_does_by_itself(
    models: dict[str, str], name: str
) -> None:
    """With the captioner as it is loaded, and with one whose weights timing took out."""
    from stopwatch import without_likelihood
    from systems import further_settings

    _, own = further_settings(also(models, name), 1)
    captioner = load_captioner(models[name], "float32")
    expected = [r.captions[0].text for r in captioner(CLIPS, num_captions=1, progress=False)]
    given = own.arguments()
    if name == "recap":
        assert (given["decoding"], given["num_beams"], given["num_candidates"]) == ("beam", 3, 1)
    else:
        plain = captioner(CLIPS, num_captions=1, num_candidates=6, likelihood_weight=0.0)
        assert expected != [result.captions[0].text for result in plain]  # the likelihood counts
    for each in (captioner, without_likelihood(captioner)):
        results = each(CLIPS, progress=False, **own.arguments())
        assert [own.texts(result) for result in results] == [[text] for text in expected]


def test_settings_say_what_they_ask_for(models: dict[str, str]) -> None:
    from systems import fixed_length, further_ranked, further_settings

    (ranked,) = further_ranked(also(models, "enclap++"))
    assert ranked.ranked
    assert ranked.key == "enclap++_nucleus_ranked_of_6_K5"
    assert ranked.arguments() == {
        "num_captions": 5, "num_candidates": 6, "decoding": "nucleus", "audio_text_weight": 0.6,
        "likelihood_weight": 0.4, "agreement_weight": 0.0, "error_threshold": None,
    }  # fmt: skip
    (nucleus, diverse) = further_settings(also(models, "enclap++"), 5)
    counts = {"num_captions": 1, "num_candidates": 5}
    assert nucleus.arguments() == {**counts, "decoding": "nucleus"}
    assert diverse.arguments() == {**counts, "decoding": "diverse_beam"}
    settings = further_settings(also(models), 1)
    for setting in fixed_length(settings, 14):
        lengths = {key: setting.call.get(key) for key in ("min_length", "max_length")}
        assert set(lengths.values()) == ({None} if setting.system == "other" else {14})


def test_ranking_by_likelihood_alone_is_told_in_the_call() -> None:
    from systems import own_decoding, ranked_nucleus

    saved = DecodingConfig(decoding="beam", num_beams=2, ranking="likelihood")
    call = ranked_nucleus("m", saved, 5).call
    weights = [call[f"{part}_weight"] for part in ("audio_text", "likelihood", "agreement")]
    assert weights == [0.0, 1.0, 0.0]
    assert call["num_candidates"] == 10
    assert [s.name for s in own_decoding("m", saved)] == ["beam 2"]
    for decoding in ("greedy", "diverse_beam"):
        assert own_decoding("m", DecodingConfig(decoding=decoding)) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["{other}"], "--also {other}: give NAME=FOLDER"),
        (["=x"], "--also =x: give NAME=FOLDER"),
        (["a="], "--also a=: give NAME=FOLDER"),
        (["a/b=x"], "--also a/b=x: give NAME=FOLDER, the name of letters"),
        (["a={other}", "A={recap}"], "--also A={recap}: the tables have a A already"),
        (["diffusion={other}"], "--also diffusion={other}: the tables have a diffusion already"),
        (["a=nowhere"], "--also a=nowhere: nowhere: there is no such checkpoint folder"),
        (["a={empty}"], "--also a={empty}: {empty}/model_index.json: is missing"),
        (["a={other}", "b={damaged}"], "--also b={damaged}: {damaged}/datastore: is no datastore"),
    ],
)
def test_a_wrong_one_is_told_before_anything_is_run(
    models: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    expected: str,
) -> None:
    import quality
    import run as script
    import timing
    from common import run_main

    (tmp_path / "empty").mkdir()
    shutil.copytree(models["recap"], tmp_path / "damaged")
    (tmp_path / "damaged/datastore/datastore.json").unlink()
    places = {**models, "empty": tmp_path / "empty", "damaged": tmp_path / "damaged"}
    arguments = ["--also", *(each.format(**places) for each in given)]
    for module in (script, quality, timing):
        monkeypatch.setattr(sys, "argv", ["x.py", *arguments, "--folder", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as stopped:
            run_main(module.main)
        assert stopped.value.code == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("error: " + expected.format(**places))
    assert not (tmp_path / "out").exists()
