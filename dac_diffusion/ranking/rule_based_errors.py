"""Errors of fluency in captions, found by rules alone: no weights, nothing to download.

The rules know the forms in which captions are written ("a dog barks while birds sing", "rain
falling on a roof", "footsteps followed by a door closing") and look for what breaks them. Noun
phrases without a verb are accepted where they name something heard ("a loud bang"). How many
captions by people are flagged, and how many faulty ones, is in
benchmarks/results/error_detection.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dac_diffusion.ranking.caption_vocabulary import (
    ANEW,
    DOUBLED_ON_PURPOSE,
    SPANS_AND_SONGS,
    WITH_CLAUSE,
    WITHOUT_OBJECT,
)
from dac_diffusion.ranking.parts_of_speech import TaggedCaption, is_verb_form, lemma, tag_caption
from dac_diffusion.text.faults import ends_on_function_word

NO_WORDS = "no words"
REPEATED_WORDS = "repeated words"
REPEATED_EVENT = "repeated event"
BREAKS_OFF = "breaks off"
BROKEN_PHRASE = "broken phrase"
MISSING_VERB = "missing verb"
MISSING_SUBJECT = "missing subject"
MISSING_CONJUNCTION = "missing conjunction"

LONGEST_REPETITION = 4
_BEGINNERS = "sbhf"  # the tags that begin a new part of a caption
_FRAGMENTS = re.compile(
    r"d(?=[spcbhfdx,t]|$)"  # an article without its noun: "a of", "a and"
    r"|p(?=[sbhf,x]|$)|(?<!G)p(?=c)"  # a preposition without its object: "with and"
    r"|x(?=[scb,])"  # an auxiliary without its verb: "is while"
    r"|ss|sc"  # "while as", "as and"
    r"|f(?:[csh]|P?$)"  # "followed and", "followed by"
)


@dataclass(frozen=True)
class RuleBasedErrorDetector:
    """Tells captions with errors of fluency from those without, by grammar and word lists."""

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        """1.0 for each caption in which some error is found, 0.0 for the others."""
        return [1.0 if self.errors(caption) else 0.0 for caption in captions]

    def errors(self, caption: str) -> list[str]:
        """The names of the errors in a caption, such as "missing verb"; none for a good one."""
        tagged = tag_caption(caption)
        if not any(word.isalnum() for word in tagged.words):
            return [NO_WORDS]
        found = [name for name, finds in _RULES.items() if finds(tagged)]
        return [BREAKS_OFF, *found] if ends_on_function_word(caption) else found


def _repeats_words(tagged: TaggedCaption) -> bool:
    """Whether one to four words follow themselves directly."""
    kept = [at for at, word in enumerate(tagged.words) if word.isalnum()]
    words = [tagged.words[at] for at in kept]
    tags = "".join(tagged.tags[at] for at in kept)
    for size in range(1, LONGEST_REPETITION + 1):
        for start in range(len(words) - 2 * size + 1):
            first = words[start : start + size]
            if first != words[start + size : start + 2 * size]:
                continue
            idiom = re.fullmatch("[rPj]c", tags[start : start + size])  # "over and over and"
            if not idiom and not DOUBLED_ON_PURPOSE.issuperset(first):
                return True
    return False


def _repeats_event(tagged: TaggedCaption) -> bool:
    """Whether the same is said to happen twice: "a dog barks and a dog barking"."""
    events = list(_events(tagged))
    for at, event in enumerate(events):
        for other in events[at + 1 :]:
            if len(event.words) > 2 and event.words == other.words and "again" not in event.words:
                return True
            shared = min(len(event.told), len(other.told))
            if shared > 1 and event.told[:shared] == other.told[:shared]:
                return True
            if event.who_does and event.who_does == other.who_does:
                return True
    return _repeats_around_conjunction(tagged)


@dataclass(frozen=True)
class _Event:
    """What is told between two conjunctions: in its words, and without inflection and articles.

    who_does: that up to the verb, where there is one. Both are empty for what happens anew.
    """

    words: list[str]
    told: list[str]
    who_does: list[str]


def _events(tagged: TaggedCaption) -> Iterator[_Event]:
    for match in re.finditer(r"f?P?((?:(?![scbhf,t]).)+)", tagged.tags):
        words, tags = tagged.words[match.start(1) : match.end(1)], match[1]
        if not re.search("[nNEVG]", tags):
            continue
        kept = [
            (lemma(word), tag)
            for word, tag in zip(words, tags, strict=True)
            if tag not in "dxy" and not (tag == "r" and word.endswith("ly"))
        ]
        told = [word for word, _ in kept]
        if not ANEW.isdisjoint(told):  # "then another dog barks"
            yield _Event(words, [], [])
            continue
        verb = next((at for at, (_, tag) in enumerate(kept) if tag in "VG"), 0)
        yield _Event(words, told, told[: verb + 1] if verb else [])


def _repeats_around_conjunction(tagged: TaggedCaption) -> bool:
    """Whether it says "cries and cries", or "rapidly and rapidly"."""
    words, tags = tagged.words, tagged.tags
    for at in range(1, len(words) - 1):
        before, after = words[at - 1], words[at + 1]
        named = tags[at + 1] in "VGE" or after.endswith("ly")
        anew = "again" in words[at + 2 : at + 3]
        if tags[at] == "c" and named and not anew and lemma(before) == lemma(after):
            return True
    return False


def _breaks_phrase(tagged: TaggedCaption) -> bool:
    """Whether a word stands alone that needs another one: "flowing of a over rocks"."""
    if _FRAGMENTS.search(tagged.tags):
        return True
    return any(
        word == "of" and (tag in "pscbhfxydT," or (tag == "r" and before.endswith("ly")))
        for word, tag, before in zip(tagged.words[1:], tagged.tags, tagged.words, strict=False)
    )


@dataclass(frozen=True)
class _Part:
    """A stretch of a caption and the word that begins it: "" for the first, or "while", "then"."""

    opener: str
    words: list[str]
    tags: str


def _parts(tagged: TaggedCaption) -> Iterator[_Part]:
    words, tags = tagged.words, tagged.tags
    begins = [at for at in range(len(words)) if tags[at] in _BEGINNERS or words[at] in ".;"]
    edges = [0, *begins, len(words)]
    for start, end in pairwise(edges):
        opened = start in begins
        yield _Part(words[start] if opened else "", words[start + opened : end],
                    tags[start + opened : end])  # fmt: skip


def _lacks_verb(tagged: TaggedCaption) -> bool:
    return bool(_NOUN_LEFT_OVER.search(tagged.tags)) or any(
        _is_only_a_thing(part) or _subject_meets_no_verb(part) for part in _parts(tagged)
    )


# "a dog barks and a man", "people talk, and a car in the distance"
_NOUN_LEFT_OVER = re.compile(r"[VG],?cd[jn]*n(?:[pP]d?[jn]*n)?r?(?=[sbhf,]|$)")


def _is_only_a_thing(part: _Part) -> bool:
    """Whether a part names something, such as a dog, but nothing that is heard of it."""
    if re.search("[VGxy]", part.tags):
        return False
    begins_clause = part.opener in ("while", "as", "when", "whilst")
    if begins_clause and not any(is_verb_form(word) for word in part.words):
        return bool(re.match(",?[^pPr,]", part.tags))
    if "E" in part.tags:
        return False
    if part.opener == "":
        return bool(re.search("[dqnNo]", part.tags))
    # "then a man", "followed by a man"
    return part.opener in ("then", "followed") and bool(re.fullmatch(r"P?d[jn]*n,?", part.tags))


def _subject_meets_no_verb(part: _Part) -> bool:
    """Whether a noun is followed by what only a verb may be followed by."""
    for match in re.finditer("[nNEo]r+(?=[pPdsbfh,]|c(?!r)|$)", part.tags):  # "a woman briefly"
        adverb, noun = part.words[match.end() - 1], part.words[match.start()]
        verb_before = re.search("[VGxy]", part.tags[: match.start()])
        if adverb.endswith("ly") and not verb_before and not is_verb_form(noun):
            return True
    if part.opener == "" and re.match(r"[dqjnNoP]*[nNo]c[Vx]", part.tags):  # "an engine and stops"
        return True
    if re.match(r"[dqj]*[nN]*[nNo]d", part.tags) and "times" not in part.words[:2]:
        return not re.search("[VGxy]", part.tags[:3])  # "a man a speech"
    particle = re.match(r"[dqjnN]*[nNE]P(?=[cp]|$)", part.tags)  # "the fireworks off and"
    if particle:
        noun, word = part.words[particle.end() - 2 : particle.end()]
        return word in ("away", "by", "down", "off", "past", "up") and not is_verb_form(noun)
    return False


def _lacks_subject(tagged: TaggedCaption) -> bool:
    if re.search(r"^[Vx]|sV|sxG", tagged.tags):
        return True
    for part in _parts(tagged):  # "while barks loudly"
        if part.opener in ("while", "as", "when") and not re.search("[VGx]", part.tags):
            alone = re.match("[NE](?:[rpPc,]|$)", part.tags)
            if alone and part.words[0].endswith("s") and is_verb_form(part.words[0]):
                return True
    return False


def _lacks_conjunction(tagged: TaggedCaption) -> bool:
    words, tags = tagged.words, tagged.tags
    # "a door opening a man screaming"
    if re.search(r"VV|Gd[jn]*nG(?=[scbhf,]|$)|[nNoEr][VG][jn]*NG(?=[scbhf,]|$)", tags):
        return True
    for at in range(len(words) - 1):  # "a dog barks a man speaks"
        named = words[at + 1] in ("another", "people", "several", "someone")
        alone = tags[at] in "VG" and lemma(words[at]) in WITHOUT_OBJECT
        span = SPANS_AND_SONGS.intersection(words[at + 2 : at + 5])
        if alone and (named or tags[at + 1] == "d") and not span:
            return True
    return any(_has_two_verbs(clause, opener) for clause, opener in _clauses(tagged))


def _clauses(tagged: TaggedCaption) -> Iterator[tuple[str, str]]:
    """The tags between conjunctions, relative words and verbs that take a clause."""
    tags = "".join(
        "|" if lemma(word) in WITH_CLAUSE and tag in "VG" else tag
        for word, tag in zip(tagged.words, tagged.tags, strict=True)
    )
    for match in re.finditer(r"(^|[scbhf,tlT|])([^scbhf,tlT|]*)", tags):
        yield match[2], tags[: match.end(1)][-2:]


def _has_two_verbs(clause: str, opener: str) -> bool:
    """Whether two finite verbs share a clause: "rain falls birds are chirping"."""
    verbs = [match.start() for match in re.finditer("[Vx]", clause)]
    apart = sum(second - first > 1 for first, second in pairwise(verbs))
    # "as the train passes by the bell rings" is only in want of a comma.
    begins_with_clause = opener in ("s", "b", "cs", "hs", ",s", "cb", ",b") or clause[:1] in "pP"
    return apart > (1 if begins_with_clause else 0)


_RULES: dict[str, Callable[[TaggedCaption], bool]] = {
    REPEATED_WORDS: _repeats_words,
    REPEATED_EVENT: _repeats_event,
    BROKEN_PHRASE: _breaks_phrase,
    MISSING_VERB: _lacks_verb,
    MISSING_SUBJECT: _lacks_subject,
    MISSING_CONJUNCTION: _lacks_conjunction,
}
