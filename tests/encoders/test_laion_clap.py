"""What LaionClapEncoder does where laion-clap is not installed, and the reading of its files.

The features themselves are compared with laion-clap's in tests/laion_clap.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from dac_diffusion.encoders import laion_clap
from dac_diffusion.encoders.laion_clap import (
    LaionClapEncoder,
    load_laion_text_encoder,
    read_laion_weights,
)
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import CheckpointError, ConfigError, MissingExtraError
from tests.metrics.fabricated_models import save_clap, save_like_laion

CAPTIONS = ["a dog barks", "rain on a roof while the dog is barking and barking", "", "rain"]


def audio_weights(width: int = 96) -> dict[str, Tensor]:
    return {
        "audio_branch.patch_embed.proj.weight": torch.randn(width, 1, 4, 4),
        "logit_scale_a": torch.tensor(2.0),
    }


def test_weights_are_read_without_the_prefix_and_position_ids(tmp_path: Path) -> None:
    weights = audio_weights()
    table = {"text_branch.embeddings.position_ids": torch.arange(514)[None]}
    save_like_laion(tmp_path / "clap.pt", {**weights, **table})
    found = read_laion_weights(tmp_path / "clap.pt")
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(found[name], value)


def test_a_bare_state_dict_is_read_too(tmp_path: Path) -> None:
    torch.save(audio_weights(), tmp_path / "bare.pt")
    assert read_laion_weights(tmp_path / "bare.pt").keys() == audio_weights().keys()


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numbers_of_either_numpy_are_read(tmp_path: Path, module: bytes) -> None:
    save_like_laion(tmp_path / "ours.pt", audio_weights())
    with (
        zipfile.ZipFile(tmp_path / "ours.pt") as ours,
        zipfile.ZipFile(tmp_path / "theirs.pt", "w") as theirs,
    ):
        for name in ours.namelist():
            content = ours.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content or b"numpy.core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
                content = content.replace(b"numpy.core.multiarray", module)
            theirs.writestr(name, content)
    assert "logit_scale_a" in read_laion_weights(tmp_path / "theirs.pt")


class Dangerous:
    ran: list[bool] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[object, tuple[bool]]:
        return self.ran.append, (True,)


READERS: list[Callable[[Path], Any]] = [
    LaionClapEncoder.from_published,
    read_laion_weights,
    load_laion_text_encoder,
]


@pytest.mark.parametrize("read", READERS)
def test_files_that_are_no_clap_are_refused(read: Callable[[Path], Any], tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)

    refused(tmp_path / "none.pt", r"none\.pt: there is no such file; download")
    save_like_laion(tmp_path / "cut.pt", audio_weights())
    content = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "cut.pt", r"cut\.pt: is damaged, incomplete or no checkpoint")
    torch.save({"state_dict": {"encoder.weight": torch.zeros(2)}}, tmp_path / "bert.pt")
    refused(tmp_path / "bert.pt", r"bert\.pt: holds no CLAP of laion-clap \(no audio_branch")
    torch.save({"state_dict": [torch.zeros(2)]}, tmp_path / "list.pt")
    refused(tmp_path / "list.pt", r"list\.pt: holds no weights by name")
    torch.save({**audio_weights(), "run": Dangerous()}, tmp_path / "code.pt")
    refused(tmp_path / "code.pt", r"code\.pt: holds Python objects that only running its code")
    assert Dangerous.ran == []
    save_clap(tmp_path / "folder")
    refused(tmp_path / "folder", "or load a transformers ClapModel with the encoder htsat")


def test_an_old_pytorch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_like_laion(tmp_path / "clap.pt", audio_weights())
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(
        CheckpointError, match=r"PyTorch 2\.5\.1\+cpu cannot read it .*upgrade to 2"
    ):
        read_laion_weights(tmp_path / "clap.pt")


def test_other_audio_models_are_refused(tmp_path: Path) -> None:
    save_like_laion(tmp_path / "pann.pt", {"audio_branch.conv.weight": torch.zeros(2)})
    save_like_laion(tmp_path / "large.pt", audio_weights(width=256))
    for name in ("pann.pt", "large.pt"):
        with pytest.raises(CheckpointError, match="is neither HTSAT-tiny nor HTSAT-base"):
            LaionClapEncoder.from_published(tmp_path / name)


@pytest.mark.parametrize("found", [None, SimpleNamespace(origin=None)])
def test_without_the_package_the_extra_is_named(
    found: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laion_clap, "find_spec", lambda name: found)
    save_like_laion(tmp_path / "clap.pt", audio_weights())
    with pytest.raises(MissingExtraError, match=r'pip install "dac-diffusion\[laion-clap\]"') as e:
        load_encoder("laion_clap", tmp_path / "clap.pt")
    assert "the encoder htsat takes the same models" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_package_that_does_not_fit_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "laion_clap" / "clap_module").mkdir(parents=True)
    (tmp_path / "laion_clap" / "__init__.py").write_text("raise SystemExit('was run')")
    broken = "raise RuntimeError('operator torchvision::nms\\ndoes not exist')"
    (tmp_path / "laion_clap" / "clap_module" / "__init__.py").write_text(broken)
    spec = SimpleNamespace(
        origin="a file", submodule_search_locations=[str(tmp_path / "laion_clap")]
    )
    monkeypatch.setattr(laion_clap, "find_spec", lambda name: spec)
    with pytest.raises(
        MissingExtraError,
        match=r"cannot be imported \(RuntimeError: operator torchvision::nms does not exist\); t",
    ):
        LaionClapEncoder()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"audio_model": "PANN"}, "audio_model='PANN' is unknown: use 'HTSAT-tiny' or 'HTSAT-bas"),
        ({"window_seconds": 10.5}, "window_seconds=10.5: CLAP takes up to 10 s at once"),
        ({"frequency_pooling": "max"}, "frequency_pooling='max' is unknown"),
        ({"real_frames": "some"}, "real_frames='some' is unknown"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LaionClapEncoder(**settings)


# The text side, which needs transformers only


def test_text_vectors_are_those_of_the_roberta_in_the_file(
    laion_text: nn.ModuleDict, roberta_tokenizer: Path, tmp_path: Path
) -> None:
    table = {"text_branch.embeddings.position_ids": torch.arange(100)[None]}
    weights = {**audio_weights(), **laion_text.state_dict(), **table}
    save_like_laion(tmp_path / "clap.pt", weights)
    vectors = load_laion_text_encoder(tmp_path / "clap.pt", roberta_tokenizer)(CAPTIONS)
    pieces = AutoTokenizer.from_pretrained(roberta_tokenizer)(
        CAPTIONS, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        pooled = laion_text["text_branch"](**pieces).pooler_output
        expected = nn.functional.normalize(laion_text["text_projection"](pooled), dim=-1)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    assert torch.cdist(vectors, vectors).fill_diagonal_(1).min() > 1e-2
    long = load_laion_text_encoder(tmp_path / "clap.pt", roberta_tokenizer)(
        ["rain " * 90, "rain " * 200]
    )
    torch.testing.assert_close(long[0], long[1])


def test_text_models_that_do_not_fit_are_refused(
    laion_text: nn.ModuleDict, roberta_tokenizer: Path, tmp_path: Path
) -> None:
    save_like_laion(tmp_path / "bare.pt", audio_weights())
    with pytest.raises(CheckpointError, match=r"no RoBERTa \(no text_model\.embeddings\.word_emb"):
        load_laion_text_encoder(tmp_path / "bare.pt", roberta_tokenizer)
    weights = {**audio_weights(), **laion_text.state_dict()}
    del weights["text_branch.encoder.layer.1.output.dense.weight"]
    save_like_laion(tmp_path / "lacks.pt", weights)
    with pytest.raises(CheckpointError, match=r"lacks text_model\.encoder\.layer\.1\.output"):
        load_laion_text_encoder(tmp_path / "lacks.pt", roberta_tokenizer)
    with pytest.raises(CheckpointError, match="there is no tokenizer in this folder"):
        load_laion_text_encoder(tmp_path / "lacks.pt", tmp_path)
