"""Whole runs on a disk that fills up, on data that are cut, over one process and two."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from faulty_disk import Crash, on_disk
from small_runs import (
    SMALL,
    TUNED,
    StopAt,
    assert_same_run,
    kept_bytes,
    rows,
    without_pages,
    write_talks,
    write_text,
)

from yunque import cli
from yunque.assemble.runs import finetune, pretrain, resume
from yunque.data import batches
from yunque.errors import StorageError, YunqueError
from yunque.marking import patterns
from yunque.screen import SilentScreen
from yunque.train import checkpoint, loop
from yunque.train import step as steps
from yunque.train.spikes import Recent

Say = Callable[[str], None]


class Filling:
    """Refuses what grows below a name with this error, while it is `full`; `only`: in its path."""

    def __init__(self, below: Path, error: int, only: str = ""):
        self.below, self.error, self.only, self.full, self.refused = below, error, only, True, 0

    def __call__(self, kind: str, path: Path, action: Callable[..., Any], *given: Any) -> Any:
        growing = kind in ("write", "mkdir") and path.is_relative_to(self.below)
        if self.full and growing and self.only in str(path):
            self.refused += 1
            raise OSError(self.error, os.strerror(self.error), str(path))
        return action(*given)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EFBIG], ids=errno.errorcode.get)
def test_f04_a_run_goes_on_without_the_checkpoint_that_the_disk_refused(
    error: int, tmp_path: Path, figures: Say
) -> None:
    text = str(write_text(tmp_path))
    run, whole = tmp_path / "run", tmp_path / "whole"
    disk = Filling(run / checkpoint.FOLDER, error)

    class Freeing(SilentScreen):
        def step(self, row: Any) -> None:
            disk.full = row["step"] <= 5  # the checkpoints of steps 2 and 4 fail

    with without_pages():
        pretrain(text, whole, **SMALL)
        with on_disk(disk):
            pretrain(text, run, screen=Freeing(), **SMALL)
        told = [row for row in rows(run, "warning") if row["id"] == "not_saved"]
        assert [row["step"] for row in told] == [2, 4]
        assert all(os.strerror(error) in row["text"] for row in told)
        assert rows(run, "step", "eval") == rows(whole, "step", "eval")
        assert kept_bytes(run) == kept_bytes(whole)
        # Three in a row: it ends, says why, and where it can go on.
        disk, lost = Filling(tmp_path / "lost" / checkpoint.FOLDER, error), tmp_path / "lost"
        with on_disk(disk), pytest.raises(StorageError, match=r"None was saved: `yunque resume"):
            pretrain(text, lost, **SMALL)
        assert rows(lost, "step")[-1]["step"] == 6
        resume(lost)
        assert assert_same_run(whole, lost) == 12
    figures(
        f"F4   a run that meets {errno.errorcode[error]} at two saves goes on, equal to the bit; "
        "at three in a row it ends with the reason, and resumes"
    )


class RefusingOnce:
    """Refuses operation `at` of those that it sees while it is `armed`."""

    def __init__(self, at: int):
        self.at, self.armed, self.seen = at, False, list[tuple[str, str]]()

    def __call__(self, kind: str, path: Path, action: Callable[..., Any], *given: Any) -> Any:
        if self.armed:
            self.seen.append((kind, path.name))
            if len(self.seen) == self.at + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return action(*given)


def test_f04_a_save_refused_anywhere_then_a_kill(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chance: Random,
    many: Callable[[int, int], int],
    figures: Say,
) -> None:
    """Whatever of a run's save the disk refused, log and checkpoint belong together."""
    text, save = str(write_text(tmp_path)), loop.save
    options = {**SMALL, "eval_every": 100}

    class Dying(SilentScreen):
        def step(self, row: Any) -> None:
            if row["step"] == 5:
                raise Crash

    def refused(at: int) -> tuple[Path, list[tuple[str, str]]]:
        disk, run = RefusingOnce(at), tmp_path / f"run{at}"

        def saving(job: Any, state: Any) -> str:
            disk.armed = state.step == 4
            fault = save(job, state)
            disk.armed = False
            return fault

        monkeypatch.setattr(loop, "save", saving)
        with on_disk(disk), pytest.raises(Crash):
            pretrain(text, run, screen=Dying(), **options)
        return run, disk.seen

    told = {2: 0, 4: 0}
    with without_pages():
        pretrain(text, tmp_path / "whole", **options)
        operations = refused(-1)[1]
        folders = [n for n, one in enumerate(operations) if one == ("fsync", checkpoint.FOLDER)]
        assert len(folders) == 1  # after it got its name
        others = [n for n in range(len(operations)) if n not in folders]
        for at in folders + chance.sample(others, min(many(2, len(others)), len(others))):
            run, seen = refused(at)
            newest, _ = checkpoint.newest_valid(run)
            assert newest is not None
            step = int(newest.name[-8:])
            told[step] += 1
            assert step == 4 or at not in folders, seen[at]
            resume(run)
            assert assert_same_run(tmp_path / "whole", run) == 12
            shutil.rmtree(run)
    figures(
        f"F4   {sum(told.values())} of {len(operations)} operations of a run's save refused, the "
        f"run then killed: resumed {told[2]} times from the older, {told[4]} times from the new"
    )


