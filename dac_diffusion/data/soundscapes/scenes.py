"""Scenes: which events sound when, how far away and how they relate. No audio here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Distance = Literal["near", "middle", "far"]
Role = Literal["foreground", "background"]
Relation = Literal["single", "sequence", "overlap", "background", "sequence_over_background"]


@dataclass(frozen=True)
class PlacedEvent:
    """One kind of sound in a scene; `onset` and `seconds` span all of its repeats."""

    label: str
    onset: float
    seconds: float
    repeats: int = 1
    distance: Distance = "middle"
    role: Role = "foreground"


@dataclass(frozen=True)
class Scene:
    """What is heard, in the order in which captions name it; a background event comes last."""

    events: tuple[PlacedEvent, ...]
    relation: Relation
    seconds: float
