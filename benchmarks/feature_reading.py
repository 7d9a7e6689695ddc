"""How fast training reads a feature cache: clips and gigabytes a second.

    python benchmarks/feature_reading.py --output benchmarks/results/feature_reading.json
    python benchmarks/feature_reading.py --quick
    python benchmarks/feature_reading.py --folder /fast/disk --gigabytes 20

Caches of random numbers, of the sizes that encoders give for 10 s: 31 x 256 is the built-in one,
62 x 768 BEATs with its frequencies pooled, 496 x 768 BEATs without. They are written to a temporary
folder (or --folder) in the format of `dac-diffusion prepare features` and read in batches of 128,
in the order of the clips and in random order, by this process or by DataLoader workers, and given
out as float32 or as float16, the type they are stored in. GB/s counts the stored bytes of features.
`cold`: the files were dropped from the system's memory before, so that the disk is read. The others
were read once before, so they show what copying costs. A row is a pass over all clips, or over as
many as --seconds allows; shown is the median of --rounds passes, in the JSON file all of them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Row,
    check_output,
    machine_line,
    markdown_table,
    report,
    run_main,
    use_threads,
    write_report,
)

SIZES = ((31, 256), (62, 768), (496, 768))  # frames, width
BATCH_SIZE = 128
CLIPS_PER_SHARD = 256
# Of a pass with workers, which have some batches ready when the clock starts.
SHORTEST_PASS = 32  # batches
COLUMNS = {
    "size": "frames x width",
    "clips": "clips|,",
    "order": "order",
    "dtype": "type",
    "workers": "workers",
    "memory": "files",
    "clips_per_second": "clips/s|,.0f",
    "gigabytes_per_second": "GB/s|.2f",
}


@dataclass(frozen=True)
class Reading:
    """One way of reading a cache; `workers` 0 is this process."""

    order: str
    dtype: str
    workers: int
    cold: bool = False


READINGS = (
    Reading("sequential", "float32", 0),
    Reading("random", "float32", 0),
    Reading("sequential", "float16", 0),
    Reading("random", "float16", 0),
    Reading("sequential", "float32", 2),
    Reading("random", "float32", 2),
    Reading("random", "float16", 2),
    Reading("random", "float16", 0, cold=True),
)


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    use_threads(args)
    rows: list[Row] = []
    for frames, width in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            clips = number_of_clips(frames, width, args.gigabytes)
            write_cache(Path(folder), clips, frames, width, args.seed)
            for reading in READINGS:
                rows.append(measure(Path(folder), reading, args))
    print(markdown_table(rows, COLUMNS))
    print(f"\nbatches of {args.batch_size}; {machine_line()}")
    raw = {"passes": [{**row, "seconds": row.pop("seconds")} for row in rows]}
    write_report(args.output, report("feature_reading", args, rows, raw))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, help="JSON file for the table and all passes")
    add("--folder", type=Path, help="where to write the caches; a temporary folder there")
    add("--sizes", type=parse_size, nargs="+", default=list(SIZES), help="such as 31x256")
    add("--gigabytes", type=float, default=0.75, help="of features in each cache")
    add("--batch-size", type=int, default=BATCH_SIZE)
    add("--rounds", type=int, default=5, help="passes of each way of reading")
    add("--seconds", type=float, default=3.0, help="at most, for a pass")
    add("--threads", type=int, help="torch threads of this process; default: torch's own choice")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="small caches, one pass")
    args = parser.parse_args()
    if args.quick:
        args.gigabytes, args.rounds, args.seconds = 0.02, 1, 0.5
    return args


def parse_size(text: str) -> tuple[int, int]:
    """31x256 -> (31, 256)."""
    frames, _, width = text.partition("x")
    if not (frames.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text}: give frames x width, such as 31x256")
    return int(frames), int(width)


def number_of_clips(frames: int, width: int, gigabytes: float) -> int:
    """How many clips have so many gigabytes of features, at least two batches."""
    return max(2 * BATCH_SIZE, round(gigabytes * 1e9 / (frames * width * 2)))


def write_cache(folder: Path, clips: int, frames: int, width: int, seed: int) -> None:
    """A finished cache of random features, all clips of one length."""
    from dac_diffusion.data.feature_index import SHARDS_FOLDER, write_index
    from dac_diffusion.data.feature_shards import AudioFile, read_shard, write_shard
    from dac_diffusion.data.published.dataset import CaptionDataset, CaptionedClip

    generator = np.random.default_rng(seed)
    features = generator.standard_normal((frames, width)).astype(np.float16)
    pooled = generator.standard_normal(width).astype(np.float32)
    files = {folder / f"{i}.wav": AudioFile(f"{i}.wav", 0, 0) for i in range(clips)}
    named = list(files.values())
    shards = {}
    for start in range(0, clips, CLIPS_PER_SHARD):
        path = folder / SHARDS_FOLDER / f"{start // CLIPS_PER_SHARD:05d}"
        path.mkdir(parents=True)
        with write_shard(path, width, width) as writer:
            for file in named[start : start + CLIPS_PER_SHARD]:
                features = np.roll(features, 1)  # other numbers for every clip, quickly made
                writer.add(file, "", features, pooled, 10.0, cut=False)
        shards[path.name] = read_shard(path, width, width)
    encoder = {"name": "random", "feature_dim": width, "pooled_dim": width}
    dataset = CaptionDataset(
        folder, tuple(CaptionedClip(path.stem, path, ("words",)) for path in files)
    )
    write_index(folder, encoder, dataset, files, shards)


def measure(folder: Path, reading: Reading, args: argparse.Namespace) -> Row:
    """The row of one way of reading, after a pass that is not counted."""
    import torch

    from dac_diffusion.data.feature_cache import FeatureCache

    dtype = getattr(torch, reading.dtype)
    speeds, seconds, cache = [], [], FeatureCache.open(folder, dtype)
    clip_bytes = int(cache.batch([0]).features.shape[1]) * cache.feature_dim * 2
    if not reading.cold:
        timed_pass(cache, reading, args, 0)
    for number in range(args.rounds):
        if reading.cold:
            del cache  # mapped files stay in memory
            drop_from_memory(folder)
            cache = FeatureCache.open(folder, dtype)
        read, taken = timed_pass(cache, reading, args, number)
        speeds.append(read / taken)
        seconds.append({"clips": read, "seconds": taken})
    speed = float(np.median(speeds))
    return {
        "size": f"{clip_bytes // cache.feature_dim // 2} x {cache.feature_dim}",
        "clips": len(cache),
        "order": reading.order,
        "dtype": reading.dtype,
        "workers": reading.workers,
        "memory": "cold" if reading.cold else "in memory",
        "clips_per_second": speed,
        "gigabytes_per_second": speed * clip_bytes / 1e9,
        "seconds": seconds,
    }


def timed_pass(
    cache: Any, reading: Reading, args: argparse.Namespace, number: int
) -> tuple[int, float]:
    """Clips read and seconds taken, without starting the workers and their first batch."""
    generator = np.random.default_rng([args.seed, number])
    order = np.arange(len(cache))
    if reading.order == "random":
        generator.shuffle(order)
    batches = np.split(order, range(args.batch_size, len(order), args.batch_size))
    if reading.workers:
        batches *= -(-SHORTEST_PASS // len(batches))
    stream = read_batches(cache, batches, reading.workers)
    if reading.workers:
        next(stream)
    started, read = time.perf_counter(), 0
    for size in stream:
        read += size
        if time.perf_counter() - started > args.seconds:
            break
    return read, time.perf_counter() - started


def read_batches(cache: Any, batches: list[np.ndarray], workers: int) -> Iterator[int]:
    """Reads every batch, as training would, and yields its number of clips."""
    from torch.utils.data import DataLoader

    read: Callable[[np.ndarray], Any] = cache.batch
    if not workers:
        for batch in batches:
            yield len(read(batch).features)
        return
    loader = DataLoader(
        ByBatch(cache), sampler=batches, batch_size=None, num_workers=workers, collate_fn=as_it_is
    )
    for features in loader:
        yield len(features.features)


class ByBatch:
    """A cache whose items are batches."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def __getitem__(self, indices: np.ndarray) -> Any:
        return self.cache.batch(indices)


def as_it_is(batch: Any) -> Any:
    return batch


def drop_from_memory(folder: Path) -> None:
    """Have the system forget the content of the files, where it takes such advice."""
    for path in folder.rglob("*.npy"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # only what is on the disk can be forgotten
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    run_main(main)
