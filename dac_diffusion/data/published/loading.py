"""Captioned data sets by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from dac_diffusion.errors import ConfigError

if TYPE_CHECKING:
    from dac_diffusion.data.published.dataset import CaptionDataset
    from dac_diffusion.data.published.wavcaps import WavCapsSettings

DatasetName = Literal["audiocaps", "clotho", "wavcaps", "macs", "plain"]


def read_dataset(
    name: str,
    captions: str | Path,
    audio: str | Path,
    wavcaps: WavCapsSettings | None = None,
) -> CaptionDataset:
    """The clips of a data set in its own files; see the readers for their layouts.

    name: "audiocaps", "clotho", "wavcaps", "macs", or "plain" for a table of one's own.
    wavcaps: which of its clips are left out. Raises ConfigError for another name, and for settings
    of WavCaps with another data set; DataError as the readers do.
    """
    if wavcaps is not None and name != "wavcaps":
        raise ConfigError(f"{name}: excluding ids or lengths is possible for wavcaps only")
    if name == "audiocaps":
        from dac_diffusion.data.published.audiocaps import read_audiocaps

        return read_audiocaps(captions, audio)
    if name == "clotho":
        from dac_diffusion.data.published.clotho import read_clotho

        return read_clotho(captions, audio)
    if name == "wavcaps":
        from dac_diffusion.data.published.wavcaps import read_wavcaps

        return read_wavcaps(captions, audio, wavcaps)
    if name == "macs":
        from dac_diffusion.data.published.macs import read_macs

        return read_macs(captions, audio)
    if name == "plain":
        from dac_diffusion.data.published.plain import read_plain

        return read_plain(captions, audio)
    names = ", ".join(get_args(DatasetName))
    raise ConfigError(f"dataset={name!r} is unknown: use one of {names}")
