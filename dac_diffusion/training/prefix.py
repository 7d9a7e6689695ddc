"""Training of captioners that read audio as a prefix: CED + Q-Former + Llama-2 (or BART).

The DCASE 2024 report and the published code ("LOAE", arXiv 2406.13275) differ; both are presets,
configs/ced_llama_report.yaml and configs/ced_llama.yaml.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedTokenizerFast

from dac_diffusion.autoregressive.bart import build_bart
from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner
from dac_diffusion.autoregressive.language_models import (
    LanguageModel,
    SmallModelConfig,
    build_llama,
    load_language_model,
)
from dac_diffusion.autoregressive.low_rank import LowRankConfig, add_adapters, merged_adapters
from dac_diffusion.autoregressive.network import check_positions, encode_audio, padded_places
from dac_diffusion.autoregressive.prompts import PromptIds, encode_prompt, split_prompt
from dac_diffusion.autoregressive.window_qformer import FeatureOrder, WindowQFormer
from dac_diffusion.captioning.recordings import most_features
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.ced import CedEncoder
from dac_diffusion.errors import ConfigError
from dac_diffusion.training.autoregressive import AutoregressiveTask, DecodingConfig, caption_loss
from dac_diffusion.training.caption_sources import CaptionBatch, FrozenParts, Waveforms
from dac_diffusion.training.waveforms import encode_waveforms

SMALL = ("llama", "bart")  # untrained models of our own, over our own words
REMEDY = (
    "raise prefix.qformer.window, lower encoder.window_seconds, or take a language model with more "
    "(prefix.small.max_positions)"
)


@dataclass(frozen=True)
class QFormerConfig:
    """How features become tokens; see WindowQFormer. The defaults are those published for CED.

    Of the small encoder's 32 features for 10 s a window of 17 makes a single token: set window to
    4 or so, or keep_remainder.
    """

    window: int = 17
    order: FeatureOrder = "frequency_major"
    keep_remainder: bool = False
    width: int = 768
    layers: int = 2
    heads: int = 12
    feed_forward: int = 3072
    dropout: float = 0.1


@dataclass(frozen=True)
class PrefixConfig:
    """The language model, what it reads, and what is trained; the Q-Former always is.

    language_model: a folder or Hub id of a Llama, GPT-2 or BART (meta-llama/Llama-2-7b-hf), or
    "llama" or "bart" for a `small` untrained one over our own words. dtype: of its weights while
    they are frozen. train_language_model: "lora", "all", or "auto": adapters for published weights,
    everything for untrained ones. train_encoder: adapters in the audio encoder as well, which then
    hears recordings (training/waveforms.py) instead of having its features in a cache; at the end
    a scorer learns from what it hears by then (training/encoder_vectors.py).
    prompt: see autoregressive/prompts.py. How the report puts audio and prompt into BART is not
    known: here both are the input of its encoder. normalise_captions: lower-cased, no punctuation.
    gradient_checkpointing: of the language model: less memory, a third more time.

    The published hyperparameters, to be set in loop, captioner_training and here:

                        report                      code
    pre-training        10 epochs, batch 48, 5e-5   15 epochs, batch 24 per GPU, 5e-5
    fine-tuning         20 epochs, batch 10, 5e-6   30 epochs, batch 32, 5e-6
    warm-up             0.3 epochs                  0.13 of all steps, then cosine
    clips               10 s                        10 s, Clotho's fine-tuning 30 s
    prompt              report                      code

    Both: AdamW, weight_decay 1e-6, LoRA, pre-training on Clotho, AudioCaps and WavCaps without the
    clips that DCASE forbids. Code: LoRA of rank 8, alpha 32 and dropout .1 in Llama-2 and in CED
    (train_encoder), max_gradient_norm 1, seed 20. Neither has an average of weights (ema_decay=0),
    label smoothing or several captions of a clip in a batch (captions_per_clip=1).
    """

    language_model: str = "llama"
    dtype: Literal["float32", "bfloat16"] = "float32"
    small: SmallModelConfig = field(default_factory=SmallModelConfig)
    prompt: str = "report"
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    train_language_model: Literal["auto", "lora", "all"] = "auto"
    train_encoder: bool = False
    lora: LowRankConfig = field(default_factory=LowRankConfig)
    normalise_captions: bool = True
    label_smoothing: float = 0.0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for settings that make no sense."""
        split_prompt(self.prompt)
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing={self.label_smoothing}: must be from 0 to below 1")
        if self.dtype != "float32" and not self.adapts_language_model:
            raise ConfigError(
                f"dtype={self.dtype}: weights that are trained must be float32; set it so, or "
                "train_language_model=lora"
            )

    @property
    def adapts_language_model(self) -> bool:
        """Whether the language model is frozen but for adapters."""
        if self.train_language_model == "auto":
            return self.language_model not in SMALL
        return self.train_language_model == "lora"


