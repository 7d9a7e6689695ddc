"""The two plots of the comparison: quality against speed, and quality against diversity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from common import Row

from dac_diffusion.errors import MissingExtraError

MARKS = {"diffusion": ("o", "tab:blue"), "autoregressive": ("s", "tab:orange")}
# Of captioners given with --also, in their order; from the start again where there are more.
FURTHER_MARKS = (
    ("^", "tab:green"), ("v", "tab:brown"), ("D", "tab:pink"), ("P", "tab:olive"),
    ("X", "tab:red"), ("<", "tab:cyan"), (">", "tab:purple"), ("p", "tab:gray"),
)  # fmt: skip
NOT_MARKED = ("references", "people")
# Settings of the two of which one number is changed are joined by a line: part of the name, colour.
SWEEPS = {
    "noise": "tab:cyan",
    "guidance": "tab:purple",
    "temperature": "tab:red",
    "step": "tab:blue",
}


def draw_plots(rows: Sequence[Row], people: Sequence[Row], folder: Path) -> list[Path]:
    """Write quality_speed.png and quality_diversity.png.

    rows: of summary.json, on scenes; people: its rows of people's captions, of which only the
    diversity is marked, because their CIDEr-D is over other clips.
    """
    scored = [row for row in rows if row["cider_d"] is not None]
    return [_quality_speed(scored, folder), _quality_diversity(scored, people, folder)]


def _quality_speed(rows: Sequence[Row], folder: Path) -> Path:
    axes, figure = _axes("clips per second (APS), one clip at a time")
    for row in rows:
        if row["system"] == "references":
            label = "references against one another"
            axes.axhline(row["cider_d"], color="black", linestyle=":", label=label)
    timed = [row for row in rows if row["aps"] is not None]
    for count in sorted({row["captions_per_clip"] for row in timed}):
        alike = [row for row in timed if row["captions_per_clip"] == count]
        _scatter(axes, alike, "aps", f", K = {count}", hollow=count > 1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    return _save(axes, figure, folder / "quality_speed.png")


def _quality_diversity(rows: Sequence[Row], people: Sequence[Row], folder: Path) -> Path:
    axes, figure = _axes("distinct-2 among the captions of a clip")
    diverse = [row for row in rows if row["distinct_2_within_clip"] is not None]
    for row in diverse:
        if row["system"] == "references":
            place = row["distinct_2_within_clip"], row["cider_d"]
            axes.scatter(*place, marker="*", s=140, color="black", label="references")
    for row, style in zip(people, ("--", "-."), strict=False):
        label = f"people ({row['setting']})"
        axes.axvline(row["distinct_2_within_clip"], color="grey", linestyle=style, label=label)
    _scatter(axes, diverse, "distinct_2_within_clip")
    return _save(axes, figure, folder / "quality_diversity.png")


def _scatter(
    axes: Any, rows: Sequence[Row], key: str, suffix: str = "", hollow: bool = False
) -> None:
    """One mark and name per row, and lines through the sweeps."""
    for sweep in _sweeps([row for row in rows if row["system"] in MARKS]):
        points = [row[key] for row in sweep], [row["cider_d"] for row in sweep]
        colour = next(colour for name, colour in SWEEPS.items() if name in sweep[0]["setting"])
        axes.plot(*points, color=colour, linewidth=0.8, alpha=0.6)
    for system, (mark, colour) in _marks(rows).items():
        chosen = [row for row in rows if row["system"] == system]
        points = [row[key] for row in chosen], [row["cider_d"] for row in chosen]
        face = "none" if hollow else colour
        axes.scatter(*points, marker=mark, edgecolors=colour, facecolors=face,
                     label=system + suffix)  # fmt: skip
        for x, y, row in zip(*points, chosen, strict=True):
            axes.annotate(
                row["setting"], (x, y), fontsize=6, xytext=(4, 3), textcoords="offset points"
            )


def _marks(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Marker and colour of every captioner; those with a fixed one first."""
    further = dict.fromkeys(row["system"] for row in rows)
    names = [name for name in further if name not in (*MARKS, *NOT_MARKED)]
    return MARKS | dict(zip(names, cycle(FURTHER_MARKS), strict=False))


def _sweeps(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows that differ in one number only, in its order."""
    for name in SWEEPS:
        alike = [row for row in rows if name in row["setting"] and "ranked" not in row["setting"]]
        if name == "step":  # the plain ones only: the sweeps are made at one number of steps
            alike = [row for row in alike if "," not in row["setting"]]
        if alike:
            yield alike


def _axes(across: str) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            'plots need matplotlib: pip install "dac-diffusion[benchmarks]"'
        ) from error
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(across)
    axes.set_ylabel("CIDEr-D of the first caption")
    return axes, figure


def _save(axes: Any, figure: Any, path: Path) -> Path:
    axes.grid(alpha=0.3)
    # Beside the plot: with many captioners it would hide some of them.
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.savefig(path, dpi=130, bbox_inches="tight")
    return path
