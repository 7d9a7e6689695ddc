"""Copies from the Hub, with a cache written by hand and a hub that is not there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from dac_diffusion.errors import CheckpointError
from dac_diffusion.hub import HubFiles, fetch_from_hub, is_hub_id

REVISION = "1" * 40
MODEL = HubFiles("thing", "Thing", ("*.json", "merges.txt"), ("whole.safetensors", "whole.bin"))
FOLDER = HubFiles("folder", "whole", ("*.json", "*.safetensors", "parts/*"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache, empty, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def write_copy(cache: Path, name: str, files: list[str], all_files: list[str]) -> Path:
    """A model of which some files were downloaded; newer libraries know which others there are."""
    model = cache / f"models--{name.replace('/', '--')}"
    for file in files:
        path = model / "snapshots" / REVISION / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for folder in ("refs", "trees"):
        (model / folder).mkdir()
    (model / "refs/main").write_text(REVISION)
    listing = {file: {"size": 0, "blob_id": "0" * 40} for file in all_files}
    content = {"format_version": 1, "files": listing}
    (model / "trees" / f"{REVISION}.json").write_text(json.dumps(content))
    return model / "snapshots" / REVISION


def refused(name: str, files: HubFiles, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        fetch_from_hub(name, files)
    assert str(caught.value) == message


def test_what_a_hub_id_looks_like() -> None:
    for name in ("laion/clap-htsat-fused", "facebook/encodec_24khz", "a/b.c", Path("a/b")):
        assert is_hub_id(name)
    for name in ("model", "/a/b", "./a/b", "a/b/c", "a/", "../b", "a b/c", ""):
        assert not is_hub_id(name)


@pytest.mark.parametrize("weights", MODEL.weights)
def test_a_copy_of_what_is_read_is_enough(cache: Path, weights: str) -> None:
    """A model has files that nobody here needs, and weights in several formats."""
    everything = ["config.json", "README.md", *MODEL.weights, "flax.msgpack"]
    folder = write_copy(cache, "some/thing", ["config.json", weights], everything)
    assert fetch_from_hub("some/thing", MODEL) == folder


def test_the_better_weights_come_first(cache: Path) -> None:
    assert MODEL.choices() == [
        ["*.json", "merges.txt", "whole.safetensors"],
        ["*.json", "merges.txt", "whole.bin"],
    ]
    assert FOLDER.choices() == [["*.json", "*.safetensors", "parts/*"]]


def test_a_copy_without_weights_or_settings_is_none(cache: Path) -> None:
    end = "no such folder here, not downloaded before, and HF_HUB_OFFLINE is set; give the path of"
    everything = ["config.json", "whole.safetensors"]
    for name, files in (("a/settings", everything[:1]), ("a/weights", everything[1:])):
        write_copy(cache, name, files, everything)
        refused(name, MODEL, f"{name}: {end} a local folder (Thing)")
    refused("a/nothing", FOLDER, f"a/nothing: {end} a local folder (whole)")


def test_without_weights_by_name_the_patterns_are_all(cache: Path) -> None:
    files = ["index.json", "unet/a.safetensors", "parts/b.txt"]
    folder = write_copy(cache, "some/folder", files, [*files, "README.md", "a.bin"])
    assert fetch_from_hub("some/folder", FOLDER) == folder
    (folder / "parts/b.txt").unlink()
    with pytest.raises(CheckpointError, match="not downloaded before"):
        fetch_from_hub("some/folder", FOLDER)


class Hub:
    """Answers as the Hub does; says what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int]) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.sizes = sizes
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", self.model_info)
        real = huggingface_hub.snapshot_download
        monkeypatch.setattr(
            huggingface_hub,
            "snapshot_download",
            lambda name, **options: (
                real(name, **options)
                if options.get("local_files_only")
                else self.download(name, **options)
            ),
        )

    def model_info(self, name: str, revision: str | None, files_metadata: bool) -> Any:
        assert files_metadata
        self.asked.append((name, revision))
        found = [SimpleNamespace(rfilename=name, size=size) for name, size in self.sizes.items()]
        return SimpleNamespace(siblings=[*found, SimpleNamespace(rfilename="x.json", size=None)])

    def download(self, name: str, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((name, revision, *allow_patterns))
        return "here"


@pytest.mark.parametrize(
    ("files", "sizes", "patterns", "said"),
    [
        (
            MODEL,
            {"config.json": 10**5, "whole.safetensors": 10**8, "whole.bin": 10**8, "a.md": 10**6},
            ("*.json", "merges.txt", "whole.safetensors"),
            "downloading the thing some/name from the Hugging Face Hub (100.1 MB)",
        ),
        (
            MODEL,
            {"whole.bin": 3 * 10**8},
            ("*.json", "merges.txt", "whole.bin"),
            "downloading the thing some/name from the Hugging Face Hub (300.0 MB)",
        ),
        (
            FOLDER,
            {"a/b.safetensors": 10**6, "parts/x": 10**6, "README.md": 10**6, "a.bin": 10**6},
            ("*.json", "*.safetensors", "parts/*"),
            "downloading the folder some/name from the Hugging Face Hub (2.0 MB)",
        ),
    ],
)
def test_what_is_downloaded_is_said_with_its_size(
    files: HubFiles,
    sizes: dict[str, int],
    patterns: tuple[str, ...],
    said: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub(monkeypatch, sizes)
    with caplog.at_level(logging.WARNING, "dac_diffusion"):
        assert fetch_from_hub("some/name", files, "v1") == Path("here")
    assert hub.asked == [("some/name", "v1"), ("some/name", "v1", *patterns)]
    assert caplog.messages == [said]


def test_a_failure_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, {})

    said = {"a\n b": "a b", "": "no reason given", "x" * 200: "x" * 160}
    texts = iter(said)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError(next(texts))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    for reason in said.values():
        refused(
            "some/name",
            MODEL,
            "some/name: no such folder here, and the Hugging Face Hub does not give it "
            f"(ConnectionError: {reason}); give the path of a local folder (Thing)",
        )
    assert hub.asked == []
