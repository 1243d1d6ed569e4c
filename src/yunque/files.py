"""How everything is written: stage → fsync → rename → fsync the folder; the run lock.

Under a name stands the old file or folder or the new one, never a part. A file changes in one
rename. A folder needs two, and after a kill between them neither stands: `remove_stages`, called
under the run lock before anything is read, puts the old one back.
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
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import IO, Any

from yunque.errors import InputError, StorageError

STAGE_PREFIX = ".tmp-"
LOCK_NAME = ".lock"
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
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> Path:
    """Create a folder with its parents.

    Raises:
        StorageError: it cannot be created, or a file stands in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise StorageError(f"{folder}: a file stands where a folder is needed.") from None
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
        with stage.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(stage, path)
        sync_folder(path.parent)
    except StorageError:
        stage.unlink(missing_ok=True)
        raise
    except OSError as error:
        stage.unlink(missing_ok=True)
        raise storage_error(error, path, "write") from None
    except BaseException:
        stage.unlink(missing_ok=True)
        raise


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
        stage.mkdir()
        yield stage
        for root, _, names in os.walk(stage):
            for name in names:
                sync_file(Path(root) / name)
            sync_folder(Path(root))
        swap_in(stage, folder)
    except StorageError:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(stage, ignore_errors=True)
        raise storage_error(error, folder, "write") from None
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def swap_in(stage: Path, folder: Path) -> None:
    """Give a finished folder its name; an older one of that name is removed last.

    Raises:
        OSError: a rename failed; the older folder stands again.
    """
    aside = beside(folder, "old") if folder.exists() else None
    try:
        if aside is not None:
            os.rename(folder, aside)
        os.rename(stage, folder)
    except BaseException:
        if aside is not None and aside.exists() and not folder.exists():
            os.rename(aside, folder)
        raise
    sync_folder(folder.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Force a written file to the disk."""
    # Opened for writing: Windows refuses to flush a file that is open for reading only.
    with path.open("r+b") as handle:
        os.fsync(handle.fileno())


def remove_file(path: Path) -> None:
    """Remove a file of ours where there is one."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, path, "remove") from None


def remove_folder(folder: Path) -> None:
    """Remove a folder: first out of sight by a rename, then its files."""
    aside = beside(folder, "gone")
    try:
        os.rename(folder, aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, folder, "remove") from None
    shutil.rmtree(aside, ignore_errors=True)


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
                os.rename(aside, folder / match.group(1))
                sync_folder(folder)
            except OSError as error:
                raise storage_error(error, aside, "put it back under its name") from None
    for left in folder.glob(f"{STAGE_PREFIX}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def open_to_append(path: Path) -> FileIO:
    """Open a file for reading and for lines at its end, created where there is none.

    Unbuffered: a line that a full disk refused must not be tried again when the file is closed.

    Raises:
        StorageError: it cannot be opened.
    """
    try:
        return path.open("a+b", buffering=0)
    except OSError as error:
        raise storage_error(error, path, "open") from None


def append_line(handle: FileIO, line: str) -> None:
    """Append one line in one write, so that a crash tears at most the last line.

    Raises:
        StorageError: the disk is full or broken; the last line may be torn.
    """
    rest = line.encode("utf-8") + b"\n"
    try:
        while rest:  # A second turn only where the disk filled up within the line.
            rest = rest[handle.write(rest) :]
    except OSError as error:
        raise storage_error(error, Path(str(handle.name)), "write a line") from None


def truncate_file(path: Path, size: int) -> None:
    """Cut a file back to its first `size` bytes."""
    try:
        with path.open("r+b") as handle:
            handle.truncate(size)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise storage_error(error, path, "cut back") from None


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def free_bytes(folder: Path) -> int:
    """Free space of the disk that holds `folder` (or its nearest existing parent)."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone; freed by the system even after a kill.

    Raises:
        InputError: another process holds it (its pid and host are named).
    """
    path = make_folder(folder) / LOCK_NAME
    with open_to_append(path) as handle:
        try:
            lock_file(handle)
        except OSError:
            handle.seek(0)
            owner = handle.read(200).decode("utf-8", "replace").strip() or "another process"
            raise InputError(
                f"{folder}: in use by {owner}. Wait for it, stop it, or choose another --out."
            ) from None
        handle.truncate(0)
        append_line(handle, f"process {os.getpid()} on {socket.gethostname()}")
        try:
            yield
        finally:
            handle.truncate(0)
