"""A Jinja template run so that it can neither reach anything nor hold the program up.

The sandbox of Jinja keeps a template from attributes and functions that are not its business. It
does not keep it from nested loops of 10^10 steps, from `x ~ x` doubled forty times, or from a macro
that calls itself twice. So every step of a loop, every call and every joining of texts is counted
here against a time and a size.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from yunque.errors import InputError

if TYPE_CHECKING:
    import jinja2

TEMPLATE_CHARACTERS = 1 << 20
OUTPUT_CHARACTERS = 1 << 22  # beside 20 times the characters of the messages
SECONDS = 2.0

# What the templates of public models use; filters that make long texts of short ones are not here.
FILTERS = tuple(
    """abs batch capitalize count d default dictsort e escape first float groupby indent int items
    join last length list lower map max min reject rejectattr replace reverse round safe select
    selectattr slice sort string sum title trim unique upper""".split()  # noqa: SIM905
)
GROWING_METHODS = frozenset(("center", "ljust", "rjust", "zfill", "expandtabs", "format_map"))


class Limits(threading.local):
    """What is left to the template that this thread runs."""

    deadline = 0.0
    characters = 0

    def check(self, size: int = 0) -> None:
        """Refuse more time or a longer text than a template may have."""
        import jinja2

        if time.monotonic() > self.deadline:
            raise jinja2.TemplateError(f"it did not end within {SECONDS:g} seconds")
        if size > self.characters:
            raise jinja2.TemplateError(f"it makes a text of more than {self.characters} characters")


LIMITS = Limits()


def run_template(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, str],
    add_generation_prompt: bool,
) -> str:
    """The text that a chat template makes of messages.

    Args:
        tokens: `eos_token`, `bos_token` … as the template calls them.

    Raises:
        InputError: it is no Jinja, does something forbidden, exceeds its limits, or refuses the
            messages.
    """
    import jinja2

    template = compiled(source)
    spoken = sum(len(str(value)) for message in messages for value in message.values())
    LIMITS.deadline = time.monotonic() + SECONDS
    LIMITS.characters = OUTPUT_CHARACTERS + 20 * spoken
    parts: list[str] = []
    size = 0
    try:
        for part in template.generate(
            messages=[dict(message) for message in messages],
            add_generation_prompt=add_generation_prompt,
            **tokens,
        ):
            size += len(part)
            LIMITS.check(size)
            parts.append(part)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as fault:
        raise InputError(
            f"chat template: {fault}. Change the messages or use a template that takes them."
        ) from fault
    except (RecursionError, MemoryError, AttributeError) as fault:
        raise InputError(f"chat template: {type(fault).__name__}. Use another template.") from fault
    return "".join(parts)


@lru_cache(maxsize=8)
def compiled(source: str) -> jinja2.Template:
    """The template made ready; compiling costs about as much as rendering a hundred messages.

    Raises:
        InputError: it is no Jinja, or too long.
    """
    import jinja2

    if len(source) > TEMPLATE_CHARACTERS:
        raise InputError(
            f"chat template: {len(source)} characters, at most {TEMPLATE_CHARACTERS} are read."
        )
    environment = environment_for_templates()
    try:
        tree = counted(environment.parse(source))
        code = environment.compile(tree)
    except jinja2.TemplateSyntaxError as fault:
        raise InputError(
            f"chat template, line {fault.lineno}: {fault.message}. Expected a Jinja template; "
            "mend it or leave it out to use the default one."
        ) from fault
    except (jinja2.TemplateError, RecursionError) as fault:
        raise InputError(f"chat template: {fault}. Use another template.") from fault
    made: jinja2.Template = environment.template_class.from_code(
        environment, code, environment.make_globals(None)
    )
    return made


def counted(tree: jinja2.nodes.Template) -> jinja2.nodes.Template:
    """The template with every loop and every `~` made to count."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    class Counter(NodeTransformer):
        def visit_For(self, node: nodes.For) -> nodes.Node:
            self.generic_visit(node)
            node.iter = nodes.Filter(node.iter, "counted_steps", [], [], None, None)
            return node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
            self.generic_visit(node)
            listed = nodes.List(node.nodes)
            return nodes.Filter(listed, "counted_join", [], [], None, None)

    made: nodes.Template = Counter().visit(tree)
    return made


@lru_cache(maxsize=1)
def environment_for_templates() -> jinja2.Environment:
    """The sandbox with the functions that chat templates expect."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}`: a mark of transformers, without effect here."""

        tags = frozenset(("generation",))  # type: ignore[assignment]

        def parse(self, parser: Any) -> Any:
            lineno = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=lineno)

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**", "+", "%"))

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
            LIMITS.check()
            grown = 0
            if getattr(__obj, "__name__", "") == "replace" and len(args) >= 2:
                grown = (len(str(__obj.__self__)) + 1) * len(str(args[1]))
            LIMITS.check(grown)
            value = super().call(__context, __obj, *args, **kwargs)
            LIMITS.check(len(value) if isinstance(value, (str, list)) else 0)
            return value

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sizes = [len(value) for value in (left, right) if hasattr(value, "__len__")]
            if operator == "*" and sizes:
                counts = [value for value in (left, right) if isinstance(value, int)]
                LIMITS.check(sizes[0] * max(1, *counts, 0) if counts else 0)
            elif operator == "**" and (abs(left) > 1 << 32 or abs(right) > 64):
                raise jinja2.TemplateError("a power that large")
            elif operator == "%" and isinstance(left, str):
                raise jinja2.TemplateError("formatting with %")
            else:
                LIMITS.check(sum(sizes))
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            if isinstance(obj, str) and attr in GROWING_METHODS:
                return False
            return bool(super().is_safe_attribute(obj, attr, value))

    def refuse(reason: str) -> NoReturn:
        raise jinja2.TemplateError(reason)

    def join(items: Sequence[Any]) -> str:
        texts = [str(item) for item in items]
        LIMITS.check(sum(map(len, texts)))
        return "".join(texts)

    def tojson(value: Any, indent: int | None = None, **settings: Any) -> str:
        # Without the escapes that Jinja's own filter adds for web pages.
        return json.dumps(value, ensure_ascii=False, indent=indent, **settings)

    def strftime_now(layout: str) -> str:
        return datetime.now().strftime(layout)

    # The two whitespace settings are those of transformers; without them the text differs.
    environment = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    known: dict[str, Callable[..., Any]] = environment.filters
    environment.filters = {name: known[name] for name in FILTERS if name in known}
    environment.filters |= {"counted_join": join, "tojson": tojson, "counted_steps": counted_loop}
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = strftime_now
    return environment


def counted_loop(items: Any) -> Any:
    """What a loop goes through, counted; lists are only measured, so that `loop.last` is known."""
    import jinja2

    if isinstance(items, jinja2.Undefined):
        return items
    return CountedList(items)


class CountedList(list[Any]):
    """A list that asks for the time at every step."""

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            LIMITS.check()
            yield item
