"""The comparison of runs in every form: terminal, JSON, Markdown, one HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yunque.errors import InputError
from yunque.files import write_json, write_text
from yunque.reports.charts import STEP_FIGURES, figure, line, trace
from yunque.reports.compare import Comparison
from yunque.reports.exams import with_accuracy
from yunque.reports.frame import chart_places, document
from yunque.reports.markup import both, details, foreign, section, spans, table
from yunque.reports.report import plain
from yunque.words import say
from yunque.words.report import counted_in, tell
from yunque.words.writing import visible

COLOURS = 8
"""Colours of runs in the style of the page; further runs take them anew, dashed."""


def to_json(made: Comparison) -> dict[str, Any]:
    """All of it, as numbers, rows and sentences."""
    return {
        "runs": [
            {
                "name": name,
                "source": one.json["source"],
                "facts": one.analysis.facts,
                "verdict": one.analysis.verdict,
            }
            for name, one in zip(made.names, made.runs, strict=True)
        ],
        "summary": made.summary,
        "from_recipes": made.from_recipes,
        "differences": [{"key": k, "values": v} for k, v in made.differences.items()],
        "measures": [
            {"id": id, "values": [{"value": c.value, "evidence": c.evidence} for c in cells]}
            for id, cells in made.measures.items()
        ],
        "claims": [vars(one) for one in made.claims],
        "unknown": made.unknown,
    }


def shown(value: Any) -> str:
    """A setting as it stands in a recipe."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def setting_rows(made: Comparison, lang: str) -> list[list[str]]:
    """The settings that differ, in one language, as text."""
    absent = say("compare.absent", lang)
    return [
        [visible(key), *[absent if v is None else visible(shown(v)) for v in values]]
        for key, values in made.differences.items()
    ]


def measure_rows(made: Comparison, lang: str) -> list[list[str]]:
    """The figures, in one language, as text."""
    return [
        [label(made, id)[lang], *[cell.text[lang] for cell in cells]]
        for id, cells in made.measures.items()
    ]


def alike(made: Comparison) -> dict[str, str]:
    """What stands where nothing differs."""
    return tell("compare.same_recipe" if made.from_recipes else "compare.same_facts")


def origin(made: Comparison) -> dict[str, str]:
    """Where the settings come from."""
    return tell("compare.from_recipe" if made.from_recipes else "compare.from_log")


def terminal(made: Comparison, lang: str) -> str:
    """Plain text: the summary, the tables, the claims."""
    names = [visible(name) for name in made.names]
    lines = [say("compare.title", lang).upper(), made.summary[lang], ""]
    lines += [say("compare.measures", lang), *columns(["", *names], measure_rows(made, lang)), ""]
    lines.append(say("compare.recipe", lang))
    rows = setting_rows(made, lang)
    lines += columns(["", *names], rows) if rows else [f"  {alike(made)[lang]}"]
    lines += ["", say("compare.claims", lang)]
    lines += [f"  - {one.text[lang]}" for one in made.claims]
    lines += ["", say("compare.unknown", lang)]
    lines += [f"  - {one['text'][lang]}" for one in made.unknown]
    return "\n".join(lines) + "\n"


