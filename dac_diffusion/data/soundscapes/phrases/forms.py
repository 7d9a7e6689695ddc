"""The grammatical forms in which captions name a sound: clauses, noun phrases, and their facts."""

from __future__ import annotations

from dataclasses import dataclass

_VOWELS = "aeiou"


def with_indefinite_article(words: str) -> str:
    """'dog bark' -> 'a dog bark', 'alarm bell' -> 'an alarm bell' (by first letter: no word of
    the phrase tables that follows an article breaks that rule)."""
    return f"{'an' if words[0] in _VOWELS else 'a'} {words}"


@dataclass(frozen=True)
class Clause:
    """Who makes the sound and how: subject, verb (with its object), then an optional adjunct.

    `rest` is never an object: one-word adverbs go before it ('knocks twice on a door'), longer
    ones after it. A passive is written verb='is opened', gerund='being opened'.
    """

    subject: str
    verb: str
    gerund: str
    rest: str = ""
    plural: bool = False

    def finite(self, adverb: str = "", place: str = "", progressive: bool = False) -> str:
        """'a dog barks loudly at something', or 'a dog is barking ...'."""
        verb = self.verb
        if progressive:
            verb = f"{'are' if self.plural else 'is'} {self.gerund}"
        return self._with_adverb(verb, adverb, place)

    def participle(self, adverb: str = "", place: str = "") -> str:
        """'a dog barking loudly at something', usable wherever a noun phrase is."""
        return self._with_adverb(self.gerund, adverb, place)

    def _with_adverb(self, verb: str, adverb: str, place: str) -> str:
        if " " in adverb:
            return _join(self.subject, verb, self.rest, adverb, place)
        return _join(self.subject, verb, adverb, self.rest, place)


@dataclass(frozen=True)
class Noun:
    """A noun phrase without its article: article 'a' (counted), 'the', or '' (mass, plural)."""

    singular: str
    plural: str = ""
    article: str = "a"

    def phrase(self, adjective: str = "", many: str | None = None) -> str:
        """The phrase with article; `many` ('several', 'two', '') asks for the plural instead."""
        if many is not None and self.plural:
            return _join(many, adjective, self.plural)
        words = _join(adjective, self.singular)
        return with_indefinite_article(words) if self.article == "a" else _join(self.article, words)


@dataclass(frozen=True)
class EventPhrases:
    """All phrasings of one label and the facts that decide which details may go with them.

    continuous: it lasts (rain, engine), so it is never counted. countable: one occurrence is one
    clear sound, so 'twice' is right for two of them (a sneeze; but not a dog's volley of barks).
    ambient: it is all around, so 'nearby' makes no sense. adverbs: how this sound may be made.
    """

    clauses: tuple[Clause, ...]
    nouns: tuple[Noun, ...]
    continuous: bool = False
    countable: bool = False
    ambient: bool = False
    adverbs: tuple[str, ...] = ()


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
