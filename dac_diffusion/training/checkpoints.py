"""Training checkpoints: folders that are complete or absent, and how the newest is found.

A checkpoint (`checkpoints/step_00001000`) holds model.safetensors (the trained weights and the
buffers), ema.safetensors (the weights' moving average), optimizer.pt (read with weights_only=True)
and state.json (the step, the minutes so far, the best metric, the loop's settings and what the task
wants to remember). Frozen weights are not in it, as a language model's may be many gigabytes and
come from elsewhere anyway; state.json has digests of them, and a run does not go on with others.
There is no random state either: the draws of a step depend on the seed, the step and the process
alone. All tensors are whole, so a run may go on with FSDP or without, and with another number of
processes.
"""

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dac_diffusion.errors import CheckpointError
from dac_diffusion.files import atomic_folder
from dac_diffusion.training.ema import ExponentialMovingAverage
from dac_diffusion.training.surroundings import gather, whole_weights

FILES = ("model.safetensors", "ema.safetensors", "optimizer.pt", "state.json")


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return folder / f"step_{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a folder, oldest step first."""
    found = []
    for path in folder.glob("step_*"):
        match = re.fullmatch(r"step_(\d+)", path.name)
        if match and all((path / name).is_file() for name in FILES):
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]


def frozen_digests(model: nn.Module) -> dict[str, str]:
    """SHA-256 of the frozen weights, their names and types, of each part (child) that has some."""
    _, frozen = _split_weights(model)
    return _digests(frozen.items())


def save_checkpoint(
    path: Path,
    model: nn.Module,
    ema: ExponentialMovingAverage,
    optimizers: list[torch.optim.Optimizer],
    state: dict[str, Any],
    frozen: Mapping[str, str],
    write: bool = True,
) -> None:
    """Write a checkpoint folder under another name and rename it when it is complete.

    frozen: what `frozen_digests` makes of the model. With shards every process must call it;
    without `write` it gives its shares and writes nothing.
    """
    from safetensors.torch import save_file

    averages = gather(ema.averages, write)
    states = [optimizer.state_dict() for optimizer in optimizers]
    for own in states:
        own["state"] = {index: gather(values, write) for index, values in own["state"].items()}
    with whole_weights(model, write):
        if not write:
            return
        weights, _ = _split_weights(model)
        with atomic_folder(path) as partial:
            for name, tensors in (("model", weights), ("ema", averages)):
                tensors = {key: value.detach().contiguous() for key, value in tensors.items()}
                save_file(tensors, partial / f"{name}.safetensors", {"format": "pt"})
            torch.save(states, partial / "optimizer.pt")
            saved = {**state, "ema_updates": ema.updates, "frozen": dict(frozen)}
            (partial / "state.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")


def load_checkpoint(
    path: Path,
    model: nn.Module,
    ema: ExponentialMovingAverage,
    optimizers: list[torch.optim.Optimizer],
    frozen: Mapping[str, str],
) -> dict[str, Any]:
    """Put a checkpoint into the model, the average and the optimizers; return state.json.

    The optimizers keep their own settings (weight decay, betas), so that these may be changed
    between two runs. frozen: as in `save_checkpoint`, of the model as it is now. Raises
    CheckpointError for a damaged folder, one of another model, or one with other frozen weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    advice = f"delete {path} to go on from the one before it, or choose another output folder"
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        found = _load_weights(path / "model.safetensors", model)
        found = state.get("frozen", found)
        ema.load(load_file(path / "ema.safetensors"), state["ema_updates"])
        states = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
        for optimizer, saved in zip(optimizers, states, strict=True):
            _load_optimizer(optimizer, saved)
    except (OSError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged; {advice}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged; {advice}") from error
    except (RuntimeError, CheckpointError) as error:  # also from ema.load
        raise CheckpointError(
            f"{path}: the checkpoint is damaged or of another model or optimizer; {advice}"
        ) from error
    others = sorted(part for part in {*found, *frozen} if found.get(part) != frozen.get(part))
    if others:
        raise CheckpointError(
            f"{path}: was trained beside other frozen weights than those of now (in "
            f"{', '.join(others)}); name the same pretrained weights, in the same precision, or "
            "choose another output folder"
        )
    return state


def _split_weights(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trained weights and buffers, and frozen weights, each under the first of its names."""
    trained: dict[str, Tensor] = {}
    frozen: dict[str, Tensor] = {}
    names = _first_names(model)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if names[name] == name:
            is_frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
            (frozen if is_frozen else trained)[name] = tensor
    return trained, frozen


def _first_names(model: nn.Module) -> dict[str, str]:
    """The first name of what each name stands for: tied weights have several."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def _digests(weights: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    digests: dict[str, Any] = {}
    for name, tensor in weights:
        digest = digests.setdefault(name.partition(".")[0], hashlib.sha256())
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return {part: digest.hexdigest() for part, digest in digests.items()}


def _load_weights(path: Path, model: nn.Module) -> dict[str, str]:
    """Put the trained weights and buffers of a file into the model, one after another.

    Earlier checkpoints hold the frozen weights too; these are left there, their digests returned.
    """
    from safetensors import safe_open

    trained, frozen = _split_weights(model)
    names = _first_names(model)
    with safe_open(path, framework="pt") as file:
        written = file.keys()
        stored = {names.get(name, name): name for name in written}
        if not trained.keys() <= stored.keys() <= trained.keys() | frozen.keys():
            raise CheckpointError("the saved weights are those of another model")
        for name, tensor in trained.items():
            saved = file.get_tensor(stored[name])
            if saved.shape != tensor.shape:
                raise CheckpointError(f"{name} has another shape")
            tensor.detach().copy_(saved)
        ours = [name for name in frozen if name in stored]
        return _digests((name, file.get_tensor(stored[name])) for name in ours)


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    current = optimizer.state_dict()
    sizes = [len(group["params"]) for group in current["param_groups"]]
    if sizes != [len(group["params"]) for group in saved["param_groups"]]:
        raise CheckpointError("the saved optimizer is of another model or kind")
    optimizer.load_state_dict({"state": saved["state"], "param_groups": current["param_groups"]})


def remove_old_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what a killed process left half written."""
    for path in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.partial"):  # the hidden names that files.atomic_folder gives
        shutil.rmtree(path, ignore_errors=True)
