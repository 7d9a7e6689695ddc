import math

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.diffusion.scheduler import CaptionScheduler, log_nsr_at, randn_per_item

SHAPE = (2, 3, 4, 5)


def toy_clean(latents, timestep):
    """Any smooth estimate of the clean latents."""
    return torch.tanh(1.7 * latents + 0.001 * float(timestep))


def run(scheduler, num_steps, latents, **step_arguments):
    scheduler.set_timesteps(num_steps)
    for timestep in scheduler.timesteps:
        clean = toy_clean(latents, timestep)
        output = scheduler.step(clean, timestep, latents, return_dict=False, **step_arguments)
        latents = output[0]
    return latents


# The stock DDIM goes down by T // N from every timestep, where ours goes to the next one of the
# run: the same thing where N divides T.
@pytest.mark.parametrize(
    ("total", "steps"), [(1000, 1), (1000, 2), (1000, 8), (1024, 16), (1000, 20)]
)
@pytest.mark.parametrize("schedule", [NoiseSchedule.gumbel(), NoiseSchedule.tangent(7.0)])
def test_without_churn_it_is_stock_ddim(total, steps, schedule):
    ours = CaptionScheduler.from_schedule(schedule, num_train_timesteps=total)
    stock = DDIMScheduler.from_config(ours.config)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        run(ours, steps, noise), run(stock, steps, noise), atol=1e-5, rtol=1e-5
    )


def test_churn_one_is_the_ancestral_sampler():
    ours = CaptionScheduler.from_schedule(NoiseSchedule.gumbel(), churn=1.0)
    stock = DDIMScheduler.from_config(ours.config)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    mine = run(ours, 8, noise, generator=torch.Generator().manual_seed(5))
    theirs = run(stock, 8, noise, generator=torch.Generator().manual_seed(5), eta=1.0)
    torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_eta_is_that_of_stock_ddim(eta):
    ours = CaptionScheduler.from_schedule(NoiseSchedule.linear(), eta=eta)
    stock = DDIMScheduler.from_config(ours.config)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    mine = run(ours, 8, noise, generator=torch.Generator().manual_seed(5))
    theirs = run(stock, 8, noise, generator=torch.Generator().manual_seed(5), eta=eta)
    torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=1e-3)


def test_renoise_adds_fresh_noise_to_the_estimate():
    scheduler = CaptionScheduler.from_schedule(NoiseSchedule.linear(), renoise=True)
    scheduler.set_timesteps(4)
    clean, latents = torch.randn(2, *SHAPE)
    now, following = scheduler.timesteps[1:3]
    stepped = scheduler.step(
        clean, now, latents, torch.Generator().manual_seed(3), return_dict=False
    )[0]
    fresh = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    expected = scheduler.add_noise(clean, fresh, following[None])
    torch.testing.assert_close(stepped, expected, atol=1e-5, rtol=1e-5)


