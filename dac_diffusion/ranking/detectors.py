"""Detectors of errors by name, as options and saved settings give them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.error_detection import FluencyErrorDetector
from dac_diffusion.ranking.error_filter import ErrorDetector

if TYPE_CHECKING:
    from dac_diffusion.ranking.trigram_errors import TrigramErrorDetector

RULES = "rules"
BUILTIN_TRIGRAMS = "builtin"  # of the captions that the built-in captioners were trained on
TRIGRAMS_FILE = Path(__file__).with_name("builtin_trigrams.json")
CHOICES = f"{RULES}|{BUILTIN_TRIGRAMS}|FILE"
CHOICES_HELP = (
    f"{RULES}, {BUILTIN_TRIGRAMS} (word order, for the sounds of the built-in captioners), a .json "
    "file of `dac-diffusion prepare detector`, or the checkpoint of FENSE's detector"
)
SETTINGS = ("error_detector", "error_encoder")  # of a captioner


def check_detector(
    name: str, encoder: str | Path | None, settings: tuple[str, str] = SETTINGS
) -> None:
    """Raise ConfigError, with the names of the two settings, where they do not go together."""
    detector_setting, encoder_setting = settings
    if not isinstance(name, str):
        raise ConfigError(
            f"{detector_setting} {name!r}: must be {RULES}, {BUILTIN_TRIGRAMS} or a file's path"
        )
    needs_none = name == RULES or _trigrams_file(name) is not None
    if needs_none and encoder is not None:
        raise ConfigError(f"{encoder_setting}: {name} goes without; leave it out")
    if not needs_none and encoder is None:
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
    """The detector of this name: "rules", "builtin" (trigrams), or the path of a file.

    A .json file is a detector of trigram_errors.py, any other the published checkpoint of
    error_detection.py. encoder: the folder with the checkpoint's BERT. settings: what the user
    knows these two as.
    Raises ConfigError as check_detector, CheckpointError for files that are missing or damaged.
    """
    check_detector(name, encoder, settings)
    file = _trigrams_file(name)
    if file is not None:
        return _trigrams(file, _modified(file))
    if name == RULES or encoder is None:
        # Here, because most calls do without its word lists.
        from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector

        return RuleBasedErrorDetector()
    checkpoint = Path(name)
    return _published(checkpoint, Path(encoder), device, _modified(checkpoint))


def _trigrams_file(name: str) -> Path | None:
    """The file of the trigrams that a name stands for, where it stands for some."""
    if name == BUILTIN_TRIGRAMS:
        return TRIGRAMS_FILE
    return Path(name) if name.endswith(".json") else None


def _modified(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.is_file() else None


# A captioner asks for its own detector at every call.
@lru_cache(maxsize=1)
def _trigrams(file: Path, modified: int | None) -> TrigramErrorDetector:
    from dac_diffusion.ranking.trigram_errors import TrigramErrorDetector

    return TrigramErrorDetector.load(file)


@lru_cache(maxsize=1)
def _published(
    checkpoint: Path, encoder: Path, device: str, modified: int | None
) -> FluencyErrorDetector:
    detector = FluencyErrorDetector(checkpoint, encoder, device)
    detector.probabilities([])  # loads it, so that errors show before other work is done
    return detector
