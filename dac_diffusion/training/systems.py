"""The trainings of the autoregressive systems, made of their parts and the data.

With `initial_model` the language model and its tokenizer are those of that captioner
(training/building.py), and what is in front of it starts from its weights as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dac_diffusion.autoregressive.network import check_positions
from dac_diffusion.autoregressive.plain import AudioProjection, build_network
from dac_diffusion.captioning.pretrained import find_checkpoint
from dac_diffusion.captioning.recordings import most_features
from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.retrieval.datastore import space_fingerprint
from dac_diffusion.saved_models import load_saved_model
from dac_diffusion.training.autoregressive import (
    AutoregressiveTask,
    AutoregressiveTrainer,
    captioner_of,
)
from dac_diffusion.training.caption_sources import CachedCaptions, FrozenParts, SceneCaptions
from dac_diffusion.training.enclap import CodeSizes, build_enclap
from dac_diffusion.training.prefix import (
    PrefixTask,
    build_prefix_trainer,
    make_language_model,
    prefix_captioner,
)
from dac_diffusion.training.recap import (
    RetrievedCaptions,
    build_recap_trainer,
    find_captions,
    is_published_clap,
    make_decoder,
    open_datastore,
    recap_captioner,
)
from dac_diffusion.training.settings import TrainingConfig
from dac_diffusion.training.stages import Prepared

# For the plain captioner.
MORE_PLACES = (
    "leave autoregressive.max_frames out or raise it, lower encoder.window_seconds, or set "
    "encoder.frequency_pooling=mean"
)


def plain_task(config: TrainingConfig, prepared: Prepared) -> AutoregressiveTask:
    """The plain autoregressive captioner."""
    parts, sizes, given = prepared.parts, config.autoregressive, prepared.words.language_model
    longest = most_features(parts.encoder) + 1  # behind the pooled vector
    places = max(longest, config.text.max_length)
    network = given.network if given else build_network(sizes, len(parts.tokenizer), places)
    check_positions(network, longest, config.text.max_length, MORE_PLACES)
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
    trainer = build_prefix_trainer(config.prefix, model, parts.encoder, config.text.max_length)
    _go_on(config, trainer.projection)
    return PrefixTask(
        trainer,
        config.captioner_training,
        prepared.training,
        prepared.validation,
        partial(prefix_captioner, trainer, parts, config.text.max_length, config.decoding),
    )


def recap_task(config: TrainingConfig, prepared: Prepared, progress: bool) -> AutoregressiveTask:
    """RECAP: the training clips' captions, or a datastore's, are looked up before the training."""
    settings, parts = config.recap, prepared.parts
    model = prepared.words.language_model or make_decoder(settings, parts.tokenizer, config.seed)
    trainer = build_recap_trainer(
        settings, model, parts.encoder.feature_dim, config.text.max_length
    )
    _go_on(config, trainer.projection)
    source = prepared.training
    assert isinstance(source, SceneCaptions | CachedCaptions)  # the settings exclude the others
    clips = source.clips()
    space = _retrieval_space(config, parts)
    datastore = open_datastore(
        settings,
        clips.captions_by_name(),
        space.embed_texts,
        space.fingerprint,
        parts.tokenizer,
        progress,
    )
    vectors = space.embed_pooled(clips.pooled)
    found = find_captions(settings, datastore, clips.names, vectors, progress)
    return AutoregressiveTask(
        trainer,
        config.captioner_training,
        RetrievedCaptions(source, found, settings.longest_caption),
        prepared.validation,
        partial(
            recap_captioner,
            trainer,
            parts,
            config.text.max_length,
            config.decoding,
            settings,
            datastore,
        ),
    )


@dataclass(frozen=True)
class _RetrievalSpace:
    """embed_texts: N texts to (N, E); embed_pooled: pooled vectors (N, P) to (N, E)."""

    embed_texts: Callable[[Sequence[str]], Tensor]
    embed_pooled: Callable[[Tensor], Tensor]
    fingerprint: str


def _retrieval_space(config: TrainingConfig, parts: FrozenParts) -> _RetrievalSpace:
    if config.recap.space == "scorer":
        return _RetrievalSpace(
            partial(parts.scorer.embed_captions, tokenizer=parts.tokenizer),
            torch.no_grad()(parts.scorer.embed_audio),
            space_fingerprint(parts.scorer),
        )
    encoder = config.recap.retrieval_encoder or config.encoder
    if encoder.weights is None or not is_published_clap(encoder.name, encoder.weights):
        raise ConfigError(
            "recap.space=clap: needs encoder.name=htsat with the weights of a published CLAP; name "
            "them, or set recap.space=scorer"
        )
    texts = ClapTextEncoder.from_published(encoder.weights).to(config.data.device)
    return _RetrievalSpace(texts, partial(F.normalize, dim=-1), space_fingerprint(texts.model))


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
