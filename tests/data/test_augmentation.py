from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dac_diffusion.data.augmentation import AugmentationConfig, augment_log_mel

OFF = AugmentationConfig(
    gain_decibels=0.0,
    equaliser_decibels=0.0,
    frequency_masks=0,
    time_masks=0,
    noise_floor_decibels=None,
    mel_shift_bands=0,
)
DECIBEL = torch.tensor(10.0).log().item() / 10  # in natural logarithms of power


def log_mel(batch: int = 3, frames: int = 60, mels: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    # So far above the floor of -11.5 that adding it is no change.
    return (1 + 2 * torch.randn(batch, frames, mels, generator=generator)).clamp_min(-1)


def augment(config: AugmentationConfig, seed: int = 0, x: Tensor | None = None) -> Tensor:
    x = log_mel() if x is None else x
    before = x.clone()
    result = augment_log_mel(x, config, torch.Generator().manual_seed(seed))
    assert torch.equal(x, before)  # the pool's frames are not changed in place
    assert result.shape == x.shape
    return result


def test_the_generator_decides_everything() -> None:
    config = AugmentationConfig(mel_shift_bands=3)
    torch.manual_seed(1)
    first = augment(config)
    torch.manual_seed(2)
    assert torch.equal(augment(config), first)
    assert not torch.equal(augment(config, seed=1), first)
    assert torch.isfinite(first).all()


def test_zero_strengths_leave_the_frames_as_they_are() -> None:
    torch.testing.assert_close(augment(OFF), log_mel(), rtol=0, atol=1e-3)
    silence = torch.full((2, 10, 64), 1e-5).log()
    torch.testing.assert_close(augment(OFF, x=silence), silence, rtol=0, atol=1e-5)


def test_gain_is_one_number_a_clip_within_its_range() -> None:
    change = augment(replace(OFF, gain_decibels=10.0)) - log_mel()
    gains = change.mean(dim=(1, 2))
    torch.testing.assert_close(change, gains[:, None, None].expand_as(change), rtol=0, atol=2e-2)
    assert gains.abs().max() <= 10 * DECIBEL
    assert gains.std() > 0.1


def test_the_equaliser_is_one_smooth_curve_a_clip() -> None:
    change = augment(replace(OFF, equaliser_decibels=6.0)) - log_mel()
    curve = change.median(dim=1).values  # (B, M)
    torch.testing.assert_close(change, curve[:, None].expand_as(change), rtol=0, atol=2e-2)
    assert curve.abs().max() <= 6 * DECIBEL + 1e-2
    # Five knots, so at most 12 dB over a quarter of the 64 bands.
    assert curve.diff(dim=1).abs().max() <= 12 * DECIBEL / 15.75 + 2e-2
    assert curve.std(dim=1).min() > 0.05


def test_noise_is_added_to_some_clips_only_and_never_lowers_anything() -> None:
    x = log_mel(batch=40) - 5
    change = augment(replace(OFF, noise_floor_decibels=-20.0), x=x) - x
    assert change.min() > -1e-4
    noisy = change.amax(dim=(1, 2)) > 1e-4
    assert 8 < int(noisy.sum()) < 32


@pytest.mark.parametrize("axis", ["frequency", "time"])
def test_masks_mask_whole_bands_or_frames_by_the_clip_s_mean(axis: str) -> None:
    if axis == "frequency":
        config = replace(OFF, frequency_masks=2, frequency_mask_bands=10)
    else:
        config = replace(OFF, time_masks=2, time_mask_frames=20)
    x = log_mel(batch=20)
    augmented = augment(config, x=x)
    masked = (augmented - x).abs() > 5e-3  # (B, T, M)
    if axis == "time":
        masked, augmented, x = (t.transpose(1, 2) for t in (masked, augmented, x))
    lines = masked.float().mean(dim=1)  # (B, M): nearly all of a line or nothing
    hit = lines > 0.5
    assert ((lines > 0.9) | (lines == 0)).all()
    widest = 2 * (10 if axis == "frequency" else 20)
    assert 0 < int(hit.sum(dim=1).max()) <= widest + 2
    assert int((hit.sum(dim=1) > 0).sum()) >= 18
    mean = x.mean(dim=(1, 2))[:, None, None].expand_as(x)
    hit_cells = hit[:, None].expand_as(x)
    torch.testing.assert_close(augmented[hit_cells], mean[hit_cells], rtol=0, atol=1e-3)


def test_a_mel_shift_moves_every_frame_alike() -> None:
    x = log_mel(batch=30)
    shifted = augment(replace(OFF, mel_shift_bands=3), x=x)
    found = set()
    for before, after in zip(x, shifted, strict=True):
        for bands in range(-3, 4):
            inner = slice(3 + bands, 61 + bands)
            if torch.allclose(after[:, inner], before[:, 3:61], atol=1e-3):
                found.add(bands)
                break
        else:
            pytest.fail("no shift of at most three bands explains the clip")
    assert len(found) > 3
