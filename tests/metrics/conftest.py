"""What the tests of the LLM judge share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dac_diffusion.metrics.judge_cache import VerdictCache


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VerdictCache]:
    with VerdictCache(tmp_path / "cache.jsonl") as cache:
        yield cache
