"""ClapTextEncoder against transformers' ClapModel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, ClapModel

from dac_diffusion.encoders.clap_text import ClapTextEncoder

CAPTIONS = [
    "a dog bark",
    "rain fall on a roof then two dogs bark and the heavy rain stop",
    "rain",
    "the dog and the rain",
    "is",
]


@pytest.fixture(scope="module")
def encoder(clap_folder: Path) -> ClapTextEncoder:
    return ClapTextEncoder.from_published(clap_folder)


@torch.inference_mode()
def reference(folder: Path, text: str) -> Tensor:
    pieces = AutoTokenizer.from_pretrained(folder)([text], return_tensors="pt")
    found = ClapModel.from_pretrained(folder).get_text_features(
        input_ids=pieces["input_ids"], attention_mask=pieces["attention_mask"]
    )
    vector: Tensor = getattr(found, "pooler_output", found)[0]
    return vector


def test_vectors_are_those_of_clap_model(clap_folder: Path, encoder: ClapTextEncoder) -> None:
    texts = CAPTIONS[:4]
    vectors = encoder(texts)
    assert vectors.shape == (4, encoder.embedding_dim) == (4, 8)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    for text, vector in zip(texts, vectors, strict=True):
        torch.testing.assert_close(vector, reference(clap_folder, text), rtol=0, atol=1e-5)
    assert torch.cdist(vectors, vectors).fill_diagonal_(1).min() > 1e-2


def test_batches_and_their_order_change_nothing(encoder: ClapTextEncoder) -> None:
    texts = CAPTIONS * 3
    whole = encoder(texts)
    assert torch.equal(encoder(texts), whole)
    for size in (1, 2, 4):
        parts = replace(encoder, batch_size=size)(texts)
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)
    reverse = encoder(texts[::-1])
    torch.testing.assert_close(reverse.flip(0), whole, rtol=0, atol=1e-5)


def test_long_texts_are_cut(encoder: ClapTextEncoder) -> None:
    assert encoder.max_tokens == 40  # of the tokenizer; the model has 63 positions
    words = ["dog", "rain"] * 100
    cut, same = encoder([" ".join(words), " ".join(words[:40])])
    torch.testing.assert_close(cut, same)
    shorter = replace(encoder, max_tokens=3)([" ".join(words), "dog rain dog"])
    torch.testing.assert_close(shorter[0], shorter[1])


def test_no_texts_give_no_vectors(encoder: ClapTextEncoder) -> None:
    assert encoder([]).shape == (0, 8)


def test_one_text_must_be_a_list_too(encoder: ClapTextEncoder) -> None:
    with pytest.raises(TypeError, match="give a list of texts"):
        encoder("a dog")


def test_it_is_frozen_and_without_dropout(encoder: ClapTextEncoder) -> None:
    assert not encoder.model.training
    assert not any(weight.requires_grad for weight in encoder.model.parameters())
    assert not encoder(["a dog"]).requires_grad


def test_bfloat16_gives_float32_vectors(clap_folder: Path, encoder: ClapTextEncoder) -> None:
    half = ClapTextEncoder.from_published(clap_folder)
    half.model.to(torch.bfloat16)
    with torch.inference_mode():
        vectors = half(CAPTIONS)
    assert vectors.dtype == torch.float32
    assert (vectors * encoder(CAPTIONS)).sum(dim=-1).min() > 0.95
    assert encoder.to("cpu") is encoder


def test_on_a_canvas_every_call_has_the_same_shape(
    encoder: ClapTextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []
    forward = encoder.model.forward

    def remember(input_ids: Tensor, attention_mask: Tensor) -> Any:
        shapes.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(encoder.model, "forward", remember)
    on_canvas = replace(encoder, batch_size=3, canvas=4)
    texts = [*CAPTIONS, "rain", "dog " * 8, "dog " * 60, ""]
    together = on_canvas(texts)
    # Five texts have up to 4 tokens, two up to 8, one 14, and one more than the 40 that are read.
    assert sorted(shapes) == [(3, 4), (3, 4), (3, 8), (3, 16), (3, 40)]
    torch.testing.assert_close(together[:-1], encoder(texts[:-1]), rtol=0, atol=1e-5)
    assert together.isfinite().all()
    for text, vector in zip(texts, together, strict=True):
        shapes.clear()
        torch.testing.assert_close(on_canvas([text])[0], vector, rtol=0, atol=1e-6)
        length = max(1, min(40, len(text.split())))
        assert shapes == [(3, -(-length // 4) * 4)]
