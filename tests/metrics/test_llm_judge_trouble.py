"""The judge when the server or its answers are bad: what it repeats, keeps and gives up on."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from dac_diffusion.answer_cache import AnswerCache
from dac_diffusion.chat_endpoint import ChatEndpoint, EndpointError
from dac_diffusion.metrics.llm_judge import JudgedCaption, Verdict, estimate_cost, judge, report
from tests.metrics.stub_endpoint import (
    CAPTIONS,
    KEY,
    Asked,
    Reply,
    completion,
    endpoint,
    grades,
    serving,
)


def test_junk_is_asked_for_again_and_then_given_up(cache: AnswerCache) -> None:
    seen: Counter[int] = Counter()

    def moody(asked: Asked, _: int) -> Reply:
        n = asked.number
        seen[n] += 1
        if n == 3 or (n == 4 and seen[n] < 3):
            return completion("I like\nthis one!")
        return grades(5)

    with serving(moody) as stub:
        judgement = judge(CAPTIONS, endpoint(stub.url), cache)
    assert [n for n, v in enumerate(judgement.verdicts) if v is None] == [3]
    assert judgement.failures == {
        "clip_3.wav": "3 answers without the four grades: 'I like this one!'"
    }
    assert judgement.mean == 5
    assert (seen[3], seen[4], seen[5]) == (3, 3, 1)
    repeated = [asked.user for asked in stub.asked if asked.number == 3]
    assert "the JSON object of the four grades only" not in repeated[0]
    assert "the JSON object of the four grades only" in repeated[1]


def test_only_junk_gives_no_mean(cache: AnswerCache) -> None:
    with serving(lambda asked, _: completion(None)) as stub:
        judgement = judge(CAPTIONS[:4], endpoint(stub.url), cache)
        result = report(CAPTIONS[:4], judgement, endpoint(stub.url))
    assert judgement.verdicts == [None] * 4
    assert judgement.mean is None
    assert result["failed"] == 4
    assert result["mean"] == dict.fromkeys(("score", "correctness", "completeness", "fluency"))


def test_passing_trouble_costs_nothing(cache: AnswerCache) -> None:
    seen: Counter[int] = Counter()
    troubles = [
        Reply(b"busy", 429, {"Retry-After": "0.05"}),
        Reply(b"oops", 500),
        Reply(drop=True),
        Reply(b"<html>"),
    ]

    def troubled(asked: Asked, _: int) -> Reply:
        n = asked.number
        seen[n] += 1
        return troubles[n % 4] if seen[n] == 1 else grades(n / 2)

    with serving(troubled) as stub:
        judgement = judge(CAPTIONS, endpoint(stub.url), cache)
    assert judgement.verdicts == [Verdict(n / 2, n / 2, n / 2, 10) for n in range(12)]
    assert set(seen.values()) == {2}


def test_a_refused_caption_is_named_and_the_others_are_kept(cache: AnswerCache) -> None:
    def filtering(asked: Asked, _: int) -> Reply:
        return Reply(b'{"error": {"message": "filtered"}}', 400) if asked.number > 7 else grades(5)

    with serving(filtering) as stub:
        judgement = judge(CAPTIONS, endpoint(stub.url), cache)
        assert list(judgement.failures) == [f"clip_{n}.wav" for n in range(8, 12)]
        assert set(judgement.failures.values()) == {
            "the endpoint refused the request (HTTP 400): filtered"
        }
        # The rest of an earlier run is refused again: still the captions' fault.
        assert judge(CAPTIONS, endpoint(stub.url), cache) == judgement


def test_when_everything_is_refused_the_run_ends_early(cache: AnswerCache) -> None:
    says = Reply(b'{"error": "max_tokens is not supported"}', 400)
    many = [JudgedCaption(f"{n}.wav", f"sound number {n}", ["a sound"]) for n in range(200)]
    with serving(lambda asked, _: says) as stub, pytest.raises(EndpointError) as caught:
        judge(many, endpoint(stub.url), cache, concurrency=2)
    assert "max_tokens is not supported" in str(caught.value)
    assert len(stub.asked) < 30


def test_a_wrong_key_ends_the_run_at_once(cache: AnswerCache) -> None:
    says = Reply(f"bad key {KEY}".encode(), 401)
    many = [JudgedCaption(f"{n}.wav", f"sound number {n}", ["a sound"]) for n in range(200)]
    with serving(lambda asked, _: says) as stub, pytest.raises(EndpointError) as caught:
        judge(many, endpoint(stub.url), cache, concurrency=2)
    assert "does not accept the API key" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(stub.asked) < 30


def test_an_endpoint_that_goes_down_loses_nothing(cache: AnswerCache) -> None:
    def failing(asked: Asked, count: int) -> Reply:
        return grades(5) if count < 5 else Reply(drop=True)

    with serving(failing) as stub, pytest.raises(EndpointError) as caught:
        judge(CAPTIONS, endpoint(stub.url), cache, concurrency=1)
    assert "no answer in 3 attempts" in str(caught.value)
    assert f"5 of 12 new verdicts are kept in {cache.path}" in str(caught.value)
    assert "the same command goes on from there" in str(caught.value)
    with serving(lambda asked, _: grades(5)) as stub:
        # Another port is another host; the same one is taken on from here.
        back = ChatEndpoint(stub.url, "a-model", KEY)
        assert estimate_cost(CAPTIONS, back, cache).requests == 12


def test_answers_on_their_way_are_kept_when_the_run_ends(cache: AnswerCache) -> None:
    def mixed(asked: Asked, _: int) -> Reply:
        # Time for the others to be asked before the refusal, and to be on their way after it.
        reply = Reply(b"", 401) if asked.number == 0 else grades(5)
        reply.seconds = 1.5 if asked.number else 0.8
        return reply

    with serving(mixed) as stub, pytest.raises(EndpointError) as caught:
        judge(CAPTIONS, endpoint(stub.url), cache, concurrency=4)
    answered = len(stub.asked) - 1
    assert 1 <= answered < 11
    assert f"{answered} of 12 new verdicts are kept" in str(caught.value)


def test_an_interrupt_keeps_what_was_asked_for(cache: AnswerCache) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def slow(asked: Asked, _: int) -> Reply:
        reply = grades(5)
        reply.seconds = 0.1 if asked.number else 0.0
        return reply

    with serving(slow) as stub:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            judge(CAPTIONS, endpoint(stub.url), cache, 2, interrupted)
        assert time.monotonic() - start < 10
        asked = len(stub.asked)
        assert asked < 12
        judge(CAPTIONS, endpoint(stub.url), cache)
        assert len(stub.asked) == 12
