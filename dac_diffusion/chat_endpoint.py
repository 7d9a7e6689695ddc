"""One question and one answer through any OpenAI-compatible `/chat/completions` endpoint."""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from email.message import Message
from threading import Event
from urllib.parse import urlsplit

from dac_diffusion.errors import ConfigError, DacError

PATH = "/chat/completions"
LONGEST_WAIT_SECONDS = 300.0
REFUSED_KEY = (401, 403)
REFUSED_REQUEST = (400, 413, 422)  # too long, filtered, or a setting that the model does not know
TRY_AGAIN = (408, 409, 425, 429)
SHOWN_CHARACTERS = 200
CUT_OFF = "..."  # ends an answer that would have gone on
ENDED_EARLY = ("length", "content_filter")  # reasons of a server to end an answer


class EndpointError(DacError):
    """The endpoint cannot be used now; asking it anything else is of no use."""


class RefusedRequestError(DacError):
    """The endpoint refused this one request; others may pass."""


class _NoCompletionError(Exception):
    """The body of an answer is not what the protocol promises."""


@dataclass(frozen=True)
class ChatEndpoint:
    """Where to ask, which model, and how patiently.

    url: the part before /chat/completions, with or without it. api_key: sent as a bearer token and
    shown nowhere; `key_name` stands for it in errors. attempts: of each request, waiting
    `first_wait_seconds` after the first failure and twice as long after each further one, or as
    long as the endpoint asks for. max_tokens: the longest answer. Temperature is 0.

    Raises ConfigError for a URL or key that cannot be used.
    """

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    key_name: str = "the API key"
    max_tokens: int = 400
    timeout_seconds: float = 120.0
    attempts: int = 6
    first_wait_seconds: float = 1.0

    def __post_init__(self) -> None:
        _check_url(self.url)
        key = self.api_key
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise ConfigError(
                f"{self.key_name}: holds spaces, line breaks or characters no key has"
            )
        if key and urlsplit(self.url).scheme == "http" and not _is_this_machine(self.url):
            raise ConfigError(
                f"{self.place}: http would send {self.key_name} readable by anyone on the way; "
                "use https, or no key"
            )

    @property
    def place(self) -> str:
        """The URL without anything that could be secret: no query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def complete(self, system: str, user: str, stop: Event) -> str:
        """The text of the model's answer; "" where it gave none. `stop`, once set, ends waiting.

        An answer that the server cut off, as for max_tokens, ends in "...".

        Raises EndpointError where the key is refused, the address is wrong, or all attempts failed;
        RefusedRequestError where only this request was refused.
        """
        trouble = "not asked"
        for attempt in range(self.attempts):
            wait = self.first_wait_seconds * 2**attempt
            try:
                return self._without_key(_content(self._send(self._body(system, user))))
            except urllib.error.HTTPError as error:
                with error:
                    self._raise_if_final(error)
                    trouble = f"HTTP {error.code}"
                    wait = self._asked_wait(error.headers, wait)
            except _NoCompletionError as error:
                trouble = f"its answer is no chat completion: {error}"
            except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
                reason = getattr(error, "reason", None) or error
                trouble = self._printable(f"{type(reason).__name__}: {reason}")
            if attempt + 1 < self.attempts and stop.wait(wait):
                break
        raise EndpointError(f"{self.place}: no answer in {self.attempts} attempts ({trouble})")

    def _body(self, system: str, user: str) -> bytes:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return json.dumps(
            {
                "model": self.model,
                "messages": messages,
                "temperature": 0,
                "max_tokens": self.max_tokens,
            }
        ).encode()

    def _send(self, body: bytes) -> bytes:
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/").removesuffix(PATH) + PATH
        request = urllib.request.Request(parts._replace(path=path).geturl(), data=body)
        request.add_header("Content-Type", "application/json")
        if self.api_key:
            request.add_unredirected_header("Authorization", f"Bearer {self.api_key}")
        opener = urllib.request.build_opener(_NoRedirect())
        with opener.open(request, timeout=self.timeout_seconds) as response:
            return bytes(response.read())

    def _raise_if_final(self, error: urllib.error.HTTPError) -> None:
        if error.code in REFUSED_KEY:
            # Without the body: some servers repeat the key, or part of it.
            known = f"does not accept {self.key_name}" if self.api_key else "asks for an API key"
            raise EndpointError(
                f"{self.place}: {known} (HTTP {error.code}); set it right in the environment"
            ) from None
        if error.code in TRY_AGAIN or error.code >= 500:
            return
        said = self._printable(_error_text(error))
        if error.code in REFUSED_REQUEST:
            raise RefusedRequestError(
                f"the endpoint refused the request (HTTP {error.code}): {said}"
            )
        raise EndpointError(
            f"{self.place}: HTTP {error.code} for {PATH} with model {self.model} ({said}); "
            "check the URL and the model's name"
        ) from None

    def _asked_wait(self, headers: Message, otherwise: float) -> float:
        """Seconds until the next attempt; raises EndpointError where they are too many."""
        asked = _retry_after(headers.get("Retry-After"))
        if asked is None:
            return otherwise
        if asked > LONGEST_WAIT_SECONDS:
            raise EndpointError(f"{self.place}: asks to come back in {asked:.0f} s; run again then")
        return asked

    def _printable(self, text: str) -> str:
        """One short line in which the key does not occur."""
        line = self._without_key(" ".join(text.split()))
        return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "..."

    def _without_key(self, text: str) -> str:
        return text.replace(self.api_key, "***") if self.api_key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the question into a GET, perhaps of another server: it is an error."""

    def redirect_request(self, *arguments: object) -> None:
        """Follow nothing."""


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # as resolving it will
    except ValueError:  # no number as port, an open bracket, an empty or too long part of the host
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(
            "the endpoint's URL should look like https://api.example.com/v1; check what was given"
        )
    if "@" in parts.netloc:
        raise ConfigError("the endpoint's URL holds a user name; give a key in the environment")


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _content(body: bytes) -> str:
    """The text of the first choice, with "..." where the server cut it off."""
    try:
        choice = json.loads(body)["choices"][0]
        content, ending = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        start = body[:60].decode("utf-8", "replace")
        raise _NoCompletionError(f"it begins with {start!r}") from error
    if content is None:  # the model refused, or ended before it said anything
        return ""
    if not isinstance(content, str):
        raise _NoCompletionError("its content is no text")
    return f"{content}{CUT_OFF}" if content and ending in ENDED_EARLY else content


def _error_text(error: urllib.error.HTTPError) -> str:
    """What the server says about an error, in the protocol's form or any other."""
    try:
        text = error.read(10_000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return "no message"
    try:
        content = json.loads(text)
        content = content.get("error", content)
        return str(content["message"] if isinstance(content, dict) else content)
    except (ValueError, LookupError, AttributeError, RecursionError):
        return text or "no message"


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number or a date; None where the header is absent or neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds == seconds else None
