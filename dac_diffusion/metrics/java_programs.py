"""Running Java programs: is there a Java, one answer at a time, and the PTB tokenizer."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from dac_diffusion.errors import DacError

# The programs read and print numbers and text by the locale where they are not told otherwise.
LOCALE = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")
# What the published evaluations remove after tokenizing.
PUNCTUATION = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!")
) | frozenset((",", ":", "-", "--", "...", ";"))


@lru_cache(maxsize=8)
def java_version(java: str) -> int | None:
    """The major version, 8 or above; None where there is no Java that runs."""
    program = shutil.which(java)
    if program is None:
        return None
    shown = subprocess.run(
        [program, "-version"], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    found = re.search(r'version "(?:1\.)?(\d+)', shown.stderr)
    return int(found[1]) if found and shown.returncode == 0 else None


def run_java(what: str, command: Sequence[str], text: str = "") -> str:
    """Run a program on an input and return its output; raises DacError where it fails."""
    done = subprocess.run(
        command, input=text, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise _java_failed(what, done.stderr)
    return done.stdout


def _java_failed(what: str, errors: str) -> DacError:
    # A stack trace says most in its first line.
    shown = next((line.strip() for line in errors.splitlines() if line.strip()), "no message")
    return DacError(f"{what}: its Java program failed ({shown[:200]}); see whether memory is short")


class Dialogue:
    """A Java program that answers each line on its input with lines on its output."""

    def __init__(self, what: str, command: Sequence[str]) -> None:
        self._what = what
        # A file and not a pipe, which would stop the program once it is full.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, line: str) -> str:
        """Send a line and read the first of the answer; raises DacError where the program ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None
        return self.next_line()

    def next_line(self) -> str:
        """One more line of the answer; raises DacError where the program ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise self._failed()
        return line

    def _failed(self) -> DacError:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        return _java_failed(self._what, self._errors.read())


def ptb_tokenize(
    candidates: Sequence[str], references: Sequence[Sequence[str]], java: str, jar: Path
) -> tuple[list[str], list[list[str]]]:
    """Candidates and references as the published evaluations cut them: words apart, lower case.

    jar: Stanford CoreNLP's. Punctuation is removed. Raises DacError where Java fails.
    """
    texts = [*candidates, *(text for group in references for text in group)]
    # METEOR takes ||| for a separator; line breaks of all kinds would shift the answers.
    lines = [" ".join(text.replace("|", " ").split()) for text in texts]
    command = [java, *LOCALE, "-cp", str(jar)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    output = run_java("the PTB tokenizer", command, "".join(line + "\n" for line in lines))
    tokenized = output.removesuffix("\n").split("\n")
    if len(tokenized) != len(lines):
        raise DacError(
            f"the PTB tokenizer gave {len(tokenized)} lines for {len(lines)} captions; "
            "look for unusual characters in them"
        )
    kept = iter(" ".join(w for w in line.split() if w not in PUNCTUATION) for line in tokenized)
    return [next(kept) for _ in candidates], [[next(kept) for _ in group] for group in references]
