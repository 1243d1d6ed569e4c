"""The frame of a page that needs nothing else: head, policy, both languages, style and script.

Every string goes through `html.escape` on its way in; JSON for the script is written so that no
`<` stands in it. The Content-Security-Policy allows only the scripts of this page, by their
hash, and no connection at all (a page that is watched: only to where it came from).
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

from yunque.reports.charts import AXES
from yunque.reports.findings import Text
from yunque.reports.ledger_page import EXAMPLE_STYLE
from yunque.reports.markup import both, foreign, spans
from yunque.words.report import counted_in, tell


def document(
    title: Text,
    name: str,
    main: str,
    drawn: list[dict[str, Any]],
    foot: str,
    lang: str,
    version: str = "",
    counted: str = "",
) -> str:
    """The whole page, opened in `lang`.

    Args:
        title: what the page is, said at its head and in the title of its window.
        name: what it is about: text of a log or a path.
        main: the sections, as HTML.
        drawn: the figures, for which `main` has the places.
        foot: what stands under it, as HTML.
        version: where the page is served and renews itself, what it shows; else empty.
        counted: what the log counts where it has no steps; else empty.
    """
    from plotly.offline import get_plotlyjs

    labels = {
        "perplexity": tell("report.perplexity"),
        "axes": {axis: counted_in(tell(f"report.{axis}"), counted) for axis in AXES},
    }
    data = json.dumps({"figures": drawn, "labels": labels}, ensure_ascii=False, allow_nan=False)
    live = [NEWS] if version else []
    scripts = [*([get_plotlyjs()] if drawn or version else []), SCRIPT, *live]
    hashes = " ".join(f"'sha256-{script_hash(one)}'" for one in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
        + ("; connect-src 'self'" if version else "")
    )
    mark = f' data-version="{escape(version)}"' if version else ""
    return f"""<!DOCTYPE html>
<html lang="{lang}" data-lang="{lang}"{mark}>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title[lang])} · {foreign(name)}</title>
<style>{STYLE}{EXAMPLE_STYLE}</style>
</head>
<body>
<header>
<p class="brand">Yunque · {spans(title)}</p>
<div role="group" class="switch" aria-label="{escape(tell("report.language")[lang])}">
<button type="button" data-to="en" aria-pressed="{str(lang == "en").lower()}">EN</button>
<button type="button" data-to="es" aria-pressed="{str(lang == "es").lower()}">ES</button>
</div>
</header>
<main>{main}</main>
<footer>{foot}</footer>
<script type="application/json" id="data">{data.replace("<", chr(92) + "u003c")}</script>
{"".join(f"<script>{one}</script>" for one in scripts)}
</body>
</html>
"""


def policy_of(html: str) -> str:
    """The policy that a page of `document` states, for the header of its server."""
    return html.partition('"Content-Security-Policy" content="')[2].partition('"')[0]


def script_hash(script: str) -> str:
    """The hash by which the policy knows an inline script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def chart_places(drawn: list[dict[str, Any]], note: str, counted: str = "") -> str:
    """The places of the figures and the buttons over them; `note` stands under them.

    `counted`: what the log counts where it has no steps.
    """
    places = {
        axis: axis != counted and any(axis_known(fig, axis) for fig in drawn) for axis in AXES
    }
    axes = "".join(
        f'<button type="button" data-axis="{axis}" aria-pressed="{str(axis == "steps").lower()}">'
        f"{spans(counted_in(tell(f'report.{axis}'), counted))}</button>"
        for axis, known in places.items()
        if known
    )
    toggles = "".join(
        f'<button type="button" data-toggle="{name}" aria-pressed="false">{both(key)}</button>'
        for name, key in (("log", "report.log_scale"), ("perplexity", "report.perplexity"))
    )
    body = f'<div class="controls" role="group">{toggles}<span class="gap"></span>{axes}</div>'
    body += '<div class="figures">'
    for fig in drawn:
        size = "figure large" if fig["id"] == "loss" else "figure"
        title = fig["layout"]["meta"]["title"]
        body += (
            f'<figure class="{size}"><figcaption>{spans(title)}</figcaption>'
            f'<div class="plot" id="plot-{fig["id"]}" role="img"></div></figure>'
        )
    return f"<noscript><p>{both('report.noscript')}</p></noscript>{body}</div>{note}"