def test_f04_a_checkpoint_that_cannot_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the system where we only read: it goes on without that checkpoint too."""
    text, run, verify = str(write_text(tmp_path)), tmp_path / "run", checkpoint.verify

    def failing(folder: Path) -> dict[str, Any]:
        if folder.name == "step-00000004":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
        return verify(folder)

    with without_pages():
        pretrain(text, tmp_path / "whole", **SMALL)
        monkeypatch.setattr(checkpoint, "verify", failing)
        pretrain(text, run, **SMALL)
    (told,) = [row for row in rows(run, "warning") if row["id"] == "not_saved"]
    assert told["step"] == 4
    assert "Input/output error" in told["text"]
    assert assert_same_run(tmp_path / "whole", run) == 12


def test_f04_a_best_model_that_the_disk_refuses_ends_the_run(tmp_path: Path) -> None:
    """Going on would leave an older model in best/ than the log names."""
    text, run = str(write_text(tmp_path)), tmp_path / "run"
    with without_pages():
        pretrain(text, tmp_path / "whole", **SMALL)

        class Freeing(SilentScreen):
            def step(self, row: Any) -> None:
                disk.full = row["step"] >= 5  # before the evaluation of step 8

        disk = Filling(run, errno.ENOSPC, only=".tmp-new-best")
        disk.full = False
        told = r"best: cannot write: No space.*The last checkpoint is that of step 6"
        with on_disk(disk), pytest.raises(StorageError, match=told):
            pretrain(text, run, screen=Freeing(), **SMALL)
        assert disk.refused > 0
        resume(run)
    assert assert_same_run(tmp_path / "whole", run) == 12


@pytest.mark.parametrize("what", ["removed", "moved", "replaced", "log removed"])
@pytest.mark.parametrize("eval_every", [100, 4])
def test_f26_a_run_folder_that_goes_in_mid_run(what: str, eval_every: int, tmp_path: Path) -> None:
    """Nothing is written into a folder that only has the name of the run's own."""
    text, run, moved = str(write_text(tmp_path)), tmp_path / "run", tmp_path / "moved"
    options = {**SMALL, "eval_every": eval_every}
    made: list[int] = []

    class Meddling(SilentScreen):
        def step(self, row: Any) -> None:
            made.append(row["step"])
            if row["step"] != 5:
                return
            if what == "log removed":
                (run / "log.jsonl").unlink()
                return
            run.rename(moved)
            if what == "replaced":
                shutil.copytree(moved, run)
            if what != "moved":
                shutil.rmtree(moved)

    with without_pages():
        told = r"log\.jsonl: removed, moved or replaced while the run goes on"
        with pytest.raises(StorageError, match=told) as caught:
            pretrain(text, run, screen=Meddling(), **options)
        # Without evaluations three saves fail; with them the best model cannot be kept.
        assert made[-1] == (10 if eval_every == 100 else 8)
        gone = "The run folder is gone" in str(caught.value)
        assert gone == (what in ("removed", "moved"))
        assert run.exists() != gone
        if run.exists():
            assert checkpoint.all_steps(run) == [2, 4]
        if what == "moved":
            moved.rename(run)
        if what in ("moved", "replaced"):
            resume(run)
            pretrain(text, tmp_path / "whole", **options)
            assert assert_same_run(tmp_path / "whole", run) == 12


def test_f13_data_that_are_cut_while_a_run_reads_them(tmp_path: Path) -> None:
    run = tmp_path / "run"

    class Cutting(SilentScreen):
        def step(self, row: Any) -> None:
            if row["step"] == 3:
                os.truncate(run / "data" / "train.bin", 10)

    with without_pages():
        text = str(write_text(tmp_path))
        pretrain(text, tmp_path / "whole", **SMALL)
        with pytest.raises(StorageError, match=r"train\.bin: cut short while it was read.*step 2"):
            pretrain(text, run, screen=Cutting(), **SMALL)
        resume(run)  # prepares them again from the text
        assert assert_same_run(tmp_path / "whole", run) == 12


