"""Audio codes and one vector of the whole clip as the input of BART's encoder.

The `projection` of EnCLAP (Kim et al., arXiv 2401.17690), EnCLAP++ (arXiv 2409.01201) and CLAP-ART
(arXiv 2506.00800), which differ in where the codes and the vector come from.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dac_diffusion.encoders.base import AudioFeatures
from dac_diffusion.errors import ConfigError, DataError

ROW_MULTIPLE = 64  # tables have a multiple of so many rows, as the published ones
INITIAL_STD = 0.02  # BART's own


class CodeEmbedding(ModelMixin, ConfigMixin):
    """Embeddings [vector][<s>][code 1]...[code T][</s>] of every clip, T + 3 of them.

    A code's embedding is the sum over its N codebooks, each with a table of its own. The id
    `mask_id` (= codebook_size) stands for a code that is hidden: its vector is zero and stays so.
    BART gives the vector no position and <s> the first one; see bart.shift_encoder_positions.

    max_codes: of a longer clip the first ones are read; 1021 fill the 1024 places of the published
    BART. sequence_vector: without it there is no slot for the vector. <s> stands first, and every
    other embedding keeps the position it has beside the vector, so that nothing else changes (the
    paper on CLAP-ART does not say what it did).

    <s> and </s> have two rows of their own, which begin as those of BART's token embeddings
    (`take_frame`). In the published model they are BART's, so that there the decoder's gradients
    change them as well; a trained published model is represented exactly.
    """

    @register_to_config
    def __init__(
        self,
        num_codebooks: int,
        codebook_size: int,
        pooled_dim: int,
        width: int,
        max_codes: int = 1021,
        sequence_vector: bool = True,
    ) -> None:
        super().__init__()
        rows = -(-(codebook_size + 1) // ROW_MULTIPLE) * ROW_MULTIPLE
        self.mask_id = codebook_size
        tables = [nn.Embedding(rows, width, padding_idx=self.mask_id) for _ in range(num_codebooks)]
        self.frame = nn.Embedding(2, width)  # <s>, </s>
        with torch.no_grad():
            for table in (*tables, self.frame):
                table.weight.mul_(INITIAL_STD)  # from 1; the row of the mask id stays zero
        self.tables = nn.ModuleList(tables)
        self.vector_in = None
        if sequence_vector:
            self.vector_in = nn.Linear(pooled_dim, width)
            nn.init.normal_(self.vector_in.weight, std=INITIAL_STD)
            nn.init.zeros_(self.vector_in.bias)

    @property
    def codes_start(self) -> int:
        """How many embeddings stand in front of the first code."""
        return 1 if self.vector_in is None else 2

    @torch.no_grad()
    def take_frame(self, network: Any) -> None:
        """Let <s> and </s> begin as a BART's embeddings of its start and end tokens.

        Raises ConfigError where its width is another.
        """
        config = network.config
        if config.d_model != self.frame.embedding_dim:
            raise ConfigError(
                f"width={self.frame.embedding_dim}: the network's is {config.d_model}; build the "
                "code embedding with the network's width"
            )
        embed = network.get_input_embeddings()
        ids = torch.tensor([config.bos_token_id, config.eos_token_id], device=embed.weight.device)
        self.frame.weight.copy_(embed(ids))  # (2, W)

    def check(self, audio: AudioFeatures, masked: bool = True) -> None:
        """Raise ConfigError or DataError unless these are codes that this model can read.

        masked: whether some may be hidden already, that is, be `mask_id`.
        """
        codes, entries = audio.features, self.config.codebook_size
        if codes.is_floating_point():
            raise ConfigError(
                f"the audio encoder gives features of type {codes.dtype}, but this model reads "
                "whole numbers, codes; choose an encoder that gives codes"
            )
        books = self.config.num_codebooks
        if codes.shape[2] != books:
            raise ConfigError(
                f"the audio codes have {codes.shape[2]} codebooks, but this model reads {books}; "
                "choose the codes it was trained with, or train one with "
                f"num_codebooks={codes.shape[2]}"
            )
        if self.vector_in is not None and audio.pooled.shape[1] != self.vector_in.in_features:
            raise ConfigError(
                f"the clip's vector has {audio.pooled.shape[1]} numbers, but this model reads "
                f"{self.vector_in.in_features}; choose the encoder it was trained with"
            )
        real = codes[audio.mask]  # (codes, N)
        if real.numel() == 0:
            return
        lowest, highest = (int(value) for value in real.aminmax())
        if lowest < 0 or highest > (entries if masked else entries - 1):
            raise DataError(
                f"an audio code is {lowest if lowest < 0 else highest}, but this model's codebooks "
                f"have {entries} entries, 0 to {entries - 1}; choose the codes it was trained "
                "with, or train one with the codec's own codebook_size"
            )

    def forward(self, audio: AudioFeatures) -> tuple[Tensor, Tensor]:
        """features (B, S, N) codes, pooled (B, P) -> embeddings (B, T + 3, W), mask (B, T + 3).

        T is the smaller of S and max_codes; the mask is of 0 and 1. </s> follows the last real code
        of its own clip, and what comes then is zero and masked. Without the sequence vector it is
        T + 2. Raises ConfigError or DataError for codes of another kind (see `check`).
        """
        self.check(audio)
        audio = crop_codes(audio, self.config.max_codes)
        codes = hide(audio.features.long(), ~audio.mask[..., None], self.mask_id)  # (B, T, N)
        embedded = sum(table(codes[..., i]) for i, table in enumerate(self.tables))  # (B, T, W)
        place = torch.arange(codes.shape[1] + 2, device=codes.device)  # (T + 2,)
        last = audio.mask.sum(dim=1, keepdim=True) + 1  # (B, 1), where </s> stands
        start, end = self.frame.weight
        embedded = F.pad(embedded, (0, 0, 1, 1))  # (B, T + 2, W)
        embedded = torch.where((place == 0)[:, None], start, embedded)
        embedded = torch.where((place == last)[..., None], end, embedded)
        mask = place <= last  # (B, T + 2)
        if self.vector_in is not None:
            vector = self.vector_in(audio.pooled.to(self.vector_in.weight.dtype))  # (B, W)
            embedded = torch.cat([vector[:, None], embedded], dim=1)  # (B, T + 3, W)
            mask = F.pad(mask, (1, 0), value=True)  # (B, T + 3)
        return embedded, mask.long()


def hide(codes: Tensor, hidden: Tensor, mask_id: int) -> Tensor:
    """Codes (B, S, N) with those where `hidden` (B, S, N or 1) is True replaced by the mask id."""
    return codes.masked_fill(hidden, mask_id)


def crop_codes(
    audio: AudioFeatures, longest: int, generator: torch.Generator | None = None
) -> AudioFeatures:
    """At most `longest` codes of every clip: the first ones, or with a generator a random run.

    features (B, S, N) -> (B, min(S, longest), N). A clip that is no longer stays whole. Where a run
    begins is drawn for each clip by itself, evenly among all places that it can begin at.
    """
    codes = audio.features
    if codes.shape[1] <= longest:
        return audio
    room = (audio.mask.sum(dim=1) - longest).clamp(min=0)  # (B,)
    start = torch.zeros_like(room)
    if generator is not None:
        uniform = torch.rand(len(codes), generator=generator, device=generator.device)
        start = (uniform.to(room.device) * (room + 1)).long().minimum(room)
    places = start[:, None] + torch.arange(longest, device=codes.device)  # (B, longest)
    return AudioFeatures(
        codes.gather(1, places[..., None].expand(-1, -1, codes.shape[2])),
        audio.mask.gather(1, places),
        audio.pooled,
    )
