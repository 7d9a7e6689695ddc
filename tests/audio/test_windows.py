"""Windows cover a recording exactly once, and short tails are merged."""

import pytest

from dac_diffusion.audio.windows import window_bounds


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [
        (1, [(0, 1)]),
        (10, [(0, 10)]),
        (12, [(0, 12)]),  # a tail of 2 is merged
        (13, [(0, 10), (10, 13)]),  # a tail of 3 stands alone
        (20, [(0, 10), (10, 20)]),
        (22, [(0, 10), (10, 22)]),
        (25, [(0, 10), (10, 20), (20, 25)]),
    ],
)
def test_examples(num_samples: int, expected: list[tuple[int, int]]) -> None:
    assert window_bounds(num_samples, 10, 3) == expected


@pytest.mark.parametrize("min_tail", [0, 1, 4, 7, 9])
def test_every_sample_is_in_one_window(min_tail: int) -> None:
    for num_samples in range(1, 60):
        bounds = window_bounds(num_samples, 7, min_tail)
        covered = [sample for start, end in bounds for sample in range(start, end)]
        assert covered == list(range(num_samples))
        assert all(end - start == 7 for start, end in bounds[:-1])
        start, end = bounds[-1]
        assert 0 < end - start < 7 + max(1, min_tail)
        if len(bounds) > 1:
            assert end - start >= min(7, min_tail)


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [
        (7, [(0, 7)]),
        (12, [(0, 10), (2, 12)]),  # a tail of 2 ends a window that overlaps
        (13, [(0, 10), (10, 13)]),
        (20, [(0, 10), (10, 20)]),
        (22, [(0, 10), (10, 20), (12, 22)]),
    ],
)
def test_no_window_is_longer_than_a_limit(
    num_samples: int, expected: list[tuple[int, int]]
) -> None:
    assert window_bounds(num_samples, 10, 3, is_limit=True) == expected


@pytest.mark.parametrize("lengths", [(0, 10, 1), (-3, 10, 1), (5, 0, 1), (5, 10, -1)])
def test_impossible_lengths(lengths: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        window_bounds(*lengths)
