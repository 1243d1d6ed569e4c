"""CONVERSATION → TEXT WITH SPANS: which characters are whose, and which of them carry loss.

Loss carries what the model has to write: the assistant's turn from the end of the generation
prompt to the control token that ends the turn, with the tool calls and the reasoning that the
template writes there. What the template hands to the model when it asks for an answer carries none.

Places come from marks (see `marks`). Some templates cannot be marked, because they look into the
messages; there each turn begins where the text of the conversation leaves the prompt that would be
given at that point, and such a conversation may not hold the text of a control token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from yunque.data.chat_template import ChatTemplate
from yunque.data.conversations import Conversation, Message
from yunque.data.marks import DECISIVE, PRIVATE, TRIALS, Place, free_marks, marked, places
from yunque.data.skeletons import Skeleton, copies, skeleton_of
from yunque.data.template_manner import MEND, manner_of, shared_start
from yunque.errors import InputError

Span = tuple[int, int]
Note = Literal["end_added", "tools_dropped", "extra_dropped"]
Shape = tuple[tuple[str, bool], ...]
"""Role of each message, and whether it is to be learnt."""

PROBE = 0x4E00  # from here on letters of which each stands for the content of a message
"""Chinese, so that no template writes them itself."""
MOST_PROBES = 1000


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation; spans are (first, behind last) characters of `text`, in order.

    Attributes:
        content: what the messages say, as against what the template says. The text of a control
            token is one only outside.
        loss: what the model shall learn to write.
        notes: end_added: the template ends no answer, so the end token was put behind the last
            one; tools_dropped, extra_dropped: the template writes nothing of the tools, or of what
            a message holds beside its content (reasoning, a name).
    """

    text: str
    content: tuple[Span, ...]
    loss: tuple[Span, ...]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Block:
    """A stretch of the text that one message fills, and its parts."""

    owner: int
    start: int | None
    end: int
    parts: tuple[Place, ...]


def render(conversation: Conversation | Sequence[Message], template: ChatTemplate) -> Rendered:
    """The text of a conversation with its spans.

    Raises:
        InputError: the template refuses the conversation, drops a message, or its text cannot be
            matched with the messages. The message begins with file and line where they are known.
    """
    return named(conversation, template, asking=False)


def render_prompt(
    conversation: Conversation | Sequence[Message], template: ChatTemplate
) -> Rendered:
    """The text that asks the model for the next turn; nothing in it carries loss.

    Raises:
        InputError: as `render`.
    """
    return named(conversation, template, asking=True)


def named(
    conversation: Conversation | Sequence[Message], template: ChatTemplate, asking: bool
) -> Rendered:
    """`aligned`, with file and line before the error."""
    if not isinstance(conversation, Conversation):
        conversation = Conversation(tuple(conversation))
    try:
        found = copied(conversation, template, asking) if copies(template.source) else None
        return found or aligned(conversation, template, asking)
    except InputError as fault:
        if not conversation.where:
            raise
        raise InputError(f"{conversation.where}: {fault}") from fault


def copied(conversation: Conversation, template: ChatTemplate, asking: bool) -> Rendered | None:
    """The same as `aligned` for a template that copies; None where it must look at the contents."""
    shape: list[tuple[str, bool]] = []
    for message in conversation.messages:
        content = message.content
        if message.extra or not content.strip():
            return None
        if not content.isascii() and PRIVATE.search(content):
            return None  # there may be too many of them, which `aligned` tells
        shape.append((message.role, message.loss))
    if conversation.tools is not None or not 0 < len(shape) <= MOST_PROBES:
        return None
    known = skeleton(template, tuple(shape), asking)
    if known is None:
        return None
    bones, notes = known
    return Rendered(*bones.filled([m.content for m in conversation.messages]), notes)


@lru_cache(maxsize=256)
def skeleton(
    template: ChatTemplate, shape: Shape, asking: bool
) -> tuple[Skeleton, tuple[Note, ...]] | None:
    """What all conversations of a shape have in common; None where that is not certain."""
    probes = [chr(PROBE + number) for number in range(len(shape))]
    messages = tuple(
        Message(role, probe, loss=loss) for (role, loss), probe in zip(shape, probes, strict=True)
    )
    try:
        made = aligned(Conversation(messages), template, asking)
        prompt = manner_of(template).prompt
    except InputError:
        return None  # it is told of the real conversation
    if [made.text[start:end] for start, end in made.content] != probes:
        return None
    for number, (role, _) in enumerate(shape):
        if role != "assistant":
            continue
        # Elsewhere the beginning of a turn is found by comparing texts, contents included.
        if number == 0 or shape[number - 1][0] != "user":
            return None
        gap = made.text[made.content[number - 1][1] : made.content[number][0]]
        if not (gap.startswith(prompt) or prompt.startswith(gap)):
            return None
    return skeleton_of(made.text, made.content, made.loss), made.notes


