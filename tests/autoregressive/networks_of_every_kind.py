"""Small random networks of every kind that captions are decoded with, and what they heard."""

from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from dac_diffusion.autoregressive.network import EncodedAudio, Prompts, encode_audio
from dac_diffusion.autoregressive.plain import AutoregressiveConfig, build_network
from dac_diffusion.encoders.base import AudioFeatures

WIDTH, FRAMES = 16, 4
VOCABULARY = 8
FIRST = 3
WORDS = range(4, VOCABULARY)
IDS = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 3}


def small_network(kind: str) -> Any:
    """mbart, bart, gpt2 (with cross-attention) or llama, with weights that have opinions."""
    torch.manual_seed(3)
    network = _build(kind).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15.0)
    return network


def heard_clips(kind: str) -> EncodedAudio:
    """Three clips as the network hears them, with prompts of different lengths."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, FRAMES, WIDTH, generator=generator)
    audio = AudioFeatures(features, torch.ones(3, FRAMES, dtype=torch.bool), features[:, 0])
    prompts = Prompts(left=[[5], [4, 6], [7, 7, 7]], right=[[6, 4], [], [5]])
    network = small_network(kind)
    with torch.no_grad():
        return encode_audio(lambda a: (a.features, a.mask.long()), network, audio, prompts)


def _build(kind: str) -> Any:
    if kind == "mbart":
        sizes = AutoregressiveConfig(WIDTH, 1, 1, heads=2, feed_forward=32)
        return build_network(sizes, VOCABULARY)
    if kind == "bart":
        return BartForConditionalGeneration(
            BartConfig(
                vocab_size=VOCABULARY,
                d_model=WIDTH,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_position_embeddings=32,
                decoder_start_token_id=2,
                **IDS,
            )
        )
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=64,
                n_embd=WIDTH,
                n_layer=1,
                n_head=2,
                add_cross_attention=True,
                **IDS,
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            **IDS,
        )
    )
