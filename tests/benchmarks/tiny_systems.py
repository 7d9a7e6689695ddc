"""Captioners of other systems, tiny and random, with large logits so that captions differ."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from dac_diffusion.autoregressive.bottleneck_gpt2 import SmallGPT2Config, build_gpt2
from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.cross_attention_features import CrossAttentionFeatures
from dac_diffusion.codecs.code_encoder import CodeEncoder
from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder
from dac_diffusion.codecs.residual_quantizer import ResidualQuantizer
from dac_diffusion.data.datastore_preparation import make_datastore
from dac_diffusion.encoders.convolutional import ConvolutionalEncoder
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.retrieval.datastore import space_fingerprint
from dac_diffusion.text.tokenizer import train_tokenizer
from dac_diffusion.training.enclap import CodeSizes, EnclapConfig, build_enclap

STORED = {
    "one": ["a dog barks while rain falls", "rain falls on a roof"],
    "two": ["birds sing and a car passes by"],
    "three": ["someone knocks on a wooden door", "footsteps follow"],
}


def tiny_recap(retrieved: int = 2) -> AutoregressiveCaptioner:
    """A GPT-2 that is shown captions of STORED."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = train_tokenizer([text for own in STORED.values() for text in own], 200)
        sizes = SmallGPT2Config(width=32, layers=2, heads=2, dropout=0.0, max_positions=256)
        captioner = AutoregressiveCaptioner(
            encoder=_encoder(),
            projection=CrossAttentionFeatures(32, 32).eval(),
            network=_enlarge(build_gpt2(sizes, tokenizer, 2).eval()),
            tokenizer=tokenizer,
            scorer=_scorer(tokenizer),
            max_length=8,
            num_candidates=4,
            retrieved=retrieved,
        )
    space = space_fingerprint(captioner.scorer)
    captioner.register_to_config(datastore_space=space)
    embed = partial(captioner.scorer.embed_captions, tokenizer=tokenizer)
    captioner.datastore = make_datastore(STORED, embed, space, tokenizer, progress=False).datastore
    return captioner


def tiny_clap_art(num_codebooks: int = 2, sequence_vector: bool = True) -> AutoregressiveCaptioner:
    """A BART on k-means codes whose entries are features of noise."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = train_tokenizer([text for own in STORED.values() for text in own], 200)
        encoder = _encoder()
        quantizer = ResidualQuantizer(32, num_codebooks, 8)
        quantizer.codebooks.normal_(generator=torch.Generator().manual_seed(1))
        codec = CodeEncoder.from_parts(QuantizedEncoder.from_parts(encoder, quantizer), encoder)
        config = EnclapConfig(
            width=32, encoder_layers=1, decoder_layers=1, heads=2, feed_forward=64,
            sequence_vector=sequence_vector,
        )  # fmt: skip
        sizes = CodeSizes(num_codebooks, 8, codec.pooled_dim)
        trainer = build_enclap(config, sizes, tokenizer, 8).eval()
        return AutoregressiveCaptioner(
            encoder=codec,
            projection=trainer.projection,
            network=_enlarge(trainer.network),
            tokenizer=tokenizer,
            scorer=_scorer(tokenizer),
            max_length=8,
            num_candidates=4,
        )


def _encoder() -> ConvolutionalEncoder:
    return ConvolutionalEncoder(channels=(4, 4, 8, 8), width=32, depth=1, heads=2).eval()


def _scorer(tokenizer: Any) -> AudioTextScorer:
    return AudioTextScorer(len(tokenizer), pooled_dim=32, width=48, max_length=16).eval()


@torch.no_grad()
def _enlarge(network: Any) -> Any:
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.mul_(10.0)
    return network
