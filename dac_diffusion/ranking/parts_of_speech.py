"""The words of captions with their parts of speech, by word lists and endings alone.

A tag is one character, so that a grammatical rule is a regular expression over a caption's tags:

    d article   q other determiner, number   o pronoun   j adjective   n noun   N plural noun
    E noun that names a sound or an event    V finite verb   G participle or infinitive
    x finite auxiliary (is, has)   y other auxiliary (be, can)   r adverb   T to   l like, than
    p preposition that needs an object (of, with)   P one that does not (by, off, past)
    c and, or, but   s while, as, when   b before, after   h then   f followed   t that, which
    , punctuation inside the caption

A word that may be a verb or a noun gets its tag from the words before it: "a dog barks" against
"loud barks". Where neither is certain, the tag is the one with which fewer captions are faulty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dac_diffusion.ranking.caption_vocabulary import (
    ACTION_VERBS,
    ADJECTIVES,
    FINITE_VERBS,
    FUNCTION_WORDS,
    KINDS_OF_THINGS,
    NO_ADJECTIVES,
    NO_ADVERBS,
    NOT_PARTICIPLES,
    PARTICIPLES,
    PAST_FORMS,
    PLURAL_DETERMINERS,
    PLURALS,
    SINGULAR_DETERMINERS,
    SOUND_NOUNS,
    SOUND_VERBS,
    WITHOUT_OBJECT,
)

_WORDS_AND_MARKS = re.compile(r"[^\W_]+|[,.;:!?]")
_APOSTROPHES = str.maketrans("", "", "'\u2019\u02bc")
_ADJECTIVE = re.compile(r"\w{3,}(?:al|ic|ous|ful|ive|ish|less|able|ible)$")


@dataclass(frozen=True)
class TaggedCaption:
    """The words and marks of a caption, and one character of `tags` for each of them."""

    words: list[str]
    tags: str


def tag_caption(caption: str) -> TaggedCaption:
    """The parts of speech of a caption; the table above says what the tags mean.

    Words are those of text/words.py, but punctuation between them is kept.
    """
    words = _WORDS_AND_MARKS.findall(caption.lower().translate(_APOSTROPHES))
    while words and not words[-1].isalnum():
        words.pop()
    alone = [_tag_alone(word) for word in words]
    tags = ""
    for at, tag in enumerate(alone):
        tags += _tag_in_context(_Place(words, at, tags, alone[at + 1 : at + 2]), tag)
    return TaggedCaption(words, tags)


def lemma(word: str) -> str:
    """A word without its inflection: barks, barking -> bark; dogs -> dog."""
    if word in _LEMMAS:
        return _LEMMAS[word]
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word


def is_verb_form(word: str) -> bool:
    """Whether a word is a form of a known verb, though it may be used as a noun."""
    return lemma(word) in _VERBS


def _third_person(verb: str) -> str:
    if verb == "have":
        return "has"
    if verb.endswith(("s", "x", "z", "ch", "sh")) or verb in ("go", "do", "echo"):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if re.search(r"[^aeiou]y$", verb) else f"{verb}s"


def _in_ing_and_ed(verb: str) -> list[str]:
    """The two forms, and how they would be spelled with a last letter doubled: tapping, tapped."""
    if verb.endswith("e"):
        return [f"{verb[:-1]}ing", f"{verb}ing", f"{verb}d"]
    past = f"{verb[:-1]}ied" if verb.endswith("y") else f"{verb}ed"
    return [f"{verb}ing", past, f"{verb}{verb[-1]}ing", f"{verb}{verb[-1]}ed"]


_VERBS = SOUND_VERBS | ACTION_VERBS
_THIRD_PERSONS = {_third_person(verb): verb for verb in _VERBS}
_FINITE = frozenset(_third_person(verb) for verb in FINITE_VERBS) | PAST_FORMS
_LEMMAS = {form: verb for verb in sorted(_VERBS) for form in _in_ing_and_ed(verb)} | _THIRD_PERSONS
_LEMMAS |= {"blew": "blow", "rang": "ring", "sang": "sing", "spoke": "speak"}
_TAGS = {word: tag for tag, words in FUNCTION_WORDS.items() for word in words}
_TAGS |= dict.fromkeys(ADJECTIVES, "j") | dict.fromkeys(PLURALS, "N")


def _tag_alone(word: str) -> str:
    """The tag of a word by itself, or what its place has to decide.

    v: finite verb, hardly a noun. w, k: a verb's form in -s, its base form; either may be a noun.
    g: in -ing. e: in -ed, or an irregular participle.
    """
    if not word.isalnum():
        return ","
    if word in _TAGS:
        return _TAGS[word]
    if word in _FINITE:
        return "v"
    if word in SOUND_NOUNS or word.removesuffix("s") in SOUND_NOUNS:
        return "E"
    if word in _THIRD_PERSONS:
        return "w"
    if word in _VERBS:
        return "k"
    if word in NOT_PARTICIPLES:
        return "N" if word.endswith("s") else "n"
    return "e" if word in PARTICIPLES else _tag_by_ending(word)


def _tag_by_ending(word: str) -> str:
    if len(word) > 4 and word.endswith(("ing", "ings")):
        return "g"
    if len(word) > 4 and word.endswith("ed"):
        return "e"
    if len(word) > 4 and word.endswith("ly") and word not in NO_ADVERBS:
        return "r"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return "N"
    return "j" if _ADJECTIVE.match(word) and word not in NO_ADJECTIVES else "n"


@dataclass(frozen=True)
class _Place:
    """Where a word stands: `before` are the final tags of all words before it."""

    words: list[str]
    at: int
    before: str
    alone_after: list[str]

    @property
    def word(self) -> str:
        return self.words[self.at]

    @property
    def previous(self) -> str:
        return self.words[self.at - 1] if self.at else ""

    @property
    def following(self) -> str:
        return self.words[self.at + 1] if self.at + 1 < len(self.words) else ""

    def comes_after(self, tags: str) -> bool:
        """Whether the word before has one of these tags."""
        return self.before != "" and self.before[-1] in tags

    def has_subject(self, tags: str) -> bool:
        """The same without regard to adverbs: "a dog loudly barks"."""
        rest = self.before.rstrip("r")
        return rest != "" and rest[-1] in tags

    def goes_on(self) -> bool:
        """Whether a verb may share an earlier verb's subject: "a dog barks and growls"."""
        return self.comes_after("ch") and self.has_verb_before()

    def has_verb_before(self) -> bool:
        return any(tag in self.before for tag in "VGx")

    def opener(self) -> tuple[str, str]:
        """The word in front of the nouns and adjectives that end here, with its tag."""
        at = len(self.before.rstrip("rnjE")) - 1
        return (self.words[at], self.before[at]) if at >= 0 else ("", "")


