"""Which candidates become captions: distinct ones, well-formed first, then by score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dac_diffusion.captioning.ranking import Candidates, detect_errors
from dac_diffusion.captioning.results import Caption
from dac_diffusion.ranking.agreement import agreement_with
from dac_diffusion.ranking.error_filter import flag_errors
from dac_diffusion.ranking.settings import RankingSettings
from dac_diffusion.text.faults import is_well_formed
from dac_diffusion.text.tokenizer import normalise_caption

# More candidates for a window whose first ones repeat each other, or have errors of language.
EXTRA_ROUNDS = 3
NO_FILTER = RankingSettings()


def draw_distinct(
    draw: Callable[[list[int]], list[Candidates]],
    num_windows: int,
    num_captions: int,
    ranking: RankingSettings = NO_FILTER,
) -> list[Candidates]:
    """Candidates of every window, drawn again for windows with too few different ones.

    draw: makes further candidates for the windows in these places, from each window's own
    generator, so that who else is drawn again is nothing to it. ranking: candidates that its
    filter puts last do not count, except where it puts all of them there.
    """

    def found(places: list[int]) -> list[Candidates]:
        return [detect_errors(candidates, ranking) for candidates in draw(places)]

    drawn = found(list(range(num_windows)))
    for _ in range(EXTRA_ROUNDS):
        lacking = [
            place
            for place, candidates in enumerate(drawn)
            if count_distinct(_passing(candidates, ranking.error_threshold)) < num_captions
        ]
        if not lacking:
            break
        for place, extra in zip(lacking, found(lacking), strict=True):
            drawn[place] += extra
    return drawn


def _passing(candidates: Candidates, threshold: float | None) -> list[str]:
    if candidates.error_probabilities is None or threshold is None:
        return candidates.texts
    flagged = flag_errors(candidates.error_probabilities, threshold)
    return [text for text, out in zip(candidates.texts, flagged, strict=True) if not out]


def count_distinct(texts: Iterable[str]) -> int:
    """How many different captions there are, empty ones not counted."""
    return len({normalise_caption(text) for text in texts} - {""})


def best_captions(
    candidates: Sequence[Caption],
    count: int,
    error_threshold: float | None = None,
    redundancy_weight: float = 0.0,
) -> tuple[Caption, ...]:
    """At most `count` captions that differ after normalisation, best score first.

    Ill-formed ones come after all others, so that they only fill places that would stay empty;
    captions without a word are never returned. Equal scores keep the order of drawing.

    error_threshold: captions with an error_probability above it come last of all, after the
    ill-formed ones; where that is every one of them, the order is as without it.

    redundancy_weight: the captions after the first are chosen one by one, by their score less this
    weight times their largest agreement (ranking/agreement.py) with one chosen already: maximal
    marginal relevance (Carbonell and Goldstein 1998). Their scores stay what they are.
    """
    worded = [candidate for candidate in candidates if normalise_caption(candidate.text)]
    flagged = [False] * len(worded)
    if error_threshold is not None:
        flagged = flag_errors([_error_probability(each) for each in worded], error_threshold)
    best: dict[str, tuple[bool, Caption]] = {}
    for has_error, candidate in zip(flagged, worded, strict=True):
        key = normalise_caption(candidate.text)
        found = best.get(key)
        if found is None or (has_error, -candidate.score) < (found[0], -found[1].score):
            best[key] = has_error, candidate
    ranked = sorted(
        best.values(), key=lambda each: (each[0], not is_well_formed(each[1].text), -each[1].score)
    )
    if redundancy_weight != 0:
        ranked = _spread(ranked, count, redundancy_weight)
    return tuple(candidate for _, candidate in ranked[:count])


def _spread(
    ranked: Sequence[tuple[bool, Caption]], count: int, redundancy_weight: float
) -> list[tuple[bool, Caption]]:
    """The first `count` by marginal relevance; candidates with faults stay behind all others."""
    chosen: list[tuple[bool, Caption]] = []
    rest, redundancy = list(ranked), [0.0] * len(ranked)
    while rest and len(chosen) < count:
        place = min(
            range(len(rest)),
            key=lambda i: (
                rest[i][0],
                not is_well_formed(rest[i][1].text),
                redundancy_weight * redundancy[i] - rest[i][1].score,
            ),
        )
        chosen.append(rest.pop(place))
        del redundancy[place]
        likeness = agreement_with(chosen[-1][1].text, [each.text for _, each in rest])
        redundancy = [max(both) for both in zip(redundancy, likeness, strict=True)]
    return chosen


def _error_probability(candidate: Caption) -> float:
    probability = None if candidate.parts is None else candidate.parts.error_probability
    return 0.0 if probability is None else probability
