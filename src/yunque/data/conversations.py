"""RECORDS → CONVERSATIONS: what a record is, is seen by its columns and never guessed.

| shape             | columns                                       | becomes                     |
|-------------------|-----------------------------------------------|-----------------------------|
| messages          | messages: role, content (tool_calls, …)       | as it stands                |
| sharegpt          | conversations: from, value (human, gpt,       | user, assistant, a call of  |
|                   | function_call, observation, …)                | a tool, what it returned    |
| alpaca            | instruction, output (input, system, history)  | instruction + input, answer |
| prompt/completion | prompt, completion or response (system);      | prompt, answer              |
|                   | texts or lists of messages                    |                             |
| question/answer   | question, answer or pregunta, respuesta       | question, answer            |
| text              | text, or one column of text                   | plain text, no conversation |

A shape is decided for a file from its first record and then demanded of all its records. Where two
fit, or none does, the error says so and how to name the columns. `tools`, where there is such a
column, goes to the chat template with every shape that is a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from yunque.config import nearest, unknown_name
from yunque.data.reader import Record
from yunque.errors import InputError

Role = str
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")

SHAREGPT_ROLES: Mapping[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "function_call",
    "tool_call": "function_call",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool": "tool",
}

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names that a message's reasoning goes by; templates read the first two."""


class Shape(StrEnum):
    """What the records of a file are."""

    MESSAGES = "messages"
    SHAREGPT = "sharegpt"
    ALPACA = "alpaca"
    PROMPT_COMPLETION = "prompt/completion"
    QUESTION_ANSWER = "question/answer"
    TEXT = "text"


# Shape → the sets of columns that make it; every one of a set must be there.
NEEDED: Mapping[Shape, tuple[tuple[str, ...], ...]] = {
    Shape.MESSAGES: (("messages",),),
    Shape.SHAREGPT: (("conversations",),),
    Shape.ALPACA: (("instruction", "output"),),
    Shape.PROMPT_COMPLETION: (("prompt", "completion"), ("prompt", "response")),
    Shape.QUESTION_ANSWER: (("question", "answer"), ("pregunta", "respuesta")),
    Shape.TEXT: (("text",),),
}
OPTIONAL = ("input", "system", "history", "tools")
INSIDE = ("role", "content", "from", "value")
COLUMNS = (*dict.fromkeys(c for sets in NEEDED.values() for s in sets for c in s), *OPTIONAL)


@dataclass(frozen=True)
class Message:
    """One turn. `extra` is what the template may use besides: tool_calls, reasoning_content, …

    `loss`: whether the model shall learn to write it; only asked of the assistant's turns.
    """

    role: Role
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    loss: bool = True

    @property
    def trained(self) -> bool:
        return self.loss and self.role == "assistant"

    def as_dict(self) -> dict[str, Any]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True)
class Conversation:
    """Messages in order, the tools that they may call, and where they come from (file:line)."""

    messages: tuple[Message, ...]
    tools: tuple[Any, ...] | None = None
    where: str = ""

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


