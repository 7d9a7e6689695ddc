"""The datastore of captions: search, own clips, duplicates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dac_diffusion.errors import DataError
from dac_diffusion.ranking.similarity import AudioTextScorer
from dac_diffusion.retrieval.datastore import CaptionDatastore, Retrieved, space_fingerprint
from tests.helpers import NoDoubles
from tests.retrieval.tiny_stores import (
    SIZE,
    SPACE,
    found,
    line_store,
    random_store,
    unit_vectors,
)


def brute_force(query: Tensor, own: str, k: int) -> list[int]:
    """Places in the random store, nearest first, by numpy alone."""
    scores = unit_vectors(SIZE, 0).numpy().astype(np.float64) @ query.numpy().astype(np.float64)
    order = [int(i) for i in np.argsort(-scores, kind="stable") if f"clip {i // 5}" != own]
    return order[:k]


def test_search_is_exact() -> None:
    store, queries = random_store(), unit_vectors(40, 1)
    own = [f"clip {i}" for i in range(40)]
    for k, width in ((1, 1), (3, 15), (50, 15), (SIZE, 15)):
        results = store.search(queries, k, own, width)
        for query, name, result in zip(queries, own, results, strict=True):
            expected = brute_force(query, name, k)
            assert list(result.places) == expected
            assert list(result.captions) == [f"caption number {i}" for i in expected]
            cosines = (unit_vectors(SIZE, 0)[expected].double() @ query.double()).tolist()
            assert result.scores == pytest.approx(cosines, abs=1e-7)


def test_alone_or_in_a_batch_bit_for_bit() -> None:
    store, queries = random_store(), unit_vectors(64, 2)
    together = store.search(queries, 4, width=1)
    assert together == [store.search(query[None], 4, width=1)[0] for query in queries]
    assert together == store.search(queries, 4, width=100)
    assert store.search(queries.flip(0), 4)[::-1] == together


def test_the_length_of_a_query_is_of_no_account() -> None:
    store, queries = random_store(), unit_vectors(5, 3)
    (whole, scaled) = (store.search(v, 5) for v in (queries, queries * 16))
    assert [r.places for r in whole] == [r.places for r in scaled]
    for a, b in zip(whole, scaled, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-6)


def test_vectors_on_a_device_without_float64() -> None:
    store, queries = random_store(), unit_vectors(5, 3)
    assert store.search(queries.as_subclass(NoDoubles), 3) == store.search(queries, 3)


def test_ties_go_to_the_earlier_caption_whatever_the_width() -> None:
    vector = unit_vectors(1, 4)
    captions = [f"word {i}" for i in range(300)]
    store = CaptionDatastore.build(captions, captions, vector.expand(300, -1), SPACE)
    for width in (1, 2, 15, 300):
        results = store.search(vector.expand(30, -1), 4, width=width)
        assert all(result.places == (0, 1, 2, 3) for result in results)


def test_vectors_that_differ_by_less_than_float32_adds_up_to() -> None:
    generator = torch.Generator().manual_seed(8)
    base = unit_vectors(1, 9, 512)
    vectors = F.normalize(base + 2e-8 * torch.randn(300, 512, generator=generator), dim=-1)
    captions = [f"word {i}" for i in range(300)]
    store = CaptionDatastore.build(captions, captions, vectors, SPACE)
    # All numbers of one size, so that to make them unit vectors again leaves their order.
    queries = torch.where(torch.rand(40, 512, generator=generator) < 0.5, 1.0, -1.0) / 512**0.5
    exact = queries.double() @ vectors.double().T  # (40, 300)
    assert float((exact.float().sort().values.diff() == 0).float().mean()) > 0.1
    order = np.lexsort((np.tile(np.arange(300), (40, 1)), -exact.numpy()))
    for width in (1, 4, 20):
        results = store.search(queries, 4, width=width)
        assert [list(result.places) for result in results] == order[:, :4].tolist()


def test_own_captions_are_left_out() -> None:
    store = line_store("abcdef", "xyxyzz")
    assert found(store, 3) == "abc"
    assert found(store, 3, "x") == "bde"
    assert found(store, 3, "y") == "ace"
    assert found(store, 3, "another") == "abc"


def test_texts_that_read_alike_come_once() -> None:
    angles = torch.arange(5) * 0.01
    captions = ["A dog barks.", "a dog  barks", "Rain!", "a dog barks in rain", "rain"]
    store = CaptionDatastore.build(
        captions, list("abcde"), torch.stack([angles.cos(), angles.sin()], dim=1), SPACE
    )
    (result,) = store.search(torch.tensor([[1.0, 0.0]]), 4)
    assert result.captions == ("A dog barks.", "Rain!", "a dog barks in rain")
    (result,) = store.search(torch.tensor([[1.0, 0.0]]), 4, ["a"])
    assert result.captions == ("a dog  barks", "Rain!", "a dog barks in rain")


def test_texts_without_letters_are_compared_as_they_are() -> None:
    assert found(line_store("!??a"), 4) == "!?a"


def test_it_widens_until_enough_is_found() -> None:
    store = line_store("a" * 40 + "bbcd", "x" * 20 + "y" * 20 + "zzzz")
    assert found(store, 3, width=1) == "abc"
    assert found(store, 3, "y", width=2) == "abc"
    assert found(store, 3, "z", width=2) == "a"


def test_fewer_or_none_where_there_are_no_more() -> None:
    store = line_store("abab", "xyxy")
    assert found(store, 3) == "ab"
    assert found(store, 3, "x") == "b"
    assert store.search(torch.tensor([[1.0, 0.0]]), 3, ["q"])[0].places == (0, 1)
    alone = line_store("abc", "xxx")
    assert alone.search(torch.tensor([[1.0, 0.0]]), 3, ["x"]) == [Retrieved((), (), ())]


def test_no_queries_no_results() -> None:
    assert line_store("ab").search(torch.zeros(0, 2)) == []


def test_vectors_that_make_no_sense() -> None:
    store = line_store("abc")
    with pytest.raises(DataError, match="holds vectors of 2 numbers, but this model's have 3"):
        store.search(torch.zeros(1, 3))
    for bad, length in ((0.0, "0"), (float("nan"), "nan"), (float("inf"), "inf")):
        queries = torch.tensor([[1.0, 0.0], [bad, 0.0]])
        with pytest.raises(DataError, match=f"clip 2 of 2 has length {length}, so no captions"):
            store.search(queries)
    for bad in (0.9, 0.0, float("nan")):
        with pytest.raises(DataError, match="the vector of the caption 'b' has length"):
            CaptionDatastore.build(["a", "b"], ["x", "y"], torch.tensor([[1.0], [bad]]), SPACE)


def test_arguments_that_make_no_sense() -> None:
    store = line_store("abc")
    with pytest.raises(ValueError, match="must be at least 1"):
        store.search(torch.ones(1, 2), k=0)
    with pytest.raises(ValueError, match="exclude names 2 clips for 1 queries"):
        store.search(torch.ones(1, 2), exclude=["a", "b"])
    with pytest.raises(ValueError, match="1 captions, 2 clips, 1 vectors"):
        CaptionDatastore.build(["a"], ["x", "y"], torch.ones(1, 1), SPACE)


def test_the_fingerprint_is_of_the_text_tower() -> None:
    torch.manual_seed(0)
    scorer = AudioTextScorer(40, 8, width=12, depth=1, max_length=6, embedding_dim=8)
    first = space_fingerprint(scorer)
    assert len(first) == 64
    assert space_fingerprint(scorer) == first
    with torch.no_grad():
        scorer.project_audio[0].weight.add_(1)  # type: ignore[operator]
        scorer.logit_scale.add_(1)
    assert space_fingerprint(scorer) == first
    half = AudioTextScorer(40, 8, width=12, depth=1, max_length=6, embedding_dim=8)
    half.load_state_dict(scorer.state_dict())
    assert space_fingerprint(half.to(torch.bfloat16)) == first
    with torch.no_grad():
        scorer.project_text.bias.add_(1)
    assert space_fingerprint(scorer) != first
