"""A server on this machine that speaks the chat-completions protocol, well or badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dac_diffusion.chat_endpoint import ChatEndpoint
from dac_diffusion.metrics.llm_judge import JudgedCaption

KEY = "sk-very-secret-0123456789"


@dataclass
class Reply:
    """What the server sends back; `drop` closes the connection without an answer."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    seconds: float = 0.0


@dataclass
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    time: float

    @property
    def user(self) -> str:
        return str(self.body["messages"][1]["content"])

    @property
    def number(self) -> int:
        """The last word of the candidate caption in a judge's question."""
        return int(json.loads(self.user.split("\n\n")[0])["candidate"].split()[-1])


def completion(content: str | None, ending: str = "stop") -> Reply:
    """A well-formed answer of the protocol."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": ending}
    body = {"object": "chat.completion", "choices": [choice]}
    return Reply(json.dumps(body).encode())


def grades(score: float) -> Reply:
    """The answer a judge should give."""
    content = {"correctness": score, "completeness": score, "fluency": 10, "score": score}
    return completion(json.dumps(content))


class StubEndpoint:
    """Answers with what `respond` makes of each request and its number, which counts from 0."""

    def __init__(self, respond: Callable[[Asked, int], Reply]) -> None:
        self.respond = respond
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked = Asked(self.path, dict(self.headers), body, time.monotonic())
                with stub._lock:
                    number = len(stub.asked)
                    stub.asked.append(asked)
                    stub._at_once += 1
                    stub.most_at_once = max(stub.most_at_once, stub._at_once)
                reply = stub.respond(asked, number)
                time.sleep(reply.seconds)
                with stub._lock:
                    stub._at_once -= 1
                if not reply.drop:
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body)))
                    self.end_headers()
                    self.wfile.write(reply.body)

            def do_GET(self) -> None:
                stub.asked.append(Asked(self.path, dict(self.headers), {}, time.monotonic()))
                self.send_error(405)

            def log_message(self, format: str, *arguments: object) -> None:
                """Print nothing."""

        return Handler


@contextmanager
def serving(respond: Callable[[Asked, int], Reply]) -> Iterator[StubEndpoint]:
    """A running server; it has ended when the block has."""
    stub = StubEndpoint(respond)
    thread = threading.Thread(target=stub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.server.shutdown()
        stub.server.server_close()
        thread.join()


CAPTIONS = [
    JudgedCaption(f"clip_{n}.wav", f"sound number {n}", ["a sound", f"it is number {n}"])
    for n in range(12)
]


def endpoint(url: str, model: str = "a-model") -> ChatEndpoint:
    return ChatEndpoint(url, model, KEY, attempts=3, first_wait_seconds=0.01)
