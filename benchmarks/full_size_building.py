"""Makes the published systems of full_size.py with random weights, through the project's own parts.

What they hear goes the whole way: resampling, codec or quantiser, CLAP, Q-Former, and for RECAP the
search in a faiss index.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from full_size_llama import build_llama
from full_size_published import Published, PublishedSizes, read_config
from full_size_systems import make_ready
from full_size_words import Kind, make_byte_level_tokenizer, make_datastore

from dac_diffusion.libraries import quiet_libraries

if TYPE_CHECKING:
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
    from dac_diffusion.training.settings import TrainingConfig

LONGEST = 64  # tokens of a caption; how long one is, the calls say


def build_published(
    system: Published, sizes: PublishedSizes, dtype: torch.dtype, device: str, seed: int
) -> AutoregressiveCaptioner:
    """A system as its config describes it, as a captioner that can be timed."""
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner

    config = read_config(system, sizes)
    kind = network_kind(system)
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        encoder = make_encoder(config, sizes)
        tokenizer = make_byte_level_tokenizer(kind, sizes.networks[system.network]["vocab_size"])
        network = make_network(kind, sizes.networks[system.network], config, dtype, device)
        take_tokens(network, tokenizer)
        settings: dict[str, Any] = dataclasses.asdict(config.decoding)
        if config.system == "enclap":
            projection = code_embedding(encoder, network)
        elif config.system == "prefix":
            projection = q_former(config, encoder, network)
            settings |= prompts_around(config, tokenizer, network)
        else:
            projection = features_as_they_are(encoder, network)
            settings |= retrieval_of(config)
        captioner = AutoregressiveCaptioner(
            encoder=encoder,
            projection=projection,
            network=network,
            tokenizer=tokenizer,
            scorer=make_scorer(config, sizes, tokenizer, encoder),
            max_length=LONGEST,
            **settings,
        )
        if config.system == "recap":
            captioner.datastore = make_datastore(sizes.captions, encoder.pooled_dim, seed)
        make_ready(captioner, dtype, device)
    return captioner


def network_kind(system: Published) -> Kind:
    """Which kind of network a system has, by the beginning of its name."""
    kinds: dict[str, Kind] = {"bart": "bart", "gpt2": "gpt2", "llama": "llama"}
    return kinds[system.network.partition("_")[0]]


def make_encoder(config: TrainingConfig, sizes: PublishedSizes) -> Any:
    """Codec and CLAP of EnCLAP, EnCLAP++ and CLAP-ART, or the encoder of features."""
    from dac_diffusion.encoders.loading import encoder_class

    if config.system != "enclap":
        own = {"htsat": {"clap_config": sizes.clap}, "ced": sizes.ced}[config.encoder.name]
        return encoder_class(config.encoder.name)(**own)
    from dac_diffusion.codecs.code_encoder import CodeEncoder

    codec, quantizer = config.codec, {"codebook_size": config.codec.codebook_size}
    beats = encoder_class("beats")(**sizes.beats) if codec.name == "rvq" else None
    settings: dict[str, Any] = {
        "encodec": {"encodec_config": sizes.encodec},
        "descript": {"descript_config": sizes.descript, "num_codebooks": codec.num_codebooks},
        "rvq": {
            "encoder_name": config.encoder.name,
            "encoder_config": sizes.beats,
            "quantizer_config": {
                **quantizer,
                "feature_dim": None if beats is None else beats.feature_dim,
                "num_codebooks": codec.num_codebooks,
            },
        },
    }
    # HTSAT of transformers stands for laion_clap, which has the same layers and is an extra.
    encoder = CodeEncoder(codec.name, settings[codec.name], "htsat", {"clap_config": sizes.clap})
    if encoder.num_codebooks != codec.num_codebooks:
        raise ValueError(f"{encoder.num_codebooks} codebooks instead of {codec.num_codebooks}")
    draw_codebooks(encoder.codec)
    return encoder


def draw_codebooks(codec: Any) -> None:
    """Random entries for codebooks that are zeros at first: EnCodec's and the quantiser's."""
    from dac_diffusion.codecs.encodec import EncodecCodec
    from dac_diffusion.codecs.quantized_encoder import QuantizedEncoder

    if isinstance(codec, EncodecCodec):
        for layer in codec.quantizer.layers:
            layer.codebook.embed.normal_()
    elif isinstance(codec, QuantizedEncoder):
        torch.nn.init.normal_(codec.quantizer.codebooks)


def make_network(
    kind: Kind, sizes: dict[str, Any], config: TrainingConfig, dtype: torch.dtype, device: str
) -> Any:
    """The language model with random weights."""
    from transformers import BartConfig, BartForConditionalGeneration, GPT2Config, LlamaConfig

    from dac_diffusion.autoregressive.bottleneck_gpt2 import BottleneckGPT2, bottleneck_config

    if kind == "llama":
        return build_llama(LlamaConfig(**sizes), dtype, device)
    if kind == "gpt2":
        return BottleneckGPT2(bottleneck_config(GPT2Config(**sizes), config.recap.bottleneck))
    return BartForConditionalGeneration(BartConfig(**sizes))


def take_tokens(network: Any, tokenizer: Any) -> None:
    """The tokenizer's tokens in the network's config."""
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        setattr(network.config, name, getattr(tokenizer, name))


def code_embedding(encoder: Any, network: Any) -> Any:
    """What is in front of the BART of EnCLAP, EnCLAP++ and CLAP-ART, which it changes."""
    from dac_diffusion.autoregressive.bart import shift_encoder_positions
    from dac_diffusion.autoregressive.code_embedding import CodeEmbedding

    projection = CodeEmbedding(
        encoder.num_codebooks, encoder.codebook_size, encoder.pooled_dim, network.config.d_model
    )
    projection.take_frame(network)
    shift_encoder_positions(network)
    return projection


def q_former(config: TrainingConfig, encoder: Any, network: Any) -> Any:
    """What makes a few tokens of CED's features."""
    from dac_diffusion.training.prefix import build_projection

    width = network.get_input_embeddings().embedding_dim
    return build_projection(config.prefix.qformer, encoder, width)


