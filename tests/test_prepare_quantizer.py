"""`dac-diffusion prepare quantizer`, from a cache of features to a cache of their codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dac_diffusion.cli import main
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.data.feature_cache import FeatureCache
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.saved_models import load_saved_model
from tests.data.feature_caches import contents, prepare, save_encoder, write_dataset
from tests.helpers import only_error

SMALL = ("--stages", "3", "--entries", "5", "--steps", "4", "--batch-frames", "12")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    prepare(write_dataset(folder / "audio"), folder / "cache", save_encoder(folder / "encoder"))
    return folder


def quantizer(cache: Path, output: Path, *more: str) -> int:
    named = ["prepare", "quantizer", str(cache), "--output", str(output), "--device", "cpu"]
    return main([*named, *SMALL, *more])


def test_the_error_of_every_stage_is_shown(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "quantizer"
    assert quantizer(made / "cache", output, "--seed", "2") == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == f"{output}: 3 codebooks of 5 entries"
    assert [line.split(":")[0] for line in lines[1:]] == ["stage 1", "stage 2", "stage 3"]
    shares = [float(line.split()[2].rstrip("%")) for line in lines[1:]]
    assert 100 > shares[0] > shares[1] > shares[2] > 0
    assert "k-means" in shown.err
    loaded = load_saved_model(ResidualQuantizer, output)
    assert (loaded.feature_dim, loaded.num_codebooks, loaded.codebook_size) == (32, 3, 5)
    features = FeatureCache.open(made / "cache").batch([1, 2, 3, 6])
    rows = features.features[features.mask]
    left = (rows - loaded.decode(loaded.codes(rows))).square().sum()
    assert float(left / (rows - rows.mean(dim=0)).square().sum()) < 0.9
    assert quantizer(made / "cache", tmp_path / "again", "--seed", "2", "--quiet") == 0
    assert capsys.readouterr().err == ""
    again = load_saved_model(ResidualQuantizer, tmp_path / "again")
    assert torch.equal(again.codebooks, loaded.codebooks)


def test_codes_of_a_data_set_by_commands(made: Path, tmp_path: Path) -> None:
    """The way of CLAP-ART: features, a quantiser of them, an encoder of codes, codes."""
    assert quantizer(made / "cache", tmp_path / "quantizer", "--quiet") == 0
    encoder = load_encoder("small", made / "encoder")
    codec = QuantizedEncoder.from_parts(
        encoder, load_saved_model(ResidualQuantizer, tmp_path / "quantizer")
    )
    CodeEncoder.from_parts(codec, encoder).save_pretrained(tmp_path / "codes")
    table = tmp_path / "captions.csv"
    rows = [f"{name},a caption" for name in ("a/0.wav", "a/2.wav")]
    table.write_text("\n".join(["file_name,caption", *rows]) + "\n")
    named = {
        "--dataset": "plain",
        "--captions": table,
        "--audio": made / "audio",
        "--encoder": "codes",
        "--weights": tmp_path / "codes",
        "--output": tmp_path / "cache",
        "--device": "cpu",
    }
    arguments = [str(part) for pair in named.items() for part in pair]
    assert main(["prepare", "features", *arguments, "--quiet"]) == 0
    codes = FeatureCache.open(tmp_path / "cache")
    features = FeatureCache.open(made / "cache").batch([2])
    assert (codes.num_codebooks, codes.codebook_size) == (3, 5)
    expected = codec.quantizer.codes(features.features)
    found = codes.batch([1])
    # The cache has features in float16, of which some may be nearer to another entry.
    assert (found.features == expected).float().mean() > 0.9
    torch.testing.assert_close(found.pooled, features.pooled)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages", "0"], "num_codebooks=0: must be at least 1"),
        (["--entries", "0"], "codebook_size=0: must be at least 1"),
        (["--entries", "99"], "only 35 different features were found for 99 entries"),
        (["--steps", "0"], "steps=0: must be at least 1"),
        (["--batch-frames", "0"], "batch_frames=0: must be at least 1"),
        (["--seed", "-1"], "seed=-1: must be 0 or more, and below 2^63"),
        (["--device", "cuda:99"], "--device cuda:99: this machine has none"),
    ],
)
def test_wrong_options_are_errors_of_one_line(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert quantizer(made / "cache", tmp_path / "quantizer", "--quiet", *options) == 1
    assert message in only_error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_cache_and_one_that_is_not_there(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantizer(tmp_path, tmp_path / "quantizer", "--quiet") == 1
    assert f"{tmp_path}: is no feature cache, it has no index.json" in only_error(capsys)
    assert quantizer(made / "cache", tmp_path / "no/quantizer", "--quiet") == 1
    assert "the folder" in only_error(capsys)


def test_only_a_quantizer_is_replaced(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the cache itself, nor another model, which has files of the same names."""
    prepare(write_dataset(tmp_path / "audio", [1.0]), tmp_path / "cache", made / "encoder")
    other = save_encoder(tmp_path / "model")
    for output in (tmp_path / "cache", other, tmp_path):
        before = contents(output)
        assert quantizer(made / "cache", output, "--quiet") == 1
        assert f"{output}: holds something else; choose another output" in only_error(capsys)
        assert contents(output) == before
    for seed in ("1", "2"):
        assert quantizer(made / "cache", tmp_path / "quantizer", "--quiet", "--seed", seed) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"audio", "cache", "model", "quantizer"}
