"""Timing a group of settings in turn, round after round, in one process."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import Row
from stopwatch import (
    Stopwatch,
    captioning_parts,
    count_calls,
    count_parameters,
    peak_memory,
    spread,
    writing_network,
)
from systems import Setting, autoregressive_settings, diffusion_settings, fixed_length
from tqdm import tqdm

SAMPLING_RATE = 32000
# What APS counts; "features" lies within "encoding".
COUNTED = ("encoding", "generation", "text")
PARTS = ("features", "encoding", "generation", "text", "ranking", "call")
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Group:
    """Settings timed against one another: dtype, K captions of each of `batch_size` clips."""

    dtype: str
    num_captions: int
    batch_size: int

    @property
    def key(self) -> str:
        """The group as part of a file name."""
        return f"{self.dtype}_K{self.num_captions}_B{self.batch_size}"


def time_group(
    group: Group,
    captioners: dict[str, Any],
    waveforms: Sequence[np.ndarray],
    args: argparse.Namespace,
) -> list[Row]:
    """The rows of a group; the ratio is to its first autoregressive setting."""
    settings = autoregressive_settings(args.autoregressive, group.num_captions)
    settings += diffusion_settings(args.model, group.num_captions, tuple(args.steps))
    settings = fixed_length(settings, args.fixed_length)
    clips = [(waveform, SAMPLING_RATE) for waveform in waveforms[: group.batch_size]]
    for setting in settings:  # the warm-up
        call(captioners[setting.model], setting, clips[:1], args)
    measured: dict[str, list[Row]] = {setting.key: [] for setting in settings}
    started = time.monotonic()
    for done in tqdm(range(args.rounds), desc=f"timing {group.key}", unit="round", leave=False):
        if done >= FEWEST_ROUNDS and time.monotonic() - started > 60 * args.minutes:
            break
        for setting in settings:
            captioner = captioners[setting.model]
            measured[setting.key].append(time_call(captioner, setting, clips, args))
    reference = [counted(one) for one in measured[settings[0].key]]
    return [
        {
            "system": setting.system,
            "setting": setting.name,
            "group": group.key,
            "parameters": count_parameters(captioners[setting.model]),
            "batch_size": group.batch_size,
            "captions_per_clip": group.num_captions,
            "dtype": str(captioners[setting.model].dtype).removeprefix("torch."),
            "device": str(captioners[setting.model].device),
            **measured_row(group.batch_size, measured[setting.key], reference),
        }
        for setting in settings
    ]


def call(captioner: Any, setting: Setting, clips: list[Any], args: argparse.Namespace) -> Any:
    """Caption the clips as a user would."""
    return captioner(
        clips, batch_size=len(clips), seed=args.seed, progress=False, **setting.arguments()
    )


def time_call(captioner: Any, setting: Setting, clips: list[Any], args: argparse.Namespace) -> Row:
    """Seconds of one call and of its parts, network calls, memory, tokens and words written."""
    watch = Stopwatch(captioner.device)
    network = writing_network(captioner)

    def timed() -> Any:
        return watch.time("call", lambda: call(captioner, setting, clips, args))

    with watch.watching(captioning_parts(captioner)):
        (results, calls), memory = peak_memory(
            captioner.device, lambda: count_calls(network, timed)
        )
    texts = [text for result in results for text in result.candidates[: setting.num_captions]]
    written = count_written(captioner.tokenizer, texts, args.fixed_length)
    return {**watch.seconds, **written, "network_calls": calls, "peak_memory": memory}


def count_written(tokenizer: Any, texts: Sequence[str], length: int | None) -> Row:
    """Word pieces and words of the captions; of a fixed length, that many pieces each.

    The pieces are counted in the finished text. Random weights write pieces that join to other
    words, so where the length is fixed it is what counts, and words are not counted.
    """
    from dac_diffusion.text.words import tokenize

    if length is not None:
        return {"tokens": len(texts) * length, "words": None}
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return {"tokens": sum(map(len, ids)), "words": sum(len(tokenize(text)) for text in texts)}


def counted(seconds: Row) -> float:
    """The seconds of a call that count for APS and TPS."""
    return sum(float(seconds[part]) for part in COUNTED)


def measured_row(size: int, measured: Sequence[Row], reference: Sequence[float]) -> Row:
    """Rates and seconds per clip of calls with `size` clips; reference: seconds beside each."""
    seconds = [counted(one) for one in measured]
    low, median, high = spread([size / each for each in seconds])
    ratios = spread([first / each for first, each in zip(reference, seconds, strict=True)])
    memory = [one["peak_memory"] for one in measured if one["peak_memory"] is not None]
    return {
        "network_calls": measured[0]["network_calls"],
        "aps": median,
        "aps_low": low,
        "aps_high": high,
        "tps": _rate(measured, "tokens"),
        "wps": _rate(measured, "words"),
        "ratio": ratios[1],
        "ratio_low": ratios[0],
        "ratio_high": ratios[2],
        **{part: spread([one.get(part, 0.0) / size for one in measured])[1] for part in PARTS},
        "peak_memory": max(memory, default=None),
        "rounds": len(measured),
        "raw": {"measured": list(measured)},
    }


def _rate(measured: Sequence[Row], written: str) -> float | None:
    """Median tokens or words a second, None where they were not counted."""
    if measured[0][written] is None:
        return None
    return spread([one[written] / counted(one) for one in measured])[1]
