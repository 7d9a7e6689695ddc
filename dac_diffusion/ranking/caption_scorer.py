"""What every scorer takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast


class CaptionScorer(Protocol):
    """An nn.Module that puts recordings and captions on one unit sphere, where they are compared.

    On a CPU a caption's vector depends on no more than the number of captions it is given with.
    """

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""

    def embed_audio(self, pooled: Tensor) -> Tensor:
        """Pooled audio vectors (B, P) -> unit vectors (B, E)."""

    def embed_captions(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
        """Captions, and the tokenizer of their captioner -> unit vectors (N, E)."""
