import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.sampling import _least, sample_latents
from dac_diffusion.diffusion.scheduler import CaptionScheduler
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.text.embedding_space import EmbeddingSpace

CLIPS, CAPTIONS, LENGTH, VOCABULARY = 12, 5, 24, 200


class CountingDenoiser(CaptionDenoiser):
    """Counts its calls and remembers what it was given."""

    calls: list

    def forward(self, noisy, log_nsr, self_condition, memory):
        self.calls.append((noisy, log_nsr, self_condition))
        return super().forward(noisy, log_nsr, self_condition, memory)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    denoiser = CountingDenoiser(32, 12, 10, width=256, depth=2, heads=4, max_length=LENGTH)
    denoiser.calls = []
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return denoiser.eval(), EmbeddingSpace(VOCABULARY, latent_dim=32).eval()


@pytest.fixture(scope="module")
def audio():
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(9) < torch.randint(2, 10, (CLIPS, 1), generator=generator)
    features = torch.randn(CLIPS, 9, 12, generator=generator)
    return AudioFeatures(features, mask, torch.randn(CLIPS, 10, generator=generator))


def sample(models, audio, clips, scheduler=None, num_steps=4, **arguments):
    denoiser, space = models
    denoiser.calls.clear()
    with torch.no_grad():
        memory = denoiser.prepare_audio(audio.select(clips))
    generators = [torch.Generator().manual_seed(clip) for clip in clips]
    scheduler = scheduler or CaptionScheduler()
    return sample_latents(
        denoiser, space, scheduler, memory, CAPTIONS, LENGTH, generators, num_steps, **arguments
    )


@pytest.mark.parametrize("name", ["ours", "churn", "ddim", "dpm", "sde-dpm"])
def test_a_clip_gets_the_same_captions_in_every_batch(models, audio, name):
    config = CaptionScheduler().config
    scheduler = {
        "ours": CaptionScheduler(),
        "churn": CaptionScheduler(churn=1.0),
        "ddim": DDIMScheduler.from_config(config),
        "dpm": DPMSolverMultistepScheduler.from_config(config),
        "sde-dpm": DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="sde-dpmsolver++"
        ),
    }[name]
    everything = sample(models, audio, list(range(CLIPS)), scheduler)
    assert everything.shape == (CLIPS, CAPTIONS, LENGTH)
    assert everything.dtype == torch.int64
    for clips in ([3], [11, 0], [7, 2, 5]):
        assert torch.equal(sample(models, audio, clips, scheduler), everything[clips])
    assert len(everything.flatten(0, 1).unique(dim=0)) > CLIPS


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("stock", [None, DDIMScheduler, DPMSolverMultistepScheduler])
def test_steps_are_network_calls_and_self_conditioning_is_carried(models, audio, steps, stock):
    scheduler = CaptionScheduler()
    if stock is not None:
        scheduler = stock.from_config(scheduler.config)
    sample(models, audio, [0, 1], scheduler, steps)
    calls = models[0].calls
    assert len(calls) == steps
    assert calls[0][2] is None
    assert all(call[2] is not None for call in calls[1:])
    levels = [float(call[1][0, 0]) for call in calls]
    assert levels == sorted(levels, reverse=True)


def test_guidance_doubles_the_calls_and_scale_one_is_free(models, audio):
    plain = sample(models, audio, [0, 1])
    guided = sample(models, audio, [0, 1], guidance_scale=3.0)
    assert len(models[0].calls) == 8
    assert not torch.equal(plain, guided)
    # At scale 0 only the null condition is left: the audio does not matter.
    other = AudioFeatures(-audio.features, audio.mask, -audio.pooled)
    silent = sample(models, audio, [0, 1], guidance_scale=0.0)
    assert torch.equal(silent, sample(models, other, [0, 1], guidance_scale=0.0))


def test_the_first_noise_is_drawn_per_clip_and_scaled(models, audio):
    sample(models, audio, [4, 6], initial_noise_scale=0.5)
    first = models[0].calls[0][0]
    expected = torch.randn(CAPTIONS, LENGTH, 32, generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(first[1], 0.5 * expected)


def test_the_callback_sees_every_step(models, audio):
    seen = []
    ids = sample(models, audio, [0, 1], callback=lambda *state: seen.append(state))
    assert [(step, total) for step, total, _ in seen] == [(step, 4) for step in range(4)]
    assert all(texts.shape == ids.shape for _, _, texts in seen)
    assert torch.equal(seen[-1][2], ids)
    assert torch.equal(ids, sample(models, audio, [0, 1]))


def test_misuse_is_an_error(models, audio):
    denoiser, space = models
    memory = denoiser.prepare_audio(audio.select([0, 1]))
    with pytest.raises(ValueError, match="1 generators for 2 items"):
        sample_latents(
            denoiser, space, CaptionScheduler(), memory, 1, LENGTH, [torch.Generator()], 2
        )
    with pytest.raises(ValueError, match="num_inference_steps"):
        sample(models, audio, [0], num_steps=0)


def test_the_least_certain_positions_are_drawn_again_beside_the_others(models, audio):
    denoiser, _ = models
    clips = [0, 1]
    sample(models, audio, clips)
    plain = [call[0] for call in denoiser.calls]
    sample(models, audio, clips, refined_share=0.5)
    assert len(denoiser.calls) == 8  # twice the calls
    for (noisy, _, _), expected in zip(denoiser.calls[:4], plain, strict=True):
        assert torch.equal(noisy, expected)
    noisy, log_nsr, estimate = denoiser.calls[4]
    assert torch.equal(log_nsr, denoiser.calls[0][1])  # from the noisiest level again
    assert estimate is None
    # Half of every caption's positions hold clean latents, of the table's constant norm or less
    # (a mean of rows); the others fresh noise that is not that of the first run.
    again = (noisy != denoiser.calls[0][0]).any(dim=-1)
    assert again.all()
    renewed = sample_noise(clips, skip=1)
    is_noise = torch.isclose(noisy, renewed, atol=1e-6).all(dim=-1)  # (B, K, L)
    assert (is_noise.sum(dim=-1) == LENGTH // 2).all()


def sample_noise(clips, skip):
    """What each clip's generator gives for a draw of latents after `skip` others."""
    noise = []
    for clip in clips:
        generator = torch.Generator().manual_seed(clip)
        draws = [torch.randn(CAPTIONS, LENGTH, 32, generator=generator) for _ in range(skip + 1)]
        noise.append(draws[-1])
    return torch.stack(noise)


def test_which_positions_are_least_certain():
    confidence = torch.tensor([[[0.9, 0.1, 0.5, 0.3]]])
    assert _least(confidence, 0.5).tolist() == [[[False, True, False, True]]]
    assert _least(confidence, 0.25).tolist() == [[[False, True, False, False]]]


def test_the_callback_counts_the_calls_of_both_runs(models, audio):
    seen = []
    sample(models, audio, [0], refined_share=0.5, callback=lambda i, n, ids: seen.append((i, n)))
    assert seen == [(i, 8) for i in range(8)]


def test_a_banned_token_is_banned_where_the_first_word_stands(models, audio):
    first = sample(models, audio, [0, 1])
    banned = first[..., 1].flatten().unique().tolist()
    second = sample(models, audio, [0, 1], never_first=banned, first_word=1)
    assert not set(second[..., 1].flatten().tolist()) & set(banned)
    assert torch.equal(first[..., 0], second[..., 0])
