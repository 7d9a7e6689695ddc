"""The trial of sampling settings: its choices are those of the captioner itself."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.metrics.cider import CiderD
from dac_diffusion.ranking.hybrid import RankingWeights
from dac_diffusion.ranking.settings import RankingSettings


def test_its_captions_are_those_of_the_captioner(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import sampling_settings
    from common import load_captioner, validation_scenes

    output = tmp_path / "trial.json"
    options = ["--model", str(checkpoint), "--clips", "none", "--limit", "2", "--num-steps", "2"]
    options += ["--candidates", "3", "4", "--num-candidates", "4", "--num-captions", "2"]
    options += ["--noise-scales", "0.7", "--likelihood-weights", "0", "0.5"]
    options += ["--agreement-weights", "2", "--redundancy-weights", "1"]
    monkeypatch.setattr(sys, "argv", ["sampling_settings", *options, "--output", str(output)])
    sampling_settings.main()
    found = json.loads(output.read_text(encoding="utf-8"))
    assert [(r["num_candidates"], r["likelihood"]) for r in found["table"]] == [
        (3, 0.0), (3, 0.5), (4, 0.0), (4, 0.5)
    ]  # fmt: skip
    assert {(r["agreement"], r["redundancy"]) for r in found["table"]} == {(2.0, 1.0)}
    assert "| candidates |" in capsys.readouterr().out

    arguments = Namespace(model=str(checkpoint), threads=1, dtype=found["settings"]["dtype"])
    captioner: Any = load_captioner(arguments)
    captioner.register_to_config(likelihood_weight=0.5, agreement_weight=2.0, redundancy_weight=1.0)
    scenes = [validation_scenes(None, 1).example(i) for i in range(2)]
    results = captioner(
        [(scene.waveform, scene.sampling_rate) for scene in scenes],
        num_captions=2, num_candidates=4, num_steps=2, initial_noise_scale=0.7,
    )  # fmt: skip
    scorer = CiderD([list(scene.captions) for scene in scenes])
    first = [scorer.score(result.captions[0].text, i) for i, result in enumerate(results)]
    assert found["table"][-1]["cider_d"] == pytest.approx(sum(first) / 2)
    drawn = [clip["texts"] for clip in found["raw"]["noise scale 0.7"]]
    assert drawn == [list(result.candidates) for result in results]


def test_the_best_score_leads() -> None:
    import sampling_settings

    references = [["a dog barks", "a dog is barking"], ["rain falls", "rain is falling"]]
    clips = [
        {"texts": ["a dog barks", "rain falls"], "cosines": [0.1, 0.3], "log_likelihoods": [0, -2]},
        {"texts": ["rain falls", "a dog barks"], "cosines": [0.1, 0.3], "log_likelihoods": [0, -2]},
    ]
    arguments = (clips, CiderD(references), 1, {1: 0.5, 2: 0.6})
    cosine = RankingSettings()
    both = RankingSettings(RankingWeights(likelihood=0.2))
    by_cosine = sampling_settings.row(1.0, 2, cosine, *arguments)
    by_both = sampling_settings.row(1.0, 2, both, *arguments)
    only_one = sampling_settings.row(1.0, 1, cosine, *arguments)
    assert by_cosine["cider_d"] == 0.0
    assert by_both["cider_d"] == only_one["cider_d"] > 0
    assert (by_both["seconds"], only_one["seconds"]) == (0.6, 0.5)
