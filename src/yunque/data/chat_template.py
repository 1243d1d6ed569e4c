"""CHAT TEMPLATE: messages → text, and where in that text every message stands.

A template is a program in Jinja that comes with a model. It runs in a sandbox, with limits on its
size, its steps and its output, and it says nothing about which characters are the assistant's.
That is found out by rendering twice: once as it is, and once with a private mark on both sides of
every content. Where the second text without its marks equals the first, the marks stood exactly at
the ends of the contents; where it does not, contents are stripped first (most templates that
change them do no more than that); else the conversation is rendered turn by turn, each prefix of
it being a prefix of the whole; and a template that does not even do that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from yunque.config import SEPARATOR
from yunque.data.sandbox import run_template
from yunque.errors import InputError

if TYPE_CHECKING:
    from yunque.data.tokenizer import Tokenizer

USER = "<|user|>"
ASSISTANT = "<|assistant|>"

CHAT_TOKENS: tuple[str, ...] = (USER, ASSISTANT)
"""Special tokens of the default template, beside the end token."""

# A system message needs no token of its own: it is the text before the first <|user|>.
DEFAULT_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{ message['content'] }}
{%- elif message['role'] in ('user', 'tool') -%}
<|user|>{{ message['content'] }}
{%- elif message['role'] == 'assistant' -%}
<|assistant|>{{ message['content'] }}{{ eos_token }}
{%- else -%}
{{ raise_exception('the role must be system, user, tool or assistant, got ' + message['role']) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{%- endif -%}
"""

MARKS = tuple("\U000f0e00\U000f0e01")  # private use; texts that hold one are rendered otherwise

BY_MARKS = re.compile(f"([{''.join(MARKS)}])")

PROBES = ("Qzuser probe", "Qzassistant probe")

Span = tuple[int, int]


class Message(NamedTuple):
    """One turn: role (system, user, assistant, tool) and text."""

    role: str
    content: str


