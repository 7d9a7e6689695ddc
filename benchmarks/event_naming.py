"""How often the captions name the right sound, by the synonym list event_synonyms.yaml.

    python benchmarks/event_naming.py --output benchmarks/results/event_naming.json.gz
    python benchmarks/event_naming.py --limit 20 --steps 8          # a quick look
    python benchmarks/event_naming.py --clips none                  # synthesizers only

Two sets. `recordings`: the recordings of the val split of a clip folder, each as it is; a caption
is right when it names the recording's label. `procedural`: validation scenes of the synthesizers
alone; counted is the share of all events in them that are named.

First: by the best-ranked caption. Any: by at least one of the captions. Random: by the first
candidate as sampled, before any ranking or filtering. Shuffled: any of the captions of another
clip, which is what knowing only the kinds of sound would give. Foreign: share of best-ranked
captions that name some event which is not there (real recordings may well contain it). The row
"references" judges the scenes' own reference captions in the same way: they may leave a background
out, so that naming every event is not to be expected of one caption.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import (
    SYNONYMS,
    Captioner,
    Row,
    add_clips,
    add_steps,
    base_parser,
    check_output,
    derangement,
    in_chunks,
    load_captioner,
    machine_line,
    markdown_table,
    report,
    run_captioner,
    run_main,
    texts,
    validation_scenes,
    write_report,
)
from tqdm import tqdm

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.event_naming import EventNamer, load_event_namer

COLUMNS = {
    "set": "set",
    "system": "captions",
    "num_steps": "steps",
    "clips": "clips",
    "events": "events",
    "first": "first caption|.1%",
    "first_interval": "95 % interval",
    "any": "any of the captions|.1%",
    "random": "random candidate|.1%",
    "shuffled": "shuffled, any|.1%",
    "foreign": "foreign event named|.1%",
}


def main() -> None:
    parser = base_parser(__doc__)
    add_steps(parser)
    add_clips(parser)
    parser.add_argument("--scenes", type=int, default=300, help="procedural validation scenes")
    parser.add_argument("--scene-seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="at most this many clips of each set")
    args = parser.parse_args()
    check_output(args.output)
    namer = load_event_namer(SYNONYMS)
    captioner = load_captioner(args)
    raw: dict[str, list[Row]] = {}
    if str(args.clips) != "none":
        raw["recordings"] = caption_recordings(captioner, args)
    raw["procedural"] = caption_scenes(captioner, args)
    table = []
    for name, rows in raw.items():
        for steps in args.steps:
            chosen = [r for r in rows if r["num_steps"] == steps]
            row = naming_row(chosen, namer, args.seed)
            table.append({"set": name, "system": "ranked", "num_steps": steps, **row})
    references = naming_row(as_captioned(raw["procedural"], args.steps[0]), namer, args.seed)
    table.append({"set": "procedural", "system": "references", **references})
    print(markdown_table(table, COLUMNS))
    print(f"\n{machine_line()}")
    if "recordings" in raw:
        print_missed(raw["recordings"], args.steps, namer)
    write_report(args.output, report("event_naming", args, table, raw))


def caption_recordings(captioner: Captioner, args: argparse.Namespace) -> list[Row]:
    """Caption every val recording at every number of steps."""
    clips = read_val_clips(args.clips)[: args.limit]
    rows = []
    for steps in tqdm(args.steps, desc="recordings", unit="setting"):
        captioned = run_captioner(captioner, [args.clips / c["file"] for c in clips], steps, args)
        for clip, raw in zip(clips, captioned, strict=True):
            labels = [clip["label"]]
            rows.append({"clip": clip["file"], "labels": labels, "num_steps": steps, **raw})
    return rows


def caption_scenes(captioner: Captioner, args: argparse.Namespace) -> list[Row]:
    """Caption procedural validation scenes at every number of steps."""
    count = min(args.scenes, args.limit or args.scenes)
    rows: list[Row] = []
    dataset = validation_scenes(None, args.scene_seed)
    with tqdm(total=count * len(args.steps), desc="procedural", unit="clip") as bar:
        for examples in in_chunks(dataset, count):
            first = len(rows) // len(args.steps)
            sounds = [(e.waveform, e.sampling_rate) for e in examples]
            for steps in args.steps:
                captioned = run_captioner(captioner, sounds, steps, args)
                for index, (example, raw) in enumerate(zip(examples, captioned, strict=True)):
                    labels = sorted({event.label for event in example.scene.events})
                    row = {"clip": f"scene {first + index}", "labels": labels, "num_steps": steps}
                    rows.append({**row, "references": list(example.captions), **raw})
                bar.update(len(examples))
    return rows


def read_val_clips(folder: Path) -> list[dict[str, str]]:
    """The rows of clips.csv in the val split. Raises DataError where there are none."""
    table = folder / "clips.csv"
    try:
        with table.open(encoding="utf-8", newline="") as file:
            clips = [row for row in csv.DictReader(file) if row.get("split") == "val"]
    except OSError as error:
        raise DataError(f"{table}: cannot be read; name a clip folder with --clips") from error
    if not clips:
        raise DataError(f"{table}: has no recording in the split 'val'")
    return clips


def as_captioned(rows: Sequence[Row], num_steps: int) -> list[Row]:
    """The scenes with their references in the place of captions and candidates."""
    return [
        {
            "labels": row["labels"],
            "captions": [{"text": text} for text in row["references"]],
            "candidates": row["references"],
        }
        for row in rows
        if row["num_steps"] == num_steps
    ]


def naming_row(rows: Sequence[Row], namer: EventNamer, seed: int) -> Row:
    """The shares of one set at one number of steps; shares are of all events in the set."""
    events = sum(len(row["labels"]) for row in rows)
    others = derangement(len(rows), seed)

    def share(captions_of: Sequence[list[str]]) -> float:
        named = (
            namer.named_share(captions, row["labels"]) * len(row["labels"])
            for captions, row in zip(captions_of, rows, strict=True)
        )
        return sum(named) / events

    captions = [texts(row) for row in rows]
    first = share([c[:1] for c in captions])
    foreign = [bool(namer.foreign(c[0], r["labels"])) for c, r in zip(captions, rows, strict=True)]
    return {
        "clips": len(rows),
        "events": events,
        "first": first,
        "first_interval": "{:.1%} to {:.1%}".format(*wilson_interval(first, events)),
        "any": share(captions),
        "random": share([row["candidates"][:1] for row in rows]),
        "shuffled": share([captions[other] for other in others]),
        "foreign": sum(foreign) / len(rows),
    }


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share observed in `count` independent trials."""
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def print_missed(rows: Sequence[Row], steps: Sequence[int], namer: EventNamer) -> None:
    """Say which labels the best-ranked caption missed, at 8 steps or the most there are."""
    shown = 8 if 8 in steps else max(steps)
    counts: dict[str, list[Any]] = {}
    for row in (r for r in rows if r["num_steps"] == shown):
        label = row["labels"][0]
        counts.setdefault(label, []).append(namer.names(texts(row)[0], label))
    missed = {k: f"{len(v) - sum(v)} of {len(v)}" for k, v in counts.items() if not all(v)}
    print(f"\nMissed by the first caption at {shown} steps: " + (_listed(missed) or "none"))


def _listed(items: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(items.items()))


if __name__ == "__main__":
    run_main(main)
