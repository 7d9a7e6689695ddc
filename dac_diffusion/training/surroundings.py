"""What the loop gets from Accelerate, FSDP and TensorBoard, which only training needs."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from dac_diffusion.errors import ConfigError, MissingExtraError
from dac_diffusion.training.ema import ExponentialMovingAverage
from dac_diffusion.training.task import LoopConfig

T = TypeVar("T")

# FSDP sets it on every module. With it, `generate` of transformers waits for the other processes.
FSDP_MARK = "_is_fsdp_managed_module"

# --multi_gpu is Accelerate's word for several processes, and --cpu for one.
ON_CPU = (
    "for N processes on the CPU use `ACCELERATE_USE_CPU=true accelerate launch --multi_gpu "
    "--num_processes N ...`, or --use_fsdp in place of --multi_gpu"
)


def make_accelerator() -> Any:
    """The processes of this run.

    Raises MissingExtraError without the extra `training`, ConfigError for processes that do not
    know of each other.
    """
    try:
        from accelerate import (
            Accelerator,
            DistributedDataParallelKwargs,
            InitProcessGroupKwargs,
        )
    except ImportError as error:
        raise _missing("accelerate") from error
    # A step may leave weights unused (self-conditioning, the null condition), and the other
    # processes wait while the first evaluates. The precision is set by autocast in
    # `forward_and_backward`, because Accelerate would patch it into the model.
    unused_weights = DistributedDataParallelKwargs(find_unused_parameters=True)
    # With this, transformers would load weights in the first process only.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[unused_weights, patience])
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes == 1 and launched > 1:  # each would write the same files
        raise ConfigError(
            f"accelerate launch has started {launched} processes that cannot see each other, "
            f"because there is no GPU; {ON_CPU}"
        )
    launched_for_several = "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ
    if accelerator.num_processes == 1 and launched_for_several:
        warnings.warn(
            f"`accelerate launch --cpu` has started one process only; {ON_CPU}",
            stacklevel=2,
        )
    return accelerator


def make_writer(folder: Path, step: int) -> Any:
    """A TensorBoard log that goes on after `step`; raises MissingExtraError without the extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard") from error
    # What a killed run logged after its last checkpoint is superseded.
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)


def make_progress_bar(total: int, done: int, shown: bool) -> Any:
    """A bar over the steps, or a silent one."""
    from tqdm import tqdm

    return tqdm(total=total, initial=done, disable=not shown, desc="training", unit="step")


def of_first_process(value: float, device: torch.device) -> float:
    """Return the value that the first process gave, so that all decide alike."""
    if not torch.distributed.is_initialized():
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    torch.distributed.broadcast(shared, src=0)
    return shared.item()


def object_of_first_process(value: T, device: torch.device) -> T:
    """Return what the first process gave, of whatever kind."""
    if not torch.distributed.is_initialized():
        return value
    shared = [value]
    torch.distributed.broadcast_object_list(shared, src=0, device=device)
    return shared[0]


def wants_shards(config: LoopConfig) -> bool:
    """Say whether this was started with `accelerate launch --use_fsdp`.

    Raises ConfigError for what the loop cannot do then.
    """

    def given(option: str) -> bool:
        return os.environ.get(option, "false").lower() == "true"

    if not given("ACCELERATE_USE_FSDP") or not torch.distributed.is_initialized():
        return False  # the latter: a single process on a CPU
    from torch.distributed import fsdp

    known = hasattr(getattr(fsdp, "FSDPModule", None), "set_reduce_scatter_unused_params")
    extras = given("FSDP_OFFLOAD_PARAMS") or given("FSDP_ACTIVATION_CHECKPOINTING")
    for wrong, advice in (
        (os.environ.get("FSDP_VERSION") != "2", "version 1 is not supported, add --fsdp_version 2"),
        (not known, f"torch {torch.__version__} is too old, install 2.13 or newer"),
        (config.optimizer == "muon", "Muon needs whole matrices, set optimizer=adamw"),
        (config.compile, "the model cannot be compiled, set compile=false"),
        (extras, "no offloading or activation checkpointing here, leave their options out"),
    ):
        if wrong:
            raise ConfigError(f"accelerate launch --use_fsdp: {advice}")
    return True


