"""The paper's two denoisers: what they must have in common, and what sets them apart."""

import pytest
import torch

from dac_diffusion.diffusion.dit import DiTDenoiser
from dac_diffusion.diffusion.uvit import UViTDenoiser
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError

LENGTH, LATENT = 6, 16
KINDS = [DiTDenoiser, UViTDenoiser]


def make(kind, **sizes):
    """A denoiser none of whose parts is silent, as they are at the start."""
    torch.manual_seed(0)
    network = kind(LATENT, 12, 10, width=64, depth=2, heads=2, max_length=8, **sizes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def random_audio(clips=2, frames=7):
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(frames) < torch.tensor([[frames], [4]])[:clips]
    return AudioFeatures(
        torch.randn(clips, frames, 12, generator=generator),
        mask,
        torch.randn(clips, 10, generator=generator),
    )


def random_input(clips=2, captions=3):
    generator = torch.Generator().manual_seed(1)
    shape = (clips, captions, LENGTH, LATENT)
    noisy, estimate = (torch.randn(shape, generator=generator) for _ in range(2))
    return noisy, 4 * torch.randn(clips, captions, generator=generator), estimate


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_arrive_everywhere(kind):
    network = make(kind).train()
    memory = network.prepare_audio(random_audio(), torch.tensor([True, False]))
    noisy, log_nsr, estimate = random_input()
    output = network(noisy, log_nsr, estimate, memory)
    assert output.shape == noisy.shape
    output.square().sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_depends_on_its_own_clip_and_noise_alone(kind):
    network, audio = make(kind), random_audio()
    noisy, log_nsr, estimate = random_input()
    everything = network(noisy, log_nsr, estimate, network.prepare_audio(audio))
    for clip in range(2):
        for caption in range(3):
            one = (slice(clip, clip + 1), slice(caption, caption + 1))
            alone = network(
                noisy[one], log_nsr[one], estimate[one], network.prepare_audio(audio.select([clip]))
            )
            torch.testing.assert_close(alone[0, 0], everything[clip, caption], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_masked_frames_have_no_influence_and_the_others_do(kind):
    network, audio = make(kind), random_audio()
    inputs = random_input()
    before = network(*inputs, network.prepare_audio(audio))
    features = audio.features.clone()
    features[1, 4:] = 9.0  # behind the clip's end
    masked = AudioFeatures(features, audio.mask, audio.pooled)
    after = network(*inputs, network.prepare_audio(masked))
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-6)
    features[1, 3] = 9.0
    heard = network(*inputs, network.prepare_audio(masked))
    torch.testing.assert_close(heard[0], before[0], atol=1e-6, rtol=1e-6)
    assert (heard[1] - before[1]).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_dropped_audio_is_the_null_condition(kind):
    network = make(kind)
    inputs = random_input()
    dropped = network(*inputs, network.prepare_audio(random_audio(), torch.tensor([True, True])))
    null = network(*inputs, network.null_memory(2))
    torch.testing.assert_close(dropped, null, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_noise_level_estimate_and_pooled_vector_count(kind):
    network, audio = make(kind), random_audio()
    noisy, log_nsr, estimate = random_input()
    memory = network.prepare_audio(audio)
    before = network(noisy, log_nsr, estimate, memory)
    assert (network(noisy, log_nsr + 1, estimate, memory) - before).abs().max() > 1e-3
    assert (network(noisy, log_nsr, None, memory) - before).abs().max() > 1e-3
    zeros = network(noisy, log_nsr, torch.zeros_like(noisy), memory)
    torch.testing.assert_close(zeros, network(noisy, log_nsr, None, memory))
    without = make(kind, pooled_condition=False)
    other = AudioFeatures(audio.features, audio.mask, audio.pooled.flip(-1))
    with_pooled = [network(noisy, log_nsr, None, network.prepare_audio(a)) for a in (audio, other)]
    assert (with_pooled[0] - with_pooled[1]).abs().max() > 1e-3
    # It is still the first token that cross-attention sees.
    attended = [without(noisy, log_nsr, None, without.prepare_audio(a)) for a in (audio, other)]
    assert (attended[0] - attended[1]).abs().max() > 0


def test_at_the_start_dit_says_nothing_and_its_blocks_change_nothing():
    network = DiTDenoiser(LATENT, 12, 10, width=64, depth=2, heads=2, max_length=8).eval()
    memory = network.prepare_audio(random_audio())
    noisy, log_nsr, estimate = random_input()
    assert network(noisy, log_nsr, estimate, memory).abs().max() == 0
    hidden, condition = torch.randn(6, LENGTH, 64), torch.randn(6, 64)
    block = network.blocks[0]
    torch.testing.assert_close(
        block(hidden, condition, memory.keys[0], memory.values[0], memory.mask), hidden
    )


@torch.no_grad()
def test_every_layer_down_reaches_its_partner_up():
    network = make(UViTDenoiser)
    memory = network.prepare_audio(random_audio())
    seen = []
    for block in (*network.down, *network.up):
        block.register_forward_hook(lambda module, given, output: seen.append((given[1], output)))
    network(*random_input(), memory)
    down, up = seen[:2], seen[2:]
    assert all(skip is None for skip, _ in down)
    assert up[0][0] is down[1][1]  # the last one down is the first to come back
    assert up[1][0] is down[0][1]


@pytest.mark.parametrize(
    ("kind", "millions"),
    # Without the audio side: 12 blocks of 16 + 6 widths squared; 13 of 16, and six joins of 2.
    [(DiTDenoiser, 12 * 22 * 0.768**2), (UViTDenoiser, (13 * 16 + 6 * 2) * 0.768**2)],
)
def test_the_papers_sizes(kind, millions):
    with torch.device("meta"):
        network = kind(latent_dim=768, audio_dim=768, pooled_dim=768)
    names = ("blocks.", "down.", "middle.", "up.")
    # The query and output of cross-attention are in the blocks, keys and values on the audio side.
    inside = sum(p.numel() for n, p in network.named_parameters() if n.startswith(names))
    keys_values = network.audio_keys_values.weight.numel()
    assert (inside + keys_values) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(kind, tmp_path):
    network = make(kind)
    network.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path).eval()
    inputs = random_input()
    with torch.no_grad():
        first, second = (n(*inputs, n.prepare_audio(random_audio())) for n in (network, loaded))
    assert torch.equal(first, second)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="width=64 of the denoiser is not a multiple of heads=5"):
        DiTDenoiser(LATENT, 12, 10, width=64, heads=5)
