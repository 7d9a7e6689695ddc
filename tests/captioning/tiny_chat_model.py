"""A Llama of a few thousand random weights with a chat template, in transformers' folder layout."""

from __future__ import annotations

from pathlib import Path

import torch

SPECIAL = ("<unk>", "<begin>", "<end>", "<system>", "<user>", "<answer>")
WORDS = (
    "a", "the", "dog", "barks", "while", "rain", "falls", "on", "roof", "birds", "sing", "and",
    "someone", "speaks", "loudly",
)  # fmt: skip
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    " <{{ message['role'] }}> {{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %} <answer>{% endif %}"
)


def save_chat_model(folder: Path, template: str | None = TEMPLATE, seed: int = 4) -> None:
    """config.json, generation_config.json, model.safetensors, tokenizer.json and its settings."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    ids = {word: at for at, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<begin>",
        eos_token="<end>",
        additional_special_tokens=["<system>", "<user>", "<answer>"],
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
