"""The run log: one row a line, torn ends dropped, cut back on resume."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from yunque.errors import InputError, StorageError
from yunque.runlog import RunLog, read


def test_rows_come_back_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        log.write("start", step=0, run="ñandú")
        size = log.size
        log.write("step", step=1, train_loss=2.5)
    rows = list(read(path))
    assert [(row.line, row.event) for row in rows] == [(1, "start"), (2, "step")]
    assert rows[0].values == {"step": 0, "run": "ñandú"}
    with RunLog(path, size) as log:
        log.write("step", step=1, train_loss=2.25)
    assert [row.values.get("train_loss") for row in read(path)] == [None, 2.25]


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        log.write("step", step=1, train_loss=float("nan"), grad_norm=float("inf"))
    row = json.loads(path.read_text())
    assert row["train_loss"] is None
    assert row["non_finite"] == {"train_loss": "nan", "grad_norm": "inf"}


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "step", "step": 1}\n{"event": "st')
    assert len(list(read(path))) == 1
    path.write_text('{"event": "step", "step": 1}\nnonsense\n')
    with pytest.raises(InputError, match=r"log\.jsonl:2: not a row"):
        list(read(path))
    with pytest.raises(InputError, match="no run log there"):
        list(read(tmp_path / "none"))


def test_unknown_events_are_refused(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.jsonl") as log, pytest.raises(ValueError, match="unknown event"):
        log.write("stepp", step=1)


def test_a_log_shorter_than_its_checkpoint_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.raises(InputError, match=r"log\.jsonl: the run log is missing, .* 7 bytes\. Put"):
        RunLog(path, 7)
    assert not path.exists()
    RunLog(path, 0).close()  # a run that begins
    path.write_bytes(b"{}\n")
    with pytest.raises(InputError, match="has 3 bytes, the checkpoint expects at least 7 bytes"):
        RunLog(path, 7)
    assert path.read_bytes() == b"{}\n"


def test_sync_forces_the_rows_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        log.write("start", step=0)
        monkeypatch.setattr(os, "fsync", fsync)
        log.sync()
        assert synced[0] == path.stat().st_ino

        def broken(handle: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(StorageError, match=r"log\.jsonl: cannot write to the disk: Input"):
            log.sync()
    with RunLog(Path(os.devnull)) as log:
        log.write("start", step=0)
        log.sync()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_row_on_a_full_disk_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="/dev/full: cannot write a line: No space left"):
        with RunLog(Path("/dev/full")) as log:
            log.write("start", step=0)


def test_a_log_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"log\.jsonl: cannot open"):
        RunLog(tmp_path / "none" / "log.jsonl")
