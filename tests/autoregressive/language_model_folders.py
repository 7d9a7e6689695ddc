"""Tiny random language models in folders, as transformers saves published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

SPECIAL = {
    "llama": ["<unk>", "<s>", "</s>"],
    "bart": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "gpt2": ["!", "<|endoftext|>"],
}
WORDS = ["a", "dog", "barks", "rain", "falls", "describe", "this", "audio", "detailed"]


def write_folder(folder: Path, kind: str, **settings: Any) -> Any:
    """Write a model of a kind ("llama", "bart", "gpt2") with its tokenizer; returns the model."""
    torch.manual_seed(0)
    size = len(SPECIAL[kind]) + len(WORDS)
    network = BUILD[kind](size, settings).eval()
    network.save_pretrained(folder)
    write_tokenizer(folder, kind)
    return network


def write_tokenizer(folder: Path, kind: str) -> None:
    """Write a tokenizer.json whose tokens are whole words."""
    words = {word: place for place, word in enumerate(SPECIAL[kind] + WORDS)}
    unknown = "<unk>" if "<unk>" in words else "!"
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def _llama(size: int, settings: dict[str, Any]) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=size, **{**sizes, **heads, **ids, **settings}))


def _bart(size: int, settings: dict[str, Any]) -> Any:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(vocab_size=size, **{**sizes, **heads, **widths, **ids, **settings})
    return BartForConditionalGeneration(config)


def _gpt2(size: int, settings: dict[str, Any]) -> Any:
    sizes = {"n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 1}
    return GPT2LMHeadModel(GPT2Config(vocab_size=size, **{**sizes, **ids, **settings}))


BUILD = {"llama": _llama, "bart": _bart, "gpt2": _gpt2}
