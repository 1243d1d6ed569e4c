"""Early stopping as a pure value: what was best, and whether to go on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Stopping:
    """The history of the validation loss, as far as a decision needs it.

    `best_loss` is the lowest loss ever (nats per token): its model is kept. `mark` is the loss
    that the next one must undercut by `min_change` for the patience to begin anew, so that many
    tiny falls do not keep a finished run alive, nor one lucky evaluation end it.
    """

    patience: int
    min_change: float
    enabled: bool = True
    best_loss: float | None = None
    """None: no finite loss was seen yet."""
    best_step: int = -1
    mark: float | None = None
    stale: int = 0

    def seen(self, step: int, loss: float) -> Stopping:
        """The value after an evaluation; a loss that is not finite counts as no improvement."""
        finite = math.isfinite(loss)
        lower = finite and (self.best_loss is None or loss < self.best_loss)
        enough = finite and (self.mark is None or loss < self.mark - self.min_change)
        return replace(
            self,
            best_loss=loss if lower else self.best_loss,
            best_step=step if lower else self.best_step,
            mark=loss if enough else self.mark,
            stale=0 if enough else self.stale + 1,
        )

    @property
    def stop(self) -> bool:
        """Whether the patience is used up."""
        return self.enabled and self.stale >= self.patience
