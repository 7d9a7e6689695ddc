"""Folders made by a model's `save_pretrained`, read strictly and without running any code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from dac_diffusion.errors import CheckpointError
from dac_diffusion.libraries import quiet_libraries

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


@runtime_checkable
class KeepsFiles(Protocol):
    """A model that saves files of its own beside its settings and weights."""

    def read_files(self, folder: Path) -> None:
        """Take them over from the folder. Raises CheckpointError."""


def load_saved_model(
    cls: Any,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """A diffusers ModelMixin from its folder, in evaluation mode.

    settings: in place of those in config.json. Raises CheckpointError, in one line that names the
    file, for what is missing, damaged, of another model, or does not belong together.
    """
    from safetensors.torch import load_file

    check_class(folder, cls.__name__)
    for path in weights_files(folder):
        check_weights(path)
    try:
        with quiet_libraries():
            config = cls.load_config(folder, local_files_only=True)
            model = cls.from_config({**config, **(settings or {})})
        weights: dict[str, torch.Tensor] = {}
        for path in weights_files(folder):
            weights.update(load_file(path))
        # Not the library's loader: it fills in random weights for missing ones and carries on, and
        # it loses the memory layout that a model chose for its weights, and with it some last bits.
        check_names(folder, *model.load_state_dict(weights, strict=False))
        if isinstance(model, KeepsFiles):
            with quiet_libraries():
                model.read_files(folder)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a library raises on a file that does not fit it
        raise cannot_be_loaded(folder, cls, error) from error
    return model.to(dtype).eval() if dtype is not None else model.eval()


def cannot_be_loaded(folder: Path, cls: type, error: Exception) -> CheckpointError:
    """The error for whatever a library raised, in one line."""
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(
        f"{folder}: cannot be loaded as {cls.__name__} ({type(error).__name__}: {reason})"
    )


def check_class(folder: Path, class_name: str) -> None:
    """Raise CheckpointError unless the folder's config.json describes this class."""
    path = folder / "config.json"
    described = read_json(path).get("_class_name")
    if described != class_name:
        raise CheckpointError(
            f"{path}: describes {described or 'no model'}, not {class_name}; give another folder"
        )


def is_saved(folder: Path, class_name: str) -> bool:
    """Whether a folder was made by this class's save_pretrained."""
    try:
        return read_json(folder / "config.json").get("_class_name") == class_name
    except CheckpointError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises CheckpointError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: is missing, so this is no complete checkpoint; copy or save it again"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # JSON and UTF-8 errors alike
        raise CheckpointError(
            f"{path}: damaged, not valid JSON ({error}); copy it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: damaged, a JSON object was expected; copy it again")
    return content


def weights_files(folder: Path) -> list[Path]:
    """The weights of a model, in one file or in the parts that large models are saved in."""
    whole = folder / WEIGHTS_FILE
    parts = sorted(folder.glob("diffusion_pytorch_model-*-of-*.safetensors"))
    return parts if parts and not whole.is_file() else [whole]


def check_weights(path: Path) -> None:
    """Raise CheckpointError for a safetensors file that is missing, damaged or cut off."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # reads the header, checks the length
            file.keys()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing; copy the checkpoint again") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or cut off ({error}); copy it again") from error


def check_names(folder: Path, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raise CheckpointError where a model's weights and its settings name different ones."""
    missing, unexpected = sorted(missing), sorted(unexpected)
    if missing or unexpected:
        problem = "lack" if missing else "have, beyond what config.json describes,"
        raise CheckpointError(
            f"{folder}: the weights {problem} {', '.join((missing or unexpected)[:3])}; "
            "config.json and the weights do not belong together, copy both again"
        )
