"""The paper's two systems of full_size.py, and two autoregressive ones on the same features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from common import FOLDER
from systems import Setting, autoregressive_settings, diffusion_settings, fixed_length

from dac_diffusion.libraries import quiet_libraries

if TYPE_CHECKING:
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
    from dac_diffusion.autoregressive.plain import AutoregressiveConfig
    from dac_diffusion.captioner import DiffusionCaptioner
    from dac_diffusion.training.settings import TrainingConfig

CONFIGS = FOLDER.parent / "configs" / "dac"
# Places for the 496 features of 10 s and the pooled one; captions are shorter.
PLACES = 512
REFERENCE_GUIDED_STEPS, REFERENCE_STEPS = 17, 4  # the paper's, and few without guidance
SPECIAL_POSITIONS = 2  # [CLS] and [SEP] of a caption
# What is fastest on CPUs over 497 places: the fused kernel in float32 (up to a tenth of greedy
# decoding), attention written out in bfloat16 (a tenth to a third).
ATTENTION = {torch.float32: "sdpa", torch.bfloat16: "eager"}


@dataclass(frozen=True)
class Sizes:
    """What is built.

    configs: of the diffusion captioners by name, with `overrides` (key=value) of all of them;
    encoder: settings of BeatsEncoder other than the published ones; bert: of the BertConfig that
    is split, whose vocab_size is that of all systems; networks: encoder-decoders by name. Ratios
    are to the first network and to the first config's captioner.
    """

    configs: dict[str, Path]
    networks: dict[str, AutoregressiveConfig]
    bert: dict[str, int]
    encoder: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


def full_size() -> Sizes:
    """BEATs-base and BERT-base as published, the paper's denoisers, BART-base, GPT-2 small.

    One network stands for BART and GPT-2: their matrices have the same sizes, and where the layer
    norm stands costs nothing. Their own vocabularies are larger (50,265 and 50,257), and they have
    1024 places each.
    """
    from dac_diffusion.autoregressive.plain import AutoregressiveConfig

    bart = AutoregressiveConfig(
        width=768,
        encoder_layers=6,
        decoder_layers=6,
        heads=12,
        feed_forward=3072,
        max_frames=PLACES,
    )
    return Sizes(
        configs={"DAC DiT": CONFIGS / "beats_dit.yaml", "DAC U-ViT": CONFIGS / "beats_uvit.yaml"},
        networks={
            "BART-base size": bart,
            "GPT-2 small size": replace(bart, encoder_layers=0, decoder_layers=12),
        },
        bert={
            "vocab_size": 30522,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    )


def read_configs(sizes: Sizes) -> dict[str, TrainingConfig]:
    """The training configs of the diffusion captioners by name; raises ConfigError."""
    from dac_diffusion.configuration import load_config
    from dac_diffusion.training.settings import TrainingConfig

    return {
        name: load_config(TrainingConfig, path, sizes.overrides)
        for name, path in sizes.configs.items()
    }


def compared_settings(
    sizes: Sizes,
    steps: Sequence[int],
    guided_steps: Sequence[int],
    guidance_scale: float,
    tokens: int,
) -> list[Setting]:
    """One caption per clip of `tokens` tokens: greedy and beam search, then numbers of steps.

    guided_steps: numbers of steps with guidance, which doubles the network calls.
    """
    settings: list[Setting] = []
    for model in sizes.networks:
        settings += autoregressive_settings(model, 1)[:2]
    for model in sizes.configs:
        for setting in diffusion_settings(model, 1, tuple(guided_steps)):
            call = {**setting.call, "guidance_scale": guidance_scale}
            name = f"{setting.name}, guidance {guidance_scale}"
            settings.append(replace(setting, name=name, call=call))
        settings += diffusion_settings(model, 1, tuple(steps))
    return fixed_length(settings, tokens)


def reference_settings(sizes: Sizes, guidance_scale: float, tokens: int) -> dict[str, Setting]:
    """What ratios are to, by the name of the ratio; every system is timed beside them."""
    network, config = next(iter(sizes.networks)), next(iter(sizes.configs))
    settings = compared_settings(
        sizes, [REFERENCE_STEPS], [REFERENCE_GUIDED_STEPS], guidance_scale, tokens
    )
    greedy = next(setting for setting in settings if setting.model == network)
    guided, few = (setting for setting in settings if setting.model == config)
    return {"ratio": greedy, "ratio_guided": guided, "ratio_few": few}


def build_captioners(
    sizes: Sizes,
    dtype: torch.dtype,
    device: str,
    frequency_pooling: str,
    seed: int,
    names: Collection[str] | None = None,
) -> dict[str, Any]:
    """All captioners, or those of some names; they share audio encoder and scorer.

    Those of each kind also share the rest but for the network itself.
    """
    from dac_diffusion.encoders.beats import BeatsEncoder
    from dac_diffusion.ranking.similarity import AudioTextScorer
    from dac_diffusion.text.bert import CLS, PAD, SEP, UNK
    from dac_diffusion.text.tokenizer import SPECIAL_TOKENS

    configs = read_configs(sizes)
    wanted = [*sizes.networks, *configs] if names is None else names
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        torch.manual_seed(seed)
        size = sizes.bert["vocab_size"]
        encoder = BeatsEncoder(**sizes.encoder, frequency_pooling=frequency_pooling)
        # It ranks, which is not counted, and needs no size.
        scorer = AudioTextScorer(size, encoder.pooled_dim, width=48, depth=1)
        shared = {"encoder": encoder, "scorer": scorer}
        space = make_latent_space(next(iter(configs.values())), sizes)
        captioners: dict[str, Any] = {}
        longest = max(config.text.max_length for config in configs.values())
        words = {"tokenizer": make_tokenizer(size, SPECIAL_TOKENS)}
        for name in (name for name in sizes.networks if name in wanted):
            network = sizes.networks[name]
            captioners[name] = autoregressive_captioner(network, shared | words, longest)
        words = {"tokenizer": make_tokenizer(size, (PAD, UNK, SEP, CLS))}
        for name in (name for name in configs if name in wanted):
            captioners[name] = diffusion_captioner(configs[name], space, shared | words)
        for captioner in captioners.values():
            make_ready(captioner, dtype, device)
    return captioners


def make_tokenizer(size: int, special_tokens: Sequence[str]) -> Any:
    """Special tokens, those of BERT or of the autoregressive captioner, and words.

    Every other token is a word, so that no caption is empty and would be drawn again.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from dac_diffusion.text.bert import CLS, as_caption_tokenizer

    words = [f"word{number}" for number in range(len(special_tokens), size)]
    ids = {token: number for number, token in enumerate([*special_tokens, *words])}
    pad, unknown, end, begin = special_tokens
    backend = Tokenizer(models.WordPiece(ids, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begin == CLS:
        return as_caption_tokenizer(backend)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        unk_token=unknown,
        eos_token=end,
        bos_token=begin,
    )


def make_latent_space(config: TrainingConfig, sizes: Sizes) -> torch.nn.Module:
    """The split BERT without its lower layers, which captioning does not need."""
    from dac_diffusion.text.split_bert_space import SplitBertSpace

    settings = config.text.split_bert
    return SplitBertSpace(sizes.bert, settings.split_layer, settings.extra_linear_layers)


def diffusion_captioner(
    config: TrainingConfig, space: Any, shared: dict[str, Any]
) -> DiffusionCaptioner:
    """A captioner as a training with this config would make it, but untrained."""
    from dac_diffusion.captioner import DiffusionCaptioner
    from dac_diffusion.diffusion.scheduler import CaptionScheduler
    from dac_diffusion.training.building import make_denoiser, make_schedule

    encoder, sampling = shared["encoder"], config.sampling
    denoiser = make_denoiser(
        config.denoiser,
        space.latent_dim,
        encoder.feature_dim,
        encoder.pooled_dim,
        config.text.max_length,
    )
    # Its output is zero at first, and all positions would be the same word.
    torch.nn.init.normal_(denoiser.latent_out.weight, std=0.05)
    scheduler = CaptionScheduler.from_schedule(
        make_schedule(config.schedule),
        churn=sampling.churn,
        renoise=sampling.renoise,
        eta=sampling.eta,
        stride=sampling.stride,
    )
    return DiffusionCaptioner(
        denoiser=denoiser, latent_space=space, scheduler=scheduler, num_candidates=1, **shared
    )


def autoregressive_captioner(
    config: AutoregressiveConfig, shared: dict[str, Any], max_length: int
) -> AutoregressiveCaptioner:
    """An encoder-decoder over the projected features of the same encoder."""
    from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
    from dac_diffusion.autoregressive.plain import AudioProjection, build_network

    encoder = shared["encoder"]
    return AutoregressiveCaptioner(
        projection=AudioProjection(encoder.feature_dim, encoder.pooled_dim, config.width),
        network=build_network(config, len(shared["tokenizer"])),
        max_length=max_length,
        **shared,
    )


def make_ready(captioner: Any, dtype: torch.dtype, device: str) -> None:
    """Evaluation mode, floating-point type, device, and the attention that is fastest there."""
    captioner.to(device, dtype)
    for component in captioner.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval().requires_grad_(False)
    if hasattr(captioner, "network"):
        on_cpu = captioner.device.type == "cpu"
        captioner.network.set_attn_implementation(ATTENTION[dtype] if on_cpu else "sdpa")


def describe(sizes: Sizes) -> dict[str, str]:
    """What exactly each system is, in a sentence."""
    tokens = f"{sizes.bert['vocab_size']:,} tokens"
    texts = {}
    for name, network in sizes.networks.items():
        layers = f"{network.encoder_layers} encoder and {network.decoder_layers} decoder layers"
        if network.encoder_layers == 0:
            layers = f"{network.decoder_layers} decoder layers that attend to the features directly"
        texts[name] = (
            f"transformers' MBart (BART with layer norm before each branch), {layers}, "
            f"{network.width} wide, {network.heads} heads, feed-forward {network.feed_forward}, "
            f"{tokens}, embeddings tied, KV cache; in front of it the projected audio features"
        )
    for name, config in read_configs(sizes).items():
        denoiser, settings = config.denoiser, config.text.split_bert
        layers = f"{denoiser.depth} layers"
        if denoiser.kind == "uvit":
            layers = f"{denoiser.depth} layers on each way and one between"
        upper = sizes.bert["num_hidden_layers"] - settings.split_layer
        texts[name] = (
            f"{denoiser.kind}, {layers}, {denoiser.width} wide, {denoiser.heads} heads, "
            f"{config.text.max_length} positions at every call; after the last call the upper "
            f"{upper} layers of a BERT {sizes.bert['hidden_size']} wide, and its head, {tokens}"
        )
    return texts
