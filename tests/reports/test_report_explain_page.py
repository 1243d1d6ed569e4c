"""The page of `explain`: well-formed, escaped, self-contained, complete."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest

from yunque.reports.explain_page import explain_html

EVIL = '</span><script>alert("1")</script>&amp;\u202e\x1b[31m'


@dataclass(frozen=True)
class Token:
    id: int
    text: str
    probability: float | None
    rank: int | None
    alternatives: tuple[tuple[int, str, float], ...] = ()

    @property
    def loss(self) -> float | None:
        return None if self.probability is None else -math.log(self.probability)


TOKENS = (
    Token(7, "En", None, None),
    Token(12, " un", 0.25, 12345, ((3, " el", 0.5), (12, " un", 0.25), (5, EVIL, 0.00001))),
    Token(99, EVIL, 0.0005, 40000),
    Token(4, "\n", 0.9, 1),
)
SUMMARY = {
    "model": EVIL,
    "tokens": 12345,
    "loss": 2.3456,
    "perplexity": 10.44,
    "bits_per_byte": 1.25,
    "<own>": 3,
}
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting and collects elements, cells and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module", params=["en", "es"])
def page(request: pytest.FixtureRequest) -> tuple[str, str, Page]:
    html = explain_html(TOKENS, request.param, EVIL, SUMMARY)
    return request.param, html, Page(html)


def test_nothing_foreign_is_markup(page: tuple[str, str, Page]) -> None:
    _, html, parsed = page
    assert parsed.of("script") == []
    shown = '</span><script>alert("1")</script>&amp;\ufffd␛[31m'
    # Window title, subject, model, text, its tip, its row, alternatives in a tip and in a row.
    assert parsed.text.count(shown) == 8
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)
    assert "<own>" in parsed.text


def test_the_page_asks_nothing_of_the_network(page: tuple[str, str, Page]) -> None:
    lang, html, parsed = page
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert [a["href"] for a in parsed.of("a")] == ["#tokens"]
    assert not any("src" in attrs or "onload" in attrs for _, attrs in parsed.elements)
    policy = next(m["content"] for m in parsed.of("meta") if "http-equiv" in m)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert parsed.of("html") == [{"lang": lang}]


def test_every_token_can_be_reached_and_described(page: tuple[str, str, Page]) -> None:
    _, _, parsed = page
    spans = [a for a in parsed.of("span") if a.get("tabindex") == "0"]
    tips = {a["id"] for a in parsed.of("span") if a.get("role") == "tooltip"}
    assert [a["aria-describedby"] for a in spans] == ["t0", "t1", "t2", "t3"]
    assert tips == {"t0", "t1", "t2", "t3"}
    assert [a["class"] for a in spans] == ["t first", "t s1", "t s4", "t s0"]


def test_the_table_has_the_numbers(page: tuple[str, str, Page]) -> None:
    lang, _, parsed = page
    evil = EVIL.replace("\u202e", "\ufffd").replace("\x1b", "␛")
    rows = [[cell.replace("\u00a0", " ") for cell in row] for row in parsed.rows]
    expected = {
        "en": [
            ["1", "En", "7", "-", "-", "-", ""],
            ["2", "·un", "12", "25.00%", "1.386", "12,345", f"·el 50.0% ·un 25.0% {evil} <0.1%"],
            ["3", evil, "99", "0.05%", "7.601", "40,000", ""],
            ["4", "↵", "4", "90.00%", "0.105", "1", ""],
        ],
        "es": [
            ["1", "En", "7", "-", "-", "-", ""],
            [
                "2",
                "·un",
                "12",
                "25,00 %",
                "1,386",
                "12 345",
                f"·el 50,0 % ·un 25,0 % {evil} <0,1 %",
            ],
            ["3", evil, "99", "0,05 %", "7,601", "40 000", ""],
            ["4", "↵", "4", "90,00 %", "0,105", "1", ""],
        ],
    }
    assert rows[1:] == expected[lang]
    assert len(rows[0]) == 7


def test_the_summary_is_labelled_and_in_the_language(page: tuple[str, str, Page]) -> None:
    lang, _, parsed = page
    text = parsed.text.replace("\u00a0", " ")
    for expected in {
        "en": ("mean loss (nats per token)2.346", "tokens12,345", "bits per byte1.250"),
        "es": ("pérdida media (nats por token)2,346", "tokens12 345", "bits por byte1,250"),
    }[lang]:
        assert expected in text


def test_an_empty_text_is_a_page_too() -> None:
    parsed = Page(explain_html((), "en", "", {}))
    assert parsed.rows == [
        ["no.", "token", "id", "probability", "loss", "rank", "best alternatives"]
    ]
