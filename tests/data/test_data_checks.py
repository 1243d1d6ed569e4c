"""The doubts before the first step: which, with which numbers, in both languages."""

from __future__ import annotations

import string
from typing import Any

import pytest

from yunque.data.checks import Check, check_data, check_sizes
from yunque.words.data import WORDS

GOOD: dict[str, Any] = {
    "train_tokens": 100_000,
    "val_tokens": 10_000,
    "context_length": 256,
    "batch_size": 8,
    "vocab_size": 90,
}


def keys(**changes: Any) -> tuple[list[str], list[str]]:
    errors, warnings = check_sizes(**GOOD | changes)
    for check in errors + warnings:
        assert check.text("en") != check.text("es")
    return [item.key for item in errors], [item.key for item in warnings]


@pytest.mark.parametrize(
    ("changes", "errors", "warnings"),
    [
        ({}, [], []),
        ({"val_tokens": 0}, [], []),
        ({"train_tokens": 256, "vocab_size": 9}, ["data.too_few_for_window"], []),
        ({"train_tokens": 257, "vocab_size": 9}, [], ["data.too_few_for_batch"]),
        ({"train_tokens": 2047}, [], ["data.too_few_for_batch"]),
        ({"train_tokens": 2048}, [], []),
        ({"train_tokens": 90, "vocab_size": 9, "val_tokens": 30, "packed": True}, [], []),
        ({"val_tokens": 256}, [], ["data.val_below_context"]),
        ({"val_tokens": 257}, [], []),
        ({"val_tokens": 1}, ["data.val_one_token"], []),
        ({"vocab_size": 10_001}, [], ["data.vocabulary_large"]),
        ({"vocab_size": 10_000}, [], []),
    ],
)
def test_limits(changes: dict[str, Any], errors: list[str], warnings: list[str]) -> None:
    assert keys(**changes) == (errors, warnings)


def test_numbers_and_mends_are_in_the_sentence() -> None:
    _, (batch, vocabulary) = check_sizes(
        **GOOD | {"train_tokens": 1024, "vocab_size": 50_257, "batch_size": 32}
    )
    assert "1,024 training tokens do not fill one batch of 32 x 256 = 8,192" in batch.text("en")
    assert "give --batch-size 4 or less" in batch.text("en")
    assert "usa --batch-size 4 o menos" in batch.text("es")
    assert "50,257 entries" in vocabulary.text("en")
    assert "0.0 for each" in vocabulary.text("en")


def test_one_of_one_is_not_counted_out() -> None:
    near = {"count": 1, "val": "a:1", "train": "a:2"}
    one, many = Check("data.near_copies", near | {"total": 1}), near | {"total": 1234, "count": 2}
    assert one.text("en").startswith("The one validation document also stands in the training")
    assert one.text("es").startswith("El único documento de validación está también en el")
    text = Check("data.near_copies", many).text
    assert text("en").startswith("2 of 1,234 validation documents also stand in the training")
    assert text("es").startswith("2 de los 1234 documentos de validación están también en el")


def test_both_languages_use_the_same_numbers() -> None:
    def names(sentence: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}

    for key, (english, spanish) in WORDS.items():
        assert key.startswith("data.")
        assert names(english) == names(spanish), key


@pytest.mark.parametrize(("unknown", "said"), [(0, False), (110, False), (111, True)])
def test_unknown_tokens_are_named_from_a_thousandth_on(unknown: int, said: bool) -> None:
    facts = {"tokens": {"train": 100_000, "val": 10_000}, "unknown_tokens": unknown}
    errors, warnings = check_data(facts, 0)
    assert errors == []
    assert [check.key for check in warnings] == ["data.unknown_many"] * said


@pytest.mark.parametrize(
    ("copies", "dropped", "said"), [(0, 0, False), (10, 0, False), (11, 0, True), (11, 11, False)]
)
def test_copies_are_named_unless_they_are_dropped(copies: int, dropped: int, said: bool) -> None:
    doubts = {"copies": copies}
    facts = {"documents": 1000, "doubts": doubts, "dropped": {"documents": dropped}}
    errors, warnings = check_data(facts, 0)
    assert errors == []
    assert [check.key for check in warnings] == ["data.copies"] * said
    if said:
        assert "11 de 1000 documentos (1,1 %) son iguales a otro" in warnings[0].text("es")
