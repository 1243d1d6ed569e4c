"""`yunque resume --verify`: a true log is confirmed, a changed one refuted, nothing written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import SMALL, without_pages, write_text

from yunque.assemble.replay import replay
from yunque.assemble.runs import pretrain
from yunque.cli import main
from yunque.errors import InputError


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with without_pages():
        yield


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Twelve updates; the last two checkpoints, of 10 and 12, remain."""
    return pretrain(str(write_text(tmp_path)), tmp_path / "run", **SMALL).run


def state_of_disk(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def test_a_true_log_is_confirmed_and_nothing_is_written(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state_of_disk(run)
    done = replay(run, steps=2)
    assert (done.begun_at, done.steps, done.differences) == (10, 2, ())
    assert done.tensors > 10
    assert main(["resume", str(run), "--verify", "--steps", "1", "--lang", "en"]) == 0
    told = capsys.readouterr().out
    assert "Confirmed: 1 of 12 updates, from number 11 on" in told
    assert "Not looked at: 11 updates and 3 evaluations" in told
    assert state_of_disk(run) == before


def test_without_a_checkpoint_the_seed_gives_the_beginning(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        (path / "manifest.json").unlink()
    done = replay(run, steps=5)
    assert (done.begun_at, done.steps, done.differences, done.tensors) == (0, 5, (), 0)


@pytest.mark.parametrize("name", ["train_loss", "learning_rate", "grad_norm", "tokens_seen"])
def test_the_last_digit_of_a_changed_log_is_refuted(
    run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    at = next(n for n, row in enumerate(rows) if row["event"] == "step" and row["step"] == 11)
    rows[at][name] = rows[at][name] * (1 + 1e-15) if name != "tokens_seen" else 1
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    done = replay(run, steps=2)
    assert [(one.step, one.name) for one in done.differences] == [(11, name)]
    assert main(["resume", str(run), "--verify", "--steps", "2", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["confirmed"] is False


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_whole_run_is_made_again_with_its_evaluations(tmp_path: Path, average: float) -> None:
    run = pretrain(
        str(write_text(tmp_path)), tmp_path / "run", **{**SMALL, "average_decay": average}
    ).run
    done = replay(run, steps=500)
    assert (done.begun_at, done.steps, done.updates, done.differences) == (0, 12, 12, ())
    assert len(done.measured) == done.evaluations == 4


def test_a_falsified_evaluation_is_refuted_wherever_it_can_be_measured(run: Path) -> None:
    """The last stands beside the last checkpoint, though no update of the replay leads there."""
    path = run / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    last = [row for row in lines if row["event"] == "eval"][-1]
    last["val_loss"] -= 0.5
    path.write_text("\n".join(json.dumps(row) for row in lines) + "\n", encoding="utf-8")
    for steps in (1, 2, 12):
        done = replay(run, steps=steps)
        assert [(one.step, one.name) for one in done.differences] == [(12, "val_loss")], steps


def test_what_cannot_be_replayed_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="steps is 0: 1 or more"):
        replay(run, steps=0)
    with pytest.raises(InputError, match="no run there"):
        replay(tmp_path)
    (run / "data" / "data.json").unlink()
    with pytest.raises(InputError, match="prepared data of the run are gone"):
        replay(run)
