"""The one training loop of the project: every model here is trained by `fit(task, config, folder)`.

How to change it. What is trained, and on what, is a `Task` (task.py): a small class with a model,
batches, an evaluation and an export; write one, and the loop does the rest. What happens in a step
and between steps is the body of `fit`, from top to bottom; the methods of `_Run` below it are its
verbs. A new setting is a field of `LoopConfig` (task.py).

Exact resume. The data of step s are `task.batch(s, ...)`, a pure function, and every random draw
of the step comes from generators seeded by (seed, step, process). So a run that was killed goes on
from its newest checkpoint to the same weights, bit by bit, as if nothing had happened (on the same
kind of CPU, with as many threads and processes). `max_minutes` gives this up, because the learning
rate then follows the clock.

Several processes: `accelerate launch --multi_gpu --num_processes 2 SCRIPT`, and the same after
`ACCELERATE_USE_CPU=true` for processes on the CPU. Every process draws its own batch and the
gradients are averaged, so the batch size is per process. `--use_fsdp --fsdp_version 2` in place of
`--multi_gpu` leaves each process its share of weights, averages and optimizers (surroundings.py).
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dac_diffusion.errors import CheckpointError, DacError
from dac_diffusion.files import make_folder
from dac_diffusion.training.batches import iterate_batches, seed_step, to_device
from dac_diffusion.training.checkpoints import (
    checkpoint_path,
    frozen_digests,
    list_checkpoints,
    load_checkpoint,
    remove_old_checkpoints,
    save_checkpoint,
)
from dac_diffusion.training.ema import ExponentialMovingAverage
from dac_diffusion.training.optimizer import (
    build_optimizers,
    learning_rate_factor,
    set_learning_rate,
)
from dac_diffusion.training.surroundings import (
    average_numbers,
    make_accelerator,
    make_progress_bar,
    make_writer,
    object_of_first_process,
    of_first_process,
    prepare_model,
    wants_shards,
    whole,
    whole_weights,
)
from dac_diffusion.training.task import FitResult, LoopConfig, Task

__all__ = ["FitResult", "LoopConfig", "Task", "fit"]

# The first checkpoint comes no later than this, so that trouble with saving shows early.
EARLY_CHECKPOINT = 100


def fit(
    task: Task,
    config: LoopConfig,
    output_dir: str | Path,
    resume: bool = True,
    progress: bool = True,
) -> FitResult:
    """Train a task, going on from the newest checkpoint in `output_dir` where there is one.

    Writes there `model/` and `best_model/` (what task.export makes of the last and of the best
    averaged weights), `checkpoints/`, and `logs/` for TensorBoard. A training that is over writes
    both models anew, from the same weights.

    Raises MissingExtraError without the extra `training`, CheckpointError for a checkpoint that
    does not fit, ConfigError, and DacError when the loss is no longer a number.
    """
    run = _Run(task, config, Path(output_dir), resume)
    batches = run.batches()
    bar = make_progress_bar(config.max_steps, run.step, progress and run.is_first)
    while not run.is_over():
        set_learning_rate(run.optimizers, run.learning_rate())
        outputs = run.forward_and_backward(batches)
        norm = whole(nn.utils.clip_grad_norm_(task.model.parameters(), config.max_gradient_norm))
        run.check_finite(outputs["loss"].item(), norm.item())
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        run.ema.update(task.model)
        task.after_step(run.step, outputs)
        run.step += 1
        bar.update()
        bar.set_postfix(loss=f"{outputs['loss'].item():.4g}", refresh=False)
        if run.step == 1 or run.step % config.log_every == 0:
            run.log(outputs, norm)
        last = run.is_over()
        if last or run.step % config.evaluate_every == 0:
            run.evaluate()
        early = run.step == min(config.checkpoint_every, EARLY_CHECKPOINT)
        if last or early or run.step % config.checkpoint_every == 0:
            run.save()
    bar.close()
    run.close()
    return FitResult(run.step, run.minutes(), run.metrics)


class _Run:
    """The moving parts of one training: weights, optimizers, average, counters and logs."""

    def __init__(self, task: Task, config: LoopConfig, output_dir: Path, resume: bool) -> None:
        self.task, self.config, self.output_dir = task, config, output_dir
        self.checkpoints = output_dir / "checkpoints"
        self.accelerator = make_accelerator()
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.is_first = self.rank == 0  # it alone evaluates, logs and writes
        self.device: torch.device = self.accelerator.device
        self.step = 0  # optimizer steps done
        self.best, self.metrics = -math.inf, dict[str, float]()
        self.started, self.minutes_before = time.monotonic(), 0.0

        # Of the first process, because its frozen weights will be everybody's.
        digests = frozen_digests(task.model) if self.is_first else {}
        self.frozen = object_of_first_process(digests, self.device)
        self.sharded = wants_shards(config)
        # What is to be sharded is put together on the CPU: a device may have no room for the whole.
        task.model.to("cpu" if self.sharded else self.device).train()
        self.optimizers = build_optimizers(
            task.model,
            config.optimizer,
            config.learning_rate,
            config.weight_decay,
            config.betas,
            config.decay_embeddings,
        )
        self.ema = ExponentialMovingAverage(task.model, config.ema_decay)
        self._resume(resume)
        if config.compile:
            task.model.compile()
        parts = task.model, self.optimizers, self.ema
        self.model = prepare_model(self.accelerator, self.sharded, *parts)  # for DDP or FSDP
        self.writer = make_writer(output_dir / "logs", self.step) if self.is_first else None
        self.last_log = (self.step, time.monotonic())

    def batches(self) -> Iterator[Any]:
        """Yield the batches of the steps still to do."""
        n = self.config.gradient_accumulation_steps
        steps = range(self.step * n, self.config.max_steps * n)
        workers = self.config.num_workers
        return iterate_batches(self.task, steps, self.rank, self.world_size, workers)

    def is_over(self) -> bool:
        """Say whether the steps or the minutes are used up."""
        return self.step >= self.config.max_steps or self._share_of_time() >= 1

    def minutes(self) -> float:
        """Return the wall-clock minutes of this run and of those it goes on from."""
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        config = self.config
        done = (self.step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
        done = max(done, self._share_of_time())
        return config.learning_rate * learning_rate_factor(
            self.step,
            config.warmup_steps,
            done,
            config.decay,
            config.final_learning_rate,
            config.timescale,
        )

    def forward_and_backward(self, batches: Iterator[Any]) -> dict[str, Tensor]:
        """Leave the gradients of a step in the model; return its outputs, joined and detached."""
        n, bf16 = self.config.gradient_accumulation_steps, self.config.mixed_precision == "bf16"
        parts = []
        for index in range(self.step * n, self.step * n + n):
            batch = to_device(next(batches), self.device)
            generator = seed_step(self.config.seed, index, self.rank, self.device)
            # Gradients travel between processes only once, with the last batch of the step.
            last = index == self.step * n + n - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                    outputs = self.model(batch, generator)
                (outputs["loss"].float() / n).backward()
            parts.append({name: value.detach() for name, value in outputs.items()})
        if self.sharded:
            average_numbers(self.task.model)
        return {name: self._join([part[name] for part in parts]) for name in parts[0]}

    def _join(self, values: list[Tensor]) -> Tensor:
        """Join an output of the step's batches and processes: mean of scalars, else all rows."""
        joined: Tensor
        if values[0].ndim == 0:
            joined = torch.stack([value.float() for value in values]).mean()
            return self.accelerator.reduce(joined, "mean") if self.world_size > 1 else joined
        joined = torch.cat(values)
        return self.accelerator.gather(joined) if self.world_size > 1 else joined

    def check_finite(self, loss: float, gradient_norm: float) -> None:
        """Raise DacError when the loss or the gradients are no longer numbers."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            return
        saved = list_checkpoints(self.checkpoints)
        raise DacError(
            f"{self.output_dir}: at step {self.step} the loss is {loss:g} and the gradient norm "
            f"{gradient_norm:g}; lower learning_rate (now {self.config.learning_rate:g}) or "
            "max_gradient_norm, raise warmup_steps, or set mixed_precision=no, and start again "
            f"(the newest checkpoint: {saved[-1].name if saved else 'none'})"
        )

    def log(self, outputs: Mapping[str, Tensor], gradient_norm: Tensor) -> None:
        """Write the step's scalars and the speed since the last time to TensorBoard."""
        if self.writer is None:
            return
        (step_before, time_before), self.last_log = self.last_log, (self.step, time.monotonic())
        seconds = (self.last_log[1] - time_before) / (self.step - step_before)
        scalars = {name: value.item() for name, value in outputs.items() if value.ndim == 0}
        scalars["learning_rate"] = self.optimizers[0].param_groups[0]["lr"]
        scalars["gradient_norm"] = gradient_norm.item()
        scalars |= {"seconds_per_step": seconds, "steps_per_second": 1 / max(seconds, 1e-9)}
        for name, value in scalars.items():
            self.writer.add_scalar(f"train/{name}", value, self.step)

    def evaluate(self) -> None:
        """Let the task measure the averaged weights, and keep the best so far."""
        model = self.task.model
        with self.ema.swapped(model), whole_weights(model, self.is_first), torch.no_grad():
            if self.writer is not None:
                model.eval()
                self.metrics = self.task.evaluate(self.step, model, self.writer)
                model.train()
                for name, value in self.metrics.items():
                    self.writer.add_scalar(f"validation/{name}", value, self.step)
        score = of_first_process(self.config.score(self.metrics), self.device)
        if score > self.best:
            self.best = score
            self._write(self.checkpoints / "best", self.output_dir / "best_model")
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Write a checkpoint and the usable model, and drop the oldest checkpoint."""
        self._write(checkpoint_path(self.checkpoints, self.step), self.output_dir / "model")
        if self.writer is not None:
            self.writer.flush()
            remove_old_checkpoints(self.checkpoints, self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _write(self, checkpoint: Path, export: Path) -> None:
        state = {
            "step": self.step,
            "minutes": self.minutes(),
            "best": self.best if math.isfinite(self.best) else None,
            "metrics": self.metrics,
            "config": asdict(self.config),
            "task": self.task.state(),
        }
        # The export first: a run killed between the two does both again.
        self._export(export)
        parts = self.task.model, self.ema, self.optimizers
        save_checkpoint(checkpoint, *parts, state, self.frozen, self.is_first)

    def _export(self, folder: Path) -> None:
        """Write the usable model of the averaged weights."""
        model = self.task.model
        with self.ema.swapped(model), whole_weights(model, self.is_first):
            if self.is_first:
                self.task.export(folder)

    def _resume(self, resume: bool) -> None:
        """Make the folder, and go on from its newest checkpoint."""
        make_folder(self.checkpoints)
        found = list_checkpoints(self.checkpoints)
        self.accelerator.wait_for_everyone()  # nobody writes before everybody has looked
        if found and not resume:
            raise CheckpointError(
                f"{self.checkpoints}: holds checkpoints of an earlier run; resume it, delete it, "
                "or choose another output folder"
            )
        if found:
            self._load(found[-1])
            if self.is_over():
                self._export_again(found[-1])

    def _load(self, checkpoint: Path) -> None:
        parts = self.task.model, self.ema, self.optimizers
        state = load_checkpoint(checkpoint, *parts, self.frozen)
        self.step, self.minutes_before = state["step"], state["minutes"]
        self.best = -math.inf if state["best"] is None else state["best"]
        self.metrics = state["metrics"]
        self.task.load_state(state["task"])

    def _export_again(self, newest: Path) -> None:
        """Write both models anew: settings that are not of the training may have changed."""
        best = self.checkpoints / "best"
        if best.is_dir():
            self._load(best)
            self._export(self.output_dir / "best_model")
            self._load(newest)
        self._export(self.output_dir / "model")

    def _share_of_time(self) -> float:
        """Return the share of `max_minutes` that is over, by the clock of the first process."""
        if self.config.max_minutes is None:
            return 0.0
        return of_first_process(self.minutes() / self.config.max_minutes, self.device)

    def close(self) -> None:
        """Finish the logs."""
        if self.writer is not None:
            self.writer.close()
        self.accelerator.wait_for_everyone()
