import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from dac_diffusion.diffusion.schedule import NoiseSchedule, _isotonic, stratified_times


def test_gumbel_quantiles_are_those_of_the_gumbel_distribution():
    distribution = torch.distributions.Gumbel(3.0, 1.0)
    times = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    expected = distribution.icdf(times)
    torch.testing.assert_close(
        NoiseSchedule.gumbel(3.0, 1.0).log_nsr(times), expected, atol=0.01, rtol=0
    )


def test_tangent_schedule_is_tan_d():
    times = torch.tensor([0.2, 0.5, 0.8])
    gamma = NoiseSchedule.tangent(7.0).log_nsr(times)
    torch.testing.assert_close(
        (gamma / 2).exp(), 7 * torch.tan(torch.pi * times / 2), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("schedule", [NoiseSchedule.gumbel(), NoiseSchedule.tangent(7.0)])
def test_schedule_is_increasing_and_time_is_its_inverse(schedule):
    times = torch.linspace(0, 1, 999)
    gamma = schedule.log_nsr(times)
    assert (gamma.diff() > 0).all()
    assert gamma.dtype == torch.float32
    torch.testing.assert_close(schedule.time(gamma), times, atol=1e-4, rtol=0)


def test_state_round_trips():
    schedule = NoiseSchedule.gumbel(2.0, 0.7)
    restored = NoiseSchedule.from_state(schedule.state())
    assert restored.state() == schedule.state()
    assert all(isinstance(value, float) for value in schedule.state())


@pytest.mark.parametrize("table", [[1.0], [0.0, 0.0], [0.0, float("nan")], [1.0, 0.0]])
def test_bad_tables_are_refused(table):
    with pytest.raises(ValueError, match="log-NSR"):
        NoiseSchedule(table)


TABLES = {
    "gumbel": NoiseSchedule.gumbel(),
    "tangent": NoiseSchedule.tangent(7.0),
    "wide": NoiseSchedule(np.linspace(-12.0, 16.0, 65)),
    "steep": NoiseSchedule([-14.0, -13.999, 14.9, 15.0]),
}


@pytest.mark.parametrize("schedule", TABLES.values(), ids=TABLES.keys())
@pytest.mark.parametrize("num_timesteps", [1, 10, 1000])
def test_betas_are_between_0_and_1(schedule, num_timesteps):
    betas = torch.tensor(schedule.betas(num_timesteps), dtype=torch.float32)
    assert ((betas > 0) & (betas < 1)).all()
    product = torch.cumprod(1.0 - betas, dim=0)
    assert ((product > 0) & (product < 1)).all()
    assert (product.diff() <= 0).all()


@pytest.mark.parametrize("name", ["gumbel", "tangent", "wide"])
def test_betas_reproduce_alphas_cumprod(name):
    betas = torch.tensor(TABLES[name].betas(1000), dtype=torch.float32)
    product = torch.cumprod(1.0 - betas, dim=0).double().numpy()
    expected = TABLES[name].alphas_cumprod(1000)
    np.testing.assert_allclose(product, expected, rtol=2e-6)
    # At the clean end the noise is the small number.
    np.testing.assert_allclose(1 - product, 1 - expected, rtol=0.02)


def test_stratified_times_put_one_example_in_every_interval():
    times = stratified_times(64, torch.Generator().manual_seed(0))
    assert torch.equal((times * 64).floor().sort().values, torch.arange(64.0))
    assert not torch.equal(times, times.sort().values)
    again = stratified_times(64, torch.Generator().manual_seed(0))
    assert torch.equal(times, again)


def test_isotonic_is_the_least_squares_monotone_fit():
    values, weights = np.array([1.0, 3.0, 2.0, 2.0, 5.0]), np.array([1.0, 1.0, 1.0, 2.0, 1.0])
    np.testing.assert_allclose(_isotonic(values, weights), [1.0, 2.25, 2.25, 2.25, 5.0])


def test_fit_puts_the_density_where_the_loss_rises():
    old = NoiseSchedule(np.linspace(-10.0, 10.0, 257))
    generator = torch.Generator().manual_seed(1)
    gamma = old.log_nsr(stratified_times(20000, generator))
    # A logistic rise at 2 of width 0.8: the best density is the logistic distribution.
    noise = 0.3 * torch.randn(len(gamma), generator=generator)
    losses = 5.0 * torch.sigmoid((gamma - 2.0) / 0.8) + noise
    fitted = old
    for _ in range(4):
        fitted = fitted.fit(gamma, losses, uniform=0.02)
    assert (np.diff(fitted.state()) > 0).all()
    assert fitted.limits == old.limits
    times = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    expected = 2.0 + 0.8 * torch.logit(times)
    torch.testing.assert_close(fitted.log_nsr(times), expected, atol=0.35, rtol=0)


@pytest.mark.parametrize("kind", ["linear", "squaredcos_cap_v2"])
def test_the_papers_schedules_are_those_of_diffusers(kind):
    ours = NoiseSchedule.linear() if kind == "linear" else NoiseSchedule.cosine()
    stock = DDPMScheduler(1000, beta_schedule=kind, beta_start=1e-4, beta_end=0.02)
    expected = stock.alphas_cumprod.double().numpy()
    np.testing.assert_allclose(ours.alphas_cumprod(1000), expected, rtol=2e-4)
    # Between two timesteps, and before the first, it goes on without a jump.
    levels = ours.log_nsr(torch.linspace(0, 1, 4001))
    assert (levels.diff() > 0).all()
    assert levels.diff().max() < 4


def test_more_noise_multiplies_its_variance():
    plain = NoiseSchedule.linear()
    noisier = plain.with_more_noise(4.0)
    times = torch.linspace(0, 1, 11)
    torch.testing.assert_close(
        noisier.log_nsr(times).exp(), 4 * plain.log_nsr(times).exp(), rtol=1e-4, atol=0
    )


def test_fit_keeps_the_schedule_without_a_rise_or_without_data():
    old = NoiseSchedule.gumbel()
    gamma = old.log_nsr(torch.linspace(0, 1, 500))
    assert old.fit(gamma, -gamma) is old
    assert old.fit(gamma[:5], gamma[:5]) is old
    assert old.fit(gamma, torch.full_like(gamma, float("nan"))) is old


def test_fit_survives_one_level_and_is_finite():
    old = NoiseSchedule.gumbel()
    assert old.fit(torch.full((500,), 3.0), torch.rand(500)) is old
