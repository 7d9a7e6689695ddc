"""Quantisers that a config names: used in place of k-means, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dac_diffusion.cli import main
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.saved_models import load_saved_model
from tests.data.feature_caches import write_dataset
from tests.helpers import RATE, noise
from tests.training.test_systems import trained

BUILTIN = ("encoder.name=small", "encoder.weights=null", "encoder.pretrained=builtin")
SIZES = ("codec.name=rvq", "codec.num_codebooks=null", "codec.codebook_size=5")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantiser of the built-in encoder's features, made by the commands."""
    folder = tmp_path_factory.mktemp("prepared")
    write_dataset(folder / "audio")
    table = folder / "captions.csv"
    rows = [f"{'ab'[i % 2]}/{i}.wav,a caption" for i in range(7)]
    table.write_text("\n".join(["file_name,caption", *rows]) + "\n")
    common = ["--device", "cpu", "--quiet"]
    features = ["--captions", table, "--audio", folder / "audio", "--output", folder / "cache"]
    encoder = ["--dataset", "plain", "--encoder", "small", "--weights", "builtin"]
    assert main(["prepare", "features", *map(str, features), *encoder, *common]) == 0
    sizes = ["--stages", "3", "--entries", "5", "--steps", "4"]
    output = folder / "quantizer"
    fit = ["prepare", "quantizer", str(folder / "cache"), "--output", str(output), *sizes]
    assert main([*fit, *common]) == 0
    return output


def test_scenes_are_coded_by_it(prepared: Path, tmp_path: Path, scenes: Path) -> None:
    more = (*BUILTIN, *SIZES, f"codec.weights={prepared}")
    captioner = trained("enclap", tmp_path, scenes, *more)
    own = load_saved_model(ResidualQuantizer, prepared)
    assert torch.equal(captioner.encoder.codec.quantizer.codebooks, own.codebooks)
    assert captioner.encoder.codec.quantizer.config.variance_left == own.config.variance_left
    assert not list(tmp_path.glob("quantizer-*"))
    assert captioner(noise(1.0, 1), RATE, num_captions=1).captions


def test_recordings_are_coded_by_it(prepared: Path, tmp_path: Path, scenes: Path) -> None:
    """And exchanged for another one under its name, they are coded anew."""
    data = ("encoder.name=small", "encoder.pretrained=builtin", "encoder.weights=null")
    # A second encoder, so that scenes become recordings.
    second = ("codec.sequence=sequence_encoder", "codec.sequence_encoder={name: htsat, weights: "
              "random}")  # fmt: skip
    quantizer = load_saved_model(ResidualQuantizer, prepared)
    for steps in (1, 2):
        quantizer.codebooks.mul_(steps)
        quantizer.save_pretrained(tmp_path / "quantizer")
        named = (
            *SIZES,
            f"codec.weights={tmp_path / 'quantizer'}",
            f"max_steps={steps}",
            f"data.features_dir={tmp_path / str(steps)}",
        )
        captioner = trained("enclap", tmp_path / "run", scenes, *data, *second, *named)
        assert torch.equal(captioner.encoder.codec.quantizer.codebooks, quantizer.codebooks)
    assert len(list((tmp_path / "run").glob("code_encoder-*"))) == 2
    assert not list(tmp_path.glob("?/*-5000"))


def test_one_that_does_not_fit_is_refused(prepared: Path, tmp_path: Path, scenes: Path) -> None:
    def refused(*more: str) -> str:
        named = (*BUILTIN, *SIZES, f"codec.weights={prepared}", *more)
        with pytest.raises((ConfigError, CheckpointError)) as caught:
            trained("enclap", tmp_path / "run", scenes, *named)
        text = str(caught.value)
        assert "\n" not in text
        return text.replace(str(prepared), "FOLDER")

    for setting, found, wanted in (
        ("num_codebooks", 3, 4),
        ("codebook_size", 5, 1024),
        ("normalise", False, True),
    ):
        assert refused(f"codec.{setting}={wanted}") == (
            f"codec.weights=FOLDER: was fitted with {setting}={found}, but codec.{setting} is "
            f"{wanted}; set that to {found}, or name another quantiser"
        )
    assert refused("codec.features=mel") == (
        "codec.weights=FOLDER: the quantiser was fitted on features of small with "
        "frequency_pooling None, not of mel with None; fit another one"
    )
    assert refused("encoder.pretrained=null") == (
        "codec.weights=FOLDER: the quantiser was fitted on features of small with other weights; "
        "give those, or fit another one"
    )
    assert refused("codec.weights=random") == (
        "codec.weights=random: there is no such folder; name a quantiser that `dac-diffusion "
        "prepare quantizer` made, or set it to null to fit one here"
    )
    assert refused(f"codec.weights={prepared.parent}").startswith(
        f"{prepared.parent}/config.json: is missing"
    )
