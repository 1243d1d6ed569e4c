"""The errors that a user can cause or mend; the command prints them without a traceback.

Every message says what was got, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class YunqueError(Exception):
    """Base of the errors that are printed as plain messages."""

    exit_code = 1


class InputError(YunqueError, ValueError):
    """Bad usage or input: a file, a line, a setting. Exit code 2."""

    exit_code = 2


class StorageError(YunqueError, OSError):
    """Reading or writing failed: no space, no permission, a broken disk. Exit code 74."""

    exit_code = 74


class OutOfMemory(YunqueError):
    """The memory does not hold what was asked for, in the least way there is. Exit code 71."""

    exit_code = 71


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