def aligned(conversation: Conversation, template: ChatTemplate, asking: bool) -> Rendered:
    """Text and spans."""
    messages, tools = conversation.messages, conversation.tools
    if not messages:
        raise InputError("a conversation without messages; expected one or more.")
    entries = [message.as_dict() for message in messages]
    plain = template.run(entries, tools, asking)
    first = free_marks([plain, *(m.content for m in messages)], len(messages))
    for edges in TRIALS:
        with_marks, marked_tools = marked(messages, tools, first, edges)
        text = template.run(with_marks, marked_tools, asking)
        found = places(text, plain, first, len(messages))
        if found is not None:
            check_unmarked(conversation, template)
            spans = spans_of(conversation, template, plain, found, asking)
            if spans is not None:
                return spans
            break
        if not has_edges(messages):
            break  # all trials are the same
    return by_prompts(conversation, template, plain, asking)


def has_edges(messages: Sequence[Message]) -> bool:
    """Whether white space stands at the edge of any text, which a template may have trimmed."""
    return any(m.extra or m.content != m.content.strip() for m in messages)


def spans_of(
    conversation: Conversation,
    template: ChatTemplate,
    text: str,
    found: list[Place],
    asking: bool,
) -> Rendered | None:
    """Spans from the places of the messages; None where they do not tell them.

    Raises:
        InputError: the template drops a message.
    """
    messages = conversation.messages
    notes = check_dropped(conversation, found)
    blocks = blocks_of(found)
    owners = [block.owner for block in blocks]
    content: list[Span] = []
    loss: list[Span] = []
    added = ""
    for number, block in enumerate(blocks):
        # The number behind the last message stands for the tools.
        message = messages[block.owner] if block.owner < len(messages) else None
        before = blocks[number - 1].end if number else 0
        start = block.start
        if message is None or message.role != "assistant":
            if start is None:
                return None
        else:
            if owners.count(block.owner) > 1:
                return None
            begin = turn_start(conversation, template, text, before, block, owners, number)
            if begin is None:
                return None
            start = begin if start is None else start
            if message.trained and not asking:
                behind = blocks[number + 1] if number + 1 < len(blocks) else None
                bound = len(text) if behind is None else (behind.start or behind.end)
                end = turn_end(template, text, block.end, bound)
                if end is None and behind is None:
                    added, end = template.end_token, len(text) + len(template.end_token)
                    notes.append("end_added")
                loss.append((begin, block.end if end is None else end))
        for part in block.parts:
            content.append((start if part.start is None else part.start, part.end))
    return Rendered(text + added, tuple(content), tuple(loss), tuple(notes))


def blocks_of(found: list[Place]) -> list[Block]:
    """Neighbouring places of the same message taken together."""
    groups: list[list[Place]] = []
    for place in found:
        if groups and groups[-1][0].owner == place.owner:
            groups[-1].append(place)
        else:
            groups.append([place])
    return [Block(g[0].owner, g[0].start, g[-1].end, tuple(g)) for g in groups]


def turn_start(
    conversation: Conversation,
    template: ChatTemplate,
    text: str,
    before: int,
    block: Block,
    owners: list[int],
    number: int,
) -> int | None:
    """Where the assistant's turn begins to carry loss; None where nobody can say.

    Args:
        before: where the message before it ends.
    """
    messages = conversation.messages
    prompt = manner_of(template).prompt
    if block.start is not None:
        follows = number and owners[number - 1] == block.owner - 1
        if follows and messages[block.owner - 1].role == "user":
            gap = text[before : block.start]
            if gap.startswith(prompt):
                return before + len(prompt)
            if prompt.startswith(gap):
                return block.start
    try:
        entries = [message.as_dict() for message in messages[: block.owner]]
        asked = template.run(entries, conversation.tools, True)
    except InputError:
        return block.start  # a template that cannot be asked at this point
    begin = len(shared_start(text, asked))
    if begin <= before:
        return block.start
    return min(begin, block.end if block.start is None else block.start)


