"""Captions by their vectors in a joint audio-text space: where RECAP's prompts come from.

A datastore is a folder:

vectors.faiss   a faiss IndexFlatIP over the vectors (N, E), float32: the search is exact
captions.jsonl  {"clip": ..., "caption": ...} on a line for each vector, in the same order
datastore.json  version, space (`space_fingerprint`), captions N, dimension E, and the SHA-256 of
                the other two files

Both files are mapped into memory, not loaded. To open a store reads each once for its checksum; a
search reads all vectors anyway, and nothing unchecked gets to faiss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dac_diffusion.errors import DataError
from dac_diffusion.files import atomic_folder
from dac_diffusion.retrieval.caption_lines import CaptionLines
from dac_diffusion.retrieval.store_files import (
    AGAIN,
    check_folder,
    import_faiss,
    read_files,
    write_files,
)
from dac_diffusion.text.tokenizer import normalise_caption

QUERIES_AT_ONCE = 256
UNIT_TOLERANCE = 1e-3
AUDIO_SIDE = ("project_audio", "logit_scale")  # what a scorer has beside its text tower


@dataclass(frozen=True)
class Retrieved:
    """Captions for a query, the nearest first: their cosines, and their places in the datastore."""

    captions: tuple[str, ...]
    scores: tuple[float, ...]
    places: tuple[int, ...]


class CaptionDatastore:
    """N captions with unit vectors (N, E), searched by the vectors of recordings.

    Ghosh et al., arXiv 2309.09836 (RECAP). dimension: E. space: the fingerprint of the joint space,
    see `space_fingerprint`.
    """

    def __init__(self, index: Any, lines: CaptionLines, space: str, name: str) -> None:
        """index: a faiss IndexFlatIP; name: of the datastore in errors. Use `build` or `open`."""
        self._index, self._lines, self._name = index, lines, name
        self.space, self.dimension = space, int(index.d)

    @classmethod
    def build(
        cls, captions: Sequence[str], clip_names: Sequence[str], vectors: Tensor, space: str
    ) -> CaptionDatastore:
        """A datastore in memory, of N captions, the names of their clips, and vectors (N, E).

        Raises DataError where there are no captions, or vectors that are not of unit length;
        MissingExtraError without faiss.
        """
        if not captions:
            raise DataError("a datastore needs captions, and there are none; give more tables")
        if not len(captions) == len(clip_names) == len(vectors):
            raise ValueError(
                f"{len(captions)} captions, {len(clip_names)} clips, {len(vectors)} vectors"
            )
        rows = np.ascontiguousarray(vectors.detach().float().cpu().numpy())  # (N, E)
        lengths = np.linalg.norm(rows, axis=1)  # (N,)
        wrong = ~(np.abs(lengths - 1) < UNIT_TOLERANCE)  # a length of NaN is wrong, too
        if wrong.any():
            place = int(np.argmax(wrong))
            raise DataError(
                f"the vector of the caption {captions[place]!r} has length {lengths[place]:.3g}, "
                "not 1; check the weights of the text tower"
            )
        index = import_faiss().IndexFlatIP(rows.shape[1])
        index.add(rows)
        return cls(index, CaptionLines.join(clip_names, captions), space, "this datastore")

    @classmethod
    def open(cls, folder: str | Path, space: str | None = None) -> CaptionDatastore:
        """The datastore in a folder; space: the fingerprint that it must have, if any.

        Raises DataError for a folder that is no datastore, is of another version or joint space,
        is empty, or has files that are missing, damaged, or do not belong together;
        MissingExtraError without faiss.
        """
        return cls(*read_files(Path(folder), space), str(folder))

    def save(self, folder: str | Path) -> None:
        """Write the datastore as a folder, in place of an older one.

        Raises DacError where that cannot be written, DataError where the folder holds other things.
        """
        check_folder(folder)
        with atomic_folder(folder) as partial:
            write_files(partial, self._index, self._lines, self.space)

    def __len__(self) -> int:
        return len(self._lines)

    def search(
        self,
        vectors: Tensor,
        k: int = 3,
        exclude: Sequence[str | None] | None = None,
        width: int = 15,
    ) -> list[Retrieved]:
        """Up to k captions for each of B vectors (B, E), of any length but 0, by their cosine.

        exclude: the name of each query's own clip, whose captions are left out. Of captions that
        read alike, case and punctuation aside, only the nearest is given. width: how many captions
        are looked at first; as long as they do not yield k, it is doubled, so that there are fewer
        than k only where the datastore has no more. Ties go to the earlier caption; the result does
        not depend on the other queries. Published are k=3 and width=15 (the code keeps 7 of them
        and then uses the first 3).

        Raises DataError for vectors of another dimension, of length 0, or not finite.
        """
        if k < 1 or width < 1:
            raise ValueError(f"k={k}, width={width}: must be at least 1")
        queries = self._unit_queries(vectors)  # (B, E)
        own = [None] * len(queries) if exclude is None else list(exclude)
        if len(own) != len(queries):
            raise ValueError(f"exclude names {len(own)} clips for {len(queries)} queries")
        results: list[Retrieved] = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(start, start + QUERIES_AT_ONCE)
            results += self._search_part(queries[part], own[part], k, width)
        return results

    def _search_part(
        self, queries: np.ndarray, own: Sequence[str | None], k: int, width: int
    ) -> list[Retrieved]:
        # faiss rounds by at most this for unit vectors, and how depends on the number of queries.
        rounding = 2 * self.dimension * float(np.finfo(np.float32).eps)
        results: dict[int, Retrieved] = {}
        pending = list(range(len(queries)))
        width = min(max(width, k), len(self))
        while pending:
            scores, places = self._index.search(queries[pending], width)  # (P, width)
            for row, query in enumerate(pending):
                # What was not found is below the last one found, but for the rounding: only above
                # that is it certain which captions are the nearest.
                certain = -np.inf if width == len(self) else scores[row, -1] + rounding
                found = self._choose(queries[query], places[row], certain, own[query], k)
                if len(found.places) == k or width == len(self):
                    results[query] = found
            pending = [query for query in pending if query not in results]
            width = min(2 * width, len(self))
        return [results[query] for query in range(len(queries))]

    def _choose(
        self, query: np.ndarray, places: np.ndarray, certain: float, own: str | None, k: int
    ) -> Retrieved:
        """The nearest k of some places (width,) with scores above `certain`."""
        rows = self._index.reconstruct_batch(places).astype(np.float64)  # (width, E)
        scores = (rows * query.astype(np.float64)).sum(axis=1)  # (width,)
        seen: set[str] = set()
        chosen: list[tuple[str, float, int]] = []
        for i in np.lexsort((places, -scores)).tolist():
            if len(chosen) == k or scores[i] <= certain:
                break
            clip, caption = self._lines[int(places[i])]
            key = normalise_caption(caption) or caption
            if clip != own and key not in seen:
                seen.add(key)
                chosen.append((caption, float(scores[i]), int(places[i])))
        captions, cosines, taken = zip(*chosen, strict=True) if chosen else ((), (), ())
        return Retrieved(captions, cosines, taken)

    def _unit_queries(self, vectors: Tensor) -> np.ndarray:
        rows = vectors.detach().cpu().double().numpy()  # (B, E)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise DataError(
                f"{self._name}: holds vectors of {self.dimension} numbers, but this model's have "
                f"{rows.shape[-1]}; {AGAIN} and this model"
            )
        lengths = np.sqrt((rows**2).sum(axis=1))  # (B,)
        wrong = ~(np.isfinite(lengths) & (lengths > 0))
        if wrong.any():
            place = int(np.argmax(wrong))
            raise DataError(
                f"the vector of clip {place + 1} of {len(rows)} has length {lengths[place]:g}, so "
                "no captions can be found for it; check the encoder's weights"
            )
        return np.ascontiguousarray(rows / lengths[:, None], np.float32)


def space_fingerprint(text_tower: nn.Module) -> str:
    """A digest of a joint audio-text space: of the weights of its text tower.

    text_tower: `ClapTextEncoder.model`, or a scorer, whose audio side does not count. The weights
    are rounded to bfloat16, so that a model computing in it has the same digest.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(text_tower.named_parameters()):
        if not name.startswith(AUDIO_SIDE):
            digest.update(f"{name} {tuple(weight.shape)}\n".encode())
            rounded = weight.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(rounded.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
