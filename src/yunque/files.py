"""How everything is written: stage → fsync → rename → fsync the folder; the run lock.

Under a name stands the old file or folder or the new one, never a part. A file changes in one
rename. A folder needs two, and after a kill between them neither stands: `remove_stages`, called
under the run lock before anything is read, puts the old one back.

Whatever changes the disk goes through `perform`, one numbered operation at a time. Tests put
another function in its place, which counts, refuses, tears, crashes or records them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from yunque.errors import InputError, StorageError, raise_all

STAGE_PREFIX = ".tmp-"
LOCK_NAME = ".lock"
BUFFER = 1 << 20
Kind = Literal["mkdir", "open", "write", "truncate", "fsync", "rename", "unlink", "rmdir"]
Result = TypeVar("Result")
_ASIDE = re.compile(re.escape(STAGE_PREFIX) + r"old-(.+)-[0-9a-f]{8}")

if sys.platform == "win32":
    import msvcrt

    # Nobody can read a locked byte there, so it lies far behind the owner's name.
    LOCK_BYTE = 1 << 30

    def lock_file(handle: FileIO) -> None:
        """Lock an open file for this process alone, or raise OSError at once."""
        handle.seek(LOCK_BYTE)
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def lock_file(handle: FileIO) -> None:
        """Lock an open file for this process alone, or raise OSError at once."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def perform(kind: Kind, path: Path, action: Callable[..., Result], *arguments: object) -> Result:
    """Do one operation on the disk: the only way in which this project changes it."""
    return action(*arguments)


class Writing(FileIO):
    """A file whose every write is an operation. `fsync` of a folder has the folder as its path."""

    def __init__(self, path: Path, mode: str):
        self.path = path
        perform("open", path, super().__init__, path, mode)

    def write(self, content: Any, /) -> int:
        return perform("write", self.path, super().write, content)

    def truncate(self, size: int | None = None, /) -> int:
        return perform("truncate", self.path, super().truncate, size)

    def sync(self) -> None:
        """Force to the disk what was written.

        Raises:
            OSError: the disk refused; what it holds is not known.
        """
        perform("fsync", self.path, os.fsync, self.fileno())


def beside(path: Path, kind: str) -> Path:
    """A free name next to `path`: "new" is not finished, "old" made room, "gone" is removed."""
    return path.parent / f"{STAGE_PREFIX}{kind}-{path.name}-{secrets.token_hex(4)}"


