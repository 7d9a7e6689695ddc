"""Making the datastore of captions that RECAP retrieves from (retrieval/datastore.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from dac_diffusion.data.tables import read_captions
from dac_diffusion.errors import DataError
from dac_diffusion.files import make_folder
from dac_diffusion.retrieval.datastore import CaptionDatastore
from dac_diffusion.retrieval.store_files import check_folder
from dac_diffusion.text.words import tokenize

TEXTS_AT_ONCE = 256

EmbedTexts = Callable[[Sequence[str]], Tensor]  # N texts -> unit vectors (N, E)


@dataclass(frozen=True)
class PreparedDatastore:
    """What is in a new datastore, and how many captions were left out as too long."""

    datastore: CaptionDatastore
    too_long: int


def prepare_datastore(
    tables: Sequence[str | Path],
    embed_texts: EmbedTexts,
    space: str,
    folder: str | Path,
    tokenizer: Any,
    longest_tokens: int = 50,
    progress: bool = True,
) -> PreparedDatastore:
    """Write the captions of tables in Clotho's or AudioCaps' columns as a datastore.

    embed_texts, space: the text side of a joint audio-text space, and its `space_fingerprint`.
    tokenizer, longest_tokens: longer captions are left out (RECAP: 50 tokens of GPT-2). Clips have
    the names that the readers of data sets give them, by which a clip's own captions are excluded.

    Raises DataError for a table that cannot be read, where no caption is left, or where the folder
    holds other things; DacError where it cannot be written; MissingExtraError without faiss.
    """
    make_folder(Path(folder).parent)  # so that what cannot be written fails at once
    check_folder(folder)
    captions: dict[str, list[str]] = {}
    for table in tables:
        for clip, own in read_captions(table).items():
            captions.setdefault(clip.strip(), []).extend(own)
    if not any(tokenize(text) for own in captions.values() for text in own):
        raise DataError(f"{', '.join(map(str, tables))}: no captions; give a table that has some")
    prepared = make_datastore(captions, embed_texts, space, tokenizer, longest_tokens, progress)
    prepared.datastore.save(folder)
    return prepared


def make_datastore(
    captions: Mapping[str, Sequence[str]],
    embed_texts: EmbedTexts,
    space: str,
    tokenizer: Any,
    longest_tokens: int = 50,
    progress: bool = True,
) -> PreparedDatastore:
    """A datastore in memory, of captions by the names of their clips; see `prepare_datastore`.

    A caption that a clip has twice is taken once, one without words not at all.
    """
    pairs = [
        (clip, text)
        for clip, own in captions.items()
        for text in dict.fromkeys(" ".join(text.split()) for text in own)
        if tokenize(text)
    ]
    different = list(dict.fromkeys(text for _, text in pairs))
    short = set(_short_enough(different, tokenizer, longest_tokens))
    kept = [(clip, text) for clip, text in pairs if text in short]
    if not kept:
        raise DataError(
            f"none of {len(pairs)} captions has at most {longest_tokens} tokens; raise that limit, "
            "or give more captions"
        )
    different = [text for text in different if text in short]
    places = {text: place for place, text in enumerate(different)}
    vectors = _embed(different, embed_texts, progress)  # (U, E)
    texts = [text for _, text in kept]
    rows = vectors[torch.tensor([places[text] for text in texts])]  # (N, E)
    store = CaptionDatastore.build(texts, [clip for clip, _ in kept], rows, space)
    return PreparedDatastore(store, len(pairs) - len(kept))


def _short_enough(texts: Sequence[str], tokenizer: Any, longest_tokens: int) -> list[str]:
    if not texts:
        return []
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [text for text, own in zip(texts, ids, strict=True) if len(own) <= longest_tokens]


@torch.no_grad()
def _embed(texts: Sequence[str], embed_texts: EmbedTexts, progress: bool) -> Tensor:
    """Vectors (U, E) of different texts, float32 on the CPU."""
    parts = []
    with tqdm(total=len(texts), desc="embedding captions", disable=not progress) as bar:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            parts.append(embed_texts(texts[start : start + TEXTS_AT_ONCE]).float().cpu())
            bar.update(len(parts[-1]))
    return torch.cat(parts)
