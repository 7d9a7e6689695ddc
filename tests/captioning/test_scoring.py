"""The best captions of windows and of whole recordings, from made-up candidates."""

from collections.abc import Sequence

import pytest
import torch

from dac_diffusion.captioning.ranking import Candidates
from dac_diffusion.captioning.results import Caption, ScoreParts
from dac_diffusion.captioning.scoring import Ranker
from dac_diffusion.ranking.hybrid import RankingWeights
from dac_diffusion.ranking.settings import RankingSettings
from dac_diffusion.ranking.similarity import AudioTextScorer

DOG, HOWL, RAIN = "a dog barks", "a dog howls loudly", "rain falls"
SHARED = (4 / 7 + 2 / 5) / 4  # the agreement of the first two


@pytest.fixture(scope="module")
def scorer() -> AudioTextScorer:
    torch.manual_seed(0)
    return AudioTextScorer(50, pooled_dim=6, width=12, heads=2, embedding_dim=8).eval()


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.inference_mode():
        yield


def made_up(texts: list[str], seed: int) -> Candidates:
    """Random vectors and log-likelihoods."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(len(texts), 8, generator=generator), dim=1)
    pooled = torch.randn(6, generator=generator)
    return Candidates(texts, vectors, pooled, -torch.rand(len(texts), generator=generator))


def cosines(scorer: AudioTextScorer, candidates: Candidates, pooled: torch.Tensor) -> list[float]:
    found: list[float] = (candidates.text_vectors @ scorer.embed_audio(pooled[None])[0]).tolist()
    return found


def agreement(caption: Caption) -> float:
    assert caption.parts is not None
    assert caption.parts.agreement is not None
    return caption.parts.agreement


def test_a_score_is_the_sum_of_its_parts(scorer: AudioTextScorer) -> None:
    drawn = made_up([DOG, HOWL, RAIN], seed=0)
    settings = RankingSettings(RankingWeights(0.6, 0.4, 2.0))
    (of_window,), whole = Ranker(scorer, settings).best([drawn], [100], 3)
    assert whole == of_window
    assert drawn.log_likelihoods is not None
    parts = dict(
        zip(
            drawn.texts,
            zip(
                cosines(scorer, drawn, drawn.pooled),
                drawn.log_likelihoods.tolist(),
                [SHARED / 2, SHARED / 2, 0.0],
                strict=True,
            ),
            strict=True,
        )
    )
    assert {caption.text for caption in of_window} == set(parts)
    for caption in of_window:
        cosine, likelihood, agreed = parts[caption.text]
        assert caption.score == pytest.approx(0.6 * cosine + 0.4 * likelihood + 2 * agreed)
        assert caption.parts is not None
        assert vars(caption.parts) == pytest.approx(
            {
                "cosine": cosine,
                "log_likelihood": likelihood,
                "agreement": agreed,
                "error_probability": None,
            }
        )


def test_parts_that_do_not_count_are_none(scorer: AudioTextScorer) -> None:
    drawn = made_up([DOG, RAIN], seed=0)
    (of_window,), _ = Ranker(scorer, RankingSettings()).best([drawn], [100], 3)
    for caption in of_window:
        assert caption.parts == ScoreParts(cosine=caption.score)


def test_in_the_whole_all_windows_agree_by_their_lengths(scorer: AudioTextScorer) -> None:
    first, second = made_up([DOG, RAIN], seed=1), made_up([HOWL, HOWL, RAIN], seed=2)
    settings = RankingSettings(RankingWeights(audio_text=0.0, agreement=1.0))
    of_windows, whole = Ranker(scorer, settings).best([first, second], [300, 100], 5)
    # A window's own agreement is with its own candidates.
    assert {c.text: c.score for c in of_windows[0]} == {DOG: 0.0, RAIN: 0.0}
    assert {c.text: c.score for c in of_windows[1]} == pytest.approx({HOWL: 1 / 2, RAIN: 0.0})
    # For the whole each of the first window's two counts 150, each of the second's three 33.3.
    expected = {
        DOG: 2 / 3 * SHARED / (1.5 + 1),
        HOWL: (1.5 * SHARED + 1 / 3 * 1) / (3 + 2 / 3),
        # The one of the second window: the other one counts more.
        RAIN: 1.5 * 0.5 / (3 + 2 / 3),
    }
    assert {c.text: c.score for c in whole} == pytest.approx(expected)
    assert [agreement(caption) for caption in whole] == [caption.score for caption in whole]


def test_in_the_whole_the_cosine_is_with_the_weighted_mean(scorer: AudioTextScorer) -> None:
    first, second = made_up([DOG], seed=1), made_up([RAIN], seed=2)
    settings = RankingSettings(RankingWeights(1.0, 0.5))
    _, whole = Ranker(scorer, settings).best([first, second], [300, 100], 5)
    mean = (3 * first.pooled + second.pooled) / 4
    for candidates in (first, second):
        (caption,) = (c for c in whole if c.text == candidates.texts[0])
        assert caption.parts is not None
        assert caption.parts.cosine == pytest.approx(cosines(scorer, candidates, mean)[0], abs=1e-6)
        # Its likelihood stays the one in its own window.
        assert candidates.log_likelihoods is not None
        assert caption.parts.log_likelihood == candidates.log_likelihoods[0].item()


def test_z_scores_are_over_a_window_and_over_the_whole(scorer: AudioTextScorer) -> None:
    drawn = [made_up([DOG, HOWL, RAIN], seed=1), made_up(["birds sing", "a car"], seed=2)]
    ranker = Ranker(scorer, RankingSettings(normalisation="z_score"))
    of_windows, whole = ranker.best(drawn, [100, 100], 5)
    for scores in ([c.score for c in captions] for captions in (*of_windows, whole)):
        assert sum(scores) == pytest.approx(0.0, abs=1e-5)
        assert sum(score**2 for score in scores) == pytest.approx(len(scores), rel=1e-5)


class NoRain:
    """Finds an error in every caption that has rain; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        self.asked.append(list(captions))
        return [0.95 if "rain" in caption else 0.05 for caption in captions]


def test_captions_with_errors_come_last(scorer: AudioTextScorer) -> None:
    first, second = made_up([DOG, RAIN, "rain pours down"], 1), made_up([RAIN, "rain pours"], 2)
    plain_windows, _ = Ranker(scorer, RankingSettings()).best([first, second], [100, 100], 5)
    detector = NoRain()
    settings = RankingSettings(error_threshold=0.9, error_detector=detector)
    of_windows, whole = Ranker(scorer, settings).best([first, second], [100, 100], 5)
    assert of_windows[0][0].text == whole[0].text == DOG
    with_rain = [c.text for c in plain_windows[0] if c.text != DOG]
    assert [c.text for c in of_windows[0][1:]] == with_rain
    # The second window has nothing else: as without the filter.
    assert [(c.text, c.score) for c in of_windows[1]] == [
        (c.text, c.score) for c in plain_windows[1]
    ]
    assert {c.parts.error_probability for c in whole[1:] if c.parts is not None} == {0.95}
    # Once for each window, and never with the captions of another.
    assert detector.asked == [first.texts, second.texts]
    lenient = RankingSettings(error_threshold=0.96, error_detector=detector)
    found, _ = Ranker(scorer, lenient).best([first, second], [100, 100], 5)
    assert [c.text for c in found[0]] == [c.text for c in plain_windows[0]]
