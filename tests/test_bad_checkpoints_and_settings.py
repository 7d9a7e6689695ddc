"""Damaged checkpoints and senseless settings, through the command line: one clear line each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dac_diffusion.cli import main
from dac_diffusion.text.tokenizer import train_tokenizer
from tests.helpers import caption_quickly, only_error

ROOT = Path(__file__).parents[1]


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


def unknown_setting(folder: Path) -> str:
    change_index(folder, "loudness_weight", 0.5)
    return "does not know (loudness_weight); upgrade dac-diffusion"


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
        unknown_setting,
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
    assert caption_quickly(folder, good, "--output", tmp_path / "out.jsonl") == 1
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
    assert caption_quickly(checkpoint, good, *arguments) == 1
    assert named in only_error(capsys)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("loop.max_stepz=3", "loop.max_steps"),
        ("loop.max_steps=many", "loop.max_steps"),
        ("seed=-1", ": seed=-1: must be 0 or more, and below 2^63"),
        (f"seed={2**63}", "must be 0 or more, and below 2^63"),
        ("soundscapes.seed=-1", "soundscapes.seed=-1: must be 0 or more"),
        ("codec.fitting.seed=-1", "codec.fitting.seed=-1: must be 0 or more"),
        ("codec.fitting.steps=0", "codec.fitting.steps=0: must be at least 1"),
    ],
)
def test_a_wrong_config_key_or_value_is_named(
    override: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(ROOT / "configs" / "tiny" / "soundscapes.yaml"), override]) == 1
    error = only_error(capsys)
    assert override.partition("=")[0] in error
    assert named in error
