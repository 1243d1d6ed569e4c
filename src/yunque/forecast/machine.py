"""What a machine can do: rates that turn counted work into seconds, measured or published."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yunque.errors import InputError
from yunque.forecast.work import Work

GIB = 2**30
MEASURED_SPREAD, GUESSED_SPREAD = 0.12, 0.45
"""Standard deviation of the logarithm of outcome / forecast where nothing is known of a machine's
past outcomes: with rates measured on it, and with published ones (docs/lab-notes.md)."""
STEADY, UNSTEADY_SPREAD = 0.25, 0.3
"""Unsteadiness up to which a measurement is kept for good, and the spread of one beyond."""
PRIOR_WEIGHT, PRIOR_RANGE = 0.01, 8.0
"""Of a rate that was measured directly, in a fit of rates: as how much of one timed piece of work
its relative distance counts, and how many times off it the fitted one may lie at most."""


@dataclass(frozen=True)
class Rates:
    """Seconds for each unit of `Work`, under the same names, and for an update as such."""

    matrix_operations: float
    matrix_bytes: float
    attention_operations: float
    elementwise_bytes: float
    update_bytes: float
    unpacked_weights: float
    calls: float
    update: float = 0.0
    """Whatever the size: the batch, the log, the loop."""
    attention_scores: float = 0.0
    """0 on GPUs, whose kernels make the softmax beside the products."""
    packed_states: float = 0.0
    """0 on GPUs, where it hides behind the bytes."""

    def seconds(self, work: Work) -> float:
        """The time of this work."""
        each = dataclasses.asdict(self)
        return sum(amount * each[name] for name, amount in work.named().items())


@dataclass(frozen=True)
class Machine:
    """One machine, by what matters for a forecast."""

    name: str
    kind: str
    """cpu or cuda."""
    memory: int
    """Bytes that a run can have: of the card, or of the computer."""
    rates: Mapping[str, Rates]
    """By precision: fp32, bf16, fp16."""
    base_memory: int
    """Bytes that are taken before the first tensor: PyTorch itself, or the context of the card."""
    watts: float
    measured: bool
    """Whether the rates were measured on it; else they follow from published figures."""
    threads: int = 0
    unsteadiness: float = 0.0
    """How much longer than its shortest the usual repeat of a measurement took, as a share."""

    @property
    def steady(self) -> bool:
        """Whether the measurement can be relied on; else it is made again the next time."""
        return self.unsteadiness <= STEADY

    def rates_for(self, precision: str) -> Rates:
        """The rates of a precision; one that is not there has those of float32."""
        return self.rates.get(precision) or self.rates["fp32"]

    @property
    def spread(self) -> float:
        if not self.measured:
            return GUESSED_SPREAD
        return MEASURED_SPREAD if self.steady else UNSTEADY_SPREAD

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Machine:
        """The machine that `to_json` wrote.

        Raises:
            KeyError, TypeError: it is of another form; the caller measures again.
        """
        rates = {precision: Rates(**each) for precision, each in value["rates"].items()}
        return cls(**{**value, "rates": rates})


@dataclass(frozen=True)
class Published:
    """Figures of a maker's data sheet. FLOPS: operations a second with dense matrices."""

    name: str
    fp32: float
    half: float
    """With the 16-bit type that training on this card uses: of the tensor cores where there are
    any; cards without them compute 16-bit numbers in float32."""
    bandwidth: float
    """Bytes a second of the card's memory."""
    memory: float
    """GiB."""
    watts: float
    bf16: bool


TERA, GIGA = 1e12, 1e9
PUBLISHED: tuple[Published, ...] = (
    # NVIDIA's data sheets and architecture white papers (Pascal 2016, Volta 2017, Turing 2018,
    # Ampere 2020/2021, Ada 2022, Hopper 2022); dense figures, with float32 accumulation.
    Published("GTX 1050 Ti 4GB", 2.1 * TERA, 2.1 * TERA, 112 * GIGA, 4, 75, False),
    Published("GTX 1060 6GB", 4.4 * TERA, 4.4 * TERA, 192 * GIGA, 6, 120, False),
    Published("GTX 1080 Ti 11GB", 11.3 * TERA, 11.3 * TERA, 484 * GIGA, 11, 250, False),
    Published("GTX 1650 4GB", 3.0 * TERA, 3.0 * TERA, 128 * GIGA, 4, 75, False),
    Published("RTX 2060 6GB", 6.5 * TERA, 26 * TERA, 336 * GIGA, 6, 160, False),
    Published("RTX 3050 8GB", 9.1 * TERA, 18 * TERA, 224 * GIGA, 8, 130, True),
    Published("RTX 3060 12GB", 12.7 * TERA, 25 * TERA, 360 * GIGA, 12, 170, True),
    Published("RTX 3090 24GB", 35.6 * TERA, 71 * TERA, 936 * GIGA, 24, 350, True),
    Published("RTX 4060 8GB", 15.1 * TERA, 30 * TERA, 272 * GIGA, 8, 115, True),
    Published("RTX 4090 24GB", 82.6 * TERA, 165 * TERA, 1008 * GIGA, 24, 450, True),
    Published("T4 16GB", 8.1 * TERA, 65 * TERA, 320 * GIGA, 16, 70, False),
    Published("V100 16GB", 15.7 * TERA, 125 * TERA, 900 * GIGA, 16, 300, False),
    Published("A100 40GB", 19.5 * TERA, 312 * TERA, 1555 * GIGA, 40, 400, True),
    Published("A100 80GB", 19.5 * TERA, 312 * TERA, 2039 * GIGA, 80, 400, True),
    Published("L4 24GB", 30.3 * TERA, 121 * TERA, 300 * GIGA, 24, 72, True),
    Published("H100 80GB", 66.9 * TERA, 989 * TERA, 3350 * GIGA, 80, 700, True),
    Published("H200 141GB", 66.9 * TERA, 989 * TERA, 4800 * GIGA, 141, 700, True),
)

