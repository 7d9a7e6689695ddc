"""Arm (a): embeddings of fixed norm, the exact posterior, and no collapse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from dac_diffusion.errors import ConfigError
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.latent_space import position_weights


def make_space(likelihood: str = "off", vocabulary_size: int = 11) -> EmbeddingSpace:
    space = EmbeddingSpace(vocabulary_size, latent_dim=8, likelihood=likelihood)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        space.weight.copy_(torch.randn(space.weight.shape, generator=generator))
    return space


def make_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Outputs and noisy latents (B=2, K=3, L=5, D=8) and log-NSR (B, K)."""
    generator = torch.Generator().manual_seed(1)
    output, noisy = torch.randn(2, 2, 3, 5, 8, generator=generator)
    return output, noisy, torch.linspace(1, 4, 6).view(2, 3)


def test_latents_have_norm_root_d() -> None:
    space = make_space()
    latents = space.encode(torch.tensor([[1, 2, 10], [0, 0, 3]]))
    assert latents.shape == (2, 3, 8)
    torch.testing.assert_close(latents.square().mean(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(latents[0, 1], space.weight[2] / space.weight[2].norm() * 8**0.5)


def test_prediction_is_the_expected_embedding() -> None:
    space = make_space()
    prediction = space.predict(*make_inputs())
    assert prediction.logits is not None
    assert prediction.logits.shape == (2, 3, 5, 11)
    probabilities = prediction.logits[1, 2, 4].softmax(dim=-1)
    expected = sum(p * row for p, row in zip(probabilities, space.embeddings(), strict=True))
    torch.testing.assert_close(prediction.latents[1, 2, 4], expected)


def test_logits_can_be_left_out() -> None:
    space = make_space()
    prediction = space.predict(*make_inputs(), with_logits=False)
    assert prediction.logits is None
    torch.testing.assert_close(prediction.latents, space.predict(*make_inputs()).latents)
    ids = torch.zeros(2, 3, 5, dtype=torch.long)
    with pytest.raises(ValueError, match="with_logits"):
        space.losses(prediction, ids, space.encode(ids), torch.ones(2, 3, 5))


def test_autocast_does_not_round_the_logits() -> None:
    space = make_space("exact")
    output, noisy, log_nsr = make_inputs()
    output = output.bfloat16()  # what a denoiser returns under autocast
    expected = space.predict(output.float(), noisy, log_nsr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = space.predict(output, noisy, log_nsr)
    assert prediction.logits is not None
    assert prediction.logits.dtype == torch.float32
    torch.testing.assert_close(prediction.logits, expected.logits, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(prediction.latents, expected.latents, rtol=1e-6, atol=1e-6)


def test_exact_likelihood_gives_the_gaussian_posterior() -> None:
    space = make_space("exact")
    _, noisy, log_nsr = make_inputs()
    logits = space.predict(torch.zeros_like(noisy), noisy, log_nsr).logits
    assert logits is not None
    alpha = torch.sigmoid(-log_nsr).sqrt()[..., None, None, None]  # (B, K, 1, 1, 1)
    sigma = torch.sigmoid(log_nsr).sqrt()[..., None, None, None]
    evidence = Normal(alpha * space.embeddings(), sigma).log_prob(noisy[..., None, :]).sum(dim=-1)
    torch.testing.assert_close(logits.softmax(dim=-1), evidence.softmax(dim=-1))


def test_learned_likelihood_starts_without_effect_and_learns() -> None:
    space = make_space("learned")
    output, noisy, log_nsr = make_inputs()
    logits = space.predict(output, noisy, log_nsr).logits
    torch.testing.assert_close(logits, make_space().predict(output, noisy, log_nsr).logits)
    assert logits is not None
    logits[..., 0].sum().backward()
    assert space.likelihood_scale.grad is not None
    assert space.likelihood_scale.grad.abs() > 0


def test_low_noise_stays_finite() -> None:
    space = make_space("exact")
    output, noisy, _ = make_inputs()
    prediction = space.predict(output, noisy, torch.full((2, 3), -60.0))
    assert prediction.latents.isfinite().all()


def test_a_caption_does_not_depend_on_its_batch() -> None:
    space = EmbeddingSpace(1100, latent_dim=128).eval()
    generator = torch.Generator().manual_seed(0)
    output = 3 * torch.randn(40, 24, 128, generator=generator)
    together = space.predict(output, output, torch.zeros(40))
    alone = space.predict(output[7:8], output[7:8], torch.zeros(1))
    assert torch.equal(together.latents[7:8], alone.latents)
    in_training = space.train().predict(output, output, torch.zeros(40))
    torch.testing.assert_close(in_training.latents, together.latents)


def test_unknown_likelihood_is_an_error() -> None:
    with pytest.raises(ConfigError, match="likelihood='on' is unknown"):
        EmbeddingSpace(11, likelihood="on")


def test_nearest_neighbour_distance_shows_collapse() -> None:
    space = EmbeddingSpace(8, latent_dim=8)
    with torch.no_grad():
        space.weight.copy_(torch.eye(8) * 3)
    everything = torch.arange(8)
    assert abs(space.mean_nearest_neighbour_distance(everything) - 2**0.5) < 1e-6
    with torch.no_grad():
        space.weight[4:] = 1.0
    assert space.mean_nearest_neighbour_distance(torch.arange(4, 8)) < 1e-3
    assert abs(space.mean_nearest_neighbour_distance(torch.arange(4)) - 2**0.5) < 1e-6


def test_nearest_neighbour_distance_of_a_large_table() -> None:
    space = EmbeddingSpace(1500, latent_dim=4)  # more rows than one block holds
    rows = torch.nn.functional.normalize(space.weight.detach(), dim=-1)
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    expected = distances.fill_diagonal_(9).amin(dim=-1).mean().item()
    assert abs(space.mean_nearest_neighbour_distance(torch.arange(1500)) - expected) < 1e-3


def test_training_learns_without_collapse() -> None:
    torch.manual_seed(0)  # the parameters' initial values
    space = EmbeddingSpace(40, latent_dim=16)
    generator = torch.Generator().manual_seed(0)
    denoise = torch.nn.Linear(16, 16)
    optimiser = torch.optim.AdamW([*space.parameters(), *denoise.parameters()], lr=5e-3)
    history = []
    for _ in range(150):
        token_ids = torch.randint(0, 40, (64, 6), generator=generator)
        clean = space.encode(token_ids)
        noise = torch.randn(clean.shape, generator=generator)
        noisy = 0.7**0.5 * clean + 0.3**0.5 * noise
        prediction = space.predict(denoise(noisy), noisy, torch.zeros(64))
        weights = position_weights(token_ids, pad_id=0, pad_weight=0.5)
        losses = space.losses(prediction, token_ids, clean, weights)
        assert losses.keys() == space.loss_weights.keys()
        loss = losses["cross_entropy"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.5 * history[0]
    assert space.mean_nearest_neighbour_distance(torch.arange(40)) > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_load(tmp_path: Path, dtype: torch.dtype) -> None:
    space = make_space("learned").to(dtype)
    space.save_pretrained(tmp_path)
    loaded = EmbeddingSpace.from_pretrained(tmp_path, torch_dtype=dtype)
    assert loaded.config["likelihood"] == "learned"
    expected, result = space.predict(*make_inputs()), loaded.predict(*make_inputs())
    assert torch.equal(result.latents, expected.latents)
