"""A tiny random BART and its byte-level tokenizer, in the published files' layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
MERGES = ("d o", "do g", "Ġ dog", "Ġ b", "a r", "ar k", "Ġb ark", "r a", "i n", "ra in")
WIDTH, POSITIONS = 16, 32


def write_bart_tokenizer(folder: Path) -> int:
    """Write vocab.json, merges.txt and tokenizer.json; returns how many tokens there are."""
    pieces = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(m.replace(" ", "") for m in MERGES)]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "<mask>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    settings = {"tokenizer_class": "BartTokenizer", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    BartTokenizer.from_pretrained(folder).save_pretrained(folder)
    return len(vocabulary)


def random_bart(vocabulary_size: int) -> BartForConditionalGeneration:
    """Random weights that are large enough for mistakes to show, biases and norms included."""
    config = BartConfig(
        vocab_size=vocabulary_size,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=POSITIONS,
        init_std=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BartForConditionalGeneration(config).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return network


def write_bart(folder: Path, with_head: bool = True) -> BartForConditionalGeneration:
    """Write config.json, model.safetensors and the tokenizer's files; returns the model.

    with_head: else as BartModel saves them, without "model." in front of the names, which is how
    facebook/bart-base and bart-large lie on the Hub.
    """
    network = random_bart(write_bart_tokenizer(folder))
    (network if with_head else network.model).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    change_settings(
        folder,
        # As in the published config.json, which is older than generation_config.json.
        early_stopping=True,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
        no_repeat_ngram_size=3,
        num_beams=4,
        add_final_layer_norm=False,
        normalize_before=False,
        task_specific_params={"summarization": {"max_length": 128, "num_beams": 4}},
    )
    return network


def change_settings(folder: Path, **settings: object) -> None:
    """Set some entries of config.json; None removes them."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
