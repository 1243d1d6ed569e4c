"""The embedded data set: a patient maths tutor in Spanish and English, every answer checkable.

A problem rests on three numbers: `a + b = c` or `a × b = c`. Whether it asks for the sum, for the
difference, for a missing number or tells a story, in whatever order and words, the three numbers
are the same, and they alone decide between training, validation and exam. So an exam problem was
never seen in any form: not turned round, not reworded, not as a step of another problem's working.

The working goes from the units to the tens, as at school. It is also what a tiny model can learn:
each line needs a few digits of the line before it and one fact about single digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from yunque.errors import InputError

Split = Literal["train", "val", "exam"]
Triple = tuple[int, int, int]

KINDS = ("addition", "subtraction", "multiplication", "division", "missing", "word_problem")
LANGUAGES = ("es", "en")

EXAM_FRACTION = 0.1
VAL_FRACTION = 0.05
MOST_HELD_OUT = 2000
"""Problems that `make` finds in any held-out split without repeating a question."""


@dataclass(frozen=True)
class Problem:
    """A question, its one right answer and how a teacher gets there."""

    kind: str
    language: str
    question: str
    answer: int
    working: str


@dataclass(frozen=True)
class Operation:
    """`left sign right = result`, in whole numbers that are never negative."""

    left: int
    sign: str
    right: int
    result: int

    @property
    def triple(self) -> Triple:
        """The three numbers in order of size: 12 + 47, 47 + 12 and 59 - 12 share one triple."""
        low, middle, high = sorted((self.left, self.right, self.result))
        return low, middle, high

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


def messages(problem: Problem) -> list[dict[str, str]]:
    """The conversation; the reply ends with GSM8K's mark and the answer: `#### 85`."""
    return [
        {"role": "user", "content": problem.question},
        {"role": "assistant", "content": f"{problem.working}\n#### {problem.answer}"},
    ]


