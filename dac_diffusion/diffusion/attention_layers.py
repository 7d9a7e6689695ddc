"""Plain attention and feed-forward layers, of which dit.py and uvit.py are built."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.diffusion.transformer import attend
from dac_diffusion.errors import ConfigError


class SelfAttention(nn.Module):
    """Attention of the positions of a caption to one another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"width={width} of the denoiser is not a multiple of heads={heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, L, W) -> (N, L, W)."""
        projected = rearrange(self.qkv(hidden), "n l (p h c) -> p n h l c", p=3, h=self.heads)
        attended = attend(*projected.unbind(0))  # (N, H, L, W/H)
        return self.out(rearrange(attended, "n h l c -> n l (h c)"))  # (N, L, W)


class CrossAttention(nn.Module):
    """Attention to the audio: Q from the caption, K and V as the audio side has prepared them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """hidden (B K, L, W); keys, values (B, H, S, W/H); mask (B, 1, 1, S) -> (B K, L, W)."""
        clips, length = len(keys), hidden.shape[1]
        # The captions of a clip are folded into its queries: keys and values exist once per clip.
        query = rearrange(self.query(hidden), "(b k) l (h c) -> b h (k l) c", b=clips, h=self.heads)
        attended = attend(query, keys, values, mask)  # (B, H, K L, W/H)
        return self.out(rearrange(attended, "b h (k l) c -> (b k) l (h c)", l=length))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        return self.contract(F.gelu(self.expand(hidden), approximate="tanh"))
