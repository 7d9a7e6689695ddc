"""The trial of decoding settings: its choices are those of the captioner itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.metrics.cider import CiderD
from tests.helpers import tiny_autoregressive


def test_its_captions_are_those_of_the_captioner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import decoding_settings
    from common import validation_scenes

    captioner = tiny_autoregressive()
    captioner.save_pretrained(tmp_path / "model")
    output = tmp_path / "trial.json"
    options = ["--model", str(tmp_path / "model"), "--clips", "none", "--limit", "2"]
    options += ["--dtype", "float32", "--num-candidates", "4", "--num-captions", "2"]
    options += ["--candidates", "3", "4", "--likelihood-weights", "0", "0.5"]
    options += ["--agreement-weights", "2", "--redundancy-weights", "1"]
    options += ["--temperatures", "0.7", "--top-p", "0.9", "--beams", "3"]
    options += ["--length-penalties", "1.0", "--diversity-penalties", "0.5"]
    monkeypatch.setattr(sys, "argv", ["decoding_settings", *options, "--output", str(output)])
    decoding_settings.main()
    found = json.loads(output.read_text(encoding="utf-8"))
    assert "| decoding |" in capsys.readouterr().out
    assert [(r["decoding"].split(",")[0], r["captions_per_clip"]) for r in found["table"]] == [
        ("greedy", 1), *[("nucleus", 2)] * 5, ("beam 3", 1), ("beam 3", 2), ("diverse beam 2", 2),
    ]  # fmt: skip

    scenes = [validation_scenes(None, 1).example(i) for i in range(2)]
    sounds = [(scene.waveform, scene.sampling_rate) for scene in scenes]
    scorer = CiderD([list(scene.captions) for scene in scenes])

    def expected(**call: Any) -> float:
        results: Any = captioner(sounds, num_captions=2, **call)
        first = [scorer.score(result.captions[0].text, i) for i, result in enumerate(results)]
        return sum(first) / 2

    captioner.register_to_config(likelihood_weight=0.5, agreement_weight=2.0, redundancy_weight=1.0)
    sampled = expected(num_candidates=4, temperature=0.7, top_p=0.9)
    assert found["table"][5]["cider_d"] == pytest.approx(sampled)
    results: Any = captioner(sounds, num_captions=2, decoding="beam", num_beams=3)
    drawn = [clip["texts"] for clip in found["raw"]["beam 3, length penalty 1.0, 2 of them"]]
    assert drawn == [list(result.candidates) for result in results]
