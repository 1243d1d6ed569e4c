"""RECORD → MESSAGES or TEXT, by the shape of the record, never by a guess in silence.

| shape | keys |
|---|---|
| messages | `messages`: [{`role`, `content`}] (OpenAI) |
| sharegpt | `conversations`: [{`from`, `value`}], `system` |
| alpaca | `instruction`, `input`, `output`, `system`, `history` |
| completion | `prompt`, `completion` or `response` (texts or lists of messages) |
| question | `question`, `answer` or `pregunta`, `respuesta` |
| text | `text` (or `content`): no conversation |

The shape of a file is that of its first record, and every other record must have it. Columns with
other names are mapped: `columns = "prompt=q, completion=a"`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from yunque.data.chat_template import Message
from yunque.data.records import Record
from yunque.errors import InputError

# Shape → (keys that must be there, keys that may). Of the same shape, several sets of names.
SHAPES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("messages", ("messages",), ("tools",)),
    ("sharegpt", ("conversations",), ("system", "tools")),
    ("alpaca", ("instruction", "output"), ("input", "system", "history")),
    ("completion", ("prompt", "completion"), ("system",)),
    ("completion", ("prompt", "response"), ("system",)),
    ("question", ("question", "answer"), ("system",)),
    ("question", ("pregunta", "respuesta"), ("system",)),
    ("text", ("text",), ()),
    ("text", ("content",), ()),
)
KNOWN_KEYS = tuple(dict.fromkeys(key for _, need, may in SHAPES for key in (*need, *may)))

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",  # what the model writes to call a tool
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
SHOWN_SHAPES = (
    "messages; conversations; instruction + output; prompt + completion; question + answer; text"
)


def column_map(columns: str) -> dict[str, str]:
    """{"q": "prompt"} of "prompt=q": the record's own name → ours.

    Raises:
        InputError: no such form, or a name that no shape has.
    """
    mapped: dict[str, str] = {}
    for pair in filter(None, (item.strip() for item in columns.split(","))):
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not (equals and ours and theirs):
            raise InputError(
                f"columns: expected NAME=COLUMN pairs such as 'prompt=q, completion=a', "
                f"got {pair!r}."
            )
        if ours not in KNOWN_KEYS:
            raise InputError(
                f"columns: {ours!r} is no name that a record can have; known: "
                f"{', '.join(KNOWN_KEYS)}."
            )
        if theirs in mapped:
            raise InputError(f"columns: {theirs!r} is mapped twice.")
        mapped[theirs] = ours
    return mapped


def renamed(record: Record, columns: Mapping[str, str]) -> Mapping[str, Any]:
    """The fields under our names.

    Raises:
        InputError: a mapped column is not there.
    """
    missing = [name for name in columns if name not in record.fields]
    if missing:
        raise fault(
            record,
            f"no column {missing[0]!r}, which `columns` maps to {columns[missing[0]]!r}; it has "
            f"{keys_of(record.fields)}. Correct the mapping.",
        )
    targets = set(columns.values())
    kept = {key: value for key, value in record.fields.items() if key not in targets}
    return {columns.get(key, key): value for key, value in kept.items()}


def recognise(record: Record, columns: Mapping[str, str]) -> str:
    """The shape of a record: messages, sharegpt, alpaca, completion, question or text.

    Raises:
        InputError: none fits, or two do.
    """
    fields = renamed(record, columns)
    found: dict[str, tuple[str, ...]] = {}
    for shape, need, _ in SHAPES:
        if all(key in fields for key in need):
            found.setdefault(shape, need)
    if len(found) > 1 and columns:  # who names columns of one shape has chosen it
        chosen = set(columns.values())
        found = {shape: need for shape, need in found.items() if chosen & set(need)} or found
    if len(found) > 1:
        first = next(iter(found.values()))[0]
        raise fault(
            record,
            f"it can be read in two ways: as {' and as '.join(found)}. Say which by naming a "
            f"column of it, for example --columns {first}={first}. It has {keys_of(fields)}.",
        )
    if not found:
        raise fault(
            record,
            f"no known shape: it has {keys_of(fields)}, expected one of: {SHOWN_SHAPES}. Name your "
            "columns with --columns, for example 'prompt=q, completion=a' or 'text=body'.",
        )
    return next(iter(found))


def messages_of(record: Record, shape: str, columns: Mapping[str, str]) -> list[Message] | str:
    """The messages of a conversation, or the text of a record of plain text.

    Raises:
        InputError: the record has another shape, or a part of it is not what the shape demands.
    """
    fields = renamed(record, columns)
    needs = [need for name, need, _ in SHAPES if name == shape]
    need = next((keys for keys in needs if all(key in fields for key in keys)), None)
    if need is None:
        raise fault(
            record,
            f"not of the shape {shape}, which the first record of this file has: it has "
            f"{keys_of(fields)}, expected {' and '.join(needs[0])}. Mend it or leave it out with "
            "--skip-bad.",
        )
    if shape == "text":
        return text_of(record, need[0], fields[need[0]])
    messages: list[Message] = []
    if fields.get("system") and shape != "messages":
        messages.append(Message("system", text_of(record, "system", fields["system"])))
    if shape in ("messages", "sharegpt"):
        role, content = ("role", "content") if shape == "messages" else ("from", "value")
        messages += turns_of(record, need[0], fields[need[0]], role, content)
    elif shape == "completion" and isinstance(fields["prompt"], list):
        for key in need:
            messages += turns_of(record, key, fields[key], "role", "content")
    else:
        if shape == "alpaca":
            messages += history_of(record, fields.get("history"))
            asked = text_of(record, need[0], fields[need[0]])
            extra = text_of(record, "input", fields.get("input") or "")
            asked = f"{asked}\n\n{extra}" if extra.strip() else asked
        else:
            asked = text_of(record, need[0], fields[need[0]])
        messages += [
            Message("user", asked),
            Message("assistant", text_of(record, need[1], fields[need[1]])),
        ]
    check_turns(record, messages)
    return messages


def turns_of(
    record: Record, key: str, turns: Any, role_key: str, content_key: str
) -> list[Message]:
    """Messages from a list of objects with a role and a content."""
    if not isinstance(turns, list) or not turns:
        raise fault(record, f"{key}: expected a list of messages, got {shown(turns)}.")
    messages = []
    for number, turn in enumerate(turns, 1):
        where = f"{key}[{number}]"
        if not isinstance(turn, Mapping):
            raise fault(record, f"{where}: expected an object, got {shown(turn)}.")
        if role_key not in turn:
            raise fault(record, f"{where}: no {role_key!r}; it has {keys_of(turn)}.")
        name = turn[role_key]
        if not isinstance(name, str) or name.lower() not in ROLES:
            raise fault(
                record,
                f"{where}: unknown role {shown(name)}, expected one of {', '.join(ROLES)}.",
            )
        content = turn.get(content_key)
        if content is None and turn.get("tool_calls"):
            content = json.dumps(turn["tool_calls"], ensure_ascii=False)
        messages.append(
            Message(ROLES[name.lower()], text_of(record, f"{where}.{content_key}", content))
        )
    return messages


def history_of(record: Record, history: Any) -> list[Message]:
    """Earlier turns of Alpaca records: [[question, answer], …]."""
    if not history:
        return []
    messages = []
    for number, pair in enumerate(history if isinstance(history, list) else [history], 1):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise fault(
                record, f"history[{number}]: expected [question, answer], got {shown(pair)}."
            )
        messages += [
            Message("user", text_of(record, f"history[{number}]", pair[0])),
            Message("assistant", text_of(record, f"history[{number}]", pair[1])),
        ]
    return messages


def check_turns(record: Record, messages: Sequence[Message]) -> None:
    """What makes a conversation useless for learning to answer.

    Raises:
        InputError: no assistant, nothing said by it, or a conversation that begins with it.
    """
    if not any(message.role == "assistant" for message in messages):
        raise fault(
            record,
            "no turn of the assistant, so there is nothing to learn to say. Add the answer, or "
            "leave the record out with --skip-bad.",
        )
    for number, message in enumerate(messages, 1):
        if message.role == "assistant" and not message.content.strip():
            raise fault(
                record,
                f"message {number}: the assistant's answer is empty. Write the answer, or leave "
                "the record out with --skip-bad.",
            )


def text_of(record: Record, key: str, value: Any) -> str:
    """A field that must be text; the text parts of a list of parts are joined."""
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        kinds = [str(part.get("type", "text")) for part in value]
        if any(kind != "text" for kind in kinds):
            raise fault(
                record,
                f"{key}: a part of the kind {next(k for k in kinds if k != 'text')!r}; only text "
                "can be trained on.",
            )
        value = "".join(text_of(record, key, part.get("text")) for part in value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise fault(record, f"{key}: expected text, got {shown(value)}.")
    return value if isinstance(value, str) else str(value)


def fault(record: Record, what: str) -> InputError:
    """An error that names file and line."""
    return InputError(f"{record.source}:{record.line}: {what}")


def keys_of(fields: Mapping[str, Any]) -> str:
    """The keys of an object for a message, not too many."""
    names = [repr(str(key))[:60] for key in list(fields)[:12]]
    return (", ".join(names) or "no columns") + (", …" if len(fields) > 12 else "")


def shown(value: Any) -> str:
    """A value for a message, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
