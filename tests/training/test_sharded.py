"""FSDP against DDP; also the script of the two processes: python test_sharded.py FOLDER"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_distributed import run
from tiny_task import TinyModel, TinyTask
from torch import Tensor, nn
from torch.distributed import fsdp
from transformers import BertConfig, BertModel

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.training.checkpoints import list_checkpoints
from dac_diffusion.training.loop import LoopConfig, _Run, fit
from dac_diffusion.training.run import train
from dac_diffusion.training.surroundings import wants_shards

ROOT = Path(__file__).parents[2]
FSDP = ("--use_fsdp", "--fsdp_version", "2")
KNOWN = hasattr(getattr(fsdp, "FSDPModule", None), "set_reduce_scatter_unused_params")
needs_fsdp = pytest.mark.skipif(
    sys.platform != "linux" or not KNOWN, reason="FSDP needs gloo over loopback and torch 2.13"
)


class Model(TinyModel):
    """With all that FSDP may stumble over: a frozen layer, a tied weight, a number, buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.norm = nn.BatchNorm1d(8)
        self.words = nn.Linear(8, 10, bias=False)
        self.words.weight = self.table.weight

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        outputs = super().forward(batch, generator)
        logits = self.scale * self.words(self.norm(self.frozen(self.table(batch["x"]))))
        return {**outputs, "loss": outputs["loss"] + F.cross_entropy(logits, batch["x"])}


class Task(TinyTask):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = Model()

    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        # The first process is alone here: nothing may tell libraries to wait for the others.
        assert not any(getattr(m, "_is_fsdp_managed_module", False) for m in model.modules())
        return super().evaluate(step, model, writer)


def settings(max_steps: int) -> LoopConfig:
    """Every step is clipped; with this seed each step uses every weight in some process."""
    return LoopConfig(
        max_steps, learning_rate=0.02, warmup_steps=2, decay="constant", weight_decay=0.1,
        max_gradient_norm=0.5, ema_decay=0.9, gradient_accumulation_steps=2, num_workers=0,
        evaluate_every=2, checkpoint_every=3, keep_checkpoints=9, seed=1,
    )  # fmt: skip


