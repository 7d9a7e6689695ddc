import pytest
import torch
from torch import nn

from dac_diffusion.errors import CheckpointError
from dac_diffusion.training.ema import ExponentialMovingAverage


def test_the_average_follows_the_formula_with_its_warm_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    expected = model.weight.item()
    ema = ExponentialMovingAverage(model, decay=0.3)
    for update in range(20):
        with torch.no_grad():
            model.weight.fill_(float(update))
        ema.update(model)
        decay = min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
    assert ema.averages["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_a_decay_of_zero_keeps_the_last_weights() -> None:
    model = nn.Linear(3, 2)
    ema = ExponentialMovingAverage(model, decay=0.0)
    nn.init.normal_(model.weight)
    ema.update(model)
    assert torch.equal(ema.averages["weight"], model.weight)


def test_swapping_gives_the_average_and_then_exactly_the_weights_even_after_an_error() -> None:
    model = nn.Linear(3, 2)
    ema = ExponentialMovingAverage(model, decay=0.9)
    nn.init.normal_(model.weight)
    ema.update(model)
    weights, average = model.weight.detach().clone(), ema.averages["weight"].clone()

    def use_the_average_and_fail() -> None:
        with ema.swapped(model):
            assert torch.equal(model.weight, average)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use_the_average_and_fail()
    assert torch.equal(model.weight, weights)
    assert torch.equal(ema.averages["weight"], average)


def test_frozen_weights_are_not_averaged() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert list(ExponentialMovingAverage(model, 0.9).averages) == ["weight"]


def test_averages_of_another_model_are_refused() -> None:
    with pytest.raises(CheckpointError, match="another model"):
        ExponentialMovingAverage(nn.Linear(3, 2), 0.9).load({"weight": torch.zeros(3, 3)}, 1)
