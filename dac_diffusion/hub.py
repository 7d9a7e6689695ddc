"""Models on the Hugging Face Hub: a copy that is here already, or a download that is announced."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dac_diffusion.errors import CheckpointError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class HubFiles:
    """What is read of a kind of models, and what such a model and its folder are called.

    patterns: names of files, with * for any part. weights: names of weights, of which the first
    that a model has is read; without any, `patterns` cover them.
    """

    noun: str
    folder_of: str
    patterns: tuple[str, ...]
    weights: tuple[str, ...] = ()

    def choices(self) -> list[list[str]]:
        """The patterns of a whole model, the best choice first."""
        return [[*self.patterns, *one] for one in [[name] for name in self.weights] or [[]]]


def is_hub_id(name: str | Path) -> bool:
    """Whether it has the form owner/name."""
    return HUB_ID.fullmatch(str(name)) is not None


def fetch_from_hub(name: str, files: HubFiles, revision: str | None = None) -> Path:
    """The folder with a model from the Hub, by its id: an earlier copy, else a download.

    Raises CheckpointError where there is no copy and no network, or no such model.
    """
    copy = _earlier_copy(name, files, revision)
    if copy is not None:
        return copy
    way_out = f"give the path of a local folder ({files.folder_of})"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise CheckpointError(
            f"{name}: no such folder here, not downloaded before, and HF_HUB_OFFLINE is set; "
            f"{way_out}"
        )
    try:
        return _download(name, files, revision)
    except Exception as error:  # from no network to no such model
        reason = " ".join(str(error).split())[:160] or "no reason given"
        raise CheckpointError(
            f"{name}: no such folder here, and the Hugging Face Hub does not give it "
            f"({type(error).__name__}: {reason}); {way_out}"
        ) from error


def _earlier_copy(name: str, files: HubFiles, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    # With the patterns of the download: without them, a copy of some of a model's files counts as
    # incomplete.
    for patterns in files.choices():
        try:
            folder = Path(
                snapshot_download(
                    name, revision=revision, allow_patterns=patterns, local_files_only=True
                )
            )
        except (LocalEntryNotFoundError, HFValidationError):
            continue
        if not files.weights or (folder / patterns[-1]).is_file():
            return folder  # otherwise only its tokenizer or settings were downloaded
    return None


def _download(name: str, files: HubFiles, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import filter_repo_objects

    found = HfApi().model_info(name, revision=revision, files_metadata=True).siblings or []
    sizes = {file.rfilename: file.size or 0 for file in found}
    choices = files.choices()
    patterns = next(
        (each for each in choices if not files.weights or each[-1] in sizes), choices[0]
    )
    wanted: Sequence[str] = list(filter_repo_objects(sizes, allow_patterns=patterns))
    logging.getLogger("dac_diffusion").warning(
        "downloading the %s %s from the Hugging Face Hub (%.1f MB)",
        files.noun,
        name,
        sum(sizes[file] for file in wanted) / 1e6,
    )
    return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
