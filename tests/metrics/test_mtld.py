"""MTLD by hand, and against the packages lexical-diversity and lexicalrichness."""

from __future__ import annotations

import importlib
import random
import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from dac_diffusion.metrics.mtld import PAPER, TEN_WORDS, mtld, mtld_of_captions
from dac_diffusion.text.words import tokenize
from tests.metrics.real_captions import TABLES, real_captions

Reference = Callable[[list[str]], float]


@pytest.fixture
def lexical_diversity(monkeypatch: pytest.MonkeyPatch) -> Reference:
    """The package's mtld, which needs pkg_resources to find its file, gone from setuptools 82."""
    spec = find_spec("lexical_diversity")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package lexical-diversity")
    folder = Path(spec.origin).parent
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _, name: str(folder / name)
    monkeypatch.setitem(sys.modules, "pkg_resources", resources)
    return importlib.import_module("lexical_diversity.lex_div").mtld


@pytest.fixture
def lexicalrichness() -> Reference:
    package = pytest.importorskip("lexicalrichness")
    return lambda words: package.LexicalRichness(words, preprocessor=None, tokenizer=None).mtld()


def texts() -> list[list[str]]:
    """Word lists of every length up to 150, from poor to rich in words."""
    generator = random.Random(0)
    return [
        [str(generator.randrange(types)) for _ in range(length)]
        for types in (1, 3, 10, 18, 40)
        for length in range(1, 151, 2)
    ]


def test_by_hand() -> None:
    # McCarthy and Jarvis 2010, page 384: the ratios of "of the people by the people" are
    # 1, 1, 1, 1, .8, .667, a factor; of "for the people" all 1, no part of a factor.
    words = ["of", "the", "people", "by", "the", "people", "for", "the", "people"]
    # Backwards: people the for people (.75) the (.6, a factor), by people the of: no part.
    assert mtld(words) == (9 / 1 + 9 / 1) / 2
    # What is left counts in part: a, b, a has the ratio 2/3, low enough; a b c a has 3/4.
    assert mtld(["a", "b", "c", "a"]) == pytest.approx(4 / (0.25 / 0.28))
    assert mtld(["a", "b", "a"]) == 3.0


def test_a_ratio_of_exactly_the_threshold_closes_only_by_the_article() -> None:
    words = [*map(str, range(18)), *map(str, range(7))]  # 18 types of 25 words, 18 / 25 = .72
    assert mtld(words) == 25.0
    assert mtld([*words, "x"], PAPER) != mtld([*words, "x"], TEN_WORDS)


def test_equals_lexicalrichness(lexicalrichness: Reference) -> None:
    for words in texts():
        assert mtld(words, PAPER) == pytest.approx(lexicalrichness(words), abs=1e-9)


def test_equals_lexical_diversity(lexical_diversity: Reference) -> None:
    for words in texts():
        assert mtld(words, TEN_WORDS) == pytest.approx(lexical_diversity(words), abs=1e-9)


@pytest.mark.parametrize("table", TABLES)
def test_equals_both_on_real_captions(
    table: str, lexical_diversity: Reference, lexicalrichness: Reference
) -> None:
    first = [captions[0] for captions in real_captions(table)]
    words = [word for caption in first for word in tokenize(caption)]
    ours, ten_words = mtld_of_captions(first), mtld_of_captions(first, TEN_WORDS)
    assert ours.in_order == pytest.approx(lexicalrichness(words), abs=1e-9)
    assert ten_words.in_order == pytest.approx(lexical_diversity(words), abs=1e-9)
    alone = [lexicalrichness(tokenize(caption)) for caption in first]
    assert ours.per_caption == pytest.approx(sum(alone) / len(alone))
    # The two differ in rules, not in what they say about a long text.
    assert ours.in_order == pytest.approx(ten_words.in_order, rel=0.05)
    assert ours.in_order == pytest.approx(ours.shuffled_mean, abs=4 * ours.shuffled_std)


def test_without_repetition() -> None:
    assert mtld(["a", "b", "c"]) == 3.0
    assert mtld(["a", "b", "c"], TEN_WORDS) == 0.0
    assert mtld([]) == mtld([], TEN_WORDS) == 0.0


def test_captions_are_joined_in_their_order() -> None:
    captions = ["A dog barks.", "rain, rain", "", "a dog barks and a cat"]
    joined = [word for caption in captions for word in tokenize(caption)]
    found = mtld_of_captions(captions, seed=1)
    assert found.in_order == mtld(joined)
    assert found.per_caption == sum(mtld(tokenize(c)) for c in captions) / 4
    assert found == mtld_of_captions(captions, seed=1)
    assert found != mtld_of_captions(captions, seed=2)
    assert found.shuffled_std > 0


def test_equal_captions_have_no_spread() -> None:
    same = mtld_of_captions(["a dog barks"] * 9)
    assert same.shuffled_std == 0
    assert same.shuffled_mean == same.in_order


def test_no_captions() -> None:
    found = mtld_of_captions([])
    assert (found.in_order, found.shuffled_mean, found.per_caption) == (0, 0, 0)
