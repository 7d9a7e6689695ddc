"""Reading published files: what cannot be weights is one clear line."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dac_diffusion.encoders.published_weights import build_empty, check_entries, fill, read_weights
from dac_diffusion.errors import CheckpointError, ConfigError

WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def message(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_every_kind_of_file_is_told_by_its_bytes(tmp_path: Path) -> None:
    files = [
        saved(tmp_path / "weights.pt", WEIGHTS),
        saved(tmp_path / "old.pt", WEIGHTS, _use_new_zipfile_serialization=False),
        tmp_path / "weights.bin",  # a name that says nothing
    ]
    save_file(WEIGHTS, files[-1])
    for file in files:
        content = read_weights(file)
        assert set(content) == set(WEIGHTS)
        for name, tensor in WEIGHTS.items():
            assert torch.equal(content[name], tensor)


def test_settings_beside_the_weights_are_read(tmp_path: Path) -> None:
    content = {"cfg": {"layers": 12, "names": ["a"], "rate": 0.1}, "model": WEIGHTS, "labels": None}
    read = read_weights(saved(tmp_path / "weights.pt", content))
    assert read["cfg"] == content["cfg"]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_the_hub_is_a_file_in_it(tmp_path: Path, name: str) -> None:
    save_file(WEIGHTS, tmp_path / name)
    assert set(read_weights(tmp_path)) == set(WEIGHTS)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert message(tmp_path / "none.pt") == (
        "there is no such file; download the published weights and give their path"
    )
    assert message(tmp_path) == "this folder holds neither model.safetensors nor pytorch_model.bin"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = saved(tmp_path / "weights.pt", WEIGHTS)
    file.chmod(0)
    assert message(file) == "cannot be read (Permission denied)"


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    for content in (b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(content)
        assert message(file).startswith("is not a file of weights (neither .safetensors nor made")
    for content in (b"", b"PK", b"short"):
        file.write_bytes(content)
        assert "download it again" in message(file)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_what_is_cut_short(tmp_path: Path, kind: str, kept: float) -> None:
    file = tmp_path / "weights.pt"
    content = {"weight": torch.randn(100, 100)}
    if kind == "safetensors":
        save_file(content, file)
    else:
        saved(file, content, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    assert message(file) == "is damaged, incomplete or no checkpoint; download it again"


class Harmful:
    """Pickled, it asks the reader to call os.mkdir."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_no_code_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        file = saved(tmp_path / "weights.pt", {"a": Harmful(str(trace))}, **options)
        assert message(file).startswith("holds Python objects that only running its code could")
    file = saved(tmp_path / "weights.pt", {"model": nn.Linear(2, 2)})
    assert message(file).startswith("holds Python objects that only running its code could")
    assert not trace.exists()


@pytest.mark.parametrize("content", [torch.ones(2), [1, 2], {}])
def test_what_holds_no_names(tmp_path: Path, content: Any) -> None:
    file = saved(tmp_path / "weights.pt", content)
    assert message(file) == f"holds no weights by name but a {type(content).__name__}"


def test_entries_that_do_not_fit_are_named() -> None:
    expected = {"a": (2, 3), "b": (1,), "c": (4,), "d": ()}
    fitting = {name: torch.zeros(shape) for name, shape in expected.items()}
    check_entries(fitting, expected, "x.pt", "BEATs")
    found = {"a": torch.zeros(3, 2), "b": [1.0], "c": torch.zeros(4), "e": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        check_entries(found, expected, "x.pt", "BEATs")
    assert str(caught.value) == (
        "x.pt: is not a published BEATs: lacks d; has the unknown e; "
        "a is (3, 2) instead of (2, 3), b is list instead of (1,)"
    )
    with pytest.raises(CheckpointError, match=r"lacks 0, 1, 2, 3 and 6 more$"):
        check_entries({}, {str(i): (1,) for i in range(10)}, "x.pt", "BEATs")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_model_is_built_empty_and_filled(dtype: torch.dtype) -> None:
    state = torch.get_rng_state()
    model = build_empty(lambda: nn.Linear(3, 2), "x.pt")
    assert model.weight.is_meta
    source = torch.arange(12.0).to(dtype)  # both are parts of one tensor, one not contiguous
    filled = fill(model, {"weight": source[:6].reshape(2, 3), "bias": source[::6]})
    assert torch.equal(torch.get_rng_state(), state)
    assert filled.weight.dtype == torch.float32
    assert filled.bias.is_contiguous()
    assert filled.weight.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert filled.bias.tolist() == [0, 6]
    assert not filled.training
    source.zero_()
    assert filled.weight.sum() > 0  # a copy


def test_sizes_that_make_no_model_name_the_file() -> None:
    def build() -> nn.Module:
        raise ConfigError("no")

    with pytest.raises(CheckpointError, match=r"^x\.pt: its sizes make no model: no$"):
        build_empty(build, "x.pt")
