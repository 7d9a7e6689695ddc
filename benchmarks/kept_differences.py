"""One setting of `run.py` against all others with as many captions, by the captions that it kept.

    python benchmarks/kept_differences.py --output benchmarks/results/kept_differences.json
    python benchmarks/kept_differences.py --settings diffusion_4_steps_K1

No checkpoint is needed: captions come from captions/ in --folder, references from quality.json
there. A difference is the named setting minus the other, with its 95 % paired interval over the
scenes. "Errors by rule" are the shares of captions with an error of language that the rules of
ranking/rule_based_errors.py find; where captions were chosen by these rules (a checkpoint with an
error_threshold) that share says nothing. Settings that were only swept are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import FOLDER, Row, check_output, markdown_table, report, run_main, write_report
from quality import scene_clips
from systems import Setting, sweep_settings
from tqdm import tqdm

from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bootstrap import bootstrap_mean_difference
from dac_diffusion.metrics.comparison import compare
from dac_diffusion.metrics.evaluation import Evaluation, evaluate
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector

SETTINGS = ("diffusion_8_steps_K1", "diffusion_8_steps_ranked_K5")
METRICS = ("cider_d", "best_of_k_cider_d", "distinct_2_within_clip", "mtld", "distinct_1")
COLUMNS = {
    "system": "system",
    "setting": "setting",
    "captions_per_clip": "K",
    "errors_first": "errors by rule, first|.1%",
    "errors_further": "further|.1%",
    "cider_d": "CIDEr-D",
    "best_of_k_cider_d": "best of K",
    "distinct_2_within_clip": "distinct-2 in clip",
    "mtld": "MTLD",
    "distinct_1": "Distinct-1",
    "errors_first_difference": "errors, first",
}


@dataclass(frozen=True)
class Kept:
    """The scenes' captions by one setting: scores, and which captions have an error (N, K)."""

    setting: Setting
    evaluation: Evaluation
    errors: list[list[bool]]

    def row(self) -> Row:
        """Who it is, and its shares of captions with errors."""
        further = [wrong for of_scene in self.errors for wrong in of_scene[1:]]
        return {
            "system": self.setting.system,
            "setting": self.setting.name,
            "captions_per_clip": self.setting.num_captions,
            "errors_first": sum(of_scene[0] for of_scene in self.errors) / len(self.errors),
            "errors_further": sum(further) / len(further) if further else None,
        }


def main() -> None:
    args = parse_arguments()
    check_output(args.output)
    references = read_references(args.folder)
    table: list[Row] = []
    for key in args.settings:
        chosen = read_kept(args.folder, key, references)
        table.append(chosen.row())
        for other in tqdm(keys_beside(args.folder, chosen.setting), desc=key, unit="setting"):
            kept = read_kept(args.folder, other, references)
            table.append({**kept.row(), **differences(chosen, kept)})
    print(markdown_table(table, COLUMNS))
    print(
        f"\n{len(references)} scenes; differences are {', '.join(args.settings)} minus the others"
    )
    write_report(args.output, report("kept_differences", args, table, {}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=FOLDER / "results", help="that of run.py")
    parser.add_argument("--output", type=Path, help="JSON file for the table")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=list(SETTINGS),
        metavar="KEY",
        help="each compared with all others; names of files in captions/, without .jsonl",
    )
    return parser.parse_args()


def read_references(folder: Path) -> list[list[str]]:
    """The scenes' references. Raises DataError where run.py has left none."""
    path = folder / "quality.json"
    if not path.is_file():
        raise DataError(f"{path}: missing; benchmarks/run.py writes it")
    content = json.loads(path.read_text(encoding="utf-8"))
    return [row["references"] for row in content["raw"]["references"]]


def read_kept(folder: Path, key: str, references: Sequence[list[str]]) -> Kept:
    """What one setting wrote, scored. Raises DataError where there is none, or of other scenes."""
    path = folder / "captions" / f"{key}.jsonl"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in path.parent.glob("*.jsonl"))) or "none"
        raise DataError(f"{path}: missing; there are {known}")
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    scenes = [row for row in rows if row["set"] == "scenes"]
    if len(scenes) != len(references):
        raise DataError(
            f"{path}: captions of {len(scenes)} scenes, but {folder / 'quality.json'} has the "
            f"references of {len(references)}; give the --folder of one run"
        )
    find = RuleBasedErrorDetector().errors
    errors = [[bool(find(text)) for text in row["captions"]] for row in scenes]
    return Kept(Setting(**head["setting"]), evaluate(scene_clips(scenes, references)), errors)


def keys_beside(folder: Path, chosen: Setting) -> list[str]:
    """The other settings with as many captions per clip, in the order of their names."""
    swept = {setting.key for setting in sweep_settings("", "")}
    paths = sorted((folder / "captions").glob(f"*_K{chosen.num_captions}.jsonl"))
    return [path.stem for path in paths if path.stem not in {chosen.key, *swept}]


def differences(first: Kept, second: Kept) -> Row:
    """First minus second in every metric, written with its interval; the numbers beside it."""
    intervals = compare(first.evaluation, second.evaluation, metrics=METRICS)
    wrong = ([float(of_scene[0]) for of_scene in kept.errors] for kept in (first, second))
    intervals["errors_first_difference"] = bootstrap_mean_difference(*wrong)
    found: Row = {}
    for name, each in intervals.items():
        found[name] = f"{each.estimate:+.3f} ({each.low:+.3f} to {each.high:+.3f})"
        found[f"{name}_numbers"] = [each.estimate, each.low, each.high]
    return found


if __name__ == "__main__":
    run_main(main)
