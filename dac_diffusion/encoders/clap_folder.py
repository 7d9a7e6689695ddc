"""Published CLAP models in transformers' form: find the folder, read settings and weights."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dac_diffusion.encoders.published_weights import check_entries, read_weights
from dac_diffusion.errors import CheckpointError

SETTINGS_FILES = ("*.json", "merges.txt")  # of the model, the extractor and the tokenizer
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
# Tables that follow from the sizes; checkpoints of some years have them, of others not.
COMPUTED = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


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
    if not HUB_ID.fullmatch(str(name)):
        raise CheckpointError(
            f"{name}: there is no such folder; give the folder of a transformers ClapModel or a "
            "Hub id such as laion/clap-htsat-unfused"
        )
    return _from_hub(str(name))


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


def _from_hub(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    with suppress(LocalEntryNotFoundError, HFValidationError):
        folder = Path(snapshot_download(name, local_files_only=True))
        if any((folder / weights).is_file() for weights in (SAFETENSORS, PICKLED)):
            return folder  # otherwise only its tokenizer or settings were downloaded
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise CheckpointError(
            f"{name}: no such folder here, not downloaded before, and HF_HUB_OFFLINE is set; "
            "give the path of a ClapModel folder"
        )
    try:
        files = HfApi().model_info(name, files_metadata=True).siblings or []
        names = {file.rfilename for file in files}
        weights = SAFETENSORS if SAFETENSORS in names else PICKLED
        size = sum(file.size or 0 for file in files if file.rfilename == weights)
        logging.getLogger("dac_diffusion").warning(
            "downloading the CLAP model %s from the Hugging Face Hub (%.0f MB)", name, size / 1e6
        )
        return Path(snapshot_download(name, allow_patterns=[*SETTINGS_FILES, weights]))
    except Exception as error:  # from no network to no such model
        raise CheckpointError(
            f"{name}: no such folder here, and the Hugging Face Hub does not give it "
            f"({type(error).__name__}: {_short(error)}); give the path of a ClapModel folder"
        ) from error


def _short(error: Exception) -> str:
    """The start of an error's text, in one line."""
    return " ".join(str(error).split())[:160] or "no reason given"
