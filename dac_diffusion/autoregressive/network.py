"""How every autoregressive captioner's network hears audio: one of three kinds, by its config.

1. Encoder-decoders (BART, MBart): the audio's embeddings, with prompts around them if there are
   any, are the input of the encoder.
2. Decoders with cross-attention (GPT-2 with `add_cross_attention`): they cross-attend to the
   embeddings, and prompts stand in front of the caption.
3. Decoders without (Llama): left prompt, audio embeddings, right prompt, caption, in one sequence.

The embeddings come from a `projection`: a module that takes AudioFeatures and returns embeddings
(B, S, W) and their mask (B, S) of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError

Projection = Callable[[AudioFeatures], tuple[Tensor, Tensor]]
# Prefixes are padded to multiples of this, so that a clip's own one is seldom padded otherwise in
# another batch, which could change the last bits of its numbers.
PREFIX_MULTIPLE = 16


@dataclass(frozen=True)
class Prompts:
    """Token ids on both sides of the audio, for each of B clips."""

    left: Sequence[Sequence[int]]
    right: Sequence[Sequence[int]]


@dataclass(frozen=True)
class EncodedAudio:
    """What captions of B clips are written from.

    hidden (B, S, W), mask (B, S) of 0 and 1: what the decoder cross-attends to; None without
    cross-attention. prefix (B, P, W), prefix_mask (B, P): embeddings in front of the caption,
    padded on the left; None for encoder-decoders.
    """

    hidden: Tensor | None
    mask: Tensor | None
    prefix: Tensor | None = None
    prefix_mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self._parts()[0])

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return self._parts()[0].device

    def repeat(self, captions: int) -> EncodedAudio:
        """Every clip `captions` times in a row: (B captions, ...)."""
        return self._with(lambda part: part.repeat_interleave(captions, dim=0))

    def select(self, places: list[int]) -> EncodedAudio:
        """Some of the clips."""
        return self._with(lambda part: part[places])

    def _parts(self) -> list[Tensor]:
        return [part for part in (self.hidden, self.prefix) if part is not None]

    def _with(self, change: Callable[[Tensor], Tensor]) -> EncodedAudio:
        parts = self.hidden, self.mask, self.prefix, self.prefix_mask
        return EncodedAudio(*(None if part is None else change(part) for part in parts))


def encode_audio(
    projection: Projection, network: Any, audio: AudioFeatures, prompts: Prompts | None = None
) -> EncodedAudio:
    """Everything that is computed once per clip, whatever captions are then written.

    prompts: needed for the second kind of network (see above), for the third by its training.
    """
    embeddings, mask = projection(audio)  # (B, S, W), (B, S)
    embeddings = embeddings.to(network.dtype)
    if network.config.is_encoder_decoder:
        if prompts is not None:
            embeddings, mask = _pad(_surround(network, embeddings, mask, prompts), left=False)
        encoded = network.get_encoder()(inputs_embeds=embeddings, attention_mask=mask)
        return EncodedAudio(encoded.last_hidden_state, mask)
    if prompts is None:
        empty: list[list[int]] = [[] for _ in embeddings]
        prompts = Prompts(empty, empty)
    if cross_attends(network):
        prefix = _pad(_surround(network, embeddings[:, :0], mask[:, :0], prompts), left=True)
        return EncodedAudio(embeddings, mask, *prefix)
    prefix = _pad(_surround(network, embeddings, mask, prompts), left=True)
    return EncodedAudio(None, None, *prefix)


def cross_attends(network: Any) -> bool:
    """Whether it is a decoder with cross-attention and nothing else."""
    return bool(getattr(network.config, "add_cross_attention", False))


def start_ids(network: Any) -> list[int]:
    """What stands in front of every caption: the start token of an encoder-decoder.

    A forced first token, as BART's, is not counted: it is part of the caption's own tokens.
    """
    if not network.config.is_encoder_decoder:
        return []
    return [network.config.decoder_start_token_id]


def caption_logits(network: Any, audio: EncodedAudio, token_ids: Tensor) -> Tensor:
    """Logits (N, L, V) of every token of captions (N, L), given the ones before it."""
    logits: Tensor
    if network.config.is_encoder_decoder:
        start = start_ids(network)[0]
        before = F.pad(token_ids[:, :-1], (1, 0), value=start)  # (N, L)
        logits = network(
            encoder_outputs=(audio.hidden,),
            attention_mask=audio.mask,
            decoder_input_ids=before,
            use_cache=False,
        ).logits
        return logits
    assert audio.prefix is not None
    assert audio.prefix_mask is not None
    words = network.get_input_embeddings()(token_ids[:, :-1])  # (N, L - 1, W)
    mask = F.pad(audio.prefix_mask, (0, words.shape[1]), value=1)  # (N, P + L - 1)
    logits = network(
        inputs_embeds=torch.cat([audio.prefix, words.to(audio.prefix.dtype)], dim=1),
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=False,
        logits_to_keep=token_ids.shape[1],
        **cross_attention_inputs(network, audio),
    ).logits  # (N, L, V)
    return logits


def sequence_log_likelihood(
    network: Any, audio: EncodedAudio, token_ids: Tensor, pad_id: int
) -> Tensor:
    """Mean log-probability per token, the end token included, of captions (N, L): (N,)."""
    logits = caption_logits(network, audio, token_ids).float()
    chosen = logits.log_softmax(dim=-1).gather(-1, token_ids[..., None])[..., 0]  # (N, L)
    counts = (token_ids != pad_id).float()
    return (chosen * counts).sum(dim=-1) / counts.sum(dim=-1).clamp(min=1.0)


def cross_attention_inputs(network: Any, audio: EncodedAudio) -> dict[str, Tensor | None]:
    """The arguments of a decoder that cross-attends; none for one that does not."""
    if not cross_attends(network):
        return {}
    return {"encoder_hidden_states": audio.hidden, "encoder_attention_mask": audio.mask}


def positions(mask: Tensor) -> Tensor:
    """The places (B, P) of what the mask (B, P) shows, counted from 0."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def padded_places(longest: int) -> int:
    """How many places audio with prompts takes, the padding behind the longest included."""
    return -(-longest // PREFIX_MULTIPLE) * PREFIX_MULTIPLE


def check_positions(network: Any, audio: int, caption: int, remedy: str) -> None:
    """Raise ConfigError where a network has fewer positions than it needs.

    audio: embeddings of the longest window, with prompts around it; caption: tokens of the longest
    one; remedy: what the error says can be done.
    """
    positions: int = network.config.max_position_embeddings
    in_turn = not network.config.is_encoder_decoder  # one sequence of both
    if (audio + caption if in_turn else max(audio, caption)) > positions:
        raise ConfigError(
            f"the network has {positions} positions, but audio takes up to {audio} and a caption "
            f"{caption}; {remedy}"
        )


def choose_attention(network: Any, device: torch.device) -> None:
    """On CPUs attention written out: for so few positions PyTorch's fused kernel is slower.

    A training step takes two thirds of the time, decoding four fifths to as long.
    """
    network.set_attn_implementation("eager" if device.type == "cpu" else "sdpa")


def _surround(network: Any, embeddings: Tensor, mask: Tensor, prompts: Prompts) -> list[Tensor]:
    """What each clip is heard as: left prompt, its unmasked embeddings, right prompt, (P, W)."""
    embed = network.get_input_embeddings()

    def words(ids: Sequence[int]) -> Tensor:
        vectors: Tensor = embed(torch.tensor(ids, dtype=torch.long, device=embeddings.device))
        return vectors.to(embeddings.dtype)

    return [
        torch.cat([words(left), own[heard.bool()], words(right)])  # (P, W)
        for own, heard, left, right in zip(
            embeddings, mask, prompts.left, prompts.right, strict=True
        )
    ]


def _pad(sequences: list[Tensor], left: bool) -> tuple[Tensor, Tensor]:
    """Sequences (P, W) of B clips as one tensor (B, P, W), and its mask (B, P)."""
    longest = max(len(sequence) for sequence in sequences)
    total = padded_places(longest)
    side = "left" if left else "right"
    padded = pad_sequence(sequences, batch_first=True, padding_side=side)  # (B, longest, W)
    ones = [torch.ones(len(s), dtype=torch.long, device=s.device) for s in sequences]
    mask = pad_sequence(ones, batch_first=True, padding_side=side)  # (B, longest)
    more = (total - longest, 0) if left else (0, total - longest)
    return F.pad(padded, (0, 0, *more)), F.pad(mask, more)
