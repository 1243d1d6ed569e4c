"""Every operation of a save dies, is refused, or is forgotten by the disk; every byte is hurt."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from faulty_disk import FULL, Counting, Crash, Dying, Forgetful, Refusing, on_disk

from yunque import files
from yunque.errors import InputError, StorageError
from yunque.runlog import RunLog, read
from yunque.train import checkpoint

Many = Callable[[int, int], int]
Say = Callable[[str], None]
SHAPE = (40, 50)
EVERY_KIND = {"mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir"}


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several writes a file, and no waiting for a real disk, which these faults never reach."""
    monkeypatch.setattr(files, "BUFFER", 4096)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def save(run: Path, step: int) -> Path:
    """A checkpoint as a run makes it: rows, the row of the checkpoint, sync, save."""
    steps = [
        s for s in checkpoint.all_steps(run) if checkpoint.is_valid(checkpoint.path_of(run, s))
    ]
    size = checkpoint.load(checkpoint.path_of(run, steps[-1]))[2]["log_bytes"] if steps else None
    with RunLog(run / "log.jsonl", size if steps else 0) as log:
        for one in range(steps[-1] + 1 if steps else 1, step + 1):
            log.write("step", step=one, epoch=0.0, tokens_seen=one, seconds=0.0)
        log.sync()
        model = {"w": torch.full(SHAPE, float(step)), "b": torch.tensor(float(step))}
        optimizer = {"w|m": torch.full(SHAPE, -float(step)), "b|m": torch.ones(0)}
        state = {"step": step, "log_bytes": log.size}
        return checkpoint.save(run, step, model, optimizer, state, {"data": "d"}, keep=2)


def recovered(run: Path) -> int:
    """What a resume does: mend, take the newest that verifies, cut the log; returns its step."""
    files.remove_stages(run)
    files.remove_stages(run / checkpoint.FOLDER)
    newest, _ = checkpoint.newest_valid(run)
    if newest is None:
        return 0
    model, optimizer, state = checkpoint.load(newest)
    step = state["step"]
    assert newest.name == f"step-{step:08d}"
    assert torch.equal(model["w"], torch.full(SHAPE, float(step)))
    assert torch.equal(optimizer["w|m"], torch.full(SHAPE, -float(step)))
    RunLog(run / "log.jsonl", state["log_bytes"]).close()
    assert [row.values["step"] for row in read(run / "log.jsonl")] == list(range(1, step + 1))
    return int(step)


