"""What the metrics that need Java, models or other files have in common.

Each says in `missing()` all that it lacks, with the way out, before anything starts. They are
METEOR, SPICE and SPIDEr (java_metrics.py), FENSE and SPIDEr-FL (fense.py) and the CLAP score
(clap_score.py). Their names tell the implementation and the model, because values of different
ones must not be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from dac_diffusion.errors import MissingExtraError


class ExternalMetric(Protocol):
    """A metric of one caption per clip that needs more than this package."""

    @property
    def name(self) -> str:
        """The key in results; tells the implementation and the model."""

    def missing(self) -> list[str]:
        """All that is absent, each with the way out; empty where the metric can run."""

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """One value per clip. Raises MissingExtraError, before any work, for what is missing."""


def require_available(metrics: Iterable[ExternalMetric]) -> None:
    """Raise MissingExtraError that names everything the metrics lack, each thing once."""
    lacking = [f"{metric.name} needs {thing}" for metric in metrics for thing in metric.missing()]
    if lacking:
        raise MissingExtraError("; ".join(dict.fromkeys(lacking)))


def missing_files(folder: Path, names: Iterable[str], way_out: str) -> list[str]:
    """One entry that names the files a folder lacks, or none."""
    absent = [name for name in names if not (folder / name).is_file()]
    return [f"{' and '.join(absent)} in {folder} ({way_out})"] if absent else []
