"""Training of RECAP (Ghosh et al., arXiv 2309.09836): GPT-2 that is shown captions of other clips.

For every training clip the captions nearest to its audio in a joint audio-text space are looked up
once, its own left out. They stand in front of the caption to be learnt, as the prompt
(autoregressive/retrieval_prompt.py); the audio comes by cross-attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from dac_diffusion.autoregressive.bottleneck_gpt2 import (
    SmallGPT2Config,
    build_gpt2,
    freeze_all_but_cross_attention,
    load_gpt2,
)
from dac_diffusion.autoregressive.captioner import AutoregressiveCaptioner, RetrievalSpace
from dac_diffusion.autoregressive.cross_attention_features import CrossAttentionFeatures
from dac_diffusion.autoregressive.language_models import LanguageModel
from dac_diffusion.autoregressive.network import Prompts, encode_audio
from dac_diffusion.autoregressive.retrieval_prompt import (
    LONGEST_CAPTION,
    longest_prompt,
    prompts_of,
)
from dac_diffusion.data.datastore_preparation import EmbedTexts, make_datastore
from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.encoders.loading import EncoderName
from dac_diffusion.errors import ConfigError
from dac_diffusion.retrieval.datastore import CaptionDatastore
from dac_diffusion.training.autoregressive import DecodingConfig, caption_loss
from dac_diffusion.training.caption_sources import CaptionBatch, CaptionSource, FrozenParts

CLIPS_AT_ONCE = 256


@dataclass(frozen=True)
class RetrievalEncoderConfig:
    """The encoder whose vectors captions are looked up by.

    name, weights: see encoders/loading.py; of "small" the folder of a trained one, or "builtin";
    "random" for a small untrained one.
    """

    name: EncoderName
    weights: str

    def __post_init__(self) -> None:
        """Raise ConfigError for an encoder that cannot be half of a pair."""
        if self.name in ("codes", "paired"):
            raise ConfigError(f"name={self.name}: give an encoder of features by itself")


@dataclass(frozen=True)
class RecapConfig:
    """The language model, what of it is trained, and what it is shown.

    gpt2: the folder or Hub id of a published GPT-2 (openai-community/gpt2), with its own sizes and
    tokenizer; None: a `small` random one over our own words. bottleneck: of its cross-attention's
    queries, keys and values. train: "cross_attention" (with a Linear in front where the encoder has
    another width than GPT-2), "all", or "auto": the first for published weights, the second for
    random ones. train_norms: with "cross_attention" also the layer norms before it, which the
    published code leaves as they are made. datastore: the folder to retrieve from; None: the
    captions of the training clips. retrieval_encoder: gives the audio's vectors where `encoder`
    gives the features only (encoders/paired.py); None: it gives both. space: where these vectors
    are compared with captions: "scorer", in the space of the scorer that is trained on them here,
    or "clap", in that of the published CLAP they come from (name htsat). retrieved: captions in a
    prompt; search_width: see CaptionDatastore.search. longest_caption: tokens that a caption in the
    datastore or in a prompt has at most.

    The published hyperparameters, to be set in loop, captioner_training, text and at decoding: 100
    epochs, batch 32, AdamW with a learning rate of 5e-5 that falls linearly to 0, no weight decay,
    no average of weights, one caption of a clip in a batch, text.max_length 60; beam search with 3
    beams and length_penalty 0. The audio features are those of laion/clap-htsat-fused (`encoder`),
    the vectors for retrieval those of laion/clap-htsat-unfused (`retrieval_encoder`).
    """

    gpt2: str | None = None
    small: SmallGPT2Config = field(default_factory=SmallGPT2Config)
    bottleneck: int = 4
    train: Literal["auto", "cross_attention", "all"] = "auto"
    train_norms: bool = False
    datastore: str | None = None
    retrieval_encoder: RetrievalEncoderConfig | None = None
    space: RetrievalSpace = "scorer"
    retrieved: int = 3
    search_width: int = 15
    longest_caption: int = LONGEST_CAPTION

    def __post_init__(self) -> None:
        """Raise ConfigError for settings that make no sense."""
        for name in ("bottleneck", "retrieved", "search_width", "longest_caption"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.gpt2 is None and self.train == "cross_attention":
            raise ConfigError(
                "train=cross_attention: a random GPT-2 would stay random; name a published one in "
                "gpt2, or set train to all"
            )
        if self.train_norms and not self.is_frozen:
            raise ConfigError("train_norms: with train=all they are trained anyway; remove it")
        second = self.retrieval_encoder
        if self.space == "clap" and second and not is_published_clap(second.name, second.weights):
            raise ConfigError(
                "space=clap: needs retrieval_encoder.name=htsat with the weights of a published "
                "CLAP; name them, or set space=scorer"
            )

    @property
    def is_frozen(self) -> bool:
        """Whether only the cross-attention is trained."""
        return self.train == "cross_attention" or (self.train == "auto" and self.gpt2 is not None)


def is_published_clap(name: str, weights: str | None) -> bool:
    """Whether an encoder has a text side (encoders/clap_text.py), by its name and weights."""
    return name == "htsat" and weights not in (None, "random")


@dataclass(frozen=True)
class RetrievalBatch(CaptionBatch):
    """A CaptionBatch with the prompt of each of its B clips."""

    prompts: Prompts = field(kw_only=True)


@dataclass(frozen=True)
class RetrievedCaptions:
    """Batches of a source with prompts; a CaptionSource.

    found: the captions to show for each clip of the source, by its place there.
    """

    source: CaptionSource
    found: Sequence[Sequence[str]]
    longest_caption: int = LONGEST_CAPTION

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The source's."""
        return self.source.tokenizer

    def batch(self, step: int, rank: int) -> RetrievalBatch:
        """The source's batch, with prompts."""
        batch = self.source.batch(step, rank)
        if len(batch.clips) != len(batch.token_ids):
            raise TypeError(f"{type(self.source).__name__} does not say which clips are in a batch")
        captions = [self.found[clip] for clip in batch.clips]
        prompts = prompts_of(self.tokenizer, captions, self.longest_caption)
        return RetrievalBatch(batch.audio, batch.token_ids, batch.clips, prompts=prompts)

    def first(self, count: int) -> tuple[AudioFeatures, list[list[str]]]:
        """The source's first clips, and their references."""
        return self.source.first(count)


