"""`dac-diffusion prepare datastore`, run in this process for a tiny RECAP captioner."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from torch import Tensor

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.cli import main
from dac_diffusion.retrieval.datastore import CaptionDatastore, space_fingerprint
from tests.helpers import RATE, noise, only_error, tiny_autoregressive, tiny_captioner

WORDS = ["a dog barks", "rain falls in the background", "birds sing"]


def recap(**settings: str) -> AutoregressiveCaptioner:
    captioner = tiny_autoregressive()
    space = space_fingerprint(captioner.scorer)
    captioner.register_to_config(retrieved=2, **{"datastore_space": space, **settings})
    vectors: Tensor = captioner.scorer.embed_captions(WORDS, captioner.tokenizer)
    captioner.datastore = CaptionDatastore.build(WORDS, ["x", "y", "z"], vectors, space)
    return captioner


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "captions.csv"
    path.write_text("file_name,caption_1,caption_2\na.wav,a dog barks,a dog\nb.wav,rain,a car\n")
    return path


def prepare(table: Path, model: str | Path, output: Path, *more: str) -> int:
    named = ["--output", str(output), "--model", str(model), "--quiet"]
    return main(["prepare", "datastore", str(table), *named, *more])


def without_store(store: Path) -> None:
    shutil.rmtree(store)


def cut_off_head(store: Path) -> None:
    (store / "datastore.json").write_text('{"version": ')


def without_vectors(store: Path) -> None:
    (store / "vectors.faiss").unlink()


@pytest.mark.parametrize("damage", [without_store, cut_off_head, without_vectors])
def test_a_captioner_whose_own_datastore_is_lost_gets_a_new_one(
    damage: Callable[[Path], None], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, wav = tmp_path / "model", tmp_path / "noise.wav"
    recap().save_pretrained(model)
    soundfile.write(wav, noise(1.0, 1), RATE)
    damage(model / "datastore")
    caption = ["caption", str(wav), "--model", str(model), "--num-captions", "2"]
    assert main(caption) == 1
    assert str(model / "datastore") in only_error(capsys)
    assert prepare(table, model, model / "datastore") == 0
    assert capsys.readouterr().out == f"{model / 'datastore'}: 4 captions\n"
    assert main(caption) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: tiny_captioner().save_pretrained(folder),
        lambda folder: tiny_autoregressive().save_pretrained(folder),
    ],
)
def test_other_captioners_look_nothing_up(
    make: Callable[[Path], None], table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "model")
    assert prepare(table, tmp_path / "model", tmp_path / "store") == 1
    assert only_error(capsys) == (
        f"dac-diffusion: error: --model {tmp_path / 'model'}: looks nothing up; give a RECAP "
        "captioner\n"
    )


def test_a_space_that_is_not_the_models_is_said_as_what_it_is(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, store = tmp_path / "model", tmp_path / "store"
    recap().save_pretrained(model)
    assert prepare(table, model, store, "--clap", "no-such-clap") == 1
    assert only_error(capsys) == (
        f"dac-diffusion: error: --clap: {model} compares by its own scorer's vectors; leave it "
        "out\n"
    )
    recap(datastore_space="another").save_pretrained(model)
    assert prepare(table, model, store) == 1
    assert only_error(capsys) == (
        f"dac-diffusion: error: --model {model}: its scorer is not the one that it was saved with; "
        "copy the whole checkpoint again\n"
    )
    recap(retrieval_space="clap").save_pretrained(model)
    assert prepare(table, model, store) == 1
    assert f"--clap: {model} compares by CLAP's vectors; name the CLAP" in only_error(capsys)
    assert not store.exists()
