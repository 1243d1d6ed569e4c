"""The ledger as a self-contained HTML page: equations, sources, doubts, records token by token.

No script and no network; everything foreign is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from yunque.words import say
from yunque.words.ledger import equations
from yunque.words.writing import number, visible

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
.text { white-space: pre-wrap; font: .95rem/1.8 ui-monospace, Menlo, Consolas, monospace;
  border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; color: var(--quiet);
  margin: 0; }
mark { background: var(--loss); color: var(--loss-ink); border-radius: .15rem; }
.t { border-right: 1px solid var(--line); }
@media (forced-colors: active) { mark { text-decoration: underline; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def ledger_html(
    ledger: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, Any]],
    doubts: Sequence[str],
    lang: str,
    title: str,
) -> str:
    """The page as one string.

    Args:
        ledger: unit → account, as `Account.to_json` makes it.
        sources: of `Prepared.facts`; name, encoding, documents, tokens, with_loss are shown.
        examples: of `Prepared.facts`.
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
    if shown:
        parts.append(f"<h2>{word('examples')}</h2>{shown}")
    return f"""<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{word("title")}: {escape(visible(title))}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{word("title")}: {escape(visible(title))}</h1>
{"".join(parts)}
</body>
</html>
"""


def _example(example: Mapping[str, Any], names: Sequence[str], lang: str) -> str:
    source = example["source"]
    place = f"{names[source] if source < len(names) else ''}:{example['line']}"
    spoken = say(f"ledger.{example['split']}", lang)
    heading = say("ledger.example", lang, place=visible(place), split=spoken)
    tokens = []
    for token, carries in example["tokens"]:
        text = f'<span class="t">{escape(visible(str(token)))}</span>'
        tokens.append(f"<mark>{text}</mark>" if carries else text)
    left = example["left_out"]
    end = f" {escape(say('ledger.left_out', lang, n=number(left, lang)))}" if left else ""
    return f'<h3>{escape(heading)}</h3><p class="text">{"".join(tokens)}{end}</p>'
