"""`dac-diffusion correct`: a language model rewrites the captions with errors of fluency."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dac_diffusion.errors import ConfigError, DataError
from dac_diffusion.ranking.detectors import CHOICES, CHOICES_HELP, RULES, load_detector

if TYPE_CHECKING:
    from dac_diffusion.captioning.correction import ChatModel

ERRORS_SHOWN = 5


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "correct", help="let a language model rewrite captions with errors of fluency"
    )
    add = parser.add_argument
    add("input", type=Path, metavar="INPUT", help="what `caption --format csv` or jsonl wrote")
    add("--output", type=Path, required=True, metavar="FILE", help="in the input's format")
    add(
        "--detector",
        default=RULES,
        metavar=CHOICES,
        help=f"what finds the errors: {CHOICES_HELP} ({RULES})",
    )
    add("--detector-encoder", type=Path, metavar="FOLDER", help="the BERT of that checkpoint")
    add("--llm", metavar="FOLDER", help="an instruct model of transformers, or its Hub id")
    add("--endpoint", metavar="URL", help="an OpenAI-compatible endpoint in its place")
    add("--model", metavar="NAME", help="the model's name at the endpoint")
    add(
        "--key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="holds the endpoint's key, if it needs one (OPENAI_API_KEY)",
    )
    add("--threshold", type=float, default=0.9, help="of the probability of an error (0.9)")
    add("--concurrency", type=int, default=4, help="requests to the endpoint at a time (4)")
    add("--cache", type=Path, metavar="FILE", help="of answers (the output's, .cache.jsonl)")
    add("--device", default="auto", help="of the models here: auto, cpu, cuda, mps (auto)")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> list[str]:
    """Correct all captions of a file; returns errors of rows left out or unanswered."""
    _check_options(arguments)
    from dac_diffusion.answer_cache import AnswerCache
    from dac_diffusion.captioning.correction import Corrector, check_settings, describe
    from dac_diffusion.commands.caption import choose_device
    from dac_diffusion.data.caption_files import read_caption_file
    from dac_diffusion.files import atomic_write

    check_settings(arguments.threshold, arguments.concurrency)
    device = choose_device(arguments.device)
    file = read_caption_file(arguments.input)
    errors = _first(file.errors)
    if not file.rows and errors:
        raise DataError("; ".join(errors) + f"; {arguments.output} was not written")
    with (
        atomic_write(arguments.output) as output,  # before its name is used: it may be a folder's
        AnswerCache(arguments.cache or arguments.output.with_suffix(".cache.jsonl")) as kept,
    ):
        corrector = Corrector(
            load_detector(
                arguments.detector,
                arguments.detector_encoder,
                device,
                ("--detector", "--detector-encoder"),
            ),
            _load_model(arguments, device),
            arguments.threshold,
            kept,
            arguments.concurrency if arguments.endpoint else 1,
        )
        corrections = corrector.correct(file.texts(), False if arguments.quiet else None)
        file.replace([correction.text for correction in corrections])
        file.write(output)
    print(describe(corrections))
    unanswered = [correction.note for correction in corrections if not correction.answered]
    if unanswered:
        errors.append(
            f"{arguments.output}: {len(unanswered)} captions stayed as they were, because the "
            f"model gave no answer ({unanswered[0]}); the same command asks for these again"
        )
    return errors


def _first(errors: list[str]) -> list[str]:
    """The first few, and how many there are: a file of another kind has one in every line."""
    shown = errors[:ERRORS_SHOWN]
    if len(errors) > ERRORS_SHOWN:
        shown.append(f"and {len(errors) - ERRORS_SHOWN} more such lines")
    return shown


def _check_options(arguments: argparse.Namespace) -> None:
    if (arguments.llm is None) == (arguments.endpoint is None):
        raise ConfigError("give either --llm FOLDER or --endpoint URL with --model NAME")
    if arguments.endpoint is not None and arguments.model is None:
        raise ConfigError("--endpoint: needs --model NAME, the model's name there")
    if arguments.llm is not None and arguments.model is not None:
        raise ConfigError("--model: goes with --endpoint; --llm names the model itself")


def _load_model(arguments: argparse.Namespace, device: str) -> ChatModel:
    if arguments.llm is not None:
        from dac_diffusion.captioning.chat_model import load_chat_model

        return load_chat_model(arguments.llm, device)
    from dac_diffusion.captioning.chat_model import MAX_NEW_TOKENS
    from dac_diffusion.chat_endpoint import ChatEndpoint

    key = os.environ.get(arguments.key_variable, "").strip() or None
    name = f"${arguments.key_variable}"
    return ChatEndpoint(arguments.endpoint, arguments.model, key, name, MAX_NEW_TOKENS)
