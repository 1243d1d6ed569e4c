"""Conversations to text, through a chat template in Jinja, run in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from yunque.config import SEPARATOR
from yunque.errors import InputError

if TYPE_CHECKING:
    import jinja2

USER = "<|user|>"
ASSISTANT = "<|assistant|>"

CHAT_TOKENS: tuple[str, ...] = (USER, ASSISTANT)
"""Special tokens of the default template, beside the end token."""

# A system message needs no token of its own: it is the text before the first <|user|>.
DEFAULT_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{ message['content'] }}
{%- elif message['role'] == 'user' -%}
<|user|>{{ message['content'] }}
{%- elif message['role'] == 'assistant' -%}
<|assistant|>{{ message['content'] }}{{ eos_token }}
{%- else -%}
{{ raise_exception('the role must be system, user or assistant, got ' + message['role']) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{%- endif -%}
"""


def render(
    messages: Sequence[Mapping[str, str]],
    template: str = DEFAULT_CHAT_TEMPLATE,
    end_token: str = SEPARATOR,
    add_generation_prompt: bool = False,
) -> str:
    """The text that a model sees: equal to `apply_chat_template` of transformers.

    Args:
        messages: each with `role` and `content`.
        end_token: what the template calls `eos_token`.
        add_generation_prompt: end with what precedes the assistant's next words.

    Raises:
        InputError: the template is no Jinja, does something forbidden, or refuses the messages.
    """
    import jinja2

    try:
        return compiled(template).render(
            messages=messages, eos_token=end_token, add_generation_prompt=add_generation_prompt
        )
    except jinja2.TemplateError as fault:
        raise InputError(
            f"chat template: {fault}. Change the messages or use a template that takes them."
        ) from fault


@lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
    """The template made ready; compiling costs about as much as rendering a hundred messages.

    Raises:
        InputError: it is no Jinja.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> NoReturn:
        raise jinja2.TemplateError(reason)

    # The two whitespace settings are those of transformers; without them the text differs.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as fault:
        raise InputError(
            f"chat template, line {fault.lineno}: {fault.message}. Expected a Jinja template; "
            "mend it or leave it out to use the default one."
        ) from fault
