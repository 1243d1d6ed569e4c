"""FOREIGN TEMPLATES, RUN SAFELY: Jinja without access to Python, with limits of time and size.

A chat template comes with a model and is a program. Jinja's sandbox keeps it from the interpreter;
what it does not keep it from is running for ever or filling the memory. Here every turn of a loop,
every call and every filter is a step, every text that it makes is counted, and operations whose
result can be far larger than what goes in are weighed before they are done. So no single operation
between two steps is long, and the limits hold in any thread, without signals.

The functions and the white-space settings are those of `transformers.apply_chat_template`.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from yunque.errors import InputError

TEMPLATE_CHARACTERS = 100_000  # the longest published ones have about 30,000
SECONDS = 3.0
STEPS = 5_000_000
WORK_CHARACTERS = 64_000_000  # written in passing, beside a thousand times the input
OUTPUT_CHARACTERS = 1_000_000  # beside a hundred times the input
LARGEST_NUMBER = 1_000_000  # that may be handed to a function: widths, counts, powers
LARGEST_INDENT = 16  # of JSON, in spaces; its separators are as short
ITEM = 16  # what an item of a list counts for, in characters: its reference and what it refers to

# Methods and filters whose result may be as large as the product of what they are given.
MULTIPLYING = {"replace", "join", "format", "expandtabs", "indent"}
# Filters that look at items and write none of them; all others write what they are given.
LOOKING = (
    {"attr", "count", "d", "default", "dictsort", "first", "groupby", "items", "last"}
    | {"length", "list", "map", "max", "min", "reject", "rejectattr", "reverse", "select"}
    | {"selectattr", "sort", "unique"}
)
# Slow on long texts, filled up, or not the same every time; no chat template needs them.
LEFT_OUT: tuple[str, ...] = ("batch", "center", "filesizeformat", "pprint", "random", "slice")
LEFT_OUT += ("striptags", "sum", "urlize", "wordwrap", "xmlattr")
NUMBERS = re.compile(r"\d+")
FILLED = re.compile(r"\{[^{}]*\{")  # a replacement field within another one
# A table of replacements multiplies like `replace`; bytes could be multiplied unseen.
BARRED = {"translate", "format_map", "encode", "to_bytes"}


class LimitError(jinja2.TemplateError):
    """A template went over a limit."""


class StoppedTemplate(InputError):
    """The same, as its user hears of it: whoever renders it without limits may wait for ever."""


class Budget:
    """What one rendering may still use."""

    __slots__ = ("characters", "deadline", "steps")

    def __init__(self, input_characters: int) -> None:
        self.steps = STEPS
        self.characters = WORK_CHARACTERS + 1000 * input_characters
        self.deadline = time.monotonic() + SECONDS

    def spend(self, characters: int = 0) -> None:
        """One step, and so many characters written."""
        self.steps -= 1
        self.characters -= characters
        if self.steps < 0:
            raise LimitError(f"it takes more than {STEPS:,} steps, as a loop without end would")
        if self.characters < 0:
            raise LimitError("it writes far more text than it was given")
        if not self.steps & 15 and time.monotonic() > self.deadline:
            raise LimitError(f"it was not done after {SECONDS:g} seconds")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a budget for each rendering; one thread renders one text at a time."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, loopcontrols],
            finalize=self.written,
        )
        self.running = threading.local()
        for name in LEFT_OUT:
            del self.filters[name]
        self.filters["tojson"] = self.to_json
        self.filters = {name: self.guarded(name, call) for name, call in self.filters.items()}
        for name in ("tick", "joined", "made", "cut"):
            # Reached by `Ticks` alone: no template can name a filter with a space in it.
            self.filters[f"yunque {name}"] = getattr(self, name)
        del self.globals["lipsum"]
        self.globals.update(
            raise_exception=refuse, strftime_now=now, dict=plain_dict, namespace=SafeNamespace
        )

    def spend(self, characters: int = 0) -> None:
        """Charge the rendering that is going on in this thread, if there is one."""
        budget: Budget | None = getattr(self.running, "budget", None)
        if budget is not None:
            budget.spend(characters)

    def written(self, value: Any) -> Any:
        """What `{{ … }}` is about to write."""
        self.spend(len(value) if isinstance(value, str) else written_out(value, {}, self.spend))
        return value

    @jinja2.pass_context
    def tick(self, context: Context, characters: int) -> None:
        """At the start of each turn of a loop or body of a macro with so much text of its own."""
        self.spend(characters)

    @jinja2.pass_context
    def joined(self, context: Context, *parts: Any) -> str:
        """The operator `~`."""
        self.spend(written_out(parts, {}, self.spend))
        return "".join(map(str, parts))

    @jinja2.pass_context
    def made(self, context: Context, value: Any) -> Any:
        """A list, tuple or dictionary that was just put together.

        A list that holds another one twice, and so on for sixty turns, is small in memory and
        without end when it is written or compared: what counts is its size written out.
        """
        if written_out(value, {}, self.spend) > WORK_CHARACTERS:
            raise LimitError("a list holds itself too often")
        return value

    @jinja2.pass_context
    def cut(self, context: Context, value: Any) -> Any:
        """A slice, which Jinja takes without asking the sandbox."""
        self.spend(cost(value))
        return value

    def to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """`tojson` of chat templates; Jinja's own escapes HTML."""
        if indent is not None and not (isinstance(indent, int) and indent <= LARGEST_INDENT):
            raise LimitError(f"tojson takes an indent of 0 to {LARGEST_INDENT} spaces")
        if separators is not None and size(separators) > LARGEST_INDENT:
            raise LimitError("tojson takes separators of a few characters")
        if indent:  # each item has a line of its own, as far in as it lies deep
            self.spend(written_out(value, {}, self.spend) * (1 + indent * depth(value, {})))
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def weigh(self, name: str, value: Any, arguments: tuple[Any, ...]) -> None:
        """Refuse a call whose numbers, or whose product of sizes, are out of all proportion."""
        for argument in arguments:
            if isinstance(argument, int) and abs(argument) > LARGEST_NUMBER:
                raise LimitError(f"{name} is given the number {argument}")
        if name in MULTIPLYING:
            budget: Budget | None = getattr(self.running, "budget", None)
            most = budget.characters if budget else WORK_CHARACTERS
            if (1 + size(value)) * (1 + sum(map(size, arguments))) > most:
                raise LimitError(f"{name} would write far more text than it was given")

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.spend()
        name = getattr(__obj, "__name__", "a function")
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str):
            if name == "join" and args and not isinstance(args[0], (str, list, tuple)):
                args = (list(args[0]), *args[1:])
            __self.spend(len(owner))  # which `partition` and the like may copy
            __self.weigh(name, owner, (*args, *kwargs.values()))
            if name == "format":
                check_widths(owner)
                if "{" in owner and FILLED.search(owner.replace("{{", "")):
                    raise LimitError("a width that is a value itself is not taken")
                __self.spend(written_out((*args, *kwargs.values()), {}, __self.spend))
        else:
            __self.weigh(name, None, args)
        result = super().call(__context, __obj, *args, **kwargs)
        __self.spend(cost(result))
        return __self.made(__context, result) if isinstance(result, (dict, Namespace)) else result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            if isinstance(left, int) and isinstance(right, int):
                small = left.bit_length() + right.bit_length() < 4096
            else:
                times = left if isinstance(left, int) else right
                made = times * (cost(left) + cost(right)) if isinstance(times, int) else 0
                small = made < 1e7
                self.spend(max(0, made) if small else 0)
            if not small:
                raise LimitError("a product is too large")
            return self.made(context, super().call_binop(context, operator, left, right))
        elif operator == "**" and max(abs(left), abs(right)) > 1000:
            raise LimitError("a power is too large")
        elif operator == "%" and isinstance(left, str):
            values = right if isinstance(right, tuple) else (right,)
            self.spend(written_out(values, {}, self.spend))
            self.weigh("format", left, values)
            check_widths(left)
        elif operator == "+":
            self.spend(cost(left) + cost(right))
        return super().call_binop(context, operator, left, right)

    def guarded(self, name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
        """The same filter, with a budget."""
        # Such filters are handed the environment, the context or the like before the value.
        first = 1 if hasattr(filter, "jinja_pass_arg") else 0

        @functools.wraps(filter)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if name == "join" and not isinstance(args[first], (str, list, tuple)):
                args = (*args[:first], list(args[first]), *args[first + 1 :])
            if name not in LOOKING and not isinstance(args[first], str):
                self.spend(written_out(args[first], {}, self.spend))
            self.weigh(name, args[first], (*args[first + 1 :], *kwargs.values()))
            if name == "format":
                check_widths(str(args[first]))
            result = filter(*args, **kwargs)
            self.spend(cost(result))
            return result

        return guarded

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in BARRED and super().is_safe_attribute(obj, attr, value)


class GenerationTag(Extension):
    """`{% generation %} … {% endgeneration %}` writes what is inside.

    Some templates mark the assistant's words so. The loss mask does not need it.
    """

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class SafeNamespace(Namespace):
    """`namespace()` of Jinja, without names of Python's inside."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        if any(str(name).startswith("_") for name in values):
            raise jinja2.TemplateError("names in a namespace may not begin with an underscore")
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.TemplateError("names in a namespace may not begin with an underscore")
        super().__setitem__(name, value)


class Ticks(NodeTransformer):
    """Puts a step into each body that can be run many times, and counts what `~` writes."""

    def own(self, name: str, first: nodes.Expr, rest: list[nodes.Expr]) -> nodes.Expr:
        """A call of a method of the sandbox; as a filter, which is not itself a step."""
        return nodes.Filter(first, f"yunque {name}", rest, [], None, None, lineno=first.lineno)

    def visit_body(self, node: Any) -> Any:
        own = sum(
            len(text.data)
            for child in node.body
            for text in [child, *child.find_all(nodes.TemplateData)]
            if isinstance(text, nodes.TemplateData)
        )
        self.generic_visit(node)
        count = nodes.Const(own, lineno=node.lineno)
        step = nodes.ExprStmt(self.own("tick", count, []), lineno=node.lineno)
        node.body.insert(0, step)
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_body

    def visit_collection(self, node: Any) -> Any:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load" or not list(node.find_all(nodes.Name)):
            return node
        return self.own("made", node, [])

    visit_List = visit_Tuple = visit_Dict = visit_collection

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return self.own("cut", node, []) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self.own("joined", node.nodes[0], node.nodes[1:])


def parsed(source: str) -> nodes.Template:
    """The Jinja tree of a template as it was written.

    Raises:
        jinja2.TemplateError: it is no Jinja.
    """
    return Sandbox().parse(source)


def compile_template(source: str) -> jinja2.Template:
    """The template made ready to run; the same one for the same source.

    Raises:
        InputError: it is too long, or no Jinja.
    """
    if len(source) > TEMPLATE_CHARACTERS:
        raise InputError(
            f"chat template: {len(source):,} characters, at most {TEMPLATE_CHARACTERS:,} are "
            "taken. Use a shorter one, or leave it out to use the default one."
        )
    return compiled(source)


@lru_cache(maxsize=16)
def compiled(source: str) -> jinja2.Template:
    """Compiling costs about as much as rendering a hundred messages."""
    sandbox = Sandbox()
    try:
        tree = Ticks().visit(sandbox.parse(source))
        tree.set_environment(sandbox)
        return jinja2.Template.from_code(sandbox, sandbox.compile(tree), dict(sandbox.globals))
    except jinja2.TemplateSyntaxError as fault:
        raise InputError(
            f"chat template, line {fault.lineno}: {fault.message}. Expected a Jinja template; "
            "mend it or leave it out to use the default one."
        ) from fault
    except Exception as fault:  # the parser is foreign code that meets foreign text
        raise InputError(
            f"chat template: it cannot be read as Jinja ({type(fault).__name__}: {fault}). "
            "Mend it or leave it out to use the default one."
        ) from fault


def run_template(template: jinja2.Template, values: Mapping[str, Any], characters: int) -> str:
    """What the template writes.

    Args:
        values: what it sees; plain JSON types only.
        characters: size of the input, which the limits are measured by.

    Raises:
        InputError: the template refuses the values, fails, or goes over a limit.
    """
    environment = template.environment
    assert isinstance(environment, Sandbox)
    running = environment.running
    running.budget = Budget(characters)
    try:
        text = template.render(values)
    except LimitError as fault:
        raise StoppedTemplate(
            f"chat template: stopped, {fault}. Mend the template or leave it out to use the "
            "default one."
        ) from None
    except jinja2.TemplateError as fault:
        raise InputError(
            f"chat template: {str(fault).rstrip('.')}. Change the messages or use a template that "
            "takes them."
        ) from fault
    except Exception as fault:  # foreign code: whatever goes wrong in it is the template's fault
        raise InputError(
            f"chat template: fails on these messages ({type(fault).__name__}: {fault}). "
            "Change the messages or use a template that takes them."
        ) from fault
    finally:
        running.budget = None
    if len(text) > OUTPUT_CHARACTERS + 100 * characters:
        raise InputError(
            f"chat template: {len(text):,} characters come of {characters:,}; at most "
            f"{OUTPUT_CHARACTERS + 100 * characters:,} are taken. Mend the template or leave it "
            "out to use the default one."
        )
    return text


def written_out(value: Any, known: dict[int, int], step: Callable[[int], None]) -> int:
    """Items and characters that a nested value has when it is written; each part is met once."""
    if isinstance(value, Namespace):
        value = object.__getattribute__(value, "_Namespace__attrs")
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    if not isinstance(value, (dict, list, tuple)):
        return 1 + length(value)
    if id(value) not in known:
        step(len(value))
        known[id(value)] = 0  # of a value inside itself, whose writing Python cuts short
        parts = (*value, *value.values()) if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(written_out(part, known, step) for part in parts)
    return known[id(value)]


def size(value: Any) -> int:
    """What a value can add to the result of a call: characters, or the number itself."""
    return abs(value) if isinstance(value, int) else written_out(value, {}, lambda items: None)


def cost(value: Any) -> int:
    """What a value takes of the memory, in characters; what its items refer to is not new."""
    return length(value) * (1 if isinstance(value, str) else ITEM)


def depth(value: Any, known: dict[int, int]) -> int:
    """Levels of lists and dictionaries in each other; each part is met once."""
    if not isinstance(value, (dict, list, tuple)):
        return 0
    if id(value) not in known:
        known[id(value)] = 0
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + max((depth(part, known) for part in parts), default=0)
    return known[id(value)]


def length(value: Any) -> int:
    """Characters of a text, items of a list; 0 for the rest."""
    return len(value) if isinstance(value, (str, list, tuple, dict)) else 0


def check_widths(form: str) -> None:
    """Refuse "{:1000000000}" and "%1000000000d", and many smaller ones that come to as much."""
    widths = NUMBERS.findall(form)
    if max(map(len, widths), default=0) > 6 or sum(map(int, widths)) > LARGEST_NUMBER:
        raise LimitError("a format asks for more than 999,999 characters")


def refuse(reason: str) -> NoReturn:
    """`raise_exception` of chat templates."""
    raise jinja2.TemplateError(reason)


def now(form: str) -> str:
    """`strftime_now` of chat templates."""
    check_widths(form)
    return datetime.now().strftime(form)


def plain_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    """`dict(…)` without the class."""
    return dict(*args, **kwargs)
