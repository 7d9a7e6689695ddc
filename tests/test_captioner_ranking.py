"""How a diffusion captioner orders what it has drawn."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from dac_diffusion.captioner import DiffusionCaptioner, ScoreParts
from dac_diffusion.captioning import selection
from dac_diffusion.captioning.drawing import CandidateDrawer, DrawSettings
from dac_diffusion.captioning.window_encoding import Window
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.agreement import mean_agreement
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector
from dac_diffusion.text.contextual_space import ContextualSpace
from tests.helpers import RATE, noise, tiny_captioner


@pytest.fixture(scope="module")
def captioner() -> DiffusionCaptioner:
    return tiny_captioner()


def test_the_likelihood_counts_in_the_score(captioner: DiffusionCaptioner) -> None:
    plain = tiny_captioner()
    plain.register_to_config(likelihood_weight=0.0)
    samples = noise(3.0)
    with_it, without = captioner(samples, RATE), plain(samples, RATE)
    assert captioner(samples, RATE, likelihood_weight=0.0) == without
    assert with_it.candidates == without.candidates  # what is drawn does not depend on it
    cosines = {caption.text: caption.score for caption in without.captions}
    shared = [caption for caption in with_it.captions if caption.text in cosines]
    assert shared
    assert all(caption.score < cosines[caption.text] for caption in shared)


def test_scores_of_earlier_checkpoints_stay_the_same_to_the_last_bit(
    captioner: DiffusionCaptioner, tmp_path: Path
) -> None:
    captioner.save_pretrained(tmp_path)
    path = tmp_path / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    for name in ("audio_text_weight", "agreement_weight", "score_normalisation",
                 "error_threshold"):  # fmt: skip
        index.pop(name)
    path.write_text(json.dumps(index), encoding="utf-8")
    earlier = DiffusionCaptioner.from_pretrained(tmp_path, "float32")
    samples = noise(3.0)
    settings = DrawSettings(5, 6, 3, 1.0, 1.0, 0, with_likelihood=True)
    with torch.inference_mode():
        (drawn,) = CandidateDrawer(earlier, settings).draw([Window("", 0.0, samples)])
        audio = earlier.scorer.embed_audio(drawn.pooled[None])
        cosines = (drawn.text_vectors * audio).sum(dim=-1)
        scores = cosines + 0.2 * drawn.log_likelihoods
    expected = dict(zip(drawn.texts, scores.tolist(), strict=True))
    found = earlier(samples, RATE).captions
    assert len(found) == 5
    assert all(caption.score == expected[caption.text] for caption in found)
    assert found == captioner(samples, RATE).captions


def test_agreement_changes_the_order_and_costs_no_network_call() -> None:
    captioner = tiny_captioner()
    samples = noise(1.7, seed=3)
    calls: list[int] = []
    captioner.denoiser.register_forward_hook(lambda *_: calls.append(1))
    by_cosine = captioner(samples, RATE, num_captions=6, likelihood_weight=0.0)
    assert len(calls) == 3
    by_agreement = captioner(
        samples, RATE, num_captions=6, likelihood_weight=0.0, agreement_weight=100.0
    )
    assert len(calls) == 6
    assert captioner(samples, RATE).captions
    assert len(calls) == 12  # three steps, and three for the likelihood
    assert by_agreement.candidates == by_cosine.candidates
    agreements = dict(
        zip(by_agreement.candidates, mean_agreement(by_agreement.candidates), strict=True)
    )
    cosines = {caption.text: caption.score for caption in by_cosine.captions}
    assert [c.text for c in by_agreement.captions] != [c.text for c in by_cosine.captions]
    for caption in by_agreement.captions:
        parts = ScoreParts(cosines[caption.text], None, pytest.approx(agreements[caption.text]))
        assert caption.parts == parts
        assert caption.score == pytest.approx(
            cosines[caption.text] + 100 * agreements[caption.text], abs=1e-4
        )


def test_ranking_settings_are_kept_with_the_checkpoint(tmp_path: Path) -> None:
    captioner = tiny_captioner()
    call = {"audio_text_weight": 0.6, "likelihood_weight": 0.4, "agreement_weight": 0.5,
            "score_normalisation": "z_score"}  # fmt: skip
    samples = noise(12.9)
    expected = captioner(samples, RATE, **call)
    assert expected != captioner(samples, RATE)
    captioner.register_to_config(**call)
    captioner.save_pretrained(tmp_path)
    assert DiffusionCaptioner.from_pretrained(tmp_path, "float32")(samples, RATE) == expected


class Disliking:
    """An error detector that finds one caption wrong."""

    def __init__(self, caption: str) -> None:
        self.caption = caption

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        return [0.92 if caption == self.caption else 0.5 for caption in captions]


def test_what_a_detector_dislikes_comes_last(
    captioner: DiffusionCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "EXTRA_ROUNDS", 0)
    samples = noise(1.0)
    plain = captioner(samples, RATE, num_captions=6).captions
    detector = Disliking(plain[0].text)
    for threshold in (None, 0.9):  # 0.9 is what a detector alone means
        found = captioner(
            samples, RATE, num_captions=6, error_threshold=threshold, error_detector=detector
        ).captions
        assert [c.text for c in found] == [c.text for c in (*plain[1:], plain[0])]
        assert found[-1].parts is not None
        assert found[-1].parts.error_probability == 0.92
    for off in (0.95, 1):
        found = captioner(
            samples, RATE, num_captions=6, error_threshold=off, error_detector=detector
        ).captions
        assert [c.text for c in found] == [c.text for c in plain]


def test_for_what_a_detector_dislikes_others_are_drawn(captioner: DiffusionCaptioner) -> None:
    samples = noise(1.0)
    plain = captioner(samples, RATE, num_captions=6, num_candidates=6)
    detector = Disliking(plain.captions[0].text)
    found = captioner(samples, RATE, num_captions=6, num_candidates=6, error_detector=detector)
    assert found.candidates[:6] == plain.candidates
    assert len(found.candidates) == 12
    assert len(found.captions) == 6
    assert plain.captions[0].text not in [caption.text for caption in found.captions]


def test_without_a_detector_the_rules_find_errors(captioner: DiffusionCaptioner) -> None:
    samples = noise(1.0)
    found = captioner(samples, RATE, num_captions=6, num_candidates=20, error_threshold=0.9)
    probabilities = RuleBasedErrorDetector().probabilities([c.text for c in found.captions])
    assert probabilities == sorted(probabilities)
    assert [c.parts.error_probability for c in found.captions if c.parts] == probabilities


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"audio_text_weight": float("nan")}, "audio_text_weight=nan: must be a finite number"),
        ({"agreement_weight": float("inf")}, "agreement_weight=inf: must be a finite number"),
        (
            {"score_normalisation": "rank"},
            "score_normalisation='rank': must be one of none, z_score",
        ),
        ({"error_threshold": 2.0}, "error_threshold=2.0: must be a number from 0 to 1"),
        ({"error_detector": 3}, "error_detector: a int has no method probabilities(captions)"),
    ],
)
def test_ranking_that_makes_no_sense(
    captioner: DiffusionCaptioner, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        captioner(noise(0.3), RATE, **settings)
    assert message in str(caught.value)


def test_without_a_text_encoder_there_is_no_likelihood() -> None:
    captioner = tiny_captioner()
    size = len(captioner.tokenizer)
    captioner.latent_space = ContextualSpace(size, 16, 8, 16, 1, 2).eval()
    with pytest.raises(ConfigError) as caught:
        captioner(noise(0.3), RATE)
    assert str(caught.value) == (
        "likelihood_weight=0.2: the latent space of this captioner (ContextualSpace) cannot "
        "encode captions without the text encoder it was trained with, so they have no "
        "likelihood; set likelihood_weight=0 and rank by agreement_weight (for instance 2) instead"
    )
    assert captioner(noise(0.3), RATE, likelihood_weight=0, agreement_weight=2).captions
