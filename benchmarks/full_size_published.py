"""The published autoregressive systems of full_size.py: which, how large, and how they decode.

Codec, encoder, prompt, retrieval and decoding are those of the files in configs/
(configs/AUTOREGRESSIVE.md says what is published and what is assumed); full_size_building.py makes
the systems.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from common import FOLDER
from systems import Setting

if TYPE_CHECKING:
    from dac_diffusion.training.settings import TrainingConfig

Llama = Literal["1b", "3b", "7b"]
# Retrieved captions in RECAP's prompt. The paper's number is not known, its code shows 3.
RETRIEVED = 4
# Settings of beam search would be warned about.
GREEDY = {"decoding": "greedy", "length_penalty": 1.0, "early_stopping": False}
UNRANKED = {"audio_text_weight": 1.0, "likelihood_weight": 0.0}  # so that no likelihood is found


@dataclass(frozen=True)
class Published:
    """A published system.

    title: its name in the tables; config: a file of configs/; network: a key of
    PublishedSizes.networks.
    """

    title: str
    config: str
    network: str


CED_LLAMA = "ced_llama"  # one system for each size of Llama
PUBLISHED = {
    "enclap": Published("EnCLAP base", "enclap.yaml", "bart_base"),
    "enclap_plus_plus": Published("EnCLAP++ base", "enclap_plus_plus.yaml", "bart_base"),
    "enclap_plus_plus_large": Published("EnCLAP++ large", "enclap_plus_plus.yaml", "bart_large"),
    "clap_art": Published("CLAP-ART base", "clap_art.yaml", "bart_base"),
    "recap": Published("RECAP", "recap.yaml", "gpt2"),
    "ced_bart": Published("CED + BART base", "ced_bart.yaml", "bart_base"),
}
LLAMAS: dict[Llama, Published] = {
    "1b": Published("CED + Llama 1.1B", "ced_llama.yaml", "llama_1b"),
    "3b": Published("CED + Llama 3B", "ced_llama.yaml", "llama_3b"),
    "7b": Published("CED + Llama 2 7B", "ced_llama.yaml", "llama_7b"),
}


@dataclass(frozen=True)
class PublishedSizes:
    """What is built.

    networks: settings of BartConfig, GPT2Config or LlamaConfig by name, which says the kind; they
    are the published ones, not the defaults of transformers. The others: settings of our encoders,
    codecs and CLAP that are not the published ones. captions: in RECAP's datastore. overrides:
    key=value, of all configs.
    """

    networks: dict[str, dict[str, Any]]
    captions: int = 50_000
    beats: dict[str, Any] = field(default_factory=dict)
    ced: dict[str, Any] = field(default_factory=dict)
    clap: dict[str, Any] = field(default_factory=dict)
    clap_text: dict[str, Any] = field(default_factory=dict)
    encodec: dict[str, Any] = field(default_factory=dict)
    descript: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


def published_full_size() -> PublishedSizes:
    """facebook/bart-base and -large, GPT-2 small, TinyLlama-1.1B, OpenLLaMA-3B, Llama-2-7B.

    CLAP is HTSAT-tiny with fusion, as of laion/clap-htsat-fused and 630k-audioset-fusion-best.pt,
    which have the same layers; its text side, which only EnCLAP++'s ranking needs, is RoBERTa-base.
    """
    base = {"d_model": 768, "layers": 6, "attention_heads": 12, "ffn_dim": 3072}
    large = {"d_model": 1024, "layers": 12, "attention_heads": 16, "ffn_dim": 4096}
    return PublishedSizes(
        networks={
            "bart_base": _bart(**base),
            "bart_large": _bart(**large),
            "gpt2": {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12,
                     "n_head": 12},
            "llama_1b": _llama(2048, 5632, layers=22, heads=32, key_value_heads=4, positions=2048),
            "llama_3b": _llama(3200, 8640, layers=26, heads=32, key_value_heads=32, positions=2048),
            "llama_7b": _llama(4096, 11008, layers=32, heads=32, key_value_heads=32,
                               positions=4096),
        },
        clap={"enable_fusion": True},
    )  # fmt: skip


def _bart(d_model: int, layers: int, attention_heads: int, ffn_dim: int) -> dict[str, Any]:
    sides = ("encoder", "decoder")
    per_side = {"layers": layers, "attention_heads": attention_heads, "ffn_dim": ffn_dim}
    both = {f"{side}_{name}": value for side in sides for name, value in per_side.items()}
    return {"vocab_size": 50265, "max_position_embeddings": 1024, "d_model": d_model, **both}


def _llama(
    width: int, feed_forward: int, layers: int, heads: int, key_value_heads: int, positions: int
) -> dict[str, Any]:
    return {
        "vocab_size": 32000,
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "max_position_embeddings": positions,
        "tie_word_embeddings": False,
    }


def chosen_systems(systems: Sequence[str], llamas: Sequence[Llama]) -> list[Published]:
    """The published ones among systems named on the command line, in the order of the tables."""
    chosen = [system for name, system in PUBLISHED.items() if name in systems]
    if CED_LLAMA in systems:
        chosen += [system for size, system in LLAMAS.items() if size in llamas]
    return chosen


def read_config(system: Published, sizes: PublishedSizes) -> TrainingConfig:
    """The system's training config; raises ConfigError."""
    from dac_diffusion.configuration import load_config
    from dac_diffusion.training.settings import TrainingConfig

    overrides = (f"recap.retrieved={RETRIEVED}", *sizes.overrides)
    return load_config(TrainingConfig, FOLDER.parent / "configs" / system.config, overrides)


