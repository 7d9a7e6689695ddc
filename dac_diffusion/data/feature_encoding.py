"""Recordings through a frozen audio encoder, for the feature cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dac_diffusion.audio.loading import load_audio
from dac_diffusion.captioning.inputs import Recording, Source, decode_ahead
from dac_diffusion.captioning.invariance import ACCELERATOR_CLIPS
from dac_diffusion.captioning.window_encoding import Window, encode_windows, window_batches
from dac_diffusion.encoders.base import weights_digest
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import AudioError

CLIPS_PER_SHARD = 256  # at most 600 MB, of 30 s BEATs features; what a killed process loses
# Recordings decoded before they are encoded: more on an accelerator, so that those of one canvas
# fill its batches.
CPU_CHUNK, ACCELERATOR_CHUNK = 8, 128
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class FeatureSettings:
    """The encoder, by its name and weights (encoders/loading.py), and how it is run.

    window_seconds: the longest part of a recording that is encoded, from its start;
    frequency_pooling: "none" or "mean"; both the encoder's own if None. device: "cpu", "cuda", ...
    processes: how many share the work, each with a copy of the encoder; on a CPU each uses one
    thread, so there may be as many as cores.
    """

    encoder: str
    weights: str | Path
    window_seconds: float | None = None
    frequency_pooling: Literal["none", "mean"] | None = None
    device: str = "cpu"
    processes: int = 1
    clips_per_shard: int = CLIPS_PER_SHARD


@dataclass(frozen=True)
class EncodedRecording:
    """Features (S, D), float16 or codes, without padding, pooled (P,) float32, and facts."""

    features: np.ndarray
    pooled: np.ndarray
    seconds: float
    cut: bool
    sha256: str


def load_frozen_encoder(settings: FeatureSettings) -> Any:  # an AudioEncoder that is an nn.Module
    """The encoder that the settings name, on the CPU; raises as `load_encoder` does."""
    return load_encoder(
        settings.encoder, settings.weights, settings.window_seconds, settings.frequency_pooling
    )


def describe_encoder(name: str, encoder: Any) -> dict[str, Any]:
    """What decides the features of an encoder: its name, sizes, settings and weights, as JSON."""
    config = {k: v for k, v in getattr(encoder, "config", {}).items() if not k.startswith("_")}
    config.pop("window_seconds", None)
    described = {
        "name": name,
        "window_seconds": encoder.window_seconds,
        "sampling_rate": encoder.sampling_rate,
        "feature_dim": encoder.feature_dim,
        "pooled_dim": encoder.pooled_dim,
        "settings": config,
        "weights_sha256": weights_digest(encoder),
    }
    for attribute in ("num_codebooks", "codebook_size"):  # of an encoder that makes codes
        if hasattr(encoder, attribute):
            described[attribute] = getattr(encoder, attribute)
    as_json: dict[str, Any] = json.loads(json.dumps(described, sort_keys=True, default=str))
    return as_json


def hash_file(path: Path) -> str:
    """SHA-256 of a file. Raises AudioError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


@torch.inference_mode()
def encode_recordings(
    encoder: Any, paths: Sequence[Path], device: torch.device
) -> Iterator[EncodedRecording | AudioError]:
    """Encode recordings in order, each as if it were alone; an error in place of a broken one.

    Of a recording longer than the encoder's window_seconds, those are encoded and the rest is cut.
    """
    on_cpu = device.type == "cpu"
    size = CPU_CHUNK if on_cpu else ACCELERATOR_CHUNK
    longest = round(encoder.window_seconds * encoder.sampling_rate)
    facts: dict[str, tuple[str, int]] = {}  # SHA-256, and samples of the whole recording

    def load(path: Path) -> np.ndarray:
        waveform = load_audio(path, encoder.sampling_rate)
        facts[str(path)] = hash_file(path), len(waveform)
        return waveform[:longest].copy()  # a copy, because a slice would keep all of it in memory

    sources = [Source(str(path), partial(load, path), str(path)) for path in paths]
    threads = 1 if on_cpu else 4  # on a CPU the other processes have the other cores
    chunk: list[Recording] = []
    for recording in decode_ahead(sources, threads):
        chunk.append(recording)
        if len(chunk) == size:
            yield from _encode_chunk(encoder, chunk, facts, device)
            chunk = []
    yield from _encode_chunk(encoder, chunk, facts, device)


def _encode_chunk(
    encoder: Any, chunk: list[Recording], facts: dict[str, tuple[str, int]], device: torch.device
) -> Iterator[EncodedRecording | AudioError]:
    windows = [
        Window(each.file_name, 0.0, each.waveform) for each in chunk if each.waveform is not None
    ]
    features: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for indices in window_batches(windows, encoder, ACCELERATOR_CLIPS):
        batch = [windows[index] for index in indices]
        audio = encode_windows(encoder, batch, device).to("cpu", torch.float32)
        for window, frames, mask, pooled in zip(
            batch, audio.features, audio.mask, audio.pooled, strict=True
        ):
            own = frames[mask]  # (S, D)
            stored = own.half() if own.is_floating_point() else own
            features[window.file_name] = (stored.numpy(), pooled.numpy())
    for recording in chunk:
        if recording.waveform is None:
            yield recording.error or AudioError(f"{recording.file_name}: cannot be read")
            continue
        frames, pooled = features[recording.file_name]
        if len(frames) == 0 or not (np.isfinite(frames).all() and np.isfinite(pooled).all()):
            yield AudioError(
                f"{recording.file_name}: the encoder gives no features for it that float16 can "
                "hold; leave it out or check the weights"
            )
            continue
        sha256, samples = facts[recording.file_name]
        yield EncodedRecording(
            features=frames,
            pooled=pooled,
            seconds=samples / encoder.sampling_rate,
            cut=samples > len(recording.waveform),
            sha256=sha256,
        )
