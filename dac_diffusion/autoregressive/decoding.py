"""From encoded audio to token ids: greedy, beam search, nucleus sampling, diverse beam search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import BaseModelOutput

from dac_diffusion.autoregressive.caption_tokens import CaptionTokens
from dac_diffusion.autoregressive.diverse_beam import diverse_beam_search
from dac_diffusion.autoregressive.network import (
    EncodedAudio,
    cross_attention_inputs,
    start_ids,
)
from dac_diffusion.errors import ConfigError
from dac_diffusion.seeds import check_seed

DecodingMethod = Literal["greedy", "beam", "nucleus", "diverse_beam"]


@dataclass(frozen=True)
class DecodingSettings:
    """How captions are decoded.

    num_candidates: captions per clip. num_beams: of beam search, at least num_candidates are used.
    temperature, top_p: of nucleus sampling (Holtzman et al. 2020). length_penalty: beam scores are
    divided by length to this power. diversity_penalty: of diverse beam search, with one group of
    beams for every caption (Vijayakumar et al. 2018). no_repeat_ngram: no caption has the same n
    tokens in a row twice (0: it may), early_stopping: beam search ends with as many ended captions
    as beams, whether or not a better one may come; neither is for diverse_beam. seed: of nucleus
    sampling. min_length: tokens before a caption may end; max_length: tokens after which it is cut,
    a first token that all captions share (BART's <s>) and the end token included.
    One number for both gives captions of one length, for timing networks with random weights.
    """

    method: DecodingMethod = "nucleus"
    num_candidates: int = 1
    num_beams: int = 4
    temperature: float = 1.0
    top_p: float = 0.9
    length_penalty: float = 1.0
    diversity_penalty: float = 0.5
    no_repeat_ngram: int = 0
    early_stopping: bool = False
    seed: int = 0
    min_length: int = 1
    max_length: int = 24

    def check(self, longest: int) -> None:
        """Raise ConfigError, naming the setting, for a value that makes no sense.

        longest: tokens that the network has places for.
        """
        if self.method not in get_args(DecodingMethod):
            known = ", ".join(get_args(DecodingMethod))
            raise ConfigError(f"decoding={self.method!r}: must be one of {known}")
        for name in ("num_candidates", "num_beams", "min_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        if not self.min_length <= self.max_length <= longest:
            raise ConfigError(
                f"max_length={self.max_length}: must be at least min_length={self.min_length} "
                f"and at most {longest}"
            )
        if self.method == "greedy" and self.num_candidates > 1:
            raise ConfigError(
                f"num_candidates={self.num_candidates}: greedy decoding has one caption only; "
                "use nucleus, beam or diverse_beam"
            )
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature}: must be greater than 0")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: must be greater than 0 and at most 1")
        for name in ("diversity_penalty", "no_repeat_ngram"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 0")
        check_seed(self.seed)


def decode(
    network: Any,
    tokens: CaptionTokens,
    audio: EncodedAudio,
    settings: DecodingSettings,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Captions of B clips as token ids (B, K, max_length): words, the end token, padding.

    Beam search gives the best first. generators: one per clip, of nucleus sampling. Raises
    ConfigError for a max_length without room for a word.
    """
    count, room = settings.num_candidates, _room(settings, tokens)
    if settings.method == "diverse_beam":
        ids = diverse_beam_search(
            network,
            audio,
            num_groups=count,
            beams_per_group=max(1, settings.num_beams // count),
            diversity_penalty=settings.diversity_penalty,
            length_penalty=settings.length_penalty,
            max_length=room,
            min_length=min(settings.min_length, room),
            tokens=tokens,
        )  # (B, K, L or L - 1)
        return _with_first(ids.flatten(0, 1), tokens, settings.max_length).unflatten(0, (-1, count))
    processors = LogitsProcessorList()
    if settings.no_repeat_ngram:
        processors.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram))
    if settings.method == "nucleus":
        audio = audio.repeat(count)
        processors.append(NucleusSampling(generators, settings.temperature, settings.top_p))
    by_beams = settings.method == "beam"
    beams = max(settings.num_beams, count) if by_beams else 1
    start = _first_inputs(network, audio, tokens)
    # Published networks bring settings of their own, which would fill in what is not given here.
    network.generation_config = GenerationConfig()
    skipped = start["decoder_input_ids"].shape[1] if "decoder_input_ids" in start else 0
    ids = network.generate(
        **start,
        generation_config=GenerationConfig(
            max_new_tokens=room,
            num_beams=beams,
            num_return_sequences=count if by_beams else 1,
            length_penalty=settings.length_penalty,
            early_stopping=settings.early_stopping,
            do_sample=False,
            suppress_tokens=list(tokens.never),
            min_new_tokens=min(settings.min_length, room),  # no empty captions
            pad_token_id=tokens.pad,
            eos_token_id=tokens.end,
            decoder_start_token_id=next(iter(start_ids(network)), None),
        ),
        logits_processor=processors,
    )[:, skipped:]  # (B K, up to max_length), without what was given
    return _with_first(ids, tokens, settings.max_length).unflatten(0, (-1, count))  # (B, K, L)


