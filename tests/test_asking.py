"""Asking many questions at a time: what is asked, what is kept, and what ends it."""

from __future__ import annotations

from threading import Barrier, Event

import pytest

from dac_diffusion.asking import ask_all
from dac_diffusion.chat_endpoint import EndpointError, RefusedRequestError
from dac_diffusion.errors import DataError

QUESTIONS = [f"question {n}" for n in range(20)]


class Model:
    """Answers in capitals, refuses some questions, and is lost at one."""

    def __init__(self, refused: tuple[int, ...] = (), lost: int | None = None) -> None:
        self.refused, self.lost = refused, lost
        self.asked: list[str] = []

    def __call__(self, question: str, stop: Event) -> str:
        self.asked.append(question)
        number = int(question.split()[1])
        if number in self.refused:
            raise RefusedRequestError(f"no {number}")
        if number == self.lost:
            raise EndpointError("nobody there")
        return question.upper()


def test_every_question_is_answered_or_refused() -> None:
    model, done = Model(refused=(3, 4, 5, 6, 19)), []
    asked = ask_all(QUESTIONS, model, 1, on_asked=lambda: done.append(1))
    assert asked.trouble is None
    assert asked.refused == {f"question {n}": f"no {n}" for n in (3, 4, 5, 6, 19)}
    assert asked.answers == {q: q.upper() for q in QUESTIONS if q not in asked.refused}
    assert model.asked == QUESTIONS
    assert len(done) == 20
    assert ask_all([], model, 1).answers == {}


def test_several_are_asked_at_once() -> None:
    barrier = Barrier(4)

    def together(question: str, stop: Event) -> int:
        return barrier.wait(timeout=30)  # which would be broken by fewer

    assert set(ask_all(QUESTIONS, together, 4).answers.values()) == {0, 1, 2, 3}


def test_without_an_endpoint_nothing_more_is_asked() -> None:
    model = Model(refused=(1,), lost=4)
    asked = ask_all(QUESTIONS, model, 1)
    assert model.asked == QUESTIONS[:5]
    assert list(asked.answers) == ["question 0", "question 2", "question 3"]
    assert list(asked.refused) == ["question 1"]
    assert str(asked.trouble) == "nobody there"
    assert isinstance(asked.trouble, EndpointError)


def test_refusals_end_the_asking_only_where_nothing_was_ever_answered() -> None:
    model = Model(refused=(0, 1, 2, 3, 4))
    asked = ask_all(QUESTIONS, model, 1)
    assert model.asked == QUESTIONS[:3]
    assert str(asked.trouble) == "no 2"
    assert isinstance(asked.trouble, RefusedRequestError)
    assert ask_all(QUESTIONS, model, 1, works=True).trouble is None
    assert ask_all(QUESTIONS, Model(refused=(0, 1, 3, 4)), 1).trouble is None


@pytest.mark.parametrize("interrupted", [True, False])
def test_other_errors_end_it_as_they_are_and_wake_who_waits(interrupted: bool) -> None:
    woken: list[str] = []
    others = Event()

    def ask(question: str, stop: Event) -> str:
        if question == "question 0":
            assert others.wait(timeout=30)
            if not interrupted:
                raise DataError("the cache is full")
            return ""
        others.set()
        if stop.wait(timeout=30):
            woken.append(question)
        return ""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt if interrupted else DataError):
        ask_all(QUESTIONS, ask, 2, on_asked=interrupt)
    assert 1 <= len(woken) < 20
