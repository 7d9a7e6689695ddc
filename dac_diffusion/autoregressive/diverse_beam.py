"""Diverse beam search (Vijayakumar et al. 2018, arXiv 1610.02424, algorithm 1).

Written here because transformers moved its own out of the package into a download.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from dac_diffusion.autoregressive.caption_tokens import CaptionTokens
from dac_diffusion.autoregressive.network import (
    EncodedAudio,
    cross_attends,
    cross_attention_inputs,
    positions,
    start_ids,
)

NEVER = float("-inf")


def diverse_beam_search(
    network: Any,
    audio: EncodedAudio,
    num_groups: int,
    beams_per_group: int,
    diversity_penalty: float,
    length_penalty: float,
    max_length: int,
    tokens: CaptionTokens,
    min_length: int = 1,
) -> Tensor:
    """The best caption of each of G groups of beams, as token ids (B, G, max_length).

    At every step a group's token scores are lowered by `diversity_penalty` for each time that the
    groups before it chose the token at this step (Hamming diversity). A beam's score is its
    log-probability divided by its length to the power of `length_penalty`; ended beams compete with
    running ones by it. A caption that has not ended at max_length is cut there.
    """
    clips, groups, beams = len(audio), num_groups, beams_per_group
    device = audio.device
    stepper = _Stepper(network, audio.repeat(groups * beams), tokens)
    ids = torch.full((clips, groups, beams, max_length), tokens.pad, device=device)
    # All beams of a group start alike, so only the first one may be continued at first.
    scores = torch.full((clips, groups, beams), NEVER, device=device)
    scores[:, :, 0] = 0.0
    lengths = torch.zeros((clips, groups, beams), dtype=torch.long, device=device)
    ended = torch.zeros((clips, groups, beams), dtype=torch.bool, device=device)
    last: Tensor | None = None
    for position in range(max_length):
        logits = stepper.next_logits(last)  # (B G M, V)
        steps = logits.float().log_softmax(dim=-1).view(clips, groups, beams, -1)
        steps = _allowed(steps, ended, tokens, may_end=position >= min_length)
        origin, token, scores = _choose(
            steps, scores, lengths, ended, tokens.pad, diversity_penalty, length_penalty
        )
        ids, lengths, ended = (_follow(part, origin) for part in (ids, lengths, ended))
        ids[..., position] = token
        lengths = lengths + (~ended).long()
        ended = ended | (token == tokens.end)
        if bool(ended.all()):
            break
        stepper.cache.reorder_cache(_flat_rows(origin))
        last = token.view(-1, 1)
    return ids[:, :, 0]  # (B, G, L), the first beam is the best


class _Stepper:
    """Runs a network of any kind (network.py) one token at a time, with its cache."""

    def __init__(self, network: Any, audio: EncodedAudio, tokens: CaptionTokens) -> None:
        self.network, self.audio = network, audio
        self.start = [*start_ids(network), *([] if tokens.first is None else [tokens.first])]
        two = network.config.is_encoder_decoder or cross_attends(network)
        self.cache: Any = (
            EncoderDecoderCache(DynamicCache(), DynamicCache()) if two else DynamicCache()
        )
        self.mask = audio.prefix_mask  # (N, P), then with the words so far

    def next_logits(self, last: Tensor | None) -> Tensor:
        """Logits (N, V) of the next token, after the last ones (N, 1), or of the first token."""
        if self.network.config.is_encoder_decoder:
            if last is None:
                last = torch.tensor([self.start] * len(self.audio), device=self.audio.device)
            inputs = {
                "encoder_outputs": (self.audio.hidden,),
                "attention_mask": self.audio.mask,
                "decoder_input_ids": last,
            }
        else:
            inputs = self._decoder_inputs(last)
        output = self.network(**inputs, past_key_values=self.cache, use_cache=True)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _decoder_inputs(self, last: Tensor | None) -> dict[str, Any]:
        assert self.mask is not None
        inputs: dict[str, Any] = cross_attention_inputs(self.network, self.audio)
        if last is None:
            places = positions(self.mask)  # (N, P)
            inputs["inputs_embeds"] = self.audio.prefix
        else:
            self.mask = F.pad(self.mask, (0, 1), value=1)  # (N, P + words)
            places = positions(self.mask)[:, -1:]  # (N, 1)
            inputs["input_ids"] = last
        return inputs | {"attention_mask": self.mask, "position_ids": places}


def _allowed(steps: Tensor, ended: Tensor, tokens: CaptionTokens, may_end: bool) -> Tensor:
    """Words and, where it may come, the end; an ended caption goes on by free padding."""
    steps = steps.clone()
    steps[..., [*tokens.never, *([] if may_end else [tokens.end])]] = NEVER
    pad_only = torch.full_like(steps[0, 0, 0], NEVER)
    pad_only[tokens.pad] = 0.0
    return torch.where(ended[..., None], pad_only, steps)


def _choose(
    steps: Tensor,
    scores: Tensor,
    lengths: Tensor,
    ended: Tensor,
    pad_id: int,
    diversity_penalty: float,
    length_penalty: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The M best continuations of each group: which beam, which token, log-probability (B, G, M).

    steps: (B, G, M, V) log-probabilities of the next token; the groups choose one after another.
    """
    clips, groups, beams, vocabulary = steps.shape
    times_chosen = torch.zeros(clips, vocabulary, device=steps.device)
    chosen = []
    for group in range(groups):
        total = scores[:, group, :, None] + steps[:, group]  # (B, M, V)
        length = (lengths[:, group] + (~ended[:, group]).long())[..., None]  # (B, M, 1)
        ranked = (total - diversity_penalty * times_chosen[:, None]) / length**length_penalty
        best = ranked.flatten(1).topk(beams, dim=1).indices  # (B, M)
        token = best % vocabulary
        # The padding behind an ended caption is no choice of a word.
        times_chosen.scatter_add_(1, token, (token != pad_id).float())
        chosen.append((best // vocabulary, token, total.flatten(1).gather(1, best)))
    origin, token, score = (torch.stack(parts, dim=1) for parts in zip(*chosen, strict=True))
    return origin, token, score


def _follow(part: Tensor, origin: Tensor) -> Tensor:
    """Rearrange the beams of each group: part (B, G, M) or (B, G, M, L), origin (B, G, M)."""
    index = origin if part.ndim == 3 else origin[..., None].expand_as(part)
    return part.gather(2, index)


def _flat_rows(origin: Tensor) -> Tensor:
    """Beams within groups (B, G, M) as rows of the network's batch (B G M,)."""
    beams = origin.shape[2]
    first = torch.arange(origin.shape[0] * origin.shape[1], device=origin.device) * beams
    return (origin.flatten(0, 1) + first[:, None]).flatten()
