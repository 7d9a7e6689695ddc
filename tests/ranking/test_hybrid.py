"""The weighted sum of the parts of a score."""

from typing import get_args

import pytest
import torch

from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.error_filter import error_probabilities, flag_errors
from dac_diffusion.ranking.hybrid import Normalisation, RankingWeights, hybrid_scores, z_scores
from dac_diffusion.ranking.settings import RankingSettings

COSINES = torch.tensor([0.5, 0.3, 0.1])
LIKELIHOODS = torch.tensor([-2.0, -1.0, -3.0])
AGREEMENTS = torch.tensor([0.1, 0.4, 0.4])
PARTS = (COSINES, LIKELIHOODS, AGREEMENTS)


def test_z_scores_by_hand() -> None:
    # Mean 3, squared deviations 4, 1, 1, 4 and 0: variance 2 over five values.
    found = z_scores(torch.tensor([1.0, 2.0, 4.0, 5.0, 3.0]))
    expected = torch.tensor([-2.0, -1.0, 1.0, 2.0, 0.0]) / 2**0.5
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7], [0.0, 0.0], [0.7, 0.7 + 6e-8]])
def test_z_scores_of_equal_values_are_0(values: list[float]) -> None:
    assert z_scores(torch.tensor(values)).tolist() == [0.0] * len(values)


def test_small_differences_are_differences() -> None:
    assert z_scores(torch.tensor([0.7001, 0.7])).tolist() == pytest.approx([1.0, -1.0])


def test_weighted_sums_by_hand() -> None:
    weights = RankingWeights(0.6, 0.4, 2.0)
    found = hybrid_scores(weights, "none", *PARTS)
    expected = [0.3 - 0.8 + 0.2, 0.18 - 0.4 + 0.8, 0.06 - 1.2 + 0.8]
    assert found.tolist() == pytest.approx(expected)


def test_z_scored_sums_by_hand() -> None:
    found = hybrid_scores(RankingWeights(0.6, 0.4), "z_score", COSINES, LIKELIHOODS, None)
    top = 1.5**0.5  # of three values in equal steps
    assert found.tolist() == pytest.approx([0.6 * top, 0.4 * top, -top], abs=1e-6)


def test_the_default_is_the_cosine_to_the_last_bit() -> None:
    cosines = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(hybrid_scores(RankingWeights(), "none", cosines, None, None), cosines)


def test_after_z_scores_scale_and_offset_of_a_part_do_not_matter() -> None:
    weights = RankingWeights(1.0, 0.5, 2.0)
    found = hybrid_scores(weights, "z_score", *PARTS)
    other = hybrid_scores(weights, "z_score", COSINES, 7 * LIKELIHOODS - 3, AGREEMENTS / 9)
    torch.testing.assert_close(found, other)


@pytest.mark.parametrize("normalisation", get_args(Normalisation))
def test_permuted_candidates_have_permuted_scores(normalisation: Normalisation) -> None:
    weights, order = RankingWeights(1.0, 0.5, 2.0), [2, 0, 1]
    found = hybrid_scores(weights, normalisation, *PARTS)
    permuted = hybrid_scores(weights, normalisation, *(part[order] for part in PARTS))
    torch.testing.assert_close(permuted, found[order])


def test_parts_without_weight_are_not_needed() -> None:
    weights = RankingWeights(0.0, 0.0, 0.5)
    assert hybrid_scores(weights, "none", COSINES, None, AGREEMENTS).tolist() == pytest.approx(
        [0.05, 0.2, 0.2]
    )
    assert hybrid_scores(RankingWeights(0.0), "none", COSINES, None, None).tolist() == [0.0] * 3
    with pytest.raises(ValueError, match=r"agreement has the weight 0\.5, but no values"):
        hybrid_scores(weights, "none", COSINES, LIKELIHOODS, None)


def test_captions_with_errors_are_flagged() -> None:
    assert flag_errors([0.95, 0.9, 0.1]) == [True, False, False]  # above 0.9, not at it
    assert flag_errors([0.95, 0.9, 0.1], threshold=0.0) == [False] * 3  # all: as without
    assert flag_errors([0.95, 0.9, 0.1], threshold=1.0) == [False] * 3
    assert flag_errors([]) == []


class Detector:
    """Says that two captions have an error each, however many it gets."""

    def probabilities(self, captions: object) -> list[float]:
        return [1, 1]


def test_a_detector_must_judge_every_caption() -> None:
    found = error_probabilities(Detector(), ["a", "b"])
    assert found == [1.0, 1.0]
    assert isinstance(found[0], float)
    message = "error_detector: Detector gave 2 probabilities for 3 captions; it must give one for"
    with pytest.raises(ConfigError, match=message):
        error_probabilities(Detector(), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            RankingSettings(RankingWeights(audio_text=float("nan"))),
            "audio_text_weight=nan: must be a finite number",
        ),
        (
            RankingSettings(RankingWeights(likelihood=float("inf"))),
            "likelihood_weight=inf: must be a finite number",
        ),
        (
            RankingSettings(RankingWeights(agreement="2")),  # type: ignore[arg-type]
            "agreement_weight='2': must be a finite number",
        ),
        (
            RankingSettings(normalisation="rank"),  # type: ignore[arg-type]
            "score_normalisation='rank': must be one of none, z_score",
        ),
        (
            RankingSettings(error_threshold=1.5, error_detector=Detector()),
            "error_threshold=1.5: must be a number from 0 to 1",
        ),
        (
            RankingSettings(error_threshold=float("nan"), error_detector=Detector()),
            "error_threshold=nan: must be a number from 0 to 1",
        ),
        (
            RankingSettings(error_detector="fense"),  # type: ignore[arg-type]
            "error_detector: a str has no method probabilities(captions), which a detector needs",
        ),
    ],
)
def test_settings_that_make_no_sense_are_named(settings: RankingSettings, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.check()
    assert str(caught.value) == message


def test_settings_that_make_sense() -> None:
    RankingSettings().check()
    weights = RankingWeights(0, -1, 0.5)
    RankingSettings(weights, "z_score", error_threshold=0, error_detector=Detector()).check()
