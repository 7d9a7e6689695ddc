"""`dac-diffusion info`: version, built-in checkpoint, licences, devices, extras."""

from __future__ import annotations

import argparse
import re
from importlib import metadata
from pathlib import Path

from dac_diffusion import __version__

BUILTIN = Path(__file__).parents[1] / "builtin"
AUTOREGRESSIVE = BUILTIN.parent / "builtin_autoregressive"
CODE_LICENCE = "Apache-2.0"
WEIGHTS_LICENCE = "CC BY-NC 3.0 (not for commercial use), because of the ESC-50 recordings"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = commands.add_parser("info", help="version, built-in checkpoint, licences, devices")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> list[str]:
    """Print what is installed; returns no errors."""
    rows = {
        "version": __version__,
        "licence of the code": CODE_LICENCE,
        **describe_builtin(BUILTIN),
        "builtin-autoregressive": _size(AUTOREGRESSIVE) or "none in this installation",
        "devices": ", ".join(devices()),
        "extras": "; ".join(f"{name} {state}" for name, state in extras().items()) or "none known",
    }
    for key, value in rows.items():
        print(f"{key + ':':<25} {value}")
    return []


def describe_builtin(folder: Path) -> dict[str, str]:
    """What the built-in checkpoint is: size, training data, licence, model card."""
    size = _size(folder)
    if not size:
        return {"built-in checkpoint": "none in this installation"}
    card = folder / "README.md"
    summary = _section(card.read_text(encoding="utf-8"), "Summary") if card.is_file() else ""
    return {
        "built-in checkpoint": size,
        "training data": "ESC-50 recordings (train split) and the package's synthesizers",
        "licence of the weights": WEIGHTS_LICENCE,
        **({"summary": summary} if summary else {}),
        "model card": str(card) if card.is_file() else "missing",
    }


def _size(folder: Path) -> str:
    """Parameters and megabytes of the weights in a checkpoint; empty without any."""
    weights = sorted(folder.glob("*/*.safetensors"))
    size = sum(path.stat().st_size for path in weights) / 1e6
    count = sum(_count_parameters(path) for path in weights) / 1e6
    return f"{count:.1f} million parameters, {size:.1f} MB" if weights else ""


def devices() -> list[str]:
    """The devices that PyTorch can use here."""
    import torch

    found = [f"cpu ({torch.get_num_threads()} threads)"]
    for index in range(torch.cuda.device_count()):
        found.append(f"cuda:{index} ({torch.cuda.get_device_name(index)})")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def extras() -> dict[str, str]:
    """For every extra of the package: installed, or what is missing."""
    try:
        requirements = metadata.requires("dac-diffusion") or []
    except metadata.PackageNotFoundError:  # running from the source folder
        return {}
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name:
            lacking = missing.setdefault(extra[1], [])
            if not _is_installed(name[0]):
                lacking.append(name[0])
    return {
        name: f"(missing {', '.join(lacking)})" if lacking else "(installed)"
        for name, lacking in sorted(missing.items())
    }


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _count_parameters(path: Path) -> int:
    from math import prod

    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return sum(prod(file.get_slice(key).get_shape()) for key in list(file.keys()))


def _section(markdown: str, title: str) -> str:
    """The text below a heading of a model card, as one line."""
    found = re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", markdown, re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""
