"""Speed of systems of the paper's sizes, with random weights, beside autoregressive ones.

    python benchmarks/full_size.py --threads 2 --output benchmarks/results/full_size.json
    python benchmarks/full_size.py --quick --threads 2
    python benchmarks/full_size.py --device cuda --output full_size_cuda.json

Nothing is downloaded: speed does not depend on the weights. DAC (configs/dac/beats_dit.yaml and
beats_uvit.yaml): BEATs, a denoiser over 40 positions, the upper half of BERT-base and its head; 17
steps with guidance 2.5, which are 34 network calls, and fewer. Beside it, on the same BEATs
features and with as many tokens, encoder-decoders of the size of BART-base and of GPT-2 small with
cross-attention, greedy and with 4 beams; below the table stands what exactly each is.

Random weights end no caption, so all have --fixed-length tokens (AudioCaps' have about 11). The
autoregressive captioners are made to write them, in as many calls; the denoiser computes all its 40
positions, as it does for a caption of any length. One caption per clip. Counted are Kaldi frames,
audio encoder, denoising or decoding, and turning tokens into text (APS, and TPS with that many
tokens a caption); the audio encoder, the same for all, also stands alone. BEATs gives 496 features
for 10 s, as published, or 62 with --frequency-pooling mean. On a CPU the audio encoder and the
denoisers take one clip at a time; on CUDA always 32, filled up by copies, so that fewer take as
long. Network calls are those of the denoiser or decoder for the whole batch. All systems are timed
in turn, round after round, in one process; shown are medians, the 10th and 90th percentile, and
ratios between neighbours in time, to the first system decoding greedily.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
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
from full_size_systems import (
    SPECIAL_POSITIONS,
    Sizes,
    build_captioners,
    compared_settings,
    describe,
    full_size,
    read_configs,
)
from timed_group import Group, kept_group, time_group
from timing import make_clips
from tqdm import tqdm

from dac_diffusion.errors import ConfigError

CPU_BATCH_SIZES, CUDA_BATCH_SIZES = (1, 8), (1, 8, 32, 128)
COLUMNS = {
    "model": "system",
    "setting": "setting",
    "dtype": "dtype",
    "batch_size": "clips",
    "network_calls": "network calls",
    "aps": "APS|.3f",
    "aps_low": "10 %|.3f",
    "aps_high": "90 %|.3f",
    "tps": "TPS|.1f",
    "ratio": "APS ratio|.2f",
    "ratio_low": "10 %|.2f",
    "ratio_high": "90 %|.2f",
    "encoding": "encoding s/clip|.3f",
    "generation": "generation s/clip|.3f",
    "text": "text s/clip|.4f",
    "peak_gigabytes": "peak GB|.2f",
    "rounds": "rounds",
}
PARAMETERS = {
    "model": "system",
    "encoder": "audio encoder|.2f",
    "writing": "denoiser, or projection and network|.2f",
    "latent_space": "latent space|.2f",
    "total": "total|.2f",
}


def main(sizes: Sizes | None = None) -> None:
    sizes = sizes or full_size()
    args = parse_arguments()
    check_arguments(args, sizes)
    check_output(args.output)
    use_threads(args)
    rows = time_all(sizes, args)
    systems, machine = describe(sizes), where(args.device)
    text = "\n".join(
        [
            markdown_table(rows, shown_columns(rows)),
            "\nMillions of parameters:\n",
            markdown_table(parameter_rows(rows), PARAMETERS),
            "",
            *(f"- {name}: {description}" for name, description in systems.items()),
        ]
    )
    print(f"{text}\n\n{args.fixed_length} tokens a caption; {machine}")
    raw = {f"{row['model']} {row['setting']} {row['group']}": [row.pop("raw")] for row in rows}
    content = report("full_size", args, rows, raw)
    content |= {"machine": machine, "systems": systems, "markdown": text}
    write_report(args.output, content)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, help="JSON file for the table and all measurements")
    add("--folder", type=Path, help="keeps every group's rows, to go on from; default: nowhere")
    add("--device", default="cpu", help="such as cpu, cuda or cuda:1")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    add("--batch-sizes", type=positive, nargs="+", help="default: 1 8, on CUDA 1 8 32 128")
    add("--steps", type=positive, nargs="+", default=[17, 4, 1], help="without guidance")
    add("--guided-steps", type=positive, nargs="+", default=[17], help="two network calls each")
    add("--guidance-scale", type=float, default=2.5)
    add("--fixed-length", type=positive, default=12, help="tokens of every caption")
    add("--frequency-pooling", default="none", choices=("none", "mean"), help="of BEATs")
    add("--rounds", type=positive, default=15, help="at most, for each group")
    add("--minutes", type=float, default=6.0, help="at most, for each group, but three rounds")
    add("--threads", type=int, help="torch threads; default: torch's own choice")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="one clip, float32, two rounds")
    args = parser.parse_args()
    if args.quick:
        args.dtypes, args.batch_sizes, args.rounds = ["float32"], [1], 2
    if args.batch_sizes is None:
        args.batch_sizes = CPU_BATCH_SIZES if args.device == "cpu" else CUDA_BATCH_SIZES
    return args


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1")
    return int(text)


def check_arguments(args: argparse.Namespace, sizes: Sizes) -> None:
    """Raise ConfigError for what would only fail after the systems were made."""
    configs = read_configs(sizes).values()
    room = min(config.text.max_length for config in configs) - SPECIAL_POSITIONS
    if args.fixed_length > room:
        raise ConfigError(
            f"--fixed-length {args.fixed_length}: the denoiser's positions hold {room} words at "
            "most, beside [CLS] and [SEP]"
        )
    most = min(config.schedule.timesteps for config in configs)
    if max([*args.steps, *args.guided_steps]) > most:
        raise ConfigError(f"--steps, --guided-steps: at most {most}, the schedule's timesteps")
    try:
        kind = torch.zeros(1, device=args.device).device.type
    except (RuntimeError, AssertionError) as error:  # which one depends on how torch was built
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {args.device}: cannot be used here ({reason})") from error
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"--device {args.device}: only cpu and cuda can be timed")


def time_all(sizes: Sizes, args: argparse.Namespace) -> list[Row]:
    """The rows of all groups, those kept by an earlier run included."""
    settings = compared_settings(
        sizes, args.steps, args.guided_steps, args.guidance_scale, args.fixed_length
    )
    groups = [[Group(dtype, 1, size) for size in args.batch_sizes] for dtype in args.dtypes]
    head = {name: getattr(args, name) for name in ("rounds", "minutes", "seed", "device")}
    head |= {"settings": list(map(repr, settings)), "machine": where(args.device)}
    head |= {"systems": describe(sizes), "frequency_pooling": args.frequency_pooling}
    clips: list[Any] = []
    rows: list[Row] = []
    with tqdm(total=sum(map(len, groups)), desc="full size", unit="group") as bar:
        for of_dtype in groups:
            dtype = getattr(torch, of_dtype[0].dtype)
            captioners = build_captioners(
                sizes, dtype, args.device, args.frequency_pooling, args.seed
            )
            if not clips:
                rate = next(iter(captioners.values())).encoder.sampling_rate
                clips, _ = make_clips(max(args.batch_sizes), args.seed, rate)
            for group in of_dtype:
                path = None if args.folder is None else args.folder / f"{group.key}.json"
                measure = partial(time_group, group, settings, captioners, clips, args)
                rows += kept_group(path, head, measure)
                bar.update()
            del captioners, measure  # before those of the next type are made
            gc.collect()
    for row in rows:
        peak = row["peak_memory"]
        row["peak_gigabytes"] = None if peak is None else peak / 1e9
    return rows


def shown_columns(rows: Sequence[Row]) -> dict[str, str]:
    """The columns without those that no row has a value for, such as memory on a CPU."""
    return {
        key: column for key, column in COLUMNS.items() if any(row[key] is not None for row in rows)
    }


def parameter_rows(rows: Sequence[Row]) -> list[Row]:
    """Millions of parameters of every system by part."""
    by_model = {row["model"]: row["parameters_by_part"] for row in rows}
    return [
        {
            "model": model,
            "encoder": parts["encoder"] / 1e6,
            "writing": sum(parts.get(n, 0) for n in ("denoiser", "projection", "network")) / 1e6,
            "latent_space": parts["latent_space"] / 1e6 if "latent_space" in parts else None,
            "total": sum(parts.values()) / 1e6,
        }
        for model, parts in by_model.items()
    ]


def where(device: str) -> str:
    """The machine, and the CUDA device if there is one."""
    card = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    return machine_line() + card


if __name__ == "__main__":
    run_main(main)
