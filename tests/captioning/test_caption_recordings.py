"""The windows of recordings, and how many features they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dac_diffusion.captioning.inputs import Recording
from dac_diffusion.captioning.recordings import _windows, most_features
from dac_diffusion.captioning.window_encoding import encode_windows
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.encoders.loading import random_encoder


def encoder_of(name: str) -> Any:
    if name == "small":
        sizes = {"channels": (4, 4, 8, 8), "width": 16, "depth": 1}
        return ConvolutionalEncoder(window_seconds=3.0, canvas_seconds=0.5, **sizes).eval()
    encoder = random_encoder(name)
    if name == "ced":
        encoder.window_seconds = 3.0
    return encoder


@pytest.mark.parametrize("name", ["small", "ced", "htsat"])
@torch.no_grad()
def test_no_window_has_more_features_than_the_longest(name: str) -> None:
    """Of recordings up to two windows and a tail, in steps of 50 ms about the longest one."""
    encoder = encoder_of(name)
    rate, window = encoder.sampling_rate, encoder.window_seconds
    state = torch.get_rng_state()
    most = most_features(encoder)
    assert torch.equal(torch.get_rng_state(), state)
    counts = []
    for seconds in (0.3, window, *(window + 2.3 + 0.05 * i for i in range(6)), 2 * window + 2.4):
        waveform = np.zeros(round(seconds * rate), np.float32)
        for part in _windows(Recording("silence", waveform), encoder):
            audio = encode_windows(encoder, [part], torch.device("cpu"))
            counts.append(audio.features.shape[1])
    assert max(counts) == most
    assert min(counts) < most or name == "htsat"