def prompts_around(config: TrainingConfig, tokenizer: Any, network: Any) -> dict[str, Any]:
    """The words around the audio, as settings of the captioner."""
    from dac_diffusion.autoregressive.prompts import encode_prompt

    prompt = encode_prompt(config.prefix.prompt, tokenizer, network)
    return {"prompt_left": list(prompt.left), "prompt_right": list(prompt.right)}


def features_as_they_are(encoder: Any, network: Any) -> Any:
    """What RECAP's GPT-2 cross-attends to."""
    from dac_diffusion.autoregressive.cross_attention_features import CrossAttentionFeatures

    return CrossAttentionFeatures(encoder.feature_dim, network.config.n_embd)


def retrieval_of(config: TrainingConfig) -> dict[str, Any]:
    """How RECAP looks captions up, as settings of the captioner."""
    return {
        "retrieved": config.recap.retrieved,
        "search_width": config.recap.search_width,
        "longest_caption": config.recap.longest_caption,
        "retrieval_space": config.recap.space,
    }


def make_scorer(config: TrainingConfig, sizes: PublishedSizes, tokenizer: Any, encoder: Any) -> Any:
    """CLAP's text side where ranking counts; elsewhere the scorer needs no size."""
    from dac_diffusion.ranking.clap_similarity import ClapScorer
    from dac_diffusion.ranking.similarity import AudioTextScorer

    if config.decoding.decoding == "nucleus":
        scorer = ClapScorer(sizes.clap_text)
        scorer.tokenizer = tokenizer  # RoBERTa's tokens are BART's
        return scorer
    return AudioTextScorer(
        len(tokenizer), encoder.pooled_dim, width=48, depth=1, pad_id=tokenizer.pad_token_id
    )
