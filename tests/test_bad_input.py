"""Bad input of every kind, through the command line: one clear line, the rest still captioned."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dac_diffusion.cli import main
from dac_diffusion.text.tokenizer import train_tokenizer
from tests.helpers import RATE, noise, tiny_captioner, write_recordings

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_captioner().save_pretrained(folder)
    return folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (path,) = write_recordings(tmp_path, 1, seconds=0.3)
    return path


def caption(checkpoint: Path, *arguments: str | Path) -> int:
    fast = ["--num-steps", "1", "--num-captions", "2", "--format", "jsonl"]
    return main(["caption", "--model", str(checkpoint), *fast, *map(str, arguments)])


def only_error(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("dac-diffusion: error: ")
    assert error.count("\n") == 1, error
    return error


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    soundfile.write(path.with_suffix(".flac"), noise(1.0), RATE)
    content = path.with_suffix(".flac").read_bytes()
    path.with_suffix(".flac").unlink()
    path.write_bytes(content[:200])


def text_named_wav(path: Path) -> None:
    path.write_text("This is no recording.\n" * 100)


def silent(path: Path) -> None:
    soundfile.write(path, np.zeros(RATE), RATE)


def not_a_number(path: Path) -> None:
    samples = noise(1.0)
    samples[100] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def infinite(path: Path) -> None:
    samples = noise(1.0)
    samples[100] = np.inf
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def one_sample(path: Path) -> None:
    soundfile.write(path, noise(1.0)[:1], RATE)


def missing(path: Path) -> None:
    pass


def folder_without_audio(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("nothing to hear")


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:  # root reads everything but this
        path.symlink_to("/proc/self/mem")
        return
    soundfile.write(path, noise(0.3), RATE)
    path.chmod(0)


@pytest.mark.parametrize(
    "make",
    [
        empty,
        truncated,
        text_named_wav,
        silent,
        not_a_number,
        infinite,
        one_sample,
        missing,
        folder_without_audio,
        unreadable,
    ],
)
def test_a_bad_recording_is_named_and_the_other_captioned(
    make: Callable[[Path], None],
    checkpoint: Path,
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.wav"
    make(bad)
    target = tmp_path / "out.jsonl"
    assert caption(checkpoint, bad, good, "--output", target) == 1
    assert str(bad) in only_error(capsys)
    (row,) = [json.loads(line) for line in target.read_text().splitlines()]
    assert row["file_name"] == good.name
    assert row["captions"]


@pytest.mark.parametrize(
    ("rate", "channels", "seconds"),
    [(32000, 8, 0.5), (4000, 1, 1.0), (192000, 1, 0.5), (44100, 2, 0.5)],
)
def test_unusual_recordings_are_captioned(
    rate: int, channels: int, seconds: float, checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    samples = np.random.default_rng(0).normal(0, 0.1, (round(rate * seconds), channels))
    soundfile.write(tmp_path / "unusual.wav", samples, rate)
    assert caption(checkpoint, tmp_path / "unusual.wav") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["duration_seconds"] == pytest.approx(seconds, abs=0.01)
    assert len(row["captions"]) == 2


def test_ten_minutes_are_captioned(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "long.wav", noise(600, rate=4000), 4000)
    assert caption(checkpoint, tmp_path / "long.wav") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["duration_seconds"] == pytest.approx(600, abs=0.01)
    assert len(row["captions"]) == 2


@pytest.mark.parametrize("name", ["Hündin – 犬.wav", "tab\tand\nline.wav"])
def test_unusual_names_are_kept(
    name: str, checkpoint: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = good.rename(good.with_name(name))
    assert caption(checkpoint, path) == 0
    assert json.loads(capsys.readouterr().out)["file_name"] == name


def test_names_that_are_no_utf8_are_captioned(checkpoint: Path, good: Path, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.wav"
    try:
        os.rename(good, path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    target = tmp_path / "out.jsonl"
    assert caption(checkpoint, os.fsdecode(path), "--output", target) == 0
    assert json.loads(target.read_text(encoding="utf-8"))["file_name"] == "\ufffd.wav"


def test_a_missing_output_folder_is_an_error(
    checkpoint: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(checkpoint, good, "--output", tmp_path / "no" / "out.csv") == 1
    assert str(tmp_path / "no") in only_error(capsys)


def test_a_read_only_output_folder_is_an_error(
    checkpoint: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.geteuid() == 0:  # root writes everywhere but there
        folder = Path("/proc/self")
        if not folder.is_dir():
            pytest.skip("no folder that root cannot write to")
    assert caption(checkpoint, good, "--output", folder / "out.csv") == 1
    assert "out.csv" in only_error(capsys)


def test_no_output_replaces_an_older_one_when_all_inputs_fail(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("from before")
    assert caption(checkpoint, tmp_path / "missing.wav", "--output", target) == 1
    assert "missing.wav" in only_error(capsys)
    assert target.read_text() == "from before"
    assert list(tmp_path.iterdir()) == [target]


def without_index(folder: Path) -> str:
    (folder / "model_index.json").unlink()
    return "model_index.json"


def broken_index(folder: Path) -> str:
    (folder / "model_index.json").write_text('{"encoder": ')
    return "model_index.json"


def of_another_kind(folder: Path) -> str:
    change_index(folder, "_class_name", "StableDiffusionPipeline")
    return "StableDiffusionPipeline"


def without_a_component(folder: Path) -> str:
    change_index(folder, "scorer", None)
    return "'scorer'"


def foreign_class(folder: Path) -> str:
    change_index(folder, "encoder", ["os.path", "join"])
    return "'os.path'"


def unknown_class(folder: Path) -> str:
    change_index(folder, "encoder", ["dac_diffusion.encoders.convolutional", "Nothing"])
    return "Nothing"


def class_of_no_component(folder: Path) -> str:
    change_index(folder, "encoder", ["transformers", "pipeline"])
    return "transformers.pipeline"


def without_a_folder(folder: Path) -> str:
    shutil.rmtree(folder / "latent_space")
    return "latent_space"


def without_weights(folder: Path) -> str:
    (folder / "denoiser" / "diffusion_pytorch_model.safetensors").unlink()
    return "denoiser/diffusion_pytorch_model.safetensors"


def without_tokenizer(folder: Path) -> str:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    return "tokenizer.json"


def without_scheduler_config(folder: Path) -> str:
    (folder / "scheduler" / "scheduler_config.json").unlink()
    return "scheduler_config.json"


def cut_off_weights(folder: Path) -> str:
    path = folder / "denoiser" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return "denoiser/diffusion_pytorch_model.safetensors"


def weights_of_another_size(folder: Path) -> str:
    config = json.loads((folder / "denoiser" / "config.json").read_text())
    (folder / "denoiser" / "config.json").write_text(json.dumps({**config, "width": 64}))
    return "denoiser"


def weights_of_another_depth(folder: Path) -> str:
    config = json.loads((folder / "denoiser" / "config.json").read_text())
    (folder / "denoiser" / "config.json").write_text(json.dumps({**config, "depth": 3}))
    return "denoiser"


def pickled_weights(folder: Path) -> str:
    path = folder / "scorer" / "diffusion_pytorch_model.safetensors"
    path.unlink()
    torch.save({}, path.with_suffix(".bin"))
    return "scorer/diffusion_pytorch_model.safetensors"


def broken_tokenizer(folder: Path) -> str:
    (folder / "tokenizer" / "tokenizer.json").write_text('{"model": {}}')
    return "tokenizer"


def tokenizer_of_another_checkpoint(folder: Path) -> str:
    train_tokenizer(["a much smaller vocabulary"], 200).save_pretrained(folder / "tokenizer")
    return "tokenizer"


def change_index(folder: Path, key: str, value: object) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index[key] = value
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "damage",
    [
        without_index,
        broken_index,
        of_another_kind,
        without_a_component,
        foreign_class,
        unknown_class,
        class_of_no_component,
        without_a_folder,
        without_weights,
        without_tokenizer,
        without_scheduler_config,
        cut_off_weights,
        weights_of_another_size,
        weights_of_another_depth,
        pickled_weights,
        broken_tokenizer,
        tokenizer_of_another_checkpoint,
    ],
)
def test_a_damaged_checkpoint_is_one_line_that_names_the_place(
    damage: Callable[[Path], str],
    checkpoint: Path,
    good: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint, folder)
    named = damage(folder)
    assert caption(folder, good, "--output", tmp_path / "out.jsonl") == 1
    error = only_error(capsys)
    assert str(folder) in error
    assert named in error
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "/no/where/at/all"])
def test_a_missing_checkpoint_is_an_error(
    name: str, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(good), "--model", name]) == 1
    assert name in only_error(capsys)


def test_a_hub_id_without_network_is_an_error(
    good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["caption", str(good), "--model", "nobody/nothing"]) == 1
    assert "nobody/nothing" in only_error(capsys)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--scheduler", "euler"], "euler"),
        (["--num-captions", "0"], "num_captions=0"),
        (["--num-captions", "9", "--num-candidates", "8"], "num_candidates=8"),
        (["--num-steps", "0"], "num_steps=0"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--device", "abacus"], "abacus"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--dtype", "int8"], "int8"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    arguments: list[str],
    named: str,
    checkpoint: Path,
    good: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert caption(checkpoint, good, *arguments) == 1
    assert named in only_error(capsys)


@pytest.mark.parametrize(
    ("override", "named"),
    [("loop.max_stepz=3", "loop.max_steps"), ("loop.max_steps=many", "loop.max_steps")],
)
def test_a_wrong_config_key_or_value_is_named(
    override: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(ROOT / "configs" / "tiny" / "soundscapes.yaml"), override]) == 1
    error = only_error(capsys)
    assert override.partition("=")[0] in error
    assert named in error
