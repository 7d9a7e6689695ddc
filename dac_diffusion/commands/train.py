"""`dac-diffusion train`: train what a configuration file describes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dac_diffusion.training.task import FitResult

# Captions that score less than this many times what they score for other clips hear nothing.
HEARING = 1.5


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = commands.add_parser("train", help="train what a configuration file describes")
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file of configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings in place of the file's"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> list[str]:
    """Train; returns no errors, as every failure ends the run."""
    from dac_diffusion.training.run import train

    result = train(arguments.config, arguments.overrides)
    if os.environ.get("RANK", "0") == "0":  # of several processes one reports
        print(describe(result))
    return []


def describe(result: FitResult) -> str:
    """How a training ended: its length, its last score, and a warning if it hears nothing."""
    said = f"{result.steps} steps, {result.minutes:.0f} minutes"
    score = result.metrics.get("cider_d")
    exchanged = result.metrics.get("cider_d_with_shuffled_audio")
    if score is None or exchanged is None:
        return said
    said += f"; CIDEr-D {score:.3f} on validation clips, {exchanged:.3f} with another clip's audio"
    if score > HEARING * exchanged:
        return said
    return (
        f"{said}: its captions do not depend on the recording; train longer, or with a lower "
        "loop.learning_rate"
    )
