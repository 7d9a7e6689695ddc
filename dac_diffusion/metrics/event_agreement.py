"""Whether a caption names the sound events that the clip's references name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from dac_diffusion.metrics.evaluation import ExtraMetric
from dac_diffusion.metrics.event_naming import EventNamer
from dac_diffusion.metrics.inputs import check_pairs


def event_metrics(namer: EventNamer) -> list[ExtraMetric]:
    """Both of them for `evaluate`."""
    return [
        ExtraMetric(
            "events_named",
            partial(_shares, namer=namer),
            corpus=partial(events_named, namer=namer),
        ),
        ExtraMetric("foreign_event_share", partial(foreign_events, namer=namer)),
    ]


def events_named(
    candidates: Sequence[str], references: Sequence[Sequence[str]], namer: EventNamer
) -> tuple[float | None, list[float | None]]:
    """The share of each clip's events that its caption names: mean over clips, and of each clip.

    A clip's events are the labels that at least half of its references name for sure. None for a
    clip without such an event, which the mean leaves out, and where no clip has any. Raises
    DataError where the lists do not fit together.
    """
    check_pairs("event naming", candidates, references)
    shares: list[float | None] = []
    for candidate, of_clip in zip(candidates, references, strict=True):
        events = _events(of_clip, namer)
        shares.append(namer.named_share([candidate], events) if events else None)
    known = [share for share in shares if share is not None]
    return (sum(known) / len(known) if known else None), shares


def foreign_events(
    candidates: Sequence[str], references: Sequence[Sequence[str]], namer: EventNamer
) -> list[float]:
    """1 for each caption that names an event which none of the clip's references names, else 0."""
    check_pairs("event naming", candidates, references)
    foreign = []
    for candidate, of_clip in zip(candidates, references, strict=True):
        known = {label for text in of_clip for event in namer.find(text) for label in event.labels}
        foreign.append(float(bool(namer.foreign(candidate, known))))
    return foreign


def _shares(
    candidates: Sequence[str], references: Sequence[Sequence[str]], namer: EventNamer
) -> list[float]:
    """The clips' shares with 0 where a clip has no event."""
    return [share or 0.0 for share in events_named(candidates, references, namer)[1]]


def _events(references: Sequence[str], namer: EventNamer) -> list[str]:
    """The labels that half of the references name, each by a name that stands for it alone."""
    counts: Counter[str] = Counter()
    for text in references:
        alone = [event.labels for event in namer.find(text) if len(event.labels) == 1]
        counts.update({label for labels in alone for label in labels})
    return sorted(label for label, count in counts.items() if 2 * count >= len(references))