def turn_end(template: ChatTemplate, text: str, end: int, bound: int) -> int | None:
    """Behind the control token that ends the turn; None where the template writes none.

    Args:
        end, bound: where the assistant's words end and where the next message begins.
    """
    mark = template.control.search(text, end, bound)
    if mark is None or mark.group() in manner_of(template).openers:
        return None
    return mark.end()


def check_dropped(conversation: Conversation, found: list[Place]) -> list[Note]:
    """Notes on what the template leaves out.

    Raises:
        InputError: it leaves out a message, or the call of a tool.
    """
    messages = conversation.messages
    seen = {(place.owner, place.part) for place in found}
    notes: list[Note] = []
    if conversation.tools and (len(messages), "content") not in seen:
        notes.append("tools_dropped")
    for number, message in enumerate(messages):
        if message.content.strip() and (number, "content") not in seen:
            raise InputError(dropped(number, message, "message"))
        if message.extra and (number, "extra") not in seen:
            if message.extra.get("tool_calls"):
                raise InputError(dropped(number, message, "call of a tool"))
            if "extra_dropped" not in notes and not message.extra.keys() <= set(DECISIVE):
                notes.append("extra_dropped")
    return notes


def dropped(number: int, message: Message, what: str) -> str:
    return (
        f"chat template: it drops a {what} (message {number + 1}, {message.role}), nothing of it "
        f"is in the text. {MEND}"
    )


def check_unmarked(conversation: Conversation, template: ChatTemplate) -> None:
    """Texts that are never marked may not read like control tokens: keys, ids, types.

    Raises:
        InputError: one does.
    """
    for key, text in nested_texts(conversation):
        token = template.control.search(text) if key in DECISIVE else None
        if token:
            raise InputError(
                f"{text!r} holds the text of the control token {token.group()!r}; call it "
                "otherwise."
            )


def nested_texts(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """(key, text) of all that stands beside the contents; keys themselves as ("type", key)."""
    values = [("", message.extra) for message in conversation.messages if message.extra]
    values += [("", tool) for tool in conversation.tools or ()]
    while values:
        key, value = values.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, (list, tuple)):
            values += [(key, item) for item in value]
        elif isinstance(value, Mapping):
            for name, item in value.items():
                yield "type", str(name)
                values.append((str(name), item))


def by_prompts(
    conversation: Conversation, template: ChatTemplate, text: str, asking: bool
) -> Rendered:
    """Spans without marks: a turn is what follows the prompt that would ask for it.

    Raises:
        InputError: the text does not continue that prompt, or a message holds the text of a
            control token, which could not be told from the template's own.
    """
    messages = conversation.messages
    texts = [message.content for message in messages]
    texts += [text for _, text in nested_texts(conversation)]
    for given in texts:
        token = template.control.search(given)
        if token:
            raise InputError(
                f"a message holds the text of the control token {token.group()!r}, and this chat "
                "template rewrites its messages, so that it cannot be told from a real one. Take "
                "the text out or use another template."
            )
    loss: list[Span] = []
    notes: tuple[Note, ...] = ()
    for number, message in enumerate(messages):
        if not message.trained:
            # Of the assistant's turns without loss, a template may throw the reasoning away.
            if message.role != "assistant" and message.content.strip() not in text:
                raise InputError(unmatched(number, message))
            continue
        entries = [item.as_dict() for item in messages[: number + 1]]
        last = number == len(messages) - 1
        until = text if last else template.run(entries, conversation.tools)
        asked = template.run(entries[:-1], conversation.tools, True)
        begin = len(shared_start(until, asked))
        answer = message.content.rpartition("</think>")[2].strip()
        if not text.startswith(until.rstrip()) or answer not in until[begin:] or begin == 0:
            raise InputError(unmatched(number, message))
        if asking:
            continue
        tokens = [token.end() for token in template.control.finditer(until, begin)]
        end = tokens[-1] if tokens and not until[tokens[-1] :].strip() else len(until)
        if not tokens and last:
            text, end = text + template.end_token, len(text) + len(template.end_token)
            notes = ("end_added",)
        loss.append((begin, end))
    return Rendered(text, (), tuple(loss), notes)


def unmatched(number: int, message: Message) -> str:
    return (
        "chat template: the text that it writes cannot be matched with the messages "
        f"(message {number + 1}, {message.role}). {MEND}"
    )
