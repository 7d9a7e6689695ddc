"""The benchmark of reading features: what it writes and reports, not how fast anything is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    import feature_reading

    monkeypatch.setattr(sys, "argv", ["feature_reading", *arguments])
    feature_reading.main()


def test_table_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import feature_reading
    from feature_reading import Reading

    monkeypatch.setattr(
        feature_reading,
        "READINGS",
        (
            Reading("sequential", "float32", 0),
            Reading("random", "bfloat16", 0, cold=True),
            Reading("random", "float16", 1),
        ),
    )
    output, caches = tmp_path / "reading.json", tmp_path / "caches"
    caches.mkdir()
    options = ["--gigabytes", "0", "--rounds", "2", "--sizes", "3x8", "5x4"]
    run(monkeypatch, *options, "--folder", str(caches), "--output", str(output))
    content = json.loads(output.read_text(encoding="utf-8"))
    rows = content["table"]
    assert [(row["size"], row["order"], row["memory"], row["workers"]) for row in rows[:3]] == [
        ("3 x 8", "sequential", "in memory", 0),
        ("3 x 8", "random", "cold", 0),
        ("3 x 8", "random", "in memory", 1),
    ]
    assert [row["size"] for row in rows[3:]] == ["5 x 4"] * 3
    for row, clip_bytes in zip(rows, [3 * 8 * 2] * 3 + [5 * 4 * 2] * 3, strict=True):
        assert row["clips"] == 256
        ratio = row["gigabytes_per_second"] * 1e9 / row["clips_per_second"]
        assert ratio == pytest.approx(clip_bytes)
    for row in content["raw"]["passes"]:
        # With a worker 32 batches, of which the one it had ready is not counted.
        clips = 31 * 128 if row["workers"] else 256
        assert [each["clips"] for each in row["seconds"]] == [clips, clips]
    printed = capsys.readouterr().out
    assert printed.count("| 3 x 8 | 256 |") == 3
    assert "batches of 128" in printed
    assert list(caches.iterdir()) == []


def test_the_cache_it_writes_is_one_that_training_reads(tmp_path: Path) -> None:
    from feature_reading import number_of_clips, write_cache

    from dac_diffusion.data.feature_cache import FeatureCache

    write_cache(tmp_path, 300, 4, 6, seed=0)
    cache = FeatureCache.open(tmp_path)
    cache.verify()
    assert len(cache) == 300
    assert len(list((tmp_path / "shards").iterdir())) == 2
    batch = cache.batch([0, 299])
    assert batch.features.shape == (2, 4, 6)
    assert batch.mask.all()
    assert not np.array_equal(batch.features[0], batch.features[1])
    assert number_of_clips(496, 768, 0.75) == 984


@pytest.mark.parametrize("size", ["31", "31x", "ax256", "x"])
def test_a_size_of_another_form(
    size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--sizes", size)
    assert "give frames x width, such as 31x256" in capsys.readouterr().err
