"""Checkpoint folders: find one, check that it is complete, and load its components."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dac_diffusion.errors import CheckpointError
from dac_diffusion.hub import HubFiles, fetch_from_hub, is_hub_id
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.saved_models import (
    cannot_be_loaded,
    check_names,
    check_weights,
    load_saved_model,
    read_json,
    weights_files,
)

BUILTIN = "builtin"
BUILTIN_AUTOREGRESSIVE = "builtin-autoregressive"
INDEX_FILE = "model_index.json"
CAPTIONERS = ("DiffusionCaptioner", "AutoregressiveCaptioner")
# The only places from which a checkpoint may name a class: loading one runs no code of its own.
LIBRARIES = re.compile(r"(dac_diffusion(\.\w+)*|diffusers|transformers)")
ON_HUB = HubFiles(
    "checkpoint", "checkpoint", ("*.json", "*.jinja", "*.safetensors", "*.md", "datastore/*")
)


def find_checkpoint(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint: the built-in one, a folder here, or a copy from the Hub.

    A training run's output folder stands for the captioner it holds in `model`.

    Raises CheckpointError where there is none under this name.
    """
    if str(name) in (BUILTIN, BUILTIN_AUTOREGRESSIVE):
        folder = Path(__file__).parents[1] / str(name).replace("-", "_")
        if not (folder / INDEX_FILE).is_file():
            raise CheckpointError(f"{folder}: this installation has no built-in checkpoint")
        return folder
    folder = Path(name)
    if folder.is_dir():
        exported = folder / "model"  # where a training run puts its captioner
        is_run = not (folder / INDEX_FILE).exists() and (exported / INDEX_FILE).exists()
        return exported if is_run else folder
    if folder.exists():
        raise CheckpointError(f"{name}: is a file; give the checkpoint folder that holds it")
    if not is_hub_id(name):
        raise CheckpointError(
            f"{name}: there is no such checkpoint folder; give a folder, a Hub id (owner/name), "
            f"{BUILTIN!r} or {BUILTIN_AUTOREGRESSIVE!r}"
        )
    return fetch_from_hub(str(name), ON_HUB, revision)


def captioner_class_name(folder: Path) -> str:
    """The class that a checkpoint's index names, for instance DiffusionCaptioner."""
    return str(read_json(folder / INDEX_FILE).get("_class_name"))


def load_components(
    folder: Path, dtype: torch.dtype, class_name: str, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The components of a checkpoint by name, in evaluation mode, and its default settings.

    class_name: the captioner that it must be of; names: of that class's components.
    Raises CheckpointError, naming the file, where anything is missing, damaged or not ours.
    """
    index = read_json(folder / INDEX_FILE)
    found = index.get("_class_name")
    if found != class_name:
        wanted = "captioner of that kind" if found in CAPTIONERS else "checkpoint of dac-diffusion"
        raise CheckpointError(
            f"{folder / INDEX_FILE}: describes a {found}, not a {class_name}; give a {wanted}"
        )
    classes = {name: _component_class(folder, name, index) for name in names}
    folders = {name: _component_folder(folder, name, index) for name in names}
    # Every file is looked at before the first model is built, so that errors come at once.
    for name, cls in classes.items():
        _check_files(folders[name], cls)
    with quiet_libraries():
        components = {name: _load(folders[name], cls, dtype) for name, cls in classes.items()}
    _check_vocabulary(folder, components)
    settings = {key: value for key, value in index.items() if key not in names}
    return components, {key: v for key, v in settings.items() if not key.startswith("_")}


def _component_folder(folder: Path, name: str, index: dict[str, Any]) -> Path:
    """Where a component lies: a checkpoint may share components with the built-in one."""
    shared = index.get("_shared_with") == BUILTIN and not (folder / name).is_dir()
    return (find_checkpoint(BUILTIN) if shared else folder) / name


def _check_vocabulary(folder: Path, components: dict[str, Any]) -> None:
    size = len(components["tokenizer"])
    for name in ("latent_space", "network"):
        if name not in components:
            continue
        component = components[name]
        expected = getattr(component, "vocabulary_size", None) or component.config.vocab_size
        # As in language_models.py: a network may have rows that no token belongs to.
        fits = size <= expected if name == "network" else size == expected
        if not fits:
            raise CheckpointError(
                f"{folder / 'tokenizer'}: has {size} tokens, but the {name.replace('_', ' ')} "
                f"has {expected}; they come from different checkpoints, copy both again"
            )


def _component_class(folder: Path, name: str, index: dict[str, Any]) -> type:
    where = folder / INDEX_FILE
    entry = index.get(name)
    if entry is None:
        raise CheckpointError(f"{where}: does not name the component {name!r}; save it again")
    if not (isinstance(entry, list) and [type(part) for part in entry] == [str, str]):
        raise CheckpointError(f"{where}: {name!r} must be [library, class], found {entry!r}")
    library, class_name = entry
    if not LIBRARIES.fullmatch(library):
        raise CheckpointError(
            f"{where}: {name!r} comes from {library!r}, but only classes of dac_diffusion, "
            "diffusers and transformers are loaded"
        )
    try:
        cls = getattr(importlib.import_module(library), class_name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{where}: this installation has no class {library}.{class_name} for {name!r}; "
            "upgrade dac-diffusion or use another checkpoint"
        ) from error
    if not (isinstance(cls, type) and _kind(cls)):
        raise CheckpointError(
            f"{where}: {library}.{class_name} is no model, scheduler or tokenizer, "
            f"so it cannot be {name!r}"
        )
    return cls


def _kind(cls: type) -> str | None:
    from diffusers import ModelMixin, SchedulerMixin
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    kinds = {
        "model": ModelMixin,
        "scheduler": SchedulerMixin,
        "tokenizer": PreTrainedTokenizerBase,
        "transformers model": PreTrainedModel,
    }
    return next((kind for kind, base in kinds.items() if issubclass(cls, base)), None)


def _check_files(folder: Path, cls: type) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: this component's folder is missing; copy it again")
    kind = _kind(cls)
    settings = {"tokenizer": "tokenizer.json", "scheduler": "scheduler_config.json"}
    read_json(folder / settings.get(str(kind), "config.json"))
    if kind in ("tokenizer", "scheduler"):
        return
    named = weights_files(folder) if kind == "model" else sorted(folder.glob("*.safetensors"))
    for path in named or [folder / "model.safetensors"]:
        check_weights(path)


def _load(folder: Path, cls: Any, dtype: torch.dtype) -> Any:
    try:
        if _kind(cls) == "model":
            return load_saved_model(cls, folder, dtype=dtype)
        if _kind(cls) == "transformers model":
            model, report = cls.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            check_names(folder, report["missing_keys"], report["unexpected_keys"])
            return model.to(dtype).eval()  # the argument's name differs between versions
        return cls.from_pretrained(folder, local_files_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a library raises on a file that does not fit it
        raise cannot_be_loaded(folder, cls, error) from error
