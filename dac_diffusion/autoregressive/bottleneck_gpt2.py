"""RECAP's decoder: GPT-2 with narrow cross-attention in every layer (Ghosh et al., 2309.09836).

Everything else is transformers' GPT-2, its `generate` and KV cache included. The published system
trains the cross-attention alone; the language model stays as it is.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.pytorch_utils import Conv1D

from dac_diffusion.autoregressive.language_models import LanguageModel, load_language_model
from dac_diffusion.errors import CheckpointError, ConfigError

BOTTLENECK = "cross_attention_bottleneck"  # in a network's config.json
PUBLISHED_BOTTLENECK = 4
NEW_PARTS = ("crossattention.", "ln_cross_attn.")  # of a layer; GPT-2 as published has neither
PADDING, END = "!", "."  # RECAP's choice among the tokens of GPT-2, which has no such tokens


class BottleneckCrossAttention(GPT2Attention):
    """Cross-attention whose queries, keys and values have W / bottleneck numbers, in all heads.

    Of GPT-2's heads of 64 numbers 16 are left. Logits are divided by the root of these.
    """

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__(config, is_cross_attention=True, layer_idx=layer)
        width, bottleneck = config.hidden_size, getattr(config, BOTTLENECK)
        of_head = width // config.num_attention_heads
        if bottleneck < 1 or of_head % bottleneck:
            raise ConfigError(
                f"bottleneck={bottleneck}: must divide the {of_head} numbers of a head"
            )
        narrow = width // bottleneck
        self.head_dim, self.split_size = of_head // bottleneck, narrow
        # Read by newer versions of transformers; older ones take the width of the values.
        self.scaling = self.head_dim**-0.5 if config.scale_attn_weights else 1.0
        self.c_attn = Conv1D(2 * narrow, width)  # keys and values, of the audio
        self.q_attn = Conv1D(narrow, width)
        self.c_proj = Conv1D(width, narrow)


class BottleneckGPT2(GPT2LMHeadModel):
    """GPT-2 that cross-attends to `encoder_hidden_states` (B, S, W) in every layer.

    config: with `add_cross_attention` and `cross_attention_bottleneck`; see `bottleneck_config`.
    Raises ConfigError where the bottleneck does not divide the width of a head.
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        for layer, block in enumerate(self.transformer.h):
            block.crossattention = BottleneckCrossAttention(config, layer)
        self.post_init()  # the new layers' initial weights
        for block in self.transformer.h:
            # What a layer adds starts small; transformers sees to it in its own classes only.
            small = config.initializer_range / (2 * config.n_layer) ** 0.5
            nn.init.normal_(block.crossattention.c_proj.weight, std=small)


@dataclass(frozen=True)
class SmallGPT2Config:
    """Sizes of a GPT-2 to be trained from nothing; about 7 million parameters.

    max_positions: places for the prompt and the caption together.
    """

    width: int = 256
    layers: int = 8
    heads: int = 4
    dropout: float = 0.1
    max_positions: int = 256

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that makes no sense."""
        for name in ("width", "layers", "heads", "max_positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.width % self.heads:
            raise ConfigError(f"width={self.width}: must be a multiple of heads={self.heads}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: must be from 0 to below 1")


def bottleneck_config(config: GPT2Config, bottleneck: int) -> GPT2Config:
    """A GPT-2's config with cross-attention of a bottleneck."""
    config = copy.deepcopy(config)
    config.add_cross_attention = True
    setattr(config, BOTTLENECK, bottleneck)
    return config


def build_gpt2(
    sizes: SmallGPT2Config,
    tokenizer: PreTrainedTokenizerFast,
    bottleneck: int = PUBLISHED_BOTTLENECK,
) -> BottleneckGPT2:
    """A randomly initialised network over a tokenizer's words; it is to be trained as a whole."""
    network = BottleneckGPT2(bottleneck_config(small_config(sizes, tokenizer), bottleneck))
    _take_tokens(network, tokenizer)
    return network


def small_config(sizes: SmallGPT2Config, tokenizer: PreTrainedTokenizerFast) -> GPT2Config:
    """The config of a GPT-2 of these sizes over a tokenizer's words, without cross-attention."""
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=sizes.max_positions,
        n_embd=sizes.width,
        n_layer=sizes.layers,
        n_head=sizes.heads,
        resid_pdrop=sizes.dropout,
        embd_pdrop=sizes.dropout,
        attn_pdrop=sizes.dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def load_gpt2(
    name: str | Path, bottleneck: int = PUBLISHED_BOTTLENECK, seed: int = 0
) -> LanguageModel:
    """A published GPT-2 and its tokenizer, with cross-attention new and random, from a seed.

    name: a folder in transformers' form, or a Hub id such as openai-community/gpt2. As published,
    "!" is padding and "." ends a caption; a GPT-2 over words that have no "." keeps its own start,
    end and padding tokens. Raises CheckpointError as `load_language_model` does, and for another
    kind of model or a vocabulary with neither; ConfigError for the bottleneck.
    """
    found = load_language_model(name)
    kind = found.network.config.model_type
    if kind != "gpt2":
        raise CheckpointError(
            f"{name}: describes a model of type {kind!r}, not 'gpt2'; give a GPT-2 such as "
            "openai-community/gpt2"
        )
    tokenizer = _caption_tokenizer(name, found.tokenizer)
    network = add_cross_attention(found.network, bottleneck, seed)
    _take_tokens(network, tokenizer)
    return LanguageModel(network, tokenizer)


def add_cross_attention(network: GPT2LMHeadModel, bottleneck: int, seed: int) -> BottleneckGPT2:
    """A copy of a GPT-2 with cross-attention whose weights are random, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        added = BottleneckGPT2(bottleneck_config(network.config, bottleneck))
    missing, unexpected = added.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected
    assert all(any(part in name for part in NEW_PARTS) for name in missing)
    return added.to(network.dtype).eval()


def freeze_all_but_cross_attention(network: nn.Module, train_norms: bool = False) -> None:
    """Let only the cross-attention of a network train.

    train_norms: the layer norms in front of it as well, which the published system leaves as they
    are made: its code trains what has "crossattention" in its name.
    """
    for name, parameter in network.named_parameters():
        is_norm = "ln_cross_attn" in name
        parameter.requires_grad_("crossattention" in name or (train_norms and is_norm))


def _caption_tokenizer(
    name: str | Path, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedTokenizerFast:
    """The tokenizer with "!" and "." as special tokens, which it then finds in any text.

    One that has no "." but start, end and padding tokens of its own is left as it is.
    """
    backend = tokenizer.backend_tokenizer
    own = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    if backend.token_to_id(END) is None and len(own) == 3:
        return tokenizer
    for token in (PADDING, END):
        if backend.token_to_id(token) is None:
            raise CheckpointError(f"{name}: the tokenizer has no {token!r}; give GPT-2's own")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokenizer.bos_token,
        pad_token=PADDING,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        truncation_side="right",
    )


def _take_tokens(network: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    """The tokenizer's tokens in the network's config, and no other settings for generation."""
    config = network.config
    config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    config.bos_token_id = tokenizer.bos_token_id
    network.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
