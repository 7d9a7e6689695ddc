"""Detectors of errors by name, as options and saved settings give them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.error_detection import FluencyErrorDetector
from dac_diffusion.ranking.error_filter import ErrorDetector

RULES = "rules"
SETTINGS = ("error_detector", "error_encoder")  # of a captioner


def check_detector(
    name: str, encoder: str | Path | None, settings: tuple[str, str] = SETTINGS
) -> None:
    """Raise ConfigError, with the names of the two settings, where they do not go together."""
    detector_setting, encoder_setting = settings
    if not isinstance(name, str):
        raise ConfigError(
            f"{detector_setting} {name!r}: must be {RULES} or the path of a checkpoint"
        )
    if name == RULES and encoder is not None:
        raise ConfigError(f"{encoder_setting}: {RULES} need none; leave it out")
    if name != RULES and encoder is None:
        raise ConfigError(
            f"{detector_setting} {name}: a checkpoint needs {encoder_setting} FOLDER, its BERT's "
            f"config.json and vocab.txt; {RULES} need nothing"
        )


def load_detector(
    name: str,
    encoder: str | Path | None,
    device: str = "cpu",
    settings: tuple[str, str] = SETTINGS,
) -> ErrorDetector:
    """The detector that "rules" or the path of a published checkpoint (error_detection.py) names.

    encoder: the folder with the checkpoint's BERT. settings: what the user knows these two as.
    Raises ConfigError as check_detector, CheckpointError for files that are missing or damaged.
    """
    check_detector(name, encoder, settings)
    if name == RULES or encoder is None:
        # Here, because most calls do without its word lists.
        from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector

        return RuleBasedErrorDetector()
    checkpoint = Path(name)
    modified = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else None
    return _published(checkpoint, Path(encoder), device, modified)


@lru_cache(maxsize=1)  # a captioner asks for its own at every call
def _published(
    checkpoint: Path, encoder: Path, device: str, modified: int | None
) -> FluencyErrorDetector:
    detector = FluencyErrorDetector(checkpoint, encoder, device)
    detector.probabilities([])  # loads it, so that errors show before other work is done
    return detector
