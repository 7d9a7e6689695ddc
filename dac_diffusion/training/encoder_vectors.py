"""Audio encoders that are trained along with the captioner (prefix.train_encoder), and scorers.

A scorer learns from the vectors that an encoder pools, and these change as long as the encoder is
trained. So what is saved in the course of the training ranks by a scorer of the encoder as it was
before, which is near it only. Once the training is over, each exported captioner gets a scorer that
was trained on its own encoder's vectors. The vectors are computed once and kept beside the scorer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dac_diffusion.data.feature_encoding import describe_encoder, encode_recordings
from dac_diffusion.data.published.dataset import CaptionDataset
from dac_diffusion.errors import DacError, DataError
from dac_diffusion.files import atomic_folder, atomic_write, make_folder
from dac_diffusion.libraries import quiet_libraries
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.training.building import words_of
from dac_diffusion.training.caption_sources import (
    BatchShape,
    Clips,
    FrozenParts,
    PooledCaptions,
)
from dac_diffusion.training.recordings import frozen_encoder, read_recordings
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.stages import Prepared, batch_shape, normalises, train_scorer
from dac_diffusion.training.waveforms import WaveformCaptions

EXPORTS = ("model", "best_model")

Datasets = tuple[list[CaptionDataset], list[CaptionDataset]]  # for training, for validation


def trains_encoder(config: TrainingConfig) -> bool:
    """Whether the audio encoder is trained along with the captioner."""
    return config.system == "prefix" and config.prefix.train_encoder


def prepare_waveforms(config: TrainingConfig, accelerator: Any, progress: bool) -> Prepared:
    """Recordings in place of features, and a scorer for the encoder as it is before it is trained.

    Raises ConfigError and what the readers of data and weights raise.
    """
    with accelerator.main_process_first():
        encoder = frozen_encoder(config)
        datasets = read_recordings(config, progress)
    captions = [text for each in datasets[0] for clip in each.clips for text in clip.captions]
    words = words_of(config, captions)
    parts = FrozenParts(
        encoder,
        _scorer_of(config, encoder, datasets, words.tokenizer, accelerator, progress),
        words.tokenizer,
    )
    training, validation = (
        WaveformCaptions(
            group,
            encoder,
            words.tokenizer,
            batch_shape(config),
            config.seed,
            encoder.window_seconds,
            normalise=normalises(config),
        )
        for group in datasets
    )
    return Prepared(parts, words, training, validation, captions)


def replace_scorers(
    config: TrainingConfig, prepared: Prepared, accelerator: Any, progress: bool
) -> None:
    """Give each exported captioner a scorer trained on the vectors of its own encoder.

    Every process must call it. What is there already is used again.
    """
    parts = prepared.parts
    datasets = read_recordings(config, progress)
    for name in EXPORTS:
        folder = Path(config.output_dir) / name
        if not folder.is_dir():
            continue
        encoder = load_saved_model(type(parts.encoder), folder / "encoder").requires_grad_(False)
        scorer = _scorer_of(config, encoder, datasets, parts.tokenizer, accelerator, progress)
        if accelerator.is_main_process:
            with atomic_folder(folder / "scorer") as partial, quiet_libraries():
                scorer.cpu().save_pretrained(partial)
        accelerator.wait_for_everyone()


def _scorer_of(
    config: TrainingConfig,
    encoder: Any,
    datasets: Datasets,
    tokenizer: Any,
    accelerator: Any,
    progress: bool,
) -> AudioTextScorer:
    """A scorer of what an encoder pools; its folder is named after the encoder and the data."""
    tables = [*config.data.training, *config.data.validation]
    decides = [
        describe_encoder(config.encoder.name, encoder),
        [dataclasses.asdict(table) for table in tables],
        [[len(dataset.clips) for dataset in group] for group in datasets],
    ]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]
    folder = make_folder(Path(config.output_dir) / f"scorer-{digest}")
    with accelerator.main_process_first():
        training, validation = (
            _pooled(encoder, group, folder / f"{name}.safetensors", config.data.device, progress)
            for name, group in zip(("training", "validation"), datasets, strict=True)
        )
    shape = BatchShape(config.scorer.batch_size, 1, config.text.max_length)
    source = PooledCaptions(training, tokenizer, shape, config.seed, normalises(config))
    held_out = dataclasses.replace(source, pool=validation)
    return train_scorer(config, source, held_out, encoder.pooled_dim, progress, folder)


def _pooled(
    encoder: Any, datasets: Sequence[CaptionDataset], path: Path, device: str, progress: bool
) -> Clips:
    """The pooled vectors of all clips that can be decoded, of each the first window_seconds.

    Raises DataError where none can be.
    """
    from safetensors.torch import load_file, save

    clips = [clip for dataset in datasets for clip in dataset.clips]
    if not path.is_file():
        places, vectors = [], []
        found = encode_recordings(
            encoder.to(device), [clip.path for clip in clips], torch.device(device)
        )
        bar = tqdm(found, "encoding recordings", len(clips), disable=not progress)
        for place, recording in enumerate(bar):
            if isinstance(recording, DacError):
                logging.getLogger("dac_diffusion").warning("left out: %s", recording)
                continue
            places.append(place)
            vectors.append(torch.from_numpy(recording.pooled))
        if not vectors:
            raise DataError(f"{datasets[0].audio}: none of the recordings can be encoded")
        stored = {"places": torch.tensor(places), "pooled": torch.stack(vectors)}
        with atomic_write(path, "wb") as file:
            file.write(save(stored))
    stored = load_file(path)
    own = [clips[place] for place in stored["places"].tolist()]
    names, captions = [clip.name for clip in own], [clip.captions for clip in own]
    return Clips(names, captions, stored["pooled"])
