"""What the spectral front ends share: tables that stay in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class FrontEnd(nn.Module):
    """A module with a window (N,) and a filter bank (bins, num_mels), float32 whatever its type."""

    window: Tensor
    filter_bank: Tensor

    def __init__(self, window: np.ndarray, filter_bank: np.ndarray) -> None:
        super().__init__()
        # Computed by numpy, so that they are real even while a model is built on "meta".
        self._tables = tuple(torch.from_numpy(t.astype(np.float32)) for t in (window, filter_bank))
        self.register_buffer("window", self._tables[0], persistent=False)  # (N,)
        self.register_buffer("filter_bank", self._tables[1], persistent=False)  # (bins, num_mels)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # .to(bfloat16), .half() and the like round buffers for good; only the device may change.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call, unused-ignore]
        device = self.window.device
        self.window, self.filter_bank = (table.to(device) for table in self._tables)
        return self


def hann_window(size: int) -> np.ndarray:
    """A periodic Hann window, as an FFT repeats, float64 (size,)."""
    window: np.ndarray = np.hanning(size + 1)[:-1]
    return window