def columns_of(setting: str) -> dict[str, str]:
    """The names that a user gives to columns: "prompt=q,completion=a" → {"prompt": "q", …}.

    Raises:
        InputError: not of that form, a name of ours that does not exist, one named twice, or one
            column under two names.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in setting.split(","))):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals or not ours or not theirs:
            raise InputError(
                f"columns {setting!r}: {part!r} is not NAME=COLUMN, as in "
                "'prompt=q,completion=a' (our name, then the name in the file)."
            )
        if ours not in (*COLUMNS, *INSIDE):
            raise InputError("columns: " + unknown_name(ours, (*COLUMNS, *INSIDE), "name"))
        if ours in found:
            raise InputError(f"columns {setting!r}: {ours} is named twice; keep one of them.")
        known = INSIDE if ours in INSIDE else COLUMNS  # names inside a message are others
        twin = next((name for name in found if name in known and found[name] == theirs), None)
        if twin:
            raise InputError(
                f"columns {setting!r}: {theirs!r} cannot be both {twin} and {ours}. Give each its "
                "own column."
            )
        found[ours] = theirs
    return found


def recognise(fields: Mapping[str, Any], columns: Mapping[str, str], where: str = "") -> Shape:
    """The one shape that the columns of a record have.

    Args:
        columns: our name → name in the file; where a mapped name belongs to one shape only, the
            mapping decides.
        where: file and line for the message.

    Raises:
        InputError: none fits, or two do; a mapped column is not there.
    """
    for ours, theirs in columns.items():
        if ours in COLUMNS and theirs not in fields:
            near = nearest(theirs, map(str, fields))
            hint = f" Did you mean {near!r}?" if near else ""
            fail(
                where,
                f"no column {theirs!r} (named for {ours}); the columns are {seen(fields)}.{hint}",
            )
    given, columns = columns, columns_in(fields, columns)
    here = {name for name in COLUMNS if column(name, columns) in fields}
    fitting = [
        (shape, needed) for shape, sets in NEEDED.items() for needed in sets if here >= {*needed}
    ]
    meant = [(shape, needed) for shape, needed in fitting if set(needed) & set(given)]
    fitting = meant or fitting
    if len(fitting) > 1:
        names = [f"{shape} ({', '.join(needed)})" for shape, needed in fitting]
        shape, needed = fitting[0]
        mapping = ",".join(f"{name}={column(name, columns)}" for name in needed)
        fail(
            where,
            f"the columns {seen(fields)} fit more than one shape: {' and '.join(names)}. Say which "
            f"is meant by naming its columns, for example --columns {mapping}.",
        )
    if fitting:
        shape = fitting[0][0]
        if shape in (Shape.MESSAGES, Shape.SHAREGPT):
            return list_shape(fields[column(fitting[0][1][0], columns)], columns, shape)
        return shape
    if len(fields) == 1 and isinstance(next(iter(fields.values())), str):
        return Shape.TEXT
    known = "; ".join(f"{shape}: {' or '.join(map(', '.join, s))}" for shape, s in NEEDED.items())
    return fail(
        where,
        f"no known shape has the columns {seen(fields)}.{misspelt(fields, COLUMNS)} Known are "
        f"{known}. Name yours, for example --columns prompt=q,completion=a (our name, then the "
        "name in the file).",
    )


def columns_in(fields: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    """The mapping of a user with the columns that are ours but for capitals and spaces around.

    A column that stands there as we write it, or that the user named, needs none; nor is one
    guessed of two.
    """
    found = dict(columns)
    for name in COLUMNS:
        if column(name, columns) in fields or name in columns:
            continue
        alike = [str(seen) for seen in fields if str(seen).strip().lower() == name]
        if len(alike) == 1 and alike[0] not in columns.values():
            found[name] = alike[0]
    return found


def misspelt(fields: Mapping[str, Any], known: Sequence[str]) -> str:
    """ " Is 'anser' meant as 'answer'?" of the first column that is nearly a known one, or ""."""
    for name in map(str, fields):
        near = nearest(name.strip(), known, cutoff=0.75)
        if near and name != near:
            return f" Is {name!r} meant as {near!r}?"
    return ""


def list_shape(items: Any, columns: Mapping[str, str], otherwise: Shape) -> Shape:
    """Whether a list of turns speaks of role and content or of from and value."""
    first = items[0] if isinstance(items, list) and items else None
    if isinstance(first, Mapping):
        if column("role", columns) in first:
            return Shape.MESSAGES
        if column("from", columns) in first:
            return Shape.SHAREGPT
    return otherwise


def messages_of(
    record: Record, columns: Mapping[str, str], shape: Shape | None = None
) -> Conversation | str:
    """The conversation that a record holds, or its text.

    Args:
        columns: our name → name in the file (see `columns_of`).
        shape: what the file's first record was recognised as; None: recognise this record.

    Raises:
        InputError: file and line, what is wrong, and what to do.
    """
    where = record.where
    fields = record.fields
    if shape is None:
        shape = recognise(fields, columns, where)
    columns = columns_in(fields, columns)
    if shape is Shape.TEXT:
        return text_of(fields, columns, where)
    get = Columns(fields, columns, where)
    if shape is Shape.MESSAGES or shape is Shape.SHAREGPT:
        name = get.first("messages", "conversations")
        read = openai_messages if shape is Shape.MESSAGES else sharegpt_messages
        messages = [*get.system(), *read(get.turns(name), columns, where)]
    elif shape is Shape.ALPACA:
        messages = alpaca_messages(get)
    elif shape is Shape.PROMPT_COMPLETION:
        messages = prompt_messages(get, columns, where)
    else:
        question, answer = get.pair(("question", "answer"), ("pregunta", "respuesta"))
        messages = [
            *get.system(),
            Message("user", get.text(question)),
            Message("assistant", get.text(answer)),
        ]
    check_messages(messages, where)
    return Conversation(tuple(messages), tools_of(get), where)


class Columns:
    """The columns of one record by our names, each checked when it is taken."""

    def __init__(self, fields: Mapping[str, Any], columns: Mapping[str, str], where: str) -> None:
        self.fields, self.columns, self.where = fields, columns, where

    def __contains__(self, name: str) -> bool:
        return column(name, self.columns) in self.fields

    def first(self, *names: str) -> str:
        """The first of the names that is there."""
        for name in names:
            if name in self:
                return name
        return fail(
            self.where,
            f"no column {' or '.join(column(name, self.columns) for name in names)}, which the "
            f"first record of the file has; the columns are {seen(self.fields)}. Keep records of "
            "different shapes in different files.",
        )

    def pair(self, *pairs: tuple[str, str]) -> tuple[str, str]:
        """The first pair that is there; the error speaks of the first one."""
        for pair in pairs:
            if all(name in self for name in pair):
                return pair
        return self.first(pairs[0][0]), self.first(pairs[0][1])

    def text(self, name: str) -> str:
        """A column that must hold text; a whole number is the text of its digits."""
        value = self.fields[column(self.first(name), self.columns)]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            fail(self.where, f"{self.shown(name)} is {kind(value)}, expected text.")
        return value

    def optional(self, name: str) -> str:
        """The same for a column that may be missing, null or empty."""
        value = self.fields.get(column(name, self.columns)) if name in self else None
        return "" if value is None or value == "" else self.text(name)

    def turns(self, name: str) -> list[Any]:
        """A column that must hold a list of messages."""
        value = self.fields[column(name, self.columns)]
        if not isinstance(value, list) or not value:
            fail(self.where, f"{self.shown(name)} is {kind(value)}, expected a list of messages.")
        return value

    def system(self) -> list[Message]:
        """A system message from a column of that name, where it holds one."""
        text = self.optional("system")
        return [Message("system", text)] if text.strip() else []

    def shown(self, name: str) -> str:
        theirs = column(name, self.columns)
        return name if name == theirs else f"{name} (column {theirs!r})"


def text_of(fields: Mapping[str, Any], columns: Mapping[str, str], where: str) -> str:
    """The text of a record without a conversation."""
    name = column("text", columns)
    if name not in fields and len(fields) == 1:
        name = next(iter(fields))
    if name not in fields:
        Columns(fields, columns, where).first("text")
    if not isinstance(fields[name], str):
        fail(where, f"{name} is {kind(fields[name])}, expected text.")
    text: str = fields[name]
    return text


def openai_messages(turns: list[Any], columns: Mapping[str, str], where: str) -> list[Message]:
    """Messages with role and content."""
    role_key, content_key = columns.get("role", "role"), columns.get("content", "content")
    found = []
    for number, turn in enumerate(turns, 1):
        place = f"message {number}"
        if not isinstance(turn, Mapping):
            fail(where, f"{place} is {kind(turn)}, expected an object with role and content.")
        role = turn.get(role_key)
        if role is None:
            fail(where, f"{place} has no {role_key!r}; its keys are {seen(turn)}.")
        role = "tool" if role == "function" else role
        if role not in ROLES:
            fail(where, f"{place}: {unknown_name(str(turn[role_key]), ROLES, 'role')}")
        extra = {
            key: value
            for key, value in turn.items()
            if key not in (role_key, content_key, "weight", "function_call") and value is not None
        }
        if turn.get("function_call") is not None:  # how one tool call was written formerly
            extra.setdefault(
                "tool_calls", [{"type": "function", "function": turn["function_call"]}]
            )
        reasoning = next((extra[name] for name in REASONING if name in extra), None)
        if reasoning is not None:
            extra = {"thinking": reasoning, **extra, "reasoning_content": reasoning}
        weight = turn.get("weight")
        if weight not in (None, 0, 1):
            fail(where, f"{place}: weight is {weight!r}, expected 0 (no loss) or 1.")
        content = content_of(turn.get(content_key), where, f"{place} ({role}): {content_key}")
        found.append(Message(role, content, extra, loss=weight != 0))
    return found


def content_of(value: Any, where: str, place: str) -> str:
    """Text, or the text parts of a list of parts joined; null is nothing."""
    if value is None:
        return ""
    if isinstance(value, list):
        texts = []
        for part in value:
            if isinstance(part, Mapping) and part.get("type", "text") != "text":
                fail(
                    where,
                    f"{place} holds a part of type {part['type']!r}; only text can be trained on. "
                    "Take such records out.",
                )
            if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
                fail(where, f"{place} holds {kind(part)}, expected a part with text.")
            texts.append(part["text"])
        return "".join(texts)
    if not isinstance(value, str):
        fail(where, f"{place} is {kind(value)}, expected text.")
    return value


def sharegpt_messages(turns: list[Any], columns: Mapping[str, str], where: str) -> list[Message]:
    """Messages with from and value."""
    from_key, value_key = columns.get("from", "from"), columns.get("value", "value")
    found = []
    for number, turn in enumerate(turns, 1):
        place = f"message {number}"
        if not isinstance(turn, Mapping):
            fail(where, f"{place} is {kind(turn)}, expected an object with from and value.")
        if turn.get(from_key) is None:
            fail(where, f"{place} has no {from_key!r}; its keys are {seen(turn)}.")
        speaker = str(turn[from_key])
        if speaker not in SHAREGPT_ROLES:
            fail(where, f"{place}: {unknown_name(speaker, SHAREGPT_ROLES, 'role')}")
        role = SHAREGPT_ROLES[speaker]
        text = content_of(turn.get(value_key), where, f"{place} ({speaker}): {value_key}")
        if role == "function_call":
            calls = [{"type": "function", "function": call} for call in calls_of(text)]
            if not calls:
                fail(
                    where,
                    f"{place} ({speaker}): expected a JSON object with name and arguments, or a "
                    f"list of them, got {text[:60]!r}.",
                )
            found.append(Message("assistant", "", {"tool_calls": calls}))
        else:
            found.append(Message(role, text))
    return found


def calls_of(text: str) -> list[dict[str, Any]]:
    """The calls that a function_call turn holds as JSON; [] where it holds something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    calls = value if isinstance(value, list) else [value]
    sound = all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls)
    return calls if sound else []