def make(split: Split, count: int, seed: int) -> list[Problem]:
    """`count` problems of a split, kinds and languages in equal parts, in mixed order.

    The numbers are drawn anew until their triple belongs to the split. Questions do not repeat
    within an exam or a validation set; in training they may.

    Raises:
        InputError: an exam or validation set of this size would have to repeat questions.
    """
    if split != "train" and count > MOST_HELD_OUT:
        raise InputError(
            f"tutor: expected at most {MOST_HELD_OUT} different problems for {split}, got {count}."
        )
    rng = Random(f"{split} {seed}")
    problems: list[Problem] = []
    asked: set[str] = set()
    while len(problems) < count:
        turn = len(problems) % (len(KINDS) * len(LANGUAGES))
        kind, language = KINDS[turn % len(KINDS)], LANGUAGES[turn // len(KINDS)]
        operation = ASKED_OF[kind](rng)
        if split_of(operation.triple) != split:
            continue
        problem = pose(kind, language, operation, rng)
        if split != "train" and problem.question in asked:
            continue
        asked.add(problem.question)
        problems.append(problem)
    rng.shuffle(problems)
    return problems


# Which numbers belong to which split


@cache
def split_of(triple: Triple) -> Split:
    """The split of three numbers in order of size, the same whatever `make` is asked for.

    What a working may state as a step is training in any case.
    """
    if is_step(triple):
        return "train"
    digest = hashlib.sha256(f"yunque tutor {triple}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < EXAM_FRACTION:
        return "exam"
    return "val" if share < EXAM_FRACTION + VAL_FRACTION else "train"


def is_step(triple: Triple) -> bool:
    """Whether some working may state these numbers: facts of single digits, product + carry."""
    low, middle, high = triple
    if middle < 10:
        return True
    product = any(middle % digit == 0 and middle // digit < 10 for digit in range(1, 10))
    return low + middle == high and low < 9 and product


# Drawing operations. A choice out of a range draws what `randint` would, in half the time.

TWO_DIGITS, FACTORS = range(10, 100), range(2, 10)


def draw_sum(rng: Random) -> Operation:
    left, right = rng.choice(TWO_DIGITS), rng.choice(TWO_DIGITS)
    return Operation(left, "+", right, left + right)


def draw_difference(rng: Random) -> Operation:
    right, left = sorted((rng.choice(TWO_DIGITS), rng.choice(TWO_DIGITS)))
    return Operation(left, "-", right, left - right)


def draw_product(rng: Random) -> Operation:
    """The larger number first; one in four is from the tables, which are always training."""
    right = rng.choice(FACTORS)
    left = rng.choice(range(right, 10) if rng.random() < 0.25 else TWO_DIGITS)
    return Operation(left, "×", right, left * right)


def draw_quotient(rng: Random) -> Operation:
    product = draw_product(rng)
    left, right = product.left, product.right
    if left < 10 and rng.random() < 0.5:
        left, right = right, left
    return Operation(product.result, "÷", right, left)


def draw_any(rng: Random) -> Operation:
    return rng.choice((draw_sum, draw_difference, draw_product, draw_quotient))(rng)


ASKED_OF: dict[str, Callable[[Random], Operation]] = {
    "addition": draw_sum,
    "subtraction": draw_difference,
    "multiplication": draw_product,
    "division": draw_quotient,
    "missing": draw_any,
    "word_problem": draw_any,
}


# Asking


def pose(kind: str, language: str, operation: Operation, rng: Random) -> Problem:
    """Put an operation into words, with its working and answer."""
    heading = str(operation)
    if kind == "missing":
        equation = rng.choice(EQUATIONS[operation.sign])
        equation = equation.format(a=operation.left, b=operation.right, c=operation.result)
        question = rng.choice(MISSING[language]).format(equation)
        heading = f"? = {operation}"
    elif kind == "word_problem":
        question = story(language, operation, rng)
    else:
        left, right = operation.left, operation.right
        if operation.sign in "+×" and rng.random() < 0.5:
            left, right = right, left
        if operation.sign == "+":
            heading = f"{left} + {right}"
            operation = Operation(left, "+", right, operation.result)
        question = rng.choice(QUESTIONS[language][operation.sign]).format(a=left, b=right)
    return Problem(
        kind, language, question, operation.result, f"{heading}\n{working(language, operation)}"
    )


def story(language: str, operation: Operation, rng: Random) -> str:
    """A short word problem about the operation."""
    first, second = rng.sample(NAMES[language], 2)
    things, how_many = rng.choice(THINGS[language])
    text = rng.choice(STORIES[language][operation.sign])
    return text.format(
        a=operation.left,
        b=operation.right,
        first=first,
        second=second,
        things=things,
        how_many=how_many,
        How_many=how_many.capitalize(),
    )


QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "es": {
        "+": (
            "¿Cuánto es {a} + {b}?",
            "¿Cuánto es {a}+{b}?",
            "¿Cuánto es {a} más {b}?",
            "Suma {a} y {b}.",
            "¿Cuánto suman {a} y {b}?",
            "Calcula {a} + {b}.",
        ),
        "-": (
            "¿Cuánto es {a} - {b}?",
            "¿Cuánto es {a}-{b}?",
            "¿Cuánto es {a} menos {b}?",
            "Resta {b} a {a}.",
            "Si a {a} le quito {b}, ¿cuánto queda?",
            "Calcula {a} - {b}.",
        ),
        "×": (
            "¿Cuánto es {a} × {b}?",
            "¿Cuánto es {a} x {b}?",
            "¿Cuánto es {a} por {b}?",
            "Multiplica {a} por {b}.",
            "Calcula {a} × {b}.",
        ),
        "÷": (
            "¿Cuánto es {a} ÷ {b}?",
            "¿Cuánto es {a} / {b}?",
            "¿Cuánto es {a} entre {b}?",
            "Divide {a} entre {b}.",
            "Calcula {a} ÷ {b}.",
        ),
    },
    "en": {
        "+": (
            "What is {a} + {b}?",
            "What is {a}+{b}?",
            "What is {a} plus {b}?",
            "Add {a} and {b}.",
            "What is the sum of {a} and {b}?",
            "Work out {a} + {b}.",
        ),
        "-": (
            "What is {a} - {b}?",
            "What is {a}-{b}?",
            "What is {a} minus {b}?",
            "Subtract {b} from {a}.",
            "If I take {b} away from {a}, what is left?",
            "Work out {a} - {b}.",
        ),
        "×": (
            "What is {a} × {b}?",
            "What is {a} x {b}?",
            "What is {a} times {b}?",
            "Multiply {a} by {b}.",
            "Work out {a} × {b}.",
        ),
        "÷": (
            "What is {a} ÷ {b}?",
            "What is {a} / {b}?",
            "What is {a} divided by {b}?",
            "Divide {a} by {b}.",
            "Work out {a} ÷ {b}.",
        ),
    },
}

# Equations whose missing number is the result of `a sign b`.
EQUATIONS: dict[str, tuple[str, ...]] = {
    "+": ("? - {b} = {a}", "? - {a} = {b}"),
    "-": ("{b} + ? = {a}", "? + {b} = {a}", "{a} - ? = {b}"),
    "×": ("? ÷ {b} = {a}",),
    "÷": ("{b} × ? = {a}", "? × {b} = {a}"),
}

MISSING: dict[str, tuple[str, ...]] = {
    "es": ("¿Qué número falta? {}", "Halla el número que falta: {}", "¿Cuánto vale ? en {}"),
    "en": ("Which number is missing? {}", "Find the missing number: {}", "What is ? in {}"),
}

NAMES: dict[str, tuple[str, ...]] = {
    "es": ("Ana", "Luis", "Marta", "Hugo", "Sofía", "Pablo", "Lucía", "Diego"),
    "en": ("Anna", "Tom", "Lucy", "Sam", "Emma", "Ben", "Kate", "Jack"),
}

# Things to count, with the question word that agrees with them.
THINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "es": (
        ("canicas", "cuántas"),
        ("manzanas", "cuántas"),
        ("galletas", "cuántas"),
        ("libros", "cuántos"),
        ("lápices", "cuántos"),
        ("cromos", "cuántos"),
    ),
    "en": (
        ("marbles", "how many"),
        ("apples", "how many"),
        ("biscuits", "how many"),
        ("books", "how many"),
        ("pencils", "how many"),
        ("stickers", "how many"),
    ),
}

STORIES: dict[str, dict[str, tuple[str, ...]]] = {
    "es": {
        "+": (
            "{first} tiene {a} {things} y le regalan {b} más. ¿{How_many} {things} tiene ahora?",
            "En una caja hay {a} {things} y en otra {b}. ¿{How_many} {things} hay en total?",
            "{first} tiene {a} {things} y {second} tiene {b}. ¿{How_many} tienen entre los dos?",
        ),
        "-": (
            "{first} tenía {a} {things} y regaló {b}. ¿{How_many} {things} le quedan?",
            "En la tienda había {a} {things} y se vendieron {b}. ¿{How_many} quedan?",
            "{first} tiene {a} {things} y {second} tiene {b}. ¿{How_many} más tiene {first}?",
        ),
        "×": (
            "Hay {b} cajas con {a} {things} cada una. ¿{How_many} {things} hay en total?",
            "{first} compra {b} bolsas de {a} {things}. ¿{How_many} {things} compra?",
        ),
        "÷": (
            "{first} reparte {a} {things} entre {b} amigos. ¿{How_many} recibe cada uno?",
            "Con {a} {things} se llenan {b} cajas iguales. ¿{How_many} {things} hay en cada caja?",
        ),
    },
    "en": {
        "+": (
            "{first} has {a} {things} and gets {b} more. {How_many} does {first} have now?",
            "One box holds {a} {things} and another {b}. {How_many} {things} are there in all?",
            "{first} has {a} {things} and {second} has {b}. {How_many} do they have together?",
        ),
        "-": (
            "{first} had {a} {things} and gave away {b}. {How_many} {things} are left?",
            "The shop had {a} {things} and sold {b}. {How_many} are left?",
            "{first} has {a} {things} and {second} has {b}. {How_many} more does {first} have?",
        ),
        "×": (
            "There are {b} boxes with {a} {things} each. {How_many} {things} are there in all?",
            "{first} buys {b} bags of {a} {things}. {How_many} {things} is that?",
        ),
        "÷": (
            "{first} shares {a} {things} equally among {b} friends. {How_many} does each one get?",
            "{b} equal boxes are filled with {a} {things}. {How_many} {things} are in each box?",
        ),
    },
}


# Working


@cache
def working(language: str, operation: Operation) -> str:
    """The steps from the units to the tens (division: from the tens to the units)."""
    say = STEPS[language]
    left, right, result = operation.left, operation.right, operation.result
    tens, units = divmod(left, 10)
    if operation.sign == "+":
        return column_sum(say, tens, units, *divmod(right, 10))
    if operation.sign == "-":
        return column_difference(say, tens, units, *divmod(right, 10))
    if operation.sign == "×":
        if left < 10:
            return say["table"].format(a=left, b=right, c=result)
        return column_product(say, tens, units, right)
    if result < 10:
        return say["from_table"].format(a=left, b=right, c=result)
    return long_division(say, left, right)


def column_sum(say: dict[str, str], tens: int, units: int, more_tens: int, more_units: int) -> str:
    carry, write = divmod(units + more_units, 10)
    first = say["units"].format(f"{units} + {more_units} = {units + more_units}")
    if not carry:
        return f"{first}\n" + say["tens"].format(f"{tens} + {more_tens} = {tens + more_tens}")
    first += " " + say["carry"].format(write=write, carry=carry)
    total = tens + more_tens + carry
    return f"{first}\n" + say["tens"].format(f"{tens} + {more_tens} + {carry} = {total}")


def column_difference(
    say: dict[str, str], tens: int, units: int, less_tens: int, less_units: int
) -> str:
    if units >= less_units:
        first = say["units"].format(f"{units} - {less_units} = {units - less_units}")
        return f"{first}\n" + say["tens"].format(f"{tens} - {less_tens} = {tens - less_tens}")
    borrowed = f"{10 + units} - {less_units} = {10 + units - less_units}"
    first = say["borrow"].format(units=units, less_units=less_units, step=borrowed)
    rest = tens - 1 - less_tens
    return f"{first}\n" + say["tens"].format(f"{tens} - 1 - {less_tens} = {rest}")


def column_product(say: dict[str, str], tens: int, units: int, factor: int) -> str:
    carry, write = divmod(units * factor, 10)
    first = say["units"].format(f"{units} × {factor} = {units * factor}")
    product = tens * factor
    second = f"{tens} × {factor} = {product}"
    if carry:
        first += " " + say["carry"].format(write=write, carry=carry)
        second += f", {product} + {carry} = {product + carry}"
    return f"{first}\n" + say["tens"].format(second)


def long_division(say: dict[str, str], dividend: int, divisor: int) -> str:
    """A two-digit quotient: the tens first, then the rest with the last digit brought down."""
    leading, last = divmod(dividend, 10)
    tens, rest = divmod(leading, divisor)
    remainder = 10 * rest + last
    first = say["share"].format(a=leading, b=divisor, tens=tens, product=tens * divisor, rest=rest)
    return f"{first}\n" + say["bring_down"].format(
        last=last, a=remainder, b=divisor, units=remainder // divisor
    )


STEPS: dict[str, dict[str, str]] = {
    "es": {
        "units": "Unidades: {}.",
        "tens": "Decenas: {}.",
        "carry": "Escribo {write} y me llevo {carry}.",
        "borrow": "Unidades: {units} es menor que {less_units}, pido una decena: {step}.",
        "table": "De la tabla: {a} × {b} = {c}.",
        "from_table": "De la tabla: {c} × {b} = {a}.",
        "share": "{a} ÷ {b} es {tens}: {tens} × {b} = {product}, resto {rest}.",
        "bring_down": "Bajo el {last}: {a} ÷ {b} es {units}.",
    },
    "en": {
        "units": "Units: {}.",
        "tens": "Tens: {}.",
        "carry": "Write {write}, carry {carry}.",
        "borrow": "Units: {units} is less than {less_units}, borrow a ten: {step}.",
        "table": "From the table: {a} × {b} = {c}.",
        "from_table": "From the table: {c} × {b} = {a}.",
        "share": "{a} ÷ {b} is {tens}: {tens} × {b} = {product}, remainder {rest}.",
        "bring_down": "Bring down the {last}: {a} ÷ {b} is {units}.",
    },
}