def main(folder: Path) -> None:
    """Train with DDP, with FSDP, and interrupted; each process starts from weights of its own."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    seen: dict[str, Any] = {}
    for name, sharded, steps in (
        ("ddp", False, 6), ("fsdp", True, 6), ("stopped", True, 3), ("stopped", True, 6),
        ("changed", False, 3), ("changed", True, 6),
    ):  # fmt: skip
        os.environ["ACCELERATE_USE_FSDP"] = str(sharded).lower()
        task = Task(seed=rank)
        fit(task, settings(steps), folder / name, progress=False)
        seen[name] = {"losses": task.seen, "calls": task.calls, "first": task.calls[0][0]}
    held = _Run(Task(seed=rank), settings(6), folder / "fsdp", resume=True)
    seen["held"] = {
        "weights": own_share(held.task.model.parameters()),
        "averages": own_share(held.ema.averages.values()),
        "state": own_share(held.optimizers[0].state.values()),
    }
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    torch.manual_seed(0)
    bert = BertModel(BertConfig(num_attention_heads=1, **sizes))
    bert.save_pretrained(folder / "bert")  # writes in the first process
    torch.distributed.barrier()
    seen["saved"] = bert.state_dict()
    seen["loaded"] = BertModel.from_pretrained(folder / "bert").state_dict()
    torch.save(seen, folder / f"rank_{rank}.pt")
    train(ROOT / "configs/tiny/beats.yaml", captioner_settings(folder / "captioner"), False)
    torch.distributed.destroy_process_group()


def captioner_settings(folder: Path) -> list[str]:
    return [
        "max_steps=2",
        "training_scenes=8",
        "validation_scenes=4",
        "captioner_training.clips_per_batch=4",
        "captioner_training.evaluation_clips=2",
        "text.split_bert.head.steps=2",
        f"output_dir={folder}",
    ]


def own_share(values: Any) -> int:
    """How many numbers of the sharded tensors among these the process holds."""
    tensors = [
        v for value in values for v in (value.values() if isinstance(value, dict) else [value])
    ]
    return sum(t.to_local().numel() for t in tensors if hasattr(t, "to_local"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    run(Path(__file__), folder, how=FSDP)
    return folder


def seen(folder: Path, rank: int) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / f"rank_{rank}.pt", weights_only=True)
    return loaded


def final_tensors(folder: Path) -> dict[str, Tensor]:
    """The last checkpoint (weights, average, optimizers) and the exported weights."""
    newest = list_checkpoints(folder / "checkpoints")[-1]
    assert newest.name == "step_00000006"
    tensors: dict[str, Tensor] = {}
    for name in ("model", "ema"):
        stored = load_file(newest / f"{name}.safetensors")
        tensors |= {f"{name}.{key}": value for key, value in stored.items()}
    (optimizer,) = torch.load(newest / "optimizer.pt", weights_only=True)
    for index, state in optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    for name in ("model", "best_model"):
        exported = torch.load(folder / name / "weights.pt", weights_only=True)
        tensors |= {f"{name}/{key}": value for key, value in exported.items()}
    return tensors


def assert_equal_runs(first: Path, second: Path, tolerance: float) -> None:
    left, right = final_tensors(first), final_tensors(second)
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=0.0, atol=tolerance, msg=name)


@needs_fsdp
def test_losses_weights_averages_state_and_exports_are_those_of_ddp(trained: Path) -> None:
    assert_equal_runs(trained / "ddp", trained / "fsdp", 1e-6)
    for rank in (0, 1):
        ddp, fsdp = seen(trained, rank)["ddp"], seen(trained, rank)["fsdp"]
        assert fsdp["losses"] == pytest.approx(ddp["losses"], abs=1e-6)
        assert [step for step, _ in fsdp["calls"]] == list(range(6))
        for (_, rows), (_, expected) in zip(fsdp["calls"], ddp["calls"], strict=True):
            assert rows == pytest.approx(expected, abs=1e-6)


@needs_fsdp
def test_each_process_holds_its_share_only(trained: Path) -> None:
    newest = list_checkpoints(trained / "fsdp/checkpoints")[-1]
    averages = load_file(newest / "ema.safetensors").values()
    whole = sum(average.numel() for average in averages if average.ndim)
    held = [seen(trained, rank)["held"] for rank in (0, 1)]
    for name, copies in (("weights", 1), ("averages", 1), ("state", 2)):
        assert held[0][name] + held[1][name] == copies * whole
        assert max(held[0][name], held[1][name]) < 0.6 * copies * whole


@needs_fsdp
def test_every_process_loads_pretrained_weights_itself(trained: Path) -> None:
    for rank in (0, 1):
        saved, loaded = seen(trained, rank)["saved"], seen(trained, rank)["loaded"]
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(saved[name], loaded[name]) for name in saved)


@needs_fsdp
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(trained: Path) -> None:
    assert seen(trained, 0)["stopped"]["first"] == 3
    assert_equal_runs(trained / "fsdp", trained / "stopped", 0.0)


@needs_fsdp
def test_a_run_may_go_on_with_fsdp_and_without(trained: Path) -> None:
    assert seen(trained, 0)["changed"]["first"] == 3
    assert_equal_runs(trained / "fsdp", trained / "changed", 1e-6)
    # In one process: a finished run is read and left as it is, a longer one goes on.
    task = Task(seed=7)
    task.model.frozen.load_state_dict(Task(seed=0).model.frozen.state_dict())
    assert fit(task, settings(6), trained / "fsdp", progress=False).steps == 6
    saved = final_tensors(trained / "fsdp")
    assert not any("frozen" in name for name in saved if "/" not in name)
    for name, value in task.model.state_dict().items():
        own = {"words.weight": "table.weight"}.get(name, name)  # tied
        if "frozen" not in name:
            assert torch.equal(value, saved[f"model.{own}"]), name
    assert fit(task, settings(7), trained / "fsdp", progress=False).steps == 7
    assert [step for step, _ in task.calls] == [6]


@needs_fsdp
def test_other_frozen_weights_than_the_first_processs_are_refused(trained: Path) -> None:
    # The second process had others from the beginning, which did not count.
    with pytest.raises(CheckpointError, match=r"other frozen weights .* \(in frozen\)"):
        fit(Task(seed=1), settings(7), trained / "stopped", progress=False)


@needs_fsdp
def test_the_papers_captioner_loads_and_captions(trained: Path) -> None:
    """Trained like scripts/train.py does, with its frozen BERT layers and its scorer."""
    for part in ("", "scorer"):
        newest = list_checkpoints(trained / "captioner" / part / "checkpoints")[-1]
        assert newest.name == "step_00000002"
    captioner = DiffusionCaptioner.from_pretrained(trained / "captioner", "float32")
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert captioner(sound, sampling_rate=16000, num_captions=1).error is None


@pytest.mark.parametrize(
    ("environment", "changed", "advice"),
    [
        ({"FSDP_VERSION": "1"}, {}, "add --fsdp_version 2"),
        ({}, {"optimizer": "muon"}, "set optimizer=adamw"),
        ({}, {"compile": True}, "set compile=false"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, {}, "no offloading"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, {}, "no offloading or activation checkpoint"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    changed: dict[str, Any],
    advice: str,
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(fsdp.FSDPModule, "set_reduce_scatter_unused_params", None, raising=False)
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=advice) as error:
        wants_shards(LoopConfig(1, **changed))
    assert "\n" not in str(error.value)


def test_an_older_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(fsdp, "FSDPModule", None, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(ConfigError, match=r"too old, install 2\.13"):
        wants_shards(LoopConfig(1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
