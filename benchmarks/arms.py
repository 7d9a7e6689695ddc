"""Several trained diffusion captioners at several numbers of network calls: quality and speed.

    python benchmarks/arms.py embeddings=builtin split_bert=runs/paper_arm --threads 2 \
        --guidance-scales 1 2.5 --output benchmarks/results/arms.json

Each is given as NAME=MODEL. Captions are taken as drawn, five a clip, not ranked: of the fixed
validation scenes, scored against their references, and of the val recordings, whose sound a caption
names or not. Calls are of the network for a caption: a guidance scale other than 1 doubles them.
--noise-scales: of the initial noise, in place of each checkpoint's own; a lower one is safer and
less diverse, so arms are best compared at equal ones.

Speed is that of one caption for one 10 s clip at a time, audio encoder included, all settings in
turn. Captions and timings are kept in --folder, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from common import (
    SYNONYMS,
    Row,
    add_clips,
    base_parser,
    check_output,
    machine_line,
    markdown_table,
    report,
    run_main,
    use_threads,
    write_report,
)
from kept_captions import caption_all, fingerprint, scene_references
from quality import recording_row, scene_clips, scene_row
from stopwatch import without_likelihood
from systems import Setting
from timed_group import Group, kept_group, time_group
from timing import make_clips
from tqdm import tqdm

from dac_diffusion.errors import ConfigError
from dac_diffusion.metrics.evaluation import evaluate
from dac_diffusion.metrics.event_naming import load_event_namer

STEPS = (1, 2, 4, 8, 17)
COLUMNS = {
    "system": "arm",
    "steps": "steps|d",
    "guidance": "guidance|.1f",
    "noise": "initial noise",
    "network_calls": "calls|d",
    "cider_d": "CIDEr-D|.3f",
    "best_of_5_cider_d": "best of 5|.3f",
    "distinct_2_within_clip": "distinct-2 in clip|.3f",
    "mbleu_4": "mBLEU-4|.3f",
    "mtld": "MTLD|.1f",
    "distinct_1": "Distinct-1|.3f",
    "repeated_bigram": "repeated bigram|.1%",
    "named_first": "recordings named first|.1%",
    "named_any": "any of 5|.1%",
    "aps": "APS|.2f",
    "ratio": "APS ratio|.2f",
}


def main() -> None:
    """Print and write the table."""
    args = parse_arguments()
    check_output(args.output)
    use_threads(args)
    settings = every_setting(args)
    quality = measure_quality(settings, args)
    speed = measure_speed(settings, args)
    table = [
        {**quality[s.key], **speed[s.key], "steps": s.call["num_steps"],
         "guidance": s.call["guidance_scale"], "noise": s.call.get("initial_noise_scale", "own")}
        for s in settings
    ]  # fmt: skip
    raw = {f"{row['system']} {row['setting']}": [row.pop("raw")] for row in table}
    print(markdown_table(table, COLUMNS))
    print(f"\n{args.limit} scenes; {machine_line()}")
    write_report(args.output, report("arms", args, table, raw))


def every_setting(args: argparse.Namespace) -> list[Setting]:
    """All arms at all numbers of steps, without and with guidance."""
    settings = []
    for name, model in arms(args.models):
        for noise, scale, steps in product(
            args.noise_scales or [None], args.guidance_scales, args.steps
        ):
            title = f"{steps} steps, guidance {scale:g}"
            call: dict[str, Any] = {"num_steps": steps, "guidance_scale": scale}
            if noise is not None:
                title += f", noise {noise:g}"
                call["initial_noise_scale"] = noise
            settings.append(Setting(name, title, model, num_captions=5, call=call))
    return settings


def arms(models: list[str]) -> list[tuple[str, str]]:
    """Names and models; raises ConfigError for one that is not NAME=MODEL, or given twice."""
    pairs = [tuple(model.split("=", 1)) for model in models]
    names = [pair[0] for pair in pairs]
    if any(len(pair) != 2 for pair in pairs) or len(set(names)) < len(names):
        raise ConfigError(f"{' '.join(models)}: give each model as NAME=MODEL, each name once")
    return [(pair[0], pair[1]) for pair in pairs]


def measure_quality(settings: list[Setting], args: argparse.Namespace) -> dict[str, Row]:
    """The numbers of every setting by its key."""
    namer = load_event_namer(SYNONYMS)
    references = scene_references(args)
    rows = {}
    for setting in tqdm(settings, desc="quality", unit="setting"):
        captions = caption_all(setting, args)
        evaluation = evaluate(scene_clips(captions["scenes"], references))
        row = scene_row(setting, evaluation, captions["scenes"])
        if captions["recordings"]:
            named = recording_row(setting, captions["recordings"], namer)
            row |= {key: named[key] for key in ("named_first", "named_any")}
        rows[setting.key] = row
    return rows


def measure_speed(settings: list[Setting], args: argparse.Namespace) -> dict[str, Row]:
    """Speed of one caption of one clip by the setting's key; ratios are to the first setting."""
    from dac_diffusion.systems import load_captioner

    group = Group(args.dtype, num_captions=1, batch_size=1)
    single = [Setting(s.system, s.name, s.model, num_captions=1, call=s.call) for s in settings]
    models = dict.fromkeys(s.model for s in settings)
    head = {
        "weights": [fingerprint(model) for model in models],
        "settings": [s.key for s in single],
        "rounds": args.rounds,
        "machine": machine_line(),
    }

    def measure() -> list[Row]:
        captioners: dict[str, Any] = {
            model: without_likelihood(load_captioner(model, args.dtype)) for model in models
        }
        clips, _ = make_clips(1, args.seed)
        return time_group(group, single, captioners, clips, args)

    rows = kept_group(args.folder / "timing" / f"{group.key}.json", head, measure)
    return {s.key: row for s, row in zip(settings, rows, strict=True)}


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    add = parser.add_argument
    add("models", nargs="+", metavar="NAME=MODEL", help="a name, and a checkpoint as --model takes")
    add("--steps", type=int, nargs="+", default=list(STEPS))
    add("--guidance-scales", type=float, nargs="+", default=[1.0])
    add("--noise-scales", type=float, nargs="+", help="of the initial noise; default: their own")
    add("--limit", type=int, default=500, help="number of scenes")
    add("--scene-seed", type=int, default=0)
    add("--folder", type=Path, default=Path("runs/arms"), help="for captions and timings")
    add("--rounds", type=int, default=15, help="of timing, at most")
    add("--minutes", type=float, default=3.0, help="of timing, at most")
    add("--fixed-length", type=int, help="tokens of every caption; for random weights only")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
