"""An exponential moving average of the weights, which samples better than the last weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dac_diffusion.errors import CheckpointError


class ExponentialMovingAverage:
    """Running average of a model's trainable parameters; buffers and frozen weights stay.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the random first weights
    are forgotten soon. A decay of 0 keeps the last weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.averages = {name: p.detach().clone() for name, p in _trainable(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average a little towards the model's weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        weights = _trainable(model)
        current = [weights[name].detach() for name in self.averages]
        torch._foreach_lerp_(list(self.averages.values()), current, 1.0 - decay)

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Put the averages into the model for the length of the block, then the weights back."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        # In place: a compiled model whose parameters got other storage would be compiled anew.
        with torch.no_grad():
            for name, parameter in _trainable(model).items():
                weights = parameter.clone()
                parameter.copy_(self.averages[name])
                self.averages[name].copy_(weights)

    def load(self, averages: Mapping[str, Tensor], updates: int) -> None:
        """Take over saved averages; raises CheckpointError when they are of another model."""
        shapes = {name: average.shape for name, average in self.averages.items()}
        if shapes != {name: average.shape for name, average in averages.items()}:
            raise CheckpointError("the averaged weights are those of another model")
        for name, average in averages.items():
            self.averages[name].copy_(average)
        self.updates = updates


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
