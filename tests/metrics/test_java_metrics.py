"""METEOR by its real program where there is Java; SPICE, whose models cannot be had here, by a
program that stands in for it and speaks its formats."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dac_diffusion.errors import DacError, DataError, MissingExtraError
from dac_diffusion.metrics import java_metrics
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.metrics.java_metrics import Meteor, Spice, Spider
from dac_diffusion.metrics.java_programs import Dialogue, java_version, run_java

NEEDS_JAVA = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pycocoevalcap") is None,
    reason="needs Java and pycocoevalcap",
)
CANDIDATES = ["A dog barks, twice!", "rain-drops fall on a café's roof | loud", "...", "a dog"]
REFERENCES = [
    ["a dog is barking", "two barks of a dog"],
    ["Rain falls on a roof.", "heavy rain\u2028is falling"],
    ["birds sing"],
    ["a dog"],
]
FILES = (
    java_metrics.TOKENIZER_JAR,
    java_metrics.METEOR_JAR,
    java_metrics.METEOR_PARAPHRASES,
    java_metrics.SPICE_JAR,
    *java_metrics.SPICE_MODELS,
)
# Stands in for java: lower-cases for the tokenizer; for SPICE gives the share of the candidate's
# words that occur in the references, in SPICE's output format; and notes what it was asked.
STAND_IN = """\
import json, pathlib, sys
here = pathlib.Path(__file__).parent
given = sys.argv[1:]
if given == ["-version"]:
    print('openjdk version "VERSION" 2019-01-15', file=sys.stderr)
elif "-preserveLines" in given:
    sys.stdout.write(sys.stdin.read().lower().replace(".", " ."))
elif "-stdio" in given:
    print("3.0 1.0", flush=True) if sys.stdin.readline().startswith("SCORE") else None
    sys.exit("java.lang.OutOfMemoryError: heap\\n  at edu.cmu")
else:
    with (here / "asked.txt").open("a") as file:
        file.write(" ".join(given) + "\\n")
    clips = json.loads(pathlib.Path(given[given.index("-out") - 1]).read_text())
    rows = []
    for clip in reversed(clips):
        words = clip["test"].split()
        known = set(" ".join(clip["refs"]).split())
        f = sum(word in known for word in words) / max(1, len(words))
        rows.append({"image_id": clip["image_id"], "scores": {"All": {"f": f, "pr": 1, "re": 1}}})
    pathlib.Path(given[given.index("-out") + 1]).write_text(json.dumps(rows))
"""


def stand_in(folder: Path, program: str = STAND_IN, version: str = "11.0.2") -> tuple[Path, str]:
    """A folder with empty files under the real names, and a program in Java's place."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    java = folder / "java"
    java.write_text(f"#!{sys.executable}\n" + program.replace("VERSION", version))
    java.chmod(0o755)
    return folder, str(java)


@NEEDS_JAVA
def test_meteor_equals_pycocoevalcap() -> None:
    meteor = Meteor()
    assert meteor.missing() == []
    corpus, scores = meteor.corpus_and_scores(CANDIDATES, REFERENCES)
    # From pycocoevalcap 1.2: its PTBTokenizer, then its Meteor.
    assert scores == pytest.approx([0.3683391304212167, 0.35502473877384083, 0.0, 1.0], abs=1e-9)
    assert corpus == pytest.approx(0.3275019812986977, abs=1e-9)


def test_a_meteor_that_dies_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    meteor = Meteor(*stand_in(tmp_path))
    with pytest.raises(DacError) as caught:
        meteor.score(CANDIDATES, REFERENCES)
    assert "METEOR: its Java program failed (java.lang.OutOfMemoryError: heap)" in str(caught.value)


def test_spice_passes_captions_and_reads_scores(tmp_path: Path) -> None:
    spice = Spice(*stand_in(tmp_path))
    assert spice.missing() == []
    assert spice.score(CANDIDATES, REFERENCES) == [0.5, 3 / 7, 0.0, 1.0]
    (asked,) = (tmp_path / "asked.txt").read_text().splitlines()
    assert asked.startswith("-Xmx8G -Duser.language=en")
    assert f"-jar {tmp_path / java_metrics.SPICE_JAR} " in asked
    assert asked.endswith("-silent")