class PrefixTrainer(nn.Module):
    """Q-Former, language model and, where it is trained as well, the audio encoder.

    prompt: what stands around the audio. encoder: what encodes batches of Waveforms; None for
    batches of features. Raises ConfigError for a batch of Waveforms without an encoder.
    """

    def __init__(
        self,
        projection: WindowQFormer,
        network: Any,
        prompt: PromptIds,
        label_smoothing: float = 0.0,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.projection, self.network, self.encoder = projection, network, encoder
        self.prompt, self.label_smoothing = prompt, label_smoothing

    def forward(self, batch: CaptionBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of the captions' tokens, given prompts, audio and the tokens before each.

        "loss" is smoothed where label_smoothing says so, "cross_entropy" is not.
        """
        audio = self.features(batch)
        prompts = self.prompt.repeat(len(audio.features))
        encoded = encode_audio(self.projection, self.network, audio, prompts)
        padding = self.network.config.pad_token_id
        return caption_loss(self.network, encoded, batch.token_ids, padding, self.label_smoothing)

    def features(self, batch: CaptionBatch) -> AudioFeatures:
        """What the encoder hears of recordings, or what came from a cache."""
        if self.encoder is not None and isinstance(batch.audio, Waveforms):
            return encode_waveforms(self.encoder, batch.audio)
        return batch.features

    def train(self, mode: bool = True) -> PrefixTrainer:
        """As of every module, but the statistics of the encoder's input never move."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    @contextmanager
    def stock(self) -> Iterator[None]:
        """Within the block, network and encoder are without adapters, which are merged into them.

        For saving; the weights under training come back bit by bit.
        """
        with ExitStack() as stack:
            stack.enter_context(merged_adapters(self.network))
            if self.encoder is not None:
                stack.enter_context(merged_adapters(self.encoder))
            yield


class PrefixTask(AutoregressiveTask):
    """The training of a PrefixTrainer as the loop sees it; what it writes needs no peft."""

    model: PrefixTrainer

    def sample(self, audio: AudioFeatures) -> Tensor:
        """The greedy caption of every clip as token ids (B, L)."""
        network: Any = self.model.network
        # The Q-Former's weights are float32 beside a frozen network of half precision.
        half = network.dtype != torch.float32
        with torch.autocast(network.device.type, network.dtype if half else None, enabled=half):
            return super().sample(audio)

    def export(self, folder: Path) -> None:
        """Write the whole captioner, ready for `AutoregressiveCaptioner.from_pretrained`."""
        with self.model.stock():
            super().export(folder)


def prefix_captioner(
    trainer: PrefixTrainer, parts: FrozenParts, max_length: int, decoding: DecodingConfig
) -> AutoregressiveCaptioner:
    """The captioner made of a trainer's current weights.

    parts: with the encoder that the trainer has, if it has one, and the language model's tokenizer.
    """
    return AutoregressiveCaptioner(
        encoder=parts.encoder if trainer.encoder is None else trainer.encoder,
        projection=trainer.projection,
        network=trainer.network,
        tokenizer=parts.tokenizer,
        scorer=parts.scorer,
        max_length=max_length,
        prompt_left=list(trainer.prompt.left),
        prompt_right=list(trainer.prompt.right),
        **dataclasses.asdict(decoding),
    )


def make_language_model(config: PrefixConfig, tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """The language model that the config names, and its tokenizer: `tokenizer` for a small one.

    Raises CheckpointError as load_language_model does.
    """
    small = config.small
    if config.language_model == "llama":
        return LanguageModel(build_llama(small, tokenizer), tokenizer)
    if config.language_model == "bart":
        network = build_bart(
            tokenizer,
            width=small.width,
            encoder_layers=small.layers // 2,
            decoder_layers=small.layers - small.layers // 2,
            heads=small.heads,
            feed_forward=small.feed_forward,
            dropout=small.dropout,
            max_positions=small.max_positions,
        )
        return LanguageModel(network, tokenizer)
    return load_language_model(config.language_model, getattr(torch, config.dtype))


def build_prefix_trainer(
    config: PrefixConfig, model: LanguageModel, encoder: Any, max_length: int
) -> PrefixTrainer:
    """Everything that is trained, for the features of an encoder and captions of max_length tokens.

    With config.train_encoder the encoder itself gets adapters, in place. Raises MissingExtraError
    where adapters are wanted and the extra `lora` is missing, ConfigError where sizes do not fit,
    the network has too few positions, or cannot have adapters.
    """
    network = model.network
    prompt = encode_prompt(config.prompt, model.tokenizer, network)
    projection = build_projection(
        config.qformer, encoder, network.get_input_embeddings().embedding_dim
    )
    tokens = projection.num_windows(most_features(encoder))
    longest = len(prompt.left) + tokens + len(prompt.right)
    if network.config.is_encoder_decoder:
        longest = padded_places(longest)
    check_positions(network, longest, max_length, REMEDY)
    if config.adapts_language_model:
        add_adapters(network, config.lora)
    if config.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    if config.train_encoder:
        add_adapters(encoder, config.lora)
    return PrefixTrainer(
        projection,
        network,
        prompt,
        config.label_smoothing,
        encoder if config.train_encoder else None,
    )


def build_projection(config: QFormerConfig, encoder: Any, width: int) -> WindowQFormer:
    """A Q-Former from an encoder's features to a network of some width."""
    banded = isinstance(encoder, CedEncoder) and encoder.frequency_pooling == "none"
    return WindowQFormer(
        audio_dim=encoder.feature_dim,
        width=width,
        window=config.window,
        order=config.order,
        bands=encoder.bands if banded else 1,
        time_patches=encoder.time_patches if banded else 1,
        keep_remainder=config.keep_remainder,
        hidden=config.width,
        layers=config.layers,
        heads=config.heads,
        feed_forward=config.feed_forward,
        dropout=config.dropout,
    )