def published_settings(system: Published, config: TrainingConfig, tokens: int) -> list[Setting]:
    """A caption of `tokens` tokens per clip: greedy, by beam search, and as published.

    As published is the beam search, or, of EnCLAP++, the best of its candidates, ranking included;
    that has beam search with 4 beams besides, and all keep the config's other settings. BART's <s>,
    which begins every caption, is given and not one of the tokens.
    """
    own = config.decoding
    by_beams = own.decoding == "beam"
    beams = own.num_beams if by_beams else 4
    settings = [
        Setting("autoregressive", "greedy", system.title, 1, call=GREEDY),
        Setting("autoregressive", f"beam {beams}", system.title, 1,
                call={"decoding": "beam", "num_beams": beams}),
    ]  # fmt: skip
    settings = [dataclasses.replace(s, call={**s.call, **UNRANKED}) for s in settings]
    if not by_beams:
        name = f"{own.decoding}, best of {own.num_candidates}"
        call = {"decoding": own.decoding, "num_candidates": own.num_candidates}
        settings.append(Setting("autoregressive", name, system.title, 1, True, call))
    first = int(system.network.startswith("bart"))
    lengths = {"min_length": tokens, "max_length": tokens + first}
    return [dataclasses.replace(s, call={**s.call, **lengths}) for s in settings]


def describe_published(system: Published, sizes: PublishedSizes) -> str:
    """What exactly the system is, in a sentence."""
    config = read_config(system, sizes)
    network = dict(sizes.networks[system.network])
    words = f"{network.pop('vocab_size'):,} tokens"
    kind = {"bart": "BART", "gpt2": "GPT-2", "llama": "Llama"}[system.network.partition("_")[0]]
    layers = ", ".join(f"{name} {value}" for name, value in network.items())
    heard = {
        "enclap": f"codes of {_codec(config)} (float32 always) and CLAP's vector",
        "recap": f"CLAP's features by cross-attention with a bottleneck of "
        f"{config.recap.bottleneck}, and in the prompt {config.recap.retrieved} captions of a "
        f"datastore of {sizes.captions:,} random vectors",
        "prefix": f"CED, and a Q-Former with windows of {config.prefix.qformer.window} features",
    }[config.system]
    return f"configs/{system.config}: {heard}; transformers' {kind} of {words}, {layers}, KV cache"


def _codec(config: TrainingConfig) -> str:
    codec = config.codec
    if codec.name == "rvq":
        sizes = f"{codec.num_codebooks} of {codec.codebook_size}"
        return f"a residual quantiser (k-means) of BEATs features, {sizes}"
    name = {"encodec": "EnCodec", "descript": "the Descript codec"}[codec.name]
    return f"{name}, {codec.num_codebooks} codebooks"
