"""All scores of predicted captions, with those of the human references beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dac_diffusion.data.predictions import Clip
from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bleu import MAX_N, bleu
from dac_diffusion.metrics.caption_sets import (
    ScoreClips,
    best_of,
    duplicate_share,
    expected_of,
    mutual_bleu_4,
    mutual_bleu_4_of_clips,
    mutual_bleu_counts,
    score_each_caption,
)
from dac_diffusion.metrics.cider import CiderD
from dac_diffusion.metrics.diversity import CorpusDiversity, corpus_diversity, distinct_n
from dac_diffusion.metrics.rouge import rouge_l

if TYPE_CHECKING:  # they bring torch, which the other metrics do without
    from dac_diffusion.metrics.bert_score import BertScorer
    from dac_diffusion.metrics.sentence_similarity import SentenceVectors

ONE_CLIP = (
    "CIDEr-D is null: with a single clip every n-gram occurs in all the clips, so that all weights "
    "and every score are 0"
)
MUTUAL_BLEU = "mbleu_4"
BLEU_NAMES = tuple(f"bleu_{n}" for n in range(1, MAX_N + 1))


@dataclass(frozen=True)
class ExtraMetric:
    """A metric from elsewhere: one score for each clip, whose mean is the corpus score.

    score: takes one caption per clip and the clips' references. over_sets: whether the best and
    the mean of all K captions are scored too, which takes K times as long. corpus: where the
    corpus score is not that mean, gives it together with the scores of the clips.
    """

    name: str
    score: Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[float]]
    over_sets: bool = False
    corpus: Callable[[Sequence[str], Sequence[Sequence[str]]], Any] | None = None


@dataclass(frozen=True)
class Scores:
    """Values by the name of the metric, of the corpus and of each clip; None where undefined."""

    corpus: dict[str, float | None]
    clips: dict[str, list[float | None]]

    def add(self, name: str, corpus: float | None, clips: Sequence[float | None]) -> None:
        """Enter one metric."""
        self.corpus[name] = corpus
        self.clips[name] = list(clips)


@dataclass(frozen=True)
class Evaluation:
    """The scores of predicted captions, in the order of `clips`.

    quality: of the first caption of each clip. sets: of all K captions, None where K is 1.
    diversity: of the first captions, joined in the order of the clips.
    human_quality: of each clip's first reference against its others, None where a clip has only
    one. human_sets: of the first K references of each clip. human_diversity: of the first ones.
    notes: one line for each value that is undefined, with the reason.
    """

    clips: Sequence[Clip]
    quality: Scores
    sets: Scores | None
    diversity: CorpusDiversity
    human_quality: Scores | None
    human_sets: Scores | None
    human_diversity: CorpusDiversity
    notes: list[str]

    @property
    def captions_per_clip(self) -> int:
        """K, the largest number of captions of a clip."""
        return max(len(clip.captions) for clip in self.clips)


def evaluate(
    clips: Sequence[Clip],
    training_captions: Sequence[str] | None = None,
    minilm: SentenceVectors | None = None,
    bert: BertScorer | None = None,
    extra: Sequence[ExtraMetric] = (),
) -> Evaluation:
    """Score the captions of clips and, beside them, the clips' own references.

    training_captions: to count captions copied from them. minilm, bert: models for sentence
    similarity and BERTScore; without them these are left out. Raises DataError without clips.
    """
    if not clips:
        raise DataError("an evaluation needs at least one clip; got none")
    first = [clip.captions[0] for clip in clips]
    references = [clip.references for clip in clips]
    human = [of_clip[0] for of_clip in references]
    most = max(len(clip.captions) for clip in clips)
    notes = [ONE_CLIP] if len(clips) == 1 else []
    human_quality = None
    if all(len(of_clip) > 1 for of_clip in references):
        others = [of_clip[1:] for of_clip in references]
        human_quality = quality_scores(human, others, minilm, bert, extra)
    else:
        notes.append("no human quality: a clip has only one reference, which leaves no other")
    sets = human_sets = None
    if most > 1:
        sets = _set_scores(clips, minilm, extra)
        human_sets = Scores({}, {})
        _add_differences(human_sets, [of_clip[:most] for of_clip in references], minilm)
    return Evaluation(
        clips=clips,
        quality=quality_scores(first, references, minilm, bert, extra),
        sets=sets,
        diversity=corpus_diversity(first, training_captions),
        human_quality=human_quality,
        human_sets=human_sets,
        human_diversity=corpus_diversity(human, training_captions),
        notes=notes,
    )


def quality_scores(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    minilm: SentenceVectors | None = None,
    bert: BertScorer | None = None,
    extra: Sequence[ExtraMetric] = (),
) -> Scores:
    """BLEU, ROUGE-L, CIDEr-D and what else is given, of one caption per clip.

    CIDEr-D is None for a single clip. Raises DataError where the lists do not fit together.
    """
    scores = Scores({}, {})
    corpus_bleu, clip_bleu = bleu(candidates, references)
    for n, name in enumerate(BLEU_NAMES):
        scores.add(name, corpus_bleu[n], [values[n] for values in clip_bleu])
    scores.add("rouge_l", *rouge_l(candidates, references))
    if len(candidates) > 1:
        _add_mean(scores, "cider_d", _cider_d(references)(candidates))
    else:
        scores.add("cider_d", None, [None])
    if minilm is not None:
        from dac_diffusion.metrics.sentence_similarity import METRIC, minilm_similarity

        scores.add(METRIC, *minilm_similarity(candidates, references, minilm))
    if bert is not None:
        values = bert.score(candidates, references)
        _add_mean(scores, "bert_score_precision", [value.precision for value in values])
        _add_mean(scores, "bert_score_recall", [value.recall for value in values])
        _add_mean(scores, "bert_score_f1", [value.f1 for value in values])
    for metric in extra:
        if metric.corpus is None:
            _add_mean(scores, metric.name, _score_extra(metric, references, candidates))
        else:
            scores.add(metric.name, *metric.corpus(candidates, references))
    return scores


def _set_scores(
    clips: Sequence[Clip], minilm: SentenceVectors | None, extra: Sequence[ExtraMetric]
) -> Scores:
    """How good the best and the mean caption of each clip is, and how the captions differ."""
    captions = [clip.captions for clip in clips]
    references = [clip.references for clip in clips]
    scores = Scores({}, {})
    judged: dict[str, ScoreClips] = {}
    if len(clips) > 1:
        judged["cider_d"] = _cider_d(references)
    else:
        scores.add("best_of_k_cider_d", None, [None])
        scores.add("expected_cider_d", None, [None])
    for metric in extra:
        if metric.over_sets:
            judged[metric.name] = partial(_score_extra, metric, references)
    for name, score in judged.items():
        each = score_each_caption(captions, score)
        scores.add(f"best_of_k_{name}", *best_of(each))
        scores.add(f"expected_{name}", *expected_of(each))
    _add_differences(scores, captions, minilm)
    return scores


def _add_differences(
    scores: Scores, captions: Sequence[Sequence[str]], minilm: SentenceVectors | None
) -> None:
    for n in (1, 2):
        name = f"distinct_{n}_within_clip"
        _add_mean(scores, name, [distinct_n(of_clip, n) for of_clip in captions])
    counts = mutual_bleu_counts(captions)
    scores.add(MUTUAL_BLEU, mutual_bleu_4(counts), mutual_bleu_4_of_clips(counts))
    scores.add("duplicate_share", *duplicate_share(captions))
    if minilm is not None:
        from dac_diffusion.metrics.sentence_similarity import similarity_within_clip

        scores.add("minilm_within_clip", *similarity_within_clip(captions, minilm))


def _cider_d(references: Sequence[Sequence[str]]) -> ScoreClips:
    scorer = CiderD(references)
    return lambda captions: [scorer.score(caption, clip) for clip, caption in enumerate(captions)]


def _score_extra(
    metric: ExtraMetric, references: Sequence[Sequence[str]], captions: Sequence[str]
) -> list[float]:
    values = [float(value) for value in metric.score(captions, references)]
    if len(values) != len(captions) or not all(map(math.isfinite, values)):
        raise DataError(
            f"{metric.name} gave {len(values)} values for {len(captions)} clips, "
            f"{sum(map(math.isfinite, values))} of them numbers; it cannot be reported"
        )
    return values


def _add_mean(scores: Scores, name: str, of_clips: Sequence[float]) -> None:
    scores.add(name, sum(of_clips) / len(of_clips), of_clips)
