"""BERTScore over a model in a local folder (Zhang et al. 2020, arXiv 1904.09675, section 3).

Every word piece is matched with the most similar piece of the other text by the cosine of the
network's hidden states; precision averages over the candidate's pieces, recall over the
reference's, special pieces such as [CLS] left out. No weights by inverse document frequency, no
rescaling with a baseline. Values equal torchmetrics' where that is given one pair at a time;
torchmetrics 1.9 pairs the rows of larger batches wrongly (its issue 2728), hence this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.errors import CheckpointError, ConfigError
from dac_diffusion.metrics.inputs import check_pairs
from dac_diffusion.text.words import tokenize

BATCH_SIZE = 64
CLIPS_AT_ONCE = 64  # whose hidden states are held in memory; scores do not depend on it


@dataclass(frozen=True)
class BertScore:
    """BERTScore of one caption, each value the best over its references (about 0 to 1)."""

    precision: float
    recall: float
    f1: float


class BertScorer:
    """BERTScore with the encoder in a folder that transformers can read; nothing is downloaded.

    layer: whose hidden states are compared; 0 is the input embeddings, the last layer where it is
    None. Scores of different models or layers cannot be compared. Raises CheckpointError where the
    folder holds no complete encoder, ConfigError for a layer that the model does not have.
    """

    def __init__(
        self, folder: str | Path, layer: int | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.folder = Path(folder)
        self._model, self._tokenizer = _load(self.folder)
        config = self._model.config
        self.layer = config.num_hidden_layers if layer is None else layer
        if not 0 <= self.layer <= config.num_hidden_layers:
            raise ConfigError(
                f"layer {layer}: {self.folder} has layers 0 to {config.num_hidden_layers}"
            )
        self._model.to(device)
        # Some models count positions from 2, and some tokenizers name no limit at all.
        positions = getattr(config, "max_position_embeddings", 512) - 2
        self._most_pieces = min(self._tokenizer.model_max_length, positions)

    def score(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> list[BertScore]:
        """BERTScore of one caption per clip, 0 for a caption without words.

        Of several references, the best precision, the best recall and the best F1 are taken, each
        on its own, as the authors' program does. Raises DataError where the lists do not fit.
        """
        check_pairs("BERTScore", candidates, references)
        scores = []
        for start in range(0, len(candidates), CLIPS_AT_ONCE):
            chosen = slice(start, start + CLIPS_AT_ONCE)
            some, theirs = candidates[chosen], references[chosen]
            states = self._hidden_states({*some, *(r for clip in theirs for r in clip)})
            for candidate, clip in zip(some, theirs, strict=True):
                pairs = [_score_pair(states[candidate], states[r]) for r in clip]
                best = BertScore(*(max(values) for values in zip(*pairs, strict=True)))
                scores.append(best if tokenize(candidate) else BertScore(0.0, 0.0, 0.0))
        return scores

    @torch.no_grad()
    def _hidden_states(self, texts: set[str]) -> dict[str, Tensor]:
        """The unit hidden states (P, D) of each text's pieces, special ones left out."""
        ordered = sorted(texts, key=lambda text: (len(text), text))
        states: dict[str, Tensor] = {}
        for start in range(0, len(ordered), BATCH_SIZE):
            batch = ordered[start : start + BATCH_SIZE]
            pieces = self._tokenizer(
                batch,
                padding=True,
                truncation=True,
                max_length=self._most_pieces,
                return_special_tokens_mask=True,
                return_tensors="pt",
            ).to(self._model.device)
            mask = pieces["attention_mask"]  # (B, P)
            output = self._model(
                input_ids=pieces["input_ids"], attention_mask=mask, output_hidden_states=True
            )
            units = F.normalize(output.hidden_states[self.layer].float(), dim=-1)  # (B, P, D)
            kept = mask.bool() & ~pieces["special_tokens_mask"].bool()  # (B, P)
            states.update({text: units[i][kept[i]] for i, text in enumerate(batch)})
        return states


def _score_pair(candidate: Tensor, reference: Tensor) -> tuple[float, float, float]:
    """Precision, recall and F1 of two texts' hidden states (P, D) and (R, D); 0 if one is empty."""
    if not len(candidate) or not len(reference):
        return 0.0, 0.0, 0.0
    cosines = candidate @ reference.T  # (P, R)
    precision = cosines.amax(dim=1).mean().item()
    recall = cosines.amax(dim=0).mean().item()
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: no model here, config.json missing; give a folder that holds a BERT-like "
            "model in transformers' layout (config.json, weights, tokenizer)"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, loading = AutoModel.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # the readers raise many kinds, down to bare Exception
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder}: cannot be read as a model of transformers "
            f"({type(error).__name__}: {reason}); download it again"
        ) from error
    # Weights that the files lack would be random, and the scores noise; the pooler is not used.
    lacking = sorted(key for key in loading["missing_keys"] if "pooler" not in key)
    if lacking:
        raise CheckpointError(
            f"{folder}: the weights lack {len(lacking)} tensors of the model, "
            f"such as {lacking[0]}; download it again"
        )
    if model.config.is_encoder_decoder:
        raise CheckpointError(f"{folder}: BERTScore needs an encoder such as BERT or RoBERTa")
    return model.float().eval().requires_grad_(False), tokenizer
