"""Masked codec modelling: which codes are hidden, and what telling them costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from dac_diffusion.autoregressive.masked_codec import MaskedCodecHeads, draw_spans


def drawn(
    lengths: list[int],
    books: int = 3,
    probability: float = 0.15,
    span: int = 10,
    seed: int = 0,
    places: int | None = None,
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    places = places or max(lengths)
    return draw_spans(torch.tensor(lengths), places, books, probability, span, generator)


def runs(row: list[bool]) -> list[int]:
    """Lengths of the runs of hidden codes."""
    text = "".join("x" if hidden else " " for hidden in row)
    return [len(run) for run in text.split()]


def test_whole_spans_are_hidden_and_only_real_codes() -> None:
    lengths = [200, 37, 10, 9, 0]
    found = torch.stack([drawn(lengths, seed=seed, places=210) for seed in range(40)])
    assert found.shape == (40, 5, 210, 3)
    for clip, length in enumerate(lengths):
        assert not found[:, clip, length:].any()
        lengths_of_runs = {
            run
            for row in found[:, clip].transpose(1, 2).flatten(0, 1).tolist()
            for run in runs(row)
        }
        if length < 10:
            assert not lengths_of_runs
        else:
            # Overlapping and touching spans make longer runs; none is cut off.
            assert min(lengths_of_runs) == 10
    assert found[:, 2, :10].all(dim=1).any()


def test_codebooks_clips_and_calls_are_drawn_by_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([100, 100])
    first, second = (draw_spans(lengths, 100, 3, 0.15, 10, generator) for _ in range(2))
    rows = torch.cat([first, second]).transpose(1, 2).flatten(0, 1)  # (12, 100)
    assert len({tuple(row.tolist()) for row in rows}) == 12
    assert torch.equal(first, drawn([100, 100]))


@pytest.mark.parametrize(("length", "span", "probability"), [(57, 10, 0.15), (64, 4, 0.6)])
def test_the_statistics_are_those_of_wav2vec(length: int, span: int, probability: float) -> None:
    draws = 3000
    np.random.seed(0)  # the reference draws from the global generator
    reference = np.stack(
        [_compute_mask_indices((1, length), probability, span)[0] for _ in range(draws)]
    )
    # One clip in each call, longer clips and padding beside it in ours.
    ours = drawn([length] * (draws // 2) + [2 * length], 2, probability, span)
    ours = ours[:-1, :length].transpose(1, 2).flatten(0, 1).numpy()  # (draws, length)
    for statistic in (
        lambda masks: masks.sum(axis=1).astype(float),  # how many codes
        lambda masks: np.diff(np.pad(masks, ((0, 0), (1, 1))).astype(int)).clip(0).sum(axis=1),
    ):
        ours_of, reference_of = statistic(ours), statistic(reference)
        error = math.sqrt((ours_of.var() + reference_of.var()) / draws)
        assert abs(ours_of.mean() - reference_of.mean()) < 4.5 * error
        assert abs(ours_of.std() / reference_of.std() - 1) < 0.12
    # How often each place is hidden: less at the ends, where fewer spans reach.
    share = reference.mean(axis=0)
    error = np.sqrt(2 * share * (1 - share) / draws) + 1e-9
    assert (np.abs(ours.mean(axis=0) - share) < 5 * error).all()
    assert share[0] < 0.6 * share[length // 2]


def test_the_number_of_spans_is_rounded_by_chance() -> None:
    # 1.25 spans of 4 in 20 codes: one or two; two may overlap into one run of 5 to 8.
    found = drawn([20] * 2000, 1, 0.25, 4)[..., 0]
    two = (found.sum(dim=1) > 4).float().mean()
    assert set(found.sum(dim=1).tolist()) == {4, 5, 6, 7, 8}
    assert float(two) == pytest.approx(0.25, abs=0.05)


def test_no_more_spans_than_fit_side_by_side() -> None:
    # The reference's cap: 0.9 * 25 / 10 + chance would be 2 or 3, and 25 codes hold 2.
    counts = drawn([25] * 500, 1, 0.9, 10)[..., 0].sum(dim=1)
    assert counts.max() == 20
    # 1.8 spans in 11 codes would be 1 or 2; one fits.
    assert set(drawn([11] * 100, 1, 0.99, 6)[..., 0].sum(dim=1).tolist()) == {6}


@pytest.mark.parametrize(("probability", "lengths"), [(0.0, [50, 20]), (0.15, [9, 3]), (0.15, [])])
def test_nothing_may_be_hidden(probability: float, lengths: list[int]) -> None:
    found = drawn(lengths, probability=probability, places=50)
    assert found.shape == (len(lengths), 50, 3)
    assert not found.any()


# The loss


def test_the_loss_is_the_weighted_mean_over_hidden_codes() -> None:
    torch.manual_seed(0)
    heads = MaskedCodecHeads(4, 3, 5, decay=0.5)
    encoded, codes = torch.randn(2, 6, 4), torch.randint(0, 5, (2, 6, 3))
    hidden = torch.rand(2, 6, 3) < 0.4
    expected = 0.0
    for book in range(3):
        costs = []
        for clip in range(2):
            for place in range(6):
                if hidden[clip, place, book]:
                    head = heads.heads[book]
                    logits = (head.weight @ encoded[clip, place] + head.bias).tolist()
                    total = math.log(sum(math.exp(value) for value in logits))
                    costs.append(total - logits[int(codes[clip, place, book])])
        expected += sum(costs) / len(costs) / 2 ** (book + 1)
    assert heads(encoded, codes, hidden).item() == pytest.approx(expected, rel=1e-5)
    heads.decay = 1.0
    alike = heads(encoded, codes, hidden).item()
    assert alike > expected
    heads.decay = 0.0
    assert heads(encoded, codes, hidden).item() == 0.0


def test_a_codebook_of_which_nothing_is_hidden_costs_nothing() -> None:
    torch.manual_seed(0)
    heads = MaskedCodecHeads(4, 2, 5)
    encoded = torch.randn(1, 6, 4, requires_grad=True)
    codes = torch.randint(0, 5, (1, 6, 2))
    hidden = torch.zeros(1, 6, 2, dtype=torch.bool)
    nothing = heads(encoded, codes, hidden)
    assert nothing.item() == 0.0
    nothing.backward()
    # Gradients that are there, and zero: processes that share a training wait for every one.
    assert encoded.grad is not None
    assert all(p.grad is not None and not p.grad.any() for p in heads.parameters())
    hidden[0, :3, 1] = True
    heads(encoded, codes, hidden).backward()
    assert not heads.heads[0].weight.grad.any()
    assert heads.heads[1].weight.grad.any()
