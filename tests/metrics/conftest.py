"""What the tests of the LLM judge share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dac_diffusion.answer_cache import AnswerCache


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[AnswerCache]:
    with AnswerCache(tmp_path / "cache.jsonl") as cache:
        yield cache
