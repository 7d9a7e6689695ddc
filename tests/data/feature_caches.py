"""A tiny encoder, a data set of noise, and feature caches of both, for the tests of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from dac_diffusion.data.feature_encoding import FeatureSettings
from dac_diffusion.data.feature_preparation import PreparedFeatures, prepare_features
from dac_diffusion.data.published.dataset import CaptionDataset, CaptionedClip
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.loading import load_encoder
from tests.helpers import noise

RATE = 32000
WINDOW_SECONDS = 2.0
FRAME = 10240  # samples per feature frame
SECONDS = (0.3, 1.0, 2.0, 3.1, 0.7, 1.9, 2.6)  # of the recordings; two are cut


def save_encoder(folder: Path, seed: int = 0) -> Path:
    """A folder with a tiny random encoder that hears 2 s."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    encoder = ConvolutionalEncoder(
        channels=(4, 4, 8, 8), width=32, depth=1, heads=2, window_seconds=WINDOW_SECONDS
    )
    torch.set_rng_state(state)
    encoder.save_pretrained(folder)
    return folder


def write_noise(path: Path, seconds: float, seed: int) -> None:
    """A recording of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed), RATE)


def write_dataset(folder: Path, seconds: Sequence[float] = SECONDS) -> CaptionDataset:
    """Recordings a/0.wav, b/1.wav, a/2.wav, ... with one caption more each."""
    clips = []
    for i, length in enumerate(seconds):
        path = folder / f"{'ab'[i % 2]}/{i}.wav"
        write_noise(path, length, seed=i)
        captions = tuple(f"caption {j} of {i}" for j in range(i + 1))
        clips.append(CaptionedClip(f"clip {i}", path, captions))
    return CaptionDataset(folder, tuple(clips))


def prepare(
    dataset: CaptionDataset, output: Path, weights: Path, **settings: Any
) -> PreparedFeatures:
    """Make a cache with two clips in each shard."""
    settings = {"clips_per_shard": 2, **settings}
    return prepare_features(
        dataset, output, FeatureSettings("small", weights, **settings), progress=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a cache and what is in it, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def encode_alone(weights: Path, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The features (S, D) and the pooled vector (P,) of one recording, without the cache."""
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    samples = samples[: round(WINDOW_SECONDS * RATE)]
    encoder = load_encoder("small", weights)
    canvas = np.zeros(encoder.canvas_samples(len(samples)), np.float32)
    canvas[: len(samples)] = samples
    with torch.inference_mode():
        audio = encoder(torch.from_numpy(canvas)[None], torch.tensor([len(samples)]))
    frames = (len(samples) - 1) // FRAME + 1
    return audio.features[0, :frames].numpy(), audio.pooled[0].numpy()
