"""Which candidates become captions: distinct ones, well-formed first, then by score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dac_diffusion.captioning.results import Caption
from dac_diffusion.text.faults import is_well_formed
from dac_diffusion.text.tokenizer import normalise_caption


def count_distinct(texts: Iterable[str]) -> int:
    """How many different captions there are, empty ones not counted."""
    return len({normalise_caption(text) for text in texts} - {""})


def choose_captions(
    texts: Sequence[str], scores: Sequence[float], count: int
) -> tuple[Caption, ...]:
    """At most `count` captions that differ after normalisation, best score first.

    Ill-formed ones come after all others, so that they only fill places that would stay empty;
    captions without a word are never returned. Equal scores keep the order of drawing.
    """
    best: dict[str, Caption] = {}
    for text, score in zip(texts, scores, strict=True):
        key = normalise_caption(text)
        if key and (key not in best or score > best[key].score):
            best[key] = Caption(text, score)
    ranked = sorted(best.values(), key=lambda c: (not is_well_formed(c.text), -c.score))
    return tuple(ranked[:count])
