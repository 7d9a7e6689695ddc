"""A world of four sounds, each with its own two captions."""

import dataclasses

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from dac_diffusion.diffusion import objective
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.objective import ObjectiveConfig, denoising_loss
from dac_diffusion.diffusion.sampling import sample_latents
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.diffusion.scheduler import CaptionScheduler
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.text.embedding_space import EmbeddingSpace

PAD, END, VOCABULARY, LENGTH = 0, 2, 24, 6
CAPTIONS = torch.tensor(
    [
        [[4, 5, 6, 2, 0, 0], [7, 5, 6, 4, 2, 0]],
        [[8, 9, 10, 2, 0, 0], [11, 9, 10, 8, 2, 0]],
        [[12, 13, 14, 2, 0, 0], [15, 13, 14, 12, 2, 0]],
        [[16, 17, 18, 2, 0, 0], [19, 17, 18, 16, 2, 0]],
    ]
)  # (sounds, 2, L)


def sounds(labels, seed=0):
    """Fake features: noise around one direction per label."""
    generator = torch.Generator().manual_seed(seed)
    clips = len(labels)
    directions = torch.eye(4).repeat_interleave(2, dim=1)  # (4, 8)
    features = 3 * directions[labels][:, None] + torch.randn(clips, 5, 8, generator=generator)
    mask = torch.ones(clips, 5, dtype=torch.bool)
    return AudioFeatures(features, mask, features.mean(dim=1))


def small_models():
    torch.manual_seed(0)
    denoiser = CaptionDenoiser(16, 8, 8, width=64, depth=2, heads=2, max_length=LENGTH)
    return denoiser, EmbeddingSpace(VOCABULARY, latent_dim=16)


def one_loss(config=None, seed=0, denoiser=None, space=None, **changes):
    if denoiser is None:
        denoiser, space = small_models()
    labels = torch.arange(8) % 4
    arguments = {
        "denoiser": denoiser,
        "space": space,
        "schedule": NoiseSchedule.gumbel(2.0, 1.0),
        "token_ids": CAPTIONS[labels],
        "audio": sounds(labels),
        "config": config or ObjectiveConfig(),
        "generator": torch.Generator().manual_seed(seed),
        "pad_id": PAD,
    }
    return denoising_loss(**(arguments | changes))


