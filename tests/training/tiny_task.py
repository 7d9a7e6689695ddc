"""A task small enough for tests; also a script: python tiny_task.py FOLDER key=value ..."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dac_diffusion.configuration import load_config
from dac_diffusion.files import atomic_folder
from dac_diffusion.training.loop import LoopConfig, fit


class TinyModel(nn.Module):
    """Regression with an embedding, dropout and draws of its own, a branch that is often unused."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.hidden = nn.Linear(8, 8)
        self.sometimes = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, 1)

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        noise = torch.randn(len(batch["x"]), 8, generator=generator)
        hidden = torch.tanh(self.hidden(self.table(batch["x"]) + 0.1 * noise))
        if torch.rand((), generator=generator) < 0.5:
            hidden = hidden + self.sometimes(hidden)
        error = (self.head(self.dropout(hidden))[:, 0] - batch["y"]) ** 2
        return {"loss": error.mean(), "spread": error.std(), "per_example": error}


class TinyTask:
    """x -> 0.3 x with batches that depend on (step, rank), and a memory of what it saw."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = TinyModel()
        self.seen = 0.0
        self.calls: list[tuple[int, list[float]]] = []

    def batch(self, step: int, rank: int, world_size: int) -> Any:
        generator = torch.Generator().manual_seed(1000 * step + rank)
        x = torch.randint(0, 10, (6,), generator=generator)
        return {"x": x, "y": 0.3 * x}

    def after_step(self, step: int, outputs: dict[str, Tensor]) -> None:
        self.seen += outputs["loss"].item()
        self.calls.append((step, outputs["per_example"].tolist()))

    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        batch = self.batch(10**6, 0, 1)
        return {"loss": model(batch, torch.Generator().manual_seed(0))["loss"].item()}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]

    def export(self, folder: Path) -> None:
        with atomic_folder(folder) as partial:
            torch.save(self.model.state_dict(), partial / "weights.pt")


def main(folder: str, *overrides: str) -> None:
    torch.set_num_threads(1)
    config = load_config(LoopConfig, None, ["warmup_steps=2", "num_workers=0", *overrides])
    task = TinyTask()
    fit(task, config, folder, progress=False)
    import torch.distributed as dist

    rank = dist.get_rank() if dist.is_initialized() else 0
    result = {"weights": task.model.state_dict(), "calls": task.calls, "seen": task.seen}
    torch.save(result, Path(folder) / f"rank_{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
