import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dac_diffusion.data.augmentation import AugmentationConfig
from dac_diffusion.data.scene_cache import ScenePool
from dac_diffusion.data.soundscapes.captions import labels, write_captions
from dac_diffusion.data.soundscapes.scenes import PlacedEvent, Relation, Scene
from dac_diffusion.training.caption_sources import FrozenParts
from dac_diffusion.training.encoder import (
    EncoderBatch,
    EncoderTask,
    EncoderTrainer,
    EncoderTrainingConfig,
    activity_targets,
    alter_scene,
)
from dac_diffusion.training.stages import load_encoder_stage

SCENES: dict[Relation, Scene] = {
    relation: Scene(tuple(events), relation, 6.0)
    for relation, events in {
        "single": [PlacedEvent("dog", 0.5, 1.0)],
        "sequence": [PlacedEvent("dog", 0.5, 1.0), PlacedEvent("car_horn", 3.0, 1.0)],
        "overlap": [PlacedEvent("dog", 0.5, 1.0), PlacedEvent("car_horn", 0.7, 1.0)],
        "background": [
            PlacedEvent("dog", 0.5, 1.0),
            PlacedEvent("rain", 0.0, 6.0, role="background"),
        ],
        "sequence_over_background": [
            PlacedEvent("dog", 0.5, 1.0),
            PlacedEvent("car_horn", 3.0, 1.0),
            PlacedEvent("rain", 0.0, 6.0, role="background"),
        ],
    }.items()
}


@pytest.fixture
def task(parts: FrozenParts, pools: tuple[ScenePool, ScenePool]) -> EncoderTask:
    config = EncoderTrainingConfig(batch_size=8)
    trainer = EncoderTrainer(parts.encoder, parts.scorer, config)
    return EncoderTask(trainer, parts.tokenizer, *pools, seed=3)


def named(scene: Scene) -> list[str]:
    return [event.label for event in scene.events]


@pytest.mark.parametrize("relation", SCENES)
def test_an_altered_scene_differs_in_a_fact_and_can_be_captioned(relation: Relation) -> None:
    scene = SCENES[relation]
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(60):
        altered = alter_scene(scene, rng)
        before, after = named(scene), named(altered)
        assert after != before
        assert len(set(after)) == len(after) == len(before)
        swapped = sorted(after) == sorted(before)
        if swapped:
            assert "sequence" in relation  # elsewhere the order is no fact
            assert after[:2] == before[1::-1]
        else:
            assert sum(a != b for a, b in zip(after, before, strict=True)) == 1
        kinds.add(swapped)
        assert altered.relation == relation
        assert write_captions(altered, rng, 1)
    assert kinds == ({True, False} if "sequence" in relation else {False})


def test_activity_targets() -> None:
    scene = Scene(
        (
            PlacedEvent("dog", 0.5, 0.9),
            PlacedEvent("rain", 0.0, 2.6, role="background"),
            PlacedEvent("car_horn", 1.99, 0.2),
        ),
        "sequence_over_background",
        2.6,
    )
    targets = activity_targets(scene, num_frames=6, frames_per_second=2.0)
    assert targets.shape == (6, len(labels()))
    columns = {label: targets[:, labels().index(label)].tolist() for label in named(scene)}
    assert columns == {
        "dog": [0, 1, 1, 0, 0, 0],  # 0.5 s to 1.4 s in frames of half a second
        "rain": [1, 1, 1, 1, 1, 1],  # up to the frame that holds 2.6 s
        "car_horn": [0, 0, 0, 1, 1, 0],
    }
    assert targets.sum() == 2 + 6 + 2


def test_a_batch_is_a_function_of_seed_step_and_rank(task: EncoderTask) -> None:
    def tensors(batch: EncoderBatch) -> list[torch.Tensor]:
        return [getattr(batch, field.name) for field in dataclasses.fields(batch)]

    first = tensors(task.batch(5, 0, 2))
    task.batch(6, 0, 2)
    for a, b in zip(first, tensors(task.batch(5, 0, 2)), strict=True):
        assert torch.equal(a, b)
    for other in (task.batch(6, 0, 2), task.batch(5, 1, 2)):
        assert not torch.equal(other.captions, first[2])


