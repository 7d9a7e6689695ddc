"""The two plots of the comparison: quality against speed, and quality against diversity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import Row

from dac_diffusion.errors import MissingExtraError

MARKS = {"diffusion": ("o", "tab:blue"), "autoregressive": ("s", "tab:orange")}


def draw_plots(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write quality_speed.png and quality_diversity.png; rows are those of summary.json."""
    scored = [row for row in rows if row["cider_d"] is not None]
    fast = [row for row in scored if row["aps"] is not None]
    diverse = [row for row in scored if row["distinct_2_within_clip"] is not None]
    return [
        _scatter(fast, folder / "quality_speed.png", ("aps", "clips per second (APS)"), log=True),
        _scatter(
            diverse,
            folder / "quality_diversity.png",
            ("distinct_2_within_clip", "distinct-2 among the captions of a clip"),
        ),
    ]


def _scatter(rows: Sequence[Row], path: Path, across: tuple[str, str], log: bool = False) -> Path:
    axes, figure = _axes()
    key, label = across
    for system, (mark, colour) in MARKS.items():
        chosen = [row for row in rows if row["system"] == system]
        points = [row[key] for row in chosen], [row["cider_d"] for row in chosen]
        axes.scatter(*points, marker=mark, color=colour, label=system)
        for x, y, row in zip(*points, chosen, strict=True):
            name = f"{row['setting']}, K={row['captions_per_clip']}" if log else row["setting"]
            axes.annotate(name, (x, y), fontsize=6, xytext=(4, 3), textcoords="offset points")
    for row in rows:
        if row["system"] == "references":
            axes.scatter([row[key]], [row["cider_d"]], marker="*", s=120, color="black",
                         label="human-made references")  # fmt: skip
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("CIDEr-D of the first caption")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    return path


def _axes() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            'plots need matplotlib: pip install "dac-diffusion[benchmarks]"'
        ) from error
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    return figure.add_subplot(), figure
