"""The errors that a user can cause or mend; the command prints them without a traceback.

Every message says what was got, what was expected and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SECRETS = (
    # One slash too: a path made of an address has lost the other.
    (re.compile(r"(\b[a-z][a-z0-9+.-]+://?)[^/\s@]+@", re.IGNORECASE), r"\1***@"),
    (
        re.compile(
            r"([?&;][^=&\s]*(?:token|key|secret|signature|sig|password|credential)[^=&\s]*=)[^&\s'\"]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\b(hf|sk|ghp|github_pat|glpat|xox[abp])[_-][\w-]{8,}"), r"\1_***"),
)
"""What looks like a secret in a message, and what is shown in its place."""


def without_secrets(text: str) -> str:
    """A message without passwords of addresses, signed queries and access tokens."""
    for pattern, shown in SECRETS:
        text = pattern.sub(shown, text)
    return text


class YunqueError(Exception):
    """Base of the errors that are printed as plain messages, secrets left out."""

    exit_code = 1

    def __init__(self, *parts: object):
        super().__init__(*(without_secrets(p) if isinstance(p, str) else p for p in parts))


class InputError(YunqueError, ValueError):
    """Bad usage or input: a file, a line, a setting. Exit code 2."""

    exit_code = 2


class StorageError(YunqueError, OSError):
    """Reading or writing failed: no space, no permission, a broken disk. Exit code 74."""

    exit_code = 74


class OutOfMemory(YunqueError):
    """The memory does not hold what was asked for, in the least way there is. Exit code 71."""

    exit_code = 71


class ProcessLost(YunqueError):
    """Another process of the same run is gone. Exit code 1."""


class ExportError(YunqueError):
    """What was written, read back, is not the model that it came from. Exit code 1."""


class MissingPackageError(YunqueError, ImportError):
    """An optional package is absent; the message holds the line that installs it. Exit code 2."""

    exit_code = 2


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Put a place before the message of an InputError that is raised inside."""
    try:
        yield
    except InputError as fault:
        raise InputError(f"{where}: {fault}") from None


def raise_all(what: str, faults: Sequence[str]) -> None:
    """Raise one InputError that lists every fault below `what`; do nothing where there is none."""
    if faults:
        lines = "\n".join(f"  {number}. {fault}" for number, fault in enumerate(faults, 1))
        raise InputError(f"{what}:\n{lines}")