def test_spider_is_the_mean_of_both_and_spice_runs_once(tmp_path: Path) -> None:
    spice = Spice(*stand_in(tmp_path))
    spider = Spider(spice)
    assert spider.missing() == []
    graphs, words = spice.score(CANDIDATES, REFERENCES), cider_d(CANDIDATES, REFERENCES)[1]
    assert spider.score(CANDIDATES, REFERENCES) == [
        (first + second) / 2 for first, second in zip(graphs, words, strict=True)
    ]
    assert len((tmp_path / "asked.txt").read_text().splitlines()) == 1
    spider.score(CANDIDATES[:2], REFERENCES[:2])
    assert len((tmp_path / "asked.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("version", "known", "runs"),
    [("1.8.0_392", 8, True), ("14", 14, True), ("17.0.15", 17, False), ("1.7.0", 7, False)],
)
def test_spice_needs_a_java_with_its_javascript_engine(
    tmp_path: Path, version: str, known: int, runs: bool
) -> None:
    folder, java = stand_in(tmp_path, version=version)
    assert java_version(java) == known
    lacking = Spice(folder, java).missing()
    assert [f"Java 8 to 14 and not {known}" in entry for entry in lacking] == [True] * (not runs)
    assert Meteor(folder, java).missing() == []
    if not runs:
        with pytest.raises(MissingExtraError, match="Java 8 to 14 and not"):
            Spider(Spice(folder, java)).score(CANDIDATES, REFERENCES)


def test_a_java_that_does_not_run_is_none(tmp_path: Path) -> None:
    _, java = stand_in(tmp_path, "import sys\nsys.exit('install a runtime')\n")
    assert java_version(java) is None
    assert "apt-get install default-jre-headless" in Meteor(tmp_path, java).missing()[0]


def test_without_pycocoevalcap_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_metrics, "find_spec", lambda name: None)
    package = 'the package pycocoevalcap (pip install "dac-diffusion[aac]")'
    assert package in Meteor().missing()
    assert package in Spice().missing()
    assert "stanford-corenlp-3.6.0-models.jar" in " ".join(Spice().missing())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("rows.append", "SPICE wrote no scores that can be read"),
        ("import json, pathlib, sys", "SPICE: its Java program failed"),
        ('.lower().replace(".", " .")', "the PTB tokenizer gave 10 lines for 10 captions"),
    ],
)
def test_failures_are_errors_of_one_line(tmp_path: Path, wrong: str, message: str) -> None:
    instead = {
        "rows.append": "0 and rows.append",
        "import json, pathlib, sys": "import json, pathlib, sys\nif '-silent' in sys.argv: 1 / 0",
    }.get(wrong, ".lower() + 'one line more\\n'")
    message = message.replace("10 lines for 10", "11 lines for 10")
    spice = Spice(*stand_in(tmp_path, STAND_IN.replace(wrong, instead)))
    with pytest.raises(DacError) as caught:
        spice.score(CANDIDATES, REFERENCES)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_must_fit_together(tmp_path: Path) -> None:
    folder, java = stand_in(tmp_path)
    for metric in (Meteor(folder, java), Spice(folder, java), Spider(Spice(folder, java))):
        with pytest.raises(DataError, match="one caption per clip; got 1 captions for 4 clips"):
            metric.score(CANDIDATES[:1], REFERENCES)


def test_a_program_without_a_word_of_complaint() -> None:
    with pytest.raises(DacError, match=r"it: its Java program failed \(no message\)"):
        run_java("it", [sys.executable, "-c", "raise SystemExit(3)"])
    with (
        Dialogue("it", [sys.executable, "-c", ""]) as silent,
        pytest.raises(DacError, match="no message"),
    ):
        silent.ask("x" * 100_000)


def test_the_request_of_spice_is_json(tmp_path: Path) -> None:
    keeping = STAND_IN.replace("rows = []", "rows = []; (here / 'kept').write_text(str(clips))")
    Spice(*stand_in(tmp_path, keeping)).score(["Über den Dächern."], [["Ein Hund", "bellt"]])
    kept = (tmp_path / "kept").read_text().replace("'", '"')
    assert json.loads(kept) == [
        {"image_id": 0, "test": "über den dächern", "refs": ["ein hund", "bellt"]}
    ]
