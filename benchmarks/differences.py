"""Differences between the systems, with paired intervals over the clips (metrics/comparison.py)."""

from __future__ import annotations

from collections.abc import Sequence

from common import Row
from systems import Setting
from tqdm import tqdm

from dac_diffusion.metrics.bootstrap import Interval, bootstrap_mean_difference
from dac_diffusion.metrics.comparison import compare
from dac_diffusion.metrics.evaluation import Evaluation

METRICS = (
    "cider_d", "best_of_k_cider_d", "expected_cider_d", "minilm_similarity",
    "distinct_2_within_clip", "mbleu_4", "minilm_within_clip", "mtld", "distinct_1",
)  # fmt: skip
COLUMNS = {
    "first": "first",
    "second": "second",
    "captions_per_clip": "K",
    "metric": "metric",
    "difference": "difference|+.3f",
    "interval": "95 % interval",
    "clear": "leaves out 0",
}
COMPARED_STEPS = ("4 steps", "8 steps")


def all_differences(
    settings: Sequence[Setting],
    evaluations: dict[str, Evaluation],
    named: dict[str, list[bool]],
) -> list[Row]:
    """Diffusion minus autoregressive, for every pair with as many captions per clip.

    evaluations: of the scenes, by the setting's key. named: whether the first caption of each
    recording names it, likewise; empty lists without recordings.
    """
    rows = []
    for first, second in tqdm(pairs(settings), desc="differences", unit="pair"):
        intervals = compare(evaluations[first.key], evaluations[second.key], metrics=METRICS)
        ours, theirs = named[first.key], named[second.key]
        if ours:
            intervals["named_first"] = bootstrap_mean_difference(ours, theirs)
        rows += [
            difference_row(first, second, metric, intervals[metric])
            for metric in (*METRICS, "named_first")
            if metric in intervals
        ]
    return rows


def pairs(settings: Sequence[Setting]) -> list[tuple[Setting, Setting]]:
    """Diffusion at 4 and 8 steps, and ranked, with every autoregressive setting alike."""
    ours = [s for s in settings if s.system == "diffusion" and s.name in COMPARED_STEPS]
    theirs = [s for s in settings if s.system == "autoregressive" and "temperature" not in s.name]
    found = [
        (a, b) for a in ours for b in theirs if not b.ranked and a.num_captions == b.num_captions
    ]
    ranked = {s.system: s for s in settings if s.ranked}
    return [*found, (ranked["diffusion"], ranked["autoregressive"])]


def difference_row(first: Setting, second: Setting, metric: str, interval: Interval) -> Row:
    """One line of the table."""
    return {
        "first": f"{first.system}, {first.name}",
        "second": f"{second.system}, {second.name}",
        "captions_per_clip": first.num_captions,
        "metric": metric,
        "clips": interval.clips,
        "difference": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "interval": f"{interval.low:+.3f} to {interval.high:+.3f}",
        "clear": "yes" if interval.low > 0 or interval.high < 0 else "no",
    }
