"""Matrix products whose result for a clip does not depend on the other clips of its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def one_clip_per_product(
    num_clips: int, device: torch.device
) -> AbstractContextManager[TorchFunctionMode | None]:
    """A context in which products with a weight matrix run clip by clip, on the CPU.

    CPU libraries choose how to cut up a sum by the number of rows, so the last bits of a row
    depend on how many rows come with it, and after some steps a word can change. All else that
    the networks do works on each row by itself. Products of equal shape give equal bits, and
    the K x L rows of one clip are enough to keep a CPU busy, so this costs next to nothing.
    """
    if num_clips == 1 or device.type != "cpu":
        return nullcontext()
    return _OneClipPerProduct(num_clips)


class _OneClipPerProduct(TorchFunctionMode):
    def __init__(self, num_clips: int) -> None:
        super().__init__()
        self.num_clips = num_clips

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            return self._by_clip(lambda rows: func(rows, *args[1:], **kwargs), args[0])
        if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__) and args[1].dim() == 2:
            return self._by_clip(lambda rows: func(rows, *args[1:], **kwargs), args[0])
        return func(*args, **kwargs)

    def _by_clip(self, product: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        # The clips are the outermost dimension, whatever it was folded with: (B, ...), (B * K, ...)
        if rows.dim() < 2 or rows.shape[0] % self.num_clips:
            return product(rows)
        return torch.cat([product(part) for part in rows.chunk(self.num_clips)])
