"""Seconds spent in named parts of a call, measured from outside by wrapping functions."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

# Where the captioners do what. Every part is a list of (object or module, attribute).
Parts = dict[str, list[tuple[Any, str]]]


class Stopwatch:
    """Accumulates the wall-clock seconds of wrapped functions by the part they belong to.

    On CUDA the device is waited for before and after, so that a part has its own work only.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def watching(self, parts: Parts) -> Iterator[None]:
        """Wrap the functions for as long as the context lasts."""
        with ExitStack() as stack:
            for part, places in parts.items():
                for owner, attribute in places:
                    wrapped = self._wrap(part, getattr(owner, attribute))
                    stack.enter_context(mock.patch.object(owner, attribute, wrapped))
            yield

    def time(self, part: str, call: Callable[[], Any]) -> Any:
        """Call and add its seconds to a part."""
        self._wait()
        start = time.perf_counter()
        result = call()
        self._wait()
        self.seconds[part] += time.perf_counter() - start
        return result

    def _wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            return self.time(part, lambda: function(*arguments, **named))

        return timed

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def captioning_parts(captioner: Any) -> Parts:
    """The parts of one of our captioners: features, encoder, generation, text, ranking.

    Reading files is not among them; "encoder" is what encode_windows does beside the log-mel.
    """
    from dac_diffusion.autoregressive import captioner as autoregressive
    from dac_diffusion.captioning import drawing

    return {
        "features": [(captioner.encoder.log_mel, "forward")],
        "encoding": [(drawing, "encode_windows"), (autoregressive, "encode_windows")],
        "generation": [
            (drawing.CandidateDrawer, "_remember"),
            (drawing.CandidateDrawer, "_sample"),
            (autoregressive, "encode_audio"),
            (autoregressive, "decode"),
        ],
        "text": [(drawing, "texts_of"), (autoregressive, "texts_of")],
        "ranking": [
            (drawing, "embed_texts"),
            (autoregressive, "embed_texts"),
            (drawing.CandidateDrawer, "_log_likelihoods"),
            (autoregressive, "sequence_log_likelihood"),
        ],
    }


def count_calls(module: torch.nn.Module, call: Callable[[], Any]) -> int:
    """How often a network runs forward during a call."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    handle = module.register_forward_hook(count)
    try:
        call()
    finally:
        handle.remove()
    return calls


def network_calls(captioner: Any, call: Callable[[], Any]) -> int:
    """Forward passes of the network that writes, during a call that captions one clip."""
    from dac_diffusion.captioner import DiffusionCaptioner
    from dac_diffusion.diffusion.likelihood import TIMES

    diffusion = isinstance(captioner, DiffusionCaptioner)
    module = captioner.denoiser if diffusion else captioner.network.model.decoder
    calls = count_calls(module, call)
    # The diffusion captioner's ranking may ask the denoiser as well; that is not writing.
    ranking = len(TIMES) if diffusion and captioner.config.likelihood_weight else 0
    return calls - ranking


def count_parameters(captioner: Any) -> int:
    """Parameters of everything that writing needs: all components but the scorer."""
    names = [name for name in captioner.components if name != "scorer"]
    modules = [getattr(captioner, name) for name in names]
    return sum(
        parameter.numel()
        for module in modules
        if isinstance(module, torch.nn.Module)
        for parameter in module.parameters()
    )


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10th percentile, the median and the 90th percentile."""
    import numpy as np

    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    return low, median, high
