"""The trainings of the published autoregressive systems, made of their parts and the data."""

from __future__ import annotations

from functools import partial

from dac_diffusion.training.autoregressive import AutoregressiveTask, captioner_of
from dac_diffusion.training.enclap import CodeSizes, build_enclap
from dac_diffusion.training.prefix import (
    PrefixTask,
    build_prefix_trainer,
    make_language_model,
    prefix_captioner,
)
from dac_diffusion.training.preparation import Prepared
from dac_diffusion.training.settings import TrainingConfig


def enclap_task(config: TrainingConfig, prepared: Prepared) -> AutoregressiveTask:
    """EnCLAP, EnCLAP++ or CLAP-ART, by the config's codec and sequence vector."""
    parts = prepared.parts
    encoder, length = parts.encoder, config.text.max_length
    sizes = CodeSizes(encoder.num_codebooks, encoder.codebook_size, encoder.pooled_dim)
    published = prepared.words.language_model
    trainer = build_enclap(config.enclap, sizes, parts.tokenizer, length, published)
    return AutoregressiveTask(
        trainer,
        config.captioner_training,
        prepared.training,
        prepared.validation,
        partial(captioner_of, trainer, parts, length, config.decoding),
    )


def prefix_task(config: TrainingConfig, prepared: Prepared) -> AutoregressiveTask:
    """CED + Q-Former + Llama or BART."""
    parts = prepared.parts
    model = prepared.words.language_model or make_language_model(config.prefix, parts.tokenizer)
    trainer = build_prefix_trainer(config.prefix, model, parts.encoder)
    return PrefixTask(
        trainer,
        config.captioner_training,
        prepared.training,
        prepared.validation,
        partial(prefix_captioner, trainer, parts, config.text.max_length, config.decoding),
    )
