"""Tags of captions by examples."""

from __future__ import annotations

import pytest

from dac_diffusion.ranking import caption_vocabulary as vocabulary
from dac_diffusion.ranking.parts_of_speech import is_verb_form, lemma, tag_caption
from dac_diffusion.text.words import tokenize


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("a dog barks while birds sing", "dnVsNV"),
        ("a dog loudly barks", "dnrV"),
        ("loud barks", "jE"),
        ("several dog barks", "qnE"),
        ("with dog barks", "pnE"),
        ("rain falling on a tin roof", "EGPdnn"),
        ("a sewing machine is sewing", "dnnxG"),
        ("a crowd rejoices", "dnV"),
        ("the piano keys", "dnN"),
        ("a man and a woman talk", "dncdnV"),
        ("a barking dog can be heard", "dEnyyG"),
        ("a can is opened", "dnxG"),
        ("it is cut", "oxG"),
        ("waves move in and out of a cave", "NVPcPpdn"),
        ("for a while, as well as rain", "pdn,rrpE"),
        ("rain, then wind; A dog!", "E,hE,dn"),
        ("", ""),
    ],
)
def test_tags(caption: str, tags: str) -> None:
    tagged = tag_caption(caption)
    assert tagged.tags == tags
    assert len(tagged.words) == len(tags)


def test_words_are_those_that_all_parts_share() -> None:
    caption = "A dog\u2019s bark, far-off; (twice) caf\u00e9_2!"
    words = [word for word in tag_caption(caption).words if word.isalnum()]
    assert words == tokenize(caption)


@pytest.mark.parametrize(
    ("word", "base"),
    [
        *(("barks", "bark"), ("barking", "bark"), ("barked", "bark"), ("tapping", "tap")),
        *(("cries", "cry"), ("cried", "cry"), ("crying", "cry"), ("scraping", "scrape")),
        *(("hisses", "hiss"), ("echoes", "echo"), ("has", "have"), ("spoke", "speak")),
        *(("dogs", "dog"), ("glass", "glass"), ("gas", "gas"), ("rain", "rain")),
    ],
)
def test_lemmas(word: str, base: str) -> None:
    assert lemma(word) == base


def test_verb_forms() -> None:
    assert is_verb_form("barks")
    assert is_verb_form("running")
    assert not is_verb_form("dogs")


def test_the_lists_do_not_contradict_one_another() -> None:
    assert vocabulary.SOUND_VERBS.isdisjoint(vocabulary.ACTION_VERBS)
    verbs = vocabulary.SOUND_VERBS | vocabulary.ACTION_VERBS
    for part in (vocabulary.FINITE_VERBS, vocabulary.WITHOUT_OBJECT, vocabulary.WITH_CLAUSE):
        assert part <= verbs
    words = [word for part in vocabulary.FUNCTION_WORDS.values() for word in part]
    assert len(words) == len(set(words))
