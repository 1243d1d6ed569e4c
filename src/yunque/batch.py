"""A batch as it travels from the data to the model and to the loss; it belongs to no room.

Shapes: B rows, T positions of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MASKED = -100
"""Target of a position that carries no loss."""


@dataclass(frozen=True)
class Batch:
    """Rows of tokens and what is to be predicted at each; every tensor `(B, T)`, int64."""

    inputs: Tensor
    targets: Tensor
    """The token after each input; MASKED where none is to be learnt."""
    positions: Tensor | None = None
    """Place of each input in its segment, from 0. None: in its row."""
    segments: Tensor | None = None
    """Number of each input's segment; attention does not cross segments. None: a row is one."""

    @property
    def layout(self) -> dict[str, Tensor]:
        """What a model is told beside the inputs: nothing where each row is one segment."""
        if self.positions is None or self.segments is None:
            return {}
        return {"positions": self.positions, "segments": self.segments}

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        layout = {name: value.to(device) for name, value in self.layout.items()}
        return Batch(self.inputs.to(device), self.targets.to(device), **layout)
