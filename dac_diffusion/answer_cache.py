"""What a language model has answered, line by line on disk: nothing is asked or paid for twice."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

from dac_diffusion.errors import DacError, DataError

_LINE_START = '{"key": "'


class AnswerCache:
    """Answers by key in an append-only jsonl file, which models and prompts may share.

    A key is a hash of all that an answer depends on. A last line that was cut off, as by a killed
    run, is removed. Raises DataError for a file of another kind, which stays as it is, DacError for
    one that cannot be read or written. A context manager: it closes the file. `add` may be called
    by several threads.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._answers: dict[str, str] = {}
        self._lock = Lock()
        try:
            text = self.path.read_bytes() if self.path.exists() else b""
            whole = self._read(text)
            self._file = self.path.open("ab")
            if whole < len(text):
                self._file.truncate(whole)
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> str:
        return self._answers[key]

    def add(self, key: str, answer: str, notes: Mapping[str, Any]) -> None:
        """Keep an answer, with notes for people; it is on disk when this returns."""
        line = json.dumps({"key": key, **notes, "answer": answer}) + "\n"
        with self._lock:
            try:
                self._file.write(line.encode())
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._failed(error) from error
            self._answers[key] = answer

    def _read(self, content: bytes) -> int:
        """Take in the whole lines; returns where a line that was cut off begins, or the end."""
        end = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:end].splitlines(), start=1):
            try:
                row: dict[str, Any] = json.loads(line)
                key, answer = row["key"], row["answer"]
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise self._other_kind(number) from error
            if not (isinstance(key, str) and isinstance(answer, str)):
                raise self._other_kind(number)
            self._answers[key] = answer
        rest = content[end:].decode("utf-8", "replace")
        if not (rest.startswith(_LINE_START) or _LINE_START.startswith(rest)):
            raise self._other_kind(content.count(b"\n") + 1)
        return end

    def _other_kind(self, line: int) -> DataError:
        return DataError(
            f"{self.path}, line {line}: is no line of an answer cache; give another file as cache"
        )

    def _failed(self, error: OSError) -> DacError:
        return DacError(
            f"{self.path}: the cache cannot be read or written ({error.strerror or error}); "
            "choose a file in a folder you can write to"
        )
