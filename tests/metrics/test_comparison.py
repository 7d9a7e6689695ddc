"""Paired differences of two evaluations."""

from __future__ import annotations

import pytest

from dac_diffusion.data.predictions import Clip
from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bleu import bleu
from dac_diffusion.metrics.comparison import compare
from dac_diffusion.metrics.evaluation import Evaluation, evaluate
from tests.metrics.real_captions import real_captions

SOUNDS = ("a dog barks", "rain falls", "a bird sings", "a door creaks", "wind blows", "a cat")


def clips_of(captions: list[list[str]]) -> list[Clip]:
    references = [[f"{sound} loudly", f"{sound} in the distance"] for sound in SOUNDS]
    return [Clip(f"{i}.wav", str(i), of_clip, references[i]) for i, of_clip in enumerate(captions)]


GOOD = [[f"{sound} loudly", sound] for sound in SOUNDS]
POOR = [[f"something and {sound}", "noise"] for sound in SOUNDS]


def corpus(evaluation: Evaluation, name: str) -> float:
    values = {
        **evaluation.quality.corpus,
        **(evaluation.sets.corpus if evaluation.sets else {}),
        "mtld": evaluation.diversity.mtld.in_order,
        "distinct_1": evaluation.diversity.distinct[0],
        "distinct_2": evaluation.diversity.distinct[1],
    }
    value = values[name]
    assert value is not None
    return value


def test_estimates_are_the_differences_of_the_corpus_scores() -> None:
    good, poor = evaluate(clips_of(GOOD)), evaluate(clips_of(POOR))
    found = compare(good, poor, resamples=200, half_samples=200)
    assert good.sets is not None
    diversity = {"mtld", "distinct_1", "distinct_2"}
    assert set(found) == set(good.quality.corpus) | set(good.sets.corpus) | diversity
    for name, interval in found.items():
        expected = corpus(good, name) - corpus(poor, name)
        assert interval.estimate == pytest.approx(expected), name
        assert interval.low <= interval.high
        assert (interval.resamples, interval.clips) == (200, 6)
    assert found["cider_d"].low > 0
    assert found["bleu_1"].low > 0


def test_a_system_does_not_differ_from_itself() -> None:
    good = evaluate(clips_of(GOOD))
    for interval in compare(good, good, resamples=50).values():
        assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)


def test_clips_are_paired_by_their_references_and_not_by_their_order() -> None:
    good, poor = evaluate(clips_of(GOOD)), evaluate(clips_of(POOR)[::-1])
    expected = compare(good, evaluate(clips_of(POOR)), resamples=50)
    found = compare(good, poor, resamples=50)
    for name, interval in found.items():
        other = expected[name]
        assert (interval.low, interval.high) == pytest.approx((other.low, other.high)), name


def test_bleu_is_computed_anew_on_each_resample() -> None:
    captions = real_captions("audiocaps/val.csv", clips=40)
    ours = [Clip(str(i), str(i), c[:1], c[2:]) for i, c in enumerate(captions)]
    theirs = [Clip(str(i), str(i), c[1:2], c[2:]) for i, c in enumerate(captions)]
    interval = compare(evaluate(ours), evaluate(theirs), resamples=1, seed=3)["bleu_4"]
    # The one resample, drawn as the bootstrap draws it.
    import numpy as np

    drawn = np.random.default_rng(3).integers(40, size=(1, 40))[0]
    first, second = (
        bleu([s[i].captions[0] for i in drawn], [s[i].references for i in drawn])[0][3]
        for s in (ours, theirs)
    )
    assert interval.low == interval.high == pytest.approx(first - second)


def test_only_what_both_have_on_every_clip_is_compared() -> None:
    one_caption = [[captions[0]] for captions in POOR]
    found = compare(evaluate(clips_of(GOOD)), evaluate(clips_of(one_caption)), resamples=10)
    assert "cider_d" in found
    assert "mbleu_4" not in found
    uneven = [*POOR[:5], POOR[5][:1]]
    found = compare(evaluate(clips_of(GOOD)), evaluate(clips_of(uneven)), resamples=10)
    assert "mbleu_4" not in found
    assert "distinct_1_within_clip" in found


def test_only_the_metrics_asked_for() -> None:
    good, poor = evaluate(clips_of(GOOD)), evaluate(clips_of(POOR))
    found = compare(good, poor, resamples=50, half_samples=5)
    asked = compare(good, poor, resamples=50, half_samples=5, metrics=["mtld", "cider_d", "none"])
    assert asked == {name: found[name] for name in ("cider_d", "mtld")}


def test_other_clips_and_a_single_clip_are_errors() -> None:
    good = clips_of(GOOD)
    with pytest.raises(DataError, match="only on the same clips"):
        compare(evaluate(good), evaluate(good[:5]))
    with pytest.raises(DataError, match="at least two clips"):
        compare(evaluate(good[:1]), evaluate(good[:1]))
