"""A run log played into a screen, as the run itself did."""

from __future__ import annotations

from collections.abc import Iterable

from yunque.runlog import Row
from yunque.screen import Screen
from yunque.screen.progress import finite


def replay(rows: Iterable[Row], screen: Screen, fraction: float = 1.0) -> None:
    """Feed the rows up to `fraction` of the steps that the run did.

    The best evaluation is the lowest so far. The total of steps is that of the
    start row, else the last step of the log.
    """
    rows = list(rows)
    last = max((int(row.values.get("step") or 0) for row in rows), default=0)
    total = next((row.values["steps"] for row in rows if row.values.get("steps")), last)
    best = float("inf")
    for row in rows:
        values = {"steps": total, **row.values}
        if int(values.get("step") or 0) > fraction * last:
            return
        if row.event == "start":
            screen.start(values)
        elif row.event == "step":
            screen.step(values)
        elif row.event == "eval":
            val = values.get("val_loss")
            loss = finite(values.get("train_loss") if val is None else val)
            screen.evaluation(values, best=loss is not None and loss < best)
            best = min(best, best if loss is None else loss)
        elif row.event == "sample":
            screen.sample(str(values.get("prompt", "")), str(values.get("text", "")))
        elif row.event == "exam":
            screen.exam(values)
        elif row.event == "warning":
            screen.warning(str(values.get("text", "")))
        elif row.event == "checkpoint":
            screen.checkpoint(str(values.get("path", "")))
        elif row.event == "stop":
            screen.stop(str(values.get("reason", "")), values)
