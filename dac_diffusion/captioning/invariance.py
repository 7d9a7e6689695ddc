"""What it takes for a clip's captions not to depend on the other clips of its batch.

Libraries choose their kernels and how they cut up a sum by the shape of the input, so the last
bits of a clip's numbers depend on how many clips come with it, and after some steps a word
changes. Equal shapes give equal bits, hence:
- on the CPU, the encoder, the latent space and the scorer see one clip at a time, which costs them
  nothing; the denoiser takes several clips, and its StableLinear is made for that. So does the
  autoregressive decoder, in plain matrix products over few terms: of the built-in one's captions
  of 64 scenes none differed alone and among 32 (greedy, beams, nucleus; float32, bfloat16).
- on an accelerator, every network call has the same number of clips, filled up with copies.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dac_diffusion.text.latent_space import Prediction

# A CPU works best on what fits its caches; an accelerator needs many clips to be busy.
CPU_CLIPS, ACCELERATOR_CLIPS = 8, 32


class ClipByClipSpace:
    """A latent space whose predictions are made for one clip, (1, K, L, D), at a time."""

    def __init__(self, space: Any) -> None:
        self.space = space
        self.latent_dim: int = space.latent_dim
        self.vocabulary_size: int = space.vocabulary_size

    def encode(self, token_ids: Tensor) -> Tensor:
        """See LatentSpace.encode: a look-up, the same in any batch."""
        latents: Tensor = self.space.encode(token_ids)
        return latents

    def predict(
        self, output: Tensor, noisy: Tensor, log_nsr: Tensor, with_logits: bool = True
    ) -> Prediction:
        """See LatentSpace.predict; the first dimension is the clips."""
        clips = zip(output.split(1), noisy.split(1), log_nsr.split(1), strict=True)
        predictions = [self.space.predict(*clip, with_logits=with_logits) for clip in clips]
        return Prediction(
            torch.cat([prediction.latents for prediction in predictions]),
            torch.cat([p.logits for p in predictions if p.logits is not None])
            if with_logits
            else None,
        )
