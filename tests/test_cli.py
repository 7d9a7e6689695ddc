"""The command line, run in this process on a tiny random checkpoint."""

import csv
import json
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

from dac_diffusion import __version__
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.cli import main
from dac_diffusion.commands import info
from dac_diffusion.ranking.detectors import TRIGRAMS_FILE
from dac_diffusion.ranking.error_detection import FluencyErrorDetector
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector
from dac_diffusion.ranking.trigram_errors import TrigramErrorDetector
from tests.helpers import only_error, tiny_captioner, write_recordings
from tests.metrics.fabricated_models import save_error_detector

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "transformers", "diffusers", "soundfile", "yaml", "safetensors")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "below").mkdir()
    write_recordings(folder, 2, seconds=0.4)
    write_recordings(folder / "below", 1, seconds=0.3)
    return folder


NAMES = ["below/clip_0.wav", "clip_0.wav", "clip_1.wav"]


def caption(checkpoint: Path, *arguments: str | Path) -> int:
    return main(["caption", "--model", str(checkpoint), *map(str, arguments)])


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from dac_diffusion.cli import build_parser; build_parser().format_help(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [[], ["caption"], ["train"], ["prepare", "soundscapes"]])
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_text(checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert caption(checkpoint, recordings / "clip_0.wav", "--num-captions", "3") == 0
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0] == "clip_0.wav  (0.4 s)"
    assert len(lines) == 5
    score, _, text = lines[1].strip().partition("  ")
    assert -1 <= float(score) <= 1
    assert text
    assert lines[4].startswith("1 captioned in ")
    assert output.err == ""