@pytest.fixture(scope="module")
def trained():
    denoiser, space = small_models()
    parameters = [*denoiser.parameters(), *space.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    steps, losses = 400, []
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
    for step in range(steps):
        labels = torch.randint(4, (16,), generator=generator)
        result = denoising_loss(
            denoiser,
            space,
            NoiseSchedule.gumbel(2.0, 1.0),
            CAPTIONS[labels],
            sounds(labels, seed=step),
            ObjectiveConfig(),
            generator,
            PAD,
        )
        optimizer.zero_grad()
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay.step()
        losses.append(result.loss.item())
    return denoiser.eval(), space.eval(), losses


def share_correct(ids, labels):
    """Share of sampled captions (B, K, L) that are exactly one of the two of their sound."""
    matches = (ids[:, :, None] == CAPTIONS[labels][:, None]).all(dim=-1).any(dim=-1)
    return matches.float().mean().item()


def share_named(ids, labels):
    """Share of the words of sampled captions (B, K, L) that belong to their sound."""
    sound_of_word = ids.sub(4).div(4, rounding_mode="floor")
    return (sound_of_word == labels[:, None, None])[ids >= 4].float().mean().item()


def sample(trained, labels, scheduler, num_steps, **arguments):
    denoiser, space, _ = trained
    memory = denoiser.prepare_audio(sounds(labels, seed=99))
    generators = [torch.Generator().manual_seed(i) for i in range(len(labels))]
    return sample_latents(
        denoiser, space, scheduler, memory, 4, LENGTH, generators, num_steps, **arguments
    )


def test_the_loss_falls(trained):
    losses = trained[2]
    assert losses[0] == pytest.approx(torch.tensor(VOCABULARY).log().item(), abs=0.2)
    assert sum(losses[-20:]) / 20 < 0.35 * losses[0]


@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_samples_name_the_sound(trained, churn):
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    schedule = NoiseSchedule.gumbel(2.0, 1.0)
    scheduler = CaptionScheduler.from_schedule(schedule, churn=churn)
    ids = sample(trained, labels, scheduler, 8)
    assert ids.shape == (8, 4, LENGTH)
    assert share_named(ids, labels) > 0.98
    assert share_correct(ids, labels) > 0.6
    for sound in range(4):
        captions = ids[labels == sound].flatten(0, 1).tolist()
        assert len({tuple(caption) for caption in captions}) >= 2


def test_one_step_stock_solver_and_guidance_name_the_sound(trained):
    labels = torch.tensor([2, 0, 3, 1])
    ours = CaptionScheduler.from_schedule(NoiseSchedule.gumbel(2.0, 1.0))
    solver = DPMSolverMultistepScheduler.from_config(ours.config)
    for ids in (
        sample(trained, labels, ours, 1),
        sample(trained, labels, solver, 8),
        sample(trained, labels, ours, 8, guidance_scale=1.5),
    ):
        assert share_named(ids, labels) > 0.98


def test_losses_under_autocast_reach_every_parameter():
    denoiser, space = small_models()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    everything = ObjectiveConfig(condition_dropout=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        result = one_loss(everything, denoiser=denoiser, space=space)
    result.loss.backward()
    parameters = [*denoiser.named_parameters(), *space.named_parameters()]
    silent = [name for name, p in parameters if p.grad is None or not p.grad.any()]
    assert silent == []
    assert result.loss.dtype == torch.float32


def test_the_result_is_a_function_of_the_generator():
    first, again, other = one_loss(seed=3), one_loss(seed=3), one_loss(seed=4)
    assert torch.equal(first.loss, again.loss)
    assert torch.equal(first.log_nsr, again.log_nsr)
    assert not torch.equal(first.log_nsr, other.log_nsr)
    before = torch.random.get_rng_state()
    denoiser, space = small_models()
    state = torch.random.get_rng_state()
    one_loss(denoiser=denoiser, space=space)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.random.set_rng_state(before)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    result = one_loss()
    assert result.log_nsr.shape == result.per_example.shape == (16,)
    assert not result.per_example.requires_grad
    torch.testing.assert_close(result.terms["cross_entropy"], result.per_example.mean())
    torch.testing.assert_close(result.loss.detach(), result.terms["cross_entropy"])


def test_times_are_stratified_over_all_examples():
    schedule = NoiseSchedule.gumbel(2.0, 1.0)
    times = schedule.time(one_loss().log_nsr) * 16
    assert torch.equal(times.floor().sort().values, torch.arange(16.0))


def test_self_condition_never_knows_more_than_the_example(monkeypatch):
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self, denoiser):
            super().__init__()
            self.denoiser = denoiser

        def prepare_audio(self, audio, drop):
            return self.denoiser.prepare_audio(audio, drop)

        def forward(self, noisy, log_nsr, estimate, memory):
            seen.append((noisy, log_nsr, estimate, torch.is_grad_enabled()))
            return self.denoiser(noisy, log_nsr, estimate, memory)

    denoiser, space = small_models()
    one_loss(ObjectiveConfig(0.5, 1.0), denoiser=Spy(denoiser), space=space)
    (_, first_nsr, first_estimate, first_grad), (_, nsr, estimate, grad) = seen
    assert first_estimate is None
    assert not first_grad
    assert grad
    chosen = estimate.flatten(1).any(dim=1)
    assert chosen.sum() == len(first_nsr) == 4
    # Clips come in a random order; every level is above its own example's.
    assert (first_nsr.sort(dim=0).values >= nsr[chosen].sort(dim=0).values).all()
    seen.clear()
    one_loss(ObjectiveConfig(0.0), denoiser=Spy(denoiser), space=space)
    assert len(seen) == 1
    assert seen[0][2] is None


def test_more_noise_has_the_right_distribution():
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((1, 1, 100_000, 2), 2.0)
    low, high = torch.tensor([[-1.0]]), torch.tensor([[1.5]])
    noisy = objective._add_noise(clean, low, generator)
    noisier = objective._more_noise(noisy, low, high, generator)
    alpha, sigma = torch.sigmoid(-high).sqrt().item(), torch.sigmoid(high).sqrt().item()
    assert noisier.mean().item() == pytest.approx(2 * alpha, abs=0.01)
    assert noisier.std().item() == pytest.approx(sigma, rel=0.01)
    assert torch.equal(objective._more_noise(noisy, low, low, generator), noisy)


def test_pad_weight_and_condition_dropout_act():
    base = one_loss()
    for change in ({"pad_weight": 0.0}, {"self_condition_probability": 0.0}):
        denoiser, space = small_models()
        with torch.no_grad():
            for parameter in [*denoiser.parameters(), *space.parameters()]:
                parameter.add_(0.1 * torch.randn_like(parameter))
        base = one_loss(denoiser=denoiser, space=space)
        config = dataclasses.replace(ObjectiveConfig(), **change)
        changed = one_loss(config, denoiser=denoiser, space=space)
        assert (changed.loss - base.loss).abs() > 1e-5
    dropped = dataclasses.replace(ObjectiveConfig(), condition_dropout=1.0)
    audio = sounds(torch.arange(8) % 4)
    silent = one_loss(dropped, denoiser=denoiser, space=space)
    flipped = AudioFeatures(-audio.features, audio.mask, -audio.pooled)
    assert torch.equal(
        silent.loss, one_loss(dropped, denoiser=denoiser, space=space, audio=flipped).loss
    )
