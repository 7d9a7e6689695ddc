"""scripts/llm_judge.py from the files to the result, against a server on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from tests.metrics.stub_endpoint import KEY, Asked, Reply, completion, grades, serving

SCRIPT = Path(__file__).parents[2] / "scripts" / "llm_judge.py"
CLIPS = 8


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("llm_judge_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("DAC_DIFFUSION_JUDGE_URL", raising=False)


def arguments(folder: Path, *more: str) -> list[str]:
    predictions, references = folder / "predictions.csv", folder / "references.csv"
    rows = [f"clip_{n}.wav,sound number {n}" for n in range(CLIPS)]
    predictions.write_text("\n".join(["file_name,caption_predicted", *rows]))
    rows = [f"clip_{n}.wav,a sound,it is number {n}" for n in range(CLIPS)]
    references.write_text("\n".join(["file_name,caption_1,caption_2", *rows]))
    files = [str(predictions), str(references), "--output", str(folder / "judged.json")]
    return [*files, "--model", "a-model", *more]


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, given: list[str]) -> int:
    monkeypatch.setattr(sys, "argv", ["llm_judge.py", *given])
    return int(script.main())


def test_from_files_to_a_result(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown_before: list[str] = []

    def respond(asked: Asked, count: int) -> Reply:
        if count == 0:
            shown_before.append(capsys.readouterr().out)
        return grades(asked.number)

    prices = ["--price-per-million-input", "1000", "--price-per-million-output", "0"]
    with serving(respond) as stub:
        monkeypatch.setenv("DAC_DIFFUSION_JUDGE_URL", stub.url)
        given = arguments(tmp_path, "--yes", "--concurrency", "1", *prices)
        assert run(script, monkeypatch, given) == 0
        assert "8 requests, about" in shown_before[0]
        assert "cost about" in shown_before[0]
        assert f"8 captions, a-model at {stub.url}: " in shown_before[0]
        result = json.loads((tmp_path / "judged.json").read_text())
        assert result["mean"]["score"] == 3.5
        assert result["without_references"] == result["without_prediction"] == []
        assert "mean score 3.500 of 8 captions" in capsys.readouterr().out
        # Everything is in the cache now: no request, hence nothing to confirm.
        given = arguments(tmp_path)
        assert run(script, monkeypatch, given) == 0
        assert len(stub.asked) == CLIPS
    printed = capsys.readouterr()
    assert "0 requests" in printed.out
    written = [path.read_text() for path in tmp_path.iterdir()]
    assert not any(KEY in text for text in [*written, printed.out, printed.err, *shown_before])
    assert (tmp_path / "judged.cache.jsonl").exists()


def test_a_caption_without_a_verdict_is_named(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(lambda asked, _: grades(4) if asked.number else completion("hm")) as stub:
        given = arguments(tmp_path, "--yes", "--url", stub.url)
        assert run(script, monkeypatch, given) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert errors == [
        "llm_judge: error: clip_0.wav: not judged: 3 answers without the four grades: 'hm'"
    ]
    result = json.loads((tmp_path / "judged.json").read_text())
    assert (result["failed"], result["mean"]["score"]) == (1, 4)


def test_nothing_is_sent_without_consent(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(lambda asked, _: grades(4)) as stub:
        given = arguments(tmp_path, "--url", stub.url)
        assert run(script, monkeypatch, given) == 1
        printed = capsys.readouterr()
        assert "nothing was sent: give --yes to agree to the cost" in printed.err
        assert "8 requests" in printed.out
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda question: "")
        assert run(script, monkeypatch, given) == 1
        assert "nothing was sent: not confirmed" in capsys.readouterr().err
        assert stub.asked == []
        assert not (tmp_path / "judged.json").exists()
        monkeypatch.setattr("builtins.input", lambda question: "y")
        assert run(script, monkeypatch, given) == 0
        assert len(stub.asked) == CLIPS


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "no endpoint: give --url or set DAC_DIFFUSION_JUDGE_URL"),
        (["--url", "somewhere"], "should look like https://api.example.com/v1"),
        (["--url", "http://example.com/v1"], "would send $OPENAI_API_KEY readable"),
        (["--url", "http://127.0.0.1:9/v1", "--concurrency", "0"], "give at least 1"),
    ],
)
def test_wrong_settings_are_errors_of_one_line(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    assert run(script, monkeypatch, arguments(tmp_path, "--yes", *more)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("llm_judge: error: ")
    assert message in error
    assert KEY not in error
    assert not (tmp_path / "judged.json").exists()


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    def slow_after_three(asked: Asked, count: int) -> Reply:
        reply = grades(asked.number)
        reply.seconds = 0.0 if count < 3 or count > 3 else 60.0
        return reply

    with serving(slow_after_three) as stub:
        given = arguments(tmp_path, "--yes", "--concurrency", "1", "--url", stub.url)
        command = [sys.executable, str(SCRIPT), *given]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=SCRIPT.parents[1], env=os.environ, **quiet) as process:
            deadline = time.monotonic() + 180
            while len(stub.asked) < 4 and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert len(stub.asked) == 4
        assert not (tmp_path / "judged.json").exists()
        done = subprocess.run(
            command, cwd=SCRIPT.parents[1], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "5 requests" in done.stdout
        asked = sorted(a.number for a in stub.asked)
    assert asked == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert json.loads((tmp_path / "judged.json").read_text())["mean"]["score"] == 3.5
