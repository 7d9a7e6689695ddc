"""Kills with SIGKILL: what is resumed must equal what was never interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import TinyTask

from dac_diffusion.errors import CheckpointError, DacError
from dac_diffusion.training import checkpoints, loop
from dac_diffusion.training.checkpoints import list_checkpoints
from dac_diffusion.training.loop import LoopConfig, fit

ROOT = Path(__file__).parents[2]
STEPS = 40
SETTINGS = LoopConfig(
    STEPS, warmup_steps=2, num_workers=0, checkpoint_every=5, evaluate_every=10, optimizer="muon",
    gradient_accumulation_steps=2,
)  # fmt: skip
# The child stops for good once it has done 17 steps, so that the kill always comes there.
KILLED_CHILD = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}]
import torch
torch.set_num_threads(1)
from pathlib import Path
from tiny_task import TinyTask
from dac_diffusion.training.loop import LoopConfig, fit

class Waiting(TinyTask):
    def after_step(self, step, outputs):
        super().after_step(step, outputs)
        if step == 17:
            Path({folder!r}, "ready").touch()
            time.sleep(600)

fit(Waiting(), {config!r}, {folder!r}, progress=False)
"""


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint: weights, averages and optimizers."""
    newest = list_checkpoints(folder / "checkpoints")[-1]
    assert newest.name == f"step_{STEPS:08d}"
    tensors = {f"model.{k}": v for k, v in load_file(newest / "model.safetensors").items()}
    tensors |= {f"ema.{k}": v for k, v in load_file(newest / "ema.safetensors").items()}
    for number, state in enumerate(torch.load(newest / "optimizer.pt", weights_only=True)):
        for index, entries in state["state"].items():
            tensors |= {f"optimizer{number}.{index}.{k}": v for k, v in entries.items()}
    return tensors


def assert_equal_runs(first: Path, second: Path) -> None:
    left, right = final_state(first), final_state(second)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def uninterrupted(folder: Path) -> TinyTask:
    task = TinyTask()
    fit(task, SETTINGS, folder, progress=False)
    return task


def test_a_run_killed_in_the_middle_and_resumed_equals_an_uninterrupted_one(
    tmp_path: Path,
) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    code = KILLED_CHILD.format(
        root=str(ROOT), tests=str(Path(__file__).parent), folder=str(killed), config=SETTINGS
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 300
    while not (killed / "ready").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert list_checkpoints(killed / "checkpoints")[-1].name == "step_00000015"

    task = TinyTask()
    torch.manual_seed(99)  # what the global generator holds must not matter
    result = fit(task, SETTINGS, killed, progress=False)
    assert task.calls[0][0] == 15
    assert result.steps == STEPS
    whole = uninterrupted(tmp_path / "whole")
    assert_equal_runs(killed, tmp_path / "whole")
    assert task.seen == whole.seen  # the task's own memory too


def test_a_kill_while_a_checkpoint_is_written_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SIGKILL runs no clean-up: the half-written folder stays. A fork dies at its third checkpoint.
    folder = tmp_path / "killed"
    pid = os.fork()
    if pid == 0:
        signal.alarm(200)  # rather than hang
        written = []

        def die_at_the_third(*arguments: object) -> None:
            written.append(1)
            if len(written) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            save(*arguments)

        save = torch.save
        checkpoints.torch.save = die_at_the_third
        loop.EARLY_CHECKPOINT = 5
        TinyTask.export = lambda self, folder: None  # it would call torch.save as well
        fit(TinyTask(), SETTINGS, folder, progress=False)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert list((folder / "checkpoints").glob(".*.partial"))
    assert list_checkpoints(folder / "checkpoints")

    fit(TinyTask(), SETTINGS, folder, progress=False)
    assert not list((folder / "checkpoints").glob(".*.partial"))
    uninterrupted(tmp_path / "whole")
    assert_equal_runs(folder, tmp_path / "whole")


def test_background_workers_change_nothing(tmp_path: Path) -> None:
    uninterrupted(tmp_path / "whole")
    config = LoopConfig(**{**vars(SETTINGS), "num_workers": 2})
    fit(TinyTask(), config, tmp_path / "workers", progress=False)
    assert_equal_runs(tmp_path / "workers", tmp_path / "whole")


def test_a_finished_run_is_not_repeated_and_may_be_prolonged(tmp_path: Path) -> None:
    uninterrupted(tmp_path)
    again = TinyTask()
    assert fit(again, SETTINGS, tmp_path, progress=False).steps == STEPS
    assert again.calls == []
    config = LoopConfig(**{**vars(SETTINGS), "max_steps": STEPS + 3})
    assert fit(again, config, tmp_path, progress=False).steps == STEPS + 3
    assert [step for step, _ in again.calls] == [STEPS, STEPS + 1, STEPS + 2]


def test_without_resume_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    uninterrupted(tmp_path)
    with pytest.raises(CheckpointError, match="earlier run"):
        fit(TinyTask(), SETTINGS, tmp_path, resume=False, progress=False)


def test_a_damaged_newest_checkpoint_is_named(tmp_path: Path) -> None:
    uninterrupted(tmp_path)
    newest = list_checkpoints(tmp_path / "checkpoints")[-1]
    (newest / "model.safetensors").write_bytes(b"")
    with pytest.raises(DacError, match=newest.name):
        fit(TinyTask(), SETTINGS, tmp_path, progress=False)