def children() -> set[str]:
    """Processes that this one has started and that still live."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= set((task / "children").read_text().split())
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the children")
@pytest.mark.parametrize("kind", ["pretraining", "fine-tuning"])
def test_f14_no_process_reads_for_a_run(kind: str, tmp_path: Path) -> None:
    before, threads = children(), set(threading.enumerate())
    seen: list[int] = []

    class Looking(SilentScreen):
        def step(self, row: Any) -> None:
            assert children() <= before
            assert set(threading.enumerate()) <= threads
            seen.append(row["step"])

    with without_pages():
        small = {**SMALL, "steps": 3, "context_length": 64}
        pretrain(str(write_text(tmp_path)), tmp_path / "base", screen=Looking(), **small)
        if kind == "fine-tuning":
            options = {**TUNED, "steps": 3}
            talks = str(write_talks(tmp_path))
            finetune(tmp_path / "base", talks, tmp_path / "run", screen=Looking(), **options)
    assert seen == [1, 2, 3] * (2 if kind == "fine-tuning" else 1)
    held = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert children() - before == {str(held.pid)}  # one would have been seen
    held.communicate()


def test_f14_a_read_that_fails_ends_the_run_and_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, run, broken = str(write_text(tmp_path)), tmp_path / "run", [False]
    read_at = batches.read_at

    def failing(*given: int) -> bytes:
        if broken[0]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_at(*given)

    class Breaking(SilentScreen):
        def step(self, row: Any) -> None:
            broken[0] = row["step"] == 5

    monkeypatch.setattr(batches, "read_at", failing)
    with without_pages():
        pretrain(text, tmp_path / "whole", **SMALL)
        told = r"train\.bin: cannot read: Input/output error.*The last checkpoint is that of step 4"
        with pytest.raises(StorageError, match=told):
            pretrain(text, run, screen=Breaking(), **SMALL)
        assert rows(run, "step")[-1]["step"] == 5
        broken[0] = False
        resume(run)
    assert assert_same_run(tmp_path / "whole", run) == 12


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "held up"])
def test_f14_an_exam_whose_searching_process_is_gone(number: signal.Signals) -> None:
    """It is the one process that a run may start: no mark changes because it died or hangs."""
    assert patterns.fits("^[0-9]+$", f"1{number:d}")
    first = patterns.SEARCHER.process
    assert first is not None
    os.kill(first.pid, number)
    began = time.monotonic()
    assert patterns.fits("^[0-9]+$", f"2{number:d}")
    assert time.monotonic() - began < 10
    assert patterns.SEARCHER.process is not first
    assert first.poll() is not None  # not left behind


def forked_ranks(world: int, out: Path, action: Callable[[], int]) -> list[int]:
    """Processes that a launcher would have started; returns their ids."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = 1
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # not to outlive a test that is stopped
            try:
                sys.stderr = out.with_suffix(f".{rank}").open("w", encoding="utf-8", buffering=1)
                os.environ |= {"WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                with without_pages():
                    code = action()
            except BaseException:
                import traceback

                traceback.print_exc()
            os._exit(code)
        children.append(child)
    return children


def ended(child: int, seconds: float = 120.0) -> int:
    """Exit code of a child."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"still running after {seconds} s")


@pytest.mark.parametrize("exactness", ["exact", "reproducible"])
def test_f31_two_processes_then_one_then_two(exactness: str, tmp_path: Path, figures: Say) -> None:
    text, run, whole = str(write_text(tmp_path)), tmp_path / "run", tmp_path / "whole"
    options = {**SMALL, "exactness": exactness, "eval_every": 3, "steps": 9, "checkpoint_every": 0}
    if exactness == "reproducible":
        options |= {"dropout": 0.0}  # what it drops depends on the micro-batches of each process
    with without_pages():
        pretrain(text, whole, **options)

    def part(stop: int) -> int:
        with pytest.MonkeyPatch.context() as patch:
            screen = StopAt(stop, patch)
            if (run / "recipe.toml").exists():
                resume(run, screen=screen)
            else:
                pretrain(text, run, screen=screen, **options)
        return 0

    for world, stop in ((2, 3), (1, 6), (2, 100)):
        if world == 1:
            with without_pages():
                part(stop)
            continue
        for number, child in enumerate(forked_ranks(world, tmp_path / "told", lambda: part(stop))):  # noqa: B023
            assert ended(child) == 0, (tmp_path / f"told.{number}").read_text()[-3000:]
    ours, theirs = rows(run, "step", "eval"), rows(whole, "step", "eval")
    assert len(ours) == len(theirs) == 9 + 4
    if exactness == "exact":
        assert ours == theirs
        weights = (one / "last" / "model.safetensors" for one in (run, whole))
        assert next(weights).read_bytes() == next(weights).read_bytes()
    apart = 0.0
    for row, other in zip(ours, theirs, strict=True):
        assert row["tokens_seen"] == other["tokens_seen"]
        assert row.get("learning_rate") == other.get("learning_rate")
        apart = max(apart, abs(row["train_loss"] - other["train_loss"]))
    assert apart <= 1e-5
    figures(f"F31  two processes, one, two ({exactness}): losses at most {apart:.1e} apart")


def test_f28_two_processes_agree_on_a_spike(tmp_path: Path) -> None:
    """What one of them calls a spike neither applies: their weights stay the same."""
    text, run = str(write_text(tmp_path)), tmp_path / "run"
    options = {**SMALL, "steps": 37, "eval_every": 100, "checkpoint_every": 0}
    limits, asked = Recent.limits, [0]

    def stricter(self: Recent, deviations: float) -> tuple[float, float]:
        asked[0] += 1
        found = limits(self, deviations)
        return (0.0, 0.0) if asked[0] == 35 and os.environ["RANK"] == "1" else found

    def part() -> int:
        Recent.limits = stricter  # type: ignore[method-assign]  # in a fork, that ends here
        pretrain(text, run, spike_deviations=30.0, **options)
        return 0

    for number, child in enumerate(forked_ranks(2, tmp_path / "told", part)):
        assert ended(child) == 0, (tmp_path / f"told.{number}").read_text()[-3000:]
    (told,) = [row for row in rows(run, "warning") if row["id"] == "spike"]
    assert told["step"] == 35


def test_f29_one_of_two_processes_lacks_memory(tmp_path: Path, figures: Say) -> None:
    text, run = str(write_text(tmp_path)), tmp_path / "run"
    options = {**SMALL, "steps": 8, "dropout": 0.0}
    loss = steps.cross_entropy_sum

    def lacking() -> int:
        def narrow(hidden: Any, head: Any, targets: Any) -> Any:
            if len(hidden) > 1 and len(rows(run, "step")) >= 5:
                raise MemoryError
            return loss(hidden, head, targets)

        if os.environ["RANK"] == "1":
            steps.cross_entropy_sum = narrow  # in a fork, that ends here
        try:
            pretrain(text, run, **options)
        except YunqueError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return 0

    first, second = forked_ranks(2, tmp_path / "told", lacking)
    began = time.monotonic()
    code = ended(second)
    told = (tmp_path / "told.1").read_text(encoding="utf-8")
    assert code == 71, told
    wanted = r"step 6, process 1 of 2: the memory ran out with 2 rows at once.* not halved.*"
    wanted += r"Resume with --set micro_batch_size=1\. The last checkpoint is that of step 4"
    assert re.search(wanted, told), told
    other = (tmp_path / "told.0").read_text(encoding="utf-8")
    assert ended(first, 30) == 1, other
    assert "another process of the run is gone" in (tmp_path / "told.0").read_text()
    seconds = time.monotonic() - began

    def smaller() -> int:
        resume(run, settings={"micro_batch_size": 1})
        return 0

    for number, child in enumerate(forked_ranks(2, tmp_path / "again", smaller)):
        assert ended(child) == 0, (tmp_path / f"again.{number}").read_text()[-3000:]
    with without_pages():
        pretrain(text, tmp_path / "whole", **options)
    for row, whole in zip(rows(run, "step"), rows(tmp_path / "whole", "step"), strict=True):
        assert row["train_loss"] == pytest.approx(whole["train_loss"], abs=1e-5)
    figures(
        f"F29  one of two processes lacks memory: both end within {seconds:.1f} s of the start, "
        "the message's own change resumes the run"
    )


def test_f15_one_of_two_processes_is_killed(tmp_path: Path, figures: Say) -> None:
    text, run = str(write_text(tmp_path)), tmp_path / "run"
    words = ["pretrain", text, "--out", str(run), "--quiet", "--device", "cpu", "--threads", "1"]
    words += ["--hidden-size", "16", "--num-heads", "2", "--num-layers", "1", "--steps", "1000000"]
    words += ["--context-length", "16", "--checkpoint-every", "3", "--eval-every", "100000"]
    words += ["--tokenizer", "char", "--batch-size", "4"]
    first, second = forked_ranks(2, tmp_path / "told", lambda: cli.main(words))
    until = time.monotonic() + 120
    while not checkpoint.all_steps(run):
        assert time.monotonic() < until, (tmp_path / "told.0").read_text()
        time.sleep(0.01)
    os.kill(second, signal.SIGKILL)
    os.waitpid(second, 0)
    began = time.monotonic()
    code = ended(first)
    seconds = time.monotonic() - began
    told = (tmp_path / "told.0").read_text(encoding="utf-8")
    assert code == 1, told
    assert "Traceback" not in told
    assert "another process of the run" in told
    assert f"yunque resume {run}" in told
    assert checkpoint.newest_valid(run)[0] is not None
    figures(
        f"F15  one of two processes killed: the other ends with the reason after {seconds:.1f} s"
    )
