"""Small datastores for the tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.retrieval.datastore import CaptionDatastore

SIZE, DIMENSION, SPACE = 400, 24, "of these tests"


def unit_vectors(count: int, seed: int, dimension: int = DIMENSION) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimension, generator=generator), dim=-1)


def random_store() -> CaptionDatastore:
    captions = [f"caption number {i}" for i in range(SIZE)]
    clips = [f"clip {i // 5}" for i in range(SIZE)]
    return CaptionDatastore.build(captions, clips, unit_vectors(SIZE, 0), SPACE)


def line_store(texts: str, clips: str | None = None) -> CaptionDatastore:
    """One-letter captions, the first the nearest to the query (1, 0), and so on, 1 degree apart."""
    angles = torch.arange(len(texts)) * torch.pi / 180
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    return CaptionDatastore.build(list(texts), list(clips or "x" * len(texts)), vectors, SPACE)


def found(store: CaptionDatastore, k: int, own: str | None = None, width: int = 15) -> str:
    (result,) = store.search(torch.tensor([[1.0, 0.0]]), k, [own], width)
    return "".join(result.captions)
