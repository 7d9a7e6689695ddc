"""`dac-diffusion prepare datastore`: captions for RECAP to look up."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dac_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
    from dac_diffusion.data.datastore_preparation import EmbedTexts


def add_parser(kinds: argparse._SubParsersAction) -> None:
    """Describe what can be prepared."""
    datastore = kinds.add_parser(
        "datastore",
        help="captions that a RECAP captioner looks up in place of its own",
        description="Write the captions of tables as a datastore for a trained RECAP captioner; "
        "give it to `dac-diffusion caption --datastore`. Nothing is trained.",
    )
    add_caption_tables(datastore)
    add = datastore.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to write")
    add("--model", required=True, help="the captioner it is for: a folder or a Hub id")
    add(
        "--clap",
        metavar="PATH",
        help="the CLAP that a captioner trained with recap.space=clap retrieves by: its "
        "recap.retrieval_encoder, or without one its encoder",
    )
    add("--longest-tokens", type=int, default=50, metavar="N", help="longer captions go (50)")
    add("--quiet", action="store_true", help="no progress bar")
    datastore.set_defaults(run=run)


def add_caption_tables(parser: argparse.ArgumentParser) -> None:
    """What is made of captions alone has these as its inputs, `arguments.tables`."""
    parser.add_argument(
        "tables",
        type=Path,
        nargs="+",
        metavar="TABLE",
        help="captions in Clotho's or AudioCaps' columns; no recordings are needed",
    )


def run(arguments: argparse.Namespace) -> list[str]:
    """Write the datastore and say what it holds; no errors, as every failure ends the run."""
    from dac_diffusion.data.datastore_preparation import prepare_datastore

    captioner = _load(arguments.model)
    embed_texts, space = _text_side(captioner, arguments)
    prepared = prepare_datastore(
        arguments.tables,
        embed_texts,
        space,
        arguments.output,
        captioner.tokenizer,
        arguments.longest_tokens,
        not arguments.quiet,
    )
    left_out = f", {prepared.too_long} longer ones left out" if prepared.too_long else ""
    print(f"{arguments.output}: {len(prepared.datastore)} captions{left_out}")
    return []


def _load(model: str) -> AutoregressiveCaptioner:
    """The captioner without its own datastore, which may be what is to be made again."""
    from dac_diffusion.autoregressive.captioner import COMPONENTS, AutoregressiveCaptioner
    from dac_diffusion.captioning.pipelines import load_pipeline
    from dac_diffusion.captioning.pretrained import INDEX_FILE, find_checkpoint
    from dac_diffusion.saved_models import read_json

    folder = find_checkpoint(model)
    if read_json(folder / INDEX_FILE).get("retrieved") is None:
        raise ConfigError(f"--model {model}: looks nothing up; give a RECAP captioner")
    return load_pipeline(AutoregressiveCaptioner, COMPONENTS, folder, "float32", None, None)


def _text_side(
    captioner: AutoregressiveCaptioner, arguments: argparse.Namespace
) -> tuple[EmbedTexts, str]:
    """What embeds captions for the captioner, and the fingerprint of its space."""
    from dac_diffusion.encoders.clap_text import ClapTextEncoder
    from dac_diffusion.retrieval.datastore import space_fingerprint

    model, expected = arguments.model, captioner.config.datastore_space
    if captioner.config.retrieval_space == "scorer":
        if arguments.clap is not None:
            raise ConfigError(f"--clap: {model} compares by its own scorer's vectors; leave it out")
        space = space_fingerprint(captioner.scorer)
        if space != expected:
            raise ConfigError(
                f"--model {model}: its scorer is not the one that it was saved with; copy the "
                "whole checkpoint again"
            )
        return partial(captioner.scorer.embed_captions, tokenizer=captioner.tokenizer), space
    if arguments.clap is None:
        raise ConfigError(
            f"--clap: {model} compares by CLAP's vectors; name the CLAP that it retrieves by, a "
            "folder or a Hub id"
        )
    texts = ClapTextEncoder.from_published(arguments.clap)
    space = space_fingerprint(texts.model)
    if space != expected:
        raise ConfigError(
            f"--clap {arguments.clap}: is not the CLAP that {model} retrieves by; give its "
            "recap.retrieval_encoder, or if it was trained without one, its encoder"
        )
    return texts, space