def nothing_torn_is_left(run: Path) -> None:
    assert not list(run.rglob(".tmp-*"))
    for step in checkpoint.all_steps(run)[-2:]:
        checkpoint.verify(checkpoint.path_of(run, step))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 and 2."""
    folder = tmp_path / "run"
    save(files.make_folder(folder), 1)
    save(folder, 2)
    return folder


def copy(run: Path, name: str) -> Path:
    other = run.with_name(name)
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(run, other)
    return other


def operations(run: Path) -> list[tuple[str, str]]:
    with on_disk(Counting()) as disk:
        save(copy(run, "counted"), 3)
    return disk.kinds


def test_f03_a_crash_at_any_operation_leaves_the_old_or_the_new(run: Path, figures: Say) -> None:
    kinds = operations(run)
    assert {kind for kind, _ in kinds} >= EVERY_KIND
    told, tries = {2: 0, 3: 0}, 0
    for at in range(len(kinds)):
        for when in ("before", "amid", "after"):
            if when == "amid" and kinds[at][0] != "write":
                continue
            other = copy(run, "crashed")
            with on_disk(Dying(at, when)), pytest.raises(Crash):
                save(other, 3)
            step = recovered(other)
            assert step in (2, 3), (at, kinds[at], when)
            told[step] += 1
            tries += 1
            nothing_torn_is_left(other)
            save(other, 4)
            assert recovered(other) == 4
            assert len(checkpoint.all_steps(other)) == 2
    assert min(told.values()) > 0
    figures(
        f"F3   {len(kinds)} operations of a save, {tries} crashes before, amid and after: the "
        f"older checkpoint {told[2]} times, the new one {told[3]} times, neither 0 times"
    )


def test_f04_a_disk_that_refuses_any_operation(run: Path, many: Many, figures: Say) -> None:
    kinds, errors = operations(run), FULL[: many(1, len(FULL))]
    failed = passed = 0
    for at in range(len(kinds)):
        for error in errors:
            for lasting in (False, True):
                other, told = copy(run, "refused"), ""
                with on_disk(Refusing(at, error, lasting)) as disk:
                    try:
                        save(other, 3)
                        passed += 1
                    except StorageError as fault:
                        told = str(fault)
                        failed += 1
                assert disk.refused > 0
                if told:
                    assert os.strerror(error) in told
                    assert str(other) in told
                assert recovered(other) in (2, 3), (at, kinds[at], error)
                nothing_torn_is_left(other)
                save(other, 4)
                assert recovered(other) == 4
    assert failed > passed > 0  # what is refused while old ones are removed hurts nobody
    figures(
        f"F4   {len(errors)} errors at each of {len(kinds)} operations, once and lasting: {failed} "
        f"saves failed with path and reason, {passed} succeeded all the same, 0 checkpoints lost"
    )


def test_f04_a_failed_save_removes_its_stage_at_once(run: Path) -> None:
    kinds = operations(run)
    first = next(n for n, (kind, name) in enumerate(kinds) if name == "model.safetensors")
    with on_disk(Refusing(first + 1, errno.ENOSPC, lasting=True)), pytest.raises(StorageError):
        save(run, 3)
    assert not list(run.rglob(".tmp-*"))
    assert checkpoint.all_steps(run) == [1, 2]


def test_f04_a_real_limit_on_the_size_of_files(run: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"step-00000003: cannot write: File too large"):
            save(run, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(run.rglob(".tmp-*"))
    assert recovered(run) == 2


def test_f04_a_device_that_is_always_full() -> None:
    with RunLog(Path("/dev/full")) as log, pytest.raises(StorageError, match="/dev/full: cannot"):
        log.write("step", step=1)


def test_f04_a_row_that_the_disk_refused_is_taken_back(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.jsonl") as log:
        log.write("step", step=1)
        with on_disk(Refusing(0, errno.ENOSPC, lasting=False)), pytest.raises(StorageError):
            log.write("step", step=2, text="x" * 100)
        log.write("step", step=3)
    assert [row.values["step"] for row in read(tmp_path / "log.jsonl")] == [1, 3]


def test_f04_too_little_room_is_said_before_anything_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 * 40 * 50 * 4 + 4
    monkeypatch.setattr(files, "free_bytes", lambda folder: int(size * 1.2) - 1)
    with pytest.raises(StorageError) as caught, on_disk(Counting()) as disk:
        save(run, 3)
    for told in (str(run / "checkpoints/step-00000003"), f"{int(size * 1.2):,}", "are free"):
        assert told in str(caught.value)
    assert not [kind for kind, name in disk.kinds if kind == "mkdir"]
    monkeypatch.setattr(files, "free_bytes", lambda folder: int(size * 1.2))
    save(run, 3)


def test_f05_loss_of_power_leaves_the_old_or_the_new(
    run: Path, chance: Random, many: Many, figures: Say
) -> None:
    before = copy(run, "before")
    states: dict[int, list[int]] = {}
    each = many(1, 20)
    tries = 0

    def lose_power(operation: int) -> None:
        nonlocal tries
        for keep in (0.0, *(chance.random() for _ in range(each))):
            left = run.with_name("left")
            shutil.rmtree(left, ignore_errors=True)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(files, "perform", lambda kind, path, action, *args: action(*args))
                disk.materialise(left, chance, keep)
                step = recovered(left)
            states.setdefault(operation, []).append(step)
            tries += 1
            assert step in (2, 3), (operation, keep)

    disk = Forgetful(run, lose_power)
    with on_disk(disk):
        save(run, 3)
    told = [step for at in sorted(states) for step in states[at]]
    assert {2, 3} == set(told)
    assert set(states[disk.operations]) == {3}, "a save that has returned is on the disk"
    assert recovered(before) == 2
    figures(
        f"F5   {tries} losses of power after each of {disk.operations} operations, unsynced data "
        f"and names dropped: older checkpoint {told.count(2)}, new one {told.count(3)}, neither 0"
    )


def test_f05_the_first_checkpoint_of_a_run_is_on_the_disk_when_it_was_saved(
    tmp_path: Path, chance: Random
) -> None:
    disk = Forgetful(tmp_path)
    run = tmp_path / "new" / "run"
    with on_disk(disk):
        save(files.make_folder(run), 1)
    left = tmp_path.with_name("left")
    shutil.rmtree(left, ignore_errors=True)
    disk.materialise(left, chance, keep=0.0)
    assert recovered(left / "new" / "run") == 1


def hurt(run: Path, other: Path, name: str, content: bytes) -> None:
    """The run with its newest checkpoint's file `name` replaced, seen by a resume."""
    path = checkpoint.path_of(other, 2) / name
    path.write_bytes(content)
    newest, refused = checkpoint.newest_valid(other)
    assert newest == checkpoint.path_of(other, 1)
    assert len(refused) == 1
    assert name in refused[0]
    path.write_bytes((checkpoint.path_of(run, 2) / name).read_bytes())


def test_f07_every_flipped_bit_is_seen(run: Path, chance: Random, many: Many, figures: Say) -> None:
    other, total = copy(run, "flipped"), many(120, 2000)
    names = sorted(path.name for path in checkpoint.path_of(run, 2).iterdir())
    assert len(names) == 4
    contents = {name: (checkpoint.path_of(run, 2) / name).read_bytes() for name in names}
    for turn in range(total):
        name = names[turn % 4]
        # Half of the flips of a tensor file go into its header, which its size would hide.
        head = len(contents[name]) if "safetensors" not in name or turn % 8 < 4 else 400
        at, bit = chance.randrange(head), chance.randrange(8)
        content = bytearray(contents[name])
        content[at] ^= 1 << bit
        hurt(run, other, name, bytes(content))
    assert checkpoint.newest_valid(other) == (checkpoint.path_of(other, 2), [])
    figures(f"F7   {total} flipped bits over {len(names)} files: {total} seen, the older one taken")


