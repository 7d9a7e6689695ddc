"""Speed of the compared systems, part by part, in turn in one process.

    python benchmarks/timing.py --threads 2 --output benchmarks/results/timing.json
    python benchmarks/timing.py --quick
    python benchmarks/timing.py --fixed-length 14 ...      # for models with random weights

A clip is 10 s of sound in memory (reading a file is timed by itself). APS, audios per second,
counts the audio encoder, making the captions and turning them into text; ranking, which not every
setting uses, is a part of its own, which counts for ranked settings only, and `call` is all of it.
TPS counts the word pieces of the captions as they come out, WPS their words. Network calls are
those of the denoiser or decoder for the whole batch, which goes on until its longest caption ends.
All settings of a group, those of captioners given with --also included, are timed in turn, round
after round, so that ratios are between neighbours in time; shown are medians, and the 10th and the
90th percentile in the JSON file.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Row,
    base_parser,
    check_output,
    machine_line,
    markdown_table,
    report,
    run_main,
    use_threads,
    write_report,
)
from kept_captions import fingerprint
from speed import write_clips
from stopwatch import without_likelihood
from systems import (
    Setting,
    add_comparison,
    autoregressive_settings,
    check_further,
    diffusion_settings,
    fixed_length,
    further_captioners,
    further_settings,
)
from timed_group import Group, kept_group, time_group
from tqdm import tqdm

SAMPLING_RATE = 32000
BATCH_SIZES = (1, 8, 32, 128)
COLUMNS = {
    "system": "system",
    "setting": "setting",
    "dtype": "dtype",
    "batch_size": "clips",
    "captions_per_clip": "captions",
    "parameters": "parameters|,",
    "network_calls": "network calls",
    "aps": "APS|.2f",
    "tps": "TPS|.0f",
    "wps": "WPS|.0f",
    "ratio": "APS ratio|.2f",
    "encoding": "encoding s/clip|.4f",
    "generation": "generation s/clip|.4f",
    "ranking": "ranking s/clip|.4f",
    "call": "call s/clip|.4f",
}


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    rows, reading = time_all(args)
    print(markdown_table(rows, COLUMNS))
    print(f"\nreading a file: {reading:.4f} s; {machine_line()}")
    raw = {f"{row['system']} {row['setting']} {row['group']}": [row.pop("raw")] for row in rows}
    content = report("timing", args, rows, {"reading": [{"seconds_per_file": reading}], **raw})
    write_report(args.output, content)


def time_all(args: argparse.Namespace) -> tuple[list[Row], float]:
    """The rows of all groups, those of an earlier run included, and seconds to read a file."""
    clips, reading = make_clips(max(args.batch_sizes), args.seed)
    rows: list[Row] = []
    bar = tqdm(total=sum(len(groups(args, d)) for d in args.dtypes), desc="speed", unit="group")
    for dtype in args.dtypes:
        captioners = load_captioners(args, dtype)
        for group in groups(args, dtype):
            path = args.folder / "timing" / f"{group.key}.json"
            head, settings = group_head(group, args), group_settings(group, args)
            rows += kept_group(
                path, head, partial(time_group, group, settings, captioners, clips, args)
            )
            bar.update()
        del captioners
        gc.collect()
    bar.close()
    return rows, reading


def group_head(group: Group, args: argparse.Namespace) -> Row:
    """All that a group's rows depend on; with other captioners beside them they are timed anew."""
    head: Row = {
        "weights": [fingerprint(name) for name in (args.model, args.autoregressive)],
        "steps": args.steps,
        "rounds": args.rounds,
        "fixed_length": args.fixed_length,
        "machine": machine_line(),
        "device": args.device,
    }
    further = further_settings(args.also, group.num_captions)
    if further:
        head["also"] = [[s.key, s.arguments(), fingerprint(s.model)] for s in further]
    return head


def group_settings(group: Group, args: argparse.Namespace) -> list[Setting]:
    """The settings of a group, those of the autoregressive captioner first."""
    settings = autoregressive_settings(args.autoregressive, group.num_captions)
    settings += diffusion_settings(args.model, group.num_captions, tuple(args.steps))
    settings += further_settings(args.also, group.num_captions)
    return fixed_length(settings, args.fixed_length)


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_options(parser)
    add_comparison(parser)
    args = parser.parse_args()
    check_further(args.also)
    if args.quick:
        make_quick(args)
    return args


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark alone."""
    add = parser.add_argument
    add("--dtypes", nargs="+", default=["float32", "bfloat16"])
    add("--batch-sizes", type=int, nargs="+", default=list(BATCH_SIZES))
    add("--timed-captions", type=int, nargs="+", default=[1, 5], help="K, captions per clip")
    add("--device", default="cpu")
    add("--rounds", type=int, default=15, help="at most, for each group")
    add("--minutes", type=float, default=1.5, help="at most, for each group")
    add("--fixed-length", type=int, help="tokens of every caption; for random weights only")


def make_quick(args: argparse.Namespace) -> None:
    """A small part of everything."""
    args.dtypes, args.batch_sizes, args.steps = ["auto"], [1, 8], [1, 4, 8]
    args.rounds, args.minutes = 5, 0.3


def groups(args: argparse.Namespace, dtype: str) -> list[Group]:
    """All groups of a dtype, small ones first."""
    return [Group(dtype, k, size) for size in args.batch_sizes for k in args.timed_captions]


def make_clips(
    count: int, seed: int, sampling_rate: int = SAMPLING_RATE
) -> tuple[list[tuple[np.ndarray, int]], float]:
    """Waveforms (T,) with their rate, and the median seconds of reading one from a wav file."""
    from dac_diffusion.audio.loading import load_audio

    clips, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for file in write_clips(Path(folder), count, seed):
            start = time.perf_counter()
            clips.append((load_audio(file, sampling_rate), sampling_rate))
            seconds.append(time.perf_counter() - start)
    return clips, float(np.median(seconds))


def load_captioners(args: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The captioners by the checkpoint that settings name."""
    from dac_diffusion.systems import load_captioner

    use_threads(args)
    names = {args.model, args.autoregressive, *further_captioners(args.also).values()}
    return {name: without_likelihood(load_captioner(name, dtype, args.device)) for name in names}


if __name__ == "__main__":
    run_main(main)
