"""`dac-diffusion prepare detector`, and captions chosen and corrected with what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dac_diffusion.cli import main
from dac_diffusion.data.soundscapes.captions import write_captions
from dac_diffusion.ranking.trigram_errors import TrigramErrorDetector
from tests.data.soundscapes.test_captions import random_scenes
from tests.helpers import caption_quickly, only_error


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng, path = np.random.default_rng(0), tmp_path / "captions.csv"
    lines = ["file_name,caption_1,caption_2"]
    for place, scene in enumerate(random_scenes(300)):
        first, second = (f'"{text}"' for text in write_captions(scene, rng, 2))
        lines.append(f"{place}.wav,{first},{second}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_detector_of_a_table_serves_caption(
    table: Path, checkpoint: Path, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "detector.json"
    assert main(["prepare", "detector", str(table), "--output", str(output)]) == 0
    detector = TrigramErrorDetector.load(output)
    count = sum(len(words) for words in detector.trigrams.values())
    assert capsys.readouterr().out == f"{output}: {count} trigrams of 600 captions\n"
    written = output.read_bytes()
    assert main(["prepare", "detector", str(table), "--output", str(output), "--seed", "1"]) == 0
    assert output.read_bytes() != written
    assert caption_quickly(checkpoint, good, "--error-detector", output) == 0


def test_what_cannot_be_a_detector(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tables, output, message in (
        (table, "detector.txt", "--output detector.txt: must end in .json"),
        (tmp_path / "none.csv", "d.json", "none.csv: "),
    ):
        assert main(["prepare", "detector", str(tables), "--output", output]) == 1
        assert message in only_error(capsys)
    few = tmp_path / "few.csv"
    few.write_text("file_name,caption_1\na.wav,a dog barks\n")
    assert main(["prepare", "detector", str(few), "--output", str(tmp_path / "d.json")]) == 1
    assert "1 different captions: a detector needs at least 200" in only_error(capsys)
    assert not (tmp_path / "d.json").exists()
