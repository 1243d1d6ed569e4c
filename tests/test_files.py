"""Writing: whole or not at all, and nobody else's run."""

from __future__ import annotations

import errno
import importlib.util
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from yunque import cli, files, verbs
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


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def rename_that_stops(after: int, error: BaseException, once: bool = False) -> Callable[..., None]:
    """os.rename that works `after` times, then raises (once, or from then on)."""
    real, calls = os.rename, []

    def rename(source: Any, target: Any) -> None:
        calls.append(source)
        if len(calls) == after + 1 or (len(calls) > after and not once):
            raise error
        real(source, target)

    return rename


@pytest.mark.parametrize("name", ["best", "step-00000100"])
def test_a_kill_between_the_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "one").write_text("1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename_that_stops(1, Killed()))
        with pytest.raises(Killed), files.staged_folder(folder) as stage:
            (stage / "two").write_text("2")
    assert not folder.exists()
    (left,) = os.listdir(tmp_path)
    assert left.startswith(f".tmp-old-{name}-")
    (tmp_path / f".tmp-new-{name}-0123abcd").mkdir()
    files.remove_stages(tmp_path)
    assert os.listdir(tmp_path) == [name]
    assert (folder / "one").read_text() == "1"


def test_a_kill_after_both_renames_leaves_the_new_folder(tmp_path: Path) -> None:
    for name, content in (("best", "2"), (".tmp-old-best-0123abcd", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(content)
    files.remove_stages(tmp_path)
    assert os.listdir(tmp_path) == ["best"]
    assert (tmp_path / "best" / "file").read_text() == "2"


def test_a_folder_killed_while_it_was_removed_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "step-00000100"
    folder.mkdir()

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files, "clear", killed)
        with pytest.raises(Killed):
            files.remove_folder(folder)
    assert len(os.listdir(tmp_path)) == 1
    files.remove_stages(tmp_path)
    assert os.listdir(tmp_path) == []


def test_the_old_folder_stands_again_when_the_new_one_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "best"
    folder.mkdir()
    (folder / "one").write_text("1")
    refused = OSError(errno.EACCES, "refused")
    monkeypatch.setattr(os, "rename", rename_that_stops(1, refused, once=True))
    with pytest.raises(StorageError, match="best: cannot write: Permission denied"):
        with files.staged_folder(folder) as stage:
            (stage / "two").write_text("2")
    assert os.listdir(tmp_path) == ["best"]
    assert os.listdir(folder) == ["one"]


@pytest.mark.skipif(sys.platform == "win32", reason="asks POSIX for the mode of a descriptor")
def test_files_are_synced_through_a_writable_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    modes = []
    path = tmp_path / "a"
    path.write_text("kept")

    def fsync(handle: int) -> None:
        modes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", fsync)
    files.sync_file(path)
    assert modes == [os.O_RDWR]  # Windows refuses any other
    assert path.read_text() == "kept"


def files_of_windows(monkeypatch: pytest.MonkeyPatch, msvcrt: Any) -> ModuleType:
    """A second copy of the module, imported as Windows would."""
    spec = importlib.util.spec_from_file_location("files_of_windows", files.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        patch.setitem(sys.modules, "msvcrt", msvcrt)
        spec.loader.exec_module(module)
    return module


def test_the_lock_of_windows_locks_one_byte_behind_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def locking(handle: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        if taken:
            raise OSError(errno.EACCES, "Permission denied")
        taken.append(os.lseek(handle, 0, os.SEEK_CUR))

    windows = files_of_windows(monkeypatch, SimpleNamespace(locking=locking, LK_NBLCK=2))
    with windows.run_lock(tmp_path):
        assert taken == [1 << 30]
        assert (tmp_path / ".lock").stat().st_size < 200
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on"):
            with windows.run_lock(tmp_path):
                pass


def test_a_bare_error_of_the_system_is_a_message_with_exit_code_74(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def parse(verb: str, words: list[str]) -> None:
        raise OSError(errno.EIO, "Input/output error", "best/model.safetensors")

    monkeypatch.setattr(verbs, "parse", parse)
    assert cli.main(["doctor", "--json"]) == 74
    out, err = capsys.readouterr()
    assert err == f"yunque: [Errno {errno.EIO}] Input/output error: 'best/model.safetensors'\n"
    assert json.loads(out)["error"]["exit_code"] == 74


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


def test_a_disk_whose_room_cannot_be_asked_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(folder: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(files.shutil, "disk_usage", stale)
    with pytest.raises(StorageError, match=f"{tmp_path}: cannot look at: Stale file handle"):
        files.refuse_full_disk(tmp_path / "not" / "there", 1, "a checkpoint")
