"""`dac-diffusion prepare`: write a dataset folder."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = commands.add_parser("prepare", help="write a dataset folder")
    datasets = parser.add_subparsers(title="datasets", required=True, metavar="DATASET")
    soundscapes = datasets.add_parser(
        "soundscapes", help="scenes of synthesized or recorded sounds with five captions each"
    )
    add = soundscapes.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to write")
    add("--clips", type=Path, metavar="FOLDER", help="labelled recordings with a clips.csv")
    add("--scenes", type=int, default=100, metavar="N", help="how many (100)")
    add(
        "--split",
        choices=("train", "validation", "test"),
        default="train",
        help="of the clips (train)",
    )
    add("--seed", type=int, default=0, help="the same seed gives the same scenes (0)")
    soundscapes.set_defaults(run=run_soundscapes)


def run_soundscapes(arguments: argparse.Namespace) -> list[str]:
    """Write the scenes and say where; returns no errors, as every failure ends the run."""
    from dac_diffusion.data.soundscapes.prepare import prepare_soundscapes

    table = prepare_soundscapes(
        output=arguments.output,
        clips=arguments.clips,
        scenes=arguments.scenes,
        split=arguments.split,
        seed=arguments.seed,
    )
    print(table)
    return []
