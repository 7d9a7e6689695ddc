"""Which candidates become captions: distinct ones, well-formed first, then by score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dac_diffusion.captioning.ranking import Candidates
from dac_diffusion.captioning.results import Caption
from dac_diffusion.text.faults import is_well_formed
from dac_diffusion.text.tokenizer import normalise_caption

EXTRA_ROUNDS = 3  # more candidates for a window whose first ones repeat each other


def draw_distinct(
    draw: Callable[[list[int]], list[Candidates]], num_windows: int, num_captions: int
) -> list[Candidates]:
    """Candidates of every window, drawn again for windows with too few different ones.

    draw: makes further candidates for the windows in these places, from each window's own
    generator, so that who else is drawn again is nothing to it.
    """
    drawn = draw(list(range(num_windows)))
    for _ in range(EXTRA_ROUNDS):
        lacking = [
            place
            for place, candidates in enumerate(drawn)
            if count_distinct(candidates.texts) < num_captions
        ]
        if not lacking:
            break
        for place, extra in zip(lacking, draw(lacking), strict=True):
            drawn[place] += extra
    return drawn


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
