"""How long captioning takes and how much memory it needs, as a user meets it.

    python benchmarks/speed.py --threads 2 --output benchmarks/results/speed.json
    python benchmarks/speed.py --clips-in-one-call 20 --repetitions 5      # a quick look

One clip: 10 s of sound from a wav file, reading, encoding and ranking included, the model loaded,
after warm-up; the median of the repetitions with the 10th and 90th percentile. Many clips: all in
one call, and one call for each, in turn. Peak memory: the largest resident size of a fresh process
that loads the model and captions. Cold start: the whole command `dac-diffusion`, start to exit.
Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Captioner,
    Row,
    add_steps,
    base_parser,
    check_output,
    load_captioner,
    machine_line,
    markdown_table,
    report,
    run_captioner,
    run_main,
    write_report,
)
from tqdm import tqdm

from dac_diffusion.data.soundscapes.dataset import SoundscapeConfig, SoundscapeDataset
from dac_diffusion.errors import DacError

CLIP_SECONDS = 10.0
COLD_STARTS = 5
COLUMNS = {
    "what": "what",
    "num_steps": "steps",
    "median": "median|.3f",
    "low": "10 %|.3f",
    "high": "90 %|.3f",
    "unit": "unit",
    "repetitions": "repetitions",
}


def main() -> None:
    args = parse_arguments()
    if args.probe_memory:
        probe_memory(args)
        return
    check_output(args.output)
    with tempfile.TemporaryDirectory() as folder:
        files = write_clips(Path(folder), max(1, args.clips_in_one_call), args.seed)
        table = cold_starts(files[0], args) + peak_memory(files, args)
        captioner = load_captioner(args)
        table += [time_one_clip(captioner, files[0], steps, args) for steps in args.steps]
        if len(files) > 1:
            table += time_many_clips(captioner, files, args)
            table.append(command_ratio(table, args.num_steps))
    print(markdown_table(table, COLUMNS))
    print(f"\n{machine_line()}")
    raw = {row["what"] + f" @ {row['num_steps']}": [row.pop("raw")] for row in table}
    write_report(args.output, report("speed", args, table, raw))


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_steps(parser)
    parser.add_argument("--repetitions", type=int, default=20, help="of the single clip")
    parser.add_argument("--clips-in-one-call", type=int, default=200, help="0: leave it out")
    parser.add_argument("--rounds", type=int, default=3, help="of the many clips")
    parser.add_argument("--num-steps", type=int, default=8, help="where only one is measured")
    parser.add_argument("--probe-memory", type=Path, nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_clips(folder: Path, count: int, seed: int) -> list[Path]:
    """Different 10 s scenes of the synthesizers as wav files."""
    import soundfile

    config = SoundscapeConfig(
        shortest_seconds=CLIP_SECONDS, longest_seconds=CLIP_SECONDS, seed=seed
    )
    dataset = SoundscapeDataset(config, "validation")
    files = []
    for index in tqdm(range(count), desc="making clips", unit="clip"):
        example = dataset.example(index)
        files.append(folder / f"scene_{index:03d}.wav")
        soundfile.write(files[-1], example.waveform, example.sampling_rate)
    return files


def time_one_clip(
    captioner: Captioner, file: Path, num_steps: int, args: argparse.Namespace
) -> Row:
    """Seconds from a file name to its captions."""
    for _ in range(3):
        run_captioner(captioner, [file], num_steps, args)
    repeated = tqdm(range(args.repetitions), desc=f"one clip, {num_steps} steps", leave=False)
    seconds = [_timed(lambda: run_captioner(captioner, [file], num_steps, args)) for _ in repeated]
    what = f"{args.num_captions} captions of one {CLIP_SECONDS:.0f} s clip"
    return summarise(what, num_steps, seconds, "s")


def time_many_clips(
    captioner: Captioner, files: Sequence[Path], args: argparse.Namespace
) -> list[Row]:
    """Seconds per clip in one call and one by one, and how many times faster the one call is."""
    steps = args.num_steps
    together, alone = [], []
    with tqdm(total=args.rounds * 2 * len(files), desc="many clips", unit="clip") as bar:
        for _ in range(args.rounds):
            spent = _timed(lambda: run_captioner(captioner, files, steps, args))
            together.append(spent / len(files))
            bar.update(len(files))
            spent = 0.0
            for file in files:
                spent += _timed(partial(run_captioner, captioner, [file], steps, args))
                bar.update(1)
            alone.append(spent / len(files))
    ratios = [a / b for a, b in zip(alone, together, strict=True)]
    return [
        summarise(f"a clip, {len(files)} in one call", steps, together, "s"),
        summarise(f"a clip, {len(files)} one by one", steps, alone, "s"),
        summarise("one by one / one call", steps, ratios, "times"),
    ]


def command_ratio(table: Sequence[Row], num_steps: int) -> Row:
    """How many times faster a clip is in one call than by a command of its own."""
    command = next(row for row in table if row["what"].endswith("caption one file"))
    one_call = next(
        row for row in table if row["what"].endswith("in one call") and row["unit"] == "s"
    )
    ratio = command["median"] / one_call["median"]
    return summarise("one command a clip / one call", num_steps, [ratio], "times")


def cold_starts(file: Path, args: argparse.Namespace) -> list[Row]:
    """Seconds that the command takes in a fresh process: its help, and captioning one file."""
    command = command_line()
    caption = [*command, "caption", str(file), "--model", args.model, "--dtype", args.dtype]
    caption += ["--num-steps", str(args.num_steps), "--num-captions", str(args.num_captions)]
    rows = []
    for what, call in (("--help", [*command, "--help"]), ("caption one file", caption)):
        runs = tqdm(range(COLD_STARTS), desc=f"cold start, {what}", leave=False)
        seconds = [_timed(partial(run_process, call, args.threads)) for _ in runs]
        steps = None if what == "--help" else args.num_steps
        rows.append(summarise(f"cold start: dac-diffusion {what}", steps, seconds, "s"))
    return rows


def peak_memory(files: Sequence[Path], args: argparse.Namespace) -> list[Row]:
    """GB (1e9 bytes) of a fresh process, for one clip and for all of them in one call."""
    rows = []
    for chosen in [files[:1], files] if len(files) > 1 else [files]:
        call = [sys.executable, __file__, "--model", args.model, "--seed", str(args.seed)]
        call += ["--num-steps", str(args.num_steps), "--num-captions", str(args.num_captions)]
        call += ["--batch-size", str(args.batch_size)]
        for option in ("num_candidates", "guidance_scale", "threads", "dtype"):
            value = getattr(args, option)
            call += [] if value is None else ["--" + option.replace("_", "-"), str(value)]
        output = run_process([*call, "--probe-memory", *map(str, chosen)], args.threads)
        gigabytes = float(output.split()[-1]) / 1e9
        what = f"peak memory, {len(chosen)} clip{'s' * (len(chosen) > 1)} in one call"
        rows.append(summarise(what, args.num_steps, [gigabytes], "GB"))
    return rows


def probe_memory(args: argparse.Namespace) -> None:
    """Caption in this process and print its largest resident size in bytes."""
    captioner = load_captioner(args)
    run_captioner(captioner, args.probe_memory, args.num_steps, args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak if sys.platform == "darwin" else peak * 1024)


def command_line() -> list[str]:
    """The dac-diffusion command beside this Python, or its module where it is not installed."""
    script = Path(sys.executable).with_name("dac-diffusion")
    return [str(script)] if script.exists() else [sys.executable, "-m", "dac_diffusion.cli"]


def run_process(call: Sequence[str], threads: int | None) -> str:
    """The standard output of a process. Raises DacError where it fails."""
    environment = dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DacError(f"{' '.join(call[:4])} ... failed: {last}")
    return done.stdout


def summarise(what: str, num_steps: int | None, values: Sequence[float], unit: str) -> Row:
    """The table row of repeated measurements, with all of them under `raw`."""
    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    row: dict[str, Any] = {"what": what, "num_steps": num_steps, "median": median, "unit": unit}
    return {**row, "low": low, "high": high, "repetitions": len(values), "raw": list(values)}


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    run_main(main)
