"""Deterministic windows over long recordings."""


def window_bounds(
    num_samples: int, window_samples: int, min_tail_samples: int, is_limit: bool = False
) -> list[tuple[int, int]]:
    """Cut a recording into consecutive windows, (start, end) in samples, end not included.

    All are `window_samples` long except the last: a tail of at least `min_tail_samples` is a
    shorter window, a tail below that is merged into the window before it. A recording no longer
    than a window is one window, however short. Where `is_limit` says that no window may be longer
    than `window_samples`, a short tail is instead the end of a last window that overlaps the one
    before it. The windows depend on the lengths only.

    Raises ValueError for lengths below 1 (below 0 for `min_tail_samples`).
    """
    if num_samples < 1 or window_samples < 1 or min_tail_samples < 0:
        raise ValueError(
            f"cannot cut {num_samples} samples into windows of {window_samples} "
            f"with tails of at least {min_tail_samples}"
        )
    num_windows, tail = divmod(num_samples, window_samples)
    if num_windows == 0 or tail >= max(1, min_tail_samples):
        num_windows += 1
    starts = [index * window_samples for index in range(num_windows)]
    if is_limit and num_samples - starts[-1] > window_samples:
        ends = [start + window_samples for start in starts]
        return [*zip(starts, ends, strict=True), (num_samples - window_samples, num_samples)]
    return list(zip(starts, [*starts[1:], num_samples], strict=True))
