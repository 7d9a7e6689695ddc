"""Failure detectors of caption diffusion, logged at every evaluation (facts: text-diffusion.md).

Each is a known way in which such models fail while their loss still falls: padding everywhere,
repetition, captions that stop on a function word, embeddings that collapse, audio that is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dac_diffusion.captioner import DiffusionCaptioner
from dac_diffusion.diffusion.sampling import sample_latents
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.metrics.cider import cider_d
from dac_diffusion.metrics.wellformedness import wellformedness
from dac_diffusion.text.embedding_space import EmbeddingSpace
from dac_diffusion.text.tokenizer import decode_captions, encode_captions

SAMPLES_SHOWN = 10


def sample_captions(
    captioner: DiffusionCaptioner, audio: AudioFeatures, num_steps: int, seed: int = 0
) -> tuple[list[str], Tensor]:
    """One raw sample per clip, unranked, and its token ids (B, L)."""
    memory = captioner.denoiser.prepare_audio(audio)
    clips = len(audio.features)
    ids = sample_latents(
        captioner.denoiser,
        captioner.latent_space,
        captioner.scheduler,
        memory,
        num_captions=1,
        length=captioner.denoiser.config.max_length,
        generators=[torch.Generator().manual_seed(seed + clip) for clip in range(clips)],
        num_steps=num_steps,
        never_first=captioner.tokenizer.all_special_ids,
    )[:, 0]  # (B, L)
    return decode_captions(captioner.tokenizer, ids), ids


@torch.no_grad()
def report_samples(
    captioner: DiffusionCaptioner,
    audio: AudioFeatures,
    references: Sequence[Sequence[str]],
    num_steps: int,
    writer: Any,
    step: int,
) -> dict[str, float]:
    """Sample validation clips, score them, and show some captions in TensorBoard."""
    texts, ids = sample_captions(captioner, audio, num_steps)
    quality = cider_d(texts, references)[0]
    shuffled, _ = sample_captions(captioner, audio.select(_rotation(len(texts))), num_steps)
    form = wellformedness(texts)
    everything = [text for group in references for text in group]
    reference_form = wellformedness(everything)
    report = {
        "cider_d": quality,
        "cider_d_with_shuffled_audio": cider_d(shuffled, references)[0],
        "pad_rate": (ids == captioner.tokenizer.pad_token_id).float().mean().item(),
        "mean_length_against_references": form.mean_words / reference_form.mean_words,
        "empty": form.empty,
        "repeated_bigram": form.repeated_bigram,
        "function_word_ending": form.function_word_ending,
    }
    space = captioner.latent_space
    if isinstance(space, EmbeddingSpace):
        used = encode_captions(captioner.tokenizer, everything, ids.shape[1]).unique()
        report["embedding_distance"] = space.mean_nearest_neighbour_distance(used.to(ids.device))
    if writer is not None:
        lines = [
            f"- **{text}** (reference: {group[0]})"
            for text, group in zip(texts, references, strict=True)
        ]
        writer.add_text("captions", "\n".join(lines[:SAMPLES_SHOWN]), step)
    return report


def _rotation(size: int) -> list[int]:
    """Indices that give every clip the audio of another one."""
    return [(index + max(1, size // 2)) % size for index in range(size)]
