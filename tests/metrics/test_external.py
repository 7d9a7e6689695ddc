"""What every metric with outside needs does before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dac_diffusion.errors import MissingExtraError
from dac_diffusion.metrics.clap_score import ClapScore
from dac_diffusion.metrics.external import ExternalMetric, missing_files, require_available
from dac_diffusion.metrics.fense import Fense, SpiderFl
from dac_diffusion.metrics.java_metrics import Meteor, Spice, Spider
from dac_diffusion.ranking.error_detection import FluencyErrorDetector


@dataclass(frozen=True)
class Needy:
    name: str
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        return list(self.needs)

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        raise AssertionError("not asked for")


def test_everything_missing_is_named_at_once() -> None:
    require_available([])
    require_available([Needy("a")])
    metrics = [Needy("a", ("java", "a jar")), Needy("b"), Needy("c", ("java", "java"))]
    with pytest.raises(MissingExtraError) as caught:
        require_available(metrics)
    assert str(caught.value) == "a needs java; a needs a jar; c needs java"


def test_missing_files_are_one_entry(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "folder").mkdir()
    assert missing_files(tmp_path, ["there"], "get it") == []
    assert missing_files(tmp_path, ["there", "folder", "gone"], "get it") == [
        f"folder and gone in {tmp_path} (get it)"
    ]


def every_metric(folder: Path) -> list[ExternalMetric]:
    """All of them, with nothing of what they need."""
    java, detector = "no-such-java", FluencyErrorDetector(folder / "checker.ckpt", folder / "bert")
    spice = Spice(folder / "coco", java)
    return [
        Meteor(folder / "coco", java),
        spice,
        Spider(spice),
        SpiderFl(detector, Spider(spice)),
        Fense(folder / "sbert", detector),
        ClapScore(folder / "clap", [folder / "a.wav"]),
    ]


def test_names_tell_implementation_and_model(tmp_path: Path) -> None:
    assert [metric.name for metric in every_metric(tmp_path)] == [
        "meteor_1.5_java",
        "spice_1.0_java",
        "spider_spice_1.0_java_cider_d",
        "spider_fl_spice_1.0_java_cider_d_checker",
        "fense_sbert_checker",
        "clap_score_clap",
    ]


def test_each_says_all_it_needs_before_it_starts(tmp_path: Path) -> None:
    java = "Java (the program no-such-java does not run here"
    models = "stanford-corenlp-3.6.0-models.jar"
    expected = [
        [java, "meteor-1.5.jar", "paraphrase-en.gz", "stanford-corenlp-3.4.1.jar", "[aac]"],
        [java, "spice-1.0.jar", "stanford-corenlp-3.4.1.jar", models, "several hundred MB"],
        [java, "spice-1.0.jar", models],
        [java, "spice-1.0.jar", models, "checker.ckpt", "vocab.txt"],
        ["config.json", "tokenizer.json", "model.safetensors", "checker.ckpt", "vocab.txt"],
        ["config.json", "tokenizer.json", "model.safetensors or pytorch_model.bin", "a.wav"],
    ]
    for metric, needs in zip(every_metric(tmp_path), expected, strict=True):
        with pytest.raises(MissingExtraError) as caught:
            metric.score(["a dog"], [["a dog"]])
        text = str(caught.value)
        assert text.startswith(f"{metric.name} needs ")
        assert [need for need in needs if need not in text] == []
        assert [lacking for lacking in metric.missing() if lacking not in text] == []
