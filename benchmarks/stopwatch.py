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
    """Accumulates the seconds of wrapped functions by the part they belong to.

    On the CPU by the clock; on CUDA between two events of the stream, after everything before is
    done, and waited for, so that a part has its own work only.
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
        measured = self._on_cuda if self.device.type == "cuda" else self._on_cpu
        result, seconds = measured(call)
        self.seconds[part] += seconds
        return result

    def _on_cpu(self, call: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        result = call()
        return result, time.perf_counter() - start

    def _on_cuda(self, call: Callable[[], Any]) -> tuple[Any, float]:
        torch.cuda.synchronize(self.device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        result = call()
        end.record()
        end.synchronize()
        return result, start.elapsed_time(end) / 1000  # it counts in milliseconds

    def _wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            return self.time(part, lambda: function(*arguments, **named))

        return timed


def captioning_parts(captioner: Any) -> Parts:
    """The parts of one of our captioners: features, encoder, generation, text, ranking.

    Reading files is not among them; "encoding" is what encode_windows does, "features" included.
    """
    from dac_diffusion.autoregressive import captioner as sequence_captioner
    from dac_diffusion.autoregressive import drawing as sequences
    from dac_diffusion.captioning import drawing, scoring

    return {
        "features": [(front_end(captioner.encoder), "forward")],
        "encoding": [(drawing, "encode_windows"), (sequences, "encode_windows")],
        "generation": [
            (drawing.CandidateDrawer, "_remember"),
            (drawing.CandidateDrawer, "_sample"),
            (sequence_captioner, "encode_audio"),
            (sequences, "decode"),
        ],
        "text": [(drawing, "texts_of"), (sequences, "texts_of")],
        "ranking": [
            (drawing, "embed_texts"),
            (sequences, "embed_texts"),
            (drawing.CandidateDrawer, "_log_likelihoods"),
            (sequences, "sequence_log_likelihood"),
            (scoring, "mean_agreement"),
        ],
    }


def front_end(encoder: Any) -> torch.nn.Module:
    """The module of an audio encoder that makes its spectrogram, whatever it is called there."""
    for name in ("log_mel", "filter_bank", "mel"):
        if hasattr(encoder, name):
            module: torch.nn.Module = getattr(encoder, name)
            return module
    raise TypeError(f"{type(encoder).__name__} has no spectrogram that could be timed")


def count_calls(module: torch.nn.Module, call: Callable[[], Any]) -> tuple[Any, int]:
    """What a call gives, and how often a network ran forward meanwhile."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    handle = module.register_forward_hook(count)
    try:
        result = call()
        return result, calls
    finally:
        handle.remove()


def writing_network(captioner: Any) -> torch.nn.Module:
    """The network whose forward passes count as network calls: denoiser or decoder."""
    from dac_diffusion.captioner import DiffusionCaptioner

    diffusion = isinstance(captioner, DiffusionCaptioner)
    network: torch.nn.Module = captioner.denoiser if diffusion else captioner.network.model.decoder
    return network


def without_likelihood(captioner: Any) -> Any:
    """The captioner, ranking by similarity alone: what is not ranked need not be computed."""
    captioner.register_to_config(likelihood_weight=0.0, agreement_weight=0.0)
    return captioner


def peak_memory(device: torch.device, call: Callable[[], Any]) -> tuple[Any, float | None]:
    """What a call gives, and the most bytes that its tensors took on CUDA, weights not counted.

    None on the CPU, where only a process of its own can tell (`speed.py`).
    """
    if device.type != "cuda":
        return call(), None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = call()
    return result, float(torch.cuda.max_memory_allocated(device) - before)


def weight_bytes(captioner: Any) -> int:
    """Bytes of all parameters and buffers, those of the scorer included."""
    parts = [part for part in captioner.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [t for part in parts for t in (*part.parameters(), *part.buffers())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def parameters_by_part(captioner: Any) -> dict[str, int]:
    """Parameters of every network that writing needs, by the name of the component."""
    components = {name: part for name, part in captioner.components.items() if name != "scorer"}
    return {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in components.items()
        if isinstance(part, torch.nn.Module)
    }


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10th percentile, the median and the 90th percentile."""
    import numpy as np

    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    return low, median, high
