"""The transformer of BEATs: convolutional and gated relative positions, DeepNorm."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dac_diffusion.errors import ConfigError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class BeatsTransformer(nn.Module):
    """Patches (B, N, W) plus what a convolution finds around each, through the layers.

    buckets: of distances between patches, each with a bias per head on the attention, shared by
    the layers; None for no such bias. gated: every layer scales that bias. deep_norm, norm_first:
    see BeatsLayer. Raises ConfigError for sizes and settings that do not go together.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        hidden: int,
        heads: int,
        activation: str,
        kernel: int,
        groups: int,
        buckets: int | None,
        max_distance: int,
        gated: bool,
        deep_norm: bool,
        norm_first: bool,
    ) -> None:
        super().__init__()
        if width % heads or width % groups:
            raise ConfigError(
                f"a width of {width} cannot be divided among {heads} attention heads and "
                f"{groups} groups of the positional convolution"
            )
        if deep_norm and norm_first:
            raise ConfigError("deep_norm needs layers that are normalised last")
        if activation not in ACTIVATIONS:
            names = " or ".join(map(repr, ACTIVATIONS))
            raise ConfigError(f"activation_fn={activation!r} is not written here: use {names}")
        if buckets is not None and (buckets < 4 or buckets // 4 >= max_distance):
            raise ConfigError(f"{buckets} buckets do not fit distances up to {max_distance}")
        self.pos_conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        self.layer_norm = nn.LayerNorm(width)
        self.norm_first, self.max_distance = norm_first, max_distance
        self.relative_attention_bias = nn.Embedding(buckets, heads) if buckets is not None else None
        # DeepNorm (Wang et al. 2022, arXiv 2203.00555, table 1: an encoder of this depth).
        residual_scale = (2 * depth) ** 0.25 if deep_norm else 1.0
        self.layers = nn.ModuleList(
            BeatsLayer(width, hidden, heads, activation, gated, residual_scale, norm_first)
            for _ in range(depth)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Patches (B, N, W), mask (B, N) True on real audio -> (B, N, W)."""
        x = x.masked_fill(~mask[..., None], 0.0)  # the convolution sees zeros behind every clip
        around = self.pos_conv(x.transpose(1, 2))[..., : x.shape[1]]  # (B, W, N)
        x = x + F.gelu(around).transpose(1, 2)  # (B, N, W)
        if not self.norm_first:
            x = self.layer_norm(x)
        bias = self.position_bias(x.shape[1])  # (H, N, N) or None
        for layer in self.layers:
            x = layer(x, bias, mask)
        return self.layer_norm(x) if self.norm_first else x

    def position_bias(self, length: int) -> Tensor | None:
        """The bias of every query (first N) on every key (second N), (H, N, N); None for none."""
        if self.relative_attention_bias is None:
            return None
        # On the CPU, because other devices may round a logarithm across the edge of a bucket.
        distances = torch.arange(1 - length, length)  # (2N - 1,), of the key from the query
        buckets = distance_buckets(
            distances, self.relative_attention_bias.num_embeddings, self.max_distance
        )
        table = self.relative_attention_bias(buckets.to(self.relative_attention_bias.weight.device))
        # The last query sees the distances from 1 - N on, the one before it from 2 - N on, ...
        return table.transpose(0, 1).unfold(1, length, 1).flip(1)  # (H, N, N)


class BeatsLayer(nn.Module):
    """Self-attention and an MLP.

    Each is normalised behind the sum with its input, which DeepNorm scales first; with norm_first,
    each is normalised before it, and the sum is plain.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        heads: int,
        activation: str,
        gated: bool,
        residual_scale: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.residual_scale, self.norm_first = residual_scale, norm_first
        self.activation = ACTIVATIONS[activation]
        self.self_attn = RelativeAttention(width, heads, gated)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, bias: Tensor | None, mask: Tensor) -> Tensor:
        """x (B, N, W), bias (H, N, N), mask (B, N) True on real audio -> (B, N, W)."""
        if self.norm_first:
            x = x + self.self_attn(self.self_attn_layer_norm(x), bias, mask)
            return x + self._feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x * self.residual_scale + self.self_attn(x, bias, mask))
        return self.final_layer_norm(x * self.residual_scale + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class RelativeAttention(nn.Module):
    """Self-attention with a position bias that a gate computed from the query scales.

    The gate is that of WavLM (Chen et al. 2021, arXiv 2110.13900, section 3.1), which computes it
    from the layer's input where BEATs takes the projected query.
    """

    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.heads, self.gated = heads, gated
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        if gated:
            self.grep_linear = nn.Linear(width // heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor | None, mask: Tensor) -> Tensor:
        """x (B, N, W), bias (H, N, N), mask (B, N) True on real audio -> (B, N, W)."""
        q, k, v = (
            rearrange(project(x), "b n (h c) -> b h n c", h=self.heads)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        visible = mask[:, None, None, :]  # (B, 1, 1, N)
        if bias is not None:
            scaled = self._gate(q) * bias if self.gated else bias  # ([B,] H, N, N)
            # What SDPA adds to the logits; of the type of q, also under autocast.
            visible = scaled.to(q.dtype).masked_fill(~visible, -torch.inf)  # (B, H, N, N)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)  # (B, H, N, C)
        return self.out_proj(rearrange(attended, "b h n c -> b n (h c)"))

    def _gate(self, q: Tensor) -> Tensor:
        gates = rearrange(self.grep_linear(q), "b h n (g p) -> b h n g p", g=2).sum(dim=-1)
        update, reset = gates.sigmoid().split(1, dim=-1)  # (B, H, N, 1) each
        return update * (reset * self.grep_a - 1.0) + 2.0


def distance_buckets(distances: Tensor, buckets: int, max_distance: int) -> Tensor:
    """The bucket of each signed distance (N,): the upper half is for keys after the query.

    Short distances have a bucket each, longer ones share them logarithmically up to max_distance
    and beyond (T5, Raffel et al. 2020, arXiv 1910.10683, section 2.1).
    """
    half = buckets // 2
    exact = half // 2
    size = distances.abs()
    # float32 and this order of operations decide the edges of the buckets in published weights.
    growth = torch.log(size.float().clamp(min=1) / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(size < exact, size, far) + half * (distances > 0).long()
