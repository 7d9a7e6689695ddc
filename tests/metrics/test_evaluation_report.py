"""The report of an evaluation, as JSON and as a table."""

from __future__ import annotations

import json

import pytest

from dac_diffusion import __version__
from dac_diffusion.metrics.bootstrap import Interval
from dac_diffusion.metrics.evaluation import evaluate
from dac_diffusion.metrics.evaluation_report import (
    SCHEMA,
    as_json,
    as_table,
    comparison_table,
    empty_captions,
)
from tests.metrics.test_evaluation import CLIPS, Clip


def test_json_holds_settings_corpus_human_and_clips() -> None:
    evaluation = evaluate(CLIPS)
    report = json.loads(json.dumps(as_json(evaluation), allow_nan=False))
    assert report["schema"] == SCHEMA
    assert report["package_version"] == __version__
    settings = report["settings"]
    assert settings["clips"] == 3
    assert settings["captions_per_clip"] == 2
    assert settings["clips_with_fewer_captions"] == 1
    assert (settings["references"], settings["fewest_references"]) == (7, 2)
    assert settings["mtld_threshold"] == 0.72
    assert settings["shuffle_seed"] == 0
    assert report["corpus"]["quality"] == evaluation.quality.corpus
    assert report["corpus"]["diversity"]["vocabulary"] == evaluation.diversity.vocabulary
    assert report["corpus"]["diversity"]["mtld"]["in_order"] == evaluation.diversity.mtld.in_order
    assert evaluation.human_quality is not None
    assert report["human"]["quality"] == evaluation.human_quality.corpus
    assert [clip["file_name"] for clip in report["clips"]] == ["dog.wav", "rain.wav", "bird.wav"]
    last = report["clips"][2]
    assert last["captions"] == ["birds sing in a tree"]
    assert last["quality"]["cider_d"] == evaluation.quality.clips["cider_d"][2]
    assert last["sets"]["mbleu_4"] is None
    assert last["references"] == 2


def test_json_of_one_caption_and_one_reference() -> None:
    evaluation = evaluate([Clip("a", "a", ["rain"], ["rain"]), Clip("b", "b", [""], ["a dog"])])
    report = as_json(evaluation)
    assert report["corpus"]["sets"] is report["human"]["sets"] is None
    assert report["human"]["quality"] is None
    assert report["clips"][0]["sets"] is report["clips"][0]["human_quality"] is None
    assert report["settings"]["empty_captions"] == empty_captions(evaluation) == 1
    assert report["notes"] == evaluation.notes != []


def test_table() -> None:
    evaluation = evaluate(CLIPS)
    lines = as_table(evaluation).splitlines()
    assert lines[0] == (
        "3 clips, 1 to 2 captions and 2 to 3 references each; "
        "0 captions without words (they score 0)"
    )
    rows = {line[:34].strip(): line[34:].split() for line in lines if line}
    assert evaluation.human_quality is not None
    for label, name in (("BLEU-4", "bleu_4"), ("CIDEr-D", "cider_d")):
        values = evaluation.quality.corpus[name], evaluation.human_quality.corpus[name]
        assert [float(cell) for cell in rows[label]] == pytest.approx(values, abs=5e-5)
    assert rows["best-of-K CIDEr-D"][1] == "-"
    assert rows["vocabulary"] == ["9", "9"]
    assert "copied from training" not in rows  # no training captions were given
    assert max(map(len, lines[:-1])) <= 100


def test_notes_end_the_table() -> None:
    assert as_table(evaluate(CLIPS[:1])).splitlines()[-1].startswith("note: CIDEr-D is null")


def test_comparison_table() -> None:
    table = comparison_table(
        {
            "cider_d": Interval(0.5, 0.25, 0.75, 0.95, 1000, 60),
            "spice": Interval(-0.1, -0.2, 0.0, 0.95, 1000, 60),
        }
    ).splitlines()
    assert "95% interval (1000 resamples of 60 clips; * leaves out 0)" in table[0]
    assert table[1].split() == ["CIDEr-D", "+0.5000", "+0.2500", "to", "+0.7500", "*"]
    assert table[2].split() == ["spice", "-0.1000", "-0.2000", "to", "+0.0000"]
