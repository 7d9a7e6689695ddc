"""The systems of the full-size benchmark, tiny."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from dac_diffusion.autoregressive.plain import AutoregressiveConfig

POSITIONS, TOKENS = 20, 6
TINY = AutoregressiveConfig(
    width=16, encoder_layers=1, decoder_layers=2, heads=2, feed_forward=32, max_frames=512
)
ARGS = argparse.Namespace(seed=0)  # what `timed_group.call` reads of the command line
OVERRIDES = ("denoiser.width=16", "denoiser.heads=2", "denoiser.depth=2", "text.max_length=20",
             "text.split_bert.split_layer=1")  # fmt: skip


def tiny_sizes() -> Any:
    from full_size_systems import full_size

    full = full_size()
    bart, gpt = full.networks
    return replace(
        full,
        networks={bart: TINY, gpt: replace(TINY, encoder_layers=0)},
        bert={"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2,
              "num_attention_heads": 2, "intermediate_size": 32},
        encoder={"encoder_layers": 1, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16,
                 "encoder_attention_heads": 2, "embed_dim": 8, "conv_pos_groups": 4},
        overrides=OVERRIDES,
    )  # fmt: skip


def settings_of(tokens: int = TOKENS) -> list[Any]:
    from full_size_systems import compared_settings

    return compared_settings(tiny_sizes(), [4, 1], [17], 2.5, tokens)


def tiny_published() -> Any:
    """The published systems, tiny, with networks of two layers and a datastore of 40 captions."""
    from full_size_published import published_full_size

    full = published_full_size()
    bart = {
        "vocab_size": 1000,
        "max_position_embeddings": 1024,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    gpt2 = {"vocab_size": 1000, "n_positions": 256, "n_embd": 16, "n_layer": 2, "n_head": 2}
    llama = {
        "vocab_size": 1000,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    return replace(
        full,
        networks={
            "bart_base": bart, "bart_large": bart | {"decoder_layers": 3}, "gpt2": gpt2,
            "llama_1b": llama, "llama_3b": llama | {"num_hidden_layers": 3},
            "llama_7b": llama | {"num_hidden_layers": 5},
        },
        captions=40,
        beats=tiny_sizes().encoder,
        ced={"embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16},
        clap={"patch_embeds_hidden_size": 8, "hidden_size": 64, "projection_dim": 8,
              "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2], "enable_fusion": True},
        clap_text={"vocab_size": 1000, "hidden_size": 16, "num_hidden_layers": 1,
                   "num_attention_heads": 2, "intermediate_size": 16, "projection_dim": 8},
        encodec={"num_filters": 2, "hidden_size": 8},
        descript={"encoder_hidden_size": 2, "decoder_hidden_size": 16},
        overrides=("prefix.qformer.width=16", "prefix.qformer.heads=2",
                   "prefix.qformer.layers=1", "prefix.qformer.feed_forward=16"),
    )  # fmt: skip
