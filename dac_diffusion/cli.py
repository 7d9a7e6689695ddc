"""The `dac-diffusion` command: caption, correct, evaluate, train, prepare, info.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dac_diffusion import __version__
from dac_diffusion.commands import caption, correct, evaluate, info, prepare, train
from dac_diffusion.errors import DacError

PROGRAM = "dac-diffusion"
FAILED, INTERRUPTED = 1, 130


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all errors of this command are."""

    def error(self, message: str) -> NoReturn:
        """Print the error and how to get help, and exit."""
        print_error(f"{message} (see `{self.prog} --help`)")
        raise SystemExit(FAILED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 where anything failed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a caption or file name must not end the run
            stream.reconfigure(errors="backslashreplace")
    try:
        parsed = build_parser().parse_args(arguments)
        errors: list[str] = parsed.run(parsed)
    except DacError as error:
        errors = [str(error)]
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output (`| head`) has enough; the interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    for message in errors:
        print_error(message)
    return FAILED if errors else 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; a parsed command has `run(arguments) -> list of errors`."""
    parser = OneLineParser(PROGRAM, description="Several different captions for a recording.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (caption, correct, evaluate, train, prepare, info):
        module.add_parser(commands)
    return parser


def print_error(message: str) -> None:
    """One line on the error stream."""
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