def test_what_a_batch_holds(task: EncoderTask) -> None:
    batch = task.batch(0, 0, 1)
    frames = 10  # of 3 s
    assert batch.log_mel.shape == (8, 151, 64)
    assert batch.captions.shape == (2, 8, 24)
    assert batch.activity.shape == (8, frames, len(labels()))
    assert not torch.equal(batch.captions[0], batch.captions[1])
    for row in range(8):
        same = [(batch.log_mel[row].half().numpy() == mel).all() for mel in task.pool.log_mel]
        scene = task.pool.scenes[same.index(True)]
        present = {labels()[i] for i in batch.activity[row].amax(dim=0).nonzero()[:, 0]}
        assert present == set(named(scene))
        assert batch.num_samples[row] == task.pool.num_samples[same.index(True)]


def test_scenes_of_one_kind_are_no_negatives_of_each_other(task: EncoderTask) -> None:
    overlap, sequence = SCENES["overlap"], SCENES["sequence"]
    turned = [
        dataclasses.replace(scene, events=scene.events[::-1]) for scene in (overlap, sequence)
    ]
    pool = dataclasses.replace(task.pool, scenes=[overlap, sequence, *turned])
    kinds = task._collate(pool, np.arange(4), np.random.default_rng(0)).kinds
    assert kinds[0] == kinds[2]  # together is together, whichever is named first
    assert len(set(kinds[[0, 1, 3]].tolist())) == 3  # one after another is not


def test_the_loss_falls(task: EncoderTask) -> None:
    config = dataclasses.replace(
        task.trainer.config, augmentation=AugmentationConfig(frequency_masks=0, time_masks=0)
    )
    task.trainer.config = config
    task.trainer.train()
    optimizer = torch.optim.AdamW(task.trainer.parameters(), 5e-3)
    batch = task.batch(0, 0, 1)
    losses = []
    for step in range(15):
        outputs = task.trainer(batch, torch.Generator().manual_seed(step))
        losses.append({name: value.item() for name, value in outputs.items()})
        outputs["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    for name in ("loss", "tagging", "activity", "contrastive"):
        assert losses[-1][name] < 0.9 * losses[0][name], name
    total = sum(losses[0][name] for name in ("tagging", "activity", "contrastive"))
    assert losses[0]["loss"] == pytest.approx(total)


def test_evaluation_is_repeatable_and_counts_shares(task: EncoderTask) -> None:
    task.trainer.eval()
    report = task.evaluate(7, task.model, None)
    assert report == task.evaluate(8, task.model, None)
    assert report["loss"] > 0
    for name in ("top_tag_is_present", "single_event_accuracy", "right_above_altered"):
        assert 0 <= report[name] <= 1


def test_a_tagger_that_knows_is_rated_perfect(
    task: EncoderTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    task.trainer.eval()
    seen: list[torch.Tensor] = []
    collate = task._collate

    def remember(*arguments: object) -> EncoderBatch:
        batch = collate(*arguments)
        seen.append(batch.activity.amax(dim=1))
        return batch

    class Knowing(torch.nn.Module):
        def forward(self, pooled: torch.Tensor) -> torch.Tensor:
            return seen[-1]

    monkeypatch.setattr(task, "_collate", remember)
    task.trainer.tag_clip = Knowing()
    report = task.evaluate(0, task.model, None)
    assert report["top_tag_is_present"] == 1


def test_what_is_exported_is_what_the_captioner_s_training_loads(
    task: EncoderTask, tmp_path: Path
) -> None:
    task.export(tmp_path / "model")
    parts = load_encoder_stage(tmp_path / "model")
    for name in ("encoder", "scorer"):
        loaded, original = getattr(parts, name), getattr(task.trainer, name)
        assert not any(weight.requires_grad for weight in loaded.parameters())
        state = original.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    text = "a dog barks"
    assert parts.tokenizer(text)["input_ids"] == task.tokenizer(text)["input_ids"]
    assert json.dumps(task.state()) == "{}"
