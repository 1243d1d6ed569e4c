"""`explain` as a self-contained HTML page: the text painted by its loss, then all its tokens.

No script and no network: the numbers of a token appear at the foot of the window while it is
pointed at, focused or tapped, by style rules alone. Everything foreign is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from yunque.words import say
from yunque.words.explain import SURPRISES, ExplainedToken, legend, surprise
from yunque.words.writing import marked, number, painted_text, percent, visible

STYLE = (
    """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1a1a1a; --quiet: #5a5a5a;
  --line: #c9c9c9; --box: #f3f3f3; --focus: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #ececec; --quiet: #a9adb3;
  --line: #44484e; --box: #22252a; --focus: #7db8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 11rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 1.75rem 0 .5rem; }
a { color: var(--focus); }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
.quiet { color: var(--quiet); }
dl { display: flex; flex-wrap: wrap; gap: .5rem 1.75rem; margin: 1rem 0; }
dt { color: var(--quiet); font-size: .85rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: .35rem .5rem; list-style: none; padding: 0;
  margin: .25rem 0 1rem; font-size: .9rem; }
.legend li { padding: .1rem .5rem; border-radius: .2rem; border: 1px solid var(--line); }
.text { white-space: pre-wrap; font: 1.05rem/1.9 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; }
.t { border-radius: .15rem; padding: .12em 0; cursor: help; box-decoration-break: clone;
  -webkit-box-decoration-break: clone; }
.t:hover, .t:focus { outline: 2px solid var(--focus); outline-offset: 1px; }
.first { border-bottom: 2px dotted var(--quiet); }
.tip { display: none; position: fixed; left: 0; right: 0; bottom: 0; z-index: 1;
  padding: .6rem 1rem; background: var(--box); color: var(--ink); white-space: normal;
  border-top: 2px solid var(--focus); font: .95rem/1.45 system-ui, sans-serif;
  max-height: 11rem; overflow: auto; }
.t:hover > .tip, .t:focus > .tip { display: block; }
.t:hover > .tip { z-index: 2; }
.tip b { font-family: ui-monospace, Menlo, Consolas, monospace; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem .3rem;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.m { font-family: ui-monospace, Menlo, Consolas, monospace; white-space: nowrap; }
td.m span { padding: .1em .3em; border-radius: .15rem; }
td.a { min-width: 15rem; }
.alt { display: inline-block; margin-right: .8rem; white-space: nowrap; max-width: 100%;
  vertical-align: bottom; overflow: hidden; text-overflow: ellipsis; }
"""
    + "".join(
        f".s{i} {{ background: {step.background}; color: {step.foreground}; }}\n"
        for i, step in enumerate(SURPRISES)
        if step.background
    )
    + """
@media (forced-colors: active) {
  .s3, .s4 { text-decoration: underline; } .s4 { font-weight: bold; }
}
@media print { body { padding-bottom: 1rem; } .t { print-color-adjust: exact; } }
"""
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

NUMERIC = ' class="n"'
SUMMARY_LABELS = ("model", "tokens", "bytes", "mean_loss", "perplexity", "bits_per_byte")


def explain_html(
    tokens: Sequence[ExplainedToken], lang: str, title: str, summary: Mapping[str, Any]
) -> str:
    """The page as one string.

    Args:
        lang: "en" or "es", the language of the page.
        title: what the text is, shown under the heading and in the window's title.
        summary: figures over the whole text. `model`, `tokens`, `bytes`, `loss` (nats per
            token), `perplexity` and `bits_per_byte` have labels; others show their own name.
    """

    def word(key: str) -> str:
        return escape(say(f"explain.{key}", lang))

    heading, subject = word("title"), escape(visible(title))
    painted = "".join(_painted(token, i, lang) for i, token in enumerate(tokens))
    rows = "\n".join(_row(token, i, lang) for i, token in enumerate(tokens))
    keys = ("position", "token", "id", "probability", "loss", "rank", "alternatives")
    heads = "".join(
        f'<th scope="col"{"" if key in ("token", "alternatives") else NUMERIC}>{word(key)}</th>'
        for key in keys
    )
    steps = "".join(
        f'<li class="s{i}">{escape(words)}</li>' for i, words in enumerate(legend(lang))
    )
    return f"""<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{heading}: {subject}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#tokens">{word("skip")}</a>
<main>
<h1>{heading}</h1>
<p><bdi>{subject}</bdi></p>
{_summary(summary, lang)}
<h2 id="text">{word("text")}</h2>
<p class="quiet">{word("lead")}</p>
<p class="quiet" id="scale">{word("legend")}</p>
<ul class="legend" aria-labelledby="scale">{steps}</ul>
<div class="text">{painted}</div>
<h2 id="tokens">{word("table")}</h2>
<p class="quiet">{word("marks")}</p>
<div class="wide"><table aria-labelledby="tokens">
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
</main>
</body>
</html>
"""


def _summary(summary: Mapping[str, Any], lang: str) -> str:
    pairs = []
    for key, value in summary.items():
        label = {"loss": "mean_loss"}.get(key, key)
        name = say(f"explain.{label}", lang) if label in SUMMARY_LABELS else visible(str(key))
        pairs.append(
            f"<div><dt>{escape(name)}</dt><dd>{escape(_figure(key, value, lang))}</dd></div>"
        )
    return f"<dl>{''.join(pairs)}</dl>" if pairs else ""


def _figure(key: str, value: Any, lang: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return visible(str(value))
    if key == "perplexity":
        return number(value, lang, 1 if value is not None and value < 1000 else 0)
    return number(value, lang, 3 if isinstance(value, float) else 0)


def _kind(token: ExplainedToken) -> str:
    return "first" if token.loss is None else f"s{surprise(token.loss)}"


def _alternatives(token: ExplainedToken, lang: str) -> str:
    return " ".join(
        f'<span class="alt"><bdi>{escape(marked(text))}</bdi> {escape(percent(p, lang, 1))}</span>'
        for _, text, p in token.alternatives
    )


def _painted(token: ExplainedToken, index: int, lang: str) -> str:
    def word(key: str) -> str:
        return escape(say(f"explain.{key}", lang))

    if token.loss is None:
        numbers = word("first")
    else:
        figures = (
            ("probability", percent(token.probability, lang, 2)),
            ("loss", number(token.loss, lang, 3)),
            ("rank", number(token.rank, lang)),
        )
        numbers = " · ".join(f"{word(key)} {escape(value)}" for key, value in figures)
    tip = f"<b><bdi>{escape(marked(token.text))}</bdi></b> · {word('id')} {token.id} · {numbers}"
    if token.alternatives:
        tip += f"<br>{word('alternatives')}: {_alternatives(token, lang)}"
    shown = escape(painted_text(token.text))
    return (
        f'<span class="t {_kind(token)}" tabindex="0" aria-describedby="t{index}">{shown}'
        f'<span class="tip" role="tooltip" id="t{index}">{tip}</span></span>'
    )


def _row(token: ExplainedToken, index: int, lang: str) -> str:
    text = f'<span class="{_kind(token)}"><bdi>{escape(marked(token.text))}</bdi></span>'
    cells = [
        f'<td class="n">{number(index + 1, lang)}</td>',
        f'<td class="m">{text}</td>',
        f'<td class="n">{token.id}</td>',
        f'<td class="n">{escape(percent(token.probability, lang, 2))}</td>',
        f'<td class="n">{number(token.loss, lang, 3)}</td>',
        f'<td class="n">{number(token.rank, lang)}</td>',
        f'<td class="a">{_alternatives(token, lang)}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"
