"""LoRA (Hu et al., arXiv 2106.09685) on the query and value projections of a network, through peft.

The adapters are peft's; this file says which layers get them, and makes stock models of adapted
ones, so that a saved captioner needs no peft. A merged projection of query, key and value, as in
our encoders, is split in three for the training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dac_diffusion.errors import ConfigError, MissingExtraError

ADAPTED = ("q_proj", "v_proj")
MERGED = "qkv"  # what a merged projection is called in our encoders


@dataclass(frozen=True)
class LowRankConfig:
    """Sizes of the adapters; the defaults are those of CED + Q-Former + Llama-2 (LOAE's code)."""

    rank: int = 8
    alpha: int = 32  # an adapter's output is multiplied by alpha / rank
    dropout: float = 0.1  # on its input

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that makes no sense."""
        for name in ("rank", "alpha"):
            if getattr(self, name) < 1:
                raise ConfigError(f"lora.{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout={self.dropout}: must be from 0 to below 1")


class SplitProjection(nn.Module):
    """A Linear of query, key and value, (..., W) -> (..., 3 W), as three of one width each."""

    def __init__(self, merged: nn.Linear) -> None:
        super().__init__()
        weights = merged.weight.detach().chunk(3)
        biases = [None] * 3 if merged.bias is None else list(merged.bias.detach().chunk(3))
        self.q_proj, self.k_proj, self.v_proj = (
            _linear(weight.clone(), None if bias is None else bias.clone())
            for weight, bias in zip(weights, biases, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., 3 W)."""
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)

    def join(self) -> nn.Linear:
        """One Linear of the three, with their adapters merged."""
        parts = [_without_adapter(part) for part in (self.q_proj, self.k_proj, self.v_proj)]
        biases = [part.bias.detach() for part in parts if part.bias is not None]
        weight = torch.cat([part.weight.detach() for part in parts])  # (3 W, W)
        return _linear(weight, torch.cat(biases) if biases else None)


def add_adapters(model: nn.Module, config: LowRankConfig) -> None:
    """Freeze a network and give its query and value projections trainable adapters, in place.

    For whatever has Linears named q_proj and v_proj (Llama, BART), and for our encoders with a
    Linear named qkv (CED, the small one). The adapters are in float32, and the outputs are the
    same as before until they are trained. Raises MissingExtraError without the extra `lora`,
    ConfigError for a network without such layers.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError(
            "LoRA needs peft: install the extra, for example `pip install 'dac-diffusion[lora]'`, "
            "or train all weights"
        ) from error
    merged = [(name, part) for name, part in _linears(model) if name.rpartition(".")[2] == MERGED]
    for name, part in merged:
        _set_module(model, name, SplitProjection(part))
    targets = [name for name, _ in _linears(model) if name.rpartition(".")[2] in ADAPTED]
    if not targets:
        raise ConfigError(
            f"{type(model).__name__}: has no layers named {' and '.join(ADAPTED)}, so it cannot "
            "have LoRA; use a Llama or BART, or train all weights"
        )
    model.requires_grad_(False)
    inject_adapter_in_model(
        LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=targets,
        ),
        model,
    )
    model.__dict__.pop("peft_config", None)  # a note of peft's to itself
    # Half precision is enough for what is frozen, but would swallow the small steps of training.
    for adapter in _adapters(model):
        adapter.lora_A.float()
        adapter.lora_B.float()


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` was applied to a network, and its adapters have not been merged."""
    return any(True for _ in _adapters(model))


def merge_adapters(model: nn.Module) -> None:
    """Make a stock model of an adapted one, in place: the same outputs, modules and names."""
    for name, stock in _stock_modules(model).items():
        _set_module(model, name, stock)


@contextmanager
def merged_adapters(model: nn.Module) -> Iterator[None]:
    """Within the block the model is a stock one, as by merge_adapters; then it is adapted again.

    For saving in the middle of a training: the adapted weights come back bit by bit.
    """
    stock = _stock_modules(model)
    adapted = {name: model.get_submodule(name) for name in stock}
    for name, linear in stock.items():
        _set_module(model, name, linear)
    try:
        yield
    finally:
        for name, module in adapted.items():
            _set_module(model, name, module)


def _stock_modules(model: nn.Module) -> dict[str, nn.Linear]:
    """The Linears to put in place of split projections and of layers with adapters, by name."""
    stock: dict[str, nn.Linear] = {}
    split = ""
    for name, module in model.named_modules():
        if isinstance(module, SplitProjection):
            split = f"{name}."
            stock[name] = module.join()
        elif hasattr(module, "lora_A") and not (split and name.startswith(split)):
            stock[name] = _without_adapter(module)
        if name in stock:
            stock[name].train(module.training)
    return stock


@torch.no_grad()
def _without_adapter(module: Any) -> nn.Linear:
    """A Linear with its adapter merged, as a new one; without an adapter the Linear itself."""
    if not hasattr(module, "lora_A"):
        linear: nn.Linear = module
        return linear
    base = module.base_layer
    weight = base.weight.float()
    for name in module.lora_A:
        weight = weight + module.get_delta_weight(name).float()
    return _linear(weight.to(base.weight.dtype), base.bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen Linear of these weights."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear


def _linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]


def _adapters(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if hasattr(module, "lora_A"))


def _set_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
