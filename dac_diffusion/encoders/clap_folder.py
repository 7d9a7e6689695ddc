"""Published CLAP models in transformers' form: find the folder, read settings and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dac_diffusion.encoders.published_weights import FOLDER_FILES, check_entries, read_weights
from dac_diffusion.errors import CheckpointError
from dac_diffusion.hub import HubFiles, fetch_from_hub, is_hub_id

# Beside the weights the settings of the model, of its extractor and of its tokenizer.
ON_HUB = HubFiles("CLAP model", "ClapModel", ("*.json", "merges.txt"), FOLDER_FILES)
# Tables that follow from the sizes; checkpoints of some years have them, of others not.
COMPUTED = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")


def find_clap_folder(name: str | Path) -> Path:
    """The folder of a CLAP model: one here, or a copy from the Hub (laion/clap-htsat-unfused).

    Raises CheckpointError where there is none under this name.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(
            f"{name}: is a file; give the folder of a transformers ClapModel (the original .pt "
            "files of CLAP are for the encoder laion_clap)"
        )
    if not is_hub_id(name):
        raise CheckpointError(
            f"{name}: there is no such folder; give the folder of a transformers ClapModel or a "
            "Hub id such as laion/clap-htsat-unfused"
        )
    return fetch_from_hub(str(name), ON_HUB)


def read_clap_config(folder: Path) -> Any:  # a transformers ClapConfig
    """The model's settings from config.json; CheckpointError where they describe no CLAP."""
    from transformers import ClapConfig

    path = folder / "config.json"
    content = _read_settings(path)
    if content.get("model_type") != "clap":
        raise CheckpointError(
            f"{path}: describes a model of type {content.get('model_type')!r}, not 'clap'; give "
            "the folder of a ClapModel such as laion/clap-htsat-unfused"
        )
    try:
        return ClapConfig.from_dict(content)
    except Exception as error:  # which kinds depends on the version of transformers
        raise CheckpointError(
            f"{path}: has settings that are no CLAP's ({type(error).__name__}: "
            f"{_short(error)}); download it again"
        ) from error


def read_extractor_settings(folder: Path) -> dict[str, Any]:
    """Settings of ClapFeatureExtractor; empty where the folder has none."""
    # transformers 5 writes all parts of a processor into one file.
    if (folder / "preprocessor_config.json").is_file():
        return _read_settings(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        found = _read_settings(folder / "processor_config.json").get("feature_extractor", {})
        return found if isinstance(found, dict) else {}
    return {}


def load_clap_weights(module: nn.Module, folder: Path) -> None:
    """Fill a module whose parts have ClapModel's names with the weights of a folder.

    Raises CheckpointError for weights that are missing, cut off, or do not fit config.json.
    """
    parts = tuple(f"{name}." for name, _ in module.named_children())
    weights = read_weights(folder)
    fill_by_name(module, {n: w for n, w in weights.items() if n.startswith(parts)}, folder)


def fill_by_name(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load all weights but the computed tables; CheckpointError names those that do not fit."""
    found = {name: value for name, value in weights.items() if not name.endswith(COMPUTED)}
    expected = {n: v.shape for n, v in module.state_dict().items() if not n.endswith(COMPUTED)}
    check_entries(found, expected, path, "CLAP of these settings")
    module.load_state_dict(found, strict=False)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: is missing, so this is no complete CLAP model; download it again"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged, not valid JSON ({_short(error)}); download it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: damaged, a JSON object was expected; download it again")
    return content


def _short(error: Exception) -> str:
    """The start of an error's text, in one line."""
    return " ".join(str(error).split())[:160] or "no reason given"
