"""The blocks of the caption denoiser.

A block is two residual branches, attention (to the caption itself and to the audio, side by side)
and a perceptron, each modulated by the noise level as in DiT (Peebles and Xie 2023, adaLN-Zero)
with one modulation network for all blocks (PixArt-alpha, Chen et al. 2023, adaLN-single).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.diffusion.stable_linear import StableLinear

# Shift, scale and gate of both branches.
MODULATIONS_PER_BLOCK = 6


def modulate(hidden: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer normalisation without weights of its own, then scale and shift: (N, L, W)."""
    return torch.addcmul(shift, F.layer_norm(hidden, hidden.shape[-1:]), scale)


class Attention(nn.Module):
    """Self-attention within a caption and cross-attention to the audio, from one projection.

    Both read the same normalised input and share one output projection: one large matrix product
    in, one out, instead of six small ones.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.project_in = StableLinear(width, 4 * width)
        self.project_out = StableLinear(2 * width, width)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """hidden (B K, L, W); keys, values (B, H, S, W/H); mask (B, 1, 1, S) -> (B K, L, W)."""
        clips = len(keys)
        projected = self.project_in(hidden)  # (B K, L, 4 W)
        heads = rearrange(projected, "n l (p h c) -> p n h l c", p=4, h=self.heads)
        query, key, value, audio_query = heads.unbind(0)  # (B K, H, L, W/H) each
        within = attend(query, key, value)  # (B K, H, L, W/H)
        # The captions of a clip are folded into its queries: keys and values exist once per clip.
        audio_query = rearrange(audio_query, "(b k) h l c -> b h (k l) c", b=clips)
        across = attend(audio_query, keys, values, mask)  # (B, H, K L, W/H)
        across = rearrange(across, "b h (k l) c -> (b k) l h c", l=hidden.shape[1])
        within = rearrange(within, "n h l c -> n l h c")
        both = torch.cat([within, across], dim=2)  # (B K, L, 2 H, W/H)
        return self.project_out(both.flatten(2))  # (B K, L, W)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention over (N, H, L, C), where the bool mask is True: (N, H, L, C).

    On CPUs written out: for so few positions the backward pass of PyTorch's fused CPU kernel is
    five times as slow.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = query @ key.mT * query.shape[-1] ** -0.5  # (N, H, L, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ value


class HalfSquaredReLU(torch.autograd.Function):
    """relu(x)^2 / 2, whose gradient is relu(x): two passes over memory forward, one back.

    Activation of So et al. 2021, "Primer". It is also exact arithmetic: functions such as GELU are
    evaluated by other code at the ragged end of a vector than inside it, so that their last bit
    depends on the batch.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        """(...) -> (...)."""
        positive = F.relu(hidden)
        ctx.save_for_backward(positive)
        return torch.addcmul(positive.new_zeros(()), positive, positive, value=0.5)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """(...) -> (...)."""
        (positive,) = ctx.saved_tensors
        return gradient * positive


class Perceptron(nn.Module):
    """Two linear layers with a squared ReLU between them."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.expand = StableLinear(width, hidden)
        self.contract = StableLinear(hidden, out or width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., W) -> (..., out)."""
        return self.contract(HalfSquaredReLU.apply(self.expand(hidden)))


class LocalMixing(nn.Module):
    """Adds to every position a learned weighting, channel by channel, of its neighbours.

    A depthwise convolution over caption positions: which word follows which is a matter of
    relative places, which attention over learned absolute positions has to learn one by one.
    At first it adds nothing. Allen-Zhu 2025, "Physics of Language Models 4.1" ("Canon layers").
    """

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.weight = nn.Parameter(torch.zeros(2 * reach + 1, width))

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, L, W) -> (N, L, W)."""
        length = hidden.shape[1]
        padded = F.pad(hidden, (0, 0, self.reach, self.reach))  # (N, L + 2 reach, W)
        mixed = hidden
        for offset, weight in enumerate(self.weight.to(hidden.dtype)):
            mixed = torch.addcmul(mixed, padded[:, offset : offset + length], weight)
        return mixed


class Block(nn.Module):
    """One modulated transformer block; with gates at zero it is the identity.

    local_reach: how far to each side LocalMixing looks, before both branches; 0 leaves it out.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, dropout: float, local_reach: int = 0
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mix_before_attention, self.mix_before_perceptron = (
            LocalMixing(width, local_reach) if local_reach else nn.Identity() for _ in range(2)
        )
        self.perceptron = Perceptron(width, int(width * mlp_ratio))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        hidden: Tensor,
        modulation: tuple[Tensor, ...],
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """hidden (B K, L, W); modulation: six tensors (B K, 1, W) -> (B K, L, W)."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        mixed = self.mix_before_attention(modulate(hidden, shift, scale))
        attended = self.attention(mixed, keys, values, mask)
        hidden = torch.addcmul(hidden, gate, self.dropout(attended))
        mixed = self.mix_before_perceptron(modulate(hidden, mlp_shift, mlp_scale))
        transformed = self.perceptron(mixed)
        return torch.addcmul(hidden, mlp_gate, self.dropout(transformed))


class Modulation(nn.Module):
    """Shift, scale and gate for every block from one condition vector (adaLN-single).

    Blocks differ by a learned table; scales start at 1, shifts and gates at 0.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.shared = StableLinear(width, MODULATIONS_PER_BLOCK * width)
        table = torch.zeros(depth, MODULATIONS_PER_BLOCK, width)
        table[:, [1, 4]] = 1.0
        self.table = nn.Parameter(table)

    def forward(self, condition: Tensor) -> list[tuple[Tensor, ...]]:
        """(N, W) -> for every block six tensors (N, 1, W)."""
        shared = self.shared(condition)  # (N, 6 W)
        shared = rearrange(shared, "n (m w) -> m n 1 w", m=MODULATIONS_PER_BLOCK)
        table = self.table.to(shared.dtype)
        every = shared + rearrange(table, "d m w -> d m 1 1 w")  # (depth, 6, N, 1, W)
        flat = every.flatten(0, 1).unbind(0)
        count = MODULATIONS_PER_BLOCK
        return [flat[i : i + count] for i in range(0, len(flat), count)]


def sinusoids(positions: Tensor, width: int, shortest: float, longest: float) -> Tensor:
    """Sines and cosines of (...,) positions at geometric wavelengths: (..., width) float32.

    Evaluated in double precision, so that rounding to float32 hides which code path of the
    machine's sine was taken (see Perceptron).
    """
    # Apple's GPUs have no double precision.
    exact = positions.cpu() if positions.device.type == "mps" else positions
    steps = torch.linspace(0, 1, width // 2, dtype=torch.float64, device=exact.device)
    frequencies = 2 * math.pi / shortest * (shortest / longest) ** steps
    angles = exact.double()[..., None] * frequencies  # (..., width / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float().to(positions.device)
