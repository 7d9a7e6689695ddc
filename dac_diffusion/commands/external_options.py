"""The options of `evaluate` for metrics that need Java, models or the recordings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dac_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from dac_diffusion.data.predictions import Clip
    from dac_diffusion.metrics.evaluation import ExtraMetric
    from dac_diffusion.metrics.external import ExternalMetric
    from dac_diffusion.ranking.error_detection import FluencyErrorDetector

METRICS = ("meteor", "spice", "spider", "spider_fl", "fense", "clap_score")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    add = parser.add_argument
    add("--metrics", nargs="+", default=[], metavar="NAME", help=f"also {', '.join(METRICS)}")
    add("--java", default="java", help="the Java program of METEOR and SPICE (java)")
    add("--error-detector", type=Path, metavar="FILE", help="FENSE's checkpoint, for spider_fl too")
    add("--error-encoder", type=Path, metavar="FOLDER", help="the BERT of the error detector")
    add("--sentence-model", type=Path, metavar="FOLDER", help="the sentence model of FENSE")
    add("--clap", type=Path, metavar="FOLDER", help="the CLAP model of clap_score")
    add("--audio", type=Path, metavar="FOLDER", help="the recordings, for clap_score")


def external_metrics(arguments: argparse.Namespace, clips: Sequence[Clip]) -> list[ExtraMetric]:
    """The metrics that --metrics names, over these clips.

    Raises ConfigError for an unknown name or a missing option, and MissingExtraError, before
    anything is computed, that names all that the metrics lack.
    """
    from dac_diffusion.metrics.evaluation import ExtraMetric
    from dac_diffusion.metrics.external import require_available

    unknown = [name for name in arguments.metrics if name not in METRICS]
    if unknown:
        raise ConfigError(f"--metrics {unknown[0]}: unknown, use some of {', '.join(METRICS)}")
    found = []
    built = [_build(name, arguments, clips) for name in dict.fromkeys(arguments.metrics)]
    require_available(built)
    for metric in built:
        corpus = getattr(metric, "corpus_and_scores", None)
        found.append(ExtraMetric(metric.name, metric.score, over_sets=False, corpus=corpus))
    return found


def _build(name: str, arguments: argparse.Namespace, clips: Sequence[Clip]) -> ExternalMetric:
    from dac_diffusion.metrics.java_metrics import Meteor, Spice, Spider

    spice = Spice(java=arguments.java)
    if name == "meteor":
        return Meteor(java=arguments.java)
    if name == "spice":
        return spice
    if name == "spider":
        return Spider(spice)
    if name == "clap_score":
        from dac_diffusion.metrics.clap_score import ClapScore

        folder = _needed(arguments.audio, name, "--audio FOLDER")
        audio = [folder / clip.file_name for clip in clips]
        return ClapScore(_needed(arguments.clap, name, "--clap FOLDER"), audio)
    from dac_diffusion.metrics.fense import Fense, SpiderFl

    detector = _detector(name, arguments)
    if name == "spider_fl":
        return SpiderFl(detector, Spider(spice))
    return Fense(_needed(arguments.sentence_model, name, "--sentence-model FOLDER"), detector)


def _detector(name: str, arguments: argparse.Namespace) -> FluencyErrorDetector:
    from dac_diffusion.ranking.error_detection import FluencyErrorDetector

    return FluencyErrorDetector(
        _needed(arguments.error_detector, name, "--error-detector FILE"),
        _needed(arguments.error_encoder, name, "--error-encoder FOLDER"),
    )


def _needed(path: Path | None, name: str, option: str) -> Path:
    if path is None:
        raise ConfigError(f"--metrics {name}: needs {option}")
    return path
