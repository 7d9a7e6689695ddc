"""Speed of the paper's and the published systems at full size, with random weights.

    python benchmarks/full_size.py --threads 2 --output benchmarks/results/full_size.json
    python benchmarks/full_size.py --quick --threads 2
    python benchmarks/full_size.py --systems dac clap_art recap --batch-sizes 1 --threads 2
    python benchmarks/full_size.py --systems ced_llama --llama 1b 3b 7b --dtypes bfloat16
    python benchmarks/full_size.py --device cuda --output full_size_cuda.json

Nothing is downloaded: speed does not depend on the weights. --systems:

dac    DAC (configs/dac/beats_dit.yaml, beats_uvit.yaml): BEATs, a denoiser over 40 positions, the
       upper half of BERT-base and its head; 17 steps with guidance 2.5, 34 network calls, and fewer
bart, gpt2    decoders of the size of BART-base and of GPT-2 small on the same BEATs features
enclap, enclap_plus_plus, enclap_plus_plus_large, clap_art, recap, ced_bart, ced_llama    the
       published systems with their own encoders, networks, vocabularies and decoding; EnCLAP++ has
       a row as published, the best of 30 sampled captions, which alone counts ranking

Below the table stands what exactly each is. One system at a time is in memory, and with it the
references: "BART-base size" greedy, and DAC DiT at 17 guided and at 4 plain steps. All of a group
are timed in turn, round after round, in one process. Shown are medians, the 10th and 90th
percentile, and APS divided by that of each reference beside it.

Random weights end no caption, so all have --fixed-length tokens (AudioCaps' have about 11). The
autoregressive captioners are made to write them, in as many calls; the denoiser computes all its 40
positions, as it does for a caption of any length. One caption per clip of 10 s, in memory. Counted
are the encoder (spectrogram, codec or quantiser, CLAP, resampling between them, search in the
datastore), denoising or decoding, and turning tokens into text (APS, and TPS with that many tokens
a caption). BEATs gives DAC 496 features for 10 s, as published, or 62 with --frequency-pooling
mean. On a CPU encoders and denoisers take one clip at a time; on CUDA always 32, filled up by
copies. Network calls are those of the denoiser or decoder for the whole batch.

A Llama is built in bfloat16 at once, without another copy. One that does not fit is named, and
computed from two smaller ones, if they were timed; such rows say "computed".
"""

from __future__ import annotations

import argparse
from functools import cache, partial
from pathlib import Path

import torch
from common import Row, check_output, machine_line, report, run_main, use_threads, write_report
from full_size_groups import Timed, llamas_by_arithmetic, time_system
from full_size_llama import release_memory
from full_size_published import (
    CED_LLAMA,
    LLAMAS,
    PUBLISHED,
    PublishedSizes,
    chosen_systems,
    describe_published,
    published_full_size,
    published_settings,
    read_config,
)
from full_size_rows import NOTE, as_markdown, in_order, notes_of
from full_size_systems import (
    REFERENCE_GUIDED_STEPS,
    SPECIAL_POSITIONS,
    Sizes,
    build_captioners,
    compared_settings,
    describe,
    full_size,
    read_configs,
    reference_settings,
)
from timing import make_clips
from tqdm import tqdm

from dac_diffusion.errors import ConfigError
from dac_diffusion.retrieval.store_files import import_faiss

CPU_BATCH_SIZES, CUDA_BATCH_SIZES = (1, 32), (1, 8, 32, 128)
CLIP_RATE = 48000  # the highest that any encoder wants; bringing clips to its own is not counted
OF_OUR_OWN = ("dac", "bart", "gpt2")
SYSTEMS = (*OF_OUR_OWN, *PUBLISHED, CED_LLAMA)


def main(sizes: Sizes | None = None, published: PublishedSizes | None = None) -> None:
    sizes, published = sizes or full_size(), published or published_full_size()
    args = parse_arguments()
    check_arguments(args, sizes)
    check_output(args.output)
    use_threads(args)
    rows = time_all(sizes, published, args)
    references = reference_settings(sizes, args.guidance_scale, args.fixed_length)
    shown = in_order(rows, args.dtypes, references.values())
    systems, machine = descriptions(sizes, published), where(args.device)
    text = as_markdown(shown, systems, notes_of(rows))
    print(f"{text}\n\n{args.fixed_length} tokens a caption; {machine}")
    measured = [row for row in rows if NOTE not in row]
    raw = {
        f"{row['model']} {row['setting']} {row['group']} beside {row['beside']}": [row.pop("raw")]
        for row in measured
    }
    content = report("full_size", args, measured, raw)
    content |= {"machine": machine, "systems": systems, "notes": notes_of(rows), "markdown": text}
    write_report(args.output, content)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, help="JSON file for the table and all measurements")
    add("--folder", type=Path, help="keeps every group's rows, to go on from; default: nowhere")
    add("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS, help="default: all")
    add("--llama", nargs="+", default=list(LLAMAS), choices=list(LLAMAS), help="default: all")
    add("--device", default="cpu", help="such as cpu, cuda or cuda:1")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    add("--batch-sizes", type=positive, nargs="+", help="default: 1 32, on CUDA 1 8 32 128")
    add("--steps", type=positive, nargs="+", default=[17, 4, 1], help="without guidance")
    add("--guided-steps", type=positive, nargs="+", default=[17], help="two network calls each")
    add("--guidance-scale", type=float, default=2.5)
    add("--fixed-length", type=positive, default=12, help="tokens of every caption")
    add("--frequency-pooling", default="none", choices=("none", "mean"), help="of DAC's BEATs")
    add("--rounds", type=positive, default=15, help="at most, for each group")
    add("--many-rounds", type=positive, default=3, help="at most, for more than 8 clips")
    add("--minutes", type=float, default=6.0, help="at most, for each group, but three rounds")
    add("--threads", type=int, help="torch threads; default: torch's own choice")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="dac, bart and gpt2, one clip, float32, two rounds")
    args = parser.parse_args()
    if args.quick:
        args.systems, args.dtypes = list(OF_OUR_OWN), ["float32"]
        args.batch_sizes, args.rounds = [1], 2
    if args.batch_sizes is None:
        args.batch_sizes = CPU_BATCH_SIZES if args.device == "cpu" else CUDA_BATCH_SIZES
    return args


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1")
    return int(text)


