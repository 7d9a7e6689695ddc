"""k-means here against scikit-learn's, and what the fitting promises."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch import Tensor

from dac_diffusion.codecs.quantizer_fitting import (
    MEASURED_BATCHES,
    QuantizerFitting,
    fit_quantizer,
    k_means_plus_plus,
    share_left,
)
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.errors import ConfigError, DataError
from tests.helpers import NoDoubles


def clusters(count: int, size: int, width: int, spread: float, seed: int = 0) -> Tensor:
    """`count` vectors around `size` centres, some of which have ten times as many as others."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(size, width, generator=generator)
    shares = 0.1 + torch.rand(size, generator=generator)
    chosen = torch.multinomial(shares, count, replacement=True, generator=generator)
    return centres[chosen] + spread * torch.randn(count, width, generator=generator)


def fit(
    data: Tensor, stages: int, entries: int, batch: int, steps: int = 40, seed: int = 0
) -> tuple[ResidualQuantizer, list[float]]:
    quantizer = ResidualQuantizer(data.shape[1], stages, entries)
    left = fit_quantizer(
        quantizer, list(data.split(batch)), QuantizerFitting(steps, seed), progress=False
    )
    return quantizer, left


def inertia(data: Tensor, entries: Tensor) -> float:
    """The sum of squared distances to the nearest entries."""
    return float(torch.cdist(data.double(), entries.double()).amin(dim=1).square().sum())


@pytest.mark.parametrize(
    ("size", "width", "spread", "entries"), [(15, 8, 0.1, 15), (20, 8, 0.3, 32), (40, 16, 1.0, 64)]
)
def test_as_good_as_scikit_learns(size: int, width: int, spread: float, entries: int) -> None:
    data = clusters(4000, size, width, spread)
    quantizer, left = fit(data, 1, entries, batch=500)
    found = inertia(data, quantizer.codebooks[0])
    best = KMeans(entries, n_init=2, random_state=0).fit(data.numpy()).inertia_
    streamed = MiniBatchKMeans(entries, n_init=2, random_state=0, batch_size=500)
    assert found < 1.03 * best
    assert found < 1.03 * streamed.fit(data.numpy()).inertia_
    variance = float((data - data.mean(dim=0)).double().square().sum())
    assert left[0] == pytest.approx(found / variance, rel=0.02)


def test_the_error_falls_with_every_stage() -> None:
    data = clusters(4000, 30, 12, 1.0)
    quantizer, left = fit(data, 5, 16, batch=1000, steps=20)
    assert all(after < 0.95 * before for before, after in zip([1.0, *left], left, strict=False))
    variance = (data - data.mean(dim=0)).square().sum()
    codes = quantizer.codes(data)
    for stage in range(5):
        error = (data - quantizer.decode(codes[:, : stage + 1])).square().sum()
        assert left[stage] == pytest.approx(float(error / variance), rel=1e-4)


def test_a_later_stage_is_k_means_of_what_is_left() -> None:
    data = clusters(3000, 10, 6, 0.5)
    quantizer, _ = fit(data, 2, 10, batch=750)
    rest = data - quantizer.decode(quantizer.codes(data, 1))
    found = inertia(rest, quantizer.codebooks[1])
    assert found < 1.03 * KMeans(10, n_init=2, random_state=0).fit(rest.numpy()).inertia_


