import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_model
from torch import nn

from dac_diffusion.errors import CheckpointError
from dac_diffusion.training.checkpoints import (
    checkpoint_path,
    frozen_digests,
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
    return parts_of(Tied(width))


class Adapted(Tied):
    """With a frozen part beside it and inside it, the latter under two names."""

    def __init__(self, seed: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
        self.network[0].requires_grad_(False).bfloat16()
        self.network[2].requires_grad_(False)
        self.alias = self.network[2]
        self.encoder = nn.Linear(4, 4).requires_grad_(False)


def parts_of(model: nn.Module) -> Parts:
    ema = ExponentialMovingAverage(model, 0.9)
    return model, ema, build_optimizers(model, "adamw", 0.1, 0.1, (0.9, 0.99))


def trained(width: int = 4, model: nn.Module | None = None) -> Parts:
    model, ema, optimizers = parts(width) if model is None else parts_of(model)
    for _ in range(3):
        hidden = model.norm(model.embedding(torch.arange(5)))
        if isinstance(model, Adapted):
            hidden = model.network[1:](hidden)
        model.head(hidden).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        ema.update(model)
    return model, ema, optimizers


def save(path: Path, own: Parts, state: dict[str, Any] | None = None) -> None:
    save_checkpoint(path, *own, state or {"step": 3}, frozen_digests(own[0]))


def load(path: Path, own: Parts) -> dict[str, Any]:
    return load_checkpoint(path, *own, frozen_digests(own[0]))


def test_everything_comes_back_bit_by_bit(tmp_path: Path) -> None:
    model, ema, optimizers = trained()
    save(tmp_path / "step_00000003", (model, ema, optimizers))
    again, ema_again, optimizers_again = parts()
    state = load(tmp_path / "step_00000003", (again, ema_again, optimizers_again))
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
        save(checkpoint_path(tmp_path, step), trained())
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
    save(path, trained())
    content = (path / name).read_bytes()
    new = {"cut": content[: len(content) // 2], "empty": b"", "nonsense": b"\x80\x02}q." * 50}
    (path / name).write_bytes(new[damage])
    with pytest.raises(CheckpointError, match=r"step_00000003: the checkpoint is damaged") as error:
        load(path, parts())
    assert "\n" not in str(error.value)
    assert "delete" in str(error.value)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "step_00000003", trained())
    with pytest.raises(CheckpointError, match="another model"):
        load(tmp_path / "step_00000003", parts(width=6))


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "step_00000003", trained())
    model, ema, optimizers = parts()
    with pytest.raises(CheckpointError):
        load(tmp_path / "step_00000003", (model, ema, optimizers * 2))


def test_the_optimizer_keeps_its_new_settings(tmp_path: Path) -> None:
    save(tmp_path / "step_00000003", trained())
    model, ema, _ = parts()
    optimizers = build_optimizers(model, "adamw", 0.1, 0.7, (0.9, 0.99))
    decays = [group["weight_decay"] for group in optimizers[0].param_groups]
    load(tmp_path / "step_00000003", (model, ema, optimizers))
    assert [group["weight_decay"] for group in optimizers[0].param_groups] == decays


def test_the_optimizer_file_holds_no_pickled_code(tmp_path: Path) -> None:
    save(tmp_path / "step_00000003", trained())
    torch.load(tmp_path / "step_00000003" / "optimizer.pt", weights_only=True)
    assert json.loads((tmp_path / "step_00000003" / "state.json").read_text())["ema_updates"] == 3


def adapted(seed: int = 2) -> Adapted:
    torch.manual_seed(1)
    return Adapted(seed)


def test_frozen_weights_are_not_in_it_and_everything_comes_back(tmp_path: Path) -> None:
    model, ema, optimizers = trained(model=adapted())
    save(tmp_path / "step_00000003", (model, ema, optimizers))
    names = {"embedding.weight", "norm.weight", "norm.bias", "network.1.weight", "network.1.bias"}
    assert load_file(tmp_path / "step_00000003/ema.safetensors").keys() == names
    buffers = {f"norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    with safe_open(tmp_path / "step_00000003/model.safetensors", "pt") as file:
        assert set(file.keys()) == names | buffers
    again = parts_of(adapted())
    assert not torch.equal(again[0].network[1].weight, model.network[1].weight)
    load(tmp_path / "step_00000003", again)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name]), name


def test_digests_tell_frozen_weights_apart_by_part() -> None:
    model, other = adapted(), adapted()
    assert frozen_digests(Tied()) == {}
    digests = frozen_digests(model)
    assert digests.keys() == {"network", "encoder"}
    torch.nn.init.zeros_(other.network[1].weight)  # trained, so it does not count
    assert frozen_digests(other) == digests
    other.encoder.weight.data[0, 0] += 1e-7
    changed = frozen_digests(other)
    assert changed["network"] == digests["network"]
    assert changed["encoder"] != digests["encoder"]
    other.network[0].float()
    assert frozen_digests(other)["network"] != digests["network"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda model: model.encoder.weight.data.mul_(2), "encoder"),
        (lambda model: model.network[0].float(), "network"),
        (lambda model: [p.data.mul_(2) for p in model.parameters()], "encoder, network"),
    ],
)
@pytest.mark.parametrize("earlier", [False, True])
def test_other_frozen_weights_are_refused(
    tmp_path: Path, change: Any, part: str, earlier: bool
) -> None:
    path = tmp_path / "step_00000003"
    own = trained(model=adapted())
    save(path, own)
    if earlier:
        make_earlier(path, own[0])
    model = adapted()
    change(model)
    with pytest.raises(CheckpointError) as caught:
        load(path, parts_of(model))
    assert str(caught.value) == (
        f"{path}: was trained beside other frozen weights than those of now (in {part}); name the "
        "same pretrained weights, in the same precision, or choose another output folder"
    )


def make_earlier(path: Path, model: nn.Module) -> None:
    """A checkpoint as it was before frozen weights were left out."""
    save_model(model, str(path / "model.safetensors"))
    state = json.loads((path / "state.json").read_text())
    del state["frozen"]
    (path / "state.json").write_text(json.dumps(state))


def test_an_earlier_checkpoint_with_all_weights_can_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "step_00000003"
    own = trained(model=adapted())
    save(path, own)
    make_earlier(path, own[0])
    with safe_open(path / "model.safetensors", "pt") as file:
        assert "alias.weight" in file.keys()  # noqa: SIM118  it has the other of the two names
        assert "encoder.weight" in file.keys()  # noqa: SIM118
    again = parts_of(adapted())
    assert load(path, again)["step"] == 3
    for name, value in own[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name]), name


def test_a_weight_of_another_shape_or_name_is_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "step_00000003"
    save(path, trained())
    model = Tied()
    model.norm = nn.BatchNorm1d(1)  # would be filled by broadcasting, or fill
    with pytest.raises(CheckpointError, match="another model"):
        load(path, parts_of(model))
    model = Tied()
    model.further = nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match="another model"):
        load(path, parts_of(model))
    save(path, trained(model=adapted()))
    with pytest.raises(CheckpointError, match="another model"):
        load(path, parts())
