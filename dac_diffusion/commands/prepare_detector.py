"""`dac-diffusion prepare detector`: a detector of errors of language, from captions without any."""

from __future__ import annotations

import argparse
from pathlib import Path

from dac_diffusion.commands.prepare_datastore import add_caption_tables


def add_parser(kinds: argparse._SubParsersAction) -> None:
    """Describe what can be prepared."""
    detector = kinds.add_parser(
        "detector",
        help="what finds captions with words in the wrong place, by the word order of good ones",
        description="Learn the word order of captions without errors, such as a captioner was "
        "trained on, and write it as a file for `--error-detector`. It suits captioners of the "
        "same kind of captions only: a word that it does not know is an error to it.",
    )
    add_caption_tables(detector)
    add = detector.add_argument
    add("--output", type=Path, required=True, metavar="FILE.json", help="the file to write")
    add("--seed", type=int, default=0, help="of the captions that are spoilt to learn from (0)")
    detector.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> list[str]:
    """Write the detector and say what it holds; no errors, as every failure ends the run."""
    from dac_diffusion.data.tables import read_all_captions
    from dac_diffusion.errors import ConfigError
    from dac_diffusion.ranking.trigram_errors import TrigramErrorDetector

    if arguments.output.suffix != ".json":  # by which --error-detector knows it
        raise ConfigError(f"--output {arguments.output}: must end in .json")
    captions = [text for table in arguments.tables for text in read_all_captions(table)]
    detector = TrigramErrorDetector.fit(captions, arguments.seed)
    detector.save(arguments.output)
    count = sum(len(words) for words in detector.trigrams.values())
    print(f"{arguments.output}: {count} trigrams of {len(captions)} captions")
    return []
