"""CONVERSATION → TEXT through a chat template, as `transformers.apply_chat_template` does it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from yunque.config import SEPARATOR
from yunque.data.sandbox import compile_template, run_template, written_out
from yunque.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    import jinja2

USER = "<|user|>"
ASSISTANT = "<|assistant|>"

CHAT_TOKENS: tuple[str, ...] = (USER, ASSISTANT)
"""Special tokens of the default template, beside the end token."""

# A system message needs no token of its own: it is the text before the first <|user|>. What a tool
# returns comes to the model from outside, as a user's words do.
DEFAULT_CHAT_TEMPLATE = """\
{%- if tools -%}
{{ '<tools>\\n' }}
{%- for tool in tools -%}
{{ tool | tojson }}{{ '\\n' }}
{%- endfor -%}
{{ '</tools>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{ message['content'] }}
{%- elif message['role'] == 'user' -%}
<|user|>{{ message['content'] }}
{%- elif message['role'] == 'tool' -%}
<|user|>{{ '<tool_response>\\n' }}{{ message['content'] }}{{ '\\n</tool_response>' }}
{%- elif message['role'] == 'assistant' -%}
<|assistant|>{{ message['content'] }}
{%- for call in message['tool_calls'] or [] -%}
{%- set call = call['function'] or call -%}
{{ '<tool_call>\\n{"name": ' }}{{ call['name'] | tojson }}{{ ', "arguments": ' }}
{%- if call['arguments'] is string -%}
{{ call['arguments'] }}
{%- else -%}
{{ call['arguments'] | tojson }}
{%- endif -%}
{{ '}\\n</tool_call>' }}
{%- endfor -%}
{{ eos_token }}
{%- else -%}
{{ raise_exception('the role must be system, user, assistant or tool, got ' + message['role']) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{%- endif -%}
"""


PLAIN_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{ message['content'] + '\\n\\n' }}
{%- elif message['role'] in ['user', 'tool'] -%}
{{ 'User: ' + message['content'] + '\\n' }}
{%- elif message['role'] == 'assistant' -%}
{{ 'Assistant: ' + message['content'] + eos_token + '\\n' }}
{%- else -%}
{{ raise_exception('the role must be system, user, assistant or tool, got ' + message['role']) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ 'Assistant:' }}
{%- endif -%}
"""
"""For a base that knows no turns: in words, because new tokens would mean nothing to it."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template and what it needs of its tokenizer.

    Attributes:
        source: Jinja.
        end_token: text of the token that ends a text, which the template calls `eos_token`.
        special_tokens: texts of all control tokens.
        named_tokens: further names that the template may use: ("bos_token", "<s>"), …
    """

    source: str = DEFAULT_CHAT_TEMPLATE
    end_token: str = SEPARATOR
    special_tokens: tuple[str, ...] = (SEPARATOR, *CHAT_TOKENS)
    named_tokens: tuple[tuple[str, str], ...] = ()

    @cached_property
    def compiled(self) -> jinja2.Template:
        return compile_template(self.source)

    @cached_property
    def control(self) -> re.Pattern[str]:
        """Finds the next text of a control token; the longest where several begin."""
        return control_pattern(self.special_tokens)

    @cached_property
    def named(self) -> dict[str, str]:
        return {**dict(self.named_tokens), "eos_token": self.end_token}

    def run(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of the messages.

        Args:
            messages: each with role, content and what else the template reads.
            add_generation_prompt: end with what precedes the assistant's next words.

        Raises:
            InputError: no Jinja; the template refuses the messages, fails or goes over a limit.
        """
        values = {
            "messages": list(messages),
            "tools": None if tools is None else list(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self.named,
        }
        count = len(self.source) + 100 * len(messages)
        for message in messages:
            if len(message) == 2:
                count += len(message["content"])
            else:
                count += written_out(message, {}, lambda _: None)
        if tools:
            count += written_out(tools, {}, lambda _: None)
        return run_template(self.compiled, values, count)


def chat_template_of(tokenizer: Tokenizer, source: str | None = None) -> ChatTemplate:
    """The template of a tokenizer, or `source` for it; the default one where there is neither."""
    named = dict(tokenizer.named_tokens)
    if tokenizer.unknown_id is not None:
        named["unk_token"] = str(tokenizer.backend.id_to_token(tokenizer.unknown_id))
    return ChatTemplate(
        source or tokenizer.chat_template or DEFAULT_CHAT_TEMPLATE,
        tokenizer.separator,
        tuple(tokenizer.controls),
        tuple(sorted(named.items())),
    )


def conversing(tokenizer: Tokenizer, turns: bool = False) -> Tokenizer:
    """The tokenizer with a chat template: its own, or else the one for a base that has none.

    A base is fine-tuned, examined and measured with the same one. It begins with what the
    tokenizer's files put before a text.

    Args:
        turns: with the control tokens of the default template, which the tokenizer must know.
    """
    if tokenizer.chat_template is not None:
        return tokenizer
    begin = "".join(str(tokenizer.backend.id_to_token(id)) for id in tokenizer.begin_ids)
    opening = f"{{{{- {json.dumps(begin)} -}}}}\n" if begin else ""
    source = DEFAULT_CHAT_TEMPLATE if turns else PLAIN_CHAT_TEMPLATE
    return tokenizer.with_template(opening + source)


def control_pattern(texts: Sequence[str]) -> re.Pattern[str]:
    """Any of the texts, the longest first; nothing at all where there are none."""
    longest = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) if longest else r"(?!)")
