"""Doubts about the data, before the first step: each with its numbers and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yunque.words import say

TOKENS_PER_ENTRY = 10  # an embedding row that is met less often than this hardly leaves its start
UNKNOWN_FRACTION = 0.001  # a few letters that only the held-out text has are no alarm
LOST_FRACTION = 0.01  # of the training tokens, to the length limit
COPIES_FRACTION = 0.01  # of the documents, equal to an earlier one
SHARED_LINES = 0.2  # of the validation text's longer lines
LEAST_LINES = 10
FEW_LINES = 3  # where every longer line stands in the training text too


@dataclass(frozen=True)
class Check:
    """A sentence of `yunque.words` and its numbers."""

    key: str
    numbers: dict[str, Any]

    def text(self, lang: str) -> str:
        """The sentence in "en" or "es"."""
        return say(self.key, lang, **self.numbers)


def check_sizes(
    train_tokens: int,
    val_tokens: int,
    context_length: int,
    batch_size: int,
    vocab_size: int,
    packed: bool = False,
) -> tuple[list[Check], list[Check]]:
    """(errors that forbid the run, warnings that do not), in the order of the data.

    Args:
        val_tokens: 0 where there is no validation set, which is not a fault here.
        packed: whether documents are packed into rows, which need not be full.
    """
    errors, warnings = [], []
    window = 0 if packed else context_length + 1
    if train_tokens < window:
        errors.append(
            Check(
                "data.too_few_for_window",
                {
                    "tokens": train_tokens,
                    "needed": window,
                    "context_length": context_length,
                    "fitting": max(1, train_tokens - 1),
                },
            )
        )
    elif not packed and train_tokens < context_length * batch_size:
        warnings.append(
            Check(
                "data.too_few_for_batch",
                {
                    "tokens": train_tokens,
                    "needed": context_length * batch_size,
                    "context_length": context_length,
                    "batch_size": batch_size,
                    "fitting": max(1, train_tokens // context_length),
                },
            )
        )
    if val_tokens == 1:
        errors.append(Check("data.val_one_token", {}))
    elif 0 < val_tokens < window:
        warnings.append(
            Check(
                "data.val_below_context",
                {"tokens": val_tokens, "needed": window, "context_length": context_length},
            )
        )
    if vocab_size * TOKENS_PER_ENTRY > train_tokens:
        warnings.append(
            Check(
                "data.vocabulary_large",
                {
                    "vocab_size": vocab_size,
                    "tokens": train_tokens,
                    "per_entry": train_tokens / vocab_size,
                    "wanted": TOKENS_PER_ENTRY,
                },
            )
        )
    return errors, warnings


def check_data(facts: Mapping[str, Any], tokens_lost: int) -> tuple[list[Check], list[Check]]:
    """(errors, warnings) about what is in the data, from the facts of its preparation.

    Args:
        facts: of `Prepared`.
        tokens_lost: training tokens cut off by the length limit.
    """
    errors: list[Check] = []
    warnings: list[Check] = []
    doubts: Mapping[str, Any] = facts.get("doubts", {})
    conversations = facts.get("conversations", 0)

    def warn(key: str, **numbers: Any) -> None:
        warnings.append(Check(f"data.{key}", numbers))

    tokens = sum(facts.get("tokens", {}).values())
    unknown = facts.get("unknown_tokens", 0)
    if unknown > UNKNOWN_FRACTION * tokens:
        warn("unknown_many", unknown=unknown, tokens=tokens, percent=100 * unknown / tokens)
    bad = doubts.get("bad", {"count": 0})
    if bad["count"]:
        read = facts["ledger"]["bytes"]["read"]
        percent = 100 * bad["bytes"] / read
        key = "bad_lines" if bad["lines"] == bad["count"] else "bad_records"
        warn(key, count=bad["count"], percent=percent, first=bad["examples"][0])
    without = doubts.get("without_loss", 0)
    if without and facts.get("masked"):
        numbers = {
            "count": without,
            "total": conversations,
            "places": ", ".join(doubts["without_loss_at"]),
        }
        found = errors if without >= conversations else warnings
        found.append(Check("data.no_loss", numbers))
    if conversations > without and facts.get("masked") and not doubts.get("end_with_loss"):
        warn("end_without_loss", count=conversations)
    if conversations and facts.get("pad_is_end"):
        warn("pad_is_end")
    if doubts.get("unmet_tokens"):
        names = doubts["unmet_tokens"]
        warn("unmet_tokens", count=len(names), names=", ".join(names))
    if doubts.get("long_records"):
        places = ", ".join(doubts["long_records_at"])
        warn("long_record", count=doubts["long_records"], places=places)
    train = facts.get("tokens", {}).get("train", 0)
    if tokens_lost > LOST_FRACTION * train:
        warn("lost_to_length", lost=tokens_lost, tokens=train, percent=100 * tokens_lost / train)
    copies, documents = doubts.get("copies", 0), facts.get("documents", 0)
    if copies > COPIES_FRACTION * documents and not facts["dropped"]["documents"]:
        warn("copies", count=copies, total=documents, percent=100 * copies / documents)
    near = doubts.get("near_copies", 0)
    if near:
        held, trained = doubts["near_copies_at"][0]
        total = facts["splits"]["val"]["documents"]
        warn("near_copies", count=near, total=total, val=held, train=trained)
    numbers = doubts.get("number_doubts", 0)
    if numbers:
        held, trained = doubts["number_doubts_at"][0]
        total = facts["splits"]["val"]["documents"]
        warn("number_copies", count=numbers, total=total, val=held, train=trained)
    lines, seen = doubts.get("val_lines", 0), doubts.get("val_lines_in_train", 0)
    if (seen >= LEAST_LINES and seen > SHARED_LINES * lines) or (
        seen >= FEW_LINES and seen == lines
    ):
        warn("val_in_train", seen=seen, lines=lines, percent=100 * seen / lines)
    if facts.get("bytes_per_token", 1.0) < 1:
        warn("tokens_per_byte", tokens=1 / facts["bytes_per_token"])
    warnings += [Check(key, numbers) for key, numbers in doubts.get("template", [])]
    for source in facts.get("sources", []):
        if source["languages"]:
            warn("languages", name=source["name"], languages=", ".join(source["languages"]))
        if source.get("text_column"):
            what = "one_column" if source["layout"] == "table" else "one_field"
            warn(what, name=source["name"], column=source["text_column"])
        if source.get("found") == "detected":
            warn("encoding_detected", name=source["name"], encoding=source["encoding"])
    return errors, warnings


def notes_on(facts: Mapping[str, Any]) -> list[Check]:
    """What is worth knowing about the data and is no doubt by itself.

    Args:
        facts: of `Prepared`.
    """
    found = []
    size, asked = facts.get("vocab_size", 0), facts.get("vocab_size_asked") or 0
    if size < asked:
        found.append(Check("data.vocabulary_smaller", {"size": size, "asked": asked}))
    doubts: Mapping[str, Any] = facts.get("doubts", {})
    count, total = doubts.get("digits_alone", 0), facts.get("documents", 0)
    if count <= COPIES_FRACTION * total:
        return found
    one, other = doubts["digits_alone_at"]
    numbers = {
        "count": count,
        "total": total,
        "percent": 100 * count / total,
        "forms": doubts["digits_alone_forms"],
        "one": one,
        "other": other,
        "held": doubts["number_copies"],
    }
    return [*found, Check("data.digits_alone", numbers)]
