"""What the captioner returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreParts:
    """What a score is made of, before weights and normalisation; None for what did not count.

    cosine: of audio and text in the scorer's space, -1 to 1; known even where its weight is 0.
    log_likelihood: mean per token by the model that wrote the caption, in nats. agreement: mean
    n-gram F1 with the other candidates, 0 to 1. error_probability: by the error detector.
    """

    cosine: float
    log_likelihood: float | None = None
    agreement: float | None = None
    error_probability: float | None = None


@dataclass(frozen=True)
class Caption:
    """One caption, its score by which captions are ordered, and what that score is made of."""

    text: str
    score: float
    parts: ScoreParts | None = None


@dataclass(frozen=True)
class Segment:
    """The captions of one window of a recording, best first; start and end in seconds."""

    start: float
    end: float
    captions: tuple[Caption, ...]


@dataclass(frozen=True)
class ClipCaptions:
    """The captions of one recording, distinct and best first, or the reason why there are none.

    candidates: every caption that was drawn, in the order of drawing, before any was left out.
    segments: one for each window of `encoder.window_seconds`; a short recording has one.
    repeats_removed: words that collapse_repeats took out of the candidates.
    error: one line where the recording could not be captioned, else None.
    """

    file_name: str
    duration_seconds: float
    captions: tuple[Caption, ...] = ()
    candidates: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()
    error: str | None = None
    repeats_removed: int = 0


@dataclass(frozen=True)
class CaptionStep:
    """What a callback sees after a denoising step: the text of every candidate at that step.

    step counts from 1 to num_steps; start_seconds is where the window begins in the recording.
    """

    file_name: str
    start_seconds: float
    step: int
    num_steps: int
    texts: tuple[str, ...]
