"""Ranking by a published CLAP (scorer.clap), of encoders whose vectors are its audio embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.encoders.clap_folder import find_clap_folder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder
from dac_diffusion.encoders.laion_clap import LaionClapEncoder, is_laion_file, read_laion_weights
from dac_diffusion.encoders.paired import PairedEncoder
from dac_diffusion.encoders.published_weights import read_weights
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.clap_similarity import ClapScorer

if TYPE_CHECKING:
    from dac_diffusion.training.settings import TrainingConfig

CLAPS = ("htsat", "laion_clap")
HOLD_ANOTHER = ("codes", "paired")  # saved with an encoder inside, known once they are loaded
# Weights that were saved in half precision in between still count as the same ones.
RELATIVE, ABSOLUTE = 1e-2, 1e-5


def check_clap_ranking(config: TrainingConfig) -> None:
    """Raise ConfigError where the clips' vectors cannot be those of the CLAP in scorer.clap."""
    if config.scorer.clap is None:
        return
    if config.system == "prefix" and config.prefix.train_encoder:
        raise ConfigError(
            "scorer.clap: prefix.train_encoder changes the clips' vectors, which are CLAP's no "
            "longer; set it to false, or remove scorer.clap"
        )
    name = _vectors_from(config)
    if name not in (*CLAPS, *HOLD_ANOTHER):
        raise _no_clap(config, name)


def clap_scorer(config: TrainingConfig, encoder: Any) -> ClapScorer:
    """The text side of the CLAP in scorer.clap, for what an encoder pools.

    Raises ConfigError where that is not the same CLAP's audio embedding, CheckpointError as the
    readers of weights do.
    """
    name = str(config.scorer.clap)
    pools = _pooling_encoder(encoder)
    if not isinstance(pools, HtsatEncoder | LaionClapEncoder):
        raise _no_clap(config, "no encoder" if pools is None else type(pools).__name__)
    scorer = ClapScorer.from_published(name, config.scorer.clap_tokenizer)
    length = scorer.text.config.projection_dim
    if length != pools.pooled_dim:
        raise ConfigError(
            f"scorer.clap={name}: its vectors have {length} numbers, those of the clips "
            f"{pools.pooled_dim}; name the CLAP that the clips' vectors are from"
        )
    if not _end_alike(_weights(name), pools.state_dict()):
        raise ConfigError(
            f"scorer.clap={name}: is not the CLAP that the clips' vectors are from; name the same "
            "weights as for their encoder"
        )
    return scorer


def _vectors_from(config: TrainingConfig) -> str:
    """The name of the encoder that makes the clips' vectors."""
    if config.system == "recap" and config.recap.retrieval_encoder is not None:
        return config.recap.retrieval_encoder.name
    if config.system == "enclap" and config.encoder.name != "codes":
        if config.codec.sequence == "none":
            return "no encoder (codec.sequence=none)"
        if config.codec.sequence == "sequence_encoder":
            return config.codec.sequence_encoder.name
    return config.encoder.name


def _pooling_encoder(encoder: Any) -> Any:
    """The encoder that an encoder has its pooled vectors from; None for codes without any."""
    if isinstance(encoder, JointEmbeddingEncoder):
        return _pooling_encoder(encoder.encoder)
    if isinstance(encoder, CodeEncoder | PairedEncoder):
        return _pooling_encoder(encoder.vectors_encoder)
    return encoder


def _weights(name: str) -> dict[str, Any]:
    if is_laion_file(name):
        return read_laion_weights(name)
    return read_weights(find_clap_folder(name))


def _end_alike(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether two audio sides of CLAPs end in the same two layers, as no two trainings do.

    transformers and laion-clap name the layers differently, but in the same order.
    """
    first, second = _last_layers(theirs), _last_layers(ours)
    return [layer.shape for layer in first] == [layer.shape for layer in second] and all(
        torch.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE)
        for one, other in zip(first, second, strict=True)
    )


def _last_layers(weights: Mapping[str, Any]) -> list[Tensor]:
    names = sorted(name for name in weights if "audio_projection." in name)
    return [weights[name].float().cpu() for name in names]


def _no_clap(config: TrainingConfig, name: str) -> ConfigError:
    return ConfigError(
        f"scorer.clap={config.scorer.clap}: compares captions with CLAP's vectors, but the clips' "
        f"vectors are from {name}; have them made by {' or '.join(CLAPS)}, or remove scorer.clap"
    )
