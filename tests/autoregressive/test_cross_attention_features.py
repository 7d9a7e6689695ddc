"""Encoder features as a decoder's cross-attention gets them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dac_diffusion.autoregressive.cross_attention_features import CrossAttentionFeatures
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.saved_models import load_saved_model


def features(width: int) -> AudioFeatures:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(5) < torch.tensor([5, 3])[:, None]
    return AudioFeatures(torch.randn(2, 5, width, generator=generator), mask, torch.zeros(2, width))


def test_features_of_the_same_width_are_taken_as_they_are() -> None:
    audio = features(6)
    projection = CrossAttentionFeatures(6, 6)
    hidden, mask = projection(audio)
    assert torch.equal(hidden, audio.features)
    assert torch.equal(mask, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
    assert mask.dtype == torch.long
    assert not list(projection.parameters())


def test_others_are_projected_frame_by_frame() -> None:
    audio = features(6)
    projection = CrossAttentionFeatures(6, 4)
    weight, bias = projection.features_in.weight, projection.features_in.bias
    hidden, _ = projection(audio)
    assert hidden.shape == (2, 5, 4)
    expected = torch.einsum("bsd,wd->bsw", audio.features, weight) + bias
    torch.testing.assert_close(hidden, expected)


@pytest.mark.parametrize("width", [6, 4])
def test_saved_and_loaded(tmp_path: Path, width: int) -> None:
    projection = CrossAttentionFeatures(6, width).eval()
    projection.save_pretrained(tmp_path)
    loaded = load_saved_model(CrossAttentionFeatures, tmp_path)
    for a, b in zip(loaded(features(6)), projection(features(6)), strict=True):
        assert torch.equal(a, b)
    half = load_saved_model(CrossAttentionFeatures, tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
