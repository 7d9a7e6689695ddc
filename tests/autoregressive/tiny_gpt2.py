"""A tiny random GPT-2 in the layout of the published files, with a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from dac_diffusion.autoregressive.retrieval_prompt import published_prompt

END_OF_TEXT = "<|endoftext|>"
CAPTIONS = ["a dog barks", "Rain falls on a roof", "wind blows and birds sing", "a bell rings"]


def gpt2_backend() -> Tokenizer:
    """Bytes in GPT-2's order ("!" is 0 and "." is 13), some merges, and the end of text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([published_prompt(CAPTIONS)] * 3, trainer)
    backend.add_special_tokens([AddedToken(END_OF_TEXT)])
    return backend


def caption_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with "!" and "." as RECAP has them."""
    return PreTrainedTokenizerFast(
        tokenizer_object=gpt2_backend(),
        bos_token=END_OF_TEXT,
        pad_token="!",
        eos_token=".",
        clean_up_tokenization_spaces=False,
    )


def write_gpt2(folder: Path, prefix: str = "", positions: int = 160) -> GPT2LMHeadModel:
    """config.json, tokenizer.json and model.safetensors, its weights named as in some release.

    prefix: "" as openai-community/gpt2 has them, with the causal masks that it holds as weights, or
    "transformer." as transformers writes them.
    """
    folder.mkdir(parents=True)
    backend = gpt2_backend()
    backend.save(str(folder / "tokenizer.json"))
    size = backend.get_vocab_size()
    config = GPT2Config(
        vocab_size=size,
        n_positions=positions,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=size - 1,
        eos_token_id=size - 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GPT2LMHeadModel(config).eval()
    config.save_pretrained(folder)
    weights = {
        prefix + name: value.contiguous()
        for name, value in network.transformer.state_dict().items()
        if not name.endswith((".attn.bias", ".masked_bias"))
    }
    if not prefix:
        mask = torch.ones(positions, positions).tril()[None, None]
        weights |= {f"h.{layer}.attn.bias": mask.clone() for layer in range(2)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return network
