"""Disks that die, refuse or forget: each takes the place of `yunque.files.perform`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os.path import commonprefix
from pathlib import Path
from random import Random
from typing import Any

import pytest

from yunque import files

FULL = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)


class Crash(BaseException):
    """The process is dead: nothing that it would do afterwards reaches the disk."""


@contextmanager
def on_disk(disk: Any) -> Iterator[Any]:
    """Let every operation of the block go through `disk`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "perform", disk)
        yield disk


@dataclass
class Counting:
    """Counts the operations and lets them pass."""

    kinds: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, kind: str, path: Path, action: Callable[..., Any], *arguments: Any) -> Any:
        self.kinds.append((kind, path.name))
        return action(*arguments)


@dataclass
class Dying:
    """Dies before, after, or (of a write) in the middle of operation `at`."""

    at: int
    when: str
    seen: int = -1
    dead: bool = False

    def __call__(self, kind: str, path: Path, action: Callable[..., Any], *arguments: Any) -> Any:
        if self.dead:
            raise Crash
        self.seen += 1
        if self.seen < self.at:
            return action(*arguments)
        self.dead = True
        if self.when == "amid" and kind == "write":
            action(bytes(arguments[0])[: len(arguments[0]) // 2])
        elif self.when == "after":
            action(*arguments)
        raise Crash


@dataclass
class Refusing:
    """Refuses operation `at` with an error of the system; `lasting`: all growth from there on.

    A write that is refused has first taken half of what it was given, as on a disk that fills up.
    """

    at: int
    error: int
    lasting: bool
    seen: int = -1
    refused: int = 0

    def __call__(self, kind: str, path: Path, action: Callable[..., Any], *arguments: Any) -> Any:
        self.seen += 1
        growing = kind in ("write", "open", "mkdir", "fsync")
        if self.seen == self.at or (self.lasting and self.seen > self.at and growing):
            self.refused += 1
            if kind == "write":
                action(bytes(arguments[0])[: len(arguments[0]) // 2])
            raise OSError(self.error, os.strerror(self.error), str(path))
        return action(*arguments)


# Power loss: a small model of a disk that keeps only what was synced.


@dataclass
class Node:
    """A file (`data`) or a folder (`entries`): as programs see it, and as it surely is on disk."""

    folder: bool
    data: bytes = b""
    synced: bytes = b""
    entries: dict[str, Node] = field(default_factory=dict)
    safe: dict[str, Node] = field(default_factory=dict)
    pending: list[tuple[str, Node | None, str]] = field(default_factory=list)
    """(name, what it becomes or None, the name that goes in the same moment or "")."""

    def put(self, name: str, node: Node | None, gone: str = "") -> None:
        for old in filter(None, (gone, name)):
            self.entries.pop(old, None)
        if node is not None:
            self.entries[name] = node
        self.pending.append((name, node, gone))


class Forgetful:
    """Lets every operation pass and knows which states a loss of power now could leave."""

    def __init__(self, root: Path, after_each: Callable[[int], None] | None = None):
        self.root, self.after_each, self.operations = root, after_each, 0
        self.top = self.read(root)

    def read(self, path: Path) -> Node:
        """What is there already, as being safe."""
        if path.is_dir():
            inside = {one.name: self.read(one) for one in path.iterdir()}
            return Node(True, entries=dict(inside), safe=dict(inside))
        content = path.read_bytes()
        return Node(False, content, content)

    def node(self, path: Path) -> Node:
        here = self.top
        for part in path.relative_to(self.root).parts:
            here = here.entries[part]
        return here

    def __call__(self, kind: str, path: Path, action: Callable[..., Any], *arguments: Any) -> Any:
        if not path.is_relative_to(self.root):
            return action(*arguments)
        begin = path.stat().st_size if kind == "write" else 0
        result = action(*arguments)
        if path != self.root or kind == "fsync":
            self.note(kind, path, arguments, begin, result)
        self.operations += 1
        if self.after_each is not None:
            self.after_each(self.operations)
        return result

    def note(
        self, kind: str, path: Path, arguments: tuple[Any, ...], begin: int, result: Any
    ) -> None:
        parent = self.node(path.parent) if path != self.root else self.top
        name = path.name
        if kind == "mkdir" and name not in parent.entries:
            parent.put(name, Node(True))
        elif kind == "open" and name not in parent.entries:
            parent.put(name, Node(False))
        elif kind == "write":
            node = self.node(path)
            node.data = node.data[:begin] + bytes(arguments[0])[:result]
        elif kind == "truncate":
            node = self.node(path)
            node.data = path.read_bytes()
        elif kind == "fsync":
            node = self.node(path)
            node.synced, node.safe = node.data, dict(node.entries)
            node.pending.clear()
        elif kind == "rename":
            source = Path(arguments[0])
            assert source.parent == path.parent, "a rename between two folders is not modelled"
            parent.put(name, parent.entries[source.name], source.name)
        elif kind in ("unlink", "rmdir"):
            parent.put(name, None)

    def materialise(self, target: Path, chance: Random, keep: float) -> None:
        """Write one state that could be left: each unsynced thing is there with chance `keep`."""
        self.write(self.top, target, chance, keep)

    def write(self, node: Node, target: Path, chance: Random, keep: float) -> None:
        if not node.folder:
            content = node.data
            if node.data != node.synced and chance.random() >= keep:
                lost = chance.choice(("all", "tail", "zeros"))
                # Bytes, no paths: what both begin with.
                known = commonprefix([node.synced, node.data])  # noqa: RUF071
                cut = chance.randint(len(known), max(len(known), len(node.data) - 1))
                content = {
                    "all": node.synced,
                    "tail": node.data[:cut],
                    "zeros": node.data[:cut] + b"\0" * (len(node.data) - cut),
                }[lost]
            target.write_bytes(content)
            return
        target.mkdir()
        entries = dict(node.safe)
        for name, becomes, gone in node.pending:
            if chance.random() < keep:
                if gone:
                    entries.pop(gone, None)
                if becomes is None:
                    entries.pop(name, None)
                else:
                    entries[name] = becomes
        for name, inside in entries.items():
            self.write(inside, target / name, chance, keep)
