"""From encoded audio to token ids: greedy, beam search, nucleus sampling, diverse beam search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MBartForConditionalGeneration,
    TopPLogitsWarper,
)
from transformers.modeling_outputs import BaseModelOutput

from dac_diffusion.autoregressive.diverse_beam import diverse_beam_search
from dac_diffusion.autoregressive.network import EncodedAudio
from dac_diffusion.errors import ConfigError
from dac_diffusion.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID

DecodingMethod = Literal["greedy", "beam", "nucleus", "diverse_beam"]


@dataclass(frozen=True)
class DecodingSettings:
    """How captions are decoded.

    num_candidates: captions per clip. num_beams: of beam search, at least num_candidates are used.
    temperature, top_p: of nucleus sampling (Holtzman et al. 2020). length_penalty: beam scores are
    divided by length to this power. diversity_penalty: of diverse beam search, with one group of
    beams for every caption (Vijayakumar et al. 2018). seed: of nucleus sampling. min_length: tokens
    before a caption may end; max_length: tokens after which it is cut. One number for both gives
    captions of one length, for timing networks with random weights.
    """

    method: DecodingMethod = "nucleus"
    num_candidates: int = 1
    num_beams: int = 4
    temperature: float = 1.0
    top_p: float = 0.9
    length_penalty: float = 1.0
    diversity_penalty: float = 0.5
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
        if self.diversity_penalty < 0:
            raise ConfigError(f"diversity_penalty={self.diversity_penalty}: must be at least 0")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed={self.seed}: must be 0 or more, and below 2^63")


def decode(
    network: MBartForConditionalGeneration,
    audio: EncodedAudio,
    settings: DecodingSettings,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Captions of B clips as token ids (B, K, max_length), each ended by [EOS], then [PAD].

    Beam search gives the best first. generators: one per clip, of nucleus sampling.
    """
    if settings.method == "diverse_beam":
        return diverse_beam_search(
            network,
            audio,
            num_groups=settings.num_candidates,
            beams_per_group=max(1, settings.num_beams // settings.num_candidates),
            diversity_penalty=settings.diversity_penalty,
            length_penalty=settings.length_penalty,
            max_length=settings.max_length,
            min_length=settings.min_length,
        )
    count = settings.num_candidates
    processors = LogitsProcessorList()
    if settings.method == "nucleus":
        audio = audio.repeat(count)
        processors.append(NucleusSampling(generators, settings.temperature, settings.top_p))
    by_beams = settings.method == "beam"
    beams = max(settings.num_beams, count) if by_beams else 1
    ids = network.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=audio.hidden),
        attention_mask=audio.mask,
        generation_config=GenerationConfig(
            max_new_tokens=settings.max_length,
            num_beams=beams,
            num_return_sequences=count if by_beams else 1,
            length_penalty=settings.length_penalty,
            do_sample=False,
            suppress_tokens=[PAD_ID, UNK_ID, BOS_ID],
            min_new_tokens=settings.min_length,  # no empty captions
            pad_token_id=PAD_ID,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            decoder_start_token_id=BOS_ID,
        ),
        logits_processor=processors,
    )[:, 1:]  # (B K, up to max_length), without the start token
    padded = ids.new_full((len(ids), settings.max_length), PAD_ID)
    padded[:, : ids.shape[1]] = ids
    return padded.unflatten(0, (-1, count))  # (B, K, L)


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
