"""`dac-diffusion prepare features`, run in this process on a tiny random encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dac_diffusion.cli import main
from dac_diffusion.data.feature_cache import FeatureCache
from tests.data.feature_caches import save_encoder, write_noise
from tests.helpers import only_error

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "../shared/data/clotho_sample"
HEADER = "file_name,caption_1,caption_2\n"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def clotho(tmp_path: Path) -> Path:
    """Three recordings in Clotho's layout."""
    for i in range(3):
        write_noise(tmp_path / f"clotho/development/{i}.wav", 0.5 + i, seed=i)
    rows = "".join(f"{i}.wav,first of {i},second of {i}\n" for i in range(3))
    (tmp_path / "clotho/clotho_captions_development.csv").write_text(HEADER + rows)
    return tmp_path / "clotho"


def prepare(
    folder: Path, weights: Path, output: Path, *more: str | Path, dataset: str = "clotho"
) -> int:
    named = {
        "--dataset": dataset,
        "--captions": folder,
        "--audio": folder,
        "--encoder": "small",
        "--weights": weights,
        "--output": output,
    }
    arguments = [str(part) for pair in named.items() for part in pair]
    return main(["prepare", "features", *arguments, "--device", "cpu", *map(str, more)])


def test_a_data_set_becomes_a_cache(
    clotho: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "cache"
    assert prepare(clotho, weights, output) == 0
    shown = capsys.readouterr()
    assert shown.out == (f"{output}: 3 clips (3 recordings encoded now, 1 cut to the window)\n")
    assert "encoding" in shown.err
    assert "3/3" in shown.err
    cache = FeatureCache.open(output)
    assert [cache.name(i) for i in range(3)] == ["0.wav", "1.wav", "2.wav"]
    assert cache.captions(1) == ("first of 1", "second of 1")
    assert (output / "problems.txt").read_text() == ""
    assert prepare(clotho, weights, output, "--quiet") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{output}: 3 clips (0 recordings encoded now")
    assert shown.err == ""


def test_limit_window_and_the_files_by_name(
    clotho: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, output = clotho / "clotho_captions_development.csv", tmp_path / "cache"
    options = ["--captions", table, "--limit", "2", "--window-seconds", "1", "--quiet"]
    assert prepare(clotho, weights, output, *options) == 0
    assert "2 clips (2 recordings encoded now, 1 cut" in capsys.readouterr().out
    cache = FeatureCache.open(output)
    assert cache.encoder["window_seconds"] == 1.0
    assert cache.batch([0, 1]).mask.sum(dim=1).tolist() == [2, 4]
    table.write_text(HEADER + "0.wav,other,words\n")
    assert prepare(clotho, weights, output, *options) == 0
    assert "1 clips (0 recordings encoded now, 1 shards of other" in capsys.readouterr().out
    assert FeatureCache.open(output).captions(0) == ("other", "words")


def test_broken_recordings_are_errors_and_faults_of_the_table_warnings(
    clotho: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clotho / "development/1.wav").write_bytes(b"not a recording")
    with open(clotho / "clotho_captions_development.csv", "a") as file:
        file.writelines(f"gone {i}.wav,a,b\n" for i in range(12))
    for _ in range(2):  # the second run encodes nothing, and says the same
        assert prepare(clotho, weights, tmp_path / "cache", "--quiet") == 1
        shown = capsys.readouterr()
        lines = shown.err.splitlines()
        assert len(lines) == 12
        assert lines[0].startswith(
            "dac-diffusion: warning: clotho_captions_development.csv, line 5"
        )
        assert lines[10].endswith(f"2 more problems, all of them in {tmp_path}/cache/problems.txt")
        assert lines[11].startswith(f"dac-diffusion: error: {clotho}/development/1.wav: not a rec")
        assert "2 clips (" in shown.out
    assert len((tmp_path / "cache/problems.txt").read_text().splitlines()) == 12
    assert len(FeatureCache.open(tmp_path / "cache")) == 2


def test_wavcaps_and_what_it_must_not_hold(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [{"id": str(i), "caption": f"sound {i}", "duration": 0.5 + i} for i in range(4)]
    for i in range(4):
        write_noise(tmp_path / f"wavcaps/FreeSound/{i}.flac", 0.5 + i, seed=i)
    (tmp_path / "wavcaps/fsd_final.json").write_text(json.dumps({"data": data}))
    (tmp_path / "blacklist.json").write_text('{"FreeSound": ["1"]}')
    (tmp_path / "forbidden.csv").write_text("id\n2\n")
    options = ["--exclude", tmp_path / "blacklist.json", tmp_path / "forbidden.csv"]
    options += ["--shortest-seconds", "0.6", "--longest-seconds", "30", "--quiet"]
    output = tmp_path / "cache"
    assert prepare(tmp_path / "wavcaps", weights, output, *options, dataset="wavcaps") == 0
    shown = capsys.readouterr()
    assert "1 clips (1 recordings encoded now, 1 cut to the window, 3 clips excluded)" in shown.out
    assert shown.err == ""
    assert FeatureCache.open(output).name(0) == "FreeSound/3"
    assert prepare(tmp_path / "wavcaps", weights, output, "--quiet", dataset="wavcaps") == 0
    assert "--exclude leaves them out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "other"], "encoder='other' is unknown: use one of small, beats, ced"),
        (["--weights", "nothing"], "nothing: is no folder of the small encoder"),
        (["--captions", "nothing.csv"], "nothing.csv: cannot be read"),
        (["--audio", "nothing"], "nothing: does not exist"),
        (["--limit", "0"], "--limit 0: must be at least 1"),
        (["--processes", "0"], "processes=0: must be at least 1"),
        (["--window-seconds", "-1"], "window_seconds=-1.0: must be a number of seconds above 0"),
        (["--device", "cuda:99"], "--device cuda:99: this machine has none"),
        (
            ["--longest-seconds", "5"],
            "clotho: excluding ids or lengths is possible for wavcaps only",
        ),
        (
            ["--frequency-pooling", "mean"],
            "frequency_pooling: the small encoder has no such setting",
        ),
    ],
)
def test_wrong_options_are_errors_of_one_line(
    clotho: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    assert prepare(clotho, weights, tmp_path / "cache", "--quiet", *options) == 1
    assert message in only_error(capsys)


def test_another_encoder_in_the_folder(
    clotho: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(clotho, weights, tmp_path / "cache", "--quiet") == 0
    capsys.readouterr()
    other = save_encoder(tmp_path / "other", seed=1)
    assert prepare(clotho, other, tmp_path / "cache", "--quiet") == 1
    assert "holds features of another encoder (weights_sha256" in only_error(capsys)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from dac_diffusion.cli import build_parser; build_parser(); "
        "print([name for name in ('torch', 'numpy', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs ../shared/data/clotho_sample")
def test_the_sample_of_clotho_with_the_encoder_that_is_shipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(SAMPLE, Path("builtin"), tmp_path / "cache", "--quiet") == 0
    assert "5 clips (5 recordings encoded now, 5 cut to the window)" in capsys.readouterr().out
    cache = FeatureCache.open(tmp_path / "cache")
    batch = cache.batch(range(5))
    assert batch.features.shape == (5, 32, 256)
    assert all(15 <= cache.seconds(i) <= 30 for i in range(5))
    assert all(len(cache.captions(i)) == 5 for i in range(5))
