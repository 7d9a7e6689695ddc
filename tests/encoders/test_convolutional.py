from pathlib import Path

import pytest
import torch
from torch import Tensor

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder

RATE = 32000
CANVAS = 80000  # 2.5 s
FRAME = 10240  # samples per feature frame: 16 log-mel frames of 640 samples


def make_encoder(
    channels: tuple[int, ...] = (4, 8, 12, 16), width: int = 32
) -> ConvolutionalEncoder:
    torch.manual_seed(0)
    return ConvolutionalEncoder(channels=channels, width=width).eval()


@pytest.fixture(scope="module")
def encoder() -> ConvolutionalEncoder:
    return make_encoder()


def padded(waveform: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(waveform, (0, length - waveform.shape[-1]))


@torch.inference_mode()
def encode(encoder: ConvolutionalEncoder, waveform: Tensor, lengths: list[int]) -> AudioFeatures:
    features: AudioFeatures = encoder(waveform, torch.tensor(lengths))
    return features


def recordings(lengths: list[int]) -> Tensor:
    """Noise of the given lengths and of different loudness, padded to one canvas (B, CANVAS)."""
    generator = torch.Generator().manual_seed(1)
    waves = [0.05 * (i + 1) * torch.randn(n, generator=generator) for i, n in enumerate(lengths)]
    return torch.stack([padded(wave, CANVAS) for wave in waves])


@pytest.mark.parametrize(
    ("num_samples", "canvas"),
    [(1, 1), (CANVAS - 1, 1), (CANVAS, 1), (CANVAS + 1, 2), (10 * RATE, 4), (12 * RATE, 5)],
)
def test_the_canvas_is_the_next_multiple_of_its_unit(
    encoder: ConvolutionalEncoder, num_samples: int, canvas: int
) -> None:
    assert encoder.canvas_samples(num_samples) == canvas * CANVAS


@pytest.mark.parametrize(
    ("num_samples", "frames"),
    [(1, 1), (FRAME, 1), (FRAME + 1, 2), (2 * FRAME, 2), (2 * FRAME + 1, 3), (CANVAS, 8)],
)
def test_a_frame_is_audio_when_it_holds_a_sample(
    encoder: ConvolutionalEncoder, num_samples: int, frames: int
) -> None:
    audio = encode(encoder, padded(torch.ones(1, num_samples), CANVAS), [num_samples])
    assert audio.features.shape == (1, 8, 32)
    assert audio.mask[0].tolist() == [index < frames for index in range(8)]
    assert encoder.num_frames(torch.tensor([num_samples])).tolist() == [frames]


def test_ten_seconds_give_32_frames_and_unmasked_ones_only(encoder: ConvolutionalEncoder) -> None:
    audio = encode(encoder, torch.zeros(1, 10 * RATE), [10 * RATE])
    assert audio.features.shape == (1, 32, 32)
    assert audio.pooled.shape == (1, 32)
    assert audio.mask.all()


def test_a_clip_does_not_depend_on_its_batch() -> None:
    lengths = [CANVAS, 50000, 20000, 70001, CANVAS]
    waveform = recordings(lengths)
    encoder = make_encoder((32, 64, 160, 320), 256)  # the sizes of the built-in checkpoint
    together = encode(encoder, waveform, lengths)
    reverse = encode(encoder, waveform.flip(0), lengths[::-1])
    # To the last bit with others in other places; up to rounding in a batch of another size,
    # which is why the captioner gives the CPU one clip at a time (captioning/invariance.py).
    assert torch.equal(reverse.features.flip(0), together.features)
    assert torch.equal(reverse.pooled.flip(0), together.pooled)
    for index, length in enumerate(lengths):
        alone = encode(encoder, waveform[index : index + 1], [length])
        again = encode(encoder, waveform[index : index + 1], [length])
        assert torch.equal(alone.features, again.features)
        torch.testing.assert_close(alone.features[0], together.features[index], rtol=0, atol=2e-5)
        torch.testing.assert_close(alone.pooled[0], together.pooled[index], rtol=0, atol=2e-5)


def test_padding_out_of_the_convolutions_reach_changes_nothing(
    encoder: ConvolutionalEncoder,
) -> None:
    # The convolutions see 0.86 s to either side, so the canvas's end is not seen from 1.5 s.
    length = round(1.5 * RATE)
    waveform = recordings([length])
    short = encode(encoder, waveform, [length])
    long = encode(encoder, padded(waveform, 4 * CANVAS), [length])
    frames = int(short.mask.sum())
    assert int(long.mask.sum()) == frames == 5
    torch.testing.assert_close(
        long.features[:, :frames], short.features[:, :frames], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(long.pooled, short.pooled, rtol=1e-4, atol=1e-5)


def test_the_pooled_vector_is_an_average_of_audio_frames_only() -> None:
    encoder = make_encoder()
    torch.nn.init.zeros_(encoder.attention_pool.weight)
    audio = encode(encoder, recordings([3 * FRAME]), [3 * FRAME])
    torch.testing.assert_close(audio.pooled, audio.features[:, :3].mean(dim=1))


def test_more_blocks_have_a_longer_stride() -> None:
    encoder = make_encoder((4, 4, 8, 8, 8))
    audio = encode(encoder, padded(torch.ones(1, 2 * FRAME + 1), CANVAS), [2 * FRAME + 1])
    assert encoder.stride == 32
    assert audio.features.shape == (1, 4, 32)
    assert audio.mask[0].tolist() == [True, True, False, False]


def test_louder_noise_is_another_feature(encoder: ConvolutionalEncoder) -> None:
    quiet, loud = encode(encoder, recordings([CANVAS, CANVAS]), [CANVAS, CANVAS]).pooled
    assert (quiet - loud).abs().max() > 1e-3


def test_saved_and_loaded_it_gives_the_same(tmp_path: Path, encoder: ConvolutionalEncoder) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = ConvolutionalEncoder.from_pretrained(tmp_path).eval()
    waveform = recordings([CANVAS])
    before, after = (encode(model, waveform, [CANVAS]) for model in (encoder, loaded))
    # Not to the last bit: the weights of convolutions are loaded in another memory layout.
    torch.testing.assert_close(before.features, after.features, rtol=0, atol=2e-5)
    assert not list(tmp_path.glob("*.bin"))


def test_gradients_reach_every_weight() -> None:
    encoder = make_encoder().train()
    audio = encoder(recordings([CANVAS, 50000]), torch.tensor([CANVAS, 50000]))
    (audio.features.square().mean() + audio.pooled.square().mean()).backward()
    without = [name for name, weight in encoder.named_parameters() if weight.grad is None]
    assert without == []
