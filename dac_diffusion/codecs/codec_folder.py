"""Published neural audio codecs in transformers' form: find the folder, read settings, weights."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dac_diffusion.encoders.published_weights import FOLDER_FILES, check_entries, read_weights
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.hub import HubFiles, fetch_from_hub, is_hub_id

SETTINGS_FILE = "config.json"
# The two tensors of a weight-normalised layer, as older and as newer versions of torch name them.
LENGTHS = (".parametrizations.weight.original0", ".weight_g")
DIRECTIONS = (".parametrizations.weight.original1", ".weight_v")


@dataclass(frozen=True)
class CodecKind:
    """What is said of a codec in messages, and the `model_type` in its config.json."""

    name: str
    model_type: str
    example: str


def find_codec_folder(path_or_hub_id: str | Path, kind: CodecKind) -> Path:
    """The folder of a codec: one here, or a copy from the Hub. Raises CheckpointError."""
    folder = Path(path_or_hub_id)
    if folder.is_dir():
        return folder
    expected = f"give the folder of a transformers {kind.name} or a Hub id such as {kind.example}"
    if folder.exists():
        raise CheckpointError(f"{folder}: is a file; {expected}")
    if not is_hub_id(path_or_hub_id):
        raise CheckpointError(f"{folder}: there is no such folder; {expected}")
    files = HubFiles("codec", kind.name, (SETTINGS_FILE,), FOLDER_FILES)
    return fetch_from_hub(str(path_or_hub_id), files)


def read_codec_settings(
    folder: Path, kind: CodecKind, config_class: Any, names: Iterable[str]
) -> dict[str, Any]:
    """The named settings of a codec's config.json, with transformers' defaults.

    Raises CheckpointError for a file that is missing, damaged or of another model.
    """
    path = folder / SETTINGS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: is missing, so this is no complete {kind.name}; download it again"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged, not valid JSON ({_short(error)}); download it again"
        ) from error
    model_type = content.get("model_type") if isinstance(content, dict) else None
    if model_type != kind.model_type:
        raise CheckpointError(
            f"{path}: describes a model of type {model_type!r}, not {kind.model_type!r}; give the "
            f"folder of a {kind.name} such as {kind.example}"
        )
    try:
        config = config_class.from_dict(content)
        settings = {name: _as_json(getattr(config, name)) for name in names}
        _check_kinds(settings, config_class)
        return settings
    except Exception as error:  # which kinds depends on the version of transformers
        raise _no_codec(path, kind, error) from error


def make_config(config_class: Any, given: dict[str, Any], names: Iterable[str], label: str) -> Any:
    """A transformers configuration of the given settings; raises ConfigError for what it has not.

    label: what the settings are called in messages.
    """
    names = tuple(names)
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise ConfigError(
            f"{label}: {', '.join(unknown)} unknown; use the names of {config_class.__name__}: "
            f"{', '.join(names)}"
        )
    try:
        _check_kinds(given, config_class)
        return config_class(**given)
    except Exception as error:  # which kinds depends on the version of transformers
        raise ConfigError(f"{label}: {_short(error)}") from error


def _check_kinds(settings: dict[str, Any], config_class: Any) -> None:
    """Raise ValueError for a text where a number belongs and the like, in every version."""
    defaults = config_class()
    for name, value in settings.items():
        default = getattr(defaults, name)
        if default is not None and _kind(value) is not _kind(default):
            raise ValueError(f"{name}={value!r} is not possible")


def _kind(value: Any) -> type:
    """bool, str, float for every number, list for every sequence of numbers."""
    if isinstance(value, list | tuple):
        return list if all(_kind(part) is float for part in value) else object
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float if number else type(value)


def load_codec_weights(module: nn.Module, folder: Path, kind: CodecKind) -> None:
    """Fill a codec's encoder and quantizer with the weights of a folder; its decoder is left out.

    Raises CheckpointError for weights that are missing, cut off, or do not fit config.json.
    """
    expected = {name: tensor.shape for name, tensor in module.state_dict().items()}
    weights = read_weights(folder)
    own = {name: value for name, value in weights.items() if not name.startswith("decoder.")}
    found = _named_alike(own, expected)
    check_entries(found, expected, folder, f"{kind.name} of these settings")
    module.load_state_dict(found, strict=True)


def _named_alike(weights: dict[str, Any], expected: Iterable[str]) -> dict[str, Any]:
    """Weight-normalised layers as a module has them: whole, or length and direction."""
    expected, named = set(expected), dict(weights)
    for name in weights:
        ending = next((end for end in LENGTHS if name.endswith(end)), None)
        if ending is None:
            continue
        layer = name.removesuffix(ending)
        partner = layer + DIRECTIONS[LENGTHS.index(ending)]
        if partner not in named or not all(
            isinstance(named[part], Tensor) for part in (name, partner)
        ):
            continue
        length, direction = named.pop(name), named.pop(partner)
        if f"{layer}.weight" in expected:
            norm = direction.flatten(1).norm(dim=1).view_as(length)  # one for each output
            named[f"{layer}.weight"] = direction * (length / norm)
        else:
            named[layer + LENGTHS[0]], named[layer + DIRECTIONS[0]] = length, direction
    return named


def settings_make_no_codec(folder: Path, kind: CodecKind, error: Exception) -> CheckpointError:
    """The error for a folder whose settings are those of its kind but of another model."""
    return CheckpointError(
        f"{folder / SETTINGS_FILE}: {_short(error)}; give the folder of a {kind.name} such as "
        f"{kind.example}"
    )


def _no_codec(path: Path, kind: CodecKind, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: has settings that make no {kind.name} ({type(error).__name__}: "
        f"{_short(error)}); download it again"
    )


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(error: Exception) -> str:
    """The start of an error's text, in one line."""
    return " ".join(str(error).split())[:160] or "no reason given"
