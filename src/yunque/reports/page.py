"""The report of one run as an HTML page: its sections."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import numpy as np

from yunque.reports.analysis import Analysis, staged_curve
from yunque.reports.charts import POINTS, figures
from yunque.reports.curve import curve
from yunque.reports.exam_page import exams, forgotten
from yunque.reports.findings import Text
from yunque.reports.frame import chart_places, document
from yunque.reports.ledger_page import ledger_section
from yunque.reports.log import Log, Record
from yunque.reports.markup import (
    ANSI,
    both,
    details,
    explanations,
    foreign,
    glossed,
    section,
    spans,
    table,
)
from yunque.reports.pictures import little_picture
from yunque.words.report import WORDS, counted_in, tell

SAMPLES = 40
FACTS = {
    "steps": "integer",
    "epochs": "compact",
    "examples": "integer",
    "hours": "time_value",
    "first_train_loss": "loss_value",
    "last_train_loss": "loss_value",
    "lowest_train_loss": "loss_value",
    "lowest_train_step": "integer",
    "mean_train_loss": "loss_value",
    "best_val_loss": "loss_value",
    "best_val_step": "integer",
    "last_val_loss": "loss_value",
    "loss_rows": "integer",
    "eval_rows": "integer",
    "non_finite_rows": "integer",
}


def page(log: Log, analysis: Analysis, lang: str, live: bool = False) -> str:
    """The whole page, opened in `lang`; `live`: it asks its server for what is new."""
    drawn = figures(log, analysis)
    main = "".join(sections(log, analysis, drawn))
    foot = f"<p>{both('report.source')}: {spans(source(log))}</p>"
    version = log.sha256 if live else ""
    state = live_line(log) if live else ""
    return document(
        tell("report.title"), log.name, main, drawn, state + foot, lang, version, log.counted
    )


def label(key: str, log: Log) -> Text:
    """A label by its key; what the log counts stands in it for steps, updates aside."""
    told = tell(key)
    return told if key == "report.fact.steps" else counted_in(told, log.counted)


def live_line(log: Log) -> str:
    """Whether the run goes on, at the foot of the window; the page's script keeps it true."""
    numbers = f"<b data-rows>{log.rows}</b> {both('report.live.rows')} · <span data-time></span>"
    cases = {
        "on": f"{both('report.live.on')} · {numbers}",
        "ended": f"{both('report.live.ended')} · {numbers}",
        "fault": f"{both('report.live.fault')} <span data-fault></span>",
        "gone": both("report.live.gone"),
    }
    now = "on" if log.stop is None else "ended"
    spoken = "".join(
        f'<span data-case="{name}"{"" if name == now else " hidden"}>{text}</span>'
        for name, text in cases.items()
    )
    return f'<p id="live" role="status">{spoken}</p>'


def sections(log: Log, analysis: Analysis, drawn: list[dict[str, Any]]) -> list[str]:
    """The verdict and all that stands under it."""
    verdict = analysis.verdict
    return [
        f'<section class="verdict {escape(verdict["id"])}" aria-labelledby="verdict">'
        f'<h1 id="verdict">{both("report.id." + verdict["id"])}</h1>'
        f"<p>{glossed(verdict['text'])}</p></section>",
        curves(log, drawn),
        stages(log, analysis),
        findings(log, analysis),
        exams(log),
        forgotten(log),
        samples(log, analysis.facts["best_val_step"]),
        facts(log, analysis),
        ledger_section(log),
        details("report.settings", settings(log)),
        details("report.recipe", f"<pre>{foreign(log.recipe)}</pre>" if log.recipe else ""),
        unknown(analysis),
        details("report.glossary", glossary()),
        f"<div>{explanations()}</div>",
    ]


def source(log: Log) -> Text:
    """Which file was read."""
    path, name = ANSI.sub("", log.path), log.format
    return tell("report.source.text", path=path, format=name, rows=log.rows, sha256=log.sha256[:16])


def curves(log: Log, drawn: list[dict[str, Any]]) -> str:
    """The figures, and how many rows they leave out."""
    if not drawn:
        return section("report.curves", f"<p>{both('report.no_curves')}</p>")
    total = max(len(log.steps), len(log.evals))
    note = both("report.thinned", shown=POINTS, total=total) if total > POINTS else ""
    note = note and f'<p class="small">{note}</p>'
    return section("report.curves", chart_places(drawn, note, log.counted))


def stages(log: Log, analysis: Analysis) -> str:
    """The stages with their shares."""
    rows = [
        [
            both(f"report.stage.{one['id']}"),
            both("report.stage.range", **{k: one[k] for k in ("from_step", "to_step")}),
            both("report.share", value=one["share_of_improvement"]),
            both("report.share", value=one["share_of_time"]),
        ]
        for one in analysis.stages
    ]
    head = [spans(label(f"report.stage{k}", log)) for k in ("", ".steps", ".improvement", ".time")]
    lost = any((one["share_of_improvement"] or 0) < 0 for one in analysis.stages)
    note = f'<p class="small">{both("report.stage.lost")}</p>' if lost else ""
    train, val = curve(log.steps, "train_loss"), curve(log.evals, "val_loss")
    broke, over = (analysis.finding(id) is not None for id in ("diverged", "overfitting"))
    c = staged_curve(train, val, broke, over)
    key = f"report.stage.how.{c.name}{'_rows' if c.width > 1 else ''}"
    how = f'<p class="small">{both(key, width=c.width)}</p>'
    body = table(both("report.stages"), head, rows) + how + note + fifths(log)
    return section("report.stages", body) if rows else ""


