"""BART (Lewis et al., arXiv 1910.13461) for EnCLAP: a small one from nothing, shifted positions.

Published ones are read by `language_models.load_language_model`.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

SHIFTED = "encoder_positions_shifted"  # in a network's config.json


def build_bart(
    tokenizer: Any,
    width: int,
    encoder_layers: int,
    decoder_layers: int,
    heads: int,
    feed_forward: int,
    dropout: float,
    max_positions: int,
) -> BartForConditionalGeneration:
    """A randomly initialised BART over the words of a tokenizer.

    max_positions: places of the encoder and of the decoder, for T codes T + 3. Captions begin with
    the tokenizer's start token; one that has [CLS] instead puts it into the captions, and they
    begin with its end token, as the published BART's.
    """
    end = tokenizer.eos_token_id
    starts = (tokenizer.bos_token_id, tokenizer.cls_token_id, end)
    in_captions = tokenizer.cls_token_id is not None or tokenizer.bos_token_id is None
    network = BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            d_model=width,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=feed_forward,
            decoder_ffn_dim=feed_forward,
            dropout=dropout,
            max_position_embeddings=max_positions,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=next(token for token in starts if token is not None),
            eos_token_id=end,
            decoder_start_token_id=end if in_captions else tokenizer.bos_token_id,
        )
    )
    # A saved model carries settings of generation; the ones given at each call are what counts.
    config = network.config
    config.forced_eos_token_id = None
    network.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    return network


@torch.no_grad()
def shift_encoder_positions(network: Any) -> None:
    """Take the position of the encoder's first slot away, and move all others on by one, in place.

    Slot 0, the clip's vector, then has a zero position vector, which training leaves at zero, slot
    1 position 0, and so on: what EnCLAP computes, by a table that stock BART adds. The last
    position of the table is dropped. The network's config notes the shift; of a network that has
    it already, as one loaded again, only the zero row is held once more.
    """
    table = network.get_encoder().embed_positions
    first = table.offset  # rows that BART leaves unused
    if not is_shifted(network):
        table.weight[first + 1 :] = table.weight[first:-1].clone()
        table.weight[first].zero_()
        setattr(network.config, SHIFTED, True)
    table.padding_idx = first  # the row of an embedding that has no gradient


def is_shifted(network: Any) -> bool:
    """Whether `shift_encoder_positions` was called for a network, before it was saved or since."""
    return bool(getattr(network.config, SHIFTED, False))
