"""Scores of candidates, and which of them are the best of a window and of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dac_diffusion.captioning.ranking import Candidates, audio_text_cosines, detect_errors
from dac_diffusion.captioning.results import Caption, ScoreParts
from dac_diffusion.captioning.selection import best_captions
from dac_diffusion.ranking.agreement import mean_agreement
from dac_diffusion.ranking.caption_scorer import CaptionScorer
from dac_diffusion.ranking.hybrid import hybrid_scores
from dac_diffusion.ranking.settings import RankingSettings


@dataclass(frozen=True)
class Ranker:
    """Orders the candidates of windows, and their best ones for the whole of a recording."""

    scorer: CaptionScorer
    settings: RankingSettings

    def best(
        self, drawn: Sequence[Candidates], lengths: Sequence[int], count: int
    ) -> tuple[list[tuple[Caption, ...]], tuple[Caption, ...]]:
        """The best captions of each window of a recording, and the best of those for all of it.

        lengths: of the windows. For the whole, the cosine is that with the mean of the windows'
        pooled vectors, weighted by their lengths. Agreement is with the candidates of all windows,
        which count by the lengths in the same way: the mean over what may be heard anywhere in the
        recording, so that a caption of what lasts comes before one of what only its own window
        has. Likelihood is that in the caption's own window. Normalisation is over all candidates.
        """
        drawn = [detect_errors(candidates, self.settings) for candidates in drawn]
        threshold, redundancy = self.settings.error_threshold, self.settings.redundancy_weight
        of_windows = [
            best_captions(self._scored([one], [1], one.pooled), count, threshold, redundancy)
            for one in drawn
        ]
        if len(drawn) == 1:
            return of_windows, of_windows[0]
        sizes = torch.tensor(lengths, dtype=torch.float32)
        pooled = torch.stack([candidates.pooled for candidates in drawn])  # (windows, P)
        whole = (pooled * (sizes / sizes.sum())[:, None]).sum(dim=0)  # (P,)
        scored = iter(self._scored(drawn, lengths, whole))
        remaining: list[Caption] = []
        for candidates, chosen in zip(drawn, of_windows, strict=True):
            texts = {caption.text for caption in chosen}
            against_whole = [next(scored) for _ in candidates.texts]
            remaining += [caption for caption in against_whole if caption.text in texts]
        return of_windows, best_captions(remaining, count, threshold, redundancy)

    def _scored(
        self, drawn: Sequence[Candidates], lengths: Sequence[int], pooled: Tensor
    ) -> list[Caption]:
        """All N candidates of some windows, scored against audio of the pooled vector (P,)."""
        weights = self.settings.weights
        texts = [text for candidates in drawn for text in candidates.texts]
        # A window at a time, so that its sums do not depend on the other windows.
        cosines = torch.cat([audio_text_cosines(self.scorer, one, pooled) for one in drawn])  # (N,)
        likelihoods = agreements = None
        if weights.likelihood != 0:
            known = [one.log_likelihoods for one in drawn if one.log_likelihoods is not None]
            likelihoods = torch.cat(known)  # (N,)
        if weights.agreement != 0:
            agreements = torch.tensor(mean_agreement(texts, _shares(drawn, lengths)))  # (N,)
        scores = hybrid_scores(
            weights, self.settings.normalisation, cosines, likelihoods, agreements
        )
        parts = zip(
            cosines.tolist(),
            [None] * len(texts) if likelihoods is None else likelihoods.tolist(),
            [None] * len(texts) if agreements is None else agreements.tolist(),
            [error for one in drawn for error in _errors(one)],
            strict=True,
        )
        return [
            Caption(text, score, ScoreParts(*of_text))
            for text, score, of_text in zip(texts, scores.tolist(), parts, strict=True)
        ]


def _errors(candidates: Candidates) -> Sequence[float | None]:
    return candidates.error_probabilities or [None] * len(candidates.texts)


def _shares(drawn: Sequence[Candidates], lengths: Sequence[int]) -> list[float]:
    """How much each candidate counts among the others: together as much as its window is long."""
    each = [length / len(one.texts) for one, length in zip(drawn, lengths, strict=True)]
    # Exactly 1 in a single window, and in windows of one length.
    return [share / max(each) for one, share in zip(drawn, each, strict=True) for _ in one.texts]
