"""Drawing candidates: windows of audio in, texts and what is needed to rank them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dac_diffusion.autoregressive.caption_tokens import CaptionTokens
from dac_diffusion.autoregressive.decoding import DecodingSettings, decode
from dac_diffusion.autoregressive.network import EncodedAudio, sequence_log_likelihood
from dac_diffusion.captioning.randomness import generator_of_round, window_generator
from dac_diffusion.captioning.ranking import Candidates, embed_texts, texts_of
from dac_diffusion.captioning.selection import NO_FILTER, draw_distinct
from dac_diffusion.captioning.window_encoding import Window, encode_windows, window_batches
from dac_diffusion.ranking.settings import RankingSettings

# Every step reads all weights for a single token of each caption, so that many clips at a time cost
# little more than few, on a CPU as well. What is remembered of each (the KV cache) limits them.
CLIPS_PER_CALL = 32
SEQUENCES_PER_CALL = 320


def sequences_per_clip(settings: DecodingSettings) -> int:
    """How many captions of a clip are decoded side by side."""
    beams = settings.num_beams if settings.method in ("beam", "diverse_beam") else 1
    return max(settings.num_candidates, beams)


@dataclass(frozen=True)
class SequenceDrawer:
    """Decodes captions of windows; the other half of `caption_recordings`.

    captioner: whatever has the components of AutoregressiveCaptioner, `config` and `device`.
    with_likelihood: find the log-likelihood of every candidate, for one forward pass more.
    ranking: whose filter says which candidates are of no use, so that more are sampled.
    """

    captioner: Any
    settings: DecodingSettings
    num_captions: int
    with_likelihood: bool
    ranking: RankingSettings = NO_FILTER

    def draw(self, windows: Sequence[Window]) -> list[Candidates]:
        """Candidates for every window, in order."""
        captioner = self.captioner
        drawn: dict[int, Candidates] = {}
        for batch in window_batches(windows, captioner.encoder, CLIPS_PER_CALL):
            drawn.update(zip(batch, self._draw_batch([windows[i] for i in batch]), strict=True))
        return [drawn[i] for i in range(len(windows))]

    def _draw_batch(self, windows: list[Window]) -> list[Candidates]:
        captioner = self.captioner
        audio = encode_windows(captioner.encoder, windows, captioner.device)
        encoded = captioner.encode(audio)
        seeds = [window_generator(self.settings.seed, w.waveform).initial_seed() for w in windows]
        rounds = Counter[int]()  # of each window so far
        pooled = audio.pooled.float().cpu()  # (B, P)

        def draw(places: list[int]) -> list[Candidates]:
            # A generator for every round: how much of it is used up depends on the longest caption
            # of the call, and so on the other windows.
            generators = [generator_of_round(seeds[i], rounds[i]) for i in places]
            rounds.update(places)
            drawn: list[Candidates] = []
            size = max(1, SEQUENCES_PER_CALL // sequences_per_clip(self.settings))
            for start in range(0, len(places), size):
                some = places[start : start + size]
                drawn += self._decode(
                    encoded.select(some), pooled[some], generators[start : start + size]
                )
            return drawn

        # Only sampling finds something else the next time.
        wanted = self.num_captions if self.settings.method == "nucleus" else 0
        return draw_distinct(draw, len(windows), wanted, self.ranking)

    def _decode(
        self, audio: EncodedAudio, pooled: Tensor, generators: list[torch.Generator]
    ) -> list[Candidates]:
        captioner = self.captioner
        tokens = CaptionTokens.of(captioner.tokenizer)
        ids = decode(captioner.network, tokens, audio, self.settings, generators)  # (B, K, L)
        texts = texts_of(captioner.tokenizer, ids)
        vectors = embed_texts(captioner.scorer, captioner.tokenizer, texts)  # (B, K, E)
        likelihoods: Sequence[Tensor | None] = [None] * len(texts)
        if self.with_likelihood:
            repeated = audio.repeat(ids.shape[1])
            flat = sequence_log_likelihood(
                captioner.network, repeated, ids.flatten(0, 1), tokens.pad
            )
            likelihoods = flat.view(ids.shape[:2]).cpu().unbind()  # B times (K,)
        return [
            Candidates(texts[i], vectors[i], pooled[i], likelihoods[i]) for i in range(len(texts))
        ]
