"""Files of published weights: read without running code, checked entry by entry, then loaded."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dac_diffusion.errors import CheckpointError, ConfigError

FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # of a model folder on the Hub
LISTED = 4  # names of entries in one error

Model = TypeVar("Model", bound=nn.Module)


def read_weights(path: str | Path) -> dict[str, Any]:
    """The content of a .safetensors file or of one by torch.save, told apart by their bytes.

    `path` may be the folder that holds a model.safetensors or pytorch_model.bin.
    Raises CheckpointError for a file that is missing, unreadable, incomplete, of another kind, or
    that holds Python objects beside tensors, numbers, texts, lists and dicts.
    """
    file = _weights_file(Path(path))
    try:
        with open(file, "rb") as opened:
            start = opened.read(9)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    if start[8:] == b"{":  # after the length of its JSON header
        content = _read_safetensors(file)
    elif start[:2] == b"PK" or start[:1] == b"\x80":  # a zip archive, or an older file: a pickle
        content = _read_torch(file)
    elif len(start) < 9:
        raise CheckpointError(f"{file}: is empty or incomplete; download it again")
    else:
        raise CheckpointError(
            f"{file}: is not a file of weights (neither .safetensors nor made by torch.save); "
            "a web page or a Git LFS pointer may have been saved in its place, download it again"
        )
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{file}: holds no weights by name but a {type(content).__name__}")
    return content


def _weights_file(path: Path) -> Path:
    if path.is_dir():
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        raise CheckpointError(f"{path}: this folder holds neither {' nor '.join(FOLDER_FILES)}")
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file; download the published weights and give their path"
        )
    return path


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise _damaged(file) from error


def _read_torch(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):  # no class is named, so the bytes are no pickle
            raise _damaged(file) from error
        raise CheckpointError(
            f"{file}: holds Python objects that only running its code could make; give a file of "
            "plain tensors"
        ) from error
    except Exception as error:  # a cut archive raises many kinds, down to bare RuntimeError
        raise _damaged(file) from error


def _damaged(file: Path) -> CheckpointError:
    return CheckpointError(f"{file}: is damaged, incomplete or no checkpoint; download it again")


def check_entries(
    found: Mapping[str, Any],
    expected: Mapping[str, Sequence[int]],
    path: str | Path,
    kind: str,
) -> None:
    """Raises CheckpointError, in one line, for entries missing, unknown or of another shape.

    found: entries of the file at `path` by name; expected: their shapes; kind: for instance "CED".
    """
    shapes = {
        name: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        for name, value in found.items()
    }
    missing = [name for name in expected if name not in shapes]
    unknown = [name for name in shapes if name not in expected]
    misshapen = [
        f"{name} is {shapes[name]} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != tuple(shape)
    ]
    problems = [
        text + _listed(names)
        for text, names in (("lacks ", missing), ("has the unknown ", unknown), ("", misshapen))
        if names
    ]
    if problems:
        raise CheckpointError(f"{path}: is not a published {kind}: {'; '.join(problems)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def build_empty(build: Callable[[], Model], path: str | Path) -> Model:
    """The model that `build` makes, without memory for its weights.

    Raises CheckpointError, naming the file at `path`, for sizes that make no model.
    """
    try:
        with torch.device("meta"):
            return build()
    except ConfigError as error:
        raise CheckpointError(f"{path}: its sizes make no model: {error}") from error


def fill(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """Give a model of `build_empty` all its weights, float32; in evaluation mode."""
    types = {name: value.dtype for name, value in model.state_dict().items()}
    own = {
        # Copies, because parts of one tensor could not be saved as safetensors afterwards.
        name: value.to(dtype=types[name], copy=True).contiguous()
        for name, value in weights.items()
    }
    model.load_state_dict(own, strict=True, assign=True)
    return model.eval()
