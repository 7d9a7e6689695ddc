"""A frozen language model rewrites the captions in which a detector finds an error.

The post-corrector of the CED and Llama-2 system of DCASE 2024, task 6: Llama-3-8B-Instruct with
this system message, asked only where FENSE's detector is more than 90 % sure of an error. No
caption is lost: where the model gives no usable answer, the caption stays as it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters, digits
from threading import Event
from typing import TypeAlias
from unicodedata import normalize
from urllib.parse import urlsplit

from tqdm import tqdm

from dac_diffusion.answer_cache import AnswerCache
from dac_diffusion.asking import ask_all
from dac_diffusion.captioning.chat_model import LocalChatModel
from dac_diffusion.chat_endpoint import CUT_OFF, ChatEndpoint
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.error_detection import ERROR_THRESHOLD
from dac_diffusion.ranking.error_filter import ErrorDetector, error_probabilities
from dac_diffusion.ranking.parts_of_speech import lemma
from dac_diffusion.text.faults import FUNCTION_WORDS, ends_on_function_word
from dac_diffusion.text.words import tokenize

ChatModel: TypeAlias = LocalChatModel | ChatEndpoint

ARROW = "==>"
SYSTEM_PROMPT = (
    "You are a language specialist who can revise the sentence to make it more correct and "
    "idiomatic! You should follow the below format: "
    f"rain is falling on a tin roof {ARROW} rain is falling on the tin roof"
)
EXAMPLES_OWN = "tin"  # the word of its example that nothing else would bring into a caption
MAX_WORDS = 40  # of a caption: more would not fit into an answer of 64 tokens
CHANGED_NOTHING = "the model changed nothing"
_DOUBLE_QUOTES = '"\u201c\u201d\u00ab\u00bb'
# What an answer may bring into a caption, besides accented Latin letters.
_USUAL = frozenset(
    ascii_letters + digits + " .,;:!?-/()&%\u2013\u2014\u2026'\u2018\u2019" + _DOUBLE_QUOTES
)
_QUOTES = "'`\u2018\u2019" + _DOUBLE_QUOTES
_REMARK = re.compile(
    r"(?:i(?:'|\u2019| a)?m (?:sorry|afraid|unable)|sorry\b|i apologi[sz]e\b"
    r"|i can(?:no|'|\u2019)?t\b|as an? (?:ai|artificial|language)\b|unfortunately\b"
    r"|(?:sure|certainly|of course|okay|ok)\b[,!.:]|here(?: i|'|\u2019)s\b"
    r"|(?:the |your )?(?:correct|corrected|revised|improved|rewritten|original)\b[^:]*:"
    r"|no (?:correction|revision|change)s?\b|the sentence (?:is|was|should|could)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Correction:
    """What became of a caption.

    probability: of an error, in the original. changed: whether text differs from the original.
    note: why a caption with an error was kept; "" for all others. answered: False where that is
    because the model could not be asked or refused, so that trying again may help.
    """

    text: str
    original: str
    probability: float
    changed: bool
    note: str = ""
    answered: bool = True


@dataclass(frozen=True)
class Corrector:
    """Lets a model rewrite the captions whose probability of an error is above the threshold.

    detector: says that probability. cache: where answers are kept; without one, they are asked for
    anew in every call. concurrency: requests at a time, for endpoints.

    Raises ConfigError for a threshold outside 0 to 1 or a concurrency below 1.
    """

    detector: ErrorDetector
    model: ChatModel
    threshold: float = ERROR_THRESHOLD
    cache: AnswerCache | None = None
    concurrency: int = 1

    def __post_init__(self) -> None:
        check_settings(self.threshold, self.concurrency)

    def correct(self, captions: Sequence[str], progress: bool | None = False) -> list[Correction]:
        """The captions in their order, corrected or with a note; `describe` sums them up.

        progress: a bar over the questions; None: on a terminal. Raises what the detector raises,
        and DacError for a cache that cannot be written.
        """
        probabilities = error_probabilities(self.detector, captions)
        pairs = list(zip(captions, probabilities, strict=True))
        answers, unanswered = self._answers({c for c, p in pairs if p > self.threshold}, progress)
        corrections = []
        for caption, probability in pairs:
            text, note = answers.get(caption, ("", ""))
            answered = caption not in unanswered
            corrections.append(
                Correction(text or caption, caption, probability, bool(text), note, answered)
            )
        return corrections

    def _answers(
        self, captions: set[str], progress: bool | None
    ) -> tuple[dict[str, tuple[str, str]], set[str]]:
        """For each caption what replaces it or "", and a note; and those without an answer."""
        found, left = {}, []
        for caption in sorted(captions):  # in an order that does not depend on the process
            words = len(tokenize(caption))
            if not words:
                found[caption] = "", "there were no words to correct"
            elif words > MAX_WORDS:
                found[caption] = "", f"more than {MAX_WORDS} words are too many to correct"
            elif self.cache is not None and self._key(caption) in self.cache:
                found[caption] = read_answer(self.cache[self._key(caption)], caption)
            else:
                left.append(caption)
        hidden = None if progress is None else not progress
        with tqdm(total=len(left), unit="caption", disable=hidden) as bar:
            asked = ask_all(left, self._ask, self.concurrency, on_asked=bar.update)
        unanswered = set(left) - asked.answers.keys()
        for caption in unanswered:
            found[caption] = "", asked.refused.get(caption, str(asked.trouble))
        return found | asked.answers, unanswered

    def _ask(self, caption: str, stop: Event) -> tuple[str, str]:
        answer = self.model.complete(SYSTEM_PROMPT, caption, stop)
        if self.cache is not None:
            notes = {"caption": caption, "model": _model_names(self.model)[0]}
            self.cache.add(self._key(caption), answer, notes)
        return read_answer(answer, caption)

    def _key(self, caption: str) -> str:
        """A hash of all that the answer depends on."""
        parts = [SYSTEM_PROMPT, *_model_names(self.model), caption]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_settings(threshold: float, concurrency: int) -> None:
    """Raise ConfigError for values that make no sense."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold {threshold}: must be from 0 to 1")
    if concurrency < 1:
        raise ConfigError(f"concurrency {concurrency}: give at least 1")


