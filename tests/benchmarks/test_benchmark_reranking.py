"""The trial of encoder and decoder scores: it chooses what the captioner itself would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector
from tests.helpers import tiny_autoregressive

SCENES = 3


def run(monkeypatch: pytest.MonkeyPatch, output: Path, model: Path, *options: str) -> Any:
    import reranking

    given = ["--model", str(model), "--clips", "none", "--limit", str(SCENES)]
    given += ["--dtype", "float32", "--output", str(output), *options]
    monkeypatch.setattr("sys.argv", ["reranking.py", *given])
    reranking.main()
    return json.loads(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    captioner = tiny_autoregressive()
    captioner.register_to_config(temperature=0.6, top_p=0.95, no_repeat_ngram=3)
    captioner.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def found(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        output = tmp_path_factory.mktemp("output") / "reranking.json"
        return run(patch, output, model, "--encoder-weights", "0", "0.6", "1")


def chosen(found: Any, **head: Any) -> list[str]:
    (row,) = [r for r in found["raw"]["chosen"] if all(r.get(k) == v for k, v in head.items())]
    return row["captions"]


def test_the_table_has_every_way_to_choose(found: Any) -> None:
    ways = [(r["chosen_by"], r["filter"]) for r in found["table"]]
    of_filter = [*["encoder and decoder"] * 6, "agreement"]
    assert ways == [
        ("first as drawn", "none"), ("mean of all", "none"),
        *((name, "none") for name in of_filter), *((name, "errors") for name in of_filter),
    ]  # fmt: skip
    weights = [(r["normalisation"], r["encoder"], r["decoder"]) for r in found["table"][2:8]]
    assert weights == [
        (name, *both) for name in ("none", "z_score") for both in ((0, 1), (0.6, 0.4), (1, 0))
    ]
    for row in found["table"]:
        # What chooses is not measured.
        assert (row["errors"] is None) == (row["faults"] is None) == (row["filter"] == "errors")


def test_it_chooses_by_the_weighted_sum(found: Any) -> None:
    scenes = found["raw"]["scenes"]

    def best(weight: float, normalised: bool) -> list[str]:
        captions = []
        for scene in scenes:
            scores = np.zeros(len(scene["texts"]))
            for share, name in ((weight, "cosines"), (1 - weight, "log_likelihoods")):
                values = np.array(scene[name])
                if normalised:
                    values = (values - values.mean()) / values.std()
                scores += share * values
            captions.append(scene["texts"][int(scores.argmax())])
        return captions

    for weight in (0.0, 0.6, 1.0):
        for name, normalised in (("none", False), ("z_score", True)):
            captions = chosen(found, filter="none", normalisation=name, encoder=weight)
            assert captions == best(weight, normalised)
    either = [chosen(found, filter="none", normalisation="none", encoder=w) for w in (0.0, 1.0)]
    assert either[0] != either[1]  # else the weights would not have been tried at all
    by_agreement = [s["texts"][int(np.argmax(s["agreements"]))] for s in scenes]
    assert chosen(found, filter="none", chosen_by="agreement") == by_agreement
    assert chosen(found, chosen_by="first as drawn") == [s["texts"][0] for s in scenes]


def test_with_the_filter_it_chooses_what_the_captioner_returns(found: Any, model: Path) -> None:
    from common import validation_scenes

    from dac_diffusion.systems import load_captioner

    captioner: Any = load_captioner(model, "float32")
    examples = [validation_scenes(None, 1).example(i) for i in range(SCENES)]
    for weight, name in ((0.6, "none"), (0.6, "z_score"), (0.0, "none")):
        results = captioner(
            [(e.waveform, e.sampling_rate) for e in examples],
            num_captions=1,
            audio_text_weight=weight,
            likelihood_weight=1 - weight,
            score_normalisation=name,
            error_threshold=0.9,
            error_detector=RuleBasedErrorDetector(),
        )
        drawn = [list(result.candidates) for result in results]
        assert drawn == [scene["texts"] for scene in found["raw"]["scenes"]]
        captions = [result.captions[0].text for result in results]
        assert captions == chosen(found, filter="errors", normalisation=name, encoder=weight)


def test_the_numbers_are_those_of_the_chosen_captions(found: Any) -> None:
    scenes = found["raw"]["scenes"]
    references = [scene["references"] for scene in scenes]
    first = found["table"][0]["cider_d"]
    for row, kept in zip(found["table"][2:], found["raw"]["chosen"][1:], strict=True):
        assert row["cider_d"] == pytest.approx(cider_d(kept["captions"], references)[0])
        assert row["gain"] == pytest.approx(row["cider_d"] - first)
    every = [
        cider_d([scene["texts"][k] for scene in scenes], references)[0]
        for k in range(len(scenes[0]["texts"]))
    ]
    assert found["table"][1]["cider_d"] == pytest.approx(sum(every) / len(every))


def test_a_diffusion_captioner_has_no_likelihood(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--num-steps", "2", "--num-candidates", "4", "--filters", "none"]
    found = run(monkeypatch, tmp_path / "diffusion.json", checkpoint, *options)
    names = [row["chosen_by"] for row in found["table"]]
    assert names == ["first as drawn", "mean of all", "encoder", "agreement"]
    scenes = found["raw"]["scenes"]
    assert all(s["log_likelihoods"] is None and len(s["texts"]) == 4 for s in scenes)
    captions = [scene["texts"][int(np.argmax(scene["cosines"]))] for scene in scenes]
    assert chosen(found, chosen_by="encoder") == captions
