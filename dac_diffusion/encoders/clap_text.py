"""The text side of CLAP: captions to vectors in the space of the audio embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dac_diffusion.encoders.clap_folder import (
    find_clap_folder,
    load_clap_weights,
    read_clap_config,
)
from dac_diffusion.errors import CheckpointError
from dac_diffusion.libraries import quiet_libraries

VOCABULARY_FILES = ("tokenizer.json", "vocab.json")


@dataclass(frozen=True)
class ClapTextEncoder:
    """CLAP's frozen text tower, projection and tokenizer; `ClapScorer` saves them.

    A caption's vector lies near the `pooled` vector of matching audio from the same model's
    `HtsatEncoder` or `LaionClapEncoder`, so that a captioner can be trained from captions alone
    (Deshmukh et al., arXiv 2309.07372). model: a transformers ClapTextModelWithProjection.
    max_tokens: longer texts are cut. canvas: texts are padded to a multiple of so many tokens,
    and every call of the model has batch_size of one padded length, filled up with copies, so that
    a text's vector does not depend on the others even in its last bits. None: texts of like length
    go together, which is faster.
    """

    model: Any
    tokenizer: Any
    max_tokens: int
    batch_size: int = 64
    canvas: int | None = None

    @classmethod
    def from_published(cls, path_or_hub_id: str | Path) -> ClapTextEncoder:
        """The text side of a ClapModel: a folder with its tokenizer, or a Hub id.

        Raises CheckpointError for a folder that is missing, damaged or of another model.
        """
        from transformers import ClapTextModelWithProjection

        folder = find_clap_folder(path_or_hub_id)
        config = read_clap_config(folder).text_config
        tokenizer = load_tokenizer(folder, config.vocab_size)
        try:
            model = ClapTextModelWithProjection(config)
        except Exception as error:  # sizes that contradict each other, of any kind
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"{folder}: its settings make no CLAP ({type(error).__name__}: {reason}); "
                "download it again"
            ) from error
        load_clap_weights(model, folder)
        # As in RoBERTa, positions are counted from the one after the padding token's number.
        positions = config.max_position_embeddings - config.pad_token_id - 1
        longest = min(positions, tokenizer.model_max_length)
        return cls(model.eval().requires_grad_(False), tokenizer, longest)

    @property
    def embedding_dim(self) -> int:
        """The length P of a vector, 512 in published models."""
        return int(self.model.config.projection_dim)

    def to(self, device: torch.device | str) -> ClapTextEncoder:
        """Move the model to a device; returns the encoder itself."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Vectors of unit length, (N, P) float32, in the order of the texts."""
        if isinstance(texts, str):
            raise TypeError("give a list of texts, not a single one")
        device = self.model.text_projection.linear1.weight.device
        vectors = torch.zeros(len(texts), self.embedding_dim, device=device)  # (N, P)
        if not texts:
            return vectors
        pieces = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)
        # Of an empty text a tokenizer without special tokens makes nothing, which has no vector.
        ids = [own or [self.tokenizer.pad_token_id] for own in pieces["input_ids"]]
        for chosen in self._batches([len(own) for own in ids]):
            filled = chosen
            if self.canvas is not None:
                filled = chosen + chosen[:1] * (self.batch_size - len(chosen))
            found = self._embed([ids[index] for index in filled], device)  # (B, P)
            vectors[chosen] = found[: len(chosen)]
        return vectors

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Which texts go together, by their lengths in tokens."""

        def canvases(index: int) -> int:
            return 0 if self.canvas is None else -(-lengths[index] // self.canvas)

        # In the order of their lengths, which saves most of the padding.
        order = sorted(range(len(lengths)), key=lambda index: lengths[index])
        for _, group in groupby(order, canvases):
            places = list(group)
            for start in range(0, len(places), self.batch_size):
                yield places[start : start + self.batch_size]

    def _embed(self, ids: list[list[int]], device: torch.device) -> Tensor:
        pieces = self.tokenizer.pad(
            {"input_ids": ids}, pad_to_multiple_of=self.canvas, return_tensors="pt"
        ).to(device)  # (B, L)
        found = self.model(
            input_ids=pieces["input_ids"], attention_mask=pieces["attention_mask"]
        ).text_embeds  # (B, P)
        return torch.nn.functional.normalize(found.float(), dim=-1)


def load_tokenizer(name: str | Path, vocabulary_size: int) -> Any:  # a PreTrainedTokenizer
    """The tokenizer of a folder or Hub id.

    Raises CheckpointError where it is missing or damaged, or knows more tokens than the model.
    """
    from transformers import AutoTokenizer

    folder = Path(name)
    way_out = "give a folder with tokenizer.json, or with vocab.json and merges.txt"
    # transformers 5 makes an empty tokenizer of a folder without one.
    if folder.is_dir() and not any((folder / file).is_file() for file in VOCABULARY_FILES):
        raise CheckpointError(f"{name}: there is no tokenizer in this folder; {way_out}")
    try:
        with quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(
                name, local_files_only=folder.is_dir(), trust_remote_code=False
            )
    except Exception as error:  # damaged files, no network: any kind
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{name}: the tokenizer cannot be read ({type(error).__name__}: {reason}); {way_out}"
        ) from error
    if len(tokenizer) > vocabulary_size:
        raise CheckpointError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens, the text model "
            f"{vocabulary_size}; they come from different models"
        )
    return tokenizer
