"""The optimizers (AdamW, or Muon for matrices with AdamW for the rest) and the learning rate."""

import math
from typing import Literal

import torch
from torch import nn

from dac_diffusion.errors import ConfigError

Decay = Literal["cosine", "linear", "constant", "inverse_sqrt"]


def build_optimizers(
    model: nn.Module,
    kind: Literal["adamw", "muon"],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    decay_embeddings: bool = False,
) -> list[torch.optim.Optimizer]:
    """Return the optimizers of a model's trainable parameters; the loop steps all of them.

    Matrices and convolution kernels get the weight decay, embeddings with decay_embeddings only,
    norms, biases and gains never. Muon (Jordan 2024, "Muon: an optimizer for hidden layers") takes
    the weights of linear layers, its update scaled to the size of AdamW's, so that one learning
    rate serves both. Tables that are looked up, such as token embeddings and positions, learn badly
    by it.

    Raises ConfigError when this torch has no Muon, or when nothing is trainable.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ConfigError("the model has no trainable parameters; unfreeze some of them")
    embeddings = {
        id(p)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for p in module.parameters(recurse=False)
    }
    spared = set() if decay_embeddings else embeddings
    decayed = [p for p in trainable if p.ndim >= 2 and id(p) not in spared]
    plain = [p for p in trainable if p.ndim < 2 or id(p) in spared]

    optimizers: list[torch.optim.Optimizer] = []
    if kind == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(
                f"optimizer: torch {torch.__version__} has no Muon; set it to adamw or install "
                "torch 2.9 or newer"
            )
        linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
        matrices = [p for p in decayed if id(p) in linear]
        decayed = [p for p in decayed if id(p) not in linear]
        if matrices:
            optimizers.append(
                torch.optim.Muon(
                    matrices,
                    lr=learning_rate,
                    weight_decay=weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups:
        # The fused kernels exist for these two; elsewhere torch chooses.
        fused = True if trainable[0].device.type in ("cpu", "cuda") else None
        optimizers.append(torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=fused))
    return optimizers


def learning_rate_factor(
    step: int,
    warmup_steps: int,
    progress: float,
    decay: Decay,
    final_fraction: float,
    timescale: int | None = None,
) -> float:
    """Return what the learning rate of a step (counted from 0) is multiplied by.

    It rises linearly over the warm-up and then falls from 1 to `final_fraction` as `progress`,
    the share of the time after the warm-up that is over, goes from 0 to 1. "inverse_sqrt" falls
    with the root of the steps after it instead, by a factor of sqrt(1 + n / timescale) after n
    steps; the timescale is by default the number of warm-up steps, 10,000 without any.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if decay == "inverse_sqrt":
        timescale = timescale or warmup_steps or 10_000
        return math.sqrt(timescale / (step - warmup_steps + timescale))
    progress = min(max(progress, 0.0), 1.0)
    if decay == "constant":
        return 1.0
    fall = 1.0 - progress if decay == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return final_fraction + (1.0 - final_fraction) * fall


def set_learning_rate(optimizers: list[torch.optim.Optimizer], learning_rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