def storage_error(error: OSError, path: Path, doing: str) -> StorageError:
    """An operating-system error as a message with the path, the cause and a way out."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    mend = {
        errno.ENOSPC: " Free some space or choose another --out, then resume.",
        errno.EACCES: " Check the permissions of the folder or choose another --out.",
        errno.EROFS: " Choose an --out on a disk that can be written.",
        errno.ENOENT: " The folder is gone; create it again or choose another --out.",
    }.get(error.errno or 0, "")
    return StorageError(f"{path}: cannot {doing}: {reason}.{mend}")


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable (POSIX; elsewhere there is no such call)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        perform("fsync", folder, os.fsync, handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> Path:
    """Create a folder with its parents.

    Raises:
        StorageError: it cannot be created, or a file stands in its place.
    """
    missing = []
    try:
        for one in (folder, *folder.parents):
            if one.is_dir():
                break
            missing.append(one)
        for one in reversed(missing):
            perform("mkdir", one, lambda one=one: one.mkdir(exist_ok=True))
            sync_folder(one.parent)  # else what is later written into it could vanish with it
    except FileExistsError:
        raise StorageError(f"{folder}: a file stands where a folder is needed.") from None
    except ValueError as error:  # a NUL in the name
        raise StorageError(f"{str(folder)!r}: no disk takes this name ({error}).") from None
    except OSError as error:
        raise storage_error(error, folder, "create the folder") from None
    return folder


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only when the block ends without an error.

    Raises:
        StorageError: writing failed; nothing is left behind and an older `path` is untouched.
    """
    make_folder(path.parent)
    stage = beside(path, "new")
    try:
        with new_file(stage) as handle:
            yield handle
        perform("rename", path, os.replace, stage, path)
        sync_folder(path.parent)
    except StorageError:
        clear(stage)
        raise
    except OSError as error:
        clear(stage)
        raise storage_error(error, path, "write") from None
    except BaseException:
        clear(stage)
        raise


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file under a name that is free, on the disk when the block has ended.

    For files of a staged folder, which gets its name when all of them are written.

    Raises:
        OSError: opening or writing failed; what was written is still there.
    """
    raw = Writing(path, "xb")
    buffered = BufferedWriter(raw, BUFFER)
    try:
        yield buffered
        buffered.flush()
        raw.sync()
    finally:
        # Without another attempt to write what the disk refused, as closing the buffer would make.
        raw.close()


def clear(path: Path) -> None:
    """Remove a file or a folder with all that is in it, as far as the system lets us.

    What cannot be removed is out of sight under its staging name, and the next run tries again.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            for inside in list(path.iterdir()):
                clear(inside)
            perform("rmdir", path, path.rmdir)
        else:
            perform("unlink", path, lambda: path.unlink(missing_ok=True))
    except OSError:
        return


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with staged_file(path) as handle:
        handle.write(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader accepts: UTF-8, no NaN, a final newline."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def path_of(name: str | Path) -> Path:
    """The path that a user's name for it means, `~` as the home folder.

    Raises:
        InputError: nothing can be called so: too long, a zero byte, or `~` and no such user.
        StorageError: the system refuses to look.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise storage_error(error, Path(name), "look at") from None
        why = "a name that is too long"
    except (ValueError, RuntimeError) as error:
        why = str(error).rstrip(".")
    else:
        return path
    shown = str(name) if len(str(name)) <= 80 else f"{str(name)[:80]}…"
    raise InputError(f"{shown!r}: no path: {why}. Name a file or folder, or a Hub id (OWNER/NAME).")


READ_SUFFIXES = (".json", ".safetensors", ".jinja", ".txt", ".model", ".bpe", ".spm", ".tiktoken")
"""Endings of the files of a model folder that somebody reads."""


def refuse_strange_files(folder: Path) -> None:
    """Refuse what would make us read elsewhere, or wait for ever.

    A folder may come from anywhere. What is read of it is plain files, and links that end in the
    folder itself or, for a snapshot in the Hub's cache (models--…/snapshots/…), anywhere in that
    one repository's models--… folder, where its files lie under their hashes.

    Raises:
        InputError: links that lead out of the folder, and what is no file, all together.
    """
    home = folder.resolve()
    for parent in home.parents:
        if parent.name.startswith("models--") and home.parent == parent / "snapshots":
            home = parent
    faults = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in READ_SUFFIXES or path.is_dir():
            continue
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # a link that leads to itself
            target = Path(path.anchor)
        if not target.is_relative_to(home):
            faults.append(f"{path.name} is a link to {target}, outside of this folder.")
        elif path.exists() and not path.is_file():
            faults.append(f"{path.name} is not a file.")
    raise_all(f"{folder}: copy the files themselves into the folder", faults)


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        InputError: it is missing or not JSON, with the line and column, or a key stands twice.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON that can be read: {error}.") from None
    except OSError as error:
        raise storage_error(error, path, "read") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON text; two readers may take one of two equal keys each.

    Raises:
        ValueError: a key stands twice.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return made


@contextlib.contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears under `folder` only when the block ends without an error.

    An older folder of that name is first renamed aside and removed after the new one stands.

    Raises:
        StorageError: writing failed; the older folder is still there.
    """
    make_folder(folder.parent)
    stage = beside(folder, "new")
    try:
        perform("mkdir", stage, stage.mkdir)
        yield stage
        for root, _, names in os.walk(stage):
            for name in names:
                sync_file(Path(root) / name)
            sync_folder(Path(root))
        swap_in(stage, folder)
    except StorageError:
        clear(stage)
        raise
    except OSError as error:
        clear(stage)
        raise storage_error(error, folder, "write") from None
    except BaseException:
        clear(stage)
        raise


def swap_in(stage: Path, folder: Path) -> None:
    """Give a finished folder its name; an older one of that name is removed last.

    Raises:
        OSError: a rename failed; the older folder stands again.
    """
    aside = beside(folder, "old") if folder.exists() else None
    try:
        if aside is not None:
            perform("rename", aside, os.rename, folder, aside)
        perform("rename", folder, os.rename, stage, folder)
    except BaseException:
        if aside is not None and aside.exists() and not folder.exists():
            perform("rename", folder, os.rename, aside, folder)
        raise
    sync_folder(folder.parent)
    if aside is not None:
        clear(aside)


def sync_file(path: Path) -> None:
    """Force a written file to the disk."""
    # Opened for writing: Windows refuses to flush a file that is open for reading only.
    with Writing(path, "r+b") as handle:
        handle.sync()


def remove_file(path: Path) -> None:
    """Remove a file of ours where there is one."""
    try:
        perform("unlink", path, lambda: path.unlink(missing_ok=True))
    except OSError as error:
        raise storage_error(error, path, "remove") from None


def remove_folder(folder: Path) -> None:
    """Remove a folder: first out of sight by a rename, then its files."""
    aside = beside(folder, "gone")
    try:
        perform("rename", aside, os.rename, folder, aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, folder, "remove") from None
    clear(aside)


def remove_stages(folder: Path) -> None:
    """Mend and clear what an interrupted write left in `folder`; call only under its run lock.

    Raises:
        StorageError: an older folder that had made room cannot get its name back.
    """
    if not folder.is_dir():
        return
    for aside in folder.glob(f"{STAGE_PREFIX}old-*"):
        match = _ASIDE.fullmatch(aside.name)
        if match and aside.is_dir() and not (folder / match.group(1)).exists():
            try:
                target = folder / match.group(1)
                perform("rename", target, os.rename, aside, target)
                sync_folder(folder)
            except OSError as error:
                raise storage_error(error, aside, "put it back under its name") from None
    for left in folder.glob(f"{STAGE_PREFIX}*"):
        clear(left)


def open_to_append(path: Path) -> Writing:
    """Open a file for reading and for lines at its end, created where there is none.

    Unbuffered: a line that a full disk refused must not be tried again when the file is closed.

    Raises:
        InputError: the name leads to a file elsewhere.
        StorageError: it cannot be opened.
    """
    refuse_second_name(path)
    try:
        return Writing(path, "a+b")
    except OSError as error:
        raise storage_error(error, path, "open") from None


def refuse_second_name(path: Path) -> None:
    """Refuse a file that is written in place and stands elsewhere too.

    A run folder may come from anybody; a link in it must not make us change a file outside.

    Raises:
        InputError: it is a link, or a file with two names.
    """
    if path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1):
        raise InputError(
            f"{path}: a link, and what would be written there would change a file elsewhere. Put "
            "a copy of the file itself in its place."
        )


