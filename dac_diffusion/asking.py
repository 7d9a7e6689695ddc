"""Many questions to a language model, several at a time, and when to stop asking."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Event
from typing import Generic, TypeVar

from dac_diffusion.chat_endpoint import EndpointError, RefusedRequestError

R = TypeVar("R")
REFUSALS_UNTIL_END = 3


@dataclass
class Asked(Generic[R]):
    """What became of the questions.

    answers, refused: by question, what was made of its answer, or why there is none. trouble: what
    ended the asking; all questions that are in neither were not asked then.
    """

    answers: dict[str, R] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    trouble: EndpointError | RefusedRequestError | None = None


def ask_all(
    questions: Collection[str],
    ask: Callable[[str, Event], R],
    concurrency: int,
    works: bool = False,
    on_asked: Callable[[], object] | None = None,
) -> Asked[R]:
    """Ask all questions, at most `concurrency` at a time, until one finds no endpoint.

    ask: its event, once set, says that there is no use in waiting. works: whether the endpoint is
    known to answer. Otherwise three refusals before any answer end the asking, too: they come from
    a wrong setting rather than from the questions, of which there may be thousands. on_asked is
    called after each question that was answered or refused.

    Raises what `ask` raises, but for EndpointError and RefusedRequestError, and what on_asked does.
    """
    asked: Asked[R] = Asked()
    stop = Event()

    def ask_one(question: str) -> None:
        if stop.is_set():
            return
        try:
            asked.answers[question] = ask(question, stop)
        except RefusedRequestError as error:
            asked.refused[question] = str(error)
            if not (works or asked.answers) and len(asked.refused) >= REFUSALS_UNTIL_END:
                end(error)
        except EndpointError as error:
            end(error)

    def end(trouble: EndpointError | RefusedRequestError) -> None:
        asked.trouble = asked.trouble or trouble
        stop.set()

    pool = ThreadPoolExecutor(concurrency)
    try:
        for done in as_completed([pool.submit(ask_one, question) for question in questions]):
            done.result()
            if on_asked is not None and asked.trouble is None:
                on_asked()
    finally:
        # Requests on their way are paid for: they end, and their answers are kept.
        stop.set()
        pool.shutdown(cancel_futures=True)
    return asked
