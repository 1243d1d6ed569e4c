"""`report(path)`: a log in, a report out, in every form that a reader may want."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yunque.errors import InputError
from yunque.files import write_bytes, write_json, write_text
from yunque.reports import charts, page
from yunque.reports.analysis import Analysis, analyse
from yunque.reports.exam_page import forgetting_text
from yunque.reports.log import Log
from yunque.reports.markup import foreign, spans
from yunque.reports.read import read
from yunque.words import say
from yunque.words.report import tell
from yunque.words.writing import visible


@dataclass(frozen=True, repr=False)
class Report:
    """What a log tells; nothing is computed anew for another form or language."""

    log: Log
    analysis: Analysis
    lang: str

    @property
    def json(self) -> dict[str, Any]:
        """The report as the contract says (docs: `yunque report --json`)."""
        log, analysis = self.log, self.analysis
        source = {name: getattr(log, name) for name in ("format", "path", "rows", "sha256")}
        return {"source": source, **dataclasses.asdict(analysis)}

    @property
    def is_training_log(self) -> bool:
        """Whether the file was a log at all; where not, the command ends with exit code 2."""
        return self.log.format != "unknown"

    def summary(self, lang: str = "") -> str:
        """Plain text for a terminal: the verdict, the facts, the findings, the unknown."""
        lang = lang or self.lang
        verdict = self.analysis.verdict
        lines = [say(f"report.id.{verdict['id']}", lang).upper(), verdict["text"][lang], ""]
        known = {k: v for k, v in self.analysis.facts.items() if v is not None}
        names = {key: page.label(f"report.fact.{key}", self.log)[lang] for key in known}
        width = max(map(len, names.values()), default=0)
        for key, value in known.items():
            text = tell(f"report.{page.FACTS[key]}", value=value)[lang]
            lines.append(f"  {names[key]:<{width}}  {text}")
        lines += ["", say("report.findings", lang)]
        for one in self.analysis.findings:
            lines.append(f"  [{say(f'report.severity.{one.severity}', lang)}] {one.text[lang]}")
            if one.severity != "info":
                lines.append(f"    {say('report.advice', lang)}: {one.advice[lang]}")
        told = forgetting_text(self.log)
        if told is not None:
            lines += ["", say("report.forgetting", lang), f"  {told[lang]}"]
        if self.analysis.unknown:
            lines += ["", say("report.unknown", lang)]
            lines += [f"  - {one['text'][lang]}" for one in self.analysis.unknown]
        return "\n".join(lines) + "\n"

    def markdown(self, lang: str = "") -> str:
        """The same as Markdown; what comes from the log stands as text."""
        lang = lang or self.lang
        a = self.analysis
        lines = [f"# {say('report.title', lang)}: {say('report.id.' + a.verdict['id'], lang)}", ""]
        lines += [plain(a.verdict["text"][lang]), ""]
        names = (say("report.fact", lang), say("report.value", lang))
        lines += [f"| {names[0]} | {names[1]} |", "|---|---|"]
        for key, value in a.facts.items():
            if value is not None:
                text = tell(f"report.{page.FACTS[key]}", value=value)[lang]
                name = page.label(f"report.fact.{key}", self.log)[lang]
                lines.append(f"| {name} | {text} |")
        lines += ["", f"## {say('report.findings', lang)}", ""]
        for one in a.findings:
            title = page.label(f"report.id.{one.id}", self.log)[lang]
            head = title, say(f"report.severity.{one.severity}", lang)
            lines += [f"### {head[0]} ({head[1]})", "", plain(one.text[lang]), ""]
            lines += [f"{say('report.advice', lang)}: {plain(one.advice[lang])}", ""]
            proof = [
                f"{e['row']} {plain(str(e['field']))} {plain(str(e['value']))}"
                for e in one.evidence
            ]
            if proof:
                lines += [f"{say('report.evidence.row', lang)}: {'; '.join(proof)}", ""]
        told = forgetting_text(self.log)
        if told is not None:
            lines += [f"## {say('report.forgetting', lang)}", "", plain(told[lang]), ""]
        if a.unknown:
            lines += [f"## {say('report.unknown', lang)}", ""]
            lines += [f"- {plain(one['text'][lang])}" for one in a.unknown]
        return "\n".join(lines) + "\n"

    def html(self, lang: str = "") -> str:
        """One page that needs no network."""
        return page.page(self.log, self.analysis, lang or self.lang)

    def png(self, lang: str = "") -> bytes:
        """One picture of the curves."""
        return charts.png(self.log, self.analysis, lang or self.lang)

    def __repr__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, the findings and the picture, without the page's script."""
        picture = base64.b64encode(self.png()).decode()
        text = spans({self.lang: self.analysis.verdict["text"][self.lang], "": ""})
        found = ""
        for one in self.analysis.findings:
            kind = say(f"report.severity.{one.severity}", self.lang)
            advice = (
                "" if one.severity == "info" else f"<br><i>{foreign(one.advice[self.lang])}</i>"
            )
            found += f"<li><b>[{kind}]</b> {foreign(one.text[self.lang])}{advice}</li>"
        title = say("report.curves", self.lang)
        return (
            f"<h3>{say('report.id.' + self.analysis.verdict['id'], self.lang)}</h3><p>{text}</p>"
            f'<img alt="{title}" style="max-width:100%" src="data:image/png;base64,{picture}">'
            f"<ul>{found}</ul>"
        )


def plain(text: str) -> str:
    """Text in which nothing is markup to Markdown or HTML."""
    return re.sub(r"([\\`*_<>\[\]|#~=])", r"\\\1", visible(text))


def report(path: Path, lang: str = "en", columns: Mapping[str, str] | None = None) -> Report:
    """Read a run folder or a log and say what happened. A run that still goes on is welcome.

    Args:
        path: a run folder or a log of any tool that Yunque reads.
        lang: the language of the page, "en" or "es".
        columns: which columns of a table hold what, where their names do not tell:
            {"step": "it", "train_loss": "my loss"}.

    Raises:
        InputError: nothing there, or a run log with a broken line.
    """
    log = read(Path(path), columns)
    return Report(log, analyse(log), lang)


def write(made: Report, target: Path) -> list[Path]:
    """Write the report: into a folder as report.html, report.json and report.png, else one file.

    Raises:
        InputError: the ending of the file is none of .html, .json, .md, .png.
        StorageError: it cannot be written.
    """
    if target.is_dir():
        return [write(made, target / f"report{end}")[0] for end in (".html", ".json", ".png")]
    if target.suffix == ".html":
        write_text(target, made.html())
    elif target.suffix == ".json":
        write_json(target, made.json)
    elif target.suffix == ".md":
        write_text(target, made.markdown())
    elif target.suffix == ".png":
        write_bytes(target, made.png())
    else:
        raise InputError(
            f"{target}: a report is written as .html, .json, .md or .png, or into a folder that is "
            "there."
        )
    return [target]