def axis_known(fig: dict[str, Any], axis: str) -> bool:
    """Whether every point of a figure has its place on that axis."""
    return axis == "steps" or all(
        None not in trace["meta"]["x"][axis] for trace in fig["data"] if trace["x"]
    )


STYLE = """
:root{--page:#fbfbf9;--card:#fff;--ink:#1d2329;--soft:#5b6570;--rule:#dfe3e6;--accent:#0b62a8;
--batch:#9bb7d4;--train:#0072b2;--val:#d55e00;--mark:#5b6570;
--good:#19754a;--warn:#8a5a00;--bad:#b3261e;--stage-fast:#009e73;--stage-refinement:#56b4e9;
--stage-plateau:#999;--stage-overfitting:#d55e00;--stage-divergence:#d55e00;
--run0:#0072b2;--run1:#d55e00;--run2:#00805c;--run3:#b3558a;--run4:#8a6d00;--run5:#56606b;--run6:#2f7fb8;--run7:#7a3fb0;
--line:var(--rule);--quiet:var(--soft);--loss:#c8efcf;--loss-ink:#0b3d17}
@media (prefers-color-scheme:dark){:root{--page:#14181c;--card:#1c2228;--ink:#e8ebee;--soft:#a3adb7;
--rule:#333c45;--accent:#7cc0ff;--batch:#4f6f90;--train:#56b4e9;--val:#ff9e4a;--mark:#a3adb7;
--good:#63d39b;--warn:#f0bb55;--bad:#ff8a80;--loss:#1f5130;--loss-ink:#eaffea;
--run0:#56b4e9;--run1:#ff9e4a;--run2:#3ed3a5;--run3:#e79cc6;--run4:#e0c341;--run5:#b7c0ca;--run6:#8fd0ff;--run7:#c29bff;}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
header,main,footer{max-width:66rem;margin:0 auto;padding:0 1rem}
header{display:flex;justify-content:space-between;align-items:center;padding-top:1rem}
.switch{white-space:nowrap}.brand{margin:0;color:var(--soft);font-weight:600}
html[data-lang=en] [lang=es],html[data-lang=es] body [lang=en]{display:none}
h1{margin:0 0 .4rem;font-size:1.7rem;line-height:1.2}
h2{margin:2.2rem 0 .6rem;font-size:1.25rem}
h3{margin:0 0 .4rem;font-size:1.05rem}
h4{margin:1rem 0 .3rem;font-size:.95rem;overflow-wrap:anywhere}
.verdict{margin-top:1rem;padding:1.1rem 1.3rem;background:var(--card);border:1px solid var(--rule);
border-left:.4rem solid var(--warn);border-radius:.4rem}
.verdict p{margin:0;font-size:1.08rem}
.verdict.worked{border-left-color:var(--good)}
.verdict.overfitted,.verdict.diverged,.verdict.did_not_learn{border-left-color:var(--bad)}
.controls{display:flex;flex-wrap:wrap;gap:.4rem;margin-bottom:.6rem}
.gap{width:.8rem}
button{font:inherit;font-size:.9rem;padding:.25rem .7rem;color:var(--ink);background:var(--card);
border:1px solid var(--rule);border-radius:.3rem;cursor:pointer}
button[aria-pressed=true]{border-color:var(--accent);color:var(--accent);font-weight:600}
button:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.figures{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.large{grid-column:1/-1}
.figure{margin:0;min-width:0;background:var(--card);border:1px solid var(--rule);
border-radius:.4rem;padding:.6rem .6rem .2rem}
.figure figcaption{font-weight:600;padding-left:.3rem}
.plot{height:15rem}.large .plot{height:26rem}
.cards{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));
align-items:start}
.card{background:var(--card);border:1px solid var(--rule);border-left:.3rem solid var(--soft);
border-radius:.4rem;padding:.9rem 1rem}
.card.warning{border-left-color:var(--warn)}.card.problem{border-left-color:var(--bad)}
.card p{margin:.3rem 0}.advice{color:var(--soft)}.advice b{color:var(--ink)}
.badge{font-size:.75rem;font-weight:600;color:var(--soft);text-transform:uppercase;
letter-spacing:.04em}
.warning .badge{color:var(--warn)}.problem .badge{color:var(--bad)}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--accent)}
pre{margin:.4rem 0;padding:.7rem;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere;
background:var(--card);border:1px solid var(--rule);border-radius:.3rem;font-size:.9rem;
max-height:28rem;unicode-bidi:plaintext}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.95rem;font-variant-numeric:tabular-nums;margin:.8rem 0}
caption{text-align:left;color:var(--soft);padding-bottom:.2rem}
th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid var(--rule);
vertical-align:top}
th[scope=row]{font-weight:400}td{overflow-wrap:anywhere}table.n td{white-space:nowrap}
section[aria-labelledby] caption{position:absolute;clip-path:inset(50%);width:1px;height:1px;
overflow:hidden}
.key{display:inline-block;width:.7em;height:.7em;margin-right:.35em;border-radius:.15em;
background:var(--tint)}
#live{position:fixed;right:1rem;bottom:0;margin:0;padding:.3rem .8rem;background:var(--card);
border:1px solid var(--rule);border-bottom:0;border-radius:.4rem .4rem 0 0;max-width:100%}
[hidden]{display:none!important}
.spark{display:block;width:100%;max-width:20rem;height:3.5rem;margin:.2rem 0}
.spark path{fill:none;stroke:var(--train);stroke-width:1.5;vector-effect:non-scaling-stroke}
.spark circle{fill:var(--val)}
.term{all:unset;cursor:help;text-decoration:underline dotted;text-underline-offset:.2em}
.whole{white-space:nowrap}
.term:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
[popover]{max-width:min(28rem,90vw);color:var(--ink);background:var(--card);padding:1rem;
border:1px solid var(--accent);border-radius:.4rem}
.none,.small{color:var(--soft)}.small{font-size:.88rem}
footer{margin-top:2.5rem;padding-bottom:2rem;color:var(--soft);font-size:.85rem;
overflow-wrap:anywhere}
@media (max-width:40rem){body{font-size:15px}.large .plot{height:21rem}.verdict{padding:.9rem 1rem}
th,td{padding-right:.6rem}}
@media print{:root{--page:#fff;--card:#fff;--ink:#000;--soft:#444;--rule:#ccc;--accent:#000;
--batch:#9bb7d4;--train:#0072b2;--val:#d55e00;--mark:#5b6570}
button:not(.term),.switch,#live{display:none}.term{text-decoration:none}.card,.figure{break-inside:avoid}pre{max-height:none}}
"""

