"""Failure detectors of caption diffusion, logged at every evaluation (facts: text-diffusion.md).

Each is a known way in which such models fail while their loss still falls: padding everywhere,
repetition, captions that stop on a function word, embeddings that collapse, audio that is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.metrics.wellformedness import wellformedness
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import decode_captions, encode_captions

SAMPLES_SHOWN = 10
# The names of what `report_samples` measures, of which one decides which weights are best.
MEASURED = (
    "cider_d",
    "cider_d_with_shuffled_audio",
    "pad_rate",
    "mean_length_against_references",
    "empty",
    "repeated_bigram",
    "function_word_ending",
)


Sampler = Callable[[AudioFeatures], Tensor]  # one raw caption per clip, token ids (B, L)


@torch.no_grad()
def report_samples(
    sample: Sampler,
    tokenizer: PreTrainedTokenizerFast,
    audio: AudioFeatures,
    references: Sequence[Sequence[str]],
    writer: Any,
    step: int,
) -> dict[str, float]:
    """Sample validation clips, score them, and show some captions in TensorBoard."""
    ids = sample(audio)  # (B, L)
    texts = decode_captions(tokenizer, ids)
    shuffled = decode_captions(tokenizer, sample(audio.select(_rotation(len(texts)))))
    form = wellformedness(texts)
    reference_form = wellformedness([text for group in references for text in group])
    if writer is not None:
        lines = [
            f"- **{text}** (reference: {group[0]})"
            for text, group in zip(texts, references, strict=True)
        ]
        writer.add_text("captions", "\n".join(lines[:SAMPLES_SHOWN]), step)
    return {
        "cider_d": cider_d(texts, references)[0],
        "cider_d_with_shuffled_audio": cider_d(shuffled, references)[0],
        "pad_rate": (ids == tokenizer.pad_token_id).float().mean().item(),
        "mean_length_against_references": form.mean_words / reference_form.mean_words,
        "empty": form.empty,
        "repeated_bigram": form.repeated_bigram,
        "function_word_ending": form.function_word_ending,
    }


def embedding_distance(
    space: EmbeddingSpace,
    tokenizer: PreTrainedTokenizerFast,
    references: Sequence[Sequence[str]],
    length: int,
) -> float:
    """How far apart the embeddings of the tokens are that occur in the references."""
    everything = [text for group in references for text in group]
    used = encode_captions(tokenizer, everything, length).unique()
    return space.mean_nearest_neighbour_distance(used.to(space.device))


def _rotation(size: int) -> list[int]:
    """Indices that give every clip the audio of another one."""
    return [(index + max(1, size // 2)) % size for index in range(size)]
