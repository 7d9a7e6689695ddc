"""The one check that every metric makes of the captions and references it is given."""

from __future__ import annotations

from collections.abc import Sequence

from dac_diffusion.errors import DataError


def check_pairs(
    metric: str, candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> None:
    """Raise DataError unless there is one caption and a list of references for each clip."""
    if len(candidates) != len(references):
        raise DataError(
            f"{metric} needs one caption per clip; got {len(candidates)} captions"
            f" for {len(references)} clips"
        )
    if not references:
        raise DataError(f"{metric} needs at least one clip with references; got none")
    for index, captions in enumerate(references):
        if isinstance(captions, str) or not captions:
            raise DataError(f"{metric} needs a list of references for each clip; clip {index}")
