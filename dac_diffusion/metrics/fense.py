"""FENSE and SPIDEr-FL: scores that fall by 90 % where a caption is not fluent (Zhou et al. 2022).

FENSE is the mean cosine of a caption's sentence vector with those of its references; SPIDEr-FL is
SPIDEr. Fluency is judged by the error detector published with FENSE
(dac_diffusion/ranking/error_detection.py). All models are local; nothing is downloaded. Sentence
model: paraphrase-TinyBERT-L6-v2 (sentence-transformers' folder; the DCASE challenge uses it).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dac_diffusion.metrics.external import missing_files, require_available
from dac_diffusion.metrics.inputs import check_pairs
from dac_diffusion.metrics.java_metrics import Spider
from dac_diffusion.ranking.error_detection import ERROR_THRESHOLD, FluencyErrorDetector
from dac_diffusion.text.words import tokenize

PENALTY = 0.9


@dataclass(frozen=True)
class Fense:
    """FENSE (-1 to 1): cosine of sentence vectors, lowered where the caption is not fluent.

    sentence_model: a folder of sentence-transformers with a BERT and mean pooling.
    """

    sentence_model: Path
    detector: FluencyErrorDetector

    @property
    def name(self) -> str:
        """The key in results; names both models, as other models give other values."""
        return f"fense_{self.sentence_model.name}_{self.detector.checkpoint.stem}"

    def missing(self) -> list[str]:
        """All that is absent, each with the way out."""
        files = ("config.json", "tokenizer.json", "model.safetensors")
        way_out = "the folder of sentence-transformers/paraphrase-TinyBERT-L6-v2 has them"
        lacking = missing_files(self.sentence_model, files, way_out)
        unfit = [] if lacking else _unfit_sentence_model(self.sentence_model)
        return [*lacking, *unfit, *self.detector.missing()]

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """FENSE of each clip; a caption without words scores 0.

        Raises MissingExtraError for what is missing, DataError for lists that do not fit together,
        CheckpointError for damaged models.
        """
        from dac_diffusion.metrics.sentence_similarity import embed_captions
        from dac_diffusion.text.sentence_encoder import load_sentence_encoder

        check_pairs(self.name, candidates, references)
        require_available([self])
        encoder = load_sentence_encoder(self.sentence_model)
        encoder.model.to(self.detector.device)
        ours = embed_captions(candidates, encoder)  # (N, D)
        theirs = embed_captions([text for group in references for text in group], encoder)
        groups = theirs.split([len(group) for group in references])
        cosines = [
            (group @ vector).mean().item() if tokenize(caption) else 0.0  # (R, D) @ (D,)
            for caption, vector, group in zip(candidates, ours, groups, strict=True)
        ]
        return penalize(candidates, cosines, self.detector)


@dataclass(frozen=True)
class SpiderFl:
    """SPIDEr-FL (0 to 5.5): SPIDEr, lowered where the caption is not fluent (DCASE 2023)."""

    detector: FluencyErrorDetector
    spider: Spider = field(default_factory=Spider)

    @property
    def name(self) -> str:
        """The key in results."""
        spider = self.spider.name.removeprefix("spider_")
        return f"spider_fl_{spider}_{self.detector.checkpoint.stem}"

    def missing(self) -> list[str]:
        """All that is absent, each with the way out."""
        return [*self.spider.missing(), *self.detector.missing()]

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """SPIDEr-FL of each clip; the mean is the published value. Errors as for both parts."""
        check_pairs(self.name, candidates, references)
        require_available([self])
        return penalize(candidates, self.spider.score(candidates, references), self.detector)


def penalize(
    captions: Sequence[str], scores: Sequence[float], detector: FluencyErrorDetector
) -> list[float]:
    """A tenth of the score where the probability of an error is above 0.9."""
    return [
        score * (1 - PENALTY) if probability > ERROR_THRESHOLD else score
        for score, probability in zip(scores, detector.probabilities(captions), strict=True)
    ]


def _unfit_sentence_model(folder: Path) -> list[str]:
    """What keeps a folder of sentence-transformers from being a BERT with mean pooling."""
    config = _read_json(folder / "config.json", {})
    pooling = _read_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    layers = _read_json(folder / "modules.json", [])
    modes = {pooling.get("pooling_mode")} | {
        key.removeprefix("pooling_mode_") for key, used in pooling.items() if used is True
    }
    kinds = {str(layer.get("type")).rsplit(".", 1)[-1] for layer in layers}
    unfit = []
    if config.get("model_type") != "bert":
        unfit.append(
            f"a sentence model of the BERT kind, {folder} holds {config.get('model_type')}"
        )
    if not modes <= {None, "mean", "mean_tokens"}:
        unfit.append(f"a sentence model with mean pooling only, see {folder / '1_Pooling'}")
    if not kinds <= {"Transformer", "Pooling", "Normalize"}:
        unfit.append(f"a sentence model with no layer after pooling, see {folder / 'modules.json'}")
    return unfit


def _read_json(path: Path, without: Any) -> Any:
    """The content of a file; `without` where it is absent, no JSON or of another kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return without
    return content if isinstance(content, type(without)) else without
