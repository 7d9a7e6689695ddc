import math

import pytest
import torch
from torch import nn
from transformers import get_inverse_sqrt_schedule

from dac_diffusion.errors import ConfigError
from dac_diffusion.training.optimizer import build_optimizers, learning_rate_factor


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.matrix = nn.Linear(4, 6)
        self.kernel = nn.Conv1d(2, 2, 3, bias=False)
        self.table = nn.Parameter(torch.zeros(7, 4))
        self.norm = nn.LayerNorm(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def model() -> nn.Module:
    return Model()


def owners(optimizer: torch.optim.Optimizer, of: nn.Module, decayed: bool) -> set[str]:
    names = {id(p): name for name, p in of.named_parameters()}
    return {
        names[id(p)]
        for group in optimizer.param_groups
        if (group["weight_decay"] > 0) == decayed
        for p in group["params"]
    }


def test_only_matrices_and_kernels_decay() -> None:
    network = model()
    (adamw,) = build_optimizers(network, "adamw", 0.1, 0.01, (0.9, 0.99))
    assert owners(adamw, network, True) == {"matrix.weight", "kernel.weight", "table"}
    assert owners(adamw, network, False) == {
        "embedding.weight", "matrix.bias", "norm.weight", "norm.bias"
    }  # fmt: skip


def test_embeddings_decay_where_they_are_to() -> None:
    network = model()
    (adamw,) = build_optimizers(network, "adamw", 0.1, 0.01, (0.9, 0.99), decay_embeddings=True)
    assert "embedding.weight" in owners(adamw, network, True)
    assert owners(adamw, network, False) == {"matrix.bias", "norm.weight", "norm.bias"}


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_takes_the_linear_layers_and_adamw_the_rest() -> None:
    network = model()
    muon, adamw = build_optimizers(network, "muon", 0.1, 0.01, (0.9, 0.99))
    assert owners(muon, network, True) == {"matrix.weight"}
    assert owners(adamw, network, True) == {"kernel.weight", "table"}
    assert "embedding.weight" in owners(adamw, network, False)


def test_a_torch_without_muon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ConfigError, match="no Muon; set it to adamw"):
        build_optimizers(model(), "muon", 0.1, 0.01, (0.9, 0.99))


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="trainable"):
        build_optimizers(nn.Linear(2, 2).requires_grad_(False), "adamw", 0.1, 0.0, (0.9, 0.99))


def test_the_learning_rate_rises_and_falls() -> None:
    assert [learning_rate_factor(s, 4, 0.0, "cosine", 0.1) for s in range(4)] == [
        0.25, 0.5, 0.75, 1.0
    ]  # fmt: skip
    for progress in (0.0, 0.3, 1.0, 1.7):
        share = min(progress, 1.0)
        cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2
        assert learning_rate_factor(9, 4, progress, "cosine", 0.1) == pytest.approx(cosine)
        linear = 1 - 0.9 * share
        assert learning_rate_factor(9, 4, progress, "linear", 0.1) == pytest.approx(linear)
        assert learning_rate_factor(9, 4, progress, "constant", 0.1) == 1.0


@pytest.mark.parametrize(("warmup", "timescale"), [(20, None), (20, 50), (0, 1000), (0, None)])
def test_inverse_square_root_is_transformers_own(warmup: int, timescale: int | None) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_inverse_sqrt_schedule(optimizer, warmup, timescale)
    # At the end of a warm-up ours has arrived, theirs is one step behind.
    for step in range(warmup, warmup + 300):
        ours = learning_rate_factor(step, warmup, 0.0, "inverse_sqrt", 0.05, timescale)
        assert ours == pytest.approx(schedule.lr_lambdas[0](step))
