"""The error detector that a captioner's saved settings name, and the one of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion import load_captioner
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.ranking.error_detection import FluencyErrorDetector
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector
from dac_diffusion.training.autoregressive import DecodingConfig
from tests.helpers import RATE, noise, tiny_autoregressive, tiny_captioner
from tests.metrics.fabricated_models import save_error_detector

SOUND = noise(0.5)


@pytest.fixture(params=[tiny_captioner, tiny_autoregressive])
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    made: Callable[[], Any] = request.param
    return made


@pytest.fixture
def detector(tmp_path: Path) -> FluencyErrorDetector:
    save_error_detector(tmp_path / "checker.ckpt", tmp_path / "bert")
    return FluencyErrorDetector(tmp_path / "checker.ckpt", tmp_path / "bert")


def saved(make: Callable[[], Any], folder: Path, **settings: Any) -> Any:
    captioner = make()
    captioner.register_to_config(**settings)
    captioner.save_pretrained(folder)
    return load_captioner(folder, "float32")


def probabilities(result: Any) -> list[float]:
    return [caption.parts.error_probability for caption in result.captions]


def test_a_saved_detector_finds_the_errors(
    make: Callable[[], Any], detector: FluencyErrorDetector, tmp_path: Path
) -> None:
    own = {"error_detector": str(detector.checkpoint), "error_encoder": str(detector.encoder)}
    captioner = saved(make, tmp_path / "own", error_threshold=1.0, **own)
    found = captioner(SOUND, RATE, num_captions=6)
    expected = detector.probabilities([caption.text for caption in found.captions])
    assert probabilities(found) == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 3
    middle = (min(expected) + max(expected)) / 2
    captioner.register_to_config(error_threshold=middle)
    flagged = [each > middle for each in probabilities(captioner(SOUND, RATE, num_captions=6))]
    assert flagged == sorted(flagged)
    assert sum(flagged) < sum(each > middle for each in expected), "others were drawn for them"
    rules = RuleBasedErrorDetector()
    given = captioner(SOUND, RATE, num_captions=6, error_detector=rules)
    assert probabilities(given) == rules.probabilities([c.text for c in given.captions])
    # Without a threshold nothing is filtered, whatever the detector is.
    captioner.register_to_config(error_threshold=None)
    assert probabilities(captioner(SOUND, RATE, num_captions=2)) == [None, None]


def test_where_none_is_saved_the_rules_do(make: Callable[[], Any]) -> None:
    captioner = make()
    assert captioner.config.error_detector == "rules"
    found = captioner(SOUND, RATE, num_captions=6, error_threshold=0.9)
    texts = [caption.text for caption in found.captions]
    assert probabilities(found) == RuleBasedErrorDetector().probabilities(texts)


def test_a_saved_detector_that_is_gone(
    make: Callable[[], Any], detector: FluencyErrorDetector, tmp_path: Path
) -> None:
    own = {"error_detector": str(detector.checkpoint), "error_encoder": str(detector.encoder)}
    captioner = saved(make, tmp_path / "own", error_threshold=0.9, **own)
    detector.checkpoint.unlink()
    with pytest.raises(CheckpointError) as caught:
        captioner(SOUND, RATE)
    text = str(caught.value)
    assert text.startswith(f"the error detector needs {detector.checkpoint} (release V0.1")
    assert text.endswith(
        "; this captioner's own settings name it, give another error_detector (rules)"
    )
    assert captioner(SOUND, RATE, num_captions=1, error_detector=RuleBasedErrorDetector()).captions
    captioner.register_to_config(error_encoder=None)
    with pytest.raises(ConfigError, match=r"checker\.ckpt: a checkpoint needs error_encoder FOLD"):
        captioner(SOUND, RATE)


def test_a_training_saves_its_detector() -> None:
    config = DecodingConfig(error_threshold=0.8, error_detector="a.ckpt", error_encoder="bert")
    captioner = tiny_autoregressive()
    components = {name: getattr(captioner, name) for name in captioner.components}
    made = type(captioner)(**components, **asdict(config))
    assert made.config.error_detector == "a.ckpt"
    assert made.config.error_encoder == "bert"
    with pytest.raises(ConfigError, match=r"error_detector a\.ckpt: a checkpoint needs error_enc"):
        DecodingConfig(error_detector="a.ckpt")
    with pytest.raises(ConfigError, match="error_encoder: rules goes without; leave it out"):
        DecodingConfig(error_encoder="bert")
