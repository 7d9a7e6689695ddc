"""The whole comparison: quality, diversity and speed of all systems; tables, JSON and plots.

    python benchmarks/run.py --minilm --threads 2   # 35 minutes on two cores; can be interrupted
    python benchmarks/run.py --quick --threads 2 --folder runs/quick    # two minutes
    python benchmarks/run.py --minilm --threads 2 --also recap=runs/small_recap ...

Writes to --folder: quality.json, timing.json, summary.json (a list of rows, one per system, setting
and kind of clips), summary.md and two plots; captions and timings go to captions/ and timing/ in
it, and those that are already there, made by the same weights and settings, are not made again.
Captioners given with --also get some rows each in all of the tables; README.md says which.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import quality
import timing
from common import (
    Row,
    add_clips,
    base_parser,
    machine_line,
    markdown_table,
    report,
    run_main,
    write_report,
)
from plots import draw_plots
from systems import add_comparison, check_further

from dac_diffusion.files import atomic_write, make_folder

# Every row of summary.json has these; null where not measured.
SUMMARY = (
    "system", "setting", "parameters", "network_calls", "batch_size", "captions_per_clip", "dtype",
    "device", "aps", "tps", "cider_d", "best_of_5_cider_d", "distinct_2_within_clip", "mbleu_4",
    "mtld", "distinct_1", "data", "wps", "aps_ratio", "aps_ratio_low", "aps_ratio_high",
    "named_first", "named_any", "repeated_bigram", "minilm_similarity", "expected_cider_d",
    "duplicate_share", "distinct_1_at_1000_words", "peak_memory",
)  # fmt: skip
SCENES = {
    "system": "system",
    "setting": "setting",
    "captions_per_clip": "K",
    "parameters": "parameters|,",
    "network_calls": "calls",
    "mtld": "MTLD|.1f",
    "distinct_1": "Distinct-1|.3f",
    "tps": "TPS|.0f",
    "aps": "APS|.2f",
    "cider_d": "CIDEr-D|.3f",
    "minilm_similarity": "MiniLM|.3f",
    "best_of_5_cider_d": "best of 5|.3f",
    "distinct_2_within_clip": "distinct-2 in clip|.3f",
    "mbleu_4": "mBLEU-4|.3f",
    "repeated_bigram": "repeated bigram|.1%",
}
RECORDINGS = {
    "system": "system",
    "setting": "setting",
    "captions_per_clip": "K",
    "named_first": "first names it|.1%",
    "named_any": "any names it|.1%",
    "mtld": "MTLD|.1f",
    "distinct_1": "Distinct-1|.3f",
    "distinct_2_within_clip": "distinct-2 in clip|.3f",
    "mbleu_4": "mBLEU-4|.3f",
}
HUMAN = {
    "system": "captions by",
    "setting": "data set",
    "data": "clips",
    "mtld": "MTLD|.1f",
    "distinct_1": "Distinct-1|.3f",
    "distinct_1_at_1000_words": "Distinct-1 of 1,000 words|.3f",
    "cider_d": "CIDEr-D|.3f",
    "distinct_2_within_clip": "distinct-2 in clip|.3f",
    "mbleu_4": "mBLEU-4|.3f",
}
SPEED = {
    "system": "system",
    "setting": "setting",
    "captions_per_clip": "K",
    "dtype": "dtype",
    "batch_size": "batch",
    "network_calls": "calls",
    "aps": "APS|.2f",
    "tps": "TPS|.0f",
    "aps_ratio": "APS ratio|.2f",
    "aps_ratio_low": "10 %|.2f",
    "aps_ratio_high": "90 %|.2f",
}


def main() -> None:
    args = parse_arguments()
    folder = make_folder(args.folder)
    quality_rows, differences, raw_quality = quality.measure(args)
    write_report(
        folder / "quality.json",
        report("quality", args, quality_rows, raw_quality | {"differences": differences}),
    )
    timing_rows, reading = timing.time_all(args)
    raw = {f"{row['system']} {row['setting']} {row['group']}": [row.pop("raw")]
           for row in timing_rows}  # fmt: skip
    write_report(
        folder / "timing.json",
        report("timing", args, timing_rows, {"reading": [{"seconds_per_file": reading}], **raw}),
    )
    rows = summarise(quality_rows, timing_rows)
    write_summary(folder, rows, differences, args)
    people = [row for row in rows if row["system"] == "people"]
    draw_plots(shown_on_scenes(rows, args), people, folder)


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    quality.add_options(parser)
    timing.add_options(parser)
    add_comparison(parser)
    args = parser.parse_args()
    check_further(args.also)
    if args.quick:
        quality.make_quick(args)
        timing.make_quick(args)
    return args


def summarise(quality_rows: Sequence[Row], timing_rows: Sequence[Row]) -> list[Row]:
    """One row per timed setting with the quality of its captions, and per setting not timed.

    Quality is that of the scenes; it does not depend on batch size and hardly on dtype, and is
    repeated in every such row. The recordings, and people's captions, have rows of their own.
    """

    def key(row: Row) -> tuple[Any, ...]:
        return row["system"], row["setting"], row["captions_per_clip"]

    scored = {key(row): row for row in quality_rows if is_scenes(row)}
    timed = {key(row) for row in timing_rows}
    together = [{**scored.get(key(row), {}), **row} for row in timing_rows]
    together += [row for row in quality_rows if not (is_scenes(row) and key(row) in timed)]
    renamed = {"aps_ratio": "ratio", "aps_ratio_low": "ratio_low", "aps_ratio_high": "ratio_high"}
    return [{name: row.get(renamed.get(name, name)) for name in SUMMARY} for row in together]


def is_scenes(row: Row) -> bool:
    """Whether a row is of the scenes, on which there are references of this project."""
    return str(row["data"]).endswith("validation scenes")


def shown_on_scenes(rows: Sequence[Row], args: argparse.Namespace) -> list[Row]:
    """The rows of the main table: one clip at a time in the faster dtype, and the rest untimed."""
    dtypes = [row["dtype"] for row in rows if row["dtype"] is not None]
    fastest = "bfloat16" if "bfloat16" in dtypes else dtypes[0]
    smallest = min(args.batch_sizes)
    return [
        row
        for row in rows
        if is_scenes(row)
        and (row["aps"] is None or (row["dtype"] == fastest and row["batch_size"] == smallest))
    ]


def write_summary(
    folder: Path, rows: Sequence[Row], differences: Sequence[Row], args: argparse.Namespace
) -> None:
    """Write summary.json and summary.md."""
    with atomic_write(folder / "summary.json") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    scenes = shown_on_scenes(rows, args)
    timed = next(row for row in scenes if row["aps"] is not None)
    how = f"{timed['dtype']}, batch {timed['batch_size']}, audio encoder included"
    human = [row for row in rows if row["system"] in ("references", "people")]
    tables = {
        f"{args.limit} validation scenes (speed: {how})": (scenes, SCENES),
        "Recordings": ([row for row in rows if "recordings" in str(row["data"])], RECORDINGS),
        "Human reference": (human, HUMAN),
        "Speed by batch size and dtype": ([r for r in rows if r["aps"] is not None], SPEED),
        "Differences, 95 % paired intervals over clips": (differences, quality.DIFFERENCES),
    }
    text = f"{machine_line()}\n\n" + "\n\n".join(
        f"## {title}\n\n{markdown_table(shown, columns)}"
        for title, (shown, columns) in tables.items()
    )
    with atomic_write(folder / "summary.md") as file:
        file.write(text + "\n")
    print(text)


if __name__ == "__main__":
    run_main(main)