class RecapTrainer(nn.Module):
    """Projection and GPT-2 with their loss; the audio side is frozen and encoded."""

    def __init__(self, projection: CrossAttentionFeatures, network: Any) -> None:
        super().__init__()
        self.projection, self.network = projection, network

    def forward(self, batch: RetrievalBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of every caption token given the prompt, the audio, and those before it.

        The prompt is no target. A caption ends with its first end token: with "." as GPT-2's a
        caption's own period is the end, and what follows it could never be generated.
        """
        config = self.network.config
        encoded = encode_audio(self.projection, self.network, batch.features, batch.prompts)
        token_ids = cut_at_end(batch.token_ids, config.eos_token_id, config.pad_token_id)
        return caption_loss(self.network, encoded, token_ids, config.pad_token_id)


def cut_at_end(token_ids: Tensor, end: int, padding: int) -> Tensor:
    """Token ids (..., L) with padding after the first end token."""
    is_end = (token_ids == end).long()
    return token_ids.masked_fill(is_end.cumsum(dim=-1) > is_end, padding)


def make_decoder(
    config: RecapConfig, tokenizer: PreTrainedTokenizerFast, seed: int
) -> LanguageModel:
    """The GPT-2 that the config names, and its tokenizer: `tokenizer` for a small one.

    seed: of the new weights in a published one; a small one draws from the global generator.
    Raises CheckpointError as load_gpt2 does, ConfigError where the bottleneck does not fit.
    """
    if config.gpt2 is None:
        return LanguageModel(build_gpt2(config.small, tokenizer, config.bottleneck), tokenizer)
    return load_gpt2(config.gpt2, config.bottleneck, seed)


def build_recap_trainer(
    config: RecapConfig, model: LanguageModel, audio_dim: int, max_length: int
) -> RecapTrainer:
    """Everything that is trained, for features of audio_dim and captions of max_length tokens.

    Raises ConfigError where prompts and captions are longer than the network's positions.
    """
    network = model.network
    most = longest_prompt(model.tokenizer, config.retrieved, config.longest_caption) + max_length
    if most > network.config.n_positions:
        raise ConfigError(
            f"retrieved={config.retrieved}: prompt and caption may have {most} tokens, but the "
            f"network has {network.config.n_positions} positions; lower it or longest_caption, or "
            "raise small.max_positions"
        )
    if config.is_frozen:
        freeze_all_but_cross_attention(network, config.train_norms)
    return RecapTrainer(CrossAttentionFeatures(audio_dim, network.config.n_embd), network)


def open_datastore(
    config: RecapConfig,
    captions: Mapping[str, Sequence[str]],
    embed_texts: EmbedTexts,
    space: str,
    tokenizer: PreTrainedTokenizerFast,
    progress: bool = True,
) -> CaptionDatastore:
    """The datastore that the config names, or one of the training clips' captions, by their names.

    embed_texts, space: the text side of a joint audio-text space, and its fingerprint. Raises
    DataError where the datastore is damaged or of another space.
    """
    if config.datastore is not None:
        return CaptionDatastore.open(config.datastore, space)
    longest = config.longest_caption
    return make_datastore(captions, embed_texts, space, tokenizer, longest, progress).datastore


def recap_captioner(
    trainer: RecapTrainer,
    parts: FrozenParts,
    max_length: int,
    decoding: DecodingConfig,
    config: RecapConfig,
    datastore: CaptionDatastore,
) -> AutoregressiveCaptioner:
    """The captioner made of a trainer's current weights."""
    captioner = AutoregressiveCaptioner(
        encoder=parts.encoder,
        projection=trainer.projection,
        network=trainer.network,
        tokenizer=parts.tokenizer,
        scorer=parts.scorer,
        max_length=max_length,
        retrieved=config.retrieved,
        search_width=config.search_width,
        longest_caption=config.longest_caption,
        retrieval_space=config.space,
        datastore_space=datastore.space,
        **dataclasses.asdict(decoding),
    )
    captioner.datastore = datastore
    return captioner


def find_captions(
    config: RecapConfig,
    datastore: CaptionDatastore,
    names: Sequence[str],
    vectors: Tensor,
    progress: bool = True,
) -> list[tuple[str, ...]]:
    """The captions to show for each of N clips, the nearest first, none of them the clip's own.

    vectors: (N, E), of the clips' audio in the datastore's space.
    """
    found: list[tuple[str, ...]] = []
    shared: dict[str, str] = {}  # the same text is kept once
    with tqdm(total=len(names), desc="retrieving captions", disable=not progress) as bar:
        for start in range(0, len(names), CLIPS_AT_ONCE):
            part = slice(start, start + CLIPS_AT_ONCE)
            results = datastore.search(
                vectors[part], config.retrieved, names[part], config.search_width
            )
            found += [tuple(shared.setdefault(c, c) for c in r.captions) for r in results]
            bar.update(len(results))
    return found
