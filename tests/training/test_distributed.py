import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_task import TinyTask

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.errors import ConfigError
from dac_diffusion.training.loop import LoopConfig, fit

HERE = Path(__file__).parent


def launch(folder: Path, *settings: str) -> None:
    run(HERE / "tiny_task.py", folder, *settings)


def run(script: Path, *arguments: str | Path, how: tuple[str, ...] = ("--multi_gpu",)) -> None:
    """Run a script on two processes of this machine."""
    command = [
        # --multi_gpu is Accelerate's word for several processes, here on the CPU.
        sys.executable, "-m", "accelerate.commands.launch", *how, "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", "0", str(script), *map(str, arguments),
    ]  # fmt: skip
    paths = {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **paths, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over the loopback device")
def test_two_processes_see_different_batches_and_agree_on_the_weights(tmp_path: Path) -> None:
    launch(tmp_path, "max_steps=6", "checkpoint_every=3", "gradient_accumulation_steps=2")
    first, second = (torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1))
    assert [path.name for path in sorted((tmp_path / "checkpoints").glob("step_*"))] == [
        "step_00000003",
        "step_00000006",
    ]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name]), name
    # Both see the outputs of both: 2 batches x 6 rows x 2 processes, none twice.
    assert first["calls"] == second["calls"]
    assert first["seen"] == second["seen"]
    rows = first["calls"][0][1]
    assert len(rows) == len(set(rows)) == 24


def test_a_launch_that_starts_only_one_process_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `accelerate launch --cpu --num_processes 2` sets before it starts a single process.
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.warns(UserWarning, match=r"one process only.*--multi_gpu"):
        fit(TinyTask(), LoopConfig(1, num_workers=0), tmp_path, progress=False)


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over the loopback device")
def test_the_papers_system_trains_on_two_processes(tmp_path: Path) -> None:
    """With everything before the training: scenes as files, features, head and scorer."""
    settings = [
        "max_steps=2",
        "training_scenes=8",
        "validation_scenes=4",
        "captioner_training.clips_per_batch=4",
        "captioner_training.evaluation_clips=2",
        "text.split_bert.head.steps=2",
        f"output_dir={tmp_path / 'run'}",
    ]
    run(
        HERE.parents[1] / "scripts/train.py", HERE.parents[1] / "configs/tiny/beats.yaml", *settings
    )
    captioner = DiffusionCaptioner.from_pretrained(tmp_path / "run", "float32")
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert captioner(sound, sampling_rate=16000, num_captions=1).error is None
    assert len(list((tmp_path / "run/features").iterdir())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over the loopback device")
def test_an_encoder_that_is_trained_gets_its_scorer_on_two_processes(tmp_path: Path) -> None:
    settings = [
        "max_steps=2",
        "training_scenes=8",
        "validation_scenes=4",
        "captioner_training.clips_per_batch=4",
        "captioner_training.evaluation_clips=2",
        "scorer.batch_size=4",
        "loop.learning_rate=0.1",
        "loop.ema_decay=0",
        f"output_dir={tmp_path}",
    ]
    folder = HERE.parents[1]
    run(folder / "scripts/train.py", folder / "configs/tiny/ced_llama.yaml", *settings)
    name = "diffusion_pytorch_model.safetensors"
    stages = {(path / "model" / name).read_bytes() for path in tmp_path.glob("scorer-*")}
    assert len(stages) == 2  # of the encoder before and after
    assert (tmp_path / "model/scorer" / name).read_bytes() in stages
    captioner = AutoregressiveCaptioner.from_pretrained(tmp_path, "float32")
    sound = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert captioner(sound, 16000, num_captions=1, ranking="audio_text").error is None


def test_processes_that_cannot_see_each_other_do_not_train_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `accelerate launch --multi_gpu --num_processes 2` sets where there is no GPU.
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"2 processes.*no GPU.*ACCELERATE_USE_CPU=true"):
        fit(TinyTask(), LoopConfig(1, num_workers=0), tmp_path, progress=False)
