"""Whether there is enough text, before the first step: each doubt with its numbers and a mend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yunque.words import say

TOKENS_PER_ENTRY = 10  # an embedding row that is met less often than this hardly leaves its start
UNKNOWN_FRACTION = 0.01


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
    facts: Mapping[str, Any],
    packed: bool = False,
) -> tuple[list[Check], list[Check]]:
    """(errors that forbid the run, warnings that do not), in the order of the data.

    Args:
        val_tokens: 0 where there is no validation set, which is not a fault here.
        facts: of `Prepared`; "tokens" and "unknown_tokens" are read.
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
    tokens = sum(facts.get("tokens", {}).values())
    unknown = facts.get("unknown_tokens", 0)
    if unknown > UNKNOWN_FRACTION * tokens:
        warnings.append(
            Check(
                "data.unknown_many",
                {"unknown": unknown, "tokens": tokens, "percent": 100 * unknown / tokens},
            )
        )
    return errors, warnings
