import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.data.augmentation import AugmentationConfig
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.scene_features import Hearings, encode_pool
from dac_diffusion.diffusion.denoiser import CaptionDenoiser
from dac_diffusion.diffusion.objective import ObjectiveConfig
from dac_diffusion.diffusion.schedule import NoiseSchedule
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import decode_captions
from dac_diffusion.training.caption_sources import BatchShape, FrozenParts, SceneCaptions
from dac_diffusion.training.captioner import (
    CaptionerTask,
    CaptionerTrainer,
    CaptionerTrainingConfig,
    SamplingConfig,
)

CLIPS, PER_CLIP, LENGTH = 6, 3, 24
CONFIG = CaptionerTrainingConfig(
    clips_per_batch=CLIPS,
    captions_per_clip=PER_CLIP,
    fit_schedule_from=2,
    fit_schedule_every=2,
    evaluation_clips=4,
)


@pytest.fixture
def task(parts: FrozenParts, pools: tuple[ScenePool, ScenePool]) -> CaptionerTask:
    features = encode_pool(
        parts.encoder, pools[0], Hearings(2, AugmentationConfig()), progress=False
    )
    validation = encode_pool(parts.encoder, pools[1], Hearings(), progress=False)
    return make_task(parts, (pools[0], features), (pools[1], validation))


def make_task(parts: FrozenParts, training: tuple, validation: tuple) -> CaptionerTask:
    torch.manual_seed(1)
    denoiser = CaptionDenoiser(
        latent_dim=16, audio_dim=16, pooled_dim=16, width=32, depth=1, heads=2, max_length=LENGTH
    )
    space = EmbeddingSpace(len(parts.tokenizer), 16, initial_std=1.0)
    trainer = CaptionerTrainer(denoiser, space, NoiseSchedule.gumbel(), ObjectiveConfig(), 0)
    shape = BatchShape(CLIPS, PER_CLIP, LENGTH)
    sources = (SceneCaptions(*each, parts.tokenizer, shape, 4) for each in (training, validation))
    return CaptionerTask(trainer, CONFIG, parts, *sources, SamplingConfig(num_steps=2))


def copy_of(task: CaptionerTask) -> CaptionerTask:
    training = (task.training.pool, task.training.features)
    validation = (task.validation.pool, task.validation.features)
    return make_task(task.parts, training, validation)


def outputs(seed: int, count: int = 500) -> dict[str, torch.Tensor]:
    """What the trainer returns: a loss that rises with noise."""
    generator = torch.Generator().manual_seed(seed)
    log_nsr = 4 * torch.randn(count, generator=generator)
    loss = 5 * torch.sigmoid(log_nsr - 1) + 0.1 * torch.rand(count, generator=generator)
    return {"loss": loss.mean(), "log_nsr": log_nsr, "per_example": loss}


def test_a_batch_is_a_function_of_seed_step_and_rank(task: CaptionerTask) -> None:
    first = task.batch(5, 0, 2)
    assert first.token_ids.shape == (CLIPS, PER_CLIP, LENGTH)
    assert first.audio.features.shape == (CLIPS, 10, 16)
    task.batch(6, 0, 2)
    torch.manual_seed(77)
    for again in (task.batch(5, 0, 2), copy_of(task).batch(5, 0, 2)):
        assert torch.equal(again.token_ids, first.token_ids)
        assert torch.equal(again.audio.features, first.audio.features)
        assert torch.equal(again.audio.mask, first.audio.mask)
        assert torch.equal(again.audio.pooled, first.audio.pooled)
    for other in (task.batch(6, 0, 2), task.batch(5, 1, 2)):
        assert not torch.equal(other.token_ids, first.token_ids)


