"""The joint audio-text spaces in which captions can stand for audio (training/text_only.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.training.caption_sources import FrozenParts

# GELU(x + 10) - 10 is x, to 1e-6 for x > -5: it makes a scorer's audio projection the identity.
IDENTITY_SHIFT = 10.0

EmbedTexts = Callable[[Sequence[str]], Tensor]  # N texts -> unit vectors (N, E)


@dataclass(frozen=True)
class JointSpace:
    """Both sides of a joint audio-text space of E dimensions.

    encoder: hears recordings. embed_texts: texts to unit vectors (N, E). embed_pooled: what the
    encoder inside pools, (B, P), to unit vectors (B, E). scorer: ranks captions by vectors that
    `encoder` pools, with captions as `tokenizer` cuts them; None where it has yet to be trained.
    """

    encoder: JointEmbeddingEncoder
    embed_texts: EmbedTexts
    embed_pooled: Callable[[Tensor], Tensor]
    scorer: AudioTextScorer | None = None
    tokenizer: PreTrainedTokenizerFast | None = None


def small_space(parts: FrozenParts) -> JointSpace:
    """The space that the small encoder and its scorer were trained to share."""
    scorer = parts.scorer
    encoder = JointEmbeddingEncoder.from_encoder(parts.encoder, scorer.project_audio)
    return JointSpace(
        encoder.requires_grad_(False),
        partial(scorer.embed_captions, tokenizer=parts.tokenizer),
        scorer.embed_audio,
        without_audio_projection(scorer),
        parts.tokenizer,
    )


def clap_space(encoder: HtsatEncoder, weights: str | Path, device: str) -> JointSpace:
    """The space of a published CLAP; raises CheckpointError as ClapTextEncoder does."""
    texts = ClapTextEncoder.from_published(weights).to(device)
    joint = JointEmbeddingEncoder.from_encoder(encoder)
    return JointSpace(joint.requires_grad_(False), texts, partial(F.normalize, dim=-1))


def without_audio_projection(scorer: AudioTextScorer) -> AudioTextScorer:
    """The scorer for an encoder that does its audio projection: the same scores to about 1e-6.

    For pooled vectors of JointEmbeddingEncoder, whose elements have about unit variance.
    """
    config = {k: v for k, v in scorer.config.items() if not k.startswith("_")}
    size = config["embedding_dim"]
    joint = AudioTextScorer(**{**config, "pooled_dim": size})
    joint.load_state_dict(
        {
            **scorer.state_dict(),
            "project_audio.0.weight": torch.eye(size),
            "project_audio.0.bias": torch.full((size,), IDENTITY_SHIFT),
            "project_audio.2.weight": torch.eye(size),
            "project_audio.2.bias": torch.full((size,), -IDENTITY_SHIFT),
        }
    )
    return joint.eval().requires_grad_(False)
