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
FRONT_ENDS = ("log_mel", "filter_bank", "mel")  # what encoders call their spectrogram


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

    Reading files is not among them; "encoding" is what encode_windows does, "features" included,
    and looking captions up ("retrieval").
    """
    from dac_diffusion.autoregressive import captioner as sequence_captioner
    from dac_diffusion.autoregressive import drawing as sequences
    from dac_diffusion.autoregressive import retrieval_prompt
    from dac_diffusion.captioning import drawing, ranking, scoring

    looking_up = (retrieval_prompt, "retrieve_prompts")
    return {
        "features": [(module, "forward") for module in front_ends(captioner.encoder)],
        "retrieval": [looking_up],
        "encoding": [(drawing, "encode_windows"), (sequences, "encode_windows"), looking_up],
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
            (ranking, "error_probabilities"),
        ],
    }


def front_ends(encoder: Any) -> list[torch.nn.Module]:
    """The modules that make spectrograms; an encoder of codes has those of its parts, or none."""
    from dac_diffusion.codecs.code_encoder import CodeEncoder

    if not isinstance(encoder, CodeEncoder):
        return [front_end(encoder)]
    names = ((name.rpartition(".")[2], module) for name, module in encoder.named_modules())
    return [module for name, module in names if name in FRONT_ENDS]


def front_end(encoder: Any) -> torch.nn.Module:
    """The module of an audio encoder that makes its spectrogram, whatever it is called there."""
    for name in FRONT_ENDS:
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
    """The network whose forward passes count as network calls: denoiser or decoder.

    Of a language model without an encoder, all but what makes logits of its output.
    """
    from dac_diffusion.captioner import DiffusionCaptioner

    network: torch.nn.Module
    if isinstance(captioner, DiffusionCaptioner):
        network = captioner.denoiser
    elif captioner.network.config.is_encoder_decoder:
        network = captioner.network.model.decoder
    else:
        network = captioner.network.base_model
    return network


def without_likelihood(captioner: Any) -> Any:
    """The captioner, ranking by similarity alone: what is not ranked need not be computed."""
    captioner.register_to_config(likelihood_weight=0.0, agreement_weight=0.0, error_threshold=None)
    if "ranking" in captioner.config:
        captioner.register_to_config(ranking="audio_text")
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
    """Parameters of every network that writing needs, by the name of the component.

    An encoder's codec belongs to it, codebooks included. Of the scorer, which ranks, only the part
    that a captioner looks captions up with is counted, as "retrieval".
    """
    counts = {
        name: _count(part)
        for name, part in captioner.components.items()
        if name != "scorer" and isinstance(part, torch.nn.Module)
    }
    looks_up = captioner.config.get("retrieved") is not None
    if looks_up and captioner.config.retrieval_space == "scorer":
        counts["retrieval"] = _count(captioner.scorer.project_audio)
    return counts


def _count(module: torch.nn.Module) -> int:
    """Numbers in the parameters, and in the codebooks of EnCodec, which are buffers there."""
    buffers = module.named_buffers()
    codebooks = [buffer for name, buffer in buffers if name.rpartition(".")[2] == "embed"]
    return sum(tensor.numel() for tensor in (*module.parameters(), *codebooks))


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The 10th percentile, the median and the 90th percentile."""
    import numpy as np

    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    return low, median, high
