"""Fitting a residual quantiser: k-means on streamed features, one codebook after another.

A stage is fitted on what the stages before it have left of each vector. It begins with entries
drawn from a sample by greedy k-means++. Then each step assigns one batch of vectors to their
nearest entries (mini-batch k-means): an entry is the mean of the vectors that were nearest to it
in about the latter half of the steps so far, so early assignments are forgotten and late ones
averaged. An entry that no vector was nearest to for a while is empty, and takes the place of a
vector of the batch, drawn in proportion to the squared error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer, nearest_entries
from dac_diffusion.errors import ConfigError, DataError
from dac_diffusion.seeds import check_seed

# Vectors that the first entries are drawn from: for each entry, and at least.
SAMPLE_PER_ENTRY, SMALLEST_SAMPLE = 16, 4096
ROUNDING = 1e-6  # of their squares may be left of the distance between two equal vectors
EMPTY_AFTER = 32  # vectors in a row, for each entry, of which none was nearest to an empty one
SETTLING = 0.1  # share of the last steps in which no entry is moved away any more
MEASURED_BATCHES = 20  # that mean, variance and errors are measured on
SUMMED_ROWS = 8192  # vectors added up at a time


@dataclass(frozen=True)
class QuantizerFitting:
    """How a quantiser is fitted. steps: batches for each stage; seed: decides all that is drawn.

    The published iterations are not known. 50 steps of 32768 frames are 1.6 million frames for
    each stage, 1600 for each of 1024 entries.
    """

    steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ConfigError for values that make no sense."""
        if self.steps < 1:
            raise ConfigError(f"steps={self.steps}: must be at least 1")
        check_seed(self.seed)


@torch.no_grad()
def fit_quantizer(
    quantizer: ResidualQuantizer,
    batches: Iterable[Tensor],
    fitting: QuantizerFitting | None = None,
    progress: bool = True,
) -> list[float]:
    """Fit all codebooks on batches of features (R, D), on the quantiser's device.

    batches: in random order, and iterable again and again (a list, or an object with __iter__);
    steps go on where the one before stopped, and start anew at the end. One batch is held at a
    time. Returns the share of the variance that is left after each stage, of batches like these;
    the quantiser's config keeps it.
    Raises DataError for features that are none, too few, of another width or not finite.
    """
    fitting = fitting or QuantizerFitting()
    stream = _endless(batches, quantizer)
    generator = torch.Generator().manual_seed(fitting.seed)
    if quantizer.config.normalise:
        _fit_normalisation(quantizer, stream)
    total = quantizer.num_codebooks * fitting.steps
    with tqdm(total=total, desc="k-means", unit="batch", disable=not progress) as bar:
        for stage in range(quantizer.num_codebooks):
            entries = _first_entries(quantizer, stage, stream, generator)
            for _ in _steps(quantizer, stage, entries, stream, fitting.steps, generator):
                bar.update()
            quantizer.codebooks[stage] = entries
    left = share_left(quantizer, stream)
    quantizer.register_to_config(variance_left=left)
    return left


def _endless(batches: Iterable[Tensor], quantizer: ResidualQuantizer) -> Iterator[Tensor]:
    """The batches, over and over, in float32 on the quantiser's device."""
    while True:
        found = 0
        for batch in batches:
            if batch.ndim != 2 or batch.shape[-1] != quantizer.feature_dim:
                raise DataError(
                    f"features of shape {tuple(batch.shape)} do not fit a quantiser of width "
                    f"{quantizer.feature_dim}"
                )
            if not batch.isfinite().all():
                raise DataError("the features hold NaN or infinite numbers; check the encoder")
            if len(batch) > 0:
                found += len(batch)
                yield batch.to(quantizer.device, torch.float32)
        if found == 0:
            raise DataError("there are no features to fit the quantiser on")


def _left_before(quantizer: ResidualQuantizer, stage: int, batch: Tensor) -> Tensor:
    """What a stage is to code, (R, D)."""
    return quantizer.quantize(quantizer.normalised(batch), stage)[1]


def _first_entries(
    quantizer: ResidualQuantizer,
    stage: int,
    stream: Iterator[Tensor],
    generator: torch.Generator,
) -> Tensor:
    """The entries (C, D) that a stage begins with, by k-means++ in a sample."""
    size = quantizer.codebook_size
    missing = max(SAMPLE_PER_ENTRY * size, SMALLEST_SAMPLE)
    parts: list[Tensor] = []
    while missing > 0:
        batch = next(stream)
        chosen = torch.randperm(len(batch), generator=generator)[:missing]
        parts.append(_left_before(quantizer, stage, batch[chosen.to(batch.device)]))
        missing -= len(chosen)
    entries, different = k_means_plus_plus(torch.cat(parts), size, generator)
    if stage == 0 and different < size:
        raise DataError(
            f"only {different} different features were found for {size} entries; lower the number "
            "of entries or give more features"
        )
    return entries


