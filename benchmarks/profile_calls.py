"""Where the time of one captioning call goes, by torch.profiler, for each system.

    python benchmarks/profile_calls.py --threads 2 --output benchmarks/results/profile.txt

One 10 s clip, five captions as drawn, after warm-up: the operators with the most time of their own,
and how much of the call is outside of any operator (Python and dispatch). The profiler itself slows
a call down, most of all where there are many small operators; the first line says by how much.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from common import base_parser, machine_line, run_main, use_threads
from systems import Setting, add_comparison, autoregressive_settings, diffusion_settings
from timing import make_clips

from dac_diffusion.files import atomic_write

SHOWN = 12


def main() -> None:
    args = parse_arguments()
    clips, _ = make_clips(1, args.seed)
    settings = diffusion_settings(args.model, 5, (8,))
    settings += autoregressive_settings(args.autoregressive, 5)[:1]
    text = "\n".join(profile(setting, clips, args) for setting in settings)
    text += f"\n{machine_line()}\n"
    print(text)
    if args.output is not None:
        with atomic_write(args.output) as file:
            file.write(text)


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_comparison(parser)
    return parser.parse_args()


def profile(setting: Setting, clips: list[Any], args: argparse.Namespace) -> str:
    """The profile of one call as text."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    from dac_diffusion.systems import load_captioner

    use_threads(args)
    captioner = load_captioner(setting.model, args.dtype)

    def call() -> float:
        start = time.perf_counter()
        captioner(clips, seed=args.seed, progress=False, **setting.arguments())
        return time.perf_counter() - start

    plain = sorted(call() for _ in range(5))[2]
    with torch_profile(activities=[ProfilerActivity.CPU]) as profiler:
        profiled = call()
    events = profiler.key_averages()
    inside = sum(event.self_cpu_time_total for event in events) / 1e6
    count = sum(event.count for event in events)
    lines = [
        f"{setting.system}, {setting.name}, {captioner.dtype}: {1000 * plain:.0f} ms a call, "
        f"{1000 * profiled:.0f} ms under the profiler; {count} operator calls, "
        f"{1000 * inside:.0f} ms in them",
        events.table(sort_by="self_cpu_time_total", row_limit=SHOWN, max_name_column_width=40),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
