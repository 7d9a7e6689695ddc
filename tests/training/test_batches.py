from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from tiny_task import TinyTask
from torch import Tensor

from dac_diffusion.errors import DataError
from dac_diffusion.training.batches import iterate_batches, seed_step, to_device


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_order_and_depend_on_step_and_rank_alone(num_workers: int) -> None:
    task = TinyTask()
    before = torch.get_rng_state()
    for rank in (0, 1):
        batches = list(iterate_batches(task, range(3, 8), rank, 2, num_workers))
        expected = [task.batch(step, rank, 2)["x"] for step in range(3, 8)]
        assert all(torch.equal(b["x"], e) for b, e in zip(batches, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


class Broken(TinyTask):
    def batch(self, step: int, rank: int, world_size: int) -> Any:
        raise DataError("clip.wav: gone; put it back")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_for_the_user_stays_one_line(num_workers: int) -> None:
    with pytest.raises(DataError, match=r"^clip.wav: gone; put it back$"):
        list(iterate_batches(Broken(), range(3), 0, 1, num_workers))


def test_draws_depend_on_seed_step_and_rank() -> None:
    def draws(seed: int, step: int, rank: int) -> tuple[float, ...]:
        generator = seed_step(seed, step, rank, torch.device("cpu"))
        return torch.rand((), generator=generator).item(), torch.rand(()).item()

    assert draws(0, 5, 1) == draws(0, 5, 1)
    places = [(0, 5, 1), (0, 1, 5), (1, 5, 0), (5, 0, 1), (0, 5, 0), (0, 6, 1)]
    assert len({value for place in places for value in draws(*place)}) == 2 * len(places)


class Pair(NamedTuple):
    left: Tensor
    right: int


@dataclass(frozen=True)
class Nested:
    tensor: Tensor
    others: dict[str, Any]


def test_tensors_move_wherever_they_are() -> None:
    batch = Nested(torch.ones(2), {"list": [torch.ones(1), "text"], "pair": Pair(torch.ones(3), 4)})
    moved = to_device(batch, torch.device("meta"))
    assert moved.tensor.device.type == "meta"
    assert moved.others["list"][0].device.type == "meta"
    assert moved.others["list"][1] == "text"
    assert moved.others["pair"].left.device.type == "meta"
    assert moved.others["pair"].right == 4
    assert batch.tensor.device.type == "cpu"
