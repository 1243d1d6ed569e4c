"""Writing: whole or not at all, and nobody else's run."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from yunque import files
from yunque.errors import InputError, StorageError


def test_a_staged_file_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.staged_file(path) as handle:
        handle.write(b"new, but")
        raise RuntimeError("torn")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_staged_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    with files.staged_folder(folder) as stage:
        (stage / "one").write_text("1")
    with files.staged_folder(folder) as stage:
        (stage / "two").write_text("2")
    assert os.listdir(folder) == ["two"]
    with pytest.raises(RuntimeError), files.staged_folder(folder) as stage:
        (stage / "three").write_text("3")
        raise RuntimeError("torn")
    assert os.listdir(folder) == ["two"]
    assert os.listdir(tmp_path) == ["best"]


def test_errors_of_the_disk_name_path_cause_and_mend(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match=r"file: a file stands where a folder is needed"):
        files.make_folder(blocked)
    with pytest.raises(StorageError) as caught, files.staged_file(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert "Free some space" in str(caught.value)
    assert caught.value.exit_code == 74
    assert not (tmp_path / "x").exists()


def test_json_is_read_with_place_of_the_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(InputError, match=r"a\.json:2:6: not JSON"):
        files.read_json(path)
    with pytest.raises(InputError, match="no such file"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(path, {"loss": float("nan")})


def test_remove_stages_leaves_everything_else(tmp_path: Path) -> None:
    (tmp_path / f"{files.STAGE_PREFIX}x-12").mkdir()
    (tmp_path / f"{files.STAGE_PREFIX}y-12").write_text("")
    (tmp_path / "kept").write_text("")
    files.remove_stages(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]


def hold(folder: str, ready: object, done: object) -> None:
    with files.run_lock(Path(folder)):
        ready.set()  # type: ignore[attr-defined]
        done.wait(20)  # type: ignore[attr-defined]


def test_a_run_folder_has_one_owner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path), ready, done))
    other.start()
    try:
        assert ready.wait(20)
        with pytest.raises(InputError, match=f"in use by process {other.pid} on"):
            with files.run_lock(tmp_path):
                pass
    finally:
        other.kill()
        other.join()
    with files.run_lock(tmp_path):  # a killed owner leaves no lock behind
        pass
