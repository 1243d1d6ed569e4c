"""Where each message is in a rendered text: marks go in with it, and come out with positions.

Every text of a message is put between two private-use characters that occur nowhere else, the
template is run, and the marks are taken out again. If what is left is the text that the template
writes without marks, their places are known to the character, whatever the template has written
around, between and in which order. The marks themselves never reach a tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from yunque.data.conversations import Message
from yunque.errors import InputError

FIRST, BEHIND_LAST = 0xF0000, 0xFFFFE  # plane 15 of Unicode, for private use
PRIVATE = re.compile(f"[{chr(FIRST)}-{chr(BEHIND_LAST - 1)}]")
MOST_MESSAGES = (BEHIND_LAST - FIRST) // 4 - 1

# Templates decide by these, and none writes them as text of the message.
DECISIVE = ("role", "type", "id", "tool_call_id")

Part = Literal["content", "extra"]


@dataclass(frozen=True)
class Edges:
    """Whether the marks stand inside the white space at the edges of a text.

    A template that trims a message trims it only where no mark stands outside.
    """

    others: bool = False
    left: bool = False
    right: bool = False


# In the order in which they are tried: nothing is trimmed; all but the answers; …
TRIALS = (
    Edges(),
    Edges(others=True),
    Edges(others=True, left=True),
    Edges(others=True, right=True),
    Edges(others=True, left=True, right=True),
)


class Place(NamedTuple):
    """A marked text in the rendered one; `start` is None where the template cut the start off.

    `owner`: number of the message; the number behind the last one stands for the tools.
    """

    owner: int
    part: Part
    start: int | None
    end: int


def free_marks(texts: Sequence[str], messages: int) -> int:
    """The first of as many code points in a row as are needed, none of which is in the texts.

    Raises:
        InputError: too many messages, or too many private-use characters.
    """
    needed = 4 * (messages + 1)
    if messages > MOST_MESSAGES:
        raise InputError(
            f"{messages:,} messages in one conversation, at most {MOST_MESSAGES:,} are taken; "
            "cut it into shorter ones."
        )
    used = {ord(mark) for text in texts for mark in PRIVATE.findall(text)}
    begin = FIRST
    for taken in [*sorted(used), BEHIND_LAST]:
        if taken - begin >= needed:
            return begin
        begin = taken + 1
    raise InputError(
        "the text holds so many private-use characters (U+F0000 to U+FFFFD) that none are left to "
        "mark its messages with; take them out."
    )


def marked(
    messages: Sequence[Message], tools: Sequence[Any] | None, first: int, edges: Edges
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """Messages and tools with marks from code point `first` on, as the template takes them."""
    found = []
    for number, message in enumerate(messages):
        answer = message.role == "assistant"
        left, right = (edges.left, edges.right) if answer else (edges.others, edges.others)
        code = first + 4 * number
        content = between(message.content, code, left, right)
        entry = {"role": message.role, "content": content}
        for key, value in message.extra.items():
            entry[key] = leaves(key, value, code + 2, left, right)
        found.append(entry)
    if tools is None:
        return found, None
    code = first + 4 * len(messages)
    return found, [leaves("", tool, code, edges.others, edges.others) for tool in tools]


def between(text: str, code: int, left: bool, right: bool) -> str:
    """The text between its two marks; a blank one has none, since templates ask whether it is."""
    core = text.strip()
    if not core:
        return text
    if len(core) == len(text) or not (left or right):
        return f"{chr(code)}{text}{chr(code + 1)}"
    start = text.index(core) if left else 0
    end = text.index(core) + len(core) if right else len(text)
    return f"{text[:start]}{chr(code)}{text[start:end]}{chr(code + 1)}{text[end:]}"


def leaves(key: str, value: Any, code: int, left: bool, right: bool) -> Any:
    """A nested value with every text in it between marks; keys stay as they are."""
    if isinstance(value, str):
        return value if key in DECISIVE else between(value, code, left, right)
    if isinstance(value, Mapping):
        return {name: leaves(str(name), item, code, left, right) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [leaves(key, item, code, left, right) for item in value]
    return value


def places(text: str, plain: str, first: int, messages: int) -> list[Place] | None:
    """The marked texts in order of their ends.

    Returns:
        None where the marks changed what the template writes, or one was opened and not closed.
    """
    behind = first + 4 * (messages + 1)
    pieces = re.split(f"([{chr(first)}-{chr(behind - 1)}])", text)
    if "".join(pieces[::2]) != plain:
        return None
    found = []
    opened: dict[int, int] = {}
    at = 0
    for piece, mark in zip(pieces[::2], pieces[1::2], strict=False):
        at += len(piece)
        unit, closes = divmod(ord(mark) - first, 2)
        if not closes:
            if unit in opened:
                return None
            opened[unit] = at
        else:
            owner, extra = divmod(unit, 2)
            part: Part = "extra" if extra else "content"
            found.append(Place(owner, part, opened.pop(unit, None), at))
    return None if opened else found
