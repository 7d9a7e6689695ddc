"""Masked codec modelling, EnCLAP's second task (Kim et al., arXiv 2401.17690, section 2).

Spans of the audio codes are hidden, in each codebook by itself, and the encoder must tell them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def draw_spans(
    lengths: Tensor,
    num_places: int,
    num_codebooks: int,
    probability: float,
    span: int,
    generator: torch.Generator,
) -> Tensor:
    """Which codes to hide, (B, S, N) bool: spans drawn for every clip and codebook by itself.

    lengths (B,): real codes of each clip; num_places: S. A clip of T codes has probability * T /
    span spans (rounded up or down by chance, so that this is their mean number) in each codebook,
    as far as they would fit side by side. They begin at different places, evenly drawn, but may
    overlap, so that somewhat fewer codes than the given share are hidden: the spans of wav2vec 2.0
    (Baevski et al., arXiv 2006.11477). A clip shorter than a span, or a probability of 0, has none.
    """
    clips, device = len(lengths), lengths.device
    hidden = torch.zeros(clips, num_places, num_codebooks, dtype=torch.bool, device=device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=generator.device).to(device)

    starts_allowed = (lengths - span + 1).clamp(min=0)  # (B,)
    wanted = probability * lengths / span  # (B,)
    counts = (wanted[:, None] + uniform(clips, num_codebooks)).long()  # (B, N)
    most = torch.minimum(lengths // span, starts_allowed)  # (B,)
    counts = counts.minimum(most[:, None])
    largest = int(counts.max()) if counts.numel() else 0
    if largest == 0:
        return hidden
    # The places with the highest of random numbers are a draw without replacement.
    ranked = uniform(clips, num_codebooks, num_places)  # (B, N, S)
    place = torch.arange(num_places, device=device)
    ranked = ranked.masked_fill(place >= starts_allowed[:, None, None], -1.0)
    starts = ranked.topk(largest, dim=-1).indices  # (B, N, largest)
    drawn = torch.arange(largest, device=device) < counts[..., None]  # (B, N, largest)
    begins = torch.zeros(clips, num_codebooks, num_places, dtype=torch.long, device=device)
    begins.scatter_(2, starts, drawn.long())
    # A code is hidden where a span has begun at most span - 1 places before.
    begun = begins.cumsum(dim=-1)  # (B, N, S)
    over = F.pad(begun, (span, 0))[..., :num_places]
    return (begun > over).transpose(1, 2)  # (B, S, N)


class MaskedCodecHeads(nn.Module):
    """A linear layer for every codebook, from the encoder's output to that codebook's entries.

    decay: codebook i (from 1) counts decay^i. The published .5 is for 16 codebooks; for EnCLAP++'s
    32 no weights were published, and the same formula stands for them (1: all count alike, and
    their sum is as large as there are codebooks).
    """

    def __init__(
        self, width: int, num_codebooks: int, codebook_size: int, decay: float = 0.5
    ) -> None:
        super().__init__()
        self.decay = decay
        heads = [nn.Linear(width, codebook_size) for _ in range(num_codebooks)]
        for head in heads:  # as BART's own layers begin
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)

    def forward(self, encoded: Tensor, codes: Tensor, hidden: Tensor) -> Tensor:
        """sum_i decay^i CE_i; CE_i: mean cross-entropy over the hidden codes of codebook i, or 0.

        encoded (B, S, W): the encoder's output at the codes; codes (B, S, N): what they are;
        hidden (B, S, N): which of them were hidden.
        """
        total = encoded.new_zeros((), dtype=torch.float32)
        for i, head in enumerate(self.heads):
            where = hidden[..., i]  # (B, S)
            logits = head(encoded[where]).float()  # (hidden codes, entries)
            summed = F.cross_entropy(logits, codes[..., i][where].long(), reduction="sum")
            total = total + self.decay ** (i + 1) * summed / max(len(logits), 1)
        return total
