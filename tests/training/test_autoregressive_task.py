"""Training of the autoregressive captioner."""

import dataclasses
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.network import (
    caption_logits,
    encode_audio,
    sequence_log_likelihood,
)
from dac_diffusion.autoregressive.plain import AudioProjection, AutoregressiveConfig, build_network
from dac_diffusion.captioning.recordings import most_features
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.scene_features import Hearings, encode_pool
from dac_diffusion.errors import ConfigError
from dac_diffusion.text.tokenizer import PAD_ID
from dac_diffusion.training.autoregressive import (
    AutoregressiveTask,
    AutoregressiveTrainer,
    DecodingConfig,
    captioner_of,
)
from dac_diffusion.training.caption_sources import BatchShape, FrozenParts, SceneCaptions
from dac_diffusion.training.captioner import CaptionerTrainingConfig
from dac_diffusion.training.run import train
from tests.training.test_run import SMALL

CLIPS, PER_CLIP, LENGTH = 6, 3, 24
CONFIG = CaptionerTrainingConfig(
    clips_per_batch=CLIPS, captions_per_clip=PER_CLIP, evaluation_clips=4
)
SIZES = AutoregressiveConfig(
    width=32, encoder_layers=1, decoder_layers=1, heads=2, feed_forward=64, dropout=0.0
)
TINY = Path(__file__).parents[2] / "configs/tiny/autoregressive.yaml"


@pytest.fixture
def task(parts: FrozenParts, pools: tuple[ScenePool, ScenePool]) -> AutoregressiveTask:
    torch.manual_seed(1)
    encoded = [encode_pool(parts.encoder, pool, Hearings(), progress=False) for pool in pools]
    trainer = AutoregressiveTrainer(
        AudioProjection(parts.encoder.feature_dim, parts.encoder.pooled_dim, 32),
        build_network(SIZES, len(parts.tokenizer)),
        PAD_ID,
        label_smoothing=0.1,
    )
    shape = BatchShape(CLIPS, PER_CLIP, LENGTH)
    sources = (
        SceneCaptions(pool, features, parts.tokenizer, shape, 4)
        for pool, features in zip(pools, encoded, strict=True)
    )
    make_captioner = partial(captioner_of, trainer, parts, LENGTH, DecodingConfig())
    return AutoregressiveTask(trainer, CONFIG, *sources, make_captioner)


def test_the_loss_is_the_mean_over_the_tokens_before_padding(task: AutoregressiveTask) -> None:
    task.model.eval()
    batch = task.batch(0, 0, 1)
    with torch.no_grad():
        result = task.model(batch, torch.Generator())
        encoded = encode_audio(task.model.projection, task.model.network, batch.audio)
        ids = batch.token_ids.flatten(0, 1)
        means = sequence_log_likelihood(task.model.network, encoded.repeat(PER_CLIP), ids, PAD_ID)
    lengths = (ids != PAD_ID).sum(dim=-1)
    expected = -(means * lengths).sum() / lengths.sum()
    assert float(result["cross_entropy"]) == pytest.approx(float(expected), rel=1e-5)
    with torch.no_grad():
        logits = caption_logits(task.model.network, encoded.repeat(PER_CLIP), ids)
    uniform = -logits.log_softmax(dim=-1).mean(dim=-1)[ids != PAD_ID].mean()
    smoothed = 0.9 * float(expected) + 0.1 * float(uniform)
    assert float(result["loss"]) == pytest.approx(smoothed, rel=1e-5)


def test_the_loss_falls(task: AutoregressiveTask) -> None:
    batch = task.batch(0, 0, 1)
    optimizer = torch.optim.AdamW(task.model.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        result = task.model(batch, torch.Generator())
        losses.append(result["loss"].item())
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


def test_evaluation_is_repeatable_and_finite(task: AutoregressiveTask) -> None:
    task.model.eval()
    report = task.evaluate(3, task.model, None)
    torch.manual_seed(2)
    assert task.evaluate(9, task.model, None) == report
    assert {"cider_d", "cider_d_with_shuffled_audio", "repeated_bigram"} <= set(report)
    assert all(math.isfinite(value) for value in report.values())


def test_the_tiny_config_makes_a_captioner(tmp_path: Path) -> None:
    overrides = [*SMALL, "max_steps=2", f"output_dir={tmp_path}"]
    assert train(TINY, overrides, progress=False).steps == 2
    captioner = AutoregressiveCaptioner.from_pretrained(tmp_path)
    noise = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    clip = captioner(noise, sampling_rate=32000, num_captions=2)
    assert clip.captions


def test_there_are_positions_for_the_longest_window(tmp_path: Path) -> None:
    """CED gives 25 features a second, 324 in a window of 10 s and the rest that joins it."""
    ced = ["encoder.name=ced", "encoder.weights=random", "max_steps=1", "training_scenes=8"]
    overrides = [*SMALL, *ced, f"output_dir={tmp_path}"]
    train(TINY, overrides, progress=False)
    captioner = AutoregressiveCaptioner.from_pretrained(tmp_path)
    assert captioner.network.config.max_position_embeddings == 325
    noise = np.random.default_rng(0).normal(0, 0.1, round(12.4 * 16000)).astype(np.float32)
    assert captioner(noise, sampling_rate=16000, num_captions=1).captions
    few = [*overrides, "autoregressive.max_frames=128", "max_steps=2"]
    with pytest.raises(ConfigError) as caught:
        train(TINY, few, progress=False)
    assert str(caught.value) == (
        "the network has 128 positions, but audio takes up to 325 and a caption 24; leave "
        "autoregressive.max_frames out or raise it, lower encoder.window_seconds, or set "
        "encoder.frequency_pooling=mean"
    )


def test_by_default_the_small_encoder_has_as_many_as_the_built_in_captioner() -> None:
    builtin = AutoregressiveCaptioner.from_pretrained("builtin-autoregressive")
    positions = builtin.network.config.max_position_embeddings
    places = most_features(builtin.encoder) + 1
    config = AutoregressiveConfig(width=16, encoder_layers=1, decoder_layers=1, heads=2)
    assert build_network(config, 50, places).config.max_position_embeddings == positions == 128
    assert build_network(config, 50, 400).config.max_position_embeddings == 400
    long = dataclasses.replace(config, max_frames=64)
    assert build_network(long, 50, 400).config.max_position_embeddings == 64
