"""THE LEDGER: where every document, byte and token went; it closes exactly or nothing goes on.

Three accounts, each an equation between what one part of the program read and what other parts,
counting on their own, wrote, trained or left out:

    documents  read = train + val + test + duplicate + blank + bad
    bytes      read = train + val + test + duplicate + blank + separators
    tokens     read = trained + masked + first + unused + truncated + held_out + duplicate
               and positions of an epoch = trained + masked + padding (masked: of the epoch's rows)

"first" tokens begin a document, so nothing precedes them from which they could be predicted;
"unused" tokens fall behind the last whole window of an epoch (others in every epoch).
"""

from __future__ import annotations

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


def account_of(unit: str, values: Mapping[str, Any]) -> Account:
    """The account that `to_json` wrote."""
    parts = {name: int(n) for name, n in values.items() if name not in ("read", "error")}
    return Account(unit, int(values["read"]), parts)
