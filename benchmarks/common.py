"""What the benchmarks share: options, the machine line, captioning with raw output, tables."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from dac_diffusion.data.soundscapes.dataset import SceneExample, SoundscapeConfig, SoundscapeDataset
from dac_diffusion.errors import DacError
from dac_diffusion.files import atomic_write

FOLDER = Path(__file__).parent
SYNONYMS = FOLDER / "event_synonyms.yaml"
SHARED_CLIPS = FOLDER.parent / "../shared/data/clips"
STEPS = (1, 2, 4, 8, 16)
CLIPS_AT_ONCE = 64  # scenes held in memory; captions do not depend on it

# What a benchmark needs of a captioner: DiffusionCaptioner, or anything called like it.
Captioner = Callable[..., Sequence[Any]]
Row = dict[str, Any]


def base_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has; `description` is the script's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="builtin, a folder, or a Hub id")
    parser.add_argument("--output", type=Path, help="JSON file for the table and all raw captions")
    parser.add_argument("--num-captions", type=int, default=5)
    parser.add_argument("--num-candidates", type=int, help="default: the captioner's own")
    parser.add_argument("--guidance-scale", type=float, help="default: the captioner's own")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own choice")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16")
    return parser


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Adds --steps, the numbers of denoising steps to compare."""
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))


def add_clips(parser: argparse.ArgumentParser) -> None:
    """Adds --clips, the folder of labelled recordings."""
    parser.add_argument("--clips", type=Path, default=SHARED_CLIPS, help="folder with clips.csv")


class _NothingToWriteYetError(Exception):
    """Leaves atomic_write before anything gets the final name."""


def check_output(path: Path | None) -> None:
    """Raise DacError before the work starts where its result could not be written."""
    if path is not None:
        with contextlib.suppress(_NothingToWriteYetError), atomic_write(path):
            raise _NothingToWriteYetError


def use_threads(args: argparse.Namespace) -> None:
    """Set torch's threads to --threads, where it is given."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)


def load_captioner(args: argparse.Namespace) -> Captioner:
    """The captioner under test, after setting torch's threads; `args.dtype` becomes what it is."""
    from dac_diffusion.captioner import DiffusionCaptioner

    use_threads(args)
    captioner = DiffusionCaptioner.from_pretrained(args.model, args.dtype)
    args.dtype = str(captioner.dtype).removeprefix("torch.")
    return cast(Captioner, captioner)


def run_captioner(
    captioner: Captioner, inputs: Sequence[Any], num_steps: int, args: argparse.Namespace
) -> list[Row]:
    """Caption the inputs and keep everything: scored captions, and all candidates as sampled.

    Raises DacError where an input was not captioned: a benchmark never skips one silently.
    """
    results = captioner(
        list(inputs),
        num_captions=args.num_captions,
        num_candidates=args.num_candidates,
        num_steps=num_steps,
        guidance_scale=args.guidance_scale,
        seed=args.seed,
        batch_size=args.batch_size,
        progress=False,
    )
    raw = []
    for result in results:
        if result.error is not None:
            raise DacError(f"not captioned, so no result: {result.error}")
        captions = [{"text": c.text, "score": float(c.score)} for c in result.captions]
        # A clip without any caption counts as one empty caption: it must not vanish from a share.
        captions = captions or [{"text": "", "score": 0.0}]
        raw.append({"captions": captions, "candidates": list(result.candidates) or [""]})
    return raw


def texts(raw: Row) -> list[str]:
    """The captions of one clip, best first."""
    return [caption["text"] for caption in raw["captions"]]


def validation_scenes(clips: Path | None, scene_seed: int) -> SoundscapeDataset:
    """The fixed validation scenes over a clip folder, or over the synthesizers alone (None)."""
    config = SoundscapeConfig(clips=None if clips is None else str(clips), seed=scene_seed)
    return SoundscapeDataset(config, "validation")


def in_chunks(dataset: SoundscapeDataset, count: int) -> Iterator[list[SceneExample]]:
    """Scenes 0 to count - 1, some at a time, so that their sound never fills the memory."""
    for start in range(0, count, CLIPS_AT_ONCE):
        yield [dataset.example(i) for i in range(start, min(start + CLIPS_AT_ONCE, count))]


def derangement(count: int, seed: int) -> list[int]:
    """For each clip another one: a fixed random cycle through all of them (needs two)."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(count).tolist()
    partner = [0] * count
    for position, index in enumerate(order):
        partner[index] = order[(position + 1) % count]
    return partner


def machine_line() -> str:
    """Processor, cores, system, and versions, for beside every number."""
    import torch

    threads = f"{torch.get_num_threads()} torch threads of {os.cpu_count()} cores"
    software = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{_processor()}, {threads}, {platform.system()}, {software}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def package_version() -> str:
    """The installed version of dac-diffusion."""
    try:
        return metadata.version("dac-diffusion")
    except metadata.PackageNotFoundError:
        return "not installed"


def report(
    name: str, args: argparse.Namespace, table: Sequence[Row], raw: dict[str, Any]
) -> dict[str, Any]:
    """Everything that goes into the result file."""
    settings = {
        key: os.path.relpath(value, FOLDER.parent) if isinstance(value, Path) else value
        for key, value in vars(args).items()
    }
    return {
        "benchmark": name,
        "version": package_version(),
        "command": " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "settings": settings,
        "machine": machine_line(),
        "date": time.strftime("%Y-%m-%d"),
        "table": list(table),
        "raw": raw,
    }


def write_report(path: Path | None, content: dict[str, Any]) -> None:
    """Write the result file, each raw clip on one line, whole or not at all; .gz is compressed."""
    if path is None:
        return
    lines = ["{"]
    for key, value in content.items():
        if key != "raw":
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)},")
    groups = []
    for key, rows in content["raw"].items():
        clips = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        groups.append(f"{json.dumps(key)}: [\n{clips}\n]")
    text = "\n".join([*lines, '"raw": {', ",\n".join(groups), "}", "}", ""])
    data = text.encode()
    with atomic_write(path, "wb") as file:
        # Without the time, the same results make the same file.
        file.write(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    print(f"\nwritten: {path}", file=sys.stderr)


def markdown_table(rows: Sequence[Row], columns: dict[str, str]) -> str:
    """A Markdown table of the rows; `columns` maps a row's key to "heading|format"."""
    headings = [column.split("|")[0] for column in columns.values()]
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for row in rows:
        cells = []
        for key, column in columns.items():
            value, style = row.get(key), column.partition("|")[2]
            cells.append("" if value is None else format(value, style))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run_main(main: Callable[[], None]) -> None:
    """Run a script; an error the user can act on is printed in one line, exit code 1."""
    try:
        main()
    except DacError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
