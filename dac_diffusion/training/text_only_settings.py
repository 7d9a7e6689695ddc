"""What a training from captions alone can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dac_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from dac_diffusion.training.settings import TrainingConfig


@dataclass(frozen=True)
class TextOnlyConfig:
    """Training from captions alone (training/text_only.py; Deshmukh et al., arXiv 2309.07372).

    enabled: the captioner learns from captions and their own vectors in the joint audio-text space
    of the small encoder and its scorer, or of a published CLAP (encoder.name=htsat).
    captions: tables in Clotho's or AudioCaps' columns, whose recordings are not looked for; none:
    the captions of the built-in scenes. Validated is on the recordings of data.validation (htsat),
    else on the tables in validation_captions without audio, else on the scenes' audio (small).
    noise_variance: of the Gaussian noise on each element of the unit vector; .015 is the paper's
    best. renormalise: bring the sum back to unit length (the paper does not; it changes little, as
    the networks begin with a layer norm). other_captions: a caption's vector stands for other
    captions of its clip as well, captioner_training.captions_per_clip in all; else for itself only.
    """

    enabled: bool = False
    captions: tuple[str, ...] = ()
    validation_captions: tuple[str, ...] = ()
    noise_variance: float = 0.015
    renormalise: bool = False
    other_captions: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that makes no sense."""
        if not 0.0 <= self.noise_variance < float("inf"):
            raise ConfigError(
                f"text_only.noise_variance={self.noise_variance}: must be finite and at least 0"
            )


def check_text_only(config: TrainingConfig) -> None:
    """Raise ConfigError for settings that do not go with a training from captions alone."""
    _check_system(config)
    encoder, settings = config.encoder, config.text_only
    if config.data.training:
        raise ConfigError(
            "data.training: text_only learns without audio; name the tables in text_only.captions"
        )
    if encoder.name == "small":
        if config.data.validation:
            raise ConfigError(
                "data.validation: with the small encoder text_only is validated on scenes, or on "
                "text_only.validation_captions; remove it"
            )
        return
    if encoder.name != "htsat":
        raise ConfigError(
            f"encoder.name={encoder.name}: has no text side; for text_only use small or htsat"
        )
    if encoder.weights in (None, "random"):
        raise ConfigError(
            f"encoder.weights={encoder.weights or 'null'}: text_only needs a published CLAP, whose "
            "two sides share a space; name its folder or Hub id (for trials: encoder.name=small)"
        )
    if not settings.captions:
        raise ConfigError(
            "text_only.captions: name at least one table of captions; those of the built-in scenes "
            "are for the small encoder"
        )
    if not (settings.validation_captions or config.data.validation):
        raise ConfigError(
            "text_only.validation_captions: name a table to validate on, or recordings in "
            "data.validation"
        )


def _check_system(config: TrainingConfig) -> None:
    if config.system == "enclap":
        raise ConfigError(
            "text_only: not for system=enclap, which reads codes of audio; use diffusion, "
            "autoregressive or prefix"
        )
    if config.system == "recap":
        raise ConfigError(
            "text_only: not for system=recap, which looks up captions by audio; use diffusion, "
            "autoregressive or prefix"
        )
    if config.system == "prefix" and config.prefix.train_encoder:
        raise ConfigError(
            "prefix.train_encoder: text_only learns without audio, so the encoder cannot learn; "
            "set it to false"
        )
