"""The human reference lines: references of the scenes, and people's captions of real recordings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from common import FOLDER, Row
from quality_numbers import corpus_numbers

from dac_diffusion.data.predictions import Clip
from dac_diffusion.data.tables import read_captions
from dac_diffusion.metrics.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from dac_diffusion.metrics.sentence_similarity import SentenceVectors

SHARED_CAPTIONS = FOLDER.parent / "../shared/data/captions"
FILES = {
    "AudioCaps test": "audiocaps/test.csv",
    "Clotho evaluation": "clotho/clotho_captions_evaluation.csv",
}


def add_human(parser: argparse.ArgumentParser) -> None:
    """Adds --human-captions, the folder with AudioCaps' and Clotho's caption files."""
    parser.add_argument(
        "--human-captions", type=Path, default=SHARED_CAPTIONS, help="a folder, or none"
    )


def human_rows(args: argparse.Namespace, minilm: SentenceVectors | None) -> list[Row]:
    """A row for each set of captions by people; none where the folder is not there."""
    rows = []
    for name, file in FILES.items():
        path = args.human_captions / file
        if path.is_file():
            clips = [Clip(k, k, refs, refs) for k, refs in read_captions(path).items()]
            rows.append(_row("people", name, f"{len(clips)} clips", evaluate(clips, minilm=minilm)))
    return rows


def reference_row(evaluation: Evaluation) -> Row:
    """The references of the scenes, which a grammar wrote: the line that these tables aim at."""
    data = f"{len(evaluation.clips)} validation scenes"
    return _row("references", "", data, evaluation)


def _row(system: str, setting: str, data: str, evaluation: Evaluation) -> Row:
    """Each clip's first reference against its others, and the differences among all of them."""
    quality, sets = evaluation.human_quality, evaluation.human_sets
    return {
        "system": system,
        "setting": setting,
        "captions_per_clip": max(len(clip.references) for clip in evaluation.clips),
        "data": data,
        **{k: None if quality is None else quality.corpus.get(k)
           for k in ("bleu_4", "rouge_l", "cider_d", "minilm_similarity")},
        **{k: None if sets is None else sets.corpus.get(k)
           for k in ("distinct_1_within_clip", "distinct_2_within_clip", "mbleu_4",
                     "duplicate_share", "minilm_within_clip")},
        **corpus_numbers(evaluation.human_diversity),
    }  # fmt: skip
