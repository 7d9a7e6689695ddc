import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from dac_diffusion.captioner import DiffusionCaptioner
from tests.helpers import tiny_captioner

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/export_checkpoint.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_training_run_becomes_a_bfloat16_checkpoint(tmp_path: Path) -> None:
    source, target = tmp_path / "run", tmp_path / "kept"
    tiny_captioner().save_pretrained(source / "model")
    (source / "config.yaml").write_text("seed: 0\n")
    target.mkdir()
    (target / "README.md").write_text("a model card")
    done = run(source, target, "--num-candidates", 7, "--num-steps", 4)
    assert done.returncode == 0, done.stderr
    for path in target.rglob("*.safetensors"):
        floating = [t for t in load_file(path).values() if t.is_floating_point()]
        assert {tensor.dtype for tensor in floating} == {torch.bfloat16}
    captioner = DiffusionCaptioner.from_pretrained(target)
    assert (captioner.config.num_candidates, captioner.config.num_steps) == (7, 4)
    assert (target / "README.md").read_text() == "a model card"
    assert (target / "config.yaml").read_text() == "seed: 0\n"


def test_a_missing_run_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere", tmp_path / "kept")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr
