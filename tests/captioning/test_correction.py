"""The corrector against an endpoint on this machine and a tiny language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.answer_cache import AnswerCache
from dac_diffusion.captioning import correction
from dac_diffusion.captioning.chat_model import load_chat_model
from dac_diffusion.captioning.correction import Correction, Corrector, describe, read_answer
from dac_diffusion.chat_endpoint import ChatEndpoint
from dac_diffusion.errors import ConfigError
from dac_diffusion.ranking.rule_based_errors import RuleBasedErrorDetector
from tests.captioning.tiny_chat_model import save_chat_model
from tests.metrics.stub_endpoint import KEY, Asked, Reply, completion, endpoint, serving

FAULTY = "a dog while birds sing"
GOOD = "rain falls on a roof"
FIXED = "a dog barks while birds sing"
STRANGE = "the answer had characters that captions do not have"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[AnswerCache]:
    with AnswerCache(tmp_path / "cache.jsonl") as cache:
        yield cache


@dataclass(frozen=True)
class Fixed:
    """Gives each caption its place in a list as its probability."""

    by_caption: dict[str, float]

    def probabilities(self, captions: Sequence[str]) -> list[float]:
        return [self.by_caption[caption] for caption in captions]


class Everywhere:
    def probabilities(self, captions: Sequence[str]) -> list[float]:
        return [1.0] * len(captions)


def fixing(asked: Asked, _: int) -> Reply:
    """Puts "barks" behind every dog."""
    return completion(asked.user.replace("dog", "dog barks"))


def corrector(url: str, **settings: Any) -> Corrector:
    settings.setdefault("detector", RuleBasedErrorDetector())
    settings.setdefault("model", endpoint(url) if url else None)
    return Corrector(**settings)


def kept(caption: str, note: str, probability: float = 1.0) -> Correction:
    return Correction(caption, caption, probability, False, note)


def test_only_captions_with_errors_are_rewritten() -> None:
    with serving(fixing) as stub:
        found = corrector(stub.url).correct([GOOD, FAULTY, GOOD])
    fine = Correction(GOOD, GOOD, 0.0, False)
    assert found == [fine, Correction(FIXED, FAULTY, 1.0, True), fine]
    (asked,) = stub.asked
    assert asked.user == FAULTY
    assert asked.body["messages"][0] == {
        "role": "system",
        "content": "You are a language specialist who can revise the sentence to make it more "
        "correct and idiomatic! You should follow the below format: rain is falling on a tin roof "
        "==> rain is falling on the tin roof",
    }
    assert describe(found) == "3 captions, 1 flagged, 1 rewritten, 0 kept"


def test_the_threshold_itself_is_no_error() -> None:
    captions = {"a dog here": 0.9, "a dog there": 0.9001, "a dog nearby": 0.2}
    with serving(fixing) as stub:
        first = corrector(stub.url, detector=Fixed(captions)).correct(list(captions))
        lower = corrector(stub.url, detector=Fixed(captions), threshold=0.1).correct(list(captions))
    assert [c.changed for c in first] == [False, True, False]
    assert [c.probability for c in first] == [0.9, 0.9001, 0.2]
    assert [c.changed for c in lower] == [True, True, True]


def test_equal_captions_are_asked_for_once() -> None:
    with serving(fixing) as stub:
        found = corrector(stub.url, concurrency=3).correct([FAULTY] * 5)
    assert [c.text for c in found] == [FIXED] * 5
    assert len(stub.asked) == 1


def test_nothing_is_asked_where_nothing_is_wrong() -> None:
    with serving(fixing) as stub:
        assert corrector(stub.url).correct([]) == []
        corrector(stub.url).correct([GOOD])
    assert stub.asked == []


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (FIXED, FIXED),
        (f" \n{FIXED} \n", FIXED),
        ("A dog barks while birds sing.", "A dog barks while birds sing."),
        (f"==> {FIXED}", FIXED),
        (f"{FAULTY} ==> {FIXED}", FIXED),
        (f"A dog, while birds sing. ==> {FIXED}", FIXED),
        ("a dog\u2019s bark while birds sing", "a dog\u2019s bark while birds sing"),
        ("A dog barks (2/3); birds sing!",) * 2,
        ("a dog barks while birds sing in a café",) * 2,
    ],
)
def test_answers_that_are_taken(answer: str, text: str) -> None:
    assert read_answer(answer, FAULTY) == (text, "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "the answer was empty"),
        (" \n ", "the answer was empty"),
        ("?!", "the answer was empty"),
        ("==>", "the answer was empty"),
        (f"{FAULTY} ==>", "the answer echoed the prompt's format"),
        (f"a cat meows ==> {FIXED}", "the answer echoed the prompt's format"),
        (f"{FAULTY} ==> {FIXED} ==> {FIXED}", "the answer echoed the prompt's format"),
        (f"{FIXED}\n{FIXED}", "the answer had several lines"),
        (f"<think>hm</think>\n\n{FIXED}", "the answer had several lines"),
        (f'"{FIXED}"', "the answer stood in quotation marks"),
        (f"\u201c{FIXED}\u201d", "the answer stood in quotation marks"),
        ("собака лает", "the answer had letters that are not English"),
        ("一只狗叫 dog", "the answer had letters that are not English"),
        ("a \u0111og barks", "the answer had letters that are not English"),
        *(
            (f"a dog barks{sign} while birds sing", STRANGE)
            for sign in ("\ud83d", "\ufffd", "\0", "\t", "\U0001f415", "**", " <br>", "\u200b", "_")
        ),
        ("I'm sorry, but a dog does not sing.", "the answer was a refusal or a remark"),
        ("I cannot do that, dog", "the answer was a refusal or a remark"),
        ("I can\u2019t help with a dog", "the answer was a refusal or a remark"),
        ("As an AI, I see no dog", "the answer was a refusal or a remark"),
        (f"Sure! {FIXED}", "the answer was a refusal or a remark"),
        (f"Here is the sentence: {FIXED}", "the answer was a refusal or a remark"),
        (f"Corrected: {FIXED}", "the answer was a refusal or a remark"),
        (f"The revised sentence is: {FIXED}", "the answer was a refusal or a remark"),
        ("No changes are needed, the dog sings", "the answer was a refusal or a remark"),
        (f"The correct sentence is: {FIXED}", "the answer was a refusal or a remark"),
        ("The sentence should be a dog sings", "the answer was a refusal or a remark"),
        (f'It should be "{FIXED}" here', "the answer was a remark that quotes something"),
        ("a dog sings on a tin roof", "the answer repeated the prompt's example"),
        ("rain is falling on the tin roof", "the answer repeated the prompt's example"),
        ("a cow moos in a field", "the answer told something else"),
        ("a dog is a pet, not a bridge or a boat", "the answer told something else"),
        ("a dog barks and " * 5, "the answer was far longer than the caption"),
        ("dog", "the answer was far shorter than the caption"),
        ("a dog barks while birds", ""),
        ("a dog barks while the", "the answer broke off"),
        (f"{FIXED}...", "the answer broke off"),
        (f"{FIXED}\u2026", "the answer broke off"),
        (FAULTY, "the model changed nothing"),
        ("A dog, while birds sing.", "the model changed nothing"),
    ],
)
def test_answers_that_are_not_taken(answer: str, reason: str) -> None:
    text, found = read_answer(answer, FAULTY)
    assert found == reason
    assert (text == "") == bool(reason)


def test_what_the_caption_has_itself_is_no_fault() -> None:
    assert read_answer("people talk in a café", "people talk a café") == (
        "people talk in a café",
        "",
    )
    assert read_answer("**Hund* \u5b57 bellt im Haus", "**Hund* \u5b57 bellen im Haus")[1] == ""
    assert read_answer("Sorry is what a man says", "sorry is what man says")[1] == ""


def test_nonsense_keeps_the_caption(cache: AnswerCache) -> None:
    answers = {"dog": "", "cat": '"a cat meows while birds sing"', "cow": None}

    def nonsense(asked: Asked, _: int) -> Reply:
        return completion(next(a for name, a in answers.items() if name in asked.user))

    captions = [GOOD, *(f"a {name} while birds sing" for name in answers)]
    with serving(nonsense) as stub:
        found = corrector(stub.url, cache=cache).correct(captions)
        again = corrector(stub.url, cache=cache).correct(captions)
    assert found == [
        Correction(GOOD, GOOD, 0.0, False),
        kept(captions[1], "the answer was empty"),
        kept(captions[2], "the answer stood in quotation marks"),
        kept(captions[3], "the answer was empty"),
    ]
    assert again == found
    assert len(stub.asked) == 3  # nonsense is not asked for again either
    line = (
        "4 captions, 3 flagged, 0 rewritten, 3 kept (2 because the answer was empty; "
        "1 because the answer stood in quotation marks)"
    )
    assert describe(found) == line


def test_an_answer_that_was_cut_off_is_not_taken(cache: AnswerCache) -> None:
    with serving(lambda asked, _: completion(FIXED, "length")) as stub:
        for _ in range(2):  # the second one from the cache
            found = corrector(stub.url, cache=cache).correct([FAULTY])
            assert found == [kept(FAULTY, "the answer broke off")]
    assert len(stub.asked) == 1


def test_what_cannot_be_asked_is_kept() -> None:
    long = "a dog barks and " * 11
    with serving(fixing) as stub:
        found = corrector(stub.url, detector=Everywhere()).correct(["", " ...", long])
    assert found == [
        kept("", "there were no words to correct"),
        kept(" ...", "there were no words to correct"),
        kept(long, "more than 40 words are too many to correct"),
    ]
    assert stub.asked == []


FAULTIES = [f"a dog {n} while birds sing" for n in range(12)]


def test_an_endpoint_that_is_not_there_costs_no_caption() -> None:
    with serving(fixing) as stub:
        url = stub.url  # nobody answers once the block has ended
    model = ChatEndpoint(url, "a-model", attempts=2, first_wait_seconds=0.01)
    found = corrector(url, model=model, concurrency=2).correct(FAULTIES)
    assert [c.text for c in found] == FAULTIES
    assert {c.changed for c in found} == {False}
    (note,) = {c.note for c in found}
    assert note.startswith(f"{url}: no answer in 2 attempts (ConnectionRefusedError")
    assert {c.answered for c in found} == {False}
    assert "12 kept (12 because" in describe(found)


def test_a_timeout_costs_no_caption() -> None:
    def slow(asked: Asked, _: int) -> Reply:
        reply = fixing(asked, 0)
        reply.seconds = 0.5
        return reply

    with serving(slow) as stub:
        model = ChatEndpoint(stub.url, "a-model", attempts=1, timeout_seconds=0.05)
        (found,) = corrector(stub.url, model=model).correct([FAULTY])
    assert found.text == FAULTY
    assert "no answer in 1 attempts (TimeoutError" in found.note


def test_an_endpoint_that_goes_down_is_not_asked_on(cache: AnswerCache) -> None:
    def failing(asked: Asked, count: int) -> Reply:
        return fixing(asked, count) if count < 4 else Reply(b"", 401)

    with serving(failing) as stub:
        found = corrector(stub.url, cache=cache).correct(FAULTIES)
        assert len(stub.asked) == 5
        assert sum(c.changed for c in found) == 4
        (note,) = {c.note for c in found if not c.changed}
        assert "does not accept the API key (HTTP 401)" in note
        assert KEY not in note
        # What is in the cache is not asked for again, the others are.
        stub.respond = fixing
        again = corrector(stub.url, cache=cache).correct(FAULTIES)
        assert all(c.changed for c in again)
        assert len(stub.asked) == 5 + 8
    assert KEY not in cache.path.read_text()


def test_a_refused_caption_does_not_keep_the_others() -> None:
    def filtering(asked: Asked, count: int) -> Reply:
        if " 0 " in asked.user or " 7 " in asked.user:
            return Reply(b'{"error": {"message": "filtered"}}', 400)
        return fixing(asked, count)

    with serving(filtering) as stub:
        found = corrector(stub.url).correct(FAULTIES)
    assert [n for n, c in enumerate(found) if not c.changed] == [0, 7]
    refused = kept(FAULTIES[7], "the endpoint refused the request (HTTP 400): filtered")
    assert found[7] == replace(refused, answered=False)


def test_when_everything_is_refused_asking_ends_early() -> None:
    with serving(lambda asked, _: Reply(b'{"error": "no such setting"}', 400)) as stub:
        found = corrector(stub.url).correct(FAULTIES)
    assert len(stub.asked) == 3
    assert {c.note for c in found} == {
        "the endpoint refused the request (HTTP 400): no such setting"
    }


def test_another_model_prompt_or_host_is_asked_anew(
    cache: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(fixing) as stub, serving(fixing) as other:
        corrector(stub.url, cache=cache).correct([FAULTY])
        corrector(stub.url, cache=cache).correct([FAULTY])
        assert len(stub.asked) == 1
        corrector("", model=endpoint(stub.url, "another"), cache=cache).correct([FAULTY])
        assert len(stub.asked) == 2
        corrector(other.url, cache=cache).correct([FAULTY])
        assert len(other.asked) == 1
        monkeypatch.setattr(correction, "SYSTEM_PROMPT", "another")
        corrector(stub.url, cache=cache).correct([FAULTY])
        assert len(stub.asked) == 3


def test_a_model_on_this_machine(tmp_path: Path, cache: AnswerCache) -> None:
    save_chat_model(tmp_path / "llama")
    model = load_chat_model(tmp_path / "llama")
    answer = model.complete(correction.SYSTEM_PROMPT, FAULTY, correction.Event())
    expected, reason = read_answer(answer, FAULTY)
    found = corrector("", model=model, cache=cache).correct([GOOD, FAULTY])
    assert found[1] == Correction(expected or FAULTY, FAULTY, 1.0, bool(expected), reason)
    assert reason  # random weights write nonsense
    assert '"answer": ' in cache.path.read_text()
    object.__setattr__(model, "model", None)  # it would fail if it were asked again
    assert corrector("", model=model, cache=cache).correct([GOOD, FAULTY]) == found


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"threshold": 1.1}, "threshold 1.1: must be from 0 to 1"),
        ({"threshold": float("nan")}, "threshold nan: must be from 0 to 1"),
        ({"concurrency": 0}, "concurrency 0: give at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        corrector("http://127.0.0.1:1", **settings)
    assert str(caught.value) == problem
