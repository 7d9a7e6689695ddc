import pytest
import torch

from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.encoders.base import AudioFeatures

LENGTH, LATENT = 6, 16


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    network = CaptionDenoiser(LATENT, 12, 10, width=64, depth=2, heads=2, max_length=8)
    with torch.no_grad():
        for parameter in network.parameters():  # at first most of the network is silent
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def random_audio(clips, frames=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(frames) < torch.randint(2, frames + 1, (clips, 1), generator=generator)
    return AudioFeatures(
        torch.randn(clips, frames, 12, generator=generator),
        mask,
        torch.randn(clips, 10, generator=generator),
    )


def random_input(clips, captions, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (clips, captions, LENGTH, LATENT)
    noisy, estimate = (torch.randn(shape, generator=generator) for _ in range(2))
    return noisy, 4 * torch.randn(clips, captions, generator=generator), estimate


def test_output_is_zero_at_first_and_gradients_arrive_everywhere_later(denoiser):
    fresh = CaptionDenoiser(LATENT, 12, 10, width=64, depth=2, heads=2)
    audio = random_audio(2)
    noisy, log_nsr, estimate = random_input(2, 3)
    assert fresh(noisy, log_nsr, estimate, fresh.prepare_audio(audio)).abs().max() == 0
    denoiser.train()
    memory = denoiser.prepare_audio(audio, torch.tensor([True, False]))
    denoiser(noisy, log_nsr, estimate, memory).square().sum().backward()
    silent = [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_clip_is_the_same_bit_for_bit_in_every_batch(dtype):
    torch.manual_seed(0)
    network = CaptionDenoiser(128, 12, 10, width=256, depth=2, heads=4, max_length=24)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    network = network.eval().to(dtype)
    audio = random_audio(16).to(dtype=dtype)
    noisy, estimate = torch.randn(2, 16, 5, 24, 128).to(dtype)
    log_nsr = torch.randn(16, 5)
    everything = network(noisy, log_nsr, estimate, network.prepare_audio(audio))
    for some in ([0], [3], [5, 2], [9, 1, 8, 4, 15]):
        memory = network.prepare_audio(audio.select(some))
        alone = network(noisy[some], log_nsr[some], estimate[some], memory)
        assert torch.equal(alone, everything[some]), some
        chosen = network.prepare_audio(audio).select(some)
        assert torch.equal(network(noisy[some], log_nsr[some], estimate[some], chosen), alone)


@torch.no_grad()
def test_padding_frames_have_no_influence(denoiser):
    audio = random_audio(3)
    inputs = random_input(3, 2)
    expected = denoiser(*inputs, denoiser.prepare_audio(audio))
    garbage = torch.cat([audio.features, 100 * torch.randn(3, 9, 12)], dim=1)
    garbage[:, :7][~audio.mask] = 55.0
    mask = torch.cat([audio.mask, torch.zeros(3, 9, dtype=torch.bool)], dim=1)
    padded = AudioFeatures(garbage, mask, audio.pooled)
    found = denoiser(*inputs, denoiser.prepare_audio(padded))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_captions_do_not_see_each_other(denoiser):
    memory = denoiser.prepare_audio(random_audio(2))
    noisy, log_nsr, estimate = random_input(2, 3)
    expected = denoiser(noisy, log_nsr, estimate, memory)
    noisy[:, 1], log_nsr[:, 1], estimate[:, 1] = 9.0, -3.0, 2.0
    changed = denoiser(noisy, log_nsr, estimate, memory)
    torch.testing.assert_close(changed[:, [0, 2]], expected[:, [0, 2]])
    assert (changed[:, 1] - expected[:, 1]).abs().max() > 0.01
    one = denoiser(*(part[:, 2:] for part in (noisy, log_nsr, estimate)), memory)
    torch.testing.assert_close(one, expected[:, 2:])


@torch.no_grad()
def test_every_input_matters(denoiser):
    audio = random_audio(2)
    noisy, log_nsr, estimate = random_input(2, 3)
    memory = denoiser.prepare_audio(audio)
    expected = denoiser(noisy, log_nsr, estimate, memory)
    other = denoiser.prepare_audio(AudioFeatures(audio.features.flip(1), audio.mask, audio.pooled))
    pooled = denoiser.prepare_audio(AudioFeatures(audio.features, audio.mask, -audio.pooled))
    for changed in (
        denoiser(noisy.flip(2), log_nsr, estimate, memory),
        denoiser(noisy, log_nsr + 1, estimate, memory),
        denoiser(noisy, log_nsr, None, memory),
        denoiser(noisy, log_nsr, estimate, other),
        denoiser(noisy, log_nsr, estimate, pooled),
    ):
        assert (changed - expected).abs().max() > 1e-3
    nothing = denoiser(noisy, log_nsr, torch.zeros_like(noisy), memory)
    torch.testing.assert_close(denoiser(noisy, log_nsr, None, memory), nothing)


@torch.no_grad()
def test_dropped_clips_equal_the_null_memory(denoiser):
    inputs = random_input(2, 3)
    dropped = denoiser.prepare_audio(random_audio(2), torch.tensor([True, False]))
    kept = denoiser.prepare_audio(random_audio(2))
    output, null = denoiser(*inputs, dropped), denoiser(*inputs, denoiser.null_memory(2))
    torch.testing.assert_close(output[0], null[0])
    torch.testing.assert_close(output[1], denoiser(*inputs, kept)[1])
    assert (output[1] - null[1]).abs().max() > 1e-3


@torch.no_grad()
def test_latent_variance_normalises_the_input(denoiser):
    memory = denoiser.prepare_audio(random_audio(1))
    noisy, _, _ = random_input(1, 1)
    clean_level = torch.full((1, 1), -30.0)
    expected = denoiser(noisy, clean_level, None, memory)
    denoiser.register_to_config(latent_variance=4.0)
    torch.testing.assert_close(denoiser(2 * noisy, clean_level, None, memory), expected)


@torch.no_grad()
def test_it_comes_back_from_its_folder(denoiser, tmp_path):
    denoiser.save_pretrained(tmp_path)
    again = CaptionDenoiser.from_pretrained(tmp_path).eval()
    inputs, audio = random_input(2, 2), random_audio(2)
    expected = denoiser(*inputs, denoiser.prepare_audio(audio))
    assert torch.equal(again(*inputs, again.prepare_audio(audio)), expected)


def test_training_and_inference_paths_agree_and_dropout_works(denoiser):
    inputs, audio = random_input(2, 2), random_audio(2)
    expected = denoiser(*inputs, denoiser.prepare_audio(audio))
    denoiser.train()
    found = denoiser(*inputs, denoiser.prepare_audio(audio))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for block in denoiser.blocks:
        block.dropout.p = 0.5
    dropped = denoiser(*inputs, denoiser.prepare_audio(audio))
    assert (dropped - expected).abs().max() > 1e-3


def test_width_must_divide_into_heads():
    with pytest.raises(ValueError, match="heads"):
        CaptionDenoiser(4, 4, 4, width=30, heads=4)
