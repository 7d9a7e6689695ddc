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