def fifths(log: Log) -> str:
    """The fall of the training loss by fifths of the run, on demand."""
    c = curve(log.steps, "train_loss")
    if len(c.values) < 10 or c.values.min() >= c.values[0]:
        return ""
    first, won = float(c.values[0]), float(c.values[0] - c.values.min())
    rows = []
    for part in range(1, 6):
        end = c.steps[0] + part / 5 * (c.steps[-1] - c.steps[0])
        at = int(np.argmin(np.abs(c.steps - end)))
        row, loss = c.rows[at], float(c.values[at])
        rows.append(
            [
                str(part),
                both("report.integer", value=row.step),
                both("report.compact", value=row.epoch),
                both("report.loss_value", value=loss),
                both("report.fifths.share", value=(first - loss) / won),
            ]
        )
    names = ("fifths.part", "exam.step", "fifths.epochs", "fifths.loss", "fifths.done")
    found = table(both("report.fifths"), [spans(label(f"report.{n}", log)) for n in names], rows)
    return details("report.fifths", f'{found}<p class="small">{both("report.fifths.how")}</p>')


def findings(log: Log, analysis: Analysis) -> str:
    """One card a finding, the grave ones first."""
    order = ("problem", "warning", "info")
    cards = ""
    for one in sorted(analysis.findings, key=lambda f: order.index(f.severity)):
        rows = [
            [str(e["row"]), f"<code>{foreign(str(e['field']))}</code>", foreign(str(e["value"]))]
            for e in one.evidence
        ]
        head = [both(f"report.evidence.{k}") for k in ("row", "field", "value")]
        proof = table(both("report.evidence"), head, rows) if rows else ""
        numbers = [
            [f"<code>{foreign(str(key))}</code>", foreign(str(value))]
            for key, value in one.numbers.items()
        ]
        names = [both("report.fact"), both("report.value")]
        exact = table(both("report.numbers"), names, numbers) if numbers else ""
        cards += (
            f'<article class="card {one.severity}"><h3>{spans(label(f"report.id.{one.id}", log))} '
            f'<span class="badge">{both(f"report.severity.{one.severity}")}</span></h3>'
            f"{little_picture(log, one)}<p>{glossed(one.text)}</p>"
            f'<p class="advice"><b>{both("report.advice")}:</b> {glossed(one.advice)}</p>'
            f"{details('report.evidence', proof)}{details('report.numbers', exact)}</article>"
        )
    return section("report.findings", f'<div class="cards">{cards}</div>' if cards else "")


def samples(log: Log, best: int | None) -> str:
    """What the model wrote, in the order of the steps; the first, best and last stand open."""
    rows = [row for row in log.samples if isinstance(row.values.get("text"), str)]
    if not rows:
        return ""
    chosen = sorted({int(i) for i in np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows)))})
    body = ""
    if len(chosen) < len(rows):
        body = (
            f'<p class="small">{both("report.samples.shown", shown=len(chosen), total=len(rows))}'
        )
    for i in chosen:
        prompt = str(rows[i].values.get("prompt") or "")
        start = f"<b>{foreign(prompt)}</b>" if prompt else f"<i>{both('report.sample.empty')}</i> "
        opened = " open" if i in (chosen[0], chosen[-1]) or rows[i].step == best else ""
        body += (
            f"<details{opened}><summary>{both('report.sample', step=rows[i].step)}</summary>"
            f"<pre>{start}{foreign(str(rows[i].values['text']))}</pre></details>"
        )
    return section("report.samples", body)


def facts(log: Log, analysis: Analysis) -> str:
    """The facts; what is unknown says so."""
    rows = [
        [
            spans(label(f"report.fact.{key}", log)),
            both(f"report.{FACTS[key]}", value=value)
            if value is not None
            else f'<span class="none">{both("report.not_known")}</span>',
        ]
        for key, value in analysis.facts.items()
    ]
    head = [both("report.fact"), both("report.value")]
    return section("report.facts", table(both("report.facts"), head, rows, figures=True))


def settings(log: Log) -> str:
    """The start row (or what the other tool says of its settings) as it stands."""
    rows = [
        [f"<code>{foreign(str(key))}</code>", foreign(json.dumps(value, ensure_ascii=False))]
        for key, told in log.settings.items()
        for value in [dict(told.values) if isinstance(told, Record) else told]
    ]
    return table(both("report.settings"), [both("report.fact"), both("report.value")], rows)


def unknown(analysis: Analysis) -> str:
    """What the log cannot tell."""
    items = "".join(f"<li>{spans(one['text'])}</li>" for one in analysis.unknown)
    return section("report.unknown", f"<ul>{items}</ul>" if items else "")


def glossary() -> str:
    """The words that a beginner may not know."""
    terms = [key for key in WORDS if key.startswith("report.term.")]
    return "<ul>" + "".join(f"<li>{both(key)}</li>" for key in terms) + "</ul>"