def test_a_stride_of_60_is_17_calls_from_999_to_39():
    scheduler = CaptionScheduler.from_schedule(NoiseSchedule.linear(), stride=60)
    scheduler.set_timesteps(17)
    assert scheduler.timesteps.tolist() == list(range(999, 38, -60))
    assert len(scheduler.timesteps) == 17
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eta": 1.5}, "eta must be from 0 to 1"),
        ({"eta": 0.5, "renoise": True}, "exclude each other"),
        ({"churn": 0.5, "renoise": True}, "exclude each other"),
        ({"stride": 0}, "stride must be 1 to 1000"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        CaptionScheduler(**settings)


def test_stock_schedulers_take_over_the_schedule_and_the_settings():
    ours = CaptionScheduler.from_schedule(NoiseSchedule.gumbel(2.0, 0.5))
    for stock_class in (DDIMScheduler, DPMSolverMultistepScheduler):
        stock = stock_class.from_config(ours.config)
        assert torch.equal(stock.alphas_cumprod, ours.alphas_cumprod)
        assert stock.config.prediction_type == "sample"
        assert stock.config.timestep_spacing == "trailing"
        ours.set_timesteps(8)
        stock.set_timesteps(8)
        assert stock.timesteps.tolist() == ours.timesteps.tolist()
    assert not DDIMScheduler.from_config(ours.config).config.clip_sample


def test_it_comes_back_from_its_folder_and_from_a_stock_config(tmp_path):
    ours = CaptionScheduler.from_schedule(NoiseSchedule.gumbel(2.0, 0.5), churn=0.4)
    ours.save_pretrained(tmp_path)
    again = CaptionScheduler.from_pretrained(tmp_path)
    assert torch.equal(again.alphas_cumprod, ours.alphas_cumprod)
    assert again.config.churn == 0.4
    stock = DDIMScheduler.from_pretrained(tmp_path)
    assert torch.equal(CaptionScheduler.from_config(stock.config).betas, ours.betas)


def test_timesteps_are_equal_shares_of_the_schedule():
    schedule = NoiseSchedule.gumbel()
    scheduler = CaptionScheduler.from_schedule(schedule)
    scheduler.set_timesteps(4)
    expected = schedule.log_nsr(torch.tensor([1.0, 0.75, 0.5, 0.25])).tolist()
    found = [log_nsr_at(scheduler, timestep) for timestep in scheduler.timesteps]
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("steps", [1, 3, 7, 16, 1000])
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_the_last_step_returns_the_estimate(steps, churn):
    scheduler = CaptionScheduler(churn=churn)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps
    clean, latents = torch.randn(SHAPE), torch.randn(SHAPE)
    output = scheduler.step(clean, scheduler.timesteps[-1], latents)
    assert torch.equal(output.prev_sample, clean)
    assert torch.equal(output.pred_original_sample, clean)


@pytest.mark.parametrize("churn", [0.0, 0.3, 1.0, 5.0])
def test_a_step_keeps_the_marginal_distribution(churn):
    scheduler = CaptionScheduler(churn=churn)
    scheduler.set_timesteps(8)
    now, following = scheduler.timesteps[3], scheduler.timesteps[4]
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((1, 400_000), 1.5)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = scheduler.add_noise(clean, noise, now[None])
    stepped = scheduler.step(clean, now, noisy, generator=generator).prev_sample
    alpha_squared = float(scheduler.alphas_cumprod[following])
    assert float(stepped.mean()) == pytest.approx(1.5 * math.sqrt(alpha_squared), abs=0.01)
    assert float(stepped.var()) == pytest.approx(1 - alpha_squared, rel=0.01)
    # How much of the old noise is left is what churn says.
    drop = log_nsr_at(scheduler, now) - log_nsr_at(scheduler, following)
    correlation = float(torch.corrcoef(torch.stack([stepped[0], noise[0]]))[0, 1])
    assert correlation == pytest.approx(math.exp(-churn * drop / 2), abs=0.01)


def test_a_list_of_generators_makes_items_independent_of_the_batch():
    scheduler = CaptionScheduler(churn=1.0)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))

    def generators(seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = run(scheduler, 4, noise, generator=generators([7, 8]))
    alone = run(scheduler, 4, noise[1:], generator=generators([8]))
    assert torch.equal(both[1:], alone)
    assert not torch.equal(both, run(scheduler, 4, noise, generator=generators([8, 7])))


def test_noise_per_item():
    first = randn_per_item((1, 3, 4), [torch.Generator().manual_seed(1)])
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    both = randn_per_item((2, 3, 4), generators, dtype=torch.bfloat16)
    assert torch.equal(both[1:], first.bfloat16())
    with pytest.raises(ValueError, match="2 generators for 3 items"):
        randn_per_item((3, 4), generators)


def test_log_nsr_between_timesteps_and_outside():
    scheduler = CaptionScheduler()
    low, high = log_nsr_at(scheduler, 10), log_nsr_at(scheduler, 11)
    assert low < high
    assert log_nsr_at(scheduler, 10.25) == pytest.approx(low + 0.25 * (high - low))
    assert log_nsr_at(scheduler, torch.tensor(5000)) == log_nsr_at(scheduler, 999)


def test_misuse_is_an_error():
    scheduler = CaptionScheduler()
    with pytest.raises(ValueError, match="set_timesteps"):
        scheduler.step(torch.zeros(1), 0, torch.zeros(1))
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="num_inference_steps"):
            scheduler.set_timesteps(steps)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match="timestep 3"):
        scheduler.step(torch.zeros(1), 3, torch.zeros(1))
    with pytest.raises(ValueError, match="churn"):
        CaptionScheduler(churn=-1.0)
    with pytest.raises(ValueError, match="clean-latent"):
        CaptionScheduler(prediction_type="epsilon")
