"""The judge against a server on this machine: what it asks, keeps and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dac_diffusion.answer_cache import AnswerCache
from dac_diffusion.errors import ConfigError
from dac_diffusion.metrics import llm_judge
from dac_diffusion.metrics.llm_judge import (
    CostEstimate,
    JudgedCaption,
    Judgement,
    Verdict,
    estimate_cost,
    judge,
    parse_verdict,
    report,
)
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


def test_every_caption_is_judged_in_order(cache: AnswerCache) -> None:
    with serving(lambda asked, _: grades(asked.number / 2)) as stub:
        progress: list[None] = []
        judgement = judge(
            CAPTIONS, endpoint(stub.url), cache, on_answer=lambda: progress.append(None)
        )
    assert judgement.verdicts == [Verdict(n / 2, n / 2, n / 2, 10) for n in range(12)]
    assert judgement.failures == {}
    assert judgement.mean == 2.75
    assert len(progress) == len(stub.asked) == 12
    assert stub.asked[0].body["messages"][0]["content"] == llm_judge.SYSTEM_PROMPT
    assert json.loads(stub.asked[0].user)["references"][0] == "a sound"


def test_nothing_is_asked_twice(cache: AnswerCache, tmp_path: Path) -> None:
    with serving(lambda asked, _: grades(asked.number / 2)) as stub:
        first = judge(CAPTIONS[:5], endpoint(stub.url), cache)
        assert judge(CAPTIONS[:5], endpoint(stub.url), cache) == first
        with AnswerCache(tmp_path / "cache.jsonl") as again:
            assert judge(CAPTIONS, endpoint(stub.url), again).verdicts[:5] == first.verdicts
        assert sorted(a.number for a in stub.asked) == list(range(12))
        judge(CAPTIONS[:1], endpoint(stub.url, model="another"), cache)
        other_references = JudgedCaption("clip_0.wav", CAPTIONS[0].caption, ["a sound"])
        judge([other_references], endpoint(stub.url), cache)
    assert len(stub.asked) == 14
    assert KEY not in cache.path.read_text()


def test_a_changed_prompt_is_asked_again(
    cache: AnswerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda asked, _: grades(5)) as stub:
        judge(CAPTIONS[:1], endpoint(stub.url), cache)
        monkeypatch.setattr(llm_judge, "PROMPT_VERSION", "dac-diffusion-judge-2")
        judge(CAPTIONS[:1], endpoint(stub.url), cache)
    assert len(stub.asked) == 2


def test_equal_captions_are_asked_for_once(cache: AnswerCache) -> None:
    copy = JudgedCaption("other.wav", CAPTIONS[0].caption, CAPTIONS[0].references)
    with serving(lambda asked, _: grades(5)) as stub:
        assert estimate_cost([CAPTIONS[0], copy], endpoint(stub.url), cache).requests == 1
        judgement = judge([CAPTIONS[0], copy], endpoint(stub.url), cache)
    assert judgement.verdicts == [Verdict(5, 5, 5, 10)] * 2
    assert len(stub.asked) == 1


def test_a_caption_without_words_scores_zero_unasked(cache: AnswerCache) -> None:
    empty = [JudgedCaption("a.wav", "", ["rain"]), JudgedCaption("b.wav", " ...", ["rain"])]
    with serving(lambda asked, _: grades(5)) as stub:
        judgement = judge(empty, endpoint(stub.url), cache)
    assert judgement == Judgement([Verdict(0, 0, 0, 0)] * 2, {})
    assert stub.asked == []


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_at_a_time_than_allowed(cache: AnswerCache, concurrency: int) -> None:
    def slow(asked: Asked, _: int) -> Reply:
        reply = grades(5)
        reply.seconds = 0.05
        return reply

    with serving(slow) as stub:
        judge(CAPTIONS, endpoint(stub.url), cache, concurrency=concurrency)
    assert stub.most_at_once == concurrency


def test_a_concurrency_below_one_is_an_error(cache: AnswerCache) -> None:
    with pytest.raises(ConfigError, match="concurrency 0: give at least 1"):
        judge(CAPTIONS, endpoint("http://127.0.0.1:1"), cache, concurrency=0)


def test_the_estimate_sends_nothing_and_counts_only_what_is_left(cache: AnswerCache) -> None:
    with serving(lambda asked, _: grades(5)) as stub:
        at = endpoint(stub.url)
        judge(CAPTIONS[:4], at, cache)
        before = len(stub.asked)
        estimate = estimate_cost(CAPTIONS, at, cache)
        assert len(stub.asked) == before
        judge(CAPTIONS, at, cache)
        sent = sum(len(m["content"]) for a in stub.asked[before:] for m in a.body["messages"])
        answered = 8 * len(json.loads(grades(5).body)["choices"][0]["message"]["content"])
        assert estimate_cost(CAPTIONS, at, cache) == CostEstimate(0, 0, 0)
    assert estimate.requests == 8
    assert estimate.prompt_tokens == pytest.approx(sent / 4, abs=1)
    assert estimate.completion_tokens == pytest.approx(answered / 4, rel=0.2)


def test_the_estimate_in_words() -> None:
    estimate = CostEstimate(10, 6000, 200)
    line = (
        "10 requests, about 6000 prompt and 200 completion tokens "
        "(estimated at 4 characters per token)"
    )
    assert estimate.describe() == f"{line}; cost unknown without prices"
    assert estimate.describe(2.5, 10) == f"{line}; cost about 0.0170 at the given prices"
    assert estimate.describe(price_output=10) == f"{line}; cost about 0.0020 at the given prices"


def test_the_report_says_how_it_was_asked(cache: AnswerCache) -> None:
    with serving(lambda asked, _: grades(5) if asked.number else completion("no")) as stub:
        at = endpoint(f"{stub.url}?secret=1")
        result: dict[str, Any] = report(CAPTIONS, judge(CAPTIONS, at, cache), at)
    assert result["prompt_version"] == llm_judge.PROMPT_VERSION
    assert result["system_prompt"] == llm_judge.SYSTEM_PROMPT
    assert result["model"] == "a-model"
    assert result["host"] == stub.url.removeprefix("http://").removesuffix("/v1")
    assert "not comparable with GPT4-eval of the DAC paper" in result["note"]
    assert (result["captions"], result["failed"]) == (12, 1)
    assert result["mean"] == {"score": 5, "correctness": 5, "completeness": 5, "fluency": 10}
    assert result["clips"][0]["score"] is None
    assert result["clips"][1] == {
        "file_name": "clip_1.wav",
        "caption": "sound number 1",
        "score": 5,
        "correctness": 5,
        "completeness": 5,
        "fluency": 10,
    }
    assert list(result["failures"]) == ["clip_0.wav"]
    assert KEY not in json.dumps(result)
    assert "secret" not in json.dumps(result)


GOOD = '{"correctness": 8, "completeness": 6.5, "fluency": 10, "score": 7}'


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"<think>perhaps {{}} or {GOOD.replace('7', '1')}</think>\nHere: {GOOD} I hope it helps.",
        GOOD.replace(", ", ",\n\n"),
        GOOD.replace("}", ', "reason": "good"}'),
        f"{GOOD} {{not json}}",
    ],
)
def test_grades_are_found_in_an_answer(answer: str) -> None:
    assert parse_verdict(answer) == Verdict(7, 8, 6.5, 10)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "7",
        "{}",
        "[7, 8, 6, 10]",
        GOOD.replace("7", "11"),
        GOOD.replace("7", "-1"),
        GOOD.replace("7", '"7"'),
        GOOD.replace("7", "true"),
        GOOD.replace("7", "NaN"),
        GOOD.replace("7", "null"),
        GOOD.replace('"score"', '"overall"'),
        GOOD[:-1],
    ],
)
def test_other_answers_hold_no_grades(answer: str) -> None:
    assert parse_verdict(answer) is None


def test_an_answer_in_the_cache_that_cannot_be_read_is_asked_for_again(
    cache: AnswerCache,
) -> None:
    with serving(lambda asked, _: grades(5)) as stub:
        at = endpoint(stub.url)
        cache.add(llm_judge.cache_key(CAPTIONS[0], at), "no grades", {})
        assert estimate_cost(CAPTIONS[:1], at, cache).requests == 1
        assert judge(CAPTIONS[:1], at, cache).verdicts == [Verdict(5, 5, 5, 10)]
        assert estimate_cost(CAPTIONS[:1], at, cache).requests == 0
