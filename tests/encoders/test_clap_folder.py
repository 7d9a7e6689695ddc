"""What is said of CLAP folders that are missing, damaged or of another model."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from dac_diffusion.encoders.clap_folder import find_clap_folder
from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.errors import CheckpointError
from tests.metrics.fabricated_models import save_bert, save_clap

LOADERS = [HtsatEncoder.from_published, ClapTextEncoder.from_published]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    save_clap(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A CLAP folder to damage."""
    copied = tmp_path / "clap"
    shutil.copytree(whole, copied)
    return copied


def refused(load: Callable[[Path], object], path: Path | str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("load", LOADERS)
def test_another_place_is_refused(load: Callable[[Path], object], tmp_path: Path) -> None:
    refused(load, tmp_path / "none", r"none: there is no such folder; give the folder of a")
    file = tmp_path / "630k-best.pt"
    file.touch()
    refused(load, file, r"630k-best\.pt: is a file; give the folder .* encoder laion_clap")
    (tmp_path / "empty").mkdir()
    refused(load, tmp_path / "empty", r"config\.json: is missing, so this is no complete CLAP")
    save_bert(tmp_path / "bert")
    refused(load, tmp_path / "bert", r"config\.json: describes a model of type 'bert', not 'clap'")


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("[]", "a JSON object was expected"), ("\xff", "not valid JSON")],
)
def test_damaged_settings_are_refused(
    load: Callable[[Path], object], folder: Path, content: str, message: str
) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    refused(load, folder, f"config.json: damaged, {message}")


@pytest.mark.parametrize("load", LOADERS)
def test_damaged_weights_are_refused(load: Callable[[Path], object], folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(load, folder, r"model\.safetensors: is damaged, incomplete")
    path.unlink()
    refused(load, folder, r"holds neither model\.safetensors nor pytorch_model\.bin")


class Dangerous:
    ran: list[bool] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[object, tuple[bool]]:
        return self.ran.append, (True,)


@pytest.mark.parametrize("load", LOADERS)
def test_pickled_code_is_refused_and_not_run(load: Callable[[Path], object], folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"weights": Dangerous()}, file, protocol=2)
    refused(load, folder, r"pytorch_model\.bin: (holds Python objects|is damaged)")
    torch.save({"weights": Dangerous()}, folder / "pytorch_model.bin")
    refused(load, folder, r"pytorch_model\.bin: holds Python objects that only running")
    assert Dangerous.ran == []


@pytest.mark.parametrize("load", LOADERS)
def test_weights_that_do_not_fit_the_settings_are_refused(
    load: Callable[[Path], object], folder: Path
) -> None:
    settings = json.loads((folder / "config.json").read_text())
    settings["audio_config"]["depths"] = [1, 2]
    settings["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(settings))
    refused(load, folder, "CLAP of these settings: lacks (audio|text)_model")
    shutil.rmtree(folder)
    save_clap(folder)
    weights = load_file(folder / "model.safetensors")
    for part in ("audio", "text"):
        weights[f"{part}_projection.linear2.bias"] = torch.zeros(3)
        weights[f"{part}_model.more"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(load, folder, r"has the unknown .*_model\.more; .*linear2\.bias is \(3,\) instead of")


def test_settings_that_make_no_model_are_refused(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["audio_config"]["hidden_size"] = 17
    (folder / "config.json").write_text(json.dumps(content))
    refused(HtsatEncoder.from_published, folder, r"its settings make no CLAP \(ConfigError: clap_c")
    content["text_config"]["hidden_size"] = 17
    (folder / "config.json").write_text(json.dumps(content))
    refused(ClapTextEncoder.from_published, folder, "its settings make no CLAP")
    content["text_config"]["hidden_size"] = "wide"
    (folder / "config.json").write_text(json.dumps(content))
    refused(ClapTextEncoder.from_published, folder, "no CLAP")


def test_a_damaged_extractor_is_refused(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text('{"hop_length": "ten"}')
    refused(HtsatEncoder.from_published, folder, "its feature extractor's hop_length is 'ten'")


def test_the_tokenizer_must_be_there_and_fit(folder: Path, whole: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    refused(
        ClapTextEncoder.from_published,
        folder,
        "there is no tokenizer in this folder; give a folder",
    )
    (folder / "tokenizer.json").write_text("{")
    refused(ClapTextEncoder.from_published, folder, r"the tokenizer cannot be read \(.*; give a")
    for path in whole.glob("tokenizer*"):
        shutil.copy(path, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["extraordinary"] = len(content["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(ClapTextEncoder.from_published, folder, "the tokenizer has .* tokens, the text model")


# Hub ids, without a network


def test_a_hub_id_that_was_not_downloaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(self: object, name: str, **options: object) -> None:
        raise ConnectionError("[Errno -2] Name or service not known\nmore lines")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_network)
    refused(
        find_clap_folder,
        "laion/clap-that-is-not",
        r"clap-that-is-not: no such folder here, and the Hugging Face Hub does not give it "
        r"\(ConnectionError: .* not known more lines\); "
        r"give the path of a local folder \(ClapModel\)",
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(find_clap_folder, "laion/clap-that-is-not", "and HF_HUB_OFFLINE is set; give the path")


def test_a_hub_id_that_was_downloaded_is_found(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, revision = tmp_path / "models--laion--clap-small", "1" * 40
    shutil.copytree(whole, model / "snapshots" / revision)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_clap_folder("laion/clap-small") == model / "snapshots" / revision
    # A copy of the tokenizer alone is no model.
    (model / "snapshots" / revision / "model.safetensors").unlink()
    refused(find_clap_folder, "laion/clap-small", "not downloaded before")
