"""Texts of several clips as vectors."""

from __future__ import annotations

import torch

from dac_diffusion.captioning.ranking import embed_texts
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.text.tokenizer import encode_captions, train_tokenizer

TEXTS = [["a dog barks", "rain"], ["rain falls on a roof", "a dog"], ["a dog barks", ""]]


@torch.inference_mode()
def test_on_a_cpu_the_vectors_of_a_clip_do_not_depend_on_other_clips() -> None:
    """They are to the bit what the text tower makes of the clip's own tokens."""
    tokenizer = train_tokenizer([text for clip in TEXTS for text in clip], 100)
    torch.manual_seed(0)
    scorer = AudioTextScorer(len(tokenizer), 8, width=48, max_length=9, embedding_dim=24).eval()
    together = embed_texts(scorer, tokenizer, TEXTS)
    assert together.shape == (3, 2, 24)
    for clip, vectors in zip(TEXTS, together, strict=True):
        assert torch.equal(scorer.embed_text(encode_captions(tokenizer, clip, 9)), vectors)
        assert torch.equal(embed_texts(scorer, tokenizer, [clip])[0], vectors)
        assert torch.equal(scorer.embed_captions(clip, tokenizer), vectors)
    assert torch.equal(together[0, 0], together[2, 0])
