"""Random weights in the layouts of published BEATs and CED files, and noise to encode.

Names and shapes are written down from the published files, not taken from our modules.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dac_diffusion.encoders.base import AudioFeatures

# As in the checkpoints of BEATs_iter3+, with what only training reads.
BEATS: dict[str, Any] = {
    "encoder_layers": 12, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12, "activation_fn": "gelu", "dropout": 0.0,
    "attention_dropout": 0.0, "encoder_layerdrop": 0.05, "input_patch_size": 16,
    "layer_norm_first": False, "conv_bias": False, "conv_pos": 128, "conv_pos_groups": 16,
    "relative_position_embedding": True, "num_buckets": 320, "max_distance": 800,
    "gru_rel_pos": True, "deep_norm": True, "embed_dim": 512, "finetuned_model": False,
}  # fmt: skip
TINY_BEATS = BEATS | {
    "encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4, "conv_pos": 6, "conv_pos_groups": 4, "num_buckets": 16,
    "max_distance": 20, "embed_dim": 12,
}  # fmt: skip
# As the code published with the tokenizers has it; no cfg of theirs was seen.
TOKENIZER = BEATS | {"quant_n": 1024, "quant_dim": 256}
TINY_TOKENIZER = TINY_BEATS | {"quant_n": 24, "quant_dim": 6}


def beats_shapes(cfg: dict[str, Any], labels: int = 0) -> dict[str, tuple[int, ...]]:
    """The entries of a published checkpoint, written down from its layout."""
    width, hidden, patch = cfg["encoder_embed_dim"], cfg["encoder_ffn_embed_dim"], 16
    heads, embed, kernel = cfg["encoder_attention_heads"], cfg["embed_dim"], cfg["conv_pos"]
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (embed, 1, patch, patch),
        "layer_norm.weight": (embed,),
        "layer_norm.bias": (embed,),
        "post_extract_proj.weight": (width, embed),
        "post_extract_proj.bias": (width,),
        "encoder.pos_conv.0.bias": (width,),
        "encoder.pos_conv.0.weight_g": (1, 1, kernel),
        "encoder.pos_conv.0.weight_v": (width, width // cfg["conv_pos_groups"], kernel),
        "encoder.layer_norm.weight": (width,),
        "encoder.layer_norm.bias": (width,),
    }
    for index in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{index}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{layer}self_attn.{name}.weight"] = (width, width)
            shapes[f"{layer}self_attn.{name}.bias"] = (width,)
        shapes[f"{layer}self_attn.grep_linear.weight"] = (8, width // heads)
        shapes[f"{layer}self_attn.grep_linear.bias"] = (8,)
        shapes[f"{layer}self_attn.grep_a"] = (1, heads, 1, 1)
        shapes[f"{layer}self_attn.relative_attention_bias.weight"] = (cfg["num_buckets"], heads)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes[f"{layer}{name}.weight"] = shapes[f"{layer}{name}.bias"] = (width,)
        shapes |= {f"{layer}fc1.weight": (hidden, width), f"{layer}fc1.bias": (hidden,)}
        shapes |= {f"{layer}fc2.weight": (width, hidden), f"{layer}fc2.bias": (width,)}
    if labels:
        shapes |= {"predictor.weight": (labels, width), "predictor.bias": (labels,)}
    return shapes


def beats_weights(cfg: dict[str, Any] = TINY_BEATS, labels: int = 0) -> dict[str, Tensor]:
    """Random weights in the published layout, all layers with one and the same position bias."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in beats_shapes(cfg, labels).items():
        fan_in = math.prod(shape[1:]) or 1
        weights[name] = torch.randn(shape, generator=generator) / fan_in**0.5
        if len(shape) == 1 and name.endswith("weight"):
            weights[name] = 1 + 0.2 * weights[name]
        if name.endswith("grep_a"):
            weights[name] += 1
    bias = weights["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    for name in weights:
        if "relative_attention_bias" in name:
            weights[name] = bias
    return weights


def tokenizer_shapes(cfg: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The entries of a published tokenizer: those of BEATs, and of what quantises its features."""
    width, entries, size = cfg["encoder_embed_dim"], cfg["quant_n"], cfg["quant_dim"]
    return beats_shapes(cfg) | {
        "quantize.cluster_size": (entries,),
        "quantize.embedding.weight": (entries, size),
        "quantize.embedding.cluster_size": (entries,),
        "quantize.embedding.embed_avg": (entries, size),
        "quantize.embedding.initted": (1,),
        "quantize_layer.0.weight": (width, width),
        "quantize_layer.0.bias": (width,),
        "quantize_layer.2.weight": (size, width),
        "quantize_layer.2.bias": (size,),
    }


def tokenizer_weights(cfg: dict[str, Any] = TINY_TOKENIZER) -> dict[str, Tensor]:
    """Random weights in the published layout, with entries of length 1."""
    generator = torch.Generator().manual_seed(1)
    weights = beats_weights(cfg)
    for name, shape in tokenizer_shapes(cfg).items():
        if name not in weights:
            fan_in = math.prod(shape[1:]) or 1
            weights[name] = torch.randn(shape, generator=generator) / fan_in**0.5
    entries = weights["quantize.embedding.weight"]
    weights["quantize.embedding.weight"] = entries / entries.norm(dim=1, keepdim=True)
    weights["quantize.embedding.initted"] = torch.ones(1)
    return weights


CED_BASE = {"width": 768, "depth": 12, "hidden": 3072, "time_patches": 63}
TINY_CED = {"width": 128, "depth": 2, "hidden": 48, "time_patches": 5}


def ced_shapes(size: dict[str, int] = TINY_CED) -> dict[str, tuple[int, ...]]:
    """The entries of a published checkpoint, written down from its layout."""
    width, hidden = size["width"], size["hidden"]
    shapes: dict[str, tuple[int, ...]] = {
        "time_pos_embed": (1, width, 1, size["time_patches"]),
        "freq_pos_embed": (1, width, 4, 1),
        "front_end.0.spectrogram.window": (512,),
        "front_end.0.mel_scale.fb": (257, 64),
        "init_bn.1.weight": (64,),
        "init_bn.1.bias": (64,),
        "init_bn.1.running_mean": (64,),
        "init_bn.1.running_var": (64,),
        "init_bn.1.num_batches_tracked": (),
        "patch_embed.proj.weight": (width, 1, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    for index in range(size["depth"]):
        block = f"blocks.{index}."
        shapes |= {f"{block}norm1.weight": (width,), f"{block}norm1.bias": (width,)}
        shapes |= {f"{block}attn.qkv.weight": (3 * width, width)}
        shapes |= {f"{block}attn.qkv.bias": (3 * width,)}
        shapes |= {f"{block}attn.proj.weight": (width, width), f"{block}attn.proj.bias": (width,)}
        shapes |= {f"{block}norm2.weight": (width,), f"{block}norm2.bias": (width,)}
        shapes |= {f"{block}mlp.fc1.weight": (hidden, width), f"{block}mlp.fc1.bias": (hidden,)}
        shapes |= {f"{block}mlp.fc2.weight": (width, hidden), f"{block}mlp.fc2.bias": (width,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    shapes |= {"outputlayer.0.weight": (width,), "outputlayer.0.bias": (width,)}
    return shapes | {"outputlayer.1.weight": (527, width), "outputlayer.1.bias": (527,)}


def htk_filters() -> Tensor:
    """What torchaudio stores as mel_scale.fb, bin by bin."""
    points = [700 * (10 ** (i / 65 * math.log10(1 + 8000 / 700)) - 1) for i in range(66)]
    filters = torch.zeros(257, 64)
    for band in range(64):
        low, peak, high = points[band : band + 3]
        for index in range(257):
            hertz = index * 31.25
            height = min((hertz - low) / (peak - low), (high - hertz) / (high - peak))
            filters[index, band] = max(0.0, height)
    return filters


def ced_weights(size: dict[str, int] = TINY_CED) -> dict[str, Tensor]:
    """Random weights in the original layout, a flat dict."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in ced_shapes(size).items():
        fan_in = math.prod(shape[1:]) or 1
        weights[name] = torch.randn(shape, generator=generator) / fan_in**0.5
        if len(shape) == 1 and name.endswith("weight"):
            weights[name] = 1 + 0.2 * weights[name]
    weights["front_end.0.spectrogram.window"] = torch.hann_window(512)
    weights["front_end.0.mel_scale.fb"] = htk_filters()
    weights["init_bn.1.running_mean"] = -30 + 5 * weights["init_bn.1.running_mean"]
    weights["init_bn.1.running_var"] = 200 + 50 * weights["init_bn.1.running_var"].tanh()
    weights["init_bn.1.num_batches_tracked"] = torch.tensor(1234)
    return weights


def hub_layout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the Hugging Face models."""
    renamed = {}
    for name, tensor in weights.items():
        if not name.startswith("front_end."):
            prefix = "" if name.startswith("outputlayer.") else "encoder."
            renamed[prefix + name.replace("init_bn.1.", "init_bn.")] = tensor
    return renamed


def loae_layout(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value apart, as LOAE has them for its adapters."""
    split = {}
    for name, tensor in weights.items():
        if ".qkv." in name:
            for part, value in zip("qkv", tensor.chunk(3), strict=True):
                split[name.replace(".qkv.", f".{part}_proj.")] = value
        else:
            split[name] = tensor
    return split


def save_beats(path: Path, cfg: dict[str, Any], weights: dict[str, Any]) -> Path:
    """A file as BEATs and its tokenizers are published in."""
    torch.save({"cfg": cfg, "model": weights}, path)
    return path


def noise(num_samples: int, seed: int = 0) -> Tensor:
    """White noise (1, num_samples), the louder the higher the seed."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * (seed + 1) * torch.randn(1, num_samples, generator=generator)


@torch.inference_mode()
def encode(encoder: Any, waveform: Tensor, lengths: list[int]) -> AudioFeatures:
    """What an encoder makes of waveforms (B, T)."""
    features: AudioFeatures = encoder(waveform, torch.tensor(lengths))
    return features
