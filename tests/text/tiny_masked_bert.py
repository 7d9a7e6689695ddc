"""A tiny random BERT with its masked-language head, in the published files' layout."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "##s", "bark", "barks", "rain"),
    *("falls", "and", "then", "wind", "blows", ".", ",", "'", "t", "don", "s", "w", "##x", "zebra"),
]


def write_masked_bert(
    folder: Path, layers: int = 4, with_head: bool = True, scale: float = 0.4
) -> BertForMaskedLM:
    """Write config.json, model.safetensors and tokenizer.json; returns the model.

    scale: of the weights. Large ones let mistakes show, but mix positions until words are lost.
    """
    backend = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=scale,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForMaskedLM(config).eval()
        with torch.no_grad():  # as it is at the start, the output bias would hide mistakes
            model.cls.predictions.bias.normal_()
    (model if with_head else model.bert).save_pretrained(folder)
    return model
