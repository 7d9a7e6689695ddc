"""Encoders by name: random ones for trials, saved ones, and settings in place of saved ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dac_diffusion.encoders.loading import encoder_name, load_encoder, random_encoder
from dac_diffusion.errors import CheckpointError, ConfigError


@pytest.mark.parametrize("name", ["beats", "ced", "htsat", "codes", "paired"])
@torch.inference_mode()
def test_a_random_encoder_saved_and_loaded_by_its_name(name: str, tmp_path: Path) -> None:
    encoder = random_encoder(name, seed=3)
    encoder.save_pretrained(tmp_path)
    loaded = load_encoder(name, tmp_path)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    seconds = torch.randn(
        2, round(encoder.sampling_rate), generator=torch.Generator().manual_seed(0)
    )
    lengths = torch.tensor([seconds.shape[1], seconds.shape[1] // 2])
    expected, found = encoder(seconds, lengths), loaded(seconds, lengths)
    torch.testing.assert_close(found.features, expected.features, atol=1e-5, rtol=1e-5)
    again = random_encoder(name, seed=3)(seconds, lengths)
    assert torch.equal(again.features, expected.features)
    other = random_encoder(name, seed=4)(seconds, lengths)
    assert not torch.equal(other.features, expected.features)
    assert encoder_name(loaded) == name


@pytest.mark.parametrize("name", ["beats", "ced", "htsat"])
@torch.inference_mode()
def test_settings_given_hold_in_place_of_those_saved(name: str, tmp_path: Path) -> None:
    random_encoder(name).save_pretrained(tmp_path)
    plain, pooled = load_encoder(name, tmp_path), load_encoder(name, tmp_path, 5.0, "mean")
    assert pooled.window_seconds == pooled.config.window_seconds == 5.0
    assert pooled.config.frequency_pooling == "mean"
    waveform, lengths = torch.randn(1, 16000), torch.tensor([16000])
    frames = [e(waveform, lengths).features.shape[1] for e in (plain, pooled)]
    assert frames[0] % frames[1] == 0
    assert frames[0] > frames[1]


def test_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="encoder='panns' is unknown: use one of small, beats"):
        load_encoder("panns", tmp_path)
    with pytest.raises(ConfigError, match="the small encoder has no such setting"):
        load_encoder("small", "builtin", frequency_pooling="mean")
    with pytest.raises(ConfigError, match="frequency_pooling: codes have no such setting; it"):
        load_encoder("codes", tmp_path, frequency_pooling="mean")
    with pytest.raises(CheckpointError, match=r"config\.json: is missing, so this is no complete"):
        load_encoder("codes", tmp_path)
    with pytest.raises(CheckpointError, match=r"no\.pt: there is no such file"):
        load_encoder("beats", tmp_path / "no.pt")
    with pytest.raises(ConfigError, match="not possible for small"):
        random_encoder("small")
