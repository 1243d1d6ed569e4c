"""The ledger as a self-contained HTML page, or as a section of a run's report.

Equations, sources, doubts, records token by token.

No script and no network; everything foreign is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from yunque.reports.log import Log
from yunque.reports.markup import both, details, foreign, section, spans, table
from yunque.words import LANGUAGES, say
from yunque.words.ledger import equations, example_place, left_aside
from yunque.words.writing import number, visible

SOURCES = 100
"""Rows of the table of sources at most, in a report."""
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1a1a1a; --quiet: #5a5a5a;
  --line: #c9c9c9; --loss: #c8efcf; --loss-ink: #0b3d17; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #ececec; --quiet: #a9adb3;
  --line: #44484e; --loss: #1f5130; --loss-ink: #eaffea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 1.75rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""
EXAMPLE_STYLE = """
.text { white-space: pre-wrap; font: .95rem/1.8 ui-monospace, Menlo, Consolas, monospace;
  border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; color: var(--quiet);
  margin: 0; }
mark { background: var(--loss); color: var(--loss-ink); border-radius: .15rem; }
.t { border-right: 1px solid var(--line); }
@media (forced-colors: active) { mark { text-decoration: underline; } }
"""
"""How records stand token by token; the colours are those of the page."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def ledger_html(
    ledger: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, Any]],
    aside: Mapping[str, int],
    doubts: Sequence[str],
    lang: str,
    title: str,
) -> str:
    """The page as one string.

    Args:
        ledger: unit → account, as `Account.to_json` makes it.
        sources: of `Prepared.facts`; name, encoding, documents, tokens, with_loss are shown.
        examples: of `Prepared.facts`.
        aside: `left_aside` of `Prepared.facts`.
        doubts: sentences in `lang`, as shown before step 1.
        title: what was prepared.
    """

    def word(name: str) -> str:
        return escape(say(f"ledger.{name}", lang))

    lines = "".join(f"<li>{escape(line)}</li>" for line in equations(ledger, lang))
    remarks = "".join(f"<li>{escape(visible(text))}</li>" for text in doubts)
    remarks = f"<ul>{remarks}</ul>" if remarks else f"<p>{word('nothing')}</p>"
    columns = ("documents", "tokens", "with_loss")
    heads = "".join(f'<th scope="col" class="n">{word(name)}</th>' for name in columns)
    rows = "".join(
        f"<tr><td>{escape(visible(str(source['name'])))}</td>"
        f"<td>{escape(str(source.get('encoding', '')))}</td>"
        + "".join(f'<td class="n">{number(source[name], lang)}</td>' for name in columns)
        + "</tr>"
        for source in sources
    )
    names = [str(source["name"]) for source in sources]
    shown = "".join(_example(example, names, lang) for example in examples)
    parts = [f"<ul>{lines}</ul>", f"<h2>{word('doubts')}</h2>{remarks}"]
    if rows:
        parts.append(
            f'<h2>{word("sources")}</h2><div class="wide"><table><tr>'
            f'<th scope="col">{word("source")}</th><th scope="col">{word("encoding")}</th>{heads}'
            f"</tr>{rows}</table></div>"
        )
    parts += [f"<p>{escape(visible(line))}</p>" for line in left_aside(aside, lang)]
    if shown:
        parts.append(f"<h2>{word('examples')}</h2>{shown}")
    return f"""<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{word("title")}: {escape(visible(title))}</title>
<style>{STYLE}{EXAMPLE_STYLE}</style>
</head>
<body>
<h1>{word("title")}: {escape(visible(title))}</h1>
{"".join(parts)}
</body>
</html>
"""


def _example(example: Mapping[str, Any], names: Sequence[str], lang: str) -> str:
    left = example["left_out"]
    end = f" {escape(say('ledger.left_out', lang, n=number(left, lang)))}" if left else ""
    heading = example_heading(example, names, lang)
    return f'<h3>{escape(heading)}</h3><p class="text">{tokens_html(example)}{end}</p>'


def example_heading(example: Mapping[str, Any], names: Sequence[str], lang: str) -> str:
    """Where a record stands, and which split it went to."""
    place = example_place(example, names, lang)
    spoken = say(f"ledger.{example['split']}", lang)
    return say("ledger.example", lang, place=visible(place), split=spoken)


def tokens_html(example: Mapping[str, Any]) -> str:
    """The tokens of a record; those that carry loss are marked."""
    tokens = []
    for token, carries in example["tokens"]:
        text = f'<span class="t">{escape(visible(str(token)))}</span>'
        tokens.append(f"<mark>{text}</mark>" if carries else text)
    return "".join(tokens)


def ledger_section(log: Log) -> str:
    """The ledger of a run as a section of its report, in both languages; empty where it has none.

    A file that is damaged or of another kind is one line.
    """
    if log.ledger_fault:
        return section(
            "report.ledger", f"<p>{both('report.ledger.damaged', place=log.ledger_fault)}</p>"
        )
    ledger = log.ledger
    if ledger is None:
        return ""
    told = {lang: equations(ledger.accounts, lang) for lang in LANGUAGES}
    lines = [dict(zip(told, pair, strict=True)) for pair in zip(*told.values(), strict=True)]
    body = f"<ul>{''.join(f'<li>{spans(line)}</li>' for line in lines)}</ul>"
    names = [one["name"] for one in ledger.sources]
    counts = ("documents", "tokens", "with_loss")
    rows = [
        [foreign(one["name"]), foreign(one["encoding"])]
        + [both("report.ledger.count", value=one[name]) for name in counts]
        for one in ledger.sources[:SOURCES]
    ]
    head = [both(f"ledger.{name}") for name in ("source", "encoding", *counts)]
    if rows:
        body += table(both("ledger.sources"), head, rows, figures=True)
    aside = {lang: " ".join(left_aside(ledger.left_aside, lang)) for lang in LANGUAGES}
    if ledger.left_aside:
        body += f"<p>{spans(aside)}</p>"
    if len(names) > len(rows):
        body += (
            f'<p class="small">{both("report.ledger.shown", shown=len(rows), total=len(names))}</p>'
        )
    examples = ""
    for one in ledger.examples:
        heading = {lang: example_heading(one, names, lang) for lang in LANGUAGES}
        left = one["left_out"]
        end = f" {both('report.ledger.left_out', n=left)}" if left else ""
        examples += f'<h4>{spans(heading)}</h4><p class="text">{tokens_html(one)}{end}</p>'
    if examples:
        body += details("ledger.examples", examples)
    return section("report.ledger", body)
