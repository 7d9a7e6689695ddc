"""Makes the scripts of benchmarks/ importable, and gives them captioners that need no model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks.tiny_full_size import tiny_sizes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@dataclass
class FakeCaption:
    text: str
    score: float


@dataclass
class FakeResult:
    captions: list[FakeCaption]
    candidates: list[str]
    error: str | None = None


class FakeCaptioner:
    """Gives every input the captions that `describe` finds for it, and notes how it was called."""

    def __init__(self, describe: Callable[[Any], list[str]]) -> None:
        self.describe = describe
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        inputs: Sequence[Any],
        num_captions: int = 5,
        num_candidates: int | None = None,
        num_steps: int = 8,
        guidance_scale: float | None = None,
        seed: int = 0,
        batch_size: int = 32,
        progress: bool = True,
    ) -> list[FakeResult]:
        self.calls.append({"inputs": len(inputs), "num_steps": num_steps, "seed": seed})
        results = []
        for each in inputs:
            texts = self.describe(each)
            captions = [FakeCaption(t, 1 - i / 10) for i, t in enumerate(texts[:num_captions])]
            results.append(FakeResult(captions, texts[::-1]))
        return results


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCaptioner]:
    """Runs a benchmark's main with a fake captioner and the given arguments."""

    def run(module: Any, describe: Callable[[Any], list[str]], *arguments: str) -> FakeCaptioner:
        fake = FakeCaptioner(describe)
        monkeypatch.setattr(module, "load_captioner", lambda args: fake)
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
        module.main()
        return fake

    return run


@pytest.fixture(scope="session")
def captioners() -> dict[str, Any]:
    """The systems of full_size.py by name, tiny; tests leave them as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from full_size_systems import build_captioners

        return build_captioners(tiny_sizes(), torch.float32, "cpu", "none", seed=0)
