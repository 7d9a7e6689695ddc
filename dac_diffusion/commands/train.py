"""`dac-diffusion train`: train what a configuration file describes."""

from __future__ import annotations

import argparse
from pathlib import Path


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

    train(arguments.config, arguments.overrides)
    return []
