"""What `loop.fit` is given (a Task and a LoopConfig) and what it returns (a FitResult)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from dac_diffusion.errors import ConfigError
from dac_diffusion.training.optimizer import Decay


class Task(Protocol):
    """What is trained: a model, its data and its evaluation."""

    model: nn.Module
    """forward(batch, generator) -> dict of tensors: "loss", other scalars to log, and tensors whose
    first dimension is the batch (of the same size in every process)."""

    def batch(self, step: int, rank: int, world_size: int) -> Any:
        """Return the CPU tensors of a step: a pure function of its arguments and the task's seed.

        With gradient accumulation over n batches, optimizer step s uses the steps n*s to n*s+n-1.
        It may run in another process, so it must not rely on changing the task.
        """

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        """See the outputs, averaged (scalars) or concatenated over processes: the same in each."""

    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        """Measure the averaged weights, which are in `model`; called in the first process only.

        `writer` is a TensorBoard SummaryWriter; the returned numbers (or none) are logged anyway.
        """

    def state(self) -> dict[str, Any]:
        """Return what the task itself must remember to resume, as JSON can hold it."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""

    def export(self, folder: Path) -> None:
        """Write the usable model (self.model, now with averaged weights) atomically."""


@dataclass(frozen=True)
class LoopConfig:
    """The settings of the loop; all counts of steps are optimizer steps."""

    max_steps: int
    learning_rate: float = 6e-4
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.01
    decay_embeddings: bool = False  # token embeddings and their like as well
    betas: tuple[float, float] = (0.9, 0.98)  # of AdamW
    warmup_steps: int = 200
    decay: Decay = "cosine"
    timescale: int | None = None  # of decay inverse_sqrt, in steps; training/optimizer.py
    final_learning_rate: float = 0.05  # as a share of learning_rate
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.999
    mixed_precision: Literal["no", "bf16"] = "no"
    gradient_accumulation_steps: int = 1
    evaluate_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2  # besides the best one
    log_every: int = 50
    seed: int = 0
    num_workers: int = 1  # processes that prepare batches ahead; 0: none
    compile: bool = False
    best_metric: str = "-loss"  # a name that Task.evaluate returns; with - lower is better
    max_minutes: float | None = None  # stop by then, and decay with the clock; not reproducible

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that makes no sense."""
        for name in ("max_steps", "gradient_accumulation_steps", "evaluate_every",
                     "checkpoint_every", "keep_checkpoints", "log_every", "learning_rate",
                     "max_gradient_norm", "max_minutes", "timescale"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be greater than 0, got {value}")
        for name in ("weight_decay", "warmup_steps", "seed", "num_workers"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("ema_decay", "final_learning_rate", "betas"):
            value = getattr(self, name)
            top = 1.0 if name == "final_learning_rate" else 1.0 - 1e-12
            if not all(0 <= part <= top for part in (value if name == "betas" else (value,))):
                raise ConfigError(f"{name} must be from 0 to 1, got {value}")

    def score(self, metrics: Mapping[str, float]) -> float:
        """The metric that decides which weights are best, its sign turned so that higher is better.

        Without metrics minus infinity. Raises ConfigError for a metric that is not among them.
        """
        name = self.best_metric.lstrip("+-")
        if not metrics:
            return -math.inf
        if name not in metrics:
            known = ", ".join(metrics)
            raise ConfigError(f"best_metric: '{name}' is not measured; choose one of {known}")
        return -metrics[name] if self.best_metric.startswith("-") else metrics[name]


@dataclass(frozen=True)
class FitResult:
    """How a training ended: steps done, minutes over all runs, the last evaluation."""

    steps: int
    minutes: float
    metrics: dict[str, float]
