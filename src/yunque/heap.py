"""The C library's heap without its lists of small pieces, which only a new process can begin with.

PyTorch asks for aligned blocks. glibc cuts each out of a larger piece and puts the cuttings, of 32
to 96 bytes, on lists from which it serves the next small objects. Where such an object has settled
between two tensors, the freed tensor no longer grows back together with its cuttings and never
again holds one of its own size: a heap grows to several times what is in use. Without these lists
the cuttings stay with their neighbours. Figures: docs/lab-notes.md, "Cuttings in the heap".
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

VERBS = ("demo", "pretrain", "finetune", "resume")
"""Those that train: only they hold tensors of every size for long."""
VARIABLE = "GLIBC_TUNABLES"
TUNABLES = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0:glibc.malloc.hugetlb=1"
"""No list of free small pieces for each thread, and none of small pieces that never coalesce; huge
pages where the system lends them: a tensor of 150 MB is then filled in 75 steps and not in 37,000.

Source: The GNU C Library Reference Manual, "Memory Allocation Tunables".
"""
MODULES = ("__main__.py", "cli.py")
"""Files of this package that a process of ours is started from, beside the command itself."""


def begin_anew(verb: str) -> None:
    """Replace this process, which has done nothing yet, by one with our heap, where that pays.

    It keeps its number, its terminal and its arguments. A user's own settings of glibc are left
    alone, and so is a program that calls us.
    """
    if wanted(verb, os.environ, sys.argv, glibc()):
        command = [sys.executable, *sys.orig_argv[1:]]
        with contextlib.suppress(OSError):  # then as it is
            os.execve(sys.executable, command, {**os.environ, VARIABLE: TUNABLES})


def wanted(verb: str, environ: Mapping[str, str], argv: Sequence[str], gnu: bool) -> bool:
    """Whether a process begun so gains from beginning anew."""
    at = Path(argv[0])
    module = at.name in MODULES and at.resolve().parent == Path(__file__).resolve().parent
    ours = (at.stem == "yunque" or module) and not {"-h", "--help"}.intersection(argv)
    return gnu and ours and verb in VERBS and VARIABLE not in environ and bool(sys.executable)


def glibc() -> bool:
    """Whether the C library is glibc: another has a heap of another kind."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # Windows; macOS, musl
        return False
