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
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.joint_embedding import joint_features
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.text.tokenizer import decode_captions
from dac_diffusion.training.caption_sources import (
    BatchShape,
    CaptionBatch,
    CaptionSource,
    encode_batch,
)
from dac_diffusion.training.joint_spaces import EmbedTexts

TEXTS_AT_ONCE = 256


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
    of length 1. renormalise: whether the sum is brought back to unit length. normalise: captions
    are lower-cased and without punctuation.
    """

    pool: EmbeddedCaptions
    tokenizer: PreTrainedTokenizerFast
    shape: BatchShape
    seed: int
    noise_variance: float = 0.0
    renormalise: bool = False
    normalise: bool = False

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
        token_ids = encode_batch(self.tokenizer, texts, shape, self.normalise)
        return CaptionBatch(joint_features(vectors), token_ids)

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
        return dataclasses.replace(batch, audio=self._joint(batch.features))

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
