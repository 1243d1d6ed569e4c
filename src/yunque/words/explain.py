"""Sentences of `explain`, and the five steps of surprise that its two views share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from yunque.words import say
from yunque.words.writing import percent


class ExplainedToken(Protocol):
    """One token of a text and what the model expected in its place.

    The first token of a text has None for probability, loss and rank.
    """

    @property
    def id(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def probability(self) -> float | None: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def alternatives(self) -> Sequence[tuple[int, str, float]]: ...


@dataclass(frozen=True)
class Surprise:
    """A step of the scale: tokens of at least this probability, and how they are painted.

    The backgrounds darken from step to step, so that the scale is read by lightness and needs
    no colour vision; each foreground has a contrast of at least 4.5 on its background.
    """

    key: str
    least_probability: float
    background: str
    foreground: str


SURPRISES = (
    Surprise("expected", 0.5, "", ""),  # the reader's own colours
    Surprise("likely", 0.1, "#fdeaa8", "#1a1a1a"),
    Surprise("possible", 0.01, "#f7b04c", "#1a1a1a"),
    Surprise("unlikely", 0.001, "#c8501e", "#ffffff"),
    Surprise("surprising", 0.0, "#5b1a5e", "#ffffff"),
)


def surprise(loss: float) -> int:
    """The step of a loss in nats, from 0 (probability at least one half) to 4."""
    for i, step in enumerate(SURPRISES[:-1]):
        if loss <= -math.log(step.least_probability):
            return i
    return len(SURPRISES) - 1


def legend(lang: str) -> list[str]:
    """The probabilities of each step in words, in the order of SURPRISES."""
    bounds = [step.least_probability for step in SURPRISES[:-1]]
    bounds.append(bounds[-1])  # the last step is named by what it lies below
    return [
        say(f"explain.{step.key}", lang, p=percent(bound, lang, 1 if bound < 0.01 else 0))
        for step, bound in zip(SURPRISES, bounds, strict=True)
    ]


WORDS: dict[str, tuple[str, str]] = {
    "explain.title": ("What the model expected", "Qué esperaba el modelo"),
    "explain.lead": (
        "Each token of the text, painted by its loss: how little the model expected it from what "
        "stands before it. Point at a token or tap it for its numbers.",
        "Cada token del texto, pintado según su pérdida: lo poco que el modelo lo esperaba a "
        "partir de lo anterior. Señala un token o tócalo para ver sus números.",
    ),
    "explain.legend": ("Probability of the token", "Probabilidad del token"),
    "explain.expected": ("{p} or more", "{p} o más"),
    "explain.likely": ("{p} or more", "{p} o más"),
    "explain.possible": ("{p} or more", "{p} o más"),
    "explain.unlikely": ("{p} or more", "{p} o más"),
    "explain.surprising": ("less than {p}", "menos del {p}"),
    "explain.first": (
        "first token: nothing stands before it, so it has no prediction",
        "primer token: no hay nada antes, así que no tiene predicción",
    ),
    "explain.text": ("The text", "El texto"),
    "explain.table": ("All tokens", "Todos los tokens"),
    "explain.skip": ("Skip to the table", "Ir a la tabla"),
    "explain.marks": (
        "· is a space, ↵ a line end, → a tab",
        "· es un espacio, ↵ un salto de línea, → un tabulador",
    ),
    "explain.position": ("no.", "n.º"),
    "explain.token": ("token", "token"),
    "explain.id": ("id", "id"),
    "explain.probability": ("probability", "probabilidad"),
    "explain.loss": ("loss", "pérdida"),
    "explain.rank": ("rank", "puesto"),
    "explain.alternatives": ("best alternatives", "mejores alternativas"),
    "explain.model": ("model", "modelo"),
    "explain.tokens": ("tokens", "tokens"),
    "explain.bytes": ("bytes", "bytes"),
    "explain.mean_loss": ("mean loss (nats per token)", "pérdida media (nats por token)"),
    "explain.perplexity": ("perplexity", "perplejidad"),
    "explain.bits_per_byte": ("bits per byte", "bits por byte"),
}