def k_means_plus_plus(rows: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """`size` of the vectors (R, D), and how many of them are different.

    Each is the best of a few candidates, the one that leaves the least squared error; these are
    drawn in proportion to the squared distance to the vectors taken before.
    Source: Arthur and Vassilvitskii, 2007, the greedy form.
    """
    rows = rows - (centre := rows.mean(dim=0))  # for exact differences of squares
    squares = rows.square().sum(dim=-1)  # (R,)
    candidates = 2 + int(math.log(size))
    distances = torch.ones_like(squares)  # the first is drawn evenly
    places: list[int] = []
    different = 0
    for _ in range(size):
        # Sums of float64 are the CPU's, here and below: Apple's devices have no such numbers.
        reach = distances.cpu().double().cumsum(dim=0)  # (R,)
        drawn = torch.rand(candidates, generator=generator, dtype=torch.float64)
        found = torch.searchsorted(reach, drawn * reach[-1], right=True).clamp(max=len(rows) - 1)
        found = found.to(rows.device)
        different += bool(reach[-1] > 0)
        both = squares[:, None] + squares[found]  # (R, T)
        to_found = both - 2 * (rows @ rows[found].T)
        to_found = to_found.where(to_found > ROUNDING * both, 0.0)
        if places:
            to_found = torch.minimum(to_found, distances[:, None])
        best = int(to_found.sum(dim=0).argmin())
        places.append(int(found[best]))
        distances = to_found[:, best]
    return rows[places] + centre, different


def _steps(
    quantizer: ResidualQuantizer,
    stage: int,
    entries: Tensor,
    stream: Iterator[Tensor],
    steps: int,
    generator: torch.Generator,
) -> Iterator[None]:
    """Steps of mini-batch k-means, which change the entries (C, D) in place."""
    counts = entries.new_zeros(len(entries))  # (C,)
    sums = torch.zeros_like(entries)  # (C, D)
    unused = entries.new_zeros(len(entries))  # vectors since each was nearest to one
    for step in range(steps):
        rows = _left_before(quantizer, stage, next(stream))  # (R, D)
        nearest = nearest_entries(rows, entries)  # (R,)
        new_counts, new_sums = _added_up(rows, nearest, len(entries))
        kept = 1 - 1 / max(1.0, (step + 1) / 2)
        counts.mul_(kept).add_(new_counts)
        sums.mul_(kept).add_(new_sums)
        unused = torch.where(new_counts > 0, 0.0, unused + len(rows))
        used = counts > 0
        means = sums / counts.clamp(min=torch.finfo(counts.dtype).tiny)[:, None]
        errors = (rows - entries[nearest]).square().sum(dim=-1)  # (R,)
        entries.copy_(torch.where(used[:, None], means, entries))
        if step < (1 - SETTLING) * steps:
            empty = (unused >= EMPTY_AFTER * len(entries)).nonzero().flatten()
            filled = _move(entries, empty, rows, errors, generator)
            counts[filled], sums[filled], unused[filled] = 0, 0, 0
        yield


def _added_up(rows: Tensor, nearest: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How many vectors (R, D) each entry has, (C,), and their sum, (C, D).

    By matrix products, because adding by index is in no fixed order on an accelerator.
    """
    counts = rows.new_zeros(size)
    sums = rows.new_zeros(size, rows.shape[-1])
    for part, own in zip(rows.split(SUMMED_ROWS), nearest.split(SUMMED_ROWS), strict=True):
        belongs = F.one_hot(own, size).to(rows.dtype)  # (ROWS, C)
        counts += belongs.sum(dim=0)
        sums += belongs.T @ part
    return counts, sums


def _move(
    entries: Tensor, empty: Tensor, rows: Tensor, errors: Tensor, generator: torch.Generator
) -> Tensor:
    """Put empty entries where vectors are far from theirs; returns those that were moved."""
    weights = errors.cpu().double()
    count = min(len(empty), int((weights > 0).sum()))
    if count == 0:
        return empty[:0]
    drawn = torch.multinomial(weights, count, generator=generator)
    entries[empty[:count]] = rows[drawn.to(rows.device)]
    return empty[:count]


def _fit_normalisation(quantizer: ResidualQuantizer, stream: Iterator[Tensor]) -> None:
    """Mean and standard deviation of every dimension; 1 for one that never changes."""
    count = 0
    total = torch.zeros(quantizer.feature_dim, dtype=torch.float64)  # (D,)
    squares = torch.zeros_like(total)
    for _ in range(MEASURED_BATCHES):
        batch = next(stream).cpu().double()
        count += len(batch)
        total += batch.sum(dim=0)
        squares += batch.square().sum(dim=0)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    quantizer.mean.copy_(mean.float())
    quantizer.scale.copy_(deviation.where(deviation > 1e-6 * mean.abs(), 1.0).float())


@torch.no_grad()
def share_left(quantizer: ResidualQuantizer, batches: Iterator[Tensor]) -> list[float]:
    """The share of the variance of features (R, D) that is left after 1, 2, ... N codebooks.

    Of the next MEASURED_BATCHES batches, in the units of the codebooks.
    """
    count, total = 0, torch.zeros(quantizer.feature_dim, dtype=torch.float64)
    left = torch.zeros(quantizer.num_codebooks + 1, dtype=torch.float64)  # before and after each
    for _ in range(MEASURED_BATCHES):
        rows = quantizer.normalised(next(batches))  # (R, D)
        count += len(rows)
        total += rows.cpu().double().sum(dim=0)
        left[0] += rows.square().sum(dim=-1).cpu().double().sum()
        for stage, codebook in enumerate(quantizer.codebooks.float()):
            rows = rows - codebook[nearest_entries(rows, codebook)]
            left[stage + 1] += rows.square().sum(dim=-1).cpu().double().sum()
    variance = left[0] - total.square().sum() / count
    return (left[1:] / variance.clamp(min=torch.finfo(torch.float64).tiny)).tolist()
