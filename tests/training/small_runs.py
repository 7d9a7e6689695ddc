"""Overrides that make whole trainings small, shared by the tests of several files."""

from __future__ import annotations

# A few scenes of 2 to 3 s, and what learns from them.
SMALL_SCENES = (
    "training_scenes=8",
    "validation_scenes=4",
    "soundscapes.shortest_seconds=2.0",
    "soundscapes.longest_seconds=3.0",
    "captioner_training.clips_per_batch=4",
    "captioner_training.evaluation_clips=2",
    "scorer.batch_size=4",
)
# The paper's denoiser and split BERT.
SMALL_DAC = (
    "text.split_bert.bert=random",
    "text.split_bert.split_layer=2",
    "text.split_bert.head.steps=2",
    "text.max_length=12",
    "denoiser.width=32",
    "denoiser.depth=1",
    "denoiser.heads=2",
    "captioner_training.clips_per_batch=4",
    "captioner_training.evaluation_clips=2",
    "scorer.batch_size=4",
    "scorer.width=24",
    "scorer.depth=1",
    "scorer_loop.num_workers=0",
    "loop.num_workers=0",
    "data.device=cpu",
    "max_steps=2",
)
