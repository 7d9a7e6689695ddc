"""`dac-diffusion prepare datastore`: captions for RECAP to look up."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(kinds: argparse._SubParsersAction) -> None:
    """Describe what can be prepared."""
    datastore = kinds.add_parser(
        "datastore",
        help="captions that a RECAP captioner looks up in place of its own",
        description="Write the captions of tables as a datastore for a trained RECAP captioner; "
        "give it to `dac-diffusion caption --datastore`. Nothing is trained.",
    )
    add = datastore.add_argument
    add(
        "tables",
        type=Path,
        nargs="+",
        metavar="TABLE",
        help="captions in Clotho's or AudioCaps' columns; no recordings are needed",
    )
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


def run(arguments: argparse.Namespace) -> list[str]:
    """Write the datastore and say what it holds; no errors, as every failure ends the run."""
    from functools import partial

    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
    from dac_diffusion.data.datastore_preparation import EmbedTexts, prepare_datastore
    from dac_diffusion.encoders.clap_text import ClapTextEncoder
    from dac_diffusion.errors import ConfigError
    from dac_diffusion.retrieval.datastore import space_fingerprint

    captioner = AutoregressiveCaptioner.from_pretrained(arguments.model, "float32")
    if captioner.config.retrieved is None:
        raise ConfigError(f"--model {arguments.model}: looks nothing up; give a RECAP captioner")
    if captioner.config.retrieval_space == "clap":
        if arguments.clap is None:
            raise ConfigError(
                f"--clap: {arguments.model} compares by CLAP's vectors; name the CLAP that it "
                "retrieves by, a folder or a Hub id"
            )
        texts = ClapTextEncoder.from_published(arguments.clap)
        embed_texts: EmbedTexts = texts
        tower = texts.model
    else:
        embed_texts = partial(captioner.scorer.embed_captions, tokenizer=captioner.tokenizer)
        tower = captioner.scorer
    space = space_fingerprint(tower)
    if space != captioner.config.datastore_space:
        raise ConfigError(
            f"--clap {arguments.clap}: is not the CLAP that {arguments.model} retrieves by; give "
            "its recap.retrieval_encoder, or if it was trained without one, its encoder"
        )
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