PRODUCT_SHARE, TENSOR_CORE_SHARE, BANDWIDTH_SHARE = 0.55, 0.45, 0.75
"""Of the published figures, what training reaches in matrix products and in moving bytes: guesses
from reports of model FLOPs utilisation (Chowdhery et al. 2022, PaLM, table 3: 21 to 46 %; the
products alone do better). A forecast from them is called a guess."""
GPU_CALL_SECONDS = 8e-6
CUDA_CONTEXT = 300 * 2**20


def published(name: str) -> Machine:
    """The machine of a data sheet: 'h200', 'GTX 1050 Ti 4GB'.

    Raises:
        InputError: no such card in the table; the nearest are named.
    """
    wanted = plain(name)
    known = {plain(card.name): card for card in PUBLISHED}
    fitting = [card for key, card in known.items() if key == wanted or key.startswith(wanted)]
    if not fitting or not wanted:
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
        names = ", ".join(known[key].name for key in near) or ", ".join(c.name for c in PUBLISHED)
        raise InputError(
            f"--on {name!r}: no such machine in the table of published figures. Known, nearest "
            f"first: {names}. Or leave --on out to forecast for this machine."
        )
    card = fitting[0]
    moved = 1 / (card.bandwidth * BANDWIDTH_SHARE)

    def rates(flops: float, share: float) -> Rates:
        each = 1 / (flops * share)
        return Rates(
            matrix_operations=each,
            matrix_bytes=moved,
            attention_operations=2 * each,
            elementwise_bytes=moved,
            update_bytes=moved,
            unpacked_weights=2.5 * moved,  # half a byte read, two written
            calls=GPU_CALL_SECONDS,
            update=2e-3,
        )

    cores = card.half > 1.5 * card.fp32
    half = rates(card.half, TENSOR_CORE_SHARE if cores else PRODUCT_SHARE)
    table = {"fp32": rates(card.fp32, PRODUCT_SHARE), "fp16": half}
    if card.bf16:
        table["bf16"] = half
    return Machine(
        name=card.name,
        kind="cuda",
        memory=int(card.memory * GIB),
        rates=table,
        base_memory=CUDA_CONTEXT,
        watts=card.watts,
        measured=False,
    )


def plain(name: str) -> str:
    """A card's name as people write it: no spaces, no maker, small letters."""
    letters = "".join(c for c in name.lower() if c.isalnum())
    for word in ("nvidia", "geforce", "tesla"):
        letters = letters.replace(word, "")
    return letters


def fitted(
    rows: Sequence[Sequence[float]],
    seconds: Sequence[float],
    prior: Sequence[float] = (),
) -> list[float]:
    """Non-negative factors x with rows · x ≈ seconds, by least squares of the relative errors.

    Every row is one timed piece of work, every column one kind. Coordinate descent: few rows, few
    columns, and no factor may be below zero (a rate that pays back time is none).

    Args:
        prior: factors that were measured directly, 0 where not; the fit is drawn towards them and
            stays within PRIOR_RANGE of them, so that timings under load leave no rate absurd.

    Sources: Franc, Hlaváč, Navara 2005, "Sequential Coordinate-Wise Algorithm for the Non-negative
    Least Squares Problem"; the prior: Hoerl & Kennard 1970, "Ridge Regression".
    """
    # Relative errors: every row is divided by its time. Columns are scaled to be alike.
    scaled = [[value / t for value in row] for row, t in zip(rows, seconds, strict=True)]
    columns = range(len(rows[0]))
    size = [math.sqrt(sum(row[j] ** 2 for row in scaled)) or 1.0 for j in columns]
    scaled = [[value / size[j] for j, value in enumerate(row)] for row in scaled]
    known = [factor * size[j] for j, factor in enumerate(prior)] or [0.0 for _ in columns]
    gram = [[sum(r[i] * r[j] for r in scaled) for j in columns] for i in columns]
    x = [factor / PRIOR_RANGE for factor in known]
    most = [factor * PRIOR_RANGE or math.inf for factor in known]
    least = list(x)
    aim = [sum(row[j] for row in scaled) for j in columns]
    for j, factor in enumerate(known):
        if factor:
            gram[j][j] += PRIOR_WEIGHT / factor**2
            aim[j] += PRIOR_WEIGHT / factor
    slope = [sum(g * v for g, v in zip(gram[j], x, strict=True)) - aim[j] for j in columns]
    for _ in range(20_000):
        largest = 0.0
        for j in columns:
            if gram[j][j] == 0.0:
                continue
            new = min(most[j], max(least[j], x[j] - slope[j] / gram[j][j]))
            change = new - x[j]
            if change:
                x[j] = new
                slope = [s + change * g for s, g in zip(slope, gram[j], strict=True)]
                largest = max(largest, abs(change))
        if largest < 1e-12:
            break
    return [value / size[j] for j, value in enumerate(x)]
