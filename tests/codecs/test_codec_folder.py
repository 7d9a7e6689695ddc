"""What is said of codec folders that are missing, damaged or of another model."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from dac_diffusion.codecs.codec_folder import find_codec_folder
from dac_diffusion.codecs.descript import KIND as DESCRIPT
from dac_diffusion.codecs.descript import DescriptCodec
from dac_diffusion.codecs.encodec import KIND as ENCODEC
from dac_diffusion.codecs.encodec import EncodecCodec
from dac_diffusion.errors import CheckpointError
from tests.codecs.published_codecs import make_descript, make_encodec, save

Load = Callable[[Path | str], object]
LOADERS: list[Load] = [EncodecCodec.from_published, DescriptCodec.from_published]
NAMES = ("EncodecModel", "DacModel")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("whole")
    return [
        save(make_encodec(target_bandwidths=[12.0]), folder / "encodec"),
        save(make_descript(n_codebooks=2), folder / "descript"),
    ]


@pytest.fixture(params=[0, 1], ids=NAMES)
def which(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def folder(which: int, whole: list[Path], tmp_path: Path) -> Path:
    """A codec's folder to damage."""
    return Path(shutil.copytree(whole[which], tmp_path / "copy"))


def refused(which: int, path: Path | str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        LOADERS[which](path)
    assert "\n" not in str(caught.value)


def test_a_whole_folder_is_read(which: int, folder: Path) -> None:
    LOADERS[which](folder)


def test_another_place_is_refused(which: int, whole: list[Path], tmp_path: Path) -> None:
    name, example = NAMES[which], ("facebook/encodec_24khz", "descript/dac_24khz")[which]
    refused(
        which,
        tmp_path / "none",
        f"none: there is no such folder; give the folder of a transformers {name} or a Hub id such "
        f"as {example}",
    )
    file = tmp_path / "codec.th"
    file.touch()
    refused(which, file, rf"codec\.th: is a file; give the folder of a transformers {name}")
    (tmp_path / "empty").mkdir()
    refused(
        which, tmp_path / "empty", rf"config\.json: is missing, so this is no complete {name}; down"
    )
    types = ("encodec", "dac")
    refused(
        which,
        whole[1 - which],
        rf"config\.json: describes a model of type '{types[1 - which]}', not '{types[which]}'; "
        f"give the folder of a {name} such as {example}",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"config\.json: damaged, not valid JSON"),
        ("\xff", r"config\.json: damaged, not valid JSON"),
        ("[]", "describes a model of type None"),
    ],
)
def test_damaged_settings_are_refused(which: int, folder: Path, content: str, message: str) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    refused(which, folder, message)


def test_settings_of_another_kind_are_refused(which: int, folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "codebook_size": "many"}))
    refused(which, folder, rf"config\.json: has settings that make no {NAMES[which]} \(")


def test_encodec_models_that_are_not_read(whole: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole[0], tmp_path / "copy"))
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**content, "normalize": True}))
    refused(
        0,
        copy,
        r"config\.json: normalize is True, but only EnCodec models .*facebook/encodec_24khz$",
    )


def test_damaged_weights_are_refused(which: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(which, folder, r"model\.safetensors: is damaged, incomplete")
    path.unlink()
    refused(which, folder, r"holds neither model\.safetensors nor pytorch_model\.bin")


def test_weights_that_do_not_fit_the_settings_are_refused(which: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    first = sorted(name for name in weights if name.startswith("encoder.") and "bias" in name)[0]
    lacking = {name: tensor for name, tensor in weights.items() if name != first}
    save_file(lacking, path, {"format": "pt"})
    refused(which, folder, rf"is not a published {NAMES[which]} of these settings: lacks {first}$")
    save_file({**weights, "encoder.more": torch.zeros(3)}, path, {"format": "pt"})
    refused(which, folder, r"has the unknown encoder\.more$")
    save_file({**weights, first: torch.zeros(3)}, path, {"format": "pt"})
    refused(which, folder, rf"{first} is \(3,\) instead of")
    # The decoder is not needed, so it may be anything.
    without = {name: w for name, w in weights.items() if not name.startswith("decoder.")}
    assert len(without) < len(weights)
    save_file(without, path, {"format": "pt"})
    LOADERS[which](folder)


class Dangerous:
    ran: ClassVar[list[bool]] = []

    def __reduce__(self) -> tuple[object, tuple[bool]]:
        return self.ran.append, (True,)


def test_pickled_code_is_refused_and_not_run(which: int, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"weights": Dangerous()}, file, protocol=2)
    refused(which, folder, r"pytorch_model\.bin: (holds Python objects|is damaged)")
    assert Dangerous.ran == []


# Hub ids, without a network


def test_a_hub_id_that_was_not_downloaded_is_refused(
    which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(self: object, name: str, **options: object) -> None:
        raise ConnectionError("[Errno -2] Name or service not known\nmore lines")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_network)
    refused(
        which,
        "someone/codec-that-is-not",
        r"codec-that-is-not: no such folder here, and the Hugging Face Hub does not give it "
        r"\(ConnectionError: .* not known more lines\); "
        rf"give the path of a local folder \({NAMES[which]}\)",
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(which, "someone/codec-that-is-not", "and HF_HUB_OFFLINE is set; give the path")


def test_a_hub_id_that_was_downloaded_is_found(
    whole: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, revision = tmp_path / "models--facebook--encodec_24khz", "1" * 40
    shutil.copytree(whole[0], model / "snapshots" / revision)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = find_codec_folder("facebook/encodec_24khz", ENCODEC)
    assert found == model / "snapshots" / revision
    (found / "model.safetensors").unlink()
    refused(0, "facebook/encodec_24khz", "not downloaded before")
    with pytest.raises(CheckpointError, match="not downloaded before"):
        find_codec_folder("descript/dac_24khz", DESCRIPT)
