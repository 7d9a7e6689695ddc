"""Quality and diversity of the compared systems, on validation scenes and val recordings.

    python benchmarks/quality.py --minilm --output benchmarks/results/quality.json
    python benchmarks/quality.py --quick

Each setting's captions are kept in captions/ in --folder (one jsonl a setting, its first line says
what made them), so an interrupted run goes on where it was. On scenes, captions are scored against
the references; the recordings have labels only, so there the share of named events is counted.
`cider_d` is of the first caption: of one sample where captions are taken as drawn, of the
best-scored where ranked. Beside them the references of the scenes, and people's captions of
AudioCaps and Clotho.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    write_report,
)
from differences import COLUMNS as DIFFERENCES
from differences import all_differences
from human import add_human, human_rows, reference_row
from kept_captions import caption_all, scene_references
from quality_numbers import diversity_numbers, quality_numbers
from systems import (
    Setting,
    add_comparison,
    autoregressive_settings,
    check_further,
    diffusion_settings,
    further_ranked,
    further_settings,
    ranked_settings,
    sweep_settings,
)
from tqdm import tqdm

from dac_diffusion.data.predictions import Clip
from dac_diffusion.metrics.evaluation import Evaluation, evaluate
from dac_diffusion.metrics.event_naming import EventNamer, load_event_namer
from dac_diffusion.metrics.wellformedness import wellformedness

if TYPE_CHECKING:
    from dac_diffusion.metrics.sentence_similarity import SentenceVectors

COLUMNS = {
    "system": "system",
    "setting": "setting",
    "captions_per_clip": "K",
    "data": "data",
    "cider_d": "CIDEr-D|.3f",
    "minilm_similarity": "MiniLM|.3f",
    "best_of_5_cider_d": "best of 5|.3f",
    "distinct_2_within_clip": "distinct-2 in clip|.3f",
    "mbleu_4": "mBLEU-4|.3f",
    "duplicate_share": "duplicates|.1%",
    "mtld": "MTLD|.2f",
    "distinct_1": "Distinct-1|.4f",
    "distinct_1_at_1000_words": "at 1,000 words|.4f",
    "vocabulary": "words",
    "repeated_bigram": "repeated bigram|.1%",
    "named_first": "first names it|.1%",
    "named_any": "any names it|.1%",
}


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    rows, differences, raw = measure(args)
    print(markdown_table(rows, COLUMNS))
    print("\n" + markdown_table(differences, DIFFERENCES))
    print(f"\n{args.limit} scenes; {machine_line()}")
    write_report(args.output, report("quality", args, rows, raw | {"differences": differences}))


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    add_options(parser)
    add_comparison(parser)
    args = parser.parse_args()
    check_further(args.also)
    if args.quick:
        make_quick(args)
    return args


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark alone."""
    parser.add_argument("--limit", type=int, default=500, help="number of scenes")
    parser.add_argument("--scene-seed", type=int, default=0)
    parser.add_argument("--minilm", action="store_true", help="similarity by all-MiniLM-L6-v2 too")
    add_human(parser)


def make_quick(args: argparse.Namespace) -> None:
    """A small part of everything."""
    args.limit, args.steps = 60, [1, 4, 8]


def measure(args: argparse.Namespace) -> tuple[list[Row], list[Row], dict[str, list[Row]]]:
    """Caption with every setting; the table, the differences of systems, and the references."""
    namer = load_event_namer(SYNONYMS)
    minilm = load_vectors(args)
    references = scene_references(args)
    rows: list[Row] = []
    evaluations: dict[str, Evaluation] = {}
    named: dict[str, list[bool]] = {}
    for setting in tqdm(settings(args), desc="quality", unit="setting"):
        captions = caption_all(setting, args)
        evaluation = evaluate(scene_clips(captions["scenes"], references), minilm=minilm)
        evaluations[setting.key] = evaluation
        named[setting.key] = [
            namer.names(row["captions"][0], row["label"]) for row in captions["recordings"]
        ]
        rows.append(scene_row(setting, evaluation, captions["scenes"]))
        if captions["recordings"]:
            rows.append(recording_row(setting, captions["recordings"], namer))
    rows.append(reference_row(next(e for e in evaluations.values() if e.sets is not None)))
    rows += human_rows(args, minilm)
    raw = {"references": [{"references": of_scene} for of_scene in references]}
    return rows, all_differences(settings(args), evaluations, named), raw


def load_vectors(args: argparse.Namespace) -> SentenceVectors | None:
    """MiniLM where it is asked for."""
    if not args.minilm:
        return None
    from dac_diffusion.metrics.sentence_similarity import load_minilm

    return load_minilm()


def settings(args: argparse.Namespace) -> list[Setting]:
    """All settings, the ones that the paper's table compares first."""
    steps, both = tuple(args.steps), (args.model, args.autoregressive)
    every: list[Setting] = []
    for count in (1, 5):
        every += diffusion_settings(args.model, count, steps)
        every += autoregressive_settings(args.autoregressive, count)
        every += further_settings(args.also, count)
    every += ranked_settings(*both) + further_ranked(args.also)
    return every + ([] if args.quick else sweep_settings(*both))


def scene_clips(rows: Sequence[Row], references: Sequence[list[str]]) -> list[Clip]:
    """The captioned scenes as what the metrics take."""
    return [
        Clip(row["name"], row["name"], row["captions"], of_scene)
        for row, of_scene in zip(rows, references, strict=True)
    ]


def scene_row(setting: Setting, evaluation: Evaluation, rows: Sequence[Row]) -> Row:
    """All numbers of one setting on the scenes."""
    form = wellformedness([text for row in rows for text in row["captions"]])
    return {
        **_head(setting, f"{len(rows)} validation scenes"),
        **quality_numbers(evaluation),
        "repeated_bigram": form.repeated_bigram,
        "function_word_ending": form.function_word_ending,
    }


def recording_row(setting: Setting, rows: Sequence[Row], namer: EventNamer) -> Row:
    """All numbers of one setting on the recordings, which have a label but no references."""
    captions = [row["captions"] for row in rows]
    first = [namer.names(row["captions"][0], row["label"]) for row in rows]
    anywhere = [any(namer.names(t, row["label"]) for t in row["captions"]) for row in rows]
    form = wellformedness([text for of_clip in captions for text in of_clip])
    return {
        **_head(setting, f"{len(rows)} val recordings"),
        **diversity_numbers(captions),
        "named_first": sum(first) / len(first),
        "named_any": sum(anywhere) / len(anywhere),
        "repeated_bigram": form.repeated_bigram,
        "function_word_ending": form.function_word_ending,
    }


def _head(setting: Setting, data: str) -> Row:
    return {
        "system": setting.system,
        "setting": setting.name,
        "ranked": setting.ranked,
        "captions_per_clip": setting.num_captions,
        "data": data,
    }


if __name__ == "__main__":
    run_main(main)
