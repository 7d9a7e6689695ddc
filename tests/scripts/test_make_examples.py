import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import soundfile

from dac_diffusion.errors import DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = ROOT / "scripts" / "make_examples.py"
    spec = importlib.util.spec_from_file_location("make_examples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WANTED", ("single", "sequence"))
    return module


def test_examples_are_named_after_what_they_hold(script: ModuleType, tmp_path: Path) -> None:
    names = script.write_examples(tmp_path / "examples")
    assert names == script.write_examples(tmp_path / "again")
    assert names[0].startswith("1_")
    assert names[1].startswith("2_")
    files = sorted((tmp_path / "examples").iterdir())
    assert [path.name for path in files] == [f"{name}.ogg" for name in sorted(names)]
    for path in files:
        waveform, rate = soundfile.read(path)
        assert rate == 32000
        assert 4 <= len(waveform) / rate <= 10
        assert abs(waveform).max() > 0.01


def test_an_impossible_output_is_an_error_of_one_line(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_examples.py", "--output", str(tmp_path / "no" / "o")])
    assert script.main() == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_examples_of_the_repository_are_small() -> None:
    folder = ROOT / "dac_diffusion" / "builtin" / "examples"
    assert 0 < sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000


def test_only_examples_are_replaced(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "mine.wav").write_bytes(b"precious")
    with pytest.raises(DataError, match="holds something else; choose another output folder"):
        script.write_examples(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.wav"]
    names = script.write_examples(tmp_path / "examples")
    assert script.write_examples(tmp_path / "examples") == names
