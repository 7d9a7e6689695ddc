import json
from pathlib import Path

import pytest
import torch
from torch import nn

from dac_diffusion.errors import CheckpointError
from dac_diffusion.training.checkpoints import (
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from dac_diffusion.training.ema import ExponentialMovingAverage
from dac_diffusion.training.optimizer import build_optimizers

Parts = tuple[nn.Module, ExponentialMovingAverage, list[torch.optim.Optimizer]]


class Tied(nn.Module):
    """Two names for one weight, as a tied rounding head has."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, width)
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(width)


def parts(width: int = 4) -> Parts:
    torch.manual_seed(1)
    model = Tied(width)
    ema = ExponentialMovingAverage(model, 0.9)
    return model, ema, build_optimizers(model, "adamw", 0.1, 0.1, (0.9, 0.99))


def trained() -> Parts:
    model, ema, optimizers = parts()
    for _ in range(3):
        model.head(model.norm(model.embedding(torch.arange(5)))).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        ema.update(model)
    return model, ema, optimizers


def test_everything_comes_back_bit_by_bit(tmp_path: Path) -> None:
    model, ema, optimizers = trained()
    save_checkpoint(tmp_path / "step_00000003", model, ema, optimizers, {"step": 3})
    again, ema_again, optimizers_again = parts()
    state = load_checkpoint(tmp_path / "step_00000003", again, ema_again, optimizers_again)
    assert state["step"] == 3
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.head.weight is again.embedding.weight
    assert ema_again.updates == 3
    assert all(torch.equal(v, ema_again.averages[k]) for k, v in ema.averages.items())
    old, new = optimizers[0].state_dict()["state"], optimizers_again[0].state_dict()["state"]
    assert all(torch.equal(old[i][k], new[i][k]) for i in old for k in old[i])


def test_an_incomplete_folder_is_no_checkpoint_and_steps_sort_by_number(tmp_path: Path) -> None:
    for step in (5, 12, 100000000, 20):
        save_checkpoint(checkpoint_path(tmp_path, step), *trained(), {})
    (checkpoint_path(tmp_path, 20) / "state.json").unlink()
    (tmp_path / "step_abc").mkdir()
    (tmp_path / ".0123456789ab.partial").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step_00000005",
        "step_00000012",
        "step_100000000",
    ]
    remove_old_checkpoints(tmp_path, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_100000000"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "ema.safetensors", "optimizer.pt", "state.json"]
)
@pytest.mark.parametrize("damage", ["cut", "empty", "nonsense"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / "step_00000003"
    save_checkpoint(path, *trained(), {"step": 3})
    content = (path / name).read_bytes()
    new = {"cut": content[: len(content) // 2], "empty": b"", "nonsense": b"\x80\x02}q." * 50}
    (path / name).write_bytes(new[damage])
    with pytest.raises(CheckpointError, match=r"step_00000003: the checkpoint is damaged") as error:
        load_checkpoint(path, *parts())
    assert "\n" not in str(error.value)
    assert "delete" in str(error.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step_00000003", *trained(), {"step": 3})
    with pytest.raises(CheckpointError, match="another model"):
        load_checkpoint(tmp_path / "step_00000003", *parts(width=6))


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step_00000003", *trained(), {"step": 3})
    model, ema, optimizers = parts()
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "step_00000003", model, ema, optimizers * 2)


def test_the_optimizer_keeps_its_new_settings(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step_00000003", *trained(), {"step": 3})
    model, ema, _ = parts()
    optimizers = build_optimizers(model, "adamw", 0.1, 0.7, (0.9, 0.99))
    decays = [group["weight_decay"] for group in optimizers[0].param_groups]
    load_checkpoint(tmp_path / "step_00000003", model, ema, optimizers)
    assert [group["weight_decay"] for group in optimizers[0].param_groups] == decays


def test_the_optimizer_file_holds_no_pickled_code(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step_00000003", *trained(), {"step": 3})
    torch.load(tmp_path / "step_00000003" / "optimizer.pt", weights_only=True)
    assert json.loads((tmp_path / "step_00000003" / "state.json").read_text())["ema_updates"] == 3
