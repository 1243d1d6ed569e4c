"""What saving costs: seconds of a checkpoint with all its hashes, against the steps around it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL, rows, without_pages, write_text

from yunque.assemble.runs import pretrain
from yunque.config import Recipe
from yunque.train import checkpoint, loop

Say = Callable[[str], None]
MODELS: dict[str, dict[str, Any]] = {
    "1 M": {
        "hidden_size": 128,
        "num_layers": 5,
        "num_heads": 4,
        "context_length": 64,
        "vocab_size": 256,
        "batch_size": 8,
        "steps": 12,
        "checkpoint_every": 3,
    },
    "124 M": {
        "hidden_size": 768,
        "num_layers": 12,
        "num_heads": 12,
        "context_length": 64,
        "vocab_size": 50_257,
        "batch_size": 2,
        "steps": 6,
        "checkpoint_every": 2,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_line_8_what_saving_costs(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Say,
) -> None:
    """On the real disk: writing, hashing, syncing, reading back, the search for NaN, removal."""
    if name == "124 M" and not request.config.getoption("--faults"):
        pytest.skip("1.5 GB a checkpoint: make faults")
    saves: list[float] = []
    steps: list[float] = []
    parts: list[float] = []
    broken, save, update, verify = loop.broken, loop.save, loop.fitting_update, checkpoint.verify

    def timed(kept: list[float], function: Any) -> Any:
        def call(*given: Any) -> Any:
            began = time.monotonic()
            done = function(*given)
            kept.append(time.monotonic() - began)
            return done

        return call

    searches: list[float] = []
    monkeypatch.setattr(loop, "broken", timed(searches, broken))
    monkeypatch.setattr(loop, "save", timed(saves, save))
    monkeypatch.setattr(loop, "fitting_update", timed(steps, update))
    monkeypatch.setattr(checkpoint, "verify", timed(parts, verify))
    options = {**SMALL, "dropout": 0.0, "eval_every": 1000, "eval_tokens": 200, **MODELS[name]}
    with without_pages():
        pretrain(str(write_text(tmp_path)), tmp_path / "run", **options)
    newest, _ = checkpoint.newest_valid(tmp_path / "run")
    assert newest is not None
    size = sum(path.stat().st_size for path in newest.iterdir())
    (start,) = rows(tmp_path / "run", "start")
    cost = statistics.median(saves) + statistics.median(searches)
    step = statistics.median(steps)
    wait = max(60 * Recipe().train.checkpoint_minutes, cost / loop.SAVING_SHARE)
    share = cost / wait
    assert len(saves) >= 3
    assert share < 0.03
    parameters = start["parameters"]["total"] / 1e6
    figures(
        f"8    {parameters:.1f} M parameters, {size / 1e6:,.0f} MB a checkpoint: "
        f"saved in {cost:.2f} s ({min(saves):.2f} to {max(saves):.2f}; {len(saves)} saves), "
        f"{statistics.median(parts):.2f} of it read back and hashed; a step {step:.2f} s; every "
        f"{wait:.0f} s by default: {share:.2%} of the time"
    )


def test_line_8_saving_by_the_clock_is_rarer_where_it_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk on which a save takes as long as a step gets few of them."""
    now, saves = [0.0], [0]
    update, save = loop.fitting_update, loop.save

    def stepping(*given: Any) -> Any:
        now[0] += 1.0
        return update(*given)

    def slow(*given: Any) -> Any:
        now[0] += 1.0
        saves[0] += 1
        return save(*given)

    class Time:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(loop, "time", Time)
    monkeypatch.setattr(loop, "fitting_update", stepping)
    monkeypatch.setattr(loop, "save", slow)
    options = {
        "steps": 121,
        "checkpoint_every": 0,
        "checkpoint_minutes": 0.1,
        "eval_every": 500,
        "eval_tokens": 200,
    }
    with without_pages():
        pretrain(str(write_text(tmp_path)), tmp_path / "run", **{**SMALL, **options})
    # The first after 6 seconds, then one after every 1 / 0.025 = 40, and the one at the end.
    assert saves[0] == 1 + 2 + 1