# Language, axis, scale and theme are the whole state of the page; `draw` makes it visible.
SCRIPT = """
'use strict';
(() => {
let {figures, labels} = JSON.parse(document.getElementById('data').textContent);
const root = document.documentElement;
const state = {lang: root.dataset.lang, axis: 'steps', log: false, perplexity: false};
const all = (query) => [...document.querySelectorAll(query)];
const press = (button, on) => button.setAttribute('aria-pressed', String(on));
const colour = (name) => getComputedStyle(root).getPropertyValue('--' + name).trim();

function trace(one, figure) {
  const name = one.meta.name[state.lang];
  const exp = state.perplexity && figure.id === 'loss';
  const x = state.axis === 'steps' ? one.x : one.meta.x[state.axis];
  const y = exp ? one.y.map((v) => (v < 700 ? Math.exp(v) : null)) : one.y;
  const tint = colour(one.meta.role);
  const range = one.customdata ? ' (%{customdata[0]:.3~g} – %{customdata[1]:.3~g})' : '';
  return {...one, x, y, name, line: {...one.line, color: tint},
    ...(one.error_y ? {error_y: {...one.error_y, color: tint}} : {}),
    marker: {...one.marker, color: tint},
    hovertemplate: '%{y:.4~g}' + range + '<extra>' + name + '</extra>'};
}

function layout(figure, place) {
  const meta = figure.layout.meta;
  const narrow = root.clientWidth < 600;
  const ink = colour('ink'), rule = colour('rule');
  const axis = {gridcolor: rule, linecolor: rule, zeroline: false, automargin: true};
  const marks = meta.marks.filter((one) => one.at[state.axis] != null);
  const placed = (one) => one.from[state.axis] != null && one.to[state.axis] != null;
  const stages = meta.stages.filter(placed);
  const span = Math.max(...stages.map((one) => one.to[state.axis]), 0);
  const size = narrow ? 11 : 13;
  // A label stands only where it fits between the ends of its stage.
  const wide = (one) => (one.to[state.axis] - one.from[state.axis]) / span
    * (place.clientWidth - 64) > 0.6 * size * one.text[state.lang].length;
  const late = (one) => one.at[state.axis] > 0.7 * span;
  const line = 1.4 * size / Math.max(60, place.clientHeight - 70);
  const title = {text: labels.axes[state.axis][state.lang], font: {size}};
  return {
    xaxis: {...axis, title, rangemode: 'tozero', hoverformat: ',.6~g',
      spikecolor: colour('mark'), spikethickness: 1},
    yaxis: {...axis, type: state.log ? 'log' : 'linear', tickformat: ',.6~g',
      ...(state.log ? {dtick: 'D2'} : {})},
    shapes: stages.map((one) => ({type: 'rect', yref: 'paper', y0: 0, y1: 1, layer: 'below',
      x0: one.from[state.axis], x1: one.to[state.axis], line: {width: 0},
      fillcolor: colour('stage-' + one.id), opacity: 0.16}))
      .concat(marks.map((one) => ({type: 'line', yref: 'paper', y0: 0, y1: 1,
      x0: one.at[state.axis], x1: one.at[state.axis],
      line: {color: colour('mark'), width: 1.5, dash: 'dash'}}))),
    annotations: stages.filter((one) => figure.id === 'loss' && wide(one)).map((one) => ({
      x: (one.from[state.axis] + one.to[state.axis]) / 2, y: 0, yref: 'paper', yanchor: 'bottom',
      text: one.text[state.lang], showarrow: false, font: {color: colour('soft'), size: size - 1}}))
      .concat(marks.map((one, i) => ({x: one.at[state.axis], y: 1 - line * i, yref: 'paper',
      text: one.text[state.lang], showarrow: false, yanchor: 'top',
      xanchor: late(one) ? 'right' : 'left', xshift: late(one) ? -4 : 4,
      font: {color: colour('mark')}}))),
    uirevision: state.axis + state.log + state.perplexity,
    hovermode: 'x unified', dragmode: narrow ? false : 'zoom', showlegend: figure.data.length > 1,
    legend: {orientation: 'h', x: 0, y: 1.02, yanchor: 'bottom'},
    separators: state.lang === 'es' ? ',\\u00a0' : '.,',
    margin: {l: 50, r: 14, t: 30, b: 40}, paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    modebar: {bgcolor: 'rgba(0,0,0,0)', color: colour('soft'), activecolor: colour('accent')},
    font: {color: ink, size},
    hoverlabel: {bgcolor: colour('card'), bordercolor: rule, font: {color: ink}},
  };
}

function draw() {
  root.lang = root.dataset.lang = state.lang;
  all('[data-to]').forEach((b) => press(b, b.dataset.to === state.lang));
  all('[data-axis]').forEach((b) => press(b, b.dataset.axis === state.axis));
  all('[data-toggle]').forEach((b) => press(b, state[b.dataset.toggle]));
  const tools = [['toImage', 'zoom2d', 'pan2d', 'zoomIn2d', 'zoomOut2d', 'resetScale2d']];
  const config = (figure) => ({displaylogo: false, responsive: true, modeBarButtons: tools,
    displayModeBar: root.clientWidth < 600 || figure.id !== 'loss' ? false : 'hover',
    doubleClick: 'reset'});
  for (const figure of figures) {
    const place = document.getElementById('plot-' + figure.id);
    if (!place) continue;
    const traces = figure.data.map((one) => trace(one, figure));
    const names = traces.map((one) => one.name).join(', ');
    const exp = state.perplexity && figure.id === 'loss';
    const title = (exp ? labels.perplexity : figure.layout.meta.title)[state.lang];
    place.previousElementSibling.textContent = title;
    place.setAttribute('aria-label', title + ': ' + names);
    Plotly.react(place, traces, layout(figure, place), config(figure));
  }
}

document.addEventListener('click', (event) => {
  const b = event.target.closest('[data-to],[data-axis],[data-toggle]');
  if (!b) return;
  if (b.dataset.to) state.lang = b.dataset.to;
  if (b.dataset.axis) state.axis = b.dataset.axis;
  if (b.dataset.toggle) state[b.dataset.toggle] = !state[b.dataset.toggle];
  draw();
});
document.addEventListener('news', (event) => { figures = event.detail; draw(); });
for (const query of ['(prefers-color-scheme: dark)', 'print', '(max-width: 600px)'])
  matchMedia(query).addEventListener('change', draw);
draw();
})();
"""

