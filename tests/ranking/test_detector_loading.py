"""Detectors by name: which one it is, that it is loaded once, and what is said of wrong names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.ranking.detectors import (
    BUILTIN_TRIGRAMS,
    RULES,
    TRIGRAMS_FILE,
    check_detector,
    load_detector,
)
from dac_diffusion.ranking.error_detection import FluencyErrorDetector
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector
from dac_diffusion.ranking.trigram_errors import TrigramErrorDetector, count_trigrams
from tests.metrics.fabricated_models import save_error_detector

CAPTIONS = ["a dog barks", "rain falls on the roof", "two dogs and"]


def test_the_rules() -> None:
    assert isinstance(load_detector(RULES, None), RuleBasedErrorDetector)


def test_trigrams_are_read_once_but_anew_when_their_file_changes(tmp_path: Path) -> None:
    builtin = load_detector(BUILTIN_TRIGRAMS, None)
    assert isinstance(builtin, TrigramErrorDetector)
    assert builtin.probabilities(CAPTIONS) == load_detector(str(TRIGRAMS_FILE), None).probabilities(
        CAPTIONS
    )
    path = tmp_path / "own.json"
    TrigramErrorDetector(count_trigrams([["two", "dogs", "and"]]), -1.0, 0.0).save(path)
    first = load_detector(str(path), None)
    assert load_detector(str(path), None) is first
    TrigramErrorDetector(count_trigrams([["rain"]]), -1.0, 0.0).save(path)
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    assert load_detector(str(path), None).probabilities(["rain"]) != first.probabilities(["rain"])


def test_the_published_one(tmp_path: Path) -> None:
    checkpoint, bert = tmp_path / "checker.ckpt", tmp_path / "bert"
    save_error_detector(checkpoint, bert)
    expected = FluencyErrorDetector(checkpoint, bert).probabilities(CAPTIONS)
    assert load_detector(str(checkpoint), str(bert)).probabilities(CAPTIONS) == expected
    assert len(set(expected)) == 3


def test_it_is_loaded_once_but_anew_when_its_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, bert = tmp_path / "checker.ckpt", tmp_path / "bert"
    save_error_detector(checkpoint, bert)
    first = load_detector(str(checkpoint), bert)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded again"))
        assert load_detector(str(checkpoint), bert) is first
    save_error_detector(checkpoint, bert, bias=30.0)
    later = checkpoint.stat().st_mtime_ns + 10**9
    os.utime(checkpoint, ns=(later, later))
    assert min(load_detector(str(checkpoint), bert).probabilities(CAPTIONS)) > 0.99
    assert min(first.probabilities(CAPTIONS)) < 0.99


def test_files_that_are_missing_or_wrong(tmp_path: Path) -> None:
    checkpoint, bert = tmp_path / "checker.ckpt", tmp_path / "bert"
    with pytest.raises(CheckpointError, match=r"the error detector needs .*checker\.ckpt \(relea"):
        load_detector(str(checkpoint), bert)
    save_error_detector(checkpoint, bert)
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"checker\.ckpt: is no error detector that fits"):
        load_detector(str(checkpoint), bert)


@pytest.mark.parametrize(
    ("name", "encoder", "message"),
    [
        (RULES, "bert", "error_encoder: rules goes without; leave it out"),
        ("x.json", "bert", "error_encoder: x.json goes without; leave it out"),
        (
            "a.ckpt",
            None,
            "error_detector a.ckpt: a checkpoint needs error_encoder FOLDER, its BERT's "
            "config.json and vocab.txt; rules need nothing",
        ),
        (3, "bert", "error_detector 3: must be rules, builtin or a file's path"),
    ],
)
def test_settings_that_do_not_go_together(name: Any, encoder: str | None, message: str) -> None:
    for function in (check_detector, load_detector):
        with pytest.raises(ConfigError) as caught:
            function(name, encoder)
        assert str(caught.value) == message
    with pytest.raises(ConfigError, match="--what 7: must be rules"):
        check_detector(7, None, ("--what", "--with"))  # type: ignore[arg-type]
