"""`dac-diffusion correct`, run in this process, against an endpoint on this machine."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from dac_diffusion.cli import main
from tests.captioning.tiny_chat_model import save_chat_model
from tests.helpers import caption_quickly, only_error, write_recordings
from tests.metrics.fabricated_models import save_error_detector
from tests.metrics.stub_endpoint import KEY, Asked, Reply, completion, serving

FAULTY, FIXED = "a dog while birds sing", "a dog barks while birds sing"
GOOD = "rain falls, on a roof"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    rows = [
        {
            "file_name": "a.wav",
            "duration_seconds": 2.0,
            "captions": [{"text": GOOD, "score": 0.5}, {"text": FAULTY, "score": 0.25}],
        },
        {"file_name": "b.wav", "error": "b.wav: is damaged"},
        {"file_name": "c.wav", "captions": []},
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "captions.csv"
    path.write_text(f'file_name,caption_predicted\na.wav,"{GOOD}"\nb.wav,{FAULTY}\n')
    return path


def fixing(asked: Asked, _: int) -> Reply:
    return completion(asked.user.replace("dog", "dog barks"))


def correct(source: Path, url: str, *options: str | Path) -> int:
    output = source.with_name("corrected")
    given = ["--output", output, "--endpoint", url, "--model", "a-model", *options]
    return main(["correct", str(source), *map(str, given)])


def test_jsonl(jsonl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(fixing) as stub:
        assert correct(jsonl, stub.url) == 0
    before = [json.loads(line) for line in jsonl.read_text().splitlines()]
    after = [json.loads(line) for line in (jsonl.parent / "corrected").read_text().splitlines()]
    before[0]["captions"][1] = {"text": FIXED, "score": 0.25, "original": FAULTY}
    assert after == before
    output = capsys.readouterr()
    assert output.out == "2 captions, 1 flagged, 1 rewritten, 0 kept\n"
    assert output.err == ""
    (asked,) = stub.asked
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.body["max_tokens"] == 64
    assert (jsonl.parent / "corrected.cache.jsonl").exists()


def test_csv(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(fixing) as stub:
        assert correct(table, stub.url, "--quiet") == 0
    with (table.parent / "corrected").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["file_name", "caption_predicted"], ["a.wav", GOOD], ["b.wav", FIXED]]
    assert capsys.readouterr().out == "2 captions, 1 flagged, 1 rewritten, 0 kept\n"


def test_what_caption_writes_can_be_corrected(checkpoint: Path, tmp_path: Path) -> None:
    write_recordings(tmp_path, 2, seconds=0.3)
    for form in ("jsonl", "csv"):
        source = tmp_path / f"captions.{form}"
        options = ["--output", source, "--format", form]  # the last --format counts
        assert caption_quickly(checkpoint, tmp_path, *options) == 0
        with serving(lambda asked, _: completion(f"{asked.user} barking")) as stub:
            assert correct(source, stub.url) == 0
        corrected = (tmp_path / "corrected").read_text().splitlines()
        assert len(corrected) == len(source.read_text().splitlines())


def test_a_second_run_asks_nothing(jsonl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = jsonl.with_name("answers")
    with serving(fixing) as stub:
        assert correct(jsonl, stub.url, "--cache", cache) == 0
        first = (jsonl.parent / "corrected").read_text()
        assert correct(jsonl, stub.url, "--cache", cache) == 0
        assert (jsonl.parent / "corrected").read_text() == first
    assert len(stub.asked) == 1
    assert cache.exists()
    assert not (jsonl.parent / "corrected.cache.jsonl").exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[1]


def test_a_file_may_be_corrected_in_place(table: Path) -> None:
    with serving(fixing) as stub:
        assert correct(table, stub.url, "--output", table) == 0
    assert FIXED in table.read_text()


def test_fallbacks_are_said_and_no_error(jsonl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda asked, _: completion("")) as stub:
        assert correct(jsonl, stub.url) == 0
    line = "2 captions, 1 flagged, 0 rewritten, 1 kept (1 because the answer was empty)"
    output = capsys.readouterr()
    assert output.out == f"{line}\n"
    assert output.err == ""
    before = [json.loads(row) for row in jsonl.read_text().splitlines()]
    assert [
        json.loads(row) for row in (jsonl.parent / "corrected").read_text().splitlines()
    ] == before


def test_half_a_character_does_not_keep_the_output_from_being_written(
    jsonl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda asked, _: completion(f"{FIXED} \ud83d")) as stub:
        for _ in range(2):  # the second time out of the cache
            assert correct(jsonl, stub.url) == 0
            assert "1 kept (1 because the answer had characters that" in capsys.readouterr().out
    assert len(stub.asked) == 1
    assert (jsonl.parent / "corrected").read_text().count(FAULTY) == 1


def test_an_endpoint_that_refuses_the_key_loses_nothing(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda asked, _: Reply(KEY.encode(), 401)) as stub:
        assert correct(table, stub.url) == 1
    output = capsys.readouterr()
    assert "1 kept (1 because" in output.out
    assert "does not accept $OPENAI_API_KEY (HTTP 401)" in output.out
    assert "1 captions stayed as they were, because the model gave no answer" in output.err
    assert output.err.endswith("; the same command asks for these again\n")
    assert KEY not in output.out + output.err
    assert (table.parent / "corrected").read_text() == table.read_text()


def test_bad_rows_are_named_and_the_others_go_on(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text(table.read_text() + "c.wav\n")
    with serving(fixing) as stub:
        assert correct(table, stub.url) == 1
    assert FIXED in (table.parent / "corrected").read_text()
    error = only_error(capsys)
    assert f"{table}, line 4: 1 columns where the first line has 2; this row was left out" in error


def test_where_all_rows_are_bad_nothing_is_written(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text("file_name,caption_predicted\na.wav\nb.wav\n")
    with serving(fixing) as stub:
        assert correct(table, stub.url) == 1
    error = only_error(capsys)
    assert "line 2: " in error
    assert "line 3: " in error
    assert error.endswith(f"; {table.parent / 'corrected'} was not written\n")
    assert sorted(path.name for path in table.parent.iterdir()) == ["captions.csv"]


def test_of_many_bad_rows_the_first_are_shown(
    jsonl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    good = json.dumps(rows[0])
    printed = json.dumps(rows, indent=1)
    jsonl.write_text(printed)
    with serving(fixing) as stub:
        assert correct(jsonl, stub.url) == 1
        error = only_error(capsys)
        assert error.count(": is no JSON (") == 5
        more = len(printed.splitlines()) - 5
        end = f"; and {more} more such lines; {jsonl.parent / 'corrected'} was not written\n"
        assert error.endswith(end)
        jsonl.write_text(f"{good}\n" + "broken\n" * 7)
        assert correct(jsonl, stub.url) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in lines[:5]] == [
        f"{jsonl}, line {number}" for number in range(2, 7)
    ]
    assert lines[5:] == ["dac-diffusion: error: and 2 more such lines"]
    assert FIXED in (jsonl.parent / "corrected").read_text()


def test_the_published_detector(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_error_detector(tmp_path / "checker.ckpt", tmp_path / "bert", bias=30.0)
    detector = ["--detector", tmp_path / "checker.ckpt", "--detector-encoder", tmp_path / "bert"]
    with serving(fixing) as stub:
        assert correct(table, stub.url, *detector, "--device", "cpu") == 0
        # Even the good caption is flagged, and comes back as it was.
        assert len(stub.asked) == 2
    assert capsys.readouterr().out == (
        "2 captions, 2 flagged, 1 rewritten, 1 kept (1 because the model changed nothing)\n"
    )


def test_a_model_on_this_machine(
    tmp_path: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_chat_model(tmp_path / "llama")
    output = tmp_path / "corrected.csv"
    given = [str(table), "--output", str(output), "--llm", str(tmp_path / "llama")]
    assert main(["correct", *given, "--device", "cpu"]) == 0
    assert len(output.read_text().splitlines()) == 3
    assert capsys.readouterr().out.startswith("2 captions, 1 flagged, ")
    (row,) = (tmp_path / "corrected.cache.jsonl").read_text().splitlines()
    assert json.loads(row)["caption"] == FAULTY


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "give either --llm FOLDER or --endpoint URL with --model NAME"),
        (["--llm", "a", "--endpoint", "b"], "give either --llm FOLDER or --endpoint URL"),
        (["--endpoint", "http://127.0.0.1:1"], "--endpoint: needs --model NAME"),
        (["--llm", "a", "--model", "b"], "--model: goes with --endpoint; --llm names the model"),
        (["--llm", "no-such"], "no-such: there is no such checkpoint folder"),
        (["--endpoint", "ftp://a", "--model", "b"], "the endpoint's URL should look like https"),
        (["--llm", "a", "--threshold", "2"], "threshold 2.0: must be from 0 to 1"),
        (["--llm", "a", "--threshold", "x"], "argument --threshold: invalid float value: 'x'"),
        (["--llm", "a", "--concurrency", "0"], "concurrency 0: give at least 1"),
        (["--llm", "a", "--device", "toaster"], "--device toaster: unknown"),
        (["--llm", "a", "--detector", "c.ckpt"], "--detector c.ckpt: a checkpoint needs --detec"),
        (
            ["--llm", "a", "--detector-encoder", "b"],
            "--detector-encoder: rules goes without; leave",
        ),
        (
            ["--llm", "a", "--detector", "c.ckpt", "--detector-encoder", "b"],
            "the error detector needs c.ckpt (release V0.1",
        ),
        (["--llm", "a", "--output", "no/such/folder"], "no/such does not exist; create it first"),
        (["--llm", "a", "--output", "."], ".: is a folder; give the name of a file"),
        (["--llm", "a", "--output", "/"], "/: is a folder; give the name of a file"),
    ],
)
def test_wrong_options(
    table: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    output = table.with_name("corrected")
    try:
        code = main(["correct", str(table), "--output", str(output), *options])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 1
    assert problem in only_error(capsys)
    assert not output.exists()


def test_a_cache_that_is_something_else(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = table.read_text()
    assert correct(table, "http://127.0.0.1:1", "--cache", table) == 1
    assert "is no line of an answer cache; give another file as cache" in only_error(capsys)
    assert table.read_text() == before
    assert not (table.parent / "corrected").exists()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["correct", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "INPUT",
        "--output",
        "--detector rules|builtin|FILE",
        "--endpoint",
        "--threshold",
    ):
        assert option in text
