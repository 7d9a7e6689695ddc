"""The tokens of a tokenizer that are no words, as decoding needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CaptionTokens:
    """pad and end: token ids. first: what every caption begins with, BART's "<s>", or None.

    never: special tokens that no caption has.
    """

    pad: int
    end: int
    first: int | None
    never: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> CaptionTokens:
        """Those of a tokenizer."""
        special = set(tokenizer.all_special_ids) - {tokenizer.eos_token_id}
        return cls(
            tokenizer.pad_token_id,
            tokenizer.eos_token_id,
            tokenizer.cls_token_id,
            tuple(sorted(special)),
        )
