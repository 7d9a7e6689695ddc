"""The table of runs that differ in one setting, with tiny captioners on codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dac_diffusion.configuration import load_config
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.training.settings import TrainingConfig
from tests.benchmarks.tiny_systems import tiny_clap_art
from tests.helpers import tiny_captioner

CONFIGS = Path(__file__).parents[2] / "configs"
LIMIT = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ablations")
    paths = {name: folder / name for name in ("one", "two", "no_vector")}
    tiny_clap_art(1).save_pretrained(paths["one"])
    tiny_clap_art(2).save_pretrained(paths["two"])
    tiny_clap_art(2, sequence_vector=False).save_pretrained(paths["no_vector"])
    return paths


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *given: str) -> None:
    import ablations
    from common import run_main

    quick = ["--limit", str(LIMIT), "--clips", "none", "--dtype", "float32"]
    options = [*given, *quick, "--folder", str(folder / "kept")]
    monkeypatch.setattr("sys.argv", ["ablations.py", *options])
    run_main(ablations.main)


@pytest.fixture(scope="module")
def found(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("output")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        given = [f"{name}={path}" for name, path in models.items()]
        run(patch, folder, *given, "--against", "two", "--output", str(folder / "table.json"))
    return json.loads((folder / "table.json").read_text(encoding="utf-8"))


def test_every_run_is_described(found: Any, models: dict[str, Path]) -> None:
    table = {row["system"]: row for row in found["table"]}
    assert list(table) == list(models)
    assert [row["codebooks"] for row in table.values()] == [1, 2, 2]
    assert [row["sequence_vector"] for row in table.values()] == ["yes", "yes", "no"]
    assert table["two"]["parameters"] > table["one"]["parameters"]
    assert "difference" not in table["two"]
    for name in ("one", "no_vector"):
        difference = table[name]["cider_d"] - table["two"]["cider_d"]
        assert table[name]["difference"] == pytest.approx(difference)


def test_captions_and_their_control(found: Any) -> None:
    references = [scene["references"] for scene in found["raw"]["scenes"]]
    from common import derangement

    others = derangement(LIMIT, 0)
    for row in found["table"]:
        captions = [kept["captions"][0] for kept in found["raw"][row["system"]]]
        assert row["cider_d"] == pytest.approx(cider_d(captions, references)[0])
        exchanged = [captions[other] for other in others]
        assert row["shuffled_cider_d"] == pytest.approx(cider_d(exchanged, references)[0])


def test_the_captions_are_greedy(found: Any, models: dict[str, Path]) -> None:
    from common import validation_scenes

    from dac_diffusion.systems import load_captioner

    captioner: Any = load_captioner(models["two"], "float32")
    scenes = [validation_scenes(None, 0).example(i) for i in range(LIMIT)]
    sounds = [(scene.waveform, scene.sampling_rate) for scene in scenes]
    results = captioner(sounds, num_captions=1, decoding="greedy")
    captions = [result.candidates[0] for result in results]
    assert [row["captions"][0] for row in found["raw"]["two"]] == captions


@torch.inference_mode()
def test_the_variance_left_by_hand(found: Any, models: dict[str, Path]) -> None:
    from common import validation_scenes

    from dac_diffusion.systems import load_captioner

    captioner: Any = load_captioner(models["two"], "float32")
    encoder, quantizer = captioner.encoder.codec.encoder, captioner.encoder.codec.quantizer
    frames = []
    for index in range(LIMIT):
        waveform = torch.from_numpy(validation_scenes(None, 0).example(index).waveform)
        canvas = torch.zeros(1, encoder.canvas_samples(len(waveform)))
        canvas[0, : len(waveform)] = waveform
        audio = encoder(canvas, torch.tensor([len(waveform)]))
        frames.append(audio.features[0, audio.mask[0]].double().numpy())
    rows = np.concatenate(frames)  # (R, D)
    total = np.square(rows - rows.mean(axis=0)).sum()
    left = []
    for book in quantizer.codebooks.double().numpy():
        nearest = np.square(rows[:, None] - book).sum(axis=-1).argmin(axis=1)
        rows = rows - book[nearest]
        left.append(np.square(rows).sum() / total)
    (row,) = [row for row in found["table"] if row["system"] == "two"]
    assert row["variance_left_by_stage"] == pytest.approx(left, rel=1e-4)
    assert row["variance_left"] == row["variance_left_by_stage"][1]


def test_captioners_without_codes_have_no_variance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers import tiny_autoregressive

    tiny_autoregressive().save_pretrained(tmp_path / "plain")
    output = tmp_path / "plain.json"
    run(monkeypatch, tmp_path, f"plain={tmp_path / 'plain'}", "--output", str(output))
    (row,) = json.loads(output.read_text(encoding="utf-8"))["table"]
    assert not {"codebooks", "sequence_vector", "variance_left", "difference"} & row.keys()
    assert row["parameters"] > 0


def test_bad_runs_are_one_line(
    models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, f"one={models['one']}", "--against", "other")
    assert "--against other: none of the runs has this name" in capsys.readouterr().err
    tiny_captioner().save_pretrained(tmp_path / "diffusion")
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, f"it={tmp_path / 'diffusion'}")
    assert "is a diffusion captioner; for those there is arms.py" in capsys.readouterr().err


def test_the_configs_differ_in_one_setting() -> None:
    configs = {
        name: load_config(TrainingConfig, CONFIGS / f"ablations/{name}.yaml")
        for name in ("rvq_1", "rvq_4", "rvq_8", "rvq_16", "no_sequence_vector")
    }
    small = load_config(TrainingConfig, CONFIGS / "small/clap_art.yaml")
    base = vars(configs["rvq_8"])
    short = {**vars(small), "loop": base["loop"], "output_dir": base["output_dir"]}
    assert base == short
    for name, config in configs.items():
        changed = {key for key, value in vars(config).items() if value != base[key]}
        if name == "no_sequence_vector":
            assert changed == {"output_dir", "enclap"}
            assert not config.enclap.sequence_vector
        else:
            assert changed <= {"output_dir", "codec"}
            assert config.codec.num_codebooks == int(name.removeprefix("rvq_"))
    assert len({config.output_dir for config in configs.values()}) == len(configs)
