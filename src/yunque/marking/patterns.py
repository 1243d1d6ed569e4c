"""Regular expressions of an exam, searched for by another process, which can be stopped.

An expression like `(a+)+$` takes time that doubles with each character of a reply, and Python's
`re` cannot be stopped from within. So one small process searches for all of them, one after the
other, and is killed where it is not done in time; the next search starts it again. It may also be
ended or held up by somebody else, so it is asked twice: a mark must not hang on that.
"""

from __future__ import annotations

import atexit
import json
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache

from yunque.errors import InputError

SECONDS = 1.0
"""What the search of one expression may take, over all texts that are given together."""
PROBE = 40
"""Repetitions in a probe: enough for what doubles with each, too few for squares and cubes."""
PROBES = 32

# The alarm ends a process whose parent is there no more.
PROGRAM = """
import json, re, sys
try:
    from signal import alarm
except ImportError:
    alarm = int
for line in sys.stdin:
    pattern, texts = json.loads(line)
    alarm(60)
    found = [re.search(pattern, text) is not None for text in texts]
    alarm(0)
    print(json.dumps(found), flush=True)
"""


class Searcher:
    """The process, started when it is first needed."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()

    def search(self, pattern: str, texts: Sequence[str]) -> list[bool] | None:
        """Whether the expression is found in each text; None: twice not done in time."""
        with self.lock:
            for _ in range(2):
                if self.process is None:
                    self.start()
                found = self.answer(pattern, texts)
                if found is not None:
                    return found
            return None

    def start(self) -> None:
        """Begin the process; the time that this takes is not an expression's.

        Raises:
            InputError: it does not answer.
        """
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
        )
        if self.answer("", [""]) is None:
            raise InputError(f"exam: {sys.executable} does not start, to search a reply.")

    def answer(self, pattern: str, texts: Sequence[str]) -> list[bool] | None:
        """One request; where it is not answered the process is ended."""
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        limit = threading.Timer(SECONDS if pattern else 60.0, process.kill)
        limit.start()
        try:
            process.stdin.write(json.dumps([pattern, list(texts)]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            limit.cancel()
        if not line.endswith("\n"):
            self.stop()
            return None
        found: list[bool] = json.loads(line)
        return found

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()


SEARCHER = Searcher()
atexit.register(SEARCHER.stop)


@lru_cache(maxsize=4096)
def fits(pattern: str, text: str) -> bool:
    """Whether an expression is found in a text, and in time."""
    return SEARCHER.search(pattern, [text]) == [True]


@lru_cache(maxsize=4096)
def pattern_fault(pattern: str) -> str:
    """Why no reply can be held against an expression, "" where one can.

    It is tried on an empty reply, and on what stands in it said over and over, as models do.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"the right answer is no regular expression ({error}), got {pattern!r}."
    pieces = list(dict.fromkeys(["a", "0", " ", *re.findall(r"\w+|\s+", pattern), *pattern]))
    probes = [(piece * PROBE)[: 4 * PROBE] + "\0" for piece in pieces[:PROBES]]
    hits = SEARCHER.search(pattern, ["", *probes])
    if hits is None:
        return (
            f"the expression {pattern!r} is not done with a text of {PROBE} characters after "
            f"{SECONDS:g} second. Write it without a repetition inside a repetition, as in (a+)+."
        )
    if hits[0]:
        return f"the expression {pattern!r} fits an empty reply, so nothing could be wrong."
    return ""
