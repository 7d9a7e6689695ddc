"""A BERT of a few thousand random weights, in the folder layout of transformers."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = (
    *("a", "the", "dog", "dogs", "bark", "##s", "##ing", "rain", "fall", "on", "roof", "and"),
    *("then", "stop", "heavy", "two", ",", "."),
)


def save_tiny_bert(folder: Path) -> None:
    """Three layers with weights of full scale, and the head that torchmetrics asks for."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(folder)