# A page that is served asks where it came from for what is new. Sections are exchanged one by one,
# so that the place on the page, open details and the zoom of the curves stay.
NEWS = """
'use strict';
(() => {
const root = document.documentElement, main = document.querySelector('main');
const line = document.getElementById('live');
const key = (one) => one.getAttribute('aria-labelledby') || one.className || one.textContent;
const places = (one) => [...one.querySelectorAll('.plot')].map((p) => p.id).join();
let version = root.dataset.version;

function exchange(sections) {
  const old = new Map([...main.children].map((one) => [key(one), one]));
  const fresh = sections.map((text) => {
    const box = document.createElement('template');
    box.innerHTML = text;
    const one = box.content.firstElementChild, was = old.get(key(one));
    // Curves stay where they are and are drawn anew: their zoom is kept.
    if (was && places(one) && places(one) === places(was)) return was;
    if (was) {
      const open = [...was.querySelectorAll('details')].map((d) => d.open);
      [...one.querySelectorAll('details')].forEach((d, i) => { d.open = open[i] ?? d.open; });
      if (was.tagName === 'DETAILS') one.open = was.open;
    }
    return one;
  });
  main.replaceChildren(...fresh);
}

function say(name, values) {
  for (const one of line.querySelectorAll('[data-case]')) one.hidden = one.dataset.case !== name;
  for (const [what, value] of Object.entries(values))
    line.querySelectorAll('[data-' + what + ']').forEach((one) => { one.textContent = value; });
}

async function ask() {
  try {
    const answer = await fetch('/news?have=' + version, {cache: 'no-store'});
    if (answer.status === 200) {
      const found = await answer.json();
      if (found.version !== version) {
        exchange(found.sections);
        document.dispatchEvent(new CustomEvent('news', {detail: found.figures}));
        version = root.dataset.version = found.version;
      }
      const now = new Date().toTimeString().slice(0, 8);
      const name = found.fault ? 'fault' : found.ended ? 'ended' : 'on';
      say(name, {rows: found.rows, time: now, fault: found.fault});
    }
  } catch { say('gone', {}); }
  setTimeout(ask, 2000);
}
ask();
})();
"""