def _tag_in_context(place: _Place, tag: str) -> str:
    """The final tag of a word, from what it is by itself and its place."""
    if tag == "s":
        return _tag_conjunction(place)
    if (
        place.word == "can"
        and place.comes_after("djnq")
        and place.alone_after not in (["y"], ["k"])
    ):
        return "n"  # "a can falls", but "a dog can be heard"
    if place.word == "in" and (not place.alone_after or place.alone_after[0] in "c,sbhf"):
        return "P"  # "rolls in and out"
    if tag == "v":
        several = place.comes_after("q") and place.previous not in SINGULAR_DETERMINERS
        return _as_noun(place.word) if several or place.comes_after("djp") else "V"
    if tag == "w":
        return "V" if _is_third_person(place) else _as_noun(place.word)
    if tag == "k":
        return _tag_base_form(place)
    if tag == "g":
        return _tag_ing(place)
    if tag == "e" and place.comes_after("djpq"):
        return "E" if lemma(place.word) in SOUND_VERBS else "j"
    if tag == "e":
        return "G"
    return "V" if tag == "N" and _is_unknown_verb(place) else tag


def _is_third_person(place: _Place) -> bool:
    """Whether "barks" is a verb here."""
    if place.goes_on() or place.previous in ("another", "one"):
        return True
    if place.comes_after(",") and place.word not in _SOUNDS_IN_S and place.has_verb_before():
        return True
    if not place.has_subject("noE"):
        return False
    opener, tag = place.opener()
    is_object = tag in ("V", "G") and lemma(opener) not in WITHOUT_OBJECT
    return not (is_object or tag in ("p", "P") or opener in PLURAL_DETERMINERS)


_SOUNDS_IN_S = frozenset(_third_person(verb) for verb in SOUND_VERBS)


def _tag_base_form(place: _Place) -> str:
    """bark: a plural's verb, an infinitive or a noun."""
    if place.has_subject("Txy"):
        return "G"
    if place.has_subject("N") or place.goes_on():
        return "V"
    if place.previous in ("all", "both", "i", "others", "they", "we", "you"):
        return "V"
    if place.comes_after("E") and place.previous.endswith("s"):
        return "V"
    clause = re.split("[sbhf,VGx]", place.before)[-1]
    if place.comes_after("n") and "c" in clause:  # "a man and a woman talk"
        return "V"
    return _as_noun(place.word) if place.comes_after("djpq") or place.word in SOUND_VERBS else "E"


def _tag_ing(place: _Place) -> str:
    if place.following in KINDS_OF_THINGS and not place.comes_after("x"):
        return "n"
    return "E" if place.comes_after("djqp") or place.word.endswith("ings") else "G"


def _is_unknown_verb(place: _Place) -> bool:
    """Whether a word in -s is a verb that no list has: "a crowd rejoices"."""
    if place.has_subject("o"):
        return True
    if place.comes_after("n") and place.opener()[0] in ("a", "an", "another"):
        return True
    followed_by_verb = bool(place.alone_after) and place.alone_after[0] in "wkvxge"
    return place.comes_after("h") and place.has_verb_before() and not followed_by_verb


def _as_noun(word: str) -> str:
    """The tag of a verb's form that is used as a noun."""
    if lemma(word) in SOUND_VERBS:
        return "E"
    return "N" if word.endswith("s") else "n"


def _tag_conjunction(place: _Place) -> str:
    """`while`, `as` and their like, also where they do not begin a clause."""
    word, previous, following = place.word, place.previous, place.following
    if word == "while" and place.comes_after("d"):
        return "n"  # "for a while"
    if word == "as" and following == "well":
        return "r"
    if word == "as" and previous in ("if", "just", "same", "so", "such", "well"):
        return "p"
    if word in ("if", "though") and place.comes_after("s"):
        return "r"  # "as if"
    if word in ("once", "so"):
        return "s" if following in FUNCTION_WORDS["o"] else "r"
    if word == "because" and following == "of":
        return "P"
    return "s"
