"""Captions as vectors of a joint audio-text space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.tokenizer import encode_captions


@torch.no_grad()
def embed_with_scorer(
    scorer: AudioTextScorer, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> Tensor:
    """Unit vectors (N, E) of N captions by the text side of a scorer."""
    return scorer.embed_text(encode_captions(tokenizer, texts, scorer.config.max_length))
