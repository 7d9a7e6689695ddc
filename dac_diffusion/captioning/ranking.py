"""Candidates of a window, and what is needed to rank them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.ranking.caption_scorer import CaptionScorer
from dac_diffusion.ranking.error_filter import error_probabilities
from dac_diffusion.ranking.settings import RankingSettings
from dac_diffusion.text.tokenizer import decode_captions


@dataclass(frozen=True)
class Candidates:
    """What was drawn for a window: N texts, their vectors (N, E), pooled audio (P,).

    log_likelihoods (N,): mean per token by the model that made them; None where it does not count.
    repeats_removed: words taken out of the texts because they stood twice in a row.
    error_probabilities: N, by the filter's detector; None where nothing is filtered, or not yet.
    """

    texts: list[str]
    text_vectors: Tensor
    pooled: Tensor
    log_likelihoods: Tensor | None = None
    repeats_removed: int = 0
    error_probabilities: tuple[float, ...] | None = None

    def __add__(self, more: Candidates) -> Candidates:
        """These and further candidates for the same window."""
        likelihoods = None
        if self.log_likelihoods is not None and more.log_likelihoods is not None:
            likelihoods = torch.cat([self.log_likelihoods, more.log_likelihoods])
        errors = None
        if self.error_probabilities is not None and more.error_probabilities is not None:
            errors = self.error_probabilities + more.error_probabilities
        return Candidates(
            self.texts + more.texts,
            torch.cat([self.text_vectors, more.text_vectors]),
            self.pooled,
            likelihoods,
            self.repeats_removed + more.repeats_removed,
            errors,
        )


def audio_text_cosines(scorer: CaptionScorer, candidates: Candidates, pooled: Tensor) -> Tensor:
    """Cosine (N,) of each candidate with audio of the pooled vector (P,)."""
    # Always one vector at a time: see invariance.py.
    audio = scorer.embed_audio(pooled[None].to(scorer.device, scorer.dtype))  # (1, E)
    return (candidates.text_vectors * audio.float().cpu()).sum(dim=-1)  # (N,)


def detect_errors(candidates: Candidates, settings: RankingSettings) -> Candidates:
    """The candidates with their error probabilities, if there is a filter and it has not said yet.

    A window's own, one round at a time: a detector's last bits may depend on the other captions.
    """
    detector = settings.error_detector
    if detector is None or settings.error_threshold is None:
        return candidates
    if candidates.error_probabilities is not None:
        return candidates
    found = error_probabilities(detector, candidates.texts)
    return replace(candidates, error_probabilities=tuple(found))


def texts_of(tokenizer: PreTrainedTokenizerFast, token_ids: Tensor) -> list[list[str]]:
    """Texts of token ids (B, K, L): B lists of K."""
    flat = decode_captions(tokenizer, token_ids.flatten(0, 1))
    size = token_ids.shape[1]
    return [flat[start : start + size] for start in range(0, len(flat), size)]


def embed_texts(
    scorer: CaptionScorer, tokenizer: PreTrainedTokenizerFast, texts: Sequence[list[str]]
) -> Tensor:
    """Unit vectors (B, K, E) of B lists of K texts."""
    # On a CPU clip by clip: see invariance.py.
    groups = texts
    if scorer.device.type != "cpu":
        groups = [[text for clip in texts for text in clip]]
    vectors = torch.cat([scorer.embed_captions(group, tokenizer) for group in groups])  # (B * K, E)
    return vectors.float().cpu().unflatten(0, (len(texts), -1))  # (B, K, E)
