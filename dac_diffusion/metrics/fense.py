"""FENSE and SPIDEr-FL: scores that fall by 90 % where a caption is not fluent (Zhou et al. 2022).

FENSE is the mean cosine of a caption's sentence vector with those of its references; SPIDEr-FL is
SPIDEr. Fluency is judged by the error detector published with FENSE, a BERT classifier whose last
output is the probability of any error. All models are local; nothing is downloaded:

sentence model: paraphrase-TinyBERT-L6-v2 (sentence-transformers' folder; the DCASE challenge uses
it). error detector: echecker_clotho_audiocaps_base.ckpt (release V0.1 of blmoistawinde/fense). Its
encoder: config.json and vocab.txt of bert-base-uncased (of prajjwal1/bert-tiny for ..._tiny.ckpt).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dac_diffusion.errors import CheckpointError
from dac_diffusion.metrics.external import missing_files, require_available
from dac_diffusion.metrics.inputs import check_pairs
from dac_diffusion.metrics.java_metrics import Spider
from dac_diffusion.text.words import tokenize

if TYPE_CHECKING:
    from tokenizers import BertWordPieceTokenizer
    from torch import nn

ERROR_THRESHOLD = 0.9
PENALTY = 0.9
MAX_PIECES = 64
BATCH_SIZE = 64
_NOT_WORDS = re.compile(r"[^\w\s]")


@dataclass(frozen=True)
class FluencyErrorDetector:
    """The probability that a caption has an error of fluency, such as a missing verb.

    checkpoint: the published .ckpt file. encoder: a folder with config.json and vocab.txt of the
    BERT it was trained from. device: where it runs.
    """

    checkpoint: Path
    encoder: Path
    device: str = "cpu"

    def missing(self) -> list[str]:
        """All that is absent, each with the way out."""
        release = f"{self.checkpoint.name} is in release V0.1 of github.com/blmoistawinde/fense"
        bert = "of bert-base-uncased, or of prajjwal1/bert-tiny for the tiny checkpoint"
        return [
            *missing_files(self.checkpoint.parent, [self.checkpoint.name], release),
            *missing_files(self.encoder, ["config.json", "vocab.txt"], bert),
        ]

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        """The probability of an error (0 to 1) in each caption.

        Raises CheckpointError for a checkpoint of another kind or one that does not fit its
        encoder.
        """
        import torch

        encoder, classifier, tokenizer = self._load()
        found: list[float] = []
        for start in range(0, len(captions), BATCH_SIZE):
            texts = [_NOT_WORDS.sub("", c).lower() for c in captions[start : start + BATCH_SIZE]]
            pieces = tokenizer.encode_batch(texts)
            ids = torch.tensor([p.ids for p in pieces], device=self.device)  # (B, P)
            mask = torch.tensor([p.attention_mask for p in pieces], device=self.device)  # (B, P)
            with torch.no_grad():
                hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, P, D)
                logits = classifier(hidden[:, 0])  # (B, kinds of errors)
            found += logits[:, -1].sigmoid().tolist()
        return found

    def penalize(self, captions: Sequence[str], scores: Sequence[float]) -> list[float]:
        """A tenth of the score where the probability of an error is above 0.9."""
        return [
            score * (1 - PENALTY) if probability > ERROR_THRESHOLD else score
            for score, probability in zip(scores, self.probabilities(captions), strict=True)
        ]

    def _load(self) -> tuple[nn.Module, nn.Linear, BertWordPieceTokenizer]:
        import torch
        from tokenizers import BertWordPieceTokenizer
        from transformers import BertConfig, BertModel

        try:
            # weights_only: a checkpoint of pickled code is refused and never run.
            content = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            weights, kinds = content["state_dict"], int(content["num_classes"])
            config = BertConfig.from_json_file(self.encoder / "config.json")
            encoder = BertModel(config, add_pooling_layer=False)
            encoder.load_state_dict({n: weights[f"encoder.{n}"] for n in encoder.state_dict()})
            classifier = torch.nn.Linear(config.hidden_size, kinds)
            classifier.load_state_dict({n: weights[f"clf.{n}"] for n in classifier.state_dict()})
            tokenizer = BertWordPieceTokenizer(str(self.encoder / "vocab.txt"), lowercase=True)
        except Exception as error:  # the readers raise many kinds, down to bare Exception
            raise CheckpointError(
                f"{self.checkpoint}: is no error detector that fits {self.encoder} "
                f"({type(error).__name__}: {error}); download it again, with the encoder's files"
            ) from error
        tokenizer.enable_truncation(MAX_PIECES)
        tokenizer.enable_padding()
        return encoder.eval().to(self.device), classifier.to(self.device), tokenizer


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
        return self.detector.penalize(candidates, cosines)


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
        return self.detector.penalize(candidates, self.spider.score(candidates, references))


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
