"""The spectrogram as features."""

import torch

from dac_diffusion.audio.log_mel import LogMel
from dac_diffusion.encoders.mel_patches import MelPatchEncoder
from dac_diffusion.saved_models import load_saved_model


def encoded(encoder: MelPatchEncoder, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
    canvas = max(encoder.canvas_samples(len(waveform)) for waveform in waveforms)
    batch = torch.zeros(len(waveforms), canvas)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = waveform
    audio = encoder(batch, torch.tensor([len(waveform) for waveform in waveforms]))
    assert bool((audio.features[~audio.mask] == 0).all())
    return [own[heard] for own, heard in zip(audio.features, audio.mask, strict=True)]


def test_a_patch_is_four_frames_of_the_spectrogram() -> None:
    encoder, waveform = MelPatchEncoder(), torch.randn(32000)
    (features,) = encoded(encoder, [waveform])
    frames = LogMel()(torch.nn.functional.pad(waveform, (0, 1280))[None])[0]  # 13 patches
    assert features.shape == (13, 256)
    expected = (frames[:4].flatten() + 6.0) / 4.0
    assert torch.allclose(features[0], expected, atol=1e-5)
    assert torch.allclose(features[12], (frames[48:52].flatten() + 6.0) / 4.0, atol=1e-5)


def test_a_clip_does_not_depend_on_its_batch() -> None:
    encoder = MelPatchEncoder()
    short, long = torch.randn(20001), torch.randn(50000)
    alone, together = encoded(encoder, [short]), encoded(encoder, [short, long])
    assert torch.allclose(alone[0], together[0], atol=1e-5)


def test_a_spectrogram_that_ends_within_a_patch_is_followed_by_silence() -> None:
    encoder, waveform = MelPatchEncoder(), torch.randn(1, 150 * 640)
    given = encoder.encode_log_mel(LogMel()(waveform), torch.tensor([150 * 640]))
    (expected,) = encoded(encoder, [waveform[0]])
    assert given.features.shape == (1, 38, 256)
    assert torch.allclose(given.features[0], expected, atol=1e-5)


def test_it_is_saved_and_loaded(tmp_path) -> None:  # type: ignore[no-untyped-def]
    MelPatchEncoder(frames_per_patch=2).save_pretrained(tmp_path)
    assert load_saved_model(MelPatchEncoder, tmp_path).feature_dim == 128
