"""The client of chat completions against a server on this machine that behaves well and badly."""

from __future__ import annotations

import email.utils
import itertools
import json
import socket
import threading
import time
from typing import Any

import pytest

from dac_diffusion.chat_endpoint import ChatEndpoint, EndpointError, RefusedRequestError
from dac_diffusion.errors import ConfigError
from tests.metrics.stub_endpoint import KEY, Asked, Reply, completion, serving

DROPPED = Reply(drop=True)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


def endpoint(url: str, **settings: Any) -> ChatEndpoint:
    defaults: dict[str, Any] = {"api_key": KEY, "key_name": "$KEY", "first_wait_seconds": 0.01}
    return ChatEndpoint(url, "a-model", **(defaults | settings))


def ask(at: ChatEndpoint, stop: threading.Event | None = None) -> str:
    return at.complete("be a judge", "judge this: é", stop or threading.Event())


def in_turn(*replies: Reply) -> Any:
    return lambda asked, number: replies[min(number, len(replies) - 1)]


def test_the_request_is_what_the_protocol_asks_for() -> None:
    with serving(in_turn(completion("yes"))) as stub:
        assert ask(endpoint(stub.url)) == "yes"
    (asked,) = stub.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.headers["Content-Type"] == "application/json"
    assert asked.body["model"] == "a-model"
    assert asked.body["temperature"] == 0
    assert asked.body["messages"] == [
        {"role": "system", "content": "be a judge"},
        {"role": "user", "content": "judge this: é"},
    ]


def test_without_a_key_none_is_sent() -> None:
    with serving(in_turn(completion("yes"))) as stub:
        ask(endpoint(stub.url, api_key=None))
    assert "Authorization" not in stub.asked[0].headers


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions", "/chat/completions/"])
def test_the_url_may_end_anywhere(ending: str) -> None:
    with serving(in_turn(completion("yes"))) as stub:
        ask(endpoint(stub.url + ending))
    assert stub.asked[0].path == "/v1/chat/completions"


def test_a_query_is_sent_and_never_shown() -> None:
    with serving(in_turn(Reply(b"no such model", 404))) as stub:
        with pytest.raises(EndpointError) as caught:
            ask(endpoint(stub.url + "?api-version=7"))
        assert stub.asked[0].path == "/v1/chat/completions?api-version=7"
    assert "api-version" not in str(caught.value)


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(b"busy", 429),
        Reply(b"oops", 500),
        Reply(b"gateway", 502),
        Reply(b"late", 408),
        DROPPED,
        Reply(b"<html>a proxy says hello</html>"),
        Reply(b'{"choices": []}'),
        Reply(b'{"choices": [{"message": {"content": 7}}]}'),
        Reply(b"{}", headers={"Content-Length": "500"}),
    ],
)
def test_passing_trouble_is_waited_out(trouble: Reply) -> None:
    with serving(in_turn(trouble, trouble, completion("yes"))) as stub:
        assert ask(endpoint(stub.url)) == "yes"
    assert len(stub.asked) == 3


def test_waits_grow() -> None:
    with serving(in_turn(DROPPED)) as stub, pytest.raises(EndpointError):
        ask(endpoint(stub.url, attempts=4, first_wait_seconds=0.1))
    times = [asked.time for asked in stub.asked]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [wait > limit for wait, limit in zip(waits, (0.1, 0.2, 0.4), strict=True)] == [True] * 3


@pytest.mark.parametrize("as_date", [False, True])
def test_the_server_says_how_long_to_wait(as_date: bool) -> None:
    after = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "0.5"
    busy = Reply(b"busy", 429, {"Retry-After": after})
    with serving(in_turn(busy, completion("yes"))) as stub:
        assert ask(endpoint(stub.url, first_wait_seconds=0.0)) == "yes"
    first, second = stub.asked
    assert second.time - first.time > 0.5


def test_a_wait_that_cannot_be_read_is_our_own() -> None:
    busy = Reply(b"busy", 503, {"Retry-After": "soon"})
    with serving(in_turn(busy, completion("yes"))) as stub:
        assert ask(endpoint(stub.url)) == "yes"


def test_too_long_a_wait_is_an_error_at_once() -> None:
    busy = Reply(b"quota", 429, {"Retry-After": "86400"})
    with (
        serving(in_turn(busy)) as stub,
        pytest.raises(EndpointError, match="come back in 86400 s; run again then"),
    ):
        ask(endpoint(stub.url))
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Reply(b"oops", 500), "HTTP 500"),
        (DROPPED, "RemoteDisconnected"),
        (Reply(b"<html>hello"), "no chat completion: it begins with '<html>hello'"),
        (Reply(b'{"choices":[{"message":{"content":7}}]}'), "its content is no text"),
    ],
)
def test_lasting_trouble_is_an_error_of_one_line(trouble: Reply, reason: str) -> None:
    with serving(in_turn(trouble)) as stub, pytest.raises(EndpointError) as caught:
        ask(endpoint(stub.url, attempts=3))
    assert len(stub.asked) == 3
    assert f"{stub.url}: no answer in 3 attempts" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_there_and_no_answer_in_time() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match="ConnectionRefusedError"):
            ask(endpoint(url, attempts=2))
    slow = completion("late")
    slow.seconds = 0.6
    with serving(in_turn(slow)) as stub, pytest.raises(EndpointError, match="TimeoutError"):
        ask(endpoint(stub.url, attempts=2, timeout_seconds=0.1))


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_an_error_at_once_that_does_not_show_it(status: int) -> None:
    says = Reply(f"Incorrect API key provided: {KEY}".encode(), status)
    with serving(in_turn(says)) as stub:
        with pytest.raises(EndpointError, match=r"does not accept \$KEY \(HTTP 40[13]\)") as caught:
            ask(endpoint(stub.url))
        with pytest.raises(EndpointError, match="asks for an API key"):
            ask(endpoint(stub.url, api_key=None))
    assert len(stub.asked) == 2
    assert KEY not in str(caught.value)


