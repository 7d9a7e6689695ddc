"""An evaluation as a JSON object, and as a table to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dac_diffusion import __version__
from dac_diffusion.metrics.bootstrap import Interval
from dac_diffusion.metrics.diversity import FIXED_TOKENS, SEED, SHUFFLES, CorpusDiversity
from dac_diffusion.metrics.evaluation import Evaluation, Scores
from dac_diffusion.metrics.mtld import PAPER, TEN_WORDS, THRESHOLD, CaptionMtld
from dac_diffusion.metrics.rouge import BETA
from dac_diffusion.text.words import tokenize

SCHEMA = "dac-diffusion-evaluation-1"  # another number when a name or a meaning changes
LABELS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "minilm_similarity": "MiniLM similarity",
    "events_named": "events named",
    "foreign_event_share": "share that names a foreign one",
    "bert_score_precision": "BERTScore precision",
    "bert_score_recall": "BERTScore recall",
    "bert_score_f1": "BERTScore F1",
    "best_of_k_cider_d": "best-of-K CIDEr-D",
    "expected_cider_d": "expected CIDEr-D",
    "distinct_1_within_clip": "Distinct-1 within the clip",
    "distinct_2_within_clip": "Distinct-2 within the clip",
    "mbleu_4": "mBLEU-4 (low: diverse)",
    "duplicate_share": "share of duplicates",
    "minilm_within_clip": "MiniLM similarity of pairs",
    "mtld": "MTLD, joined",
    "distinct_1": "Distinct-1",
    "distinct_2": "Distinct-2",
}
_HUMAN = (
    "each clip's first reference, for quality against the clip's other references, "
    "one fewer than the predictions have"
)
Value = float | str | None
Row = tuple[str, Value, Value]  # label, of the predictions, of the human references


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The scores, the settings behind them, and the scores of every clip; values for `json`."""
    sets = evaluation.sets
    human_sets = evaluation.human_sets
    human_quality = evaluation.human_quality
    return {
        "schema": SCHEMA,
        "package_version": __version__,
        "settings": _settings(evaluation),
        "notes": evaluation.notes,
        "corpus": {
            "quality": evaluation.quality.corpus,
            "sets": sets.corpus if sets else None,
            "diversity": asdict(evaluation.diversity),
        },
        "human": {
            "quality": human_quality.corpus if human_quality else None,
            "sets": human_sets.corpus if human_sets else None,
            "diversity": asdict(evaluation.human_diversity),
        },
        "clips": [
            {
                "file_name": clip.file_name,
                "reference_name": clip.reference_name,
                "captions": clip.captions,
                "references": len(clip.references),
                "quality": _of_clip(evaluation.quality, index),
                "sets": _of_clip(sets, index) if sets else None,
                "human_quality": _of_clip(human_quality, index) if human_quality else None,
            }
            for index, clip in enumerate(evaluation.clips)
        ],
    }


def as_table(evaluation: Evaluation) -> str:
    """The corpus scores beside those of the human references, with what they were made of."""
    most = evaluation.captions_per_clip
    references = sorted({len(clip.references) for clip in evaluation.clips})
    fewest = min(len(clip.captions) for clip in evaluation.clips)
    lines = [
        f"{len(evaluation.clips)} clips, {_span(fewest, most)} captions and "
        f"{_span(references[0], references[-1])} references each; "
        f"{empty_captions(evaluation)} captions without words (they score 0)"
    ]
    lines += _section(
        "Quality of the first caption", _score_rows(evaluation.quality, evaluation.human_quality)
    )
    if evaluation.sets is not None:
        rows = _score_rows(evaluation.sets, evaluation.human_sets)
        lines += _section(f"The captions of a clip (K = {most})", rows)
    ours, human = (_diversity_values(d) for d in (evaluation.diversity, evaluation.human_diversity))
    rows = [(label, value, human[label]) for label, value in ours.items()]
    lines += _section("Diversity of the first captions", rows)
    lines += ["", f"human: {_HUMAN}"]
    return "\n".join([*lines, *(f"note: {note}" for note in evaluation.notes)])