def _model_names(model: ChatModel) -> list[str]:
    """What tells a model from others."""
    if isinstance(model, ChatEndpoint):
        return [model.model, urlsplit(model.url).netloc, str(model.max_tokens)]
    return [model.name, model.fingerprint, str(model.max_new_tokens)]


def read_answer(answer: str, caption: str) -> tuple[str, str]:
    """The corrected caption in a model's answer and "", or "" and why there is none.

    "<the caption> ==> <its correction>", the form of the system message's example, counts too.
    """
    text = answer.strip()
    before, _, after = text.partition(ARROW)
    if after and tokenize(before) in ([], tokenize(caption)):
        text = after.strip()
    fault = _fault(text, caption)
    return ("", fault) if fault else (text, "")


def _fault(text: str, caption: str) -> str:
    """Why an answer cannot replace a caption; "" for a good one."""
    words, old = tokenize(text), tokenize(caption)
    if not words:
        return "the answer was empty"
    if len(text.splitlines()) > 1:
        return "the answer had several lines"
    if ARROW in text:
        return "the answer echoed the prompt's format"
    if text[0] in _QUOTES and text[-1] in _QUOTES:
        return "the answer stood in quotation marks"
    if any(quote in text and quote not in caption for quote in _DOUBLE_QUOTES):
        return "the answer was a remark that quotes something"
    if EXAMPLES_OWN in words and EXAMPLES_OWN not in old:
        return "the answer repeated the prompt's example"
    new = set(text) - set(caption) - _USUAL
    if any(c.isalpha() and not normalize("NFD", c)[0].isascii() for c in new):
        return "the answer had letters that are not English"
    if not all(c.isalpha() for c in new):  # markup, emoji, half a character pair
        return "the answer had characters that captions do not have"
    if _REMARK.match(text) and not _REMARK.match(caption):
        return "the answer was a refusal or a remark"
    told = _content(words)
    if 2 * len(told & _content(old)) < max(1, len(told)):
        return "the answer told something else"
    if len(words) > 2 * len(old) + 4:
        return "the answer was far longer than the caption"
    if 2 * len(words) < len(set(old)):
        return "the answer was far shorter than the caption"
    if text.endswith((CUT_OFF, "\u2026")) or ends_on_function_word(text):
        return "the answer broke off"
    return CHANGED_NOTHING if words == old else ""


def _content(words: Sequence[str]) -> set[str]:
    return {lemma(word) for word in words if word not in FUNCTION_WORDS}


def describe(corrections: Sequence[Correction]) -> str:
    """One line: how many captions, how many with errors, and what became of these."""
    rewritten = sum(correction.changed for correction in corrections)
    reasons = Counter(correction.note for correction in corrections if correction.note)
    kept = reasons.total()
    said = "; ".join(f"{count} because {reason}" for reason, count in reasons.most_common())
    return (
        f"{len(corrections)} captions, {rewritten + kept} flagged, {rewritten} rewritten, "
        f"{kept} kept" + (f" ({said})" if said else "")
    )
