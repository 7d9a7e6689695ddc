"""`dac-diffusion train`: what is called, and what is said at the end."""

import sys
import types
from pathlib import Path

import pytest

from dac_diffusion.cli import main
from dac_diffusion.commands.train import describe
from dac_diffusion.training.task import FitResult


@pytest.mark.parametrize(
    ("score", "exchanged", "end"),
    [
        (1.71, 0.07, "1.710 on validation clips, 0.070 with another clip's audio"),
        (0.044, 0.044, "recording; train longer, or with a lower loop.learning_rate"),
        (0.0, 0.0, "recording; train longer, or with a lower loop.learning_rate"),
    ],
)
def test_what_is_said_of_a_training(score: float, exchanged: float, end: str) -> None:
    metrics = {"cider_d": score, "cider_d_with_shuffled_audio": exchanged}
    said = describe(FitResult(2400, 41.2, metrics))
    assert said.startswith("2400 steps, 41 minutes; CIDEr-D ")
    assert said.endswith(end)


def test_train_is_called_and_its_end_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple] = []
    run = types.ModuleType("dac_diffusion.training.run")
    result = FitResult(20, 1.5, {})
    run.train = lambda *arguments: calls.append(arguments) or result
    monkeypatch.setitem(sys.modules, "dac_diffusion.training.run", run)
    assert main(["train", "configs/a.yaml", "max_steps=20", "seed=1"]) == 0
    assert capsys.readouterr().out == "20 steps, 2 minutes\n"
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "configs/a.yaml"]) == 0
    assert capsys.readouterr().out == ""
    assert calls[:1] == [(Path("configs/a.yaml"), ["max_steps=20", "seed=1"])]