def test_the_seed_decides() -> None:
    data = clusters(2000, 20, 6, 0.5)
    first, second, other = (fit(data, 2, 12, 400, 10, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.codebooks, second.codebooks)
    assert not torch.equal(first.codebooks, other.codebooks)
    state = torch.get_rng_state()
    fit(data, 1, 4, 400, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_empty_entries_are_moved_to_where_they_are_needed() -> None:
    # The entries begin in a group of vectors that never come again.
    gone, *later = (clusters(3000, 4, 3, 0.1, seed) + 50.0 * seed for seed in range(4))
    mixed = torch.cat(later)[torch.randperm(9000, generator=torch.Generator().manual_seed(0))]
    quantizer = ResidualQuantizer(3, 1, 16)
    batches = [gone, gone, *mixed.split(1000), *mixed.split(1000), *mixed.split(1000)]
    fit_quantizer(quantizer, batches, QuantizerFitting(20), progress=False)
    assert len(quantizer.codes(mixed)[:, 0].unique()) == 16
    # Squared distances are 7500 between two groups and 3 within one.
    assert inertia(mixed, quantizer.codebooks[0]) / len(mixed) < 0.5


def test_features_are_read_a_batch_at_a_time_and_again_and_again() -> None:
    data = clusters(900, 8, 4, 0.3)
    alive = largest = rounds = 0

    class Batches:
        def __iter__(self) -> Iterator[Tensor]:
            nonlocal rounds, alive, largest
            rounds += 1
            for part in data.split(100):
                alive += 1
                largest = max(largest, alive)
                yield part.clone()
                alive -= 1

    quantizer = ResidualQuantizer(4, 2, 8)
    fit_quantizer(quantizer, Batches(), QuantizerFitting(9), progress=False)
    assert largest == 1
    # Per stage 4096 vectors for a sample and 9 batches; then those that are measured.
    taken = 2 * (math.ceil(4096 / 100) + 9) + MEASURED_BATCHES
    assert rounds == math.ceil(taken / 9)
    same, _ = fit(data, 2, 8, batch=100, steps=9)
    assert torch.equal(same.codebooks, quantizer.codebooks)


def test_normalisation_gives_every_dimension_its_weight() -> None:
    data = clusters(2000, 10, 4, 0.3)
    stretched = data * torch.tensor([1000.0, 1.0, 0.01, 0.0]) + torch.tensor([5.0, 0.0, 7.0, 3.0])
    quantizer = ResidualQuantizer(4, 1, 10, normalise=True)
    fit_quantizer(quantizer, [stretched], QuantizerFitting(10), progress=False)
    expected = stretched.double()
    torch.testing.assert_close(quantizer.mean.double(), expected.mean(dim=0), rtol=1e-4, atol=1e-5)
    deviation = expected.std(dim=0, correction=0)
    deviation[3] = 1.0  # never changes
    torch.testing.assert_close(quantizer.scale.double(), deviation, rtol=1e-3, atol=0)
    decoded = quantizer.decode(quantizer.codes(stretched))
    plain = ResidualQuantizer(4, 1, 10)
    fit_quantizer(plain, [stretched], QuantizerFitting(10), progress=False)
    by_size = plain.decode(plain.codes(stretched))
    small = (slice(None), slice(1, 3))
    error, other = ((d - stretched)[small].square().mean() for d in (decoded, by_size))
    assert error < 0.5 * other


def test_k_means_plus_plus_finds_every_group() -> None:
    centres = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)) * 100
    rows = centres.repeat(40, 1) + torch.randn(480, 5, generator=torch.Generator().manual_seed(1))
    drawn, different = k_means_plus_plus(rows, 12, torch.Generator().manual_seed(2))
    assert different == 12
    assert sorted(torch.cdist(drawn, centres).argmin(dim=1).tolist()) == list(range(12))
    distances = (drawn[:, None] - rows).square().sum(dim=-1)  # (12, 480)
    assert distances.amin(dim=1).max() < 1e-6  # they are some of the vectors


def test_share_left_of_vectors_that_are_entries() -> None:
    quantizer = ResidualQuantizer(2, 2, 2)
    quantizer.codebooks[0] = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    quantizer.codebooks[1] = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    rows = torch.tensor([[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]])

    def forever() -> Iterator[Tensor]:
        while True:
            yield rows

    # Variances 4 and 1; the first codebook leaves the second of them, the second nothing.
    assert share_left(quantizer, forever()) == pytest.approx([0.2, 0.0])


@pytest.mark.parametrize("normalise", [False, True])
def test_on_a_device_without_float64(normalise: bool) -> None:
    data = clusters(600, 10, 4, 0.3)
    quantizers = [ResidualQuantizer(4, 2, 10, normalise) for _ in range(2)]
    fitted = [
        fit_quantizer(quantizer, list(rows.split(200)), QuantizerFitting(5), progress=False)
        for quantizer, rows in zip(quantizers, (data, data.as_subclass(NoDoubles)), strict=True)
    ]
    assert fitted[1] == fitted[0]
    for name, tensor in quantizers[0].state_dict().items():
        assert torch.equal(quantizers[1].state_dict()[name], tensor), name


def test_what_cannot_be_fitted() -> None:
    quantizer = ResidualQuantizer(4, 1, 8)

    def refused(batches: object, message: str, kind: type[Exception] = DataError) -> None:
        with pytest.raises(kind, match=message) as caught:
            fit_quantizer(quantizer, batches, progress=False)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused([], "there are no features to fit the quantiser on")
    refused([torch.zeros(0, 4)], "there are no features")
    refused([torch.zeros(3, 5)], r"features of shape \(3, 5\) do not fit a quantiser of width 4")
    bad = torch.zeros(3, 4)
    bad[1, 1] = math.nan
    refused([bad], "the features hold NaN or infinite numbers; check the encoder")
    few = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 4)))
    refused([few, few], "only 5 different features were found for 8 entries; lower the number of")
    with pytest.raises(ConfigError, match="steps=0: must be at least 1"):
        fit_quantizer(quantizer, [few], QuantizerFitting(steps=0), progress=False)
