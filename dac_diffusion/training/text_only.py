"""Training a captioner from captions alone (Deshmukh et al., arXiv 2309.07372).

The captioner learns to write a caption from that caption's own vector in a joint audio-text space.
When it captions, the vector of the audio stands there (encoders/joint_embedding.py). Gaussian
noise on the vectors keeps it from relying on what only vectors of texts have: the modality gap.
Audio is used by nothing but the validation, and by that only where there is some.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from dac_diffusion.data.tables import read_captions
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.clap_text import ClapTextEncoder
from dac_diffusion.encoders.htsat import HtsatEncoder
from dac_diffusion.encoders.joint_embedding import JointEmbeddingEncoder, joint_features
from dac_diffusion.encoders.loading import load_encoder
from dac_diffusion.errors import DataError
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.tokenizer import decode_captions, encode_captions
from dac_diffusion.text.words import tokenize
from dac_diffusion.training.building import Words, make_words
from dac_diffusion.training.caption_sources import (
    BatchShape,
    CachedCaptions,
    CaptionBatch,
    CaptionSource,
    FrozenParts,
    open_caches,
)
from dac_diffusion.training.caption_vectors import embed_with_scorer
from dac_diffusion.training.recordings import prepare_caches
from dac_diffusion.training.settings import TextOnlyConfig, TrainingConfig

TEXTS_AT_ONCE = 256
# GELU(x + 10) - 10 is x, to 1e-6 for x > -5: it makes a scorer's audio projection the identity.
IDENTITY_SHIFT = 10.0

EmbedTexts = Callable[[Sequence[str]], Tensor]  # N texts -> unit vectors (N, E)


@dataclass(frozen=True)
class Material:
    """What a training from captions alone is made of.

    space, words: how captions become vectors and tokens. groups, held_out: the captions of every
    clip, to learn from and to validate on. audio: the sound of the held-out clips, if there is any.
    """

    space: JointSpace
    words: Words
    groups: Sequence[Sequence[str]]
    held_out: Sequence[Sequence[str]]
    audio: JointAudio | None


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
        partial(embed_with_scorer, scorer, parts.tokenizer),
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


def clap_material(
    config: TrainingConfig, shape: BatchShape, accelerator: Any, progress: bool
) -> Material:
    """CLAP's space and captions from tables; audio only of data.validation.

    Raises ConfigError, and what the readers of tables, data and weights raise.
    """
    wanted, settings = config.encoder, config.text_only
    groups = read_tables(settings.captions)
    words = make_words(config.text, [text for own in groups for text in own], config.seed)
    held_out: Sequence[Sequence[str]]
    if not config.data.validation:
        held_out, source = read_tables(settings.validation_captions), None
        encoder = load_encoder(wanted.name, str(wanted.weights), wanted.window_seconds)
    else:
        # prepare_caches wants recordings to train on as well; the same ones cost nothing more.
        data = dataclasses.replace(config.data, training=config.data.validation)
        both = dataclasses.replace(config, data=data, text_only=TextOnlyConfig())
        with accelerator.main_process_first():
            encoder, folders = prepare_caches(both, progress, accelerator.is_main_process)
        caches = open_caches(folders[1])
        held_out = [cache.captions(i) for cache in caches for i in range(len(cache))]
        source = CachedCaptions(caches, words.tokenizer, shape, config.seed)
    space = clap_space(encoder, str(wanted.weights), config.data.device)
    audio = None if source is None else JointAudio(source, space.embed_pooled)
    return Material(space, words, groups, held_out, audio)


def read_tables(paths: Sequence[str]) -> list[list[str]]:
    """The captions of every clip of some tables, of all after one another.

    Raises DataError for a table that cannot be read or holds no captions.
    """
    groups: list[list[str]] = []
    for path in paths:
        found = [[text for text in own if tokenize(text)] for own in read_captions(path).values()]
        if not any(found):
            raise DataError(f"{path}: holds no captions; give a table that has some")
        groups += [own for own in found if own]
    return groups


@dataclass(frozen=True)
class EmbeddedCaptions:
    """The captions of N clips with their vectors, computed once.

    groups: the captions of every clip, at least one; starts (N,): the place of a clip's first
    caption among all; rows: the vector of every caption among `vectors` (U, E), as captions that
    read alike share theirs.
    """

    groups: Sequence[Sequence[str]]
    starts: np.ndarray
    rows: Tensor
    vectors: Tensor

    def __len__(self) -> int:
        return len(self.groups)

    def select(self, clips: np.ndarray, captions: np.ndarray) -> Tensor:
        """Unit vectors (B, E) of one caption, by its number, of each of B clips."""
        return self.vectors[self.rows[torch.from_numpy(self.starts[clips] + captions)]]


def embed_captions(
    groups: Sequence[Sequence[str]], embed_texts: EmbedTexts, progress: bool = True
) -> EmbeddedCaptions:
    """The vectors of all captions of some clips."""
    texts = [text for own in groups for text in own]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    different = list(places)
    parts = []
    with tqdm(total=len(different), desc="embedding captions", disable=not progress) as bar:
        for start in range(0, len(different), TEXTS_AT_ONCE):
            parts.append(embed_texts(different[start : start + TEXTS_AT_ONCE]).float().cpu())
            bar.update(len(parts[-1]))
    sizes = [len(own) for own in groups]
    return EmbeddedCaptions(
        groups,
        np.cumsum([0, *sizes[:-1]]),
        torch.tensor([places[text] for text in texts]),
        torch.cat(parts),
    )


@dataclass(frozen=True)
class TextOnlyCaptions:
    """Captions and, in place of audio, their own vectors with noise; a CaptionSource.

    Every clip is equally likely, then each of its captions. shape.captions: 1, or more for other
    captions of the same clip as further targets (some twice where it has fewer).
    noise_variance: of the Gaussian noise on each element of the unit vector, before the scaling
    by sqrt(E). The expected squared length of the noise is thus E noise_variance, beside a vector
    of length 1. renormalise: whether the sum is brought back to unit length.
    """

    pool: EmbeddedCaptions
    tokenizer: PreTrainedTokenizerFast
    shape: BatchShape
    seed: int
    noise_variance: float = 0.0
    renormalise: bool = False

    def batch(self, step: int, rank: int) -> CaptionBatch:
        """Random captions behind their noisy vectors; token_ids (B, K, L), their own first."""
        rng = np.random.default_rng([self.seed, 4, step, rank])
        shape = self.shape
        clips = rng.integers(len(self.pool), size=shape.clips)
        chosen = np.zeros(shape.clips, dtype=np.int64)
        texts: list[str] = []
        for row, clip in enumerate(clips):
            own = self.pool.groups[int(clip)]
            order = rng.permutation(max(len(own), shape.captions)) % len(own)
            chosen[row] = order[0]
            texts += [own[i] for i in order[: shape.captions]]
        vectors = self.pool.select(clips, chosen)  # (B, E)
        noise = rng.standard_normal(tuple(vectors.shape), dtype=np.float32)
        vectors = vectors + self.noise_variance**0.5 * torch.from_numpy(noise)
        if self.renormalise:
            vectors = F.normalize(vectors, dim=-1)
        token_ids = encode_captions(self.tokenizer, texts, shape.length)
        return CaptionBatch(
            joint_features(vectors), token_ids.view(shape.clips, shape.captions, shape.length)
        )

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """The first clips, each by its first caption's vector without noise.

        Their references are the other captions, so that none is compared with itself; of a clip
        with a single caption, that one.
        """
        count = min(count, len(self.pool))
        places = np.arange(count)
        vectors = self.pool.select(places, np.zeros(count, dtype=np.int64))  # (count, E)
        groups = [list(own) for own in self.pool.groups[:count]]
        return joint_features(vectors), [own[1:] or own for own in groups]


@dataclass(frozen=True)
class JointAudio:
    """Clips of another source, whose audio comes as vectors of the joint space."""

    source: CaptionSource
    embed_pooled: Callable[[Tensor], Tensor]

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The source's."""
        return self.source.tokenizer

    def batch(self, step: int, rank: int) -> CaptionBatch:
        """The source's batch."""
        batch = self.source.batch(step, rank)
        return dataclasses.replace(batch, audio=self._joint(batch.audio))

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """The source's first clips, and their references."""
        audio, references = self.source.first(count)
        return self._joint(audio), references

    @torch.no_grad()
    def _joint(self, audio: AudioFeatures) -> AudioFeatures:
        return joint_features(self.embed_pooled(audio.pooled))


class WithTextValidation:
    """A captioner's task that is also evaluated on texts: `cider_d_from_text` beside `cider_d`.

    The difference is what the gap between the vectors of audio and of texts costs.
    """

    def __init__(self, task: Any, texts: CaptionSource) -> None:
        """task: a CaptionerTask or AutoregressiveTask, whose are all methods but `evaluate`."""
        self.task, self.texts = task, texts
        self.model: nn.Module = task.model
        self.batch, self.after_step, self.export = task.batch, task.after_step, task.export
        self.state, self.load_state = task.state, task.load_state

    def evaluate(self, step: int, model: nn.Module, writer: Any) -> dict[str, float]:
        """The task's own evaluation, and CIDEr-D of captions from vectors of texts."""
        report = self.task.evaluate(step, model, writer)
        vectors, references = self.texts.first(self.task.config.evaluation_clips)
        texts = decode_captions(self.texts.tokenizer, self.task.sample(vectors))
        return {**report, "cider_d_from_text": cider_d(texts, references)[0]}
