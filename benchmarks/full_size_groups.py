"""Times each system of full_size.py beside the references, one after another in memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from common import Row
from full_size_building import build_published
from full_size_llama import (
    FEW_CLIPS,
    FORMULA,
    computed_rows,
    memory_bytes,
    release_memory,
    weights_per_token,
    why_not,
)
from full_size_published import LLAMAS, Published, PublishedSizes
from full_size_rows import NOTE, parameters_of, with_ratios
from systems import Setting
from timed_group import Group, kept_group, time_group

# Of a device's memory, for what decoding remembers of the places before it (the KV cache).
CACHE_SHARE = 0.4
CLIP_SECONDS = 10
Captioners = Mapping[str, Any]


@dataclass(frozen=True)
class Timed:
    """What is timed in one group beside the references.

    settings: of the systems alone; published: None for those that are built with the references.
    """

    key: str
    settings: list[Setting]
    published: Published | None = None


def time_system(
    timed: Timed,
    dtype: str,
    references: Mapping[str, Setting],
    build_references: Callable[[], Captioners],
    sizes: PublishedSizes,
    clips: Sequence[Any],
    args: argparse.Namespace,
    head: Row,
) -> list[Row]:
    """Rows of a system and of the references for every number of clips, or a note why not.

    head: what all rows depend on. The system is built when the first group needs it, and given up
    after the last.
    """
    weights_type, system = getattr(torch, dtype), timed.published
    reasons: dict[int, str | None] = {}  # found before anything is built
    if system in LLAMAS.values():
        assert system is not None
        about = system.title, sizes.networks[system.network], weights_type, args.device
        reasons = {size: why_not(*about, size) for size in args.batch_sizes}

    build = cache(partial(build_all, system, sizes, weights_type, build_references, args))
    rows: list[Row] = [{NOTE: reason} for reason in dict.fromkeys(reasons.values()) if reason]
    for size in args.batch_sizes:
        if reasons.get(size) is not None:
            continue
        group = Group(dtype, 1, size)
        path = None if args.folder is None else args.folder / f"{timed.key}_{group.key}.json"
        measure = partial(time_beside, group, timed, references, build, clips, args)
        settings = [repr(setting) for setting in (*references.values(), *timed.settings)]
        rows += kept_group(path, {**head, "settings": settings}, measure)
    build.cache_clear()
    release_memory()
    return rows


def build_all(
    system: Published | None,
    sizes: PublishedSizes,
    dtype: torch.dtype,
    build_references: Callable[[], Captioners],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """The captioners of a group by name: those with the references, and a published system."""
    built = dict(build_references())
    if system is not None:
        built[system.title] = build_published(system, sizes, dtype, args.device, args.seed)
    return built


def time_beside(
    group: Group,
    timed: Timed,
    references: Mapping[str, Setting],
    build: Callable[[], Captioners],
    clips: Sequence[Any],
    args: argparse.Namespace,
) -> list[Row]:
    """The rows of one group, and notes on the settings that need too much memory."""
    captioners = build()
    fitting, notes = settings_that_fit(timed, captioners, group.batch_size, args.device)
    settings = [s for s in references.values() if s not in fitting] + fitting
    rounds = args.rounds if group.batch_size <= FEW_CLIPS else min(args.rounds, args.many_rounds)
    limits = argparse.Namespace(**{**vars(args), "rounds": rounds})
    rows = time_group(group, settings, dict(captioners), clips, limits)
    rows = with_ratios(rows, settings, references)
    for row in rows:
        peak = row["peak_memory"]
        row["peak_gigabytes"] = None if peak is None else peak / 1e9
        row["parameters_by_part"] = parameters_of(captioners[row["model"]])
        row["beside"] = timed.key
    return rows + [{NOTE: note} for note in notes]


def settings_that_fit(
    timed: Timed, captioners: Captioners, size: int, device: str
) -> tuple[list[Setting], list[str]]:
    """A system's settings for so many clips, and a line for each that would not fit in memory."""
    if timed.published is None:
        return timed.settings, []
    total = memory_bytes(device, "total")
    captioner = captioners[timed.published.title]
    places = heard_places(captioner)
    fitting, notes = [], []
    for setting in timed.settings:
        needed = cache_bytes(captioner.network, setting, size, places)
        if total is None or needed <= CACHE_SHARE * total:
            fitting.append(setting)
        else:
            notes.append(
                f"{setting.model}, {setting.name}, {size} clips: not timed, what decoding "
                f"remembers (its KV cache) would take {needed / 1e9:.1f} GB of {total / 1e9:.1f}"
            )
    return fitting, notes


@torch.inference_mode()
def heard_places(captioner: Any) -> int:
    """How many places of a clip of 10 s a captioner's decoder sees, prompts included."""
    encoder, device = captioner.encoder, captioner.device
    samples = CLIP_SECONDS * encoder.sampling_rate
    noise = 0.1 * torch.randn(1, encoder.canvas_samples(samples), device=device)  # (1, T)
    encoded = captioner.encode(encoder(noise, torch.tensor([samples], device=device)))
    return sum(part.shape[1] for part in (encoded.hidden, encoded.prefix) if part is not None)


def cache_bytes(network: Any, setting: Setting, size: int, places: int) -> float:
    """Bytes of keys and values at the end of captioning `size` clips of so many places, at most."""
    from dac_diffusion.autoregressive.drawing import CLIPS_PER_CALL, SEQUENCES_PER_CALL

    call, config = setting.call, network.config
    beams = call["num_beams"] if call["decoding"] == "beam" else 1
    of_clip = max(beams, call.get("num_candidates", 1))
    sequences = min(min(size, CLIPS_PER_CALL) * of_clip, max(SEQUENCES_PER_CALL, of_clip))
    layers = config.num_hidden_layers
    if config.is_encoder_decoder:
        layers = config.decoder_layers
    heads = config.num_attention_heads
    width = config.hidden_size * getattr(config, "num_key_value_heads", heads) // heads
    bytes_per_place = 2.0 * layers * width * network.dtype.itemsize
    return bytes_per_place * sequences * (places + int(call["max_length"]))


def llamas_by_arithmetic(
    rows: Sequence[Row],
    wanted: Sequence[Published],
    references: Mapping[str, Setting],
    sizes: PublishedSizes,
) -> list[Row]:
    """Rows of the groups in which a Llama was wanted and not timed, computed from smaller ones."""
    measured = [row for row in rows if NOTE not in row]
    weights = {
        s.title: weights_per_token(sizes.networks[s.network]) for s in wanted
    }  # that each token reads
    timed = {(row["model"], row["group"]) for row in measured}
    groups = dict.fromkeys(row["group"] for row in measured)
    found: list[Row] = []
    for title in weights:
        for group in groups:
            if (title, group) in timed:
                continue
            of_sizes = {
                weights[model]: [r for r in measured if (r["model"], r["group"]) == (model, group)]
                for model in weights
                if weights[model] < weights[title]
            }
            of_sizes = {number: own for number, own in of_sizes.items() if own}
            if len(of_sizes) < 2:
                continue
            beside = of_sizes[max(of_sizes)][0]["beside"]
            near = {
                key: next(row for row in measured if (row["beside"], row["group"], row["model"],
                          row["setting"]) == (beside, group, setting.model, setting.name))
                for key, setting in references.items()
            }  # fmt: skip
            found += computed_rows(title, weights[title], of_sizes, near)
        if any(row.get("model") == title for row in found):
            known = " < ".join(f"{weights[model] / 1e9:.2f}" for model in weights)
            found.append({NOTE: f"{title}: {FORMULA}; in billions {known}"})
    return found
