"""The scores that the tables show, by the names that summary.json gives them."""

from __future__ import annotations

from collections.abc import Sequence

from common import Row

from dac_diffusion.metrics.caption_sets import duplicate_share, mutual_bleu_4, mutual_bleu_counts
from dac_diffusion.metrics.diversity import (
    CorpusDiversity,
    corpus_diversity,
    distinct_n_within_clip,
)
from dac_diffusion.metrics.evaluation import Evaluation


def quality_numbers(evaluation: Evaluation) -> Row:
    """Of captions with references; None for what one caption per clip cannot have."""
    quality = evaluation.quality.corpus
    sets = evaluation.sets.corpus if evaluation.sets is not None else {}
    return {
        "bleu_4": quality["bleu_4"],
        "rouge_l": quality["rouge_l"],
        "cider_d": quality["cider_d"],
        "minilm_similarity": quality.get("minilm_similarity"),
        "best_of_5_cider_d": sets.get("best_of_k_cider_d"),
        "expected_cider_d": sets.get("expected_cider_d"),
        "distinct_1_within_clip": sets.get("distinct_1_within_clip"),
        "distinct_2_within_clip": sets.get("distinct_2_within_clip"),
        "mbleu_4": sets.get("mbleu_4"),
        "duplicate_share": sets.get("duplicate_share"),
        "minilm_within_clip": sets.get("minilm_within_clip"),
        **corpus_numbers(evaluation.diversity),
    }


def diversity_numbers(captions: Sequence[Sequence[str]]) -> Row:
    """Of captions without references: how they differ within a clip and between clips."""
    within: Row = {}
    if max(map(len, captions)) > 1:
        within = {
            "distinct_2_within_clip": distinct_n_within_clip(captions, 2),
            "mbleu_4": mutual_bleu_4(mutual_bleu_counts(captions)),
            "duplicate_share": duplicate_share(captions)[0],
        }
    return within | corpus_numbers(corpus_diversity([of_clip[0] for of_clip in captions]))


def corpus_numbers(diversity: CorpusDiversity) -> Row:
    """Of the first caption of every clip."""
    return {
        "mtld": diversity.mtld.in_order,
        "mtld_shuffled": diversity.mtld.shuffled_mean,
        "mtld_shuffled_std": diversity.mtld.shuffled_std,
        "mtld_per_caption": diversity.mtld.per_caption,
        "distinct_1": diversity.distinct[0],
        "distinct_1_at_1000_words": diversity.distinct_1_fixed,
        "vocabulary": diversity.vocabulary,
        "entropy": diversity.entropy,
    }
