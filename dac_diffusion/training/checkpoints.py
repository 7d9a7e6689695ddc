"""Training checkpoints: folders that are complete or absent, and how the newest is found.

A checkpoint (`checkpoints/step_00001000`) holds model.safetensors (the weights), ema.safetensors
(their moving average), optimizer.pt (read with weights_only=True) and state.json (the step, the
minutes so far, the best metric, the loop's settings and what the task wants to remember). There is
no random state in it: the draws of a step depend on the seed, the step and the process alone. All
tensors are whole, so a run may go on with FSDP or without, and with another number of processes.
"""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

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


def save_checkpoint(
    path: Path,
    model: nn.Module,
    ema: ExponentialMovingAverage,
    optimizers: list[torch.optim.Optimizer],
    state: dict[str, Any],
    write: bool = True,
) -> None:
    """Write a checkpoint folder under another name and rename it when it is complete.

    With shards every process must call it; without `write` it gives its shares and writes nothing.
    """
    from safetensors.torch import save_file, save_model

    averages = gather(ema.averages, write)
    states = [optimizer.state_dict() for optimizer in optimizers]
    for own in states:
        own["state"] = {index: gather(values, write) for index, values in own["state"].items()}
    with whole_weights(model, write):
        if not write:
            return
        with atomic_folder(path) as partial:
            save_model(model, str(partial / "model.safetensors"))
            averages = {name: average.contiguous() for name, average in averages.items()}
            save_file(averages, partial / "ema.safetensors")
            torch.save(states, partial / "optimizer.pt")
            saved = {**state, "ema_updates": ema.updates}
            (partial / "state.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")


def load_checkpoint(
    path: Path,
    model: nn.Module,
    ema: ExponentialMovingAverage,
    optimizers: list[torch.optim.Optimizer],
) -> dict[str, Any]:
    """Put a checkpoint into the model, the average and the optimizers; return state.json.

    The optimizers keep their own settings (weight decay, betas), so that these may be changed
    between two runs. Raises CheckpointError for a damaged folder or one of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, load_model

    advice = f"delete {path} to go on from the one before it, or choose another output folder"
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        load_model(model, str(path / "model.safetensors"))
        ema.load(load_file(path / "ema.safetensors"), state["ema_updates"])
        states = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
        for optimizer, saved in zip(optimizers, states, strict=True):
            _load_optimizer(optimizer, saved)
    except (OSError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged; {advice}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged; {advice}") from error
    except (RuntimeError, CheckpointError) as error:  # from load_model, from ema.load
        raise CheckpointError(
            f"{path}: the checkpoint is damaged or of another model or optimizer; {advice}"
        ) from error
    return state


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