def alpaca_messages(get: Columns) -> list[Message]:
    """instruction, then input on a new line where there is one; output is the answer."""
    messages = get.system()
    history = get.fields.get(column("history", get.columns)) or []
    for number, pair in enumerate(history if isinstance(history, list) else [history], 1):
        fits = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not fits or not all(isinstance(text, str) for text in pair):
            fail(get.where, f"history, item {number}: expected [question, answer], got {pair!r}.")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    question = get.text("instruction")
    more = get.optional("input")
    if more.strip():
        question = f"{question}\n{more}" if question.strip() else more
    return [*messages, Message("user", question), Message("assistant", get.text("output"))]


def prompt_messages(get: Columns, columns: Mapping[str, str], where: str) -> list[Message]:
    """prompt and completion, each a text or a list of messages; only the completion is learnt."""
    prompt, completion = get.pair(("prompt", "completion"), ("prompt", "response"))
    messages = get.system()
    if isinstance(get.fields[column(prompt, columns)], list):
        given = openai_messages(get.turns(prompt), columns, where)
        messages += [Message(m.role, m.content, m.extra, loss=False) for m in given]
    else:
        messages.append(Message("user", get.text(prompt)))
    if isinstance(get.fields[column(completion, columns)], list):
        return messages + openai_messages(get.turns(completion), columns, where)
    return [*messages, Message("assistant", get.text(completion))]