def refuse_links(folder: Path) -> None:
    """Refuse a folder of ours whose parts stand elsewhere.

    Raises:
        InputError: a name in it is a link.
    """
    links = sorted(entry.name for entry in folder.iterdir() if entry.is_symlink())
    if links:
        raise InputError(
            f"{folder / links[0]}: a link, and a run is written only into its own folder. Put what "
            "it leads to in its place."
        )


def append_line(handle: Writing, line: str) -> None:
    """Append one line in one write, so that a crash tears at most the last line.

    Raises:
        StorageError: the disk is full or broken; nothing of the line is left where the system
            lets us take it back.
    """
    rest = line.encode("utf-8") + b"\n"
    begin = handle.seek(0, os.SEEK_END) if handle.seekable() else None
    try:
        while rest:  # A second turn only where the disk filled up within the line.
            rest = rest[handle.write(rest) :]
    except OSError as error:
        with contextlib.suppress(OSError):
            if begin is not None:
                handle.truncate(begin)
        raise storage_error(error, handle.path, "write a line") from None


def truncate_file(path: Path, size: int) -> None:
    """Cut a file back to its first `size` bytes."""
    refuse_second_name(path)
    try:
        with Writing(path, "r+b") as handle:
            handle.truncate(size)
            handle.sync()
    except OSError as error:
        raise storage_error(error, path, "cut back") from None


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def surely_absent(path: Path) -> bool:
    """Whether nothing stands under a name; False where the system does not let us look."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def free_bytes(folder: Path) -> int:
    """Free space of the disk that holds `folder` (or its nearest existing parent).

    Raises:
        StorageError: the system refuses to look.
    """
    try:
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(error, folder, "look at") from None


def refuse_full_disk(folder: Path, needed: int, what: str) -> None:
    """Say before writing that there is no room, rather than fail in the middle.

    Raises:
        StorageError: fewer than `needed` bytes are free; path and figures are named.
    """
    free = free_bytes(folder)
    if free < needed:
        raise StorageError(
            f"{folder}: no room for {what}: {needed:,} bytes are needed, {free:,} are free. "
            "Free some space, then `yunque resume`."
        )


def boot_id() -> str:
    """What is another after every start of the machine, where the system tells; else ""."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process began, in ticks since the start of the machine; "" where none is known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The name in brackets may hold anything; field 22 is the twentieth behind it.
    return text.rpartition(")")[2].split()[19]


