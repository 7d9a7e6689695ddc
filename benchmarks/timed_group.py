"""Timing a group of settings in turn, round after round, in one process."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Row
from stopwatch import (
    Stopwatch,
    captioning_parts,
    count_calls,
    parameters_by_part,
    peak_memory,
    spread,
    weight_bytes,
    writing_network,
)
from systems import Setting
from tqdm import tqdm

from dac_diffusion.files import atomic_write

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


def kept_group(path: Path | None, head: Row, measure: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a group that an earlier run kept under the same head, else measured and kept.

    head: all that the rows depend on: weights, settings, machine. path: None keeps nothing.
    """
    head = json.loads(json.dumps(head))
    if path is not None and path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["head"] == head:
            kept: list[Row] = content["rows"]
            return kept
    rows = measure()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            json.dump({"head": head, "rows": rows}, file)
    return rows


def time_group(
    group: Group,
    settings: Sequence[Setting],
    captioners: dict[str, Any],
    clips: Sequence[Any],
    args: argparse.Namespace,
) -> list[Row]:
    """The rows of a group on the first of the clips; the ratio is to its first setting.

    args: rounds, minutes, seed, fixed_length.
    """
    clips = list(clips[: group.batch_size])
    for setting in settings:  # the warm-up
        call(captioners[setting.model], setting, clips[:1], args)
    measured: list[list[Row]] = [[] for _ in settings]
    started = time.monotonic()
    for done in tqdm(range(args.rounds), desc=f"timing {group.key}", unit="round", leave=False):
        if done >= FEWEST_ROUNDS and time.monotonic() - started > 60 * args.minutes:
            break
        for setting, calls in zip(settings, measured, strict=True):
            calls.append(time_call(captioners[setting.model], setting, clips, args))
    reference = [counted(one, settings[0]) for one in measured[0]]
    return [
        {
            **described_row(group, setting, captioners[setting.model]),
            **measured_row(setting, group.batch_size, calls, reference),
        }
        for setting, calls in zip(settings, measured, strict=True)
    ]


def described_row(group: Group, setting: Setting, captioner: Any) -> Row:
    """What was timed."""
    parts = parameters_by_part(captioner)
    return {
        "system": setting.system,
        "model": setting.model,
        "setting": setting.name,
        "group": group.key,
        "parameters": sum(parts.values()),
        "parameters_by_part": parts,
        "batch_size": group.batch_size,
        "captions_per_clip": group.num_captions,
        # Of the network: encoders of codes stay in float32.
        "dtype": str(writing_network(captioner).dtype).removeprefix("torch."),
        "device": str(captioner.device),
    }


def call(captioner: Any, setting: Setting, clips: list[Any], args: argparse.Namespace) -> Any:
    """Caption the clips as a user would."""
    return captioner(
        clips, batch_size=len(clips), seed=args.seed, progress=False, **setting.arguments()
    )


def time_call(captioner: Any, setting: Setting, clips: list[Any], args: argparse.Namespace) -> Row:
    """Seconds of one call and of its parts, network calls, memory, tokens and words written.

    peak_memory: of the call and this captioner's weights; others may be in memory beside it.
    """
    watch = Stopwatch(captioner.device)
    network = writing_network(captioner)

    def timed() -> Any:
        return watch.time("call", lambda: call(captioner, setting, clips, args))

    with watch.watching(captioning_parts(captioner)):
        (results, calls), taken = peak_memory(captioner.device, lambda: count_calls(network, timed))
    memory = None if taken is None else taken + weight_bytes(captioner)
    texts = [text for result in results for text in setting.texts(result)]
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


def counted(seconds: Row, setting: Setting) -> float:
    """The seconds of a call that count for APS and TPS: of a ranked setting, ranking as well."""
    parts = (*COUNTED, "ranking") if setting.ranked else COUNTED
    return sum(float(seconds[part]) for part in parts)


def measured_row(
    setting: Setting, size: int, measured: Sequence[Row], reference: Sequence[float]
) -> Row:
    """Rates and seconds per clip of calls with `size` clips; reference: seconds beside each."""
    seconds = [counted(one, setting) for one in measured]
    low, median, high = spread([size / each for each in seconds])
    ratios = spread([first / each for first, each in zip(reference, seconds, strict=True)])
    memory = [one["peak_memory"] for one in measured if one["peak_memory"] is not None]
    return {
        "network_calls": measured[0]["network_calls"],
        "aps": median,
        "aps_low": low,
        "aps_high": high,
        "tps": _rate([one["tokens"] for one in measured], seconds),
        "wps": _rate([one["words"] for one in measured], seconds),
        "ratio": ratios[1],
        "ratio_low": ratios[0],
        "ratio_high": ratios[2],
        **{part: spread([one.get(part, 0.0) / size for one in measured])[1] for part in PARTS},
        "peak_memory": max(memory, default=None),
        "rounds": len(measured),
        "raw": {"measured": list(measured)},
    }


def _rate(written: Sequence[int | None], seconds: Sequence[float]) -> float | None:
    """Median tokens or words a second, None where they were not counted."""
    known = [
        count / each for count, each in zip(written, seconds, strict=True) if count is not None
    ]
    return spread(known)[1] if known else None
