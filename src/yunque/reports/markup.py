"""The pieces of the report page: escaped text in both languages, sections, tables."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from yunque.words import LANGUAGES
from yunque.words.report import TERMS, tell
from yunque.words.writing import visible

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")


def foreign(text: str) -> str:
    """A string from a log as text: no markup, no terminal codes, no reordering."""
    return escape(visible(ANSI.sub("", text), newlines=True))


def spans(text: dict[str, str]) -> str:
    """A sentence in every language; the style sheet shows the chosen one."""
    if len(set(text.values())) == 1:
        return escape(next(iter(text.values())))
    return "".join(f'<span lang="{lang}">{escape(one)}</span>' for lang, one in text.items())


WORD = {
    lang: re.compile(
        r"(\(?)(?:"
        + "|".join(rf"(?P<{key}>(?<!\w)(?:{terms[i]})(?!\w))" for key, terms in TERMS.items())
        + r")([.,;:)]*)",
        re.IGNORECASE,
    )
    for i, lang in enumerate(LANGUAGES)
}
"""The words of the glossary in each language, with the marks that stay on their line."""


def glossed(text: dict[str, str]) -> str:
    """`spans`, where the first use of each word of the glossary opens its explanation."""

    def explained(one: str, lang: str) -> str:
        told: set[str] = set()

        def button(found: re.Match[str]) -> str:
            key = next(key for key in TERMS if found[key])
            if key in told:
                return found[0]
            told.add(key)
            place = f'type="button" class="term" popovertarget="term-{key}"'
            before, after = found[1], found[found.re.groups]
            word = f"{before}<button {place}>{found[key]}</button>{after}"
            return f'<span class="whole">{word}</span>'

        return WORD[lang].sub(button, escape(one))

    return "".join(
        f'<span lang="{lang}">{explained(one, lang)}</span>' for lang, one in text.items()
    )


def explanations() -> str:
    """What `glossed` opens: a popover for each word, which needs no script."""
    return "".join(
        f'<div popover id="term-{key}">{both(f"report.term.{key}")}</div>' for key in TERMS
    )


def both(key: str, **values: Any) -> str:
    """`spans` of a sentence by its key."""
    return spans(tell(key, **values))


def section(key: str, body: str) -> str:
    """A section with its heading; nothing where it has no content."""
    if not body:
        return ""
    id = key.replace(".", "-")
    return f'<section aria-labelledby="{id}"><h2 id="{id}">{both(key)}</h2>{body}</section>'


def details(key: str, body: str) -> str:
    """A section that opens on demand."""
    return f"<details><summary>{both(key)}</summary>{body}</details>" if body else ""


def table(caption: str, head: list[str], rows: list[list[str]], figures: bool = False) -> str:
    """A table whose first column names its rows; `figures`: no cell is broken into two lines."""
    kind = ' class="n"' if figures else ""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="wide"><table{kind}><caption>{caption}</caption><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
