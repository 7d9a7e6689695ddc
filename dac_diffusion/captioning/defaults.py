"""Settings of a call that stand in for a checkpoint's defaults."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def given_or(value: T | None, default: T) -> T:
    """The value of a call, or where the call says nothing the default."""
    return default if value is None else value