def check_arguments(args: argparse.Namespace, sizes: Sizes) -> None:
    """Raise DacError for what would only fail after the systems were made."""
    configs = read_configs(sizes).values()
    room = min(config.text.max_length for config in configs) - SPECIAL_POSITIONS
    if args.fixed_length > room:
        raise ConfigError(
            f"--fixed-length {args.fixed_length}: the denoiser's positions hold {room} words at "
            "most, beside [CLS] and [SEP]"
        )
    most = min(config.schedule.timesteps for config in configs)
    if max([*args.steps, *args.guided_steps, REFERENCE_GUIDED_STEPS]) > most:
        raise ConfigError(f"--steps, --guided-steps: at most {most}, the schedule's timesteps")
    if "recap" in args.systems:
        import_faiss()
    try:
        kind = torch.zeros(1, device=args.device).device.type
    except (RuntimeError, AssertionError) as error:  # which one depends on how torch was built
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {args.device}: cannot be used here ({reason})") from error
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"--device {args.device}: only cpu and cuda can be timed")


def time_all(sizes: Sizes, published: PublishedSizes, args: argparse.Namespace) -> list[Row]:
    """The rows and notes of all groups, those kept by an earlier run included."""
    references = reference_settings(sizes, args.guidance_scale, args.fixed_length)
    groups = planned(sizes, published, args)
    settings = [
        setting for timed in groups if timed.published is None for setting in timed.settings
    ]
    names = {setting.model for setting in (*references.values(), *settings)}
    keys = ("rounds", "many_rounds", "minutes", "seed", "device", "frequency_pooling")
    head = {key: getattr(args, key) for key in keys}
    head |= {"machine": where(args.device), "systems": descriptions(sizes, published)}
    clips, _ = make_clips(max(args.batch_sizes), args.seed, CLIP_RATE)
    rows: list[Row] = []
    with tqdm(total=len(args.dtypes) * len(groups), desc="full size", unit="system") as bar:
        for dtype in args.dtypes:
            build = cache(
                partial(
                    build_captioners,
                    sizes,
                    getattr(torch, dtype),
                    args.device,
                    args.frequency_pooling,
                    args.seed,
                    names,
                )
            )
            of_dtype: list[Row] = []
            for timed in groups:
                of_dtype += time_system(
                    timed, dtype, references, build, published, clips, args, head
                )
                bar.update()
            llamas = [t.published for t in groups if t.published in LLAMAS.values()]
            wanted = [system for system in llamas if system is not None]
            rows += of_dtype + llamas_by_arithmetic(of_dtype, wanted, references, published)
            build.cache_clear()  # before those of the next type are made
            release_memory()
    return rows


def planned(sizes: Sizes, published: PublishedSizes, args: argparse.Namespace) -> list[Timed]:
    """What is timed, system by system; those of our own, which share an encoder, are one group."""
    tokens = args.fixed_length
    own = dict(zip(("bart", "gpt2"), sizes.networks, strict=True))
    models = [model for name, model in own.items() if name in args.systems]
    models += list(sizes.configs) if "dac" in args.systems else []
    settings = compared_settings(sizes, args.steps, args.guided_steps, args.guidance_scale, tokens)
    settings = [setting for setting in settings if setting.model in models]
    key = "_".join(name for name in OF_OUR_OWN if name in args.systems)
    groups = [Timed(key, settings)] if settings else []
    for system in chosen_systems(args.systems, args.llama):
        config = read_config(system, published)
        key = system.title.lower().replace(" + ", "_").replace(" ", "_")
        groups.append(Timed(key, published_settings(system, config, tokens), system))
    return groups


def descriptions(sizes: Sizes, published: PublishedSizes) -> dict[str, str]:
    """What exactly each system is, by its name in the table."""
    systems = [*PUBLISHED.values(), *LLAMAS.values()]
    return describe(sizes) | {s.title: describe_published(s, published) for s in systems}


def where(device: str) -> str:
    """The machine, and the CUDA device if there is one."""
    card = f", {torch.cuda.get_device_name(device)}" if device.startswith("cuda") else ""
    return machine_line() + card


if __name__ == "__main__":
    run_main(main)