def comparison_table(intervals: Mapping[str, Interval]) -> str:
    """Differences with their confidence intervals; a star where the interval leaves out 0."""
    some = next(iter(intervals.values()))
    lines = [
        f"{'Difference':<46}   {some.confidence:.0%} interval "
        f"({some.resamples} resamples of {some.clips} clips; * leaves out 0)"
    ]
    for name, interval in intervals.items():
        star = "" if interval.low <= 0 <= interval.high else " *"
        lines.append(
            f"{LABELS.get(name, name):<34}{interval.estimate:>+12.4f}   "
            f"{interval.low:+.4f} to {interval.high:+.4f}{star}"
        )
    if "mtld" in intervals:
        lines.append(f"MTLD and Distinct: {intervals['mtld'].resamples} half samples instead")
    return "\n".join(lines)


def empty_captions(evaluation: Evaluation) -> int:
    """How many of all captions have no words."""
    return sum(not tokenize(caption) for clip in evaluation.clips for caption in clip.captions)


def _settings(evaluation: Evaluation) -> dict[str, Any]:
    most = evaluation.captions_per_clip
    return {
        "tokenizer": "lower case, apostrophes removed, split at all other punctuation",
        "order": "clips in the order of the predictions; joined so for MTLD",
        "clips": len(evaluation.clips),
        "captions_per_clip": most,
        "clips_with_fewer_captions": sum(len(c.captions) < most for c in evaluation.clips),
        "empty_captions": empty_captions(evaluation),
        "references": sum(len(clip.references) for clip in evaluation.clips),
        "fewest_references": min(len(clip.references) for clip in evaluation.clips),
        "most_references": max(len(clip.references) for clip in evaluation.clips),
        "bleu_reference_length": "closest",
        "rouge_l_beta": BETA,
        "cider_d": "from 0 to 10; document frequencies of the references of the scored clips",
        "mtld_threshold": THRESHOLD,
        "mtld_rules": asdict(PAPER),
        "mtld_ten_words_rules": asdict(TEN_WORDS),
        "distinct_1_fixed_words": FIXED_TOKENS,
        "shuffles": SHUFFLES,
        "shuffle_seed": SEED,
        "human": _HUMAN,
    }


def _score_rows(ours: Scores, human: Scores | None) -> list[Row]:
    return [
        (LABELS.get(name, name), value, human.corpus.get(name) if human else None)
        for name, value in ours.corpus.items()
    ]


def _diversity_values(diversity: CorpusDiversity) -> dict[str, Value]:
    captions = max(1, diversity.captions)
    return {
        "words per caption": diversity.words / captions,
        "vocabulary": str(diversity.vocabulary),
        **{f"Distinct-{n}": value for n, value in enumerate(diversity.distinct, start=1)},
        f"Distinct-1 of {FIXED_TOKENS} words": diversity.distinct_1_fixed,
        "entropy of the words (bits)": diversity.entropy,
        "MTLD, captions joined": diversity.mtld.in_order,
        "MTLD, joined in random order": _spread(diversity.mtld),
        "MTLD, joined, ten-word rule": diversity.mtld_ten_words.in_order,
        "MTLD of each caption, mean": diversity.mtld.per_caption,
        "copied from training": diversity.copied,
    }


def _spread(mtld: CaptionMtld) -> str:
    return f"{mtld.shuffled_mean:.1f} ±{mtld.shuffled_std:.1f}"


def _section(title: str, rows: Sequence[Row]) -> list[str]:
    lines = ["", f"{title:<34}{'predictions':>14}{'human':>14}"]
    for label, ours, human in rows:
        if ours is not None or human is not None:
            lines.append(f"{label:<34}{_show(ours):>14}{_show(human):>14}")
    return lines


def _show(value: Value) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.4f}" if value < 10 else f"{value:.2f}"


def _span(fewest: int, most: int) -> str:
    return str(most) if fewest == most else f"{fewest} to {most}"


def _of_clip(scores: Scores, index: int) -> dict[str, float | None]:
    return {name: values[index] for name, values in scores.clips.items()}
