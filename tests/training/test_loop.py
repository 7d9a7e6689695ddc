import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_task import TinyTask

from dac_diffusion.errors import ConfigError, DacError, MissingExtraError
from dac_diffusion.training.checkpoints import list_checkpoints
from dac_diffusion.training.loop import FitResult, LoopConfig, fit


def train(task: TinyTask, folder: Path, max_steps: int, **settings: Any) -> FitResult:
    defaults: dict[str, Any] = {"num_workers": 0, "warmup_steps": 2, "learning_rate": 0.02}
    config = LoopConfig(max_steps, **{**defaults, **settings})
    return fit(task, config, folder, progress=False)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.parametrize(
    "settings",
    [{}, {"mixed_precision": "bf16"}, {"gradient_accumulation_steps": 2}, {"decay": "linear"}],
)
def test_the_loss_falls(tmp_path: Path, settings: dict[str, Any]) -> None:
    task = TinyTask()
    before = task.evaluate(0, task.model, None)["loss"]
    result = train(task, tmp_path, 80, ema_decay=0.9, **settings)
    assert result.steps == 80
    assert result.metrics["loss"] < 0.5 * before


def test_one_step_equals_torch_alone(tmp_path: Path) -> None:
    # The same step written out: seeds, mean over two batches, clipping, AdamW in its two groups.
    from dac_diffusion.training.batches import seed_step

    task, twin = TinyTask(), TinyTask().model
    settings = {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "max_gradient_norm": 0.5}
    train(task, tmp_path, 1, warmup_steps=4, **settings)
    for index in range(2):
        generator = seed_step(0, index, 0, torch.device("cpu"))
        (twin(task.batch(index, 0, 1), generator)["loss"] / 2).backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
    matrices = [twin.hidden.weight, twin.sometimes.weight, twin.head.weight]
    others = [p for p in twin.parameters() if all(p is not m for m in matrices)]
    for group, decay in ((matrices, 0.1), (others, 0.0)):
        torch.optim.AdamW(group, lr=0.02 / 4, betas=(0.9, 0.98), weight_decay=decay).step()
    for trained, expected in zip(task.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(trained, expected)


def test_after_step_sees_all_rows_of_the_accumulated_batches(tmp_path: Path) -> None:
    task = TinyTask()
    train(task, tmp_path, 2, gradient_accumulation_steps=3)
    assert [(step, len(rows)) for step, rows in task.calls] == [(0, 18), (1, 18)]


def test_checkpoints_come_early_then_regularly_then_at_the_end_and_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dac_diffusion.training.loop.EARLY_CHECKPOINT", 3)
    train(TinyTask(), tmp_path, 25, checkpoint_every=10, keep_checkpoints=10)
    names = [path.name for path in list_checkpoints(tmp_path / "checkpoints")]
    assert names == ["step_00000003", "step_00000010", "step_00000020", "step_00000025"]
    train(TinyTask(), tmp_path / "two", 25, checkpoint_every=10, keep_checkpoints=2)
    names = [path.name for path in list_checkpoints(tmp_path / "two" / "checkpoints")]
    assert names == ["step_00000020", "step_00000025"]


class Scripted(TinyTask):
    """Its evaluations return given numbers."""

    values: tuple[float, ...] = (3.0, 1.0, 2.0, 5.0)

    def evaluate(self, step: int, model: Any, writer: Any) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"score": self.values[step // 5 - 1]}


@pytest.mark.parametrize(("best_metric", "step"), [("-score", 10), ("score", 20), ("+score", 20)])
def test_the_best_checkpoint_is_kept(tmp_path: Path, best_metric: str, step: int) -> None:
    task = Scripted()
    result = train(task, tmp_path, 20, evaluate_every=5, best_metric=best_metric)
    state = json.loads((tmp_path / "checkpoints" / "best" / "state.json").read_text())
    assert state["step"] == step
    assert result.metrics == {"score": 5.0}
    assert task.model.training
    best = torch.load(tmp_path / "best_model" / "weights.pt", weights_only=True)
    last = torch.load(tmp_path / "model" / "weights.pt", weights_only=True)
    assert torch.equal(best["head.weight"], last["head.weight"]) == (step == 20)


def test_a_finished_run_writes_both_models_anew_from_the_same_weights(tmp_path: Path) -> None:
    files = [tmp_path / name / "weights.pt" for name in ("best_model", "model")]
    settings = {"evaluate_every": 5, "best_metric": "-score"}  # the best are those of step 10
    train(Scripted(), tmp_path, 20, **settings)
    before = [torch.load(file, weights_only=True) for file in files]
    for file in files:
        file.unlink()
    again = Scripted()
    assert train(again, tmp_path, 20, **settings).steps == 20
    after = [torch.load(file, weights_only=True) for file in files]
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert not torch.equal(after[0]["head.weight"], after[1]["head.weight"])
    # What is left in memory are the last weights, and their state.
    state = json.loads((list_checkpoints(tmp_path / "checkpoints")[-1] / "state.json").read_text())
    assert again.state() == state["task"]


def test_the_export_holds_the_averaged_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    task = TinyTask()
    train(task, tmp_path, 10)
    exported = torch.load(tmp_path / "model" / "weights.pt", weights_only=True)
    (newest,) = list_checkpoints(tmp_path / "checkpoints")
    average = load_file(newest / "ema.safetensors")
    assert torch.equal(exported["head.weight"], average["head.weight"])
    assert not torch.equal(exported["head.weight"], task.model.state_dict()["head.weight"])


def test_an_unknown_best_metric_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'bleu' is not measured; choose one of loss"):
        train(TinyTask(), tmp_path, 2, best_metric="bleu")


class Diverging(TinyTask):
    def batch(self, step: int, rank: int, world_size: int) -> Any:
        batch = super().batch(step, rank, world_size)
        return {**batch, "y": batch["y"] * (float("nan") if step == 7 else 1.0)}


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DacError, match=r"at step 7 the loss is nan.*lower learning_rate") as error:
        train(Diverging(), tmp_path, 20, checkpoint_every=5)
    assert "\n" not in str(error.value)
    (newest,) = list_checkpoints(tmp_path / "checkpoints")
    assert newest.name in str(error.value)


def test_tensorboard_gets_losses_rates_and_speed(tmp_path: Path) -> None:
    train(TinyTask(), tmp_path, 6, log_every=2, evaluate_every=3, decay="constant")
    logged = scalars(tmp_path)
    names = "loss spread learning_rate gradient_norm seconds_per_step steps_per_second"
    assert {f"train/{name}" for name in names.split()} | {"validation/loss"} == set(logged)
    assert [step for step, _ in logged["train/loss"]] == [1, 2, 4, 6]
    assert [step for step, _ in logged["validation/loss"]] == [3, 6]
    assert [value for _, value in logged["train/learning_rate"]] == pytest.approx(
        [0.01, 0.02, 0.02, 0.02]
    )


def test_a_time_budget_stops_cleanly_and_shapes_the_decay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(step=0.1)  # a clock that moves by 0.1 s whenever it is read
    clock = SimpleNamespace(monotonic=lambda: next(ticks))
    monkeypatch.setattr("dac_diffusion.training.loop.time", clock)
    task = TinyTask()
    result = train(task, tmp_path, 10**6, max_minutes=0.2, log_every=1, decay="linear")
    assert 20 < result.steps < 60
    assert result.minutes < 0.25
    rates = [value for _, value in scalars(tmp_path)["train/learning_rate"]]
    assert 0.05 * 0.02 <= rates[-1] < 0.1 * 0.02
    assert max(rates) > 0.9 * 0.02
    assert list_checkpoints(tmp_path / "checkpoints")[-1].name == f"step_{result.steps:08d}"
    assert train(task, tmp_path, 10**6, max_minutes=0.2).steps == result.steps


@pytest.mark.parametrize(("module", "name"), [
    ("accelerate", "accelerate"), ("torch.utils.tensorboard", "tensorboard"),
])  # fmt: skip
def test_a_missing_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{name}.*dac-diffusion\[training\]"):
        train(TinyTask(), tmp_path, 1)


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DacError, match="choose another folder"):
        train(TinyTask(), tmp_path / "file" / "run", 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": 0}, {"learning_rate": -1.0}, {"ema_decay": 1.0}, {"betas": (0.9, 1.0)},
        {"seed": -1}, {"final_learning_rate": 2.0}, {"max_minutes": 0.0}, {"log_every": 0},
    ],
)  # fmt: skip
def test_settings_without_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LoopConfig(**{"max_steps": 1, **wrong})