def prepare_model(
    accelerator: Any,
    sharded: bool,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    ema: ExponentialMovingAverage,
) -> nn.Module:
    """Return what stands for the model in training: itself, DDP, or after `shard` FSDP."""
    model.zero_grad()  # an earlier training of its parts may have left gradients
    if sharded:
        return shard(model, optimizers, ema, accelerator.device)
    prepared: nn.Module = accelerator.prepare_model(model)
    return prepared


def shard(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    ema: ExponentialMovingAverage,
    device: torch.device,
) -> nn.Module:
    """Leave every process its share of the weights, their average and the optimizers' state.

    Returns what stands for the model in training: its forward gathers the whole weights, and after
    backward every process has its share of the averaged gradients. The model's own modules then
    hold shares (DTensor), see `whole_weights`. Frozen weights stay whole, and so do single numbers,
    see `average_numbers`. As in DDP, the first process's weights count. Unlike there, a weight that
    no process used in a step has a gradient, of zeros.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard, distribute_tensor

    model.to(device)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP does not take channels_last
        torch.distributed.broadcast(parameter.data, src=0)
    before = dict(model.named_parameters())
    unsharded = {p for p in before.values() if not p.requires_grad or p.ndim == 0}
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    training_model = fully_shard(_Sharded(model), mesh=mesh, ignored_params=unsharded)
    training_model.set_reduce_scatter_unused_params(True)
    shares: dict[Tensor, Tensor] = {before[name]: p for name, p in model.named_parameters()}

    def share(value: Tensor, parameter: Tensor) -> Tensor:
        if parameter in unsharded or value.shape != parameter.shape:
            return value.to(device)
        return distribute_tensor(value.to(device), mesh, [Shard(0)])

    ema.averages = {name: share(value, before[name]) for name, value in ema.averages.items()}
    for optimizer in optimizers:
        states = dict(optimizer.state)
        optimizer.state.clear()
        for p, state in states.items():
            optimizer.state[shares[p]] = {name: share(value, p) for name, value in state.items()}
        for group in optimizer.param_groups:
            group["params"] = [shares[p] for p in group["params"]]
    return cast(nn.Module, training_model)


class _Sharded(nn.Module):
    """Takes FSDP's hooks and class name instead of the model, so that a task finds its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any, generator: torch.Generator) -> Any:
        return self.model(batch, generator)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Keep the gradients of the block in the process; Accelerate looks for this name."""
        sharded = cast(Any, self)  # an FSDPModule by now
        sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            sharded.set_requires_gradient_sync(True)


def average_numbers(model: nn.Module) -> None:
    """Average the gradients of the weights that are single numbers, which FSDP cannot shard."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.ndim == 0:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


def whole(tensor: Tensor) -> Tensor:
    """Put a sharded tensor together, with the help of every process; others are returned as is."""
    if not hasattr(tensor, "full_tensor"):
        return tensor
    complete: Tensor = tensor.full_tensor()
    return complete.clone()  # of uneven shares it is a part of something larger, not to be saved


def gather(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Return the whole tensors on the CPU; without `keep` a process helps, and gets none."""
    gathered = {}
    for name, tensor in tensors.items():
        complete = whole(tensor)
        if keep:
            gathered[name] = complete.cpu()
    return gathered


@contextmanager
def whole_weights(model: nn.Module, keep: bool) -> Iterator[None]:
    """Let a sharded model be a plain one for the length of the block, where `keep` is true.

    Every process must enter. What the block does to the weights is lost.
    """
    complete: dict[nn.Parameter, nn.Parameter] = {}
    for parameter in model.parameters():
        if hasattr(parameter, "full_tensor"):
            tensor = whole(parameter.detach())
            if keep:
                complete[parameter] = nn.Parameter(tensor)
    _replace_parameters(model, complete, marked=False)
    try:
        yield
    finally:
        _replace_parameters(model, {new: old for old, new in complete.items()}, marked=True)


def _replace_parameters(
    model: nn.Module, by: Mapping[nn.Parameter, nn.Parameter], marked: bool
) -> None:
    for module in model.modules():
        if hasattr(module, FSDP_MARK):
            setattr(module, FSDP_MARK, marked)
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter in by:
                setattr(module, name, by[parameter])


def _missing(library: str) -> MissingExtraError:
    return MissingExtraError(
        f'training needs {library}: pip install "dac-diffusion[training]" brings it'
    )
