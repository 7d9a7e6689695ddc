"""The trainings of the autoregressive systems, made of their parts and the data.

With `initial_model` the language model and its tokenizer are those of that captioner
(training/building.py), and what is in front of it starts from its weights as well.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from dac_diffusion.autoregressive.plain import AudioProjection, build_network
from dac_diffusion.captioning.pretrained import find_checkpoint
from dac_diffusion.errors import ConfigError
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.training.autoregressive import (
    AutoregressiveTask,
    AutoregressiveTrainer,
    captioner_of,
)
from dac_diffusion.training.enclap import CodeSizes, build_enclap
from dac_diffusion.training.prefix import (
    PrefixTask,
    build_prefix_trainer,
    make_language_model,
    prefix_captioner,
)
from dac_diffusion.training.preparation import Prepared
from dac_diffusion.training.settings import TrainingConfig


def plain_task(config: TrainingConfig, prepared: Prepared) -> AutoregressiveTask:
    """The plain autoregressive captioner."""
    parts, sizes, given = prepared.parts, config.autoregressive, prepared.words.language_model
    network = given.network if given else build_network(sizes, len(parts.tokenizer))
    trainer = AutoregressiveTrainer(
        AudioProjection(
            parts.encoder.feature_dim, parts.encoder.pooled_dim, network.config.d_model
        ),
        network,
        parts.tokenizer.pad_token_id,
        config.label_smoothing,
    )
    _go_on(config, trainer.projection)
    return AutoregressiveTask(
        trainer,
        config.captioner_training,
        prepared.training,
        prepared.validation,
        partial(captioner_of, trainer, parts, config.text.max_length, config.decoding),
    )


def enclap_task(config: TrainingConfig, prepared: Prepared) -> AutoregressiveTask:
    """EnCLAP, EnCLAP++ or CLAP-ART, by the config's codec and sequence vector."""
    parts = prepared.parts
    encoder, length = parts.encoder, config.text.max_length
    sizes = CodeSizes(encoder.num_codebooks, encoder.codebook_size, encoder.pooled_dim)
    given = prepared.words.language_model
    trainer = build_enclap(config.enclap, sizes, parts.tokenizer, length, given)
    _go_on(config, trainer.projection)
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
    _go_on(config, trainer.projection)
    return PrefixTask(
        trainer,
        config.captioner_training,
        prepared.training,
        prepared.validation,
        partial(prefix_captioner, trainer, parts, config.text.max_length, config.decoding),
    )


def _go_on(config: TrainingConfig, projection: nn.Module) -> None:
    """Take over the projection of the captioner to go on from; raises ConfigError for another."""
    if config.initial_model is None:
        return
    folder = find_checkpoint(config.initial_model) / "projection"
    initial = load_saved_model(type(projection), folder)
    try:
        projection.load_state_dict(initial.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"initial_model={config.initial_model}: its {type(projection).__name__} has other "
            "sizes than this config's; use its config, and its encoder (encoder.weights, for "
            "codes with encoder.name=codes)"
        ) from error