@dataclass(frozen=True)
class Rendered:
    """A conversation as text; spans are (first, behind last) characters of `text`.

    `content`: what people and tools wrote, where no control token can be. `loss`: the assistant's
    words with the end of turn behind them.
    """

    text: str
    content: tuple[Span, ...]
    loss: tuple[Span, ...]


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the tokens it may use.

    Args:
        source: the Jinja text.
        tokens: `eos_token`, `bos_token` … as the template calls them.
        controls: the texts of all control tokens; those that follow an answer directly end it.
    """

    source: str = DEFAULT_CHAT_TEMPLATE
    tokens: tuple[tuple[str, str], ...] = (("eos_token", SEPARATOR),)
    controls: tuple[str, ...] = (SEPARATOR, *CHAT_TOKENS)

    @property
    def end(self) -> str:
        """The end token, "" for none."""
        return dict(self.tokens).get("eos_token", "")

    def text(
        self, messages: Sequence[Mapping[str, str] | Message], add_generation_prompt: bool = False
    ) -> str:
        """The text that a model sees: equal to `apply_chat_template` of transformers.

        Raises:
            InputError: the template is no Jinja, does something forbidden, takes too long, or
                refuses the messages.
        """
        turns = [as_mapping(message) for message in messages]
        return run_template(self.source, turns, dict(self.tokens), add_generation_prompt)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatTemplate:
        """The template that belongs to a tokenizer; it must have one."""
        assert tokenizer.chat_template is not None
        named = {**tokenizer.named_tokens, "eos_token": tokenizer.separator}
        return cls(tokenizer.chat_template, tuple(named.items()), tuple(tokenizer.controls))

    def prompt(self, messages: Sequence[Message]) -> Rendered:
        """A conversation up to where the assistant is to speak; nothing in it carries loss."""
        text = self.text(messages, add_generation_prompt=True)
        spans = self.by_marks(messages, text, add_generation_prompt=True)
        return Rendered(text, tuple(spans or ()), ())

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The text of a whole conversation and its spans.

        Where the template puts no end behind the last answer, the end token is added, so that the
        model learns to stop.

        Raises:
            InputError: as `text`; or the template drops an answer, or cannot be aligned.
        """
        text, spans = self.aligned(messages)
        loss = []
        for number, (message, span) in enumerate(zip(messages, spans, strict=True)):
            if message.role != "assistant":
                continue
            stop = self.end_of_turn(text, span[1])
            if stop == span[1] and number == len(messages) - 1 and self.end:
                text = text[: span[1]] + self.end + text[span[1] :].rstrip()
                stop = span[1] + len(self.end)
            loss.append((span[0], stop))
        return Rendered(text, tuple(spans), tuple(loss))

    def check(self) -> None:
        """Try the template on a conversation of known words before any data is read with it.

        Raises:
            InputError: it drops the assistant's turn, gives the assistant's words the place of the
                user's or the other way round, or is no template.
        """
        turns = [Message("user", PROBES[0]), Message("assistant", PROBES[1])]
        text = self.text(turns)
        missing = [turn.role for turn in turns if turn.content not in text]
        if missing:
            raise InputError(
                f"chat template: it drops what the {missing[0]} says, so nothing could be learnt "
                "from it. Use the template that belongs to this model, or leave it out to use the "
                "default one."
            )
        opened = self.text(turns[:1], add_generation_prompt=True)
        swapped = [Message("user", PROBES[1]), Message("assistant", PROBES[0])]
        if text.index(PROBES[1]) < text.index(PROBES[0]) or text == self.text(swapped):
            raise InputError(
                "chat template: it puts the assistant's words before or in the place of the "
                "user's. Use the template that belongs to this model, or leave it out."
            )
        # In front of the answer must stand what the model will be given to answer. A template
        # without a generation prompt of its own gives the user's turn alone, which is a beginning.
        before = text[: text.index(PROBES[1])]
        if not (before.startswith(opened) or opened.startswith(before.rstrip())):
            raise InputError(
                "chat template: what stands before the assistant's answer in training "
                f"({shorten(before[-40:])!r}) is not what the model is given when it shall answer "
                f"({shorten(opened[-40:])!r}): roles are swapped or the prompt is another. Use "
                "the template that belongs to this model, or leave it out."
            )

    def end_of_turn(self, text: str, place: int) -> int:
        """Behind the control token that stands at `place`, or `place` where none does."""
        skip = place
        while skip < len(text) and text[skip] in " \n":
            skip += 1
        for start in (place, skip):
            found = [token for token in self.controls if token and text.startswith(token, start)]
            # A token that opens another turn is no end: only the end token and "end" names are.
            ends = [token for token in found if token == self.end or is_end_name(token)]
            if ends:
                return start + len(max(ends, key=len))
        return place

    def aligned(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """(text, the span of each message's content)."""
        plain = self.text(messages)
        for turns in (messages, [Message(m.role, m.content.strip()) for m in messages]):
            found = self.by_marks(turns, plain)
            if found is not None:
                return plain, found
        found = self.by_prefixes(messages, plain)
        if found is not None:
            return plain, found
        lost = next((m for m in messages if m.content.strip() not in plain), None)
        if lost is not None:
            what = "the assistant's answer" if lost.role == "assistant" else f"a {lost.role} turn"
            raise InputError(
                f"chat template: it drops {what} ({shorten(lost.content)!r} is not in the text "
                "that it makes), so nothing could be learnt from it. Use the template that belongs "
                "to this model, or leave it out to use the default one."
            )
        raise InputError(
            "chat template: it changes the messages so that the assistant's words cannot be told "
            "from the rest. Use another template, or leave it out to use the default one."
        )

    def by_marks(
        self, messages: Sequence[Message], plain: str, add_generation_prompt: bool = False
    ) -> list[Span] | None:
        """Spans from marks on both sides of every content, or None where that changes the text."""
        opening, closing = MARKS
        if any(mark in message.content for message in messages for mark in MARKS):
            return None
        marked = [Message(m.role, f"{opening}{m.content}{closing}") for m in messages]
        try:
            text = self.text(marked, add_generation_prompt)
        except InputError:
            return None
        if text.replace(opening, "").replace(closing, "") != plain:
            return None
        spans: list[Span] = []
        place = 0  # in the plain text
        start = -1
        for stretch in BY_MARKS.split(text):
            if stretch == opening:
                if start >= 0:
                    return None
                start = place
            elif stretch == closing:
                if start < 0:
                    return None
                spans.append((start, place))
                start = -1
            else:
                place += len(stretch)
        expected = [message.content for message in messages]
        # Each content once and in order; a template that shows one twice cannot be aligned so.
        return spans if [plain[a:b] for a, b in spans] == expected else None

    def by_prefixes(self, messages: Sequence[Message], plain: str) -> list[Span] | None:
        """Spans from renderings of ever longer beginnings, or None where they are no prefixes."""
        spans: list[Span] = []
        before = 0
        for count in range(1, len(messages) + 1):
            message = messages[count - 1]
            try:
                text = self.text(messages[:count])
            except InputError:
                text = plain[:before]  # some templates refuse a conversation without an answer
            if not plain.startswith(text):
                return None
            content = message.content.strip()
            start = -1
            if message.role == "assistant":
                # What precedes the answer is what the model is given to answer: exact.
                opened = self.text(messages[: count - 1], add_generation_prompt=True)
                if plain.startswith(opened + content):
                    start = len(opened)
            if start < 0:
                start = plain.find(content, before)
            if start < 0 or start + len(content) > max(len(text), before):
                return None
            spans.append((start, start + len(content)))
            before = max(before, len(text))
        return spans


def is_end_name(token: str) -> bool:
    """Whether a control token's name says that it ends a turn: <|im_end|>, </s>, <|eot_id|> …"""
    name = token.strip("<|>[]").lower()
    return name.startswith("/") or any(part in name for part in ("end", "eot", "eos", "eom"))


def as_mapping(message: Mapping[str, str] | Message) -> dict[str, str]:
    """A message as templates read it."""
    return message._asdict() if isinstance(message, Message) else dict(message)


def shorten(text: str, length: int = 40) -> str:
    """The beginning of a text for a message."""
    return text if len(text) <= length else text[: length - 1] + "…"
