"""Quality and diversity of the compared systems, on validation scenes and val recordings.

    python benchmarks/quality.py --output benchmarks/results/quality.json
    python benchmarks/quality.py --quick

Each setting's captions are kept in --captions (one jsonl a setting, first line: what made them), so
an interrupted run goes on where it was. On scenes, captions are scored against the references; the
recordings have labels only, so there the share of named events is counted. `cider_d` is of the
first caption: of one sample where captions are taken as drawn, of the best-scored where ranked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import (
    FOLDER,
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
from kept_captions import caption_all
from systems import (
    Setting,
    add_comparison,
    autoregressive_settings,
    diffusion_settings,
    ranked_settings,
    sweep_settings,
)

from dac_diffusion.data.predictions import Clip
from dac_diffusion.metrics.bootstrap import bootstrap_mean_difference
from dac_diffusion.metrics.diversity import corpus_diversity
from dac_diffusion.metrics.evaluation import Evaluation, evaluate
from dac_diffusion.metrics.event_naming import EventNamer, load_event_namer
from dac_diffusion.metrics.wellformedness import wellformedness

COLUMNS = {
    "system": "system",
    "setting": "setting",
    "captions_per_clip": "captions",
    "cider_d": "CIDEr-D|.3f",
    "best_of_5_cider_d": "best of 5|.3f",
    "distinct_2_within_clip": "distinct-2 in clip|.3f",
    "mbleu_4": "mBLEU-4|.3f",
    "duplicate_share": "duplicates|.1%",
    "mtld": "MTLD|.2f",
    "distinct_1": "Distinct-1|.4f",
    "vocabulary": "words",
    "repeated_bigram": "repeated bigram|.1%",
    "named_first": "recordings: first names it|.1%",
    "named_any": "any names it|.1%",
}
DIFFERENCES = {
    "first": "first",
    "second": "second",
    "metric": "metric",
    "difference": "difference|+.3f",
    "interval": "95 % interval",
}


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    rows, differences = measure(args)
    print(markdown_table(rows, COLUMNS))
    print("\n" + markdown_table(differences, DIFFERENCES))
    print(f"\n{args.limit} scenes; {machine_line()}")
    write_report(args.output, report("quality", args, rows, {"differences": differences}))


def parse_arguments() -> argparse.Namespace:
    parser = base_parser(__doc__)
    add_clips(parser)
    add_options(parser)
    add_comparison(parser)
    args = parser.parse_args()
    if args.quick:
        make_quick(args)
    return args


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark alone."""
    parser.add_argument("--limit", type=int, default=500, help="number of scenes")
    parser.add_argument("--scene-seed", type=int, default=0)
    parser.add_argument("--captions", type=Path, default=FOLDER / "results/captions")


def make_quick(args: argparse.Namespace) -> None:
    """A small part of everything."""
    args.limit, args.steps = 60, [1, 4, 8]


