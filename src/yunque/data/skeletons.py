"""TEMPLATES THAT COPY: conversations of one shape rendered from a text that is known but for them.

Many templates look at the roles of the messages alone and copy their contents as they are. All
conversations with the same roles then have the same text around their contents, and the same spans
counted from them. It is enough to run the template once for each shape, on a conversation of our
own, which also costs the search for marks and spans but once.

That a template copies is read from its Jinja tree: a content stands nowhere but in what is written
(`{{ message['content'] }}`, `{{ 'User: ' + message['content'] }}`), and the messages are used for
nothing but their fields. Where anything else is met, each conversation is rendered by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import jinja2
from jinja2 import nodes

from yunque.data.sandbox import parsed
from yunque.errors import InputError

PLAIN_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.For,
    nodes.If,
    nodes.Scope,
    nodes.Assign,
    nodes.Const,
    nodes.Name,
    nodes.Getitem,
    nodes.Getattr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Add,
    nodes.Concat,
    nodes.CondExpr,
    nodes.Call,
    nodes.Filter,
    nodes.Test,
    nodes.List,
    nodes.Tuple,
)
LOOP = ("first", "last", "index", "index0")
"""What of `loop` tells nothing of the messages."""

Place = tuple[int, int]
"""Characters of the template before it, contents before it."""


@dataclass(frozen=True)
class Skeleton:
    """The text around the contents of a shape, and the spans.

    Attributes:
        pieces: what the template writes before each content and behind the last.
        loss: the spans that carry loss.
    """

    pieces: tuple[str, ...]
    loss: tuple[tuple[Place, Place], ...]

    def filled(
        self, contents: Sequence[str]
    ) -> tuple[str, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        """(text, spans of the contents, spans that carry loss)."""
        parts = [self.pieces[0]]
        spans = []
        ends = [0]  # characters of the first 0, 1, 2 … contents
        at, told = len(parts[0]), 0
        for content, piece in zip(contents, self.pieces[1:], strict=True):
            size = len(content)
            parts += (content, piece)
            spans.append((at, at + size))
            at += size + len(piece)
            told += size
            ends.append(told)
        loss = tuple((a + ends[m], b + ends[n]) for (a, m), (b, n) in self.loss)
        return "".join(parts), tuple(spans), loss


def skeleton_of(
    text: str, contents: Sequence[tuple[int, int]], loss: Sequence[tuple[int, int]]
) -> Skeleton:
    """The skeleton of a rendered conversation whose contents are one character each."""
    bounds = [0, *(place for span in contents for place in span), len(text)]
    pieces = tuple(text[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True))

    def place(at: int) -> Place:
        before = sum(end <= at for _, end in contents)
        return at - before, before

    return Skeleton(pieces, tuple((place(start), place(end)) for start, end in loss))


@lru_cache(maxsize=16)
def copies(source: str) -> bool:
    """Whether a template copies the contents of messages and looks at them in no other way."""
    try:
        tree = parsed(source)
    except (InputError, jinja2.TemplateError):
        return False
    loops = [node for node in tree.find_all(nodes.For) if over_messages(node)]
    if not loops or any(node.recursive or not named(node.target) for node in loops):
        return False
    messages = {node.target.name for node in loops if isinstance(node.target, nodes.Name)}
    return all(harmless(node, messages, False) for node in tree.body)


def over_messages(node: nodes.For) -> bool:
    return isinstance(node.iter, nodes.Name) and node.iter.name == "messages"


def named(target: nodes.Node) -> bool:
    return isinstance(target, nodes.Name) and target.name not in ("messages", "loop")


def harmless(node: nodes.Node, messages: set[str], written: bool) -> bool:
    """Whether nothing below a node sees a content.

    Args:
        messages: the names that a message goes by.
        written: what this node gives is written as it is.
    """
    if not isinstance(node, PLAIN_NODES):
        return False
    if isinstance(node, nodes.For):
        if over_messages(node):
            rest = [*node.body, *node.else_, *([node.test] if node.test else [])]
            return all(harmless(child, messages, False) for child in rest)
        if any(name.name in (*messages, "messages", "loop") for name in names(node.target)):
            return False
    if isinstance(node, nodes.Name):
        known = node.name in messages or node.name in ("messages", "loop", "self", "caller")
        return not known and node.ctx in ("load", "store")
    if isinstance(node, (nodes.Getitem, nodes.Getattr)) and isinstance(node.node, nodes.Name):
        key = field_of(node)
        if node.node.name == "loop":
            return key in LOOP
        if node.node.name in messages:
            # A method would give the contents, too: `message.values()`.
            return key is not None and not hasattr(dict, key) and (key != "content" or written)
    passes_on = isinstance(node, (nodes.Output, nodes.Add, nodes.Concat))
    below = passes_on and (written or isinstance(node, nodes.Output))
    return all(harmless(child, messages, below) for child in node.iter_child_nodes())


def names(target: nodes.Node) -> list[nodes.Name]:
    return [target] if isinstance(target, nodes.Name) else list(target.find_all(nodes.Name))


def field_of(node: nodes.Getitem | nodes.Getattr) -> str | None:
    """The field that is asked for; None where it is computed."""
    if isinstance(node, nodes.Getattr):
        return str(node.attr)
    key = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return key if isinstance(key, str) else None