def test_f06_every_truncation_is_seen(run: Path, chance: Random, many: Many, figures: Say) -> None:
    other, total = copy(run, "cut"), many(80, 1000)
    names = sorted(path.name for path in checkpoint.path_of(run, 2).iterdir())
    for turn in range(total):
        name = names[turn % 4]
        content = (checkpoint.path_of(run, 2) / name).read_bytes()
        edges = [0, 1, 8, len(content) // 2, len(content) - 1]
        size = edges[turn // 4] if turn < 20 else chance.randrange(len(content))
        hurt(run, other, name, content[:size])
    figures(f"F6   {total} truncations over {len(names)} files: {total} seen, the older one taken")


def test_f06_missing_and_foreign_files_are_seen(run: Path) -> None:
    for name in sorted(path.name for path in checkpoint.path_of(run, 2).iterdir()):
        other = copy(run, "missing")
        (checkpoint.path_of(other, 2) / name).unlink()
        newest, (refused,) = checkpoint.newest_valid(other)
        assert newest == checkpoint.path_of(other, 1)
        assert name in refused
    other = copy(run, "foreign")
    (checkpoint.path_of(other, 2) / "more.safetensors").write_bytes(b"")
    newest, (refused,) = checkpoint.newest_valid(other)
    assert newest == checkpoint.path_of(other, 1)
    assert "more.safetensors: not a file of this checkpoint" in refused
    other = copy(run, "renamed")
    os.rename(checkpoint.path_of(other, 2), checkpoint.path_of(other, 9))
    newest, (refused,) = checkpoint.newest_valid(other)
    assert newest == checkpoint.path_of(other, 1)
    assert "of step 2, but in the folder step-00000009" in refused


def test_f08_many_saves_leave_nothing_behind(run: Path, many: Many, figures: Say) -> None:
    total = many(40, 1000)
    model = {"w": torch.ones(50, 50)}

    def burst(first: int, last: int) -> None:
        for step in range(first, last):
            checkpoint.save(run, step, model, model, {"step": step}, {}, keep=2)

    burst(3, 13)
    handles = len(os.listdir("/proc/self/fd"))
    memory = resident()
    burst(13, 13 + total)
    assert len(os.listdir("/proc/self/fd")) == handles
    grown = resident() - memory
    assert grown < 4_000_000
    assert checkpoint.all_steps(run) == [11 + total, 12 + total]
    assert len(list(run.rglob("*"))) == 1 + 1 + 2 * 5  # log, folder, two checkpoints of four files
    figures(f"F8   {total} saves: open files and names as before, memory {grown / 1e6:+.1f} MB")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_f09_whatever_happens_two_that_verify_stay(
    tmp_path: Path, chance: Random, many: Many, figures: Say
) -> None:
    sequences = many(30, 500)
    saves = refusals = 0
    model = {"w": torch.ones(3)}
    for number in range(sequences):
        run, step, good = tmp_path / str(number), 0, set[int]()
        keep = chance.randint(2, 4)
        for _ in range(chance.randint(3, 8)):
            event = chance.choice(("save", "save", "save", "damage", "refuse"))
            if event == "damage" and good:
                # A damaged one does not count: the one before it must outlive the next save.
                hit = chance.choice(sorted(good))
                (checkpoint.path_of(run, hit) / "state.json").write_text("{}")
                good.discard(hit)
                continue
            step += chance.randint(1, 5)
            disk = Counting()
            if event == "refuse":
                disk = Refusing(chance.randrange(40), errno.EACCES, lasting=chance.random() < 0.5)
                refusals += 1
            with on_disk(disk), contextlib.suppress(StorageError):
                checkpoint.save(run, step, model, model, {"step": step}, {}, keep)
            saves += 1
            after = {s for s in checkpoint.all_steps(run) if is_good(run, s)}
            lost = good - after
            # What went was older than enough good ones that stayed.
            for gone in lost:
                assert len([s for s in after if s > gone]) >= keep, (number, good, after)
            good = after
            if run.exists():
                files.remove_stages(run / checkpoint.FOLDER)
        shutil.rmtree(run, ignore_errors=True)
    figures(
        f"F9   {sequences} sequences of saves, damage and refused removals ({saves} saves, "
        f"{refusals} with refusals): no good checkpoint gone before enough newer ones verified"
    )


def is_good(run: Path, step: int) -> bool:
    try:
        checkpoint.verify(checkpoint.path_of(run, step))
    except InputError:
        return False
    return True


def test_f32_a_format_of_another_version_is_told(run: Path) -> None:
    path = checkpoint.path_of(run, 2) / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("sha256")
    for version in (checkpoint.FORMAT - 1, checkpoint.FORMAT + 1, "2", None):
        path.write_bytes(checkpoint.sealed({**values, "format": version}))
        newest, (refused,) = checkpoint.newest_valid(run)
        assert newest == checkpoint.path_of(run, 1)
        for told in (f"format {version!r}", f"reads format {checkpoint.FORMAT}", str(path.parent)):
            assert told in refused