def measure(args: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Caption with every setting; the rows of the table, and the differences between systems."""
    namer = load_event_namer(SYNONYMS)
    rows: list[Row] = []
    evaluations: dict[str, Evaluation] = {}
    for setting in settings(args):
        captions = caption_all(setting, args)
        evaluation = evaluate(scene_clips(captions, setting.num_captions))
        evaluations[setting.key] = evaluation
        rows.append(quality_row(setting, evaluation, captions, namer))
    rows.append(human_row(next(iter(evaluations.values()))))
    return rows, all_differences(settings(args), evaluations)


def settings(args: argparse.Namespace) -> list[Setting]:
    """All settings, the ones that the paper's table compares first."""
    steps, both = tuple(args.steps), (args.model, args.autoregressive)
    every = diffusion_settings(args.model, 5, steps)
    for count in (1, 5):
        every += autoregressive_settings(args.autoregressive, count)
    # One nucleus sample per clip is the first of five.
    every = [s for s in every if not (s.name == "nucleus" and s.num_captions == 1)]
    return every + ranked_settings(*both) + ([] if args.quick else sweep_settings(*both))


def scene_clips(captions: dict[str, list[Row]], count: int) -> list[Clip]:
    """The captioned scenes as what the metrics take."""
    return [
        Clip(row["name"], row["name"], row["captions"][:count], row["references"])
        for row in captions["scenes"]
    ]


def quality_row(
    setting: Setting, evaluation: Evaluation, captions: dict[str, list[Row]], namer: EventNamer
) -> Row:
    """All numbers of one setting."""
    everything = [text for row in captions["scenes"] for text in row["captions"]]
    form = wellformedness(everything)
    return {
        "system": setting.system,
        "setting": setting.name,
        "ranked": setting.ranked,
        "captions_per_clip": setting.num_captions,
        "data": f"{len(captions['scenes'])} validation scenes",
        **quality_numbers(evaluation),
        "repeated_bigram": form.repeated_bigram,
        "function_word_ending": form.function_word_ending,
        **named_shares(captions["recordings"], namer),
    }


def quality_numbers(evaluation: Evaluation) -> Row:
    """The scores that the tables show, None where a setting has one caption per clip only."""
    quality = evaluation.quality.corpus
    sets = evaluation.sets.corpus if evaluation.sets is not None else {}
    diversity = evaluation.diversity
    return {
        "bleu_4": quality["bleu_4"],
        "rouge_l": quality["rouge_l"],
        "cider_d": quality["cider_d"],
        "best_of_5_cider_d": sets.get("best_of_k_cider_d"),
        "expected_cider_d": sets.get("expected_cider_d"),
        "distinct_1_within_clip": sets.get("distinct_1_within_clip"),
        "distinct_2_within_clip": sets.get("distinct_2_within_clip"),
        "mbleu_4": sets.get("mbleu_4"),
        "duplicate_share": sets.get("duplicate_share"),
        "mtld": diversity.mtld.in_order,
        "mtld_shuffled": diversity.mtld.shuffled_mean,
        "mtld_shuffled_std": diversity.mtld.shuffled_std,
        "distinct_1": diversity.distinct[0],
        "distinct_1_at_1000_words": diversity.distinct_1_fixed,
        "vocabulary": diversity.vocabulary,
        "entropy": diversity.entropy,
    }


def named_shares(recordings: Sequence[Row], namer: EventNamer) -> Row:
    """Share of recordings whose sound the first caption, or any caption, names."""
    if not recordings:
        return {"named_first": None, "named_any": None}
    first = [namer.names(row["captions"][0], row["label"]) for row in recordings]
    anywhere = [any(namer.names(t, row["label"]) for t in row["captions"]) for row in recordings]
    return {
        "named_first": sum(first) / len(first),
        "named_any": sum(anywhere) / len(anywhere),
    }


def human_row(evaluation: Evaluation) -> Row:
    """The reference line: each scene's first reference against its others, and the five of them."""
    assert evaluation.human_quality is not None
    first = [clip.references[0] for clip in evaluation.clips]
    diversity = corpus_diversity(first)
    sets = evaluation.human_sets.corpus if evaluation.human_sets is not None else {}
    return {
        "system": "references",
        "setting": "",
        "captions_per_clip": 5,
        "data": f"{len(first)} validation scenes",
        "cider_d": evaluation.human_quality.corpus["cider_d"],
        "distinct_2_within_clip": sets.get("distinct_2_within_clip"),
        "mbleu_4": sets.get("mbleu_4"),
        "duplicate_share": sets.get("duplicate_share"),
        "mtld": diversity.mtld.in_order,
        "distinct_1": diversity.distinct[0],
        "vocabulary": diversity.vocabulary,
    }


def all_differences(every: Sequence[Setting], evaluations: dict[str, Evaluation]) -> list[Row]:
    """Diffusion minus autoregressive with paired bootstrap intervals over the scenes."""
    diffusion = [s for s in every if s.system == "diffusion" and s.name in ("4 steps", "8 steps")]
    others = [s for s in every if s.system == "autoregressive" and "temperature" not in s.name]
    pairs = [(a, b) for a in diffusion for b in others if not b.ranked]
    ranked = {s.system: s for s in every if s.ranked}
    pairs.append((ranked["diffusion"], ranked["autoregressive"]))
    rows = []
    for first, second in pairs:
        for metric in ("cider_d", "best_of_k_cider_d", "distinct_2_within_clip"):
            ours, theirs = (clip_scores(evaluations[s.key], metric) for s in (first, second))
            if ours is None or theirs is None:
                continue
            interval = bootstrap_mean_difference(ours, theirs)
            names = {
                "first": f"{first.system}, {first.name}",
                "second": f"{second.system}, {second.name}, K={second.num_captions}",
            }
            rows.append({**names, "metric": metric, "difference": interval.estimate,
                         "interval": f"{interval.low:+.3f} to {interval.high:+.3f}"})  # fmt: skip
    return rows


def clip_scores(evaluation: Evaluation, metric: str) -> list[float] | None:
    """One score per clip, or None where this setting does not have the metric."""
    for scores in (evaluation.quality, evaluation.sets):
        if scores is not None and metric in scores.clips:
            return [float(value or 0.0) for value in scores.clips[metric]]
    return None


if __name__ == "__main__":
    run_main(main)
