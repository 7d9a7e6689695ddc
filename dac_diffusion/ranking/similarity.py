"""Audio-text similarity: a small text tower beside the audio encoder's pooled vector."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from dac_diffusion.encoders.convolutional import FrameTransformerLayer
from dac_diffusion.text.tokenizer import encode_captions


class AudioTextScorer(ModelMixin, ConfigMixin):
    """Embeds recordings and captions on one unit sphere; their cosine is a caption's score.

    Trained by the contrastive loss of CLIP (arXiv 2103.00020) together with the audio encoder or on
    its vectors; satisfies `CaptionScorer`.
    """

    @register_to_config
    def __init__(
        self,
        vocabulary_size: int,
        pooled_dim: int = 256,
        width: int = 192,
        depth: int = 2,
        heads: int = 3,
        max_length: int = 32,
        embedding_dim: int = 256,
        pad_id: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.tokens = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Parameter(torch.zeros(max_length, width))
        nn.init.normal_(self.tokens.weight, std=0.5)
        nn.init.normal_(self.positions, std=0.1)
        self.layers = nn.ModuleList(
            FrameTransformerLayer(width, heads, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.project_text = nn.Linear(width, embedding_dim)
        self.project_audio = nn.Sequential(
            nn.Linear(pooled_dim, embedding_dim), nn.GELU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def embed_audio(self, pooled: Tensor) -> Tensor:
        """Pooled audio vectors (B, P) -> unit vectors (B, E)."""
        return F.normalize(self.project_audio(pooled).float(), dim=-1)

    def embed_text(self, token_ids: Tensor) -> Tensor:
        """Caption tokens (N, L) -> unit vectors (N, E)."""
        mask = token_ids != self.pad_id  # (N, L); the end token is kept, so never empty
        hidden = self.tokens(token_ids) + self.positions[: token_ids.shape[1]]  # (N, L, W)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        weights = mask[..., None].to(hidden.dtype)
        mean = (self.norm(hidden) * weights).sum(dim=1) / weights.sum(dim=1)  # (N, W)
        return F.normalize(self.project_text(mean).float(), dim=-1)

    @torch.no_grad()
    def embed_captions(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
        """N captions, in the tokens of their captioner -> unit vectors (N, E)."""
        # One length for all, because a text's vector may depend on it in the last bits.
        ids = encode_captions(tokenizer, texts, self.config.max_length)  # (N, L)
        return self.embed_text(ids.to(self.device))