def _room(settings: DecodingSettings, tokens: CaptionTokens) -> int:
    """How many tokens are written: one less where captions begin with a token that is given."""
    room = settings.max_length - (tokens.first is not None)
    if room < 1:
        raise ConfigError(
            f"max_length={settings.max_length}: must be at least 2, because captions of this "
            "captioner begin with a token of its tokenizer"
        )
    return room


def _first_inputs(network: Any, audio: EncodedAudio, tokens: CaptionTokens) -> dict[str, Any]:
    """What `generate` goes on from, for each kind of network (network.py)."""
    if not network.config.is_encoder_decoder:
        return {
            "inputs_embeds": audio.prefix,
            "attention_mask": audio.prefix_mask,
            **cross_attention_inputs(network, audio),
        }
    ids = [*start_ids(network), *([] if tokens.first is None else [tokens.first])]
    return {
        "encoder_outputs": BaseModelOutput(last_hidden_state=audio.hidden),
        "attention_mask": audio.mask,
        "decoder_input_ids": torch.tensor([ids] * len(audio), device=audio.device),  # (B, 1 or 2)
    }


def _with_first(ids: Tensor, tokens: CaptionTokens, length: int) -> Tensor:
    """Token ids (N, up to length) padded to (N, length), behind the first token if there is one."""
    offset = int(tokens.first is not None)
    # Beam search fills up with the end token where padding has the id 0.
    ends = ids == tokens.end
    ids = ids.masked_fill(ends.cumsum(dim=1) - ends.long() > 0, tokens.pad)
    padded = ids.new_full((len(ids), length), tokens.pad)
    padded[:, offset : offset + ids.shape[1]] = ids
    if tokens.first is not None:
        padded[:, 0] = tokens.first
    return padded


class NucleusSampling(LogitsProcessor):
    """Makes the greedy choice a draw from the nucleus, by adding Gumbel noise to the logits.

    The same distribution as sampling from the filtered softmax (Gumbel-max trick), but with one
    generator per clip: a clip's draws do not depend on its batch mates, nor on global state.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], temperature: float, top_p: float
    ) -> None:
        self.generators = generators
        self.temperature = temperature
        self.keep_nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores (B K, V) -> scores (B K, V) whose argmax is the draw."""
        scores = scores.float() / self.temperature
        if self.keep_nucleus is not None:
            scores = self.keep_nucleus(input_ids, scores)
        shape = (len(scores) // len(self.generators), scores.shape[1])
        uniform = torch.cat([torch.rand(shape, generator=g) for g in self.generators])
        # From (0, 1): rand can return 0, whose logarithm would be infinite.
        uniform = uniform.clamp(min=torch.finfo(uniform.dtype).tiny)
        gumbel = -(-uniform.log()).log()
        return scores + gumbel.to(scores.device)
