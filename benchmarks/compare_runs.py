"""Compare trainings at equal time: the validation measurements that their logs hold.

    dac-diffusion train configs/soundscapes.yaml loop.max_minutes=10 output_dir=runs/embedding
    dac-diffusion train configs/ablations/contextual.yaml loop.max_minutes=10
    python benchmarks/compare_runs.py runs/embedding runs/contextual \
        --output benchmarks/results/latent_spaces.json

Prints, for every run, the measurements at its last evaluation before --minutes (default: the
shortest run's length). Needs the extra `training` (TensorBoard reads the logs).
"""

import argparse
from pathlib import Path

import common

from dac_diffusion.errors import DacError

COLUMNS = {
    "run": "run",
    "minutes": "minutes|.1f",
    "step": "steps|d",
    "cider_d": "CIDEr-D|.3f",
    "cider_d_with_shuffled_audio": "shuffled audio|.3f",
    "mean_length_against_references": "length / references|.2f",
    "repeated_bigram": "repeated bigram|.1%",
    "function_word_ending": "ends on function word|.1%",
    "empty": "empty|.1%",
}
# TensorBoard's own words for how much to keep in memory: all scalars.
ALL_SCALARS = {"scalars": 0}


def read_evaluations(run: Path) -> list[common.Row]:
    """Every evaluation in a run's logs: step, minutes since the first step, measurements.

    Raises DacError for a folder without logs.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not list((run / "logs").glob("events*")):
        raise DacError(f"{run}: has no logs; give the output folder of a training")
    events = EventAccumulator(str(run / "logs"), size_guidance=ALL_SCALARS)
    events.Reload()
    names = events.Tags()["scalars"]
    started = min(events.Scalars(name)[0].wall_time for name in names)
    rows: dict[int, common.Row] = {}
    for name in names:
        group, _, key = name.partition("/")
        if group != "validation":
            continue
        for event in events.Scalars(name):
            minutes = (event.wall_time - started) / 60
            row = rows.setdefault(event.step, {"run": run.name, "step": event.step})
            row.update({"minutes": round(minutes, 2), key: event.value})
    return [rows[step] for step in sorted(rows)]


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of trainings")
    parser.add_argument("--minutes", type=float, help="compare at this time; default: the shortest")
    parser.add_argument("--output", type=Path, help="JSON file for the table and all evaluations")
    args = parser.parse_args()
    common.check_output(args.output)
    evaluations = {run.name: read_evaluations(run) for run in args.runs}
    args.runs = list(evaluations)
    limit = args.minutes or min(rows[-1]["minutes"] for rows in evaluations.values())
    table = [
        [row for row in rows if row["minutes"] <= limit + 0.05][-1]
        for rows in evaluations.values()
        if rows and rows[0]["minutes"] <= limit + 0.05
    ]
    print(common.markdown_table(table, COLUMNS))
    common.write_report(args.output, common.report("compare_runs", args, table, evaluations))


if __name__ == "__main__":
    common.run_main(main)
