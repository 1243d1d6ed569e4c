"""THE LEDGER: where every document, byte and token went; it closes exactly or nothing goes on.

Three accounts, each an equation between what one part of the program read and what other parts,
counting on their own, wrote, trained or left out:

    documents  read = train + val + test + duplicate + blank + bad, where a document that the split
               divides goes by where it begins and ends (train_val, train_test, val_test)
    bytes      read = train + val + test + duplicate + blank + separators + bad
    tokens     read = trained + masked + first + unused + truncated + held_out + duplicate
               and positions of an epoch = trained + masked + padding (masked: of the epoch's rows)

"first" tokens begin a document, so nothing precedes them from which they could be predicted;
"unused" tokens fall behind the last whole window of an epoch (others in every epoch).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yunque.errors import YunqueError


class LedgerError(YunqueError):
    """The ledger does not close: a fault of this program. Exit code 1."""


@dataclass
class Account:
    """One equation: what was read, and its parts."""

    unit: str
    read: int = 0
    parts: dict[str, int] = field(default_factory=dict)

    def add(self, part: str, count: int) -> None:
        """Book `count` units under a part."""
        self.parts[part] = self.parts.get(part, 0) + count

    @property
    def error(self) -> int:
        """Units read that no part accounts for; negative: booked but never read."""
        return self.read - sum(self.parts.values())

    def check(self, where: str) -> None:
        """Refuse to go on where the equation does not hold.

        Raises:
            LedgerError: it does not.
        """
        if self.error:
            parts = " + ".join(f"{name} {count}" for name, count in self.parts.items())
            raise LedgerError(
                f"{where}: the ledger of {self.unit} does not close: read {self.read}, accounted "
                f"for {parts} = {self.read - self.error}, difference {self.error}. Nothing was "
                "trained. Please report this with the data or with its ledger.json."
            )

    def to_json(self) -> dict[str, int]:
        """{"read": …, part: …, "error": 0}."""
        return {"read": self.read, **self.parts, "error": self.error}


def token_accounts(
    facts: Mapping[str, Any], counts: object, rows: int, context_length: int
) -> dict[str, Account]:
    """The account of tokens and, where documents are packed, of the places of an epoch.

    Args:
        facts: of a preparation.
        counts: of the batches of its training split; a dataclass with some of trained, masked,
            first, unused, truncated, padding.
        rows: rows of `context_length` places in an epoch.
    """
    booked = dataclasses.asdict(counts)  # type: ignore[call-overload]
    duplicates = facts["dropped"]["tokens"]
    splits = {name: item["tokens"] for name, item in facts["splits"].items()}
    tokens = Account("tokens", sum(splits.values()) + duplicates)
    for part in ("trained", "masked", "first", "unused", "truncated"):
        if part in booked:
            tokens.add(part, booked[part])
    tokens.add("held_out", sum(n for name, n in splits.items() if name != "train"))
    tokens.add("duplicate", duplicates)
    accounts = {"tokens": tokens}
    if "padding" in booked:
        accounts["epoch"] = Account("epoch", rows * context_length)
        for part in ("trained", "masked", "padding"):
            accounts["epoch"].add(part, booked[part])
    return accounts