def test_a_wrong_address_or_model_is_an_error_at_once() -> None:
    says = Reply(json.dumps({"error": {"message": "The model\ndoes not exist"}}).encode(), 404)
    with serving(in_turn(says)) as stub, pytest.raises(EndpointError) as caught:
        ask(endpoint(stub.url))
    assert len(stub.asked) == 1
    assert "HTTP 404 for /chat/completions with model a-model (The model does not exist)" in str(
        caught.value
    )
    assert "check the URL and the model's name" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"error": {"message": f"filtered {KEY}"}}, "filtered ***"),
        ({"error": "too long"}, "too long"),
        ({"message": "too long"}, "too long"),
        ([1], "[1]"),
        ({"error": {}}, '{"error": {}}'),
    ],
)
def test_a_refused_request_says_why_without_the_key(body: object, shown: str) -> None:
    says = Reply(json.dumps(body).encode(), 400)
    with serving(in_turn(says)) as stub, pytest.raises(RefusedRequestError) as caught:
        ask(endpoint(stub.url))
    assert len(stub.asked) == 1
    assert str(caught.value) == f"the endpoint refused the request (HTTP 400): {shown}"


def test_what_a_server_says_is_shortened() -> None:
    with serving(in_turn(Reply(b"x" * 5000, 422))) as stub, pytest.raises(RefusedRequestError) as e:
        ask(endpoint(stub.url))
    assert len(str(e.value)) < 300
    with (
        serving(in_turn(Reply(b"", 400))) as stub,
        pytest.raises(RefusedRequestError, match="no me"),
    ):
        ask(endpoint(stub.url))


def test_redirects_are_not_followed() -> None:
    with serving(in_turn(completion("stolen"))) as other:
        away = Reply(b"", 302, {"Location": f"{other.url}/chat/completions"})
        with serving(in_turn(away)) as stub, pytest.raises(EndpointError, match="HTTP 302"):
            ask(endpoint(stub.url))
    assert other.asked == []


def test_no_text_is_empty_and_an_echoed_key_is_hidden() -> None:
    with serving(in_turn(completion(None), completion(f"key {KEY}"))) as stub:
        assert ask(endpoint(stub.url)) == ""
        assert ask(endpoint(stub.url)) == "key ***"


@pytest.mark.parametrize("ending", ["length", "content_filter"])
def test_an_answer_that_the_server_cut_off_is_marked(ending: str) -> None:
    replies = [completion(text, ending) for text in ("yes, bec", "", None)]
    with serving(in_turn(*replies)) as stub:
        assert [ask(endpoint(stub.url)) for _ in replies] == ["yes, bec...", "", ""]


def test_stopping_ends_a_wait() -> None:
    stop = threading.Event()

    def busy(asked: Asked, number: int) -> Reply:
        stop.set()
        return Reply(b"busy", 429, {"Retry-After": "60"})

    start = time.monotonic()
    with serving(busy) as stub, pytest.raises(EndpointError):
        ask(endpoint(stub.url), stop)
    assert time.monotonic() - start < 20
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "file:///etc/passwd",
        "https://",
        "https://host:port/v1",
        "https://a b/v1",
        "https://[::1/v1",
        "https://host/v1\n",
        "https://api..host/v1",
        "https://.host/v1",
        f"https://{'a' * 64}.com/v1",
    ],
)
def test_unusable_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="should look like https://api"):
        ChatEndpoint(url, "a-model")


def test_a_key_stays_out_of_urls_plain_http_and_text() -> None:
    with pytest.raises(ConfigError, match="holds a user name") as caught:
        ChatEndpoint(f"https://user:{KEY}@host/v1", "m")
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="would send the API key readable"):
        ChatEndpoint("http://example.com/v1", "m", KEY)
    for url in ("http://localhost:1/v1", "http://[::1]:1/v1", "https://example.com/v1"):
        assert KEY not in repr(ChatEndpoint(url, "m", KEY))
    ChatEndpoint("http://example.com/v1", "m")
    for key in (f"{KEY}\n{KEY}", f"{KEY} x", f"{KEY}é"):
        with pytest.raises(ConfigError, match="the API key: holds spaces") as caught:
            ChatEndpoint("https://example.com/v1", "m", key)
        assert KEY not in str(caught.value)
