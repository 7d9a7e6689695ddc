import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.plain import AudioProjection, AutoregressiveConfig, build_network
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.captioning.pretrained import BUILTIN, find_checkpoint
from dac_diffusion.systems import load_captioner
from tests.helpers import noise, tiny_autoregressive, tiny_captioner

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


def test_folders_of_others_in_the_target_stay_as_they_are(tmp_path: Path) -> None:
    source, target = tmp_path / "run", tmp_path / "models"
    tiny_captioner().save_pretrained(source)
    (target / "bert").mkdir(parents=True)
    config = '{"_name_or_path": "mine"}'
    (target / "bert" / "config.json").write_text(config)
    for _ in range(2):  # the second time over an earlier export
        assert run(source, target).returncode == 0
    assert (target / "bert" / "config.json").read_text() == config
    (tmp_path / "other" / "encoder").mkdir(parents=True)
    (tmp_path / "other" / "encoder" / "mine").write_text("precious")
    done = run(source, tmp_path / "other")
    assert done.returncode == 1
    assert done.stderr == (
        f"export_checkpoint: error: {tmp_path / 'other' / 'encoder'}: holds something else; "
        "choose another output folder\n"
    )
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["encoder"]


def test_a_missing_run_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere", tmp_path / "kept")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr


def test_what_the_builtin_checkpoint_has_is_shared_with_it(tmp_path: Path) -> None:
    builtin = DiffusionCaptioner.from_pretrained(BUILTIN, "float32")
    own = tiny_autoregressive()
    network = build_network(AutoregressiveConfig(width=32, heads=2), len(builtin.tokenizer))
    encoder = builtin.encoder
    captioner = AutoregressiveCaptioner(
        encoder,
        AudioProjection(encoder.feature_dim, encoder.pooled_dim, 32),
        network,
        builtin.tokenizer,
        builtin.scorer,
    )
    captioner.save_pretrained(tmp_path / "run")
    done = run(tmp_path / "run", tmp_path / "kept", "--share-with-builtin", "--top-p", 0.8)
    assert done.returncode == 0, done.stderr
    kept = {path.name for path in (tmp_path / "kept").iterdir() if path.is_dir()}
    assert kept == {"network", "projection"}
    loaded = load_captioner(tmp_path / "kept", "bfloat16")
    whole = load_captioner(tmp_path / "run", "bfloat16")
    assert loaded.config.top_p == 0.8
    for captions in (loaded, whole):
        captions.register_to_config(top_p=0.9)
    sound = noise(0.5)
    assert loaded(sound, 32000, num_captions=2) == whole(sound, 32000, num_captions=2)
    assert find_checkpoint(BUILTIN).is_dir()
    # Another encoder cannot be left out.
    own.save_pretrained(tmp_path / "other")
    done = run(tmp_path / "other", tmp_path / "kept_other", "--share-with-builtin")
    assert done.returncode == 1
    assert "is not the built-in one" in done.stderr