def tools_of(get: Columns) -> tuple[Any, ...] | None:
    """The tools of a record: a list of descriptions, or that list as JSON text."""
    value = get.fields.get(column("tools", get.columns))
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as fault:
            fail(get.where, f"tools: not JSON ({fault}).")
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        fail(get.where, f"tools is {kind(value)}, expected a list of objects.")
    return tuple(value)


def check_messages(messages: Sequence[Message], where: str) -> None:
    """Faults that no template can mend."""
    for number, message in enumerate(messages, 1):
        if message.extra.get("tool_calls"):
            if message.role != "assistant":
                fail(where, f"message {number}: tool_calls of {message.role}, not the assistant.")
            check_calls(message.extra["tool_calls"], where, f"message {number}: tool_calls")
        elif message.role in ("user", "assistant") and not message.content.strip():
            what = {"user": "question", "assistant": "answer"}[message.role]
            fail(where, f"the {what} is empty (message {number}, {message.role}).")
    if not any(message.role == "assistant" for message in messages):
        fail(where, "no turn of the assistant, so there is nothing to learn.")
    if not any(message.trained for message in messages):
        fail(where, "no turn of the assistant carries loss (weight is 0 in all).")


def check_calls(calls: Any, where: str, place: str) -> None:
    """Each call of a tool has a name, by itself or inside `function`."""
    if not isinstance(calls, list):
        fail(where, f"{place} is {kind(calls)}, expected a list.")
    for number, call in enumerate(calls, 1):
        if not isinstance(call, Mapping):
            fail(where, f"{place}, item {number} is {kind(call)}, expected an object.")
        inner = call.get("function", call)
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(name, str) or not name.strip():
            fail(where, f"{place}, item {number} has no name; expected function: name, arguments.")


def column(name: str, columns: Mapping[str, str]) -> str:
    """What the file calls our column `name`.

    A column that the user gave another meaning no longer has its own one.
    """
    if name in columns:
        return columns[name]
    return "\0" if name in columns.values() else name  # no file has a column of that name


def seen(fields: Mapping[str, Any]) -> str:
    """The columns of a record for a message."""
    names = [str(name)[:40] for name in fields]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def kind(value: Any) -> str:
    """A value for a message: "null", "a number (3.5)", "an empty list"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"a truth value ({str(value).lower()})"
    if isinstance(value, (int, float)):
        return f"a number ({value})"
    if isinstance(value, str):
        return f"text ({value[:40]!r})"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return "an object" if isinstance(value, Mapping) else type(value).__name__


def fail(where: str, what: str) -> NoReturn:
    """An error that begins with file and line, where they are known."""
    raise InputError(f"{where}: {what}" if where else what)
