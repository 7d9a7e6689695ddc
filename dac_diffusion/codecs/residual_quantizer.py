"""Residual vector quantisation of an encoder's features: the tokenizer of CLAP-ART."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dac_diffusion.codecs.codec_audio import full_precision
from dac_diffusion.errors import ConfigError

ROWS = 8192  # vectors compared with a codebook at a time: 32 MB of distances for 1024 entries


class ResidualQuantizer(ModelMixin, ConfigMixin):
    """N codebooks of C vectors, each of which codes what the codebooks before it have left.

    A new one holds zeros; `quantizer_fitting.fit_quantizer` fits it. The first n codes of a vector
    are those of the first n codebooks alone.

    normalise: give every dimension zero mean and unit variance before quantising. fitted_on: what
    the features were that it was fitted on (a feature cache's `encoder`); variance_left: the share
    of their variance that is left after each codebook. Both are kept for whoever asks.
    Raises ConfigError for sizes below 1.
    Source: CLAP-ART, arXiv 2506.00800: 16 codebooks of 1024 entries on BEATs features.
    """

    @register_to_config
    def __init__(
        self,
        feature_dim: int = 768,
        num_codebooks: int = 16,
        codebook_size: int = 1024,
        normalise: bool = False,
        fitted_on: dict[str, Any] | None = None,
        variance_left: list[float] | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "feature_dim": feature_dim,
            "num_codebooks": num_codebooks,
            "codebook_size": codebook_size,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ConfigError(f"{name}={size}: must be at least 1")
        self.feature_dim, self.num_codebooks = feature_dim, num_codebooks
        self.codebook_size = codebook_size
        codebooks = torch.zeros(num_codebooks, codebook_size, feature_dim)  # (N, C, D)
        self.codebooks = nn.Parameter(codebooks, requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(feature_dim), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(feature_dim), requires_grad=False)

    def codes(self, features: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Codes (..., n), long, of features (..., D) by the first n codebooks, all if None.

        Raises ValueError for more codebooks than there are.
        """
        count = self.num_codebooks if num_codebooks is None else num_codebooks
        if not 0 <= count <= self.num_codebooks:
            raise ValueError(f"num_codebooks={count}: this quantiser has {self.num_codebooks}")
        rows = self.normalised(features).flatten(0, -2)  # (R, D)
        codes, _ = self.quantize(rows, count)
        return codes.view(*features.shape[:-1], count)  # (..., n)

    def decode(self, codes: Tensor) -> Tensor:
        """The features (..., D) that codes (..., n) of the first n codebooks stand for."""
        total = self.mean.float().expand(*codes.shape[:-1], -1).clone()  # (..., D)
        for codebook, own in zip(self.codebooks.float(), codes.unbind(-1), strict=False):
            total += codebook[own] * self.scale
        return total

    def normalised(self, features: Tensor) -> Tensor:
        """Features in float32, as they are compared with the codebooks."""
        return (features.float() - self.mean) / self.scale

    def quantize(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Codes (R, n) of normalised vectors (R, D) by n codebooks, and what these leave (R, D)."""
        codes = []
        for codebook in self.codebooks[:count].float():
            nearest = nearest_entries(rows, codebook)  # (R,)
            codes.append(nearest)
            rows = rows - codebook[nearest]
        stacked = torch.stack(codes, dim=-1) if codes else rows.new_zeros(len(rows), 0).long()
        return stacked, rows


def nearest_entries(rows: Tensor, entries: Tensor) -> Tensor:
    """For each of the vectors (R, D) the nearest of the entries (C, D): (R,), long.

    By matrix products: |r - e|^2 is smallest where r e - |e|^2 / 2 is largest.
    """
    half_squares = entries.square().sum(dim=-1) / 2  # (C,)
    with full_precision(rows.device):
        found = [
            (part @ entries.T - half_squares).argmax(dim=-1)  # (ROWS,)
            for part in rows.split(ROWS)
        ]
    return torch.cat(found)
