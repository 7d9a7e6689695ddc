"""`dac-diffusion train CONFIG`: everything it takes, then the captioner, from one config file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dac_diffusion.configuration import load_config, save_config
from dac_diffusion.errors import ConfigError
from dac_diffusion.files import make_folder
from dac_diffusion.training.building import (
    make_denoiser,
    make_latent_space,
    make_schedule,
    take_over_weights,
)
from dac_diffusion.training.captioner import CaptionerTask, CaptionerTrainer
from dac_diffusion.training.detectors import MEASURED
from dac_diffusion.training.encoder_vectors import replace_scorers, trains_encoder
from dac_diffusion.training.loop import FitResult, fit
from dac_diffusion.training.preparation import prepare
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.stages import Prepared, capped
from dac_diffusion.training.surroundings import make_accelerator
from dac_diffusion.training.systems import enclap_task, plain_task, prefix_task, recap_task
from dac_diffusion.training.task import Task
from dac_diffusion.training.text_only import WithTextValidation


def train(
    config_path: str | Path, overrides: Sequence[str] = (), progress: bool = True
) -> FitResult:
    """Train what a config file describes; the captioner ends up in `output_dir`/model.

    A run that was stopped goes on where it was when the same command is given again.
    Raises ConfigError, DataError, CheckpointError and MissingExtraError, each in one line.
    """
    config = load_config(TrainingConfig, config_path, overrides)
    check_metric(config)
    output = make_folder(config.output_dir)
    save_config(config, output / "config.yaml")
    accelerator = make_accelerator()
    prepared = prepare(config, accelerator, progress and accelerator.is_main_process)
    torch.manual_seed(config.seed + 1)
    with accelerator.main_process_first():  # it trains the rounding head, the others read it
        task = make_task(config, prepared, progress)
    if prepared.validation_texts is not None:
        task = WithTextValidation(task, prepared.validation_texts)
    result = fit(task, capped(config.loop, config), config.output_dir, progress=progress)
    if trains_encoder(config):
        replace_scorers(config, prepared, accelerator, progress)
    return result


def check_metric(config: TrainingConfig) -> None:
    """Raise ConfigError for a loop.best_metric that captioners of this kind are not measured by."""
    names = list(MEASURED)
    if config.system == "diffusion" and config.text.latent_space == "embedding":
        names.append("embedding_distance")
    if config.text_only.enabled:
        names.append("cider_d_from_text")
    config.loop.score(dict.fromkeys(names, 0.0))


def make_task(config: TrainingConfig, prepared: Prepared, progress: bool) -> Task:
    """The training of the config's system. Raises ConfigError for what does not fit."""
    if config.system == "diffusion":
        return diffusion_task(config, prepared, progress)
    if prepared.words.bert is not None:
        raise ConfigError("text.latent_space=split_bert: only for system=diffusion; remove it")
    if config.system == "enclap":
        return enclap_task(config, prepared)
    if config.system == "prefix":
        return prefix_task(config, prepared)
    if config.system == "recap":
        return recap_task(config, prepared, progress)
    return plain_task(config, prepared)


def diffusion_task(config: TrainingConfig, prepared: Prepared, progress: bool) -> Task:
    """The training of denoiser and latent space."""
    parts, settings = prepared.parts, config.captioner_training
    output = Path(config.output_dir)
    space = make_latent_space(
        config.text,
        prepared.words,
        prepared.captions,
        output,
        config.seed,
        config.loop.mixed_precision == "bf16",
        progress,
    )
    denoiser = make_denoiser(
        config.denoiser,
        space.latent_dim,
        parts.encoder.feature_dim,
        parts.encoder.pooled_dim,
        config.text.max_length,
    )
    if config.initial_model is not None:
        take_over_weights(config.initial_model, denoiser, space)
    trainer = CaptionerTrainer(
        denoiser,
        space,
        make_schedule(config.schedule),
        config.objective,
        parts.tokenizer.pad_token_id,
        settings.compile_denoiser,
    )
    sources = prepared.training, prepared.validation
    return CaptionerTask(trainer, settings, parts, *sources, config.sampling, config.schedule.fit)