def owner_lives(owner: dict[str, Any]) -> bool:
    """Whether the process that a lock names may still run; a reused number is another process."""
    if owner.get("host") != socket.gethostname():
        return True  # nobody can tell from here
    if owner.get("boot") != boot_id():
        return False
    pid = owner.get("pid")
    return isinstance(pid, int) and owner.get("started") == started(pid) != ""


NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}
"""Disks that know no locks, as some network disks, answer with one of these."""


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone; freed by the system even after a kill.

    The file names process, host and boot. On a disk without locks these decide, and only there two
    processes that begin in the same moment could both believe to be the owner.

    Raises:
        InputError: another process holds it (its pid and host are named).
        StorageError: the folder cannot be written.
    """
    path = make_folder(folder) / LOCK_NAME
    with open_to_append(path) as handle:
        handle.seek(0)
        owner = lock_owner(handle.read(1000))
        try:
            lock_file(handle)
            taken = False
        except OSError as error:
            taken = error.errno not in NO_LOCKS or (bool(owner) and owner_lives(owner))
        if taken:
            who = "another process"
            if owner:
                who = f"process {owner['pid']} on {owner['host']}"
            raise InputError(
                f"{folder}: in use by {who}. Wait for it, stop it, or choose another --out."
            )
        handle.truncate(0)
        pid = os.getpid()
        ours = {
            "pid": pid,
            "host": socket.gethostname(),
            "boot": boot_id(),
            "started": started(pid),
        }
        append_line(handle, json.dumps(ours))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the lock goes with the process, not with the text
                handle.truncate(0)


def in_use(folder: Path) -> bool:
    """Whether a process that lives on this machine holds `folder`, as far as its lock tells."""
    try:
        owner = lock_owner((folder / LOCK_NAME).read_bytes())
    except OSError:
        return False
    return bool(owner) and owner["host"] == socket.gethostname() and owner_lives(owner)


def lock_owner(text: bytes) -> dict[str, Any]:
    """Who a lock file names; empty where it names nobody."""
    try:
        owner = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) and {"pid", "host"} <= owner.keys() else {}