def columns(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table of text, its columns as wide as their longest cell (40 characters at most)."""
    cells = [[c if len(c) <= 40 else c[:39] + "…" for c in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def markdown(made: Comparison, lang: str) -> str:
    """The same as Markdown; what comes from the logs stands as text."""
    names = [plain(name) for name in made.names]
    lines = [f"# {say('compare.title', lang)}", "", plain(made.summary[lang]), ""]
    for title, head, rows in (
        ("compare.measures", "compare.measure", measure_rows(made, lang)),
        ("compare.recipe", "compare.setting", setting_rows(made, lang)),
    ):
        lines += [f"## {say(title, lang)}", ""]
        if rows:
            lines.append(f"| {' | '.join([say(head, lang), *names])} |")
            lines.append("|---" * (len(names) + 1) + "|")
            lines += [f"| {' | '.join(plain(c) for c in row)} |" for row in rows]
        else:
            lines.append(alike(made)[lang])
        lines.append("")
    lines += [f"## {say('compare.claims', lang)}", ""]
    for one in made.claims:
        proof = [
            f"{plain(e['run'])} {e['row']} {plain(e['field'])} {plain(str(e['value']))}"
            for e in one.evidence
        ]
        row = say("report.evidence.row", lang)
        lines.append(f"- {plain(one.text[lang])} ({row}: {'; '.join(proof)})")
    lines += ["", f"## {say('compare.unknown', lang)}", ""]
    lines += [f"- {one['text'][lang]}" for one in made.unknown]
    return "\n".join(lines) + "\n"


def html(made: Comparison, lang: str) -> str:
    """One page that needs no network."""
    drawn = figures(made)
    unknown = "".join(f"<li>{spans(one['text'])}</li>" for one in made.unknown)
    main = (
        '<section class="verdict" aria-labelledby="verdict">'
        f'<h1 id="verdict">{both("compare.title")}</h1><p>{spans(made.summary)}</p>'
        f'<p class="small">{both("compare.reference", name=made.names[0])}</p></section>'
        + measures_html(made)
        + (section("report.curves", chart_places(drawn, "", made.counted)) if drawn else "")
        + section("compare.recipe", settings_html(made))
        + claims_html(made)
        + section("compare.unknown", f"<ul>{unknown}</ul>" if unknown else "")
    )
    foot = "".join(
        f"<p><b>{foreign(name)}</b> · {foreign(one.log.path)} · {foreign(one.log.format)} · "
        f"SHA-256: {one.log.sha256[:16]}</p>"
        for name, one in zip(made.names, made.runs, strict=True)
    )
    return document(
        tell("compare.title"), ", ".join(made.names), main, drawn, foot, lang, "", made.counted
    )


def label(made: Comparison, id: str) -> dict[str, str]:
    """The name of a measure; what the logs count stands in it for steps, updates aside."""
    told = tell(f"compare.measure.{id}")
    return told if id == "steps" else counted_in(told, made.counted)


def key_of(index: int, name: str) -> str:
    """A run's name beside the colour of its curves."""
    return f'<i class="key" style="--tint:var(--run{index % COLOURS})"></i>{foreign(name)}'


def heads(made: Comparison, first: str) -> list[str]:
    """The head of a table with a column for each run."""
    return [both(first), *[key_of(i, name) for i, name in enumerate(made.names)]]


def measures_html(made: Comparison) -> str:
    """The figures side by side, and the rows that prove them."""
    none = f'<span class="none">{both("compare.absent")}</span>'
    rows = [
        [
            spans(label(made, id)),
            *[none if cell.value is None else spans(cell.text) for cell in cells],
        ]
        for id, cells in made.measures.items()
    ]
    proof = [
        [spans(label(made, id)), foreign(name), *proof_cells(e)]
        for id, cells in made.measures.items()
        for name, cell in zip(made.names, cells, strict=True)
        for e in cell.evidence
    ]
    head = [both("compare.measure"), both("compare.run"), *proof_heads()]
    body = table(both("compare.measures"), heads(made, "compare.measure"), rows)
    body += details("report.evidence", table(both("report.evidence"), head, proof))
    return section("compare.measures", body)


def proof_heads() -> list[str]:
    """Row, field, value."""
    return [both(f"report.evidence.{key}") for key in ("row", "field", "value")]


def proof_cells(one: dict[str, Any]) -> list[str]:
    """Where a figure stands in its log."""
    field = f"<code>{foreign(str(one['field']))}</code>"
    return [str(one["row"]), field, foreign(str(one["value"]))]


def settings_html(made: Comparison) -> str:
    """What differed."""
    if not made.differences:
        return f"<p>{spans(alike(made))}</p>"
    none = f'<span class="none">{both("compare.absent")}</span>'
    rows = [
        [f"<code>{foreign(key)}</code>", *[none if v is None else foreign(shown(v)) for v in row]]
        for key, row in made.differences.items()
    ]
    found = table(both("compare.recipe"), heads(made, "compare.setting"), rows)
    return f'{found}<p class="small">{spans(origin(made))}</p>'


def claims_html(made: Comparison) -> str:
    """One card a claim, with its rows and its numbers."""
    cards = ""
    for one in made.claims:
        rows = [[foreign(e["run"]), *proof_cells(e)] for e in one.evidence]
        proof = table(both("report.evidence"), [both("compare.run"), *proof_heads()], rows)
        numbers = [[f"<code>{foreign(k)}</code>", str(v)] for k, v in one.numbers.items()]
        exact = table(both("report.numbers"), [both("report.fact"), both("report.value")], numbers)
        cards += (
            f'<article class="card"><p>{spans(one.text)}</p>'
            f"{details('report.evidence', proof + exact)}</article>"
        )
    note = f'<p class="small">{both("compare.noise")}</p>'
    return section("compare.claims", f'<div class="cards">{cards}</div>{note}' if cards else "")


def figures(made: Comparison) -> list[dict[str, Any]]:
    """The curves of all runs over each other, as plotly specifications."""
    drawn: dict[str, list[dict[str, Any]]] = {}
    for i, (name, one) in enumerate(zip(made.names, made.runs, strict=True)):
        label, log, role = visible(name), one.log, f"run{i % COLOURS}"
        val = line(log.evals, "val_loss", "", role)
        train = line(log.steps, "train_loss", "", role)
        rows = [
            ("loss", train, "compare.curve_train", "dot" if val.rows else "solid"),
            ("loss", val, "compare.curve_val", "solid"),
            ("exam", line(with_accuracy(log), "accuracy", "", role), "compare.curve", "solid"),
            ("general_loss", line(log.evals, "general_loss", "", role), "compare.curve", "solid"),
            *[(k, line(log.steps, k, "", role), "compare.curve", "solid") for k in STEP_FIGURES],
        ]
        for id, found, key, dash in rows:
            if found.rows:
                drawn.setdefault(id, []).append(trace(found, id, tell(key, name=label), dash))
                if found is train and val.rows:
                    drawn[id][-1]["line"]["width"] = 1
    ours = all(one.log.format == "yunque" for one in made.runs)
    titles = {"loss": "loss_unit" if ours else "loss_plain", "exam": "accuracy"}
    order = ("loss", "exam", "general_loss", *STEP_FIGURES)
    return [
        figure(id, f"report.{titles.get(id, id)}", drawn[id], [], []) for id in order if id in drawn
    ]


def write(made: Comparison, target: Path, lang: str) -> Path:
    """Write the comparison as the ending of the file says.

    Raises:
        InputError: the ending is none of .html, .json, .md.
        StorageError: it cannot be written.
    """
    if target.suffix == ".html":
        write_text(target, html(made, lang))
    elif target.suffix == ".json":
        write_json(target, to_json(made))
    elif target.suffix == ".md":
        write_text(target, markdown(made, lang))
    else:
        raise InputError(f"{target}: a comparison is written as .html, .json or .md.")
    return target
