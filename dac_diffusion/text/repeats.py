"""Collapse of words that a parallel decoder wrote twice in a row; off unless asked for."""

from __future__ import annotations

from itertools import groupby


def collapse_repeats(caption: str) -> tuple[str, int]:
    """The caption with every run of one word cut to one, and how many words that took out.

    LaDiC's code does this to every output, which hides repetition from the metrics; here it is a
    setting, and what it removed is reported.
    """
    words = caption.split()
    kept = [next(run) for _, run in groupby(words, key=str.lower)]
    return " ".join(kept), len(words) - len(kept)