def test_jsonl_of_a_folder(
    checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert caption(checkpoint, recordings, "--format", "jsonl", "--quiet") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file_name"] for row in rows] == NAMES
    for row in rows:
        assert list(row) == ["file_name", "duration_seconds", "captions"]
        assert len(row["captions"]) == 5
        assert all(list(entry) == ["text", "score", "scores"] for entry in row["captions"])
        for entry in row["captions"]:
            parts = entry["scores"]
            assert list(parts) == ["cosine", "log_likelihood"]
            expected = parts["cosine"] + 0.2 * parts["log_likelihood"]
            assert entry["score"] == pytest.approx(expected, abs=2e-4)
    assert [row["duration_seconds"] for row in rows] == [0.3, 0.4, 0.4]
    expected = DiffusionCaptioner.from_pretrained(checkpoint)(recordings)
    assert [[entry["text"] for entry in row["captions"]] for row in rows] == [
        [entry.text for entry in clip.captions] for clip in expected
    ]


def test_csv_file(checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    target = tmp_path / "predictions.csv"
    assert caption(checkpoint, recordings, "--format", "csv", "--output", target) == 0
    with open(target, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file_name", "caption_predicted"]
    assert [row[0] for row in rows[1:]] == NAMES
    assert all(row[1] for row in rows[1:])
    assert list(tmp_path.iterdir()) == [target]


def test_settings_reach_the_captioner(
    checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def texts(*arguments: str) -> str:
        path = recordings / "clip_0.wav"
        assert caption(checkpoint, path, "--format", "jsonl", *arguments) == 0
        return capsys.readouterr().out

    default = texts()
    assert texts("--num-steps", "3", "--seed", "0", "--scheduler", "default") == default
    assert texts("--num-candidates", "6", "--guidance-scale", "1", "--device", "cpu") == default
    for setting in (
        ["--seed", "1"],
        ["--num-steps", "2"],
        ["--num-candidates", "7"],
        ["--guidance-scale", "3"],
        ["--initial-noise-scale", "0.3"],
        ["--scheduler", "ddim"],
        ["--scheduler", "dpm++"],
        ["--audio-text-weight", "0.6"],
        ["--likelihood-weight", "0"],
        ["--agreement-weight", "2"],
        ["--score-normalisation", "z_score"],
    ):
        assert texts(*setting) != default, setting


def test_jsonl_says_what_a_score_is_made_of(
    checkpoint: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--likelihood-weight", "0", "--agreement-weight", "2", "--error-threshold", "0.9"]
    assert caption(checkpoint, recordings / "clip_0.wav", "--format", "jsonl", *weights) == 0
    (row,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    for entry in row["captions"]:
        parts = entry["scores"]
        assert list(parts) == ["cosine", "agreement", "error_probability"]
        assert parts["error_probability"] in (0, 1)
        expected = parts["cosine"] + 2 * parts["agreement"]
        assert entry["score"] == pytest.approx(expected, abs=3e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agreement-weight", "nan"], "agreement_weight=nan: must be a finite number"),
        (
            ["--score-normalisation", "rank"],
            "score_normalisation='rank': must be one of none, z_score",
        ),
        (["--error-threshold", "2"], "error_threshold=2.0: must be a number from 0 to 1"),
    ],
)
def test_ranking_options_that_make_no_sense(
    checkpoint: Path,
    recordings: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert caption(checkpoint, recordings / "clip_0.wav", *arguments) == 1
    assert only_error(capsys) == f"dac-diffusion: error: {message}\n"


@pytest.mark.parametrize("model", ["diffusion", "builtin-autoregressive"])
def test_the_detector_that_an_option_names(
    model: str,
    checkpoint: Path,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With it alone its usual threshold; what it finds is in the output."""
    name = checkpoint if model == "diffusion" else Path(model)
    save_error_detector(tmp_path / "checker.ckpt", tmp_path / "bert")
    published = FluencyErrorDetector(tmp_path / "checker.ckpt", tmp_path / "bert")
    files = ["--error-detector", published.checkpoint, "--error-encoder", published.encoder]
    for options, detector in (
        (["--error-detector", "rules"], RuleBasedErrorDetector()),
        (["--error-detector", "builtin"], TrigramErrorDetector.load(TRIGRAMS_FILE)),
        (files, published),
        ([*files, "--error-threshold", "0.2"], published),
    ):
        arguments = ["--format", "jsonl", "--device", "cpu", "--dtype", "float32", *options]
        assert caption(name, recordings / "clip_0.wav", *arguments) == 0
        (row,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        found = [entry["scores"]["error_probability"] for entry in row["captions"]]
        expected = detector.probabilities([entry["text"] for entry in row["captions"]])
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--error-detector", "c.ckpt"],
            "--error-detector c.ckpt: a checkpoint needs --error-encoder FOLDER, its BERT's "
            "config.json and vocab.txt; rules need nothing",
        ),
        (["--error-encoder", "bert"], "--error-encoder: rules goes without; leave it out"),
        (
            ["--error-detector", "rules", "--error-encoder", "bert"],
            "--error-encoder: rules goes without; leave it out",
        ),
        (
            ["--error-detector", "c.ckpt", "--error-encoder", "bert"],
            "the error detector needs c.ckpt (release V0.1 of github.com/blmoistawinde/fense has",
        ),
        (
            ["--error-detector", "README.md", "--error-encoder", "BERT"],
            "README.md: is no error detector that fits",
        ),
        (["--error-detector", "d.json"], "d.json: there is no such file; `dac-diffusion prepare d"),
        (["--error-detector", "builtin", "--error-encoder", "bert"], "builtin goes without; leave"),
    ],
)
def test_detectors_that_are_missing_or_wrong(
    options: list[str],
    message: str,
    checkpoint: Path,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_error_detector(tmp_path / "checker.ckpt", tmp_path / "bert")
    places = {"README.md": str(ROOT / "README.md"), "BERT": str(tmp_path / "bert")}
    options = [places.get(option, option) for option in options]
    output = tmp_path / "captions.txt"
    capsys.readouterr()
    assert caption(checkpoint, recordings / "clip_0.wav", "--output", output, *options) == 1
    assert message in only_error(capsys)
    assert not output.exists()


def test_scripts_sample_is_the_same_command(
    checkpoint: Path,
    recordings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = str(ROOT / "scripts" / "sample.py")
    arguments = [str(recordings), "--model", str(checkpoint), "--format", "jsonl"]
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert main(["caption", *arguments]) == 0
    assert capsys.readouterr().out == printed


def test_ctrl_c_is_one_line_and_leaves_nothing(
    checkpoint: Path,
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(self: DiffusionCaptioner, *arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionCaptioner, "__call__", interrupted)
    assert caption(checkpoint, recordings, "--output", tmp_path / "out.txt") == 130
    assert capsys.readouterr().err == "dac-diffusion: error: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_prepare_soundscapes_calls_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict] = []
    prepare = types.ModuleType("dac_diffusion.data.soundscapes.prepare")
    prepare.prepare_soundscapes = lambda **named: calls.append(named)
    monkeypatch.setitem(sys.modules, "dac_diffusion.data.soundscapes.prepare", prepare)
    assert main(["prepare", "soundscapes", "--output", "scenes", "--scenes", "7"]) == 0
    assert calls[0] == {
        "output": Path("scenes"),
        "clips": None,
        "scenes": 7,
        "split": "train",
        "seed": 0,
    }


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    assert __version__ in output
    assert "Apache-2.0" in output
    assert "cpu (" in output


def test_info_describes_a_checkpoint(checkpoint: Path) -> None:
    captioner = tiny_captioner()
    networks = ("encoder", "denoiser", "latent_space", "scorer")
    # A batch norm's running statistics are saved as well, but are few.
    count = sum(p.numel() for name in networks for p in captioner.components[name].parameters())
    described = info.describe_builtin(checkpoint)
    assert "CC BY-NC 3.0" in described["licence of the weights"]
    assert described["built-in checkpoint"].startswith(f"{count / 1e6:.1f} million parameters")
    assert info.describe_builtin(checkpoint / "nothing") == {
        "built-in checkpoint": "none in this installation"
    }


@pytest.mark.parametrize(
    "arguments", [["captoin"], [], ["caption"], ["caption", "a", "--seed", "x"]]
)
def test_usage_errors_are_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("dac-diffusion: error: ")
    assert error.count("\n") == 1