def test_captions_belong_to_the_features_beside_them(
    task: CaptionerTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [f"scene {'abcdefghijklmnop'[index]}" for index in range(16)]
    numbers = {id(scene): index for index, scene in enumerate(task.training.pool.scenes)}
    monkeypatch.setattr(
        "dac_diffusion.training.caption_sources.write_captions",
        lambda scene, rng, count: [named[numbers[id(scene)]]] * count,
    )
    batch = task.batch(0, 0, 1)
    views = set()
    for row in range(CLIPS):
        texts = decode_captions(task.parts.tokenizer, batch.token_ids[row])
        assert len(set(texts)) == 1
        index = "abcdefghijklmnop".index(texts[0][-1])
        stored = task.training.features.features[:, index].float()  # (V, S, D)
        (view,) = [v for v in range(2) if torch.equal(stored[v], batch.audio.features[row])]
        views.add(view)
        assert torch.equal(
            task.training.features.pooled[view, index].float(), batch.audio.pooled[row]
        )
    assert views == {0, 1}


def test_the_loss_falls(task: CaptionerTask) -> None:
    batch = task.batch(0, 0, 1)
    optimizer = torch.optim.AdamW(task.trainer.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        result = task.trainer(batch, torch.Generator().manual_seed(0))
        assert result["log_nsr"].shape == result["per_example"].shape == (CLIPS * PER_CLIP,)
        losses.append(result["loss"].item())
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]


def test_the_schedule_follows_the_loss_when_due(task: CaptionerTask) -> None:
    start = task.trainer.schedule.state()
    for step, due in enumerate((False, False, True, False, True)):
        before = task.trainer.schedule.state()
        task.after_step(step, outputs(step))
        assert (task.trainer.schedule.state() != before) == due
        assert (task._seen == []) == due
    fitted = task.trainer.schedule
    # The loss falls between -1 and 3, so that is where the steps go.
    times = torch.linspace(0, 1, 101)
    before, after = (
        ((s.log_nsr(times) > -2) & (s.log_nsr(times) < 4)).float().mean()
        for s in (NoiseSchedule.from_state(start), fitted)
    )
    assert after > before


def test_the_state_survives_json_and_goes_on_alike(task: CaptionerTask) -> None:
    for step in range(4):
        task.after_step(step, outputs(step))
    resumed = copy_of(task)
    resumed.load_state(json.loads(json.dumps(task.state())))
    assert resumed.state() == task.state()
    for both in (task, resumed):
        both.after_step(4, outputs(4))
    assert resumed.state() == task.state()
    times = torch.linspace(0, 1, 33)
    assert torch.equal(
        resumed.trainer.schedule.log_nsr(times), task.trainer.schedule.log_nsr(times)
    )


def test_evaluation_is_repeatable_and_finite(task: CaptionerTask) -> None:
    task.trainer.eval()
    torch.manual_seed(1)
    report = task.evaluate(3, task.model, None)
    torch.manual_seed(2)
    assert task.evaluate(9, task.model, None) == report
    assert {"cider_d", "cider_d_with_shuffled_audio", "pad_rate", "embedding_distance"} <= set(
        report
    )
    assert all(math.isfinite(value) for value in report.values())


def test_the_loss_is_logged_by_noise_level(task: CaptionerTask) -> None:
    class Writer:
        def __init__(self) -> None:
            self.scalars: dict[str, float] = {}

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.scalars[name] = value

        def add_text(self, name: str, text: str, step: int) -> None:
            assert text

    task.trainer.eval()
    task.after_step(0, outputs(0))
    writer = Writer()
    task.evaluate(1, task.model, writer)
    levels = [value for name, value in sorted(writer.scalars.items()) if "by_noise" in name]
    assert len(levels) >= 4
    assert levels[0] < levels[-1]  # of a loss that rises with noise


def test_what_is_exported_is_a_captioner_of_these_weights(
    task: CaptionerTask, tmp_path: Path
) -> None:
    task.trainer.schedule = NoiseSchedule.gumbel(1.0, 2.0)
    task.export(tmp_path / "model")
    captioner = DiffusionCaptioner.from_pretrained(tmp_path / "model", "float32")
    for loaded, original in (
        (captioner.denoiser, task.trainer.denoiser),
        (captioner.latent_space, task.trainer.space),
        (captioner.encoder, task.parts.encoder),
        (captioner.scorer, task.parts.scorer),
    ):
        state = original.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    np.testing.assert_allclose(
        np.asarray(captioner.scheduler.alphas_cumprod),
        task.trainer.schedule.alphas_cumprod(1000),
        atol=1e-5,
    )
