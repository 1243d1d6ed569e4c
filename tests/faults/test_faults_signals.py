"""Signals, an orphaned process, two owners of one folder, a foreign owner, clocks that jump."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from small_runs import SMALL, rows, without_pages, write_text

from yunque import cli, files
from yunque.assemble.runs import pretrain, resume
from yunque.assemble.sources import prepare
from yunque.errors import InputError
from yunque.train import checkpoint

Many = Callable[[int, int], int]
Say = Callable[[str], None]
LONG = {**SMALL, "steps": 100_000, "checkpoint_every": 3, "eval_every": 100}


def flags(options: dict[str, Any]) -> list[str]:
    return [
        word
        for key, value in options.items()
        if key != "early_stopping"
        for word in ("--" + key.replace("_", "-"), str(value))
    ]


def forked(words: list[str], out: Path) -> int:
    """The command in a child that has torch already, in a group of its own; returns its pid."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # not to outlive a test that is stopped
            handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with without_pages():
                code = cli.main(words)
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(code)
    return child


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.005)


def training(run: Path) -> bool:
    """Whether the loop has begun: only then do signals ask for a stop."""
    return (run / "log.jsonl").is_file() and len(checkpoint.all_steps(run)) > 0


def group_is_empty(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return True
    return False


def signalled(run: Path, text: Path, numbers: tuple[int, ...], chance: Random) -> float:
    """Begin, let it train, send the signals; returns the seconds that it took to end."""
    out = run.with_suffix(".out")
    child = forked(["pretrain", str(text), "--out", str(run), "--quiet", *flags(LONG)], out)
    try:
        wait_for(lambda: training(run))
        time.sleep(chance.uniform(0, 0.2))
        began = time.monotonic()
        for number in numbers:
            os.kill(child, number)
            time.sleep(chance.uniform(0, 0.01))
        status = 0

        def ended() -> bool:
            nonlocal status
            done, status = os.waitpid(child, os.WNOHANG)
            return done != 0

        wait_for(ended)
        seconds = time.monotonic() - began
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(status) == 128 + numbers[0], out.read_text()[-2000:]
    assert seconds < 10
    wait_for(lambda: group_is_empty(child), 5)
    step = rows(run, "step")[-1]["step"]
    newest, refused = checkpoint.newest_valid(run)
    assert (newest, refused) == (checkpoint.path_of(run, step), [])
    assert not list(run.rglob(".tmp-*"))
    return seconds


def test_f15_signals_save_and_end(
    quick_folder: Path, chance: Random, many: Many, figures: Say
) -> None:
    text = write_text(quick_folder)
    kinds = {
        "SIGTERM": ((signal.SIGTERM,), many(3, 100)),
        "Ctrl-C": ((signal.SIGINT,), many(1, 20)),
        "three SIGTERMs": ((signal.SIGTERM, signal.SIGTERM, signal.SIGTERM), many(1, 20)),
    }
    told = []
    with without_pages():
        pretrain(str(text), quick_folder / "warm", **{**SMALL, "steps": 2})
    for name, (numbers, count) in kinds.items():
        times = []
        for turn in range(count):
            run = quick_folder / f"{name} {turn}"
            times.append(signalled(run, text, numbers, chance))
            shutil.rmtree(run)
        told.append(f"{count} {name}: at most {max(times):.2f} s")
    figures(f"F15  {'; '.join(told)}; exit codes 143, 130; state saved, nothing left running")


def test_f15_a_run_whose_launcher_died_saves_and_ends(tmp_path: Path) -> None:
    """Under a launcher (torchrun) nobody else would end it; alone it outlives its shell."""
    run, pid = tmp_path / "run", tmp_path / "pid"
    text = write_text(tmp_path)
    words = ["pretrain", str(text), "--out", str(run), "--quiet", *flags(LONG)]
    launcher = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'yunque.cli', *sys.argv[2:]],"
        " env={**os.environ, 'WORLD_SIZE': '1', 'RANK': '0'})\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", launcher, str(pid), *words])
    wait_for(lambda: training(run), 120)
    child = int(pid.read_text())
    parent.kill()
    parent.wait()
    try:
        wait_for(lambda: files.started(child) == "" or is_zombie(child), 60)
    finally:
        if files.started(child) and not is_zombie(child):
            os.kill(child, signal.SIGKILL)
    newest, _ = checkpoint.newest_valid(run)
    assert newest == checkpoint.path_of(run, rows(run, "step")[-1]["step"])


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def next_code(children: set[int], seconds: float) -> int | None:
    """The exit code of the next of these processes that ends; None: none did in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for child in children:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                children.remove(child)
                return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def test_f16_of_many_that_want_one_folder_one_wins(
    quick_folder: Path, many: Many, figures: Say
) -> None:
    races, together = many(5, 50), 8
    for race in range(races):
        folder = quick_folder / str(race)
        won = quick_folder / f"won-{race}"
        won.mkdir()
        start, (held, release) = time.monotonic() + 0.03, os.pipe()
        children = set()
        for number in range(together):
            child = os.fork()
            if child == 0:
                code = 1
                os.close(release)
                try:
                    time.sleep(max(0.0, start - time.monotonic()))
                    with files.run_lock(folder):
                        (won / str(number)).write_text("")
                        os.read(held, 1)  # until all others have tried, however slow they are
                    code = 0
                except InputError as error:
                    code = 2 if "in use by" in str(error) else 1
                finally:
                    os._exit(code)
            children.add(child)
        codes = []
        for _ in range(together - 1):
            codes.append(next_code(children, 60))
        os.close(release)
        codes.append(next_code(children, 60))
        os.close(held)
        assert sorted(codes) == [0] + [2] * (together - 1)
        assert len(list(won.iterdir())) == 1
    figures(f"F16  {races} races of {together} processes for one folder: one winner each")


def test_f16_without_locks_of_the_disk_the_named_owner_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import socket

    def none(handle: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files, "lock_file", none)
    me = {"pid": os.getpid(), "host": socket.gethostname(), "boot": files.boot_id()}
    owners = {
        "alive": ({**me, "started": files.started(os.getpid())}, False),
        "a number that is used again": ({**me, "started": "1"}, True),
        "another start of the machine": ({**me, "boot": "x", "started": "1"}, True),
        "no such process": ({**me, "pid": 2**22 + 1, "started": ""}, True),
        "on another machine": ({**me, "host": "far", "started": "1"}, False),
    }
    for name, (owner, free) in owners.items():
        folder = files.make_folder(tmp_path / name)
        (folder / files.LOCK_NAME).write_text(json.dumps(owner))
        if free:
            with files.run_lock(folder):
                held = json.loads((folder / files.LOCK_NAME).read_text())
                assert held == {**me, "started": files.started(os.getpid())}
        else:
            with pytest.raises(InputError, match=f"in use by process .* on {owner['host']}"):
                with files.run_lock(folder):
                    pass


def test_f13_a_killed_preparation_ends_with_identical_bytes(
    quick_folder: Path, chance: Random, many: Many, figures: Say
) -> None:
    text = quick_folder / "long.txt"
    text.write_text(write_text(quick_folder).read_text() * 200)
    options: dict[str, Any] = {"tokenizer": "bpe:300", "val": 0.1}
    began = time.monotonic()
    prepare(str(text), quick_folder / "whole", **options)
    usual = time.monotonic() - began
    kills = many(4, 50)
    whole = shard_bytes(quick_folder / "whole")
    for turn in range(kills):
        out = quick_folder / f"killed-{turn}"
        child = os.fork()
        if child == 0:
            prepare(str(text), out, **options)
            os._exit(0)
        time.sleep(chance.uniform(0.0, usual))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        prepare(str(text), out, **options)
        assert shard_bytes(out) == whole
        shutil.rmtree(out)
    figures(f"F13  {kills} killed preparations, begun again: identical bytes")


def shard_bytes(folder: Path) -> dict[str, bytes]:
    assert not list(folder.rglob(".tmp-*"))
    return {path.name: path.read_bytes() for path in folder.rglob("*.bin")} | {
        path.name: path.read_bytes() for path in folder.rglob("tokenizer*.json")
    }


def test_f27_clocks_that_jump_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chance: Random
) -> None:
    text = str(write_text(tmp_path))
    with without_pages():
        pretrain(text, tmp_path / "whole", **SMALL)
        real = time.time

        def jumping() -> float:
            return real() + chance.choice((-86_400.0, 10 * 365 * 86_400.0, -real()))

        monkeypatch.setattr(time, "time", jumping)
        monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
        run = tmp_path / "run"
        pretrain(text, run, **{**SMALL, "keep_checkpoints": 3})
        # The files' own times say the contrary of their steps.
        for turn, step in enumerate(checkpoint.all_steps(run)):
            stamp = 2_000_000_000 - turn * 100_000_000
            os.utime(checkpoint.path_of(run, step), (stamp, stamp))
        assert checkpoint.all_steps(run) == [8, 10, 12]
        newest, _ = checkpoint.newest_valid(run)
        assert newest == checkpoint.path_of(run, 12)
        assert resume(run).steps == 12
    assert rows(tmp_path / "whole", "step") == rows(run, "step")
    seconds = [json.loads(line)["seconds"] for line in (run / "log.jsonl").open()]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0
    assert seconds[-1] < 600
