"""Checkpoints: a folder of safetensors and JSON with a hashed manifest, written atomically.

```
checkpoints/step-00000500/  model.safetensors  optimizer.safetensors  state.json  manifest.json
```

There is no "latest" pointer: the newest valid checkpoint is the one with the highest step whose
files all have the size and SHA-256 that its manifest names. Nothing is pickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from yunque import files
from yunque.errors import InputError, StorageError

FORMAT = 1
FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{8})")


def path_of(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates stands."""
    return run / FOLDER / f"step-{step:08d}"


def save(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of `step`, verify it from disk, then remove all but the newest `keep`.

    Checkpoints of later steps are removed too: they are of a run that was cut back to before
    `step`, because they were damaged, and its log no longer reaches them.

    Raises:
        StorageError: no space or no permission; older checkpoints are untouched.
    """
    tensors = {"model.safetensors": model, "optimizer.safetensors": optimizer}
    needed = sum(t.numel() * t.element_size() for part in tensors.values() for t in part.values())
    free = files.free_bytes(run)
    if free < needed * 1.1:
        raise StorageError(
            f"{run}: a checkpoint needs {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free. "
            "Free some space, then `yunque resume`."
        )
    target = path_of(run, step)
    with files.staged_folder(target) as stage:
        for name, part in tensors.items():
            write_tensors(part, stage / name, target / name)
        files.write_json(stage / "state.json", dict(state))
        names = [*tensors, "state.json"]
        entries = {
            name: {"bytes": (stage / name).stat().st_size, "sha256": files.sha256(stage / name)}
            for name in names
        }
        manifest = {"format": FORMAT, "step": step, "files": entries}
        files.write_json(stage / "manifest.json", manifest)
    # The hashes above are of the stage. This second reading is of what stands under the final
    # name, as a resume will read it, and nothing older is removed before it holds.
    verify(target)
    steps = all_steps(run)
    kept = [other for other in steps if other <= step][-keep:]
    for other in steps:
        if other not in kept:
            files.remove_folder(path_of(run, other))
    return target


def write_tensors(tensors: Mapping[str, Tensor], path: Path, shown: Path) -> None:
    """Write one safetensors file; errors name `shown`, where it would have stood.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, path)
    except SafetensorError as error:  # It holds the system's error only as text.
        raise StorageError(
            f"{shown}: cannot write: {error}. Free some space or check the disk and the "
            "permissions, then `yunque resume`."
        ) from None
    except OSError as error:
        raise files.storage_error(error, shown, "write") from None


def all_steps(run: Path) -> list[int]:
    """Steps of the checkpoints in a run, ascending, valid or not."""
    folder = run / FOLDER
    if not folder.is_dir():
        return []
    matches = (_NAME.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)


def verify(folder: Path) -> None:
    """Hold every file of a checkpoint against the manifest.

    Raises:
        InputError: a file is missing, or its size or hash is another; file and figures named.
    """
    manifest = files.read_json(folder / "manifest.json")
    try:
        version, entries = manifest["format"], dict(manifest["files"])
        wanted = {name: (int(e["bytes"]), str(e["sha256"])) for name, e in entries.items()}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder / 'manifest.json'}: not a manifest of a checkpoint.") from None
    if version != FORMAT:
        raise InputError(
            f"{folder}: checkpoint format {version!r}, this version reads format {FORMAT}."
        )
    if set(wanted) != {"model.safetensors", "optimizer.safetensors", "state.json"}:
        raise InputError(f"{folder / 'manifest.json'}: names other files: {sorted(wanted)}.")
    for name, (size, digest) in wanted.items():
        path = folder / name
        got = path.stat().st_size if path.is_file() else -1
        if got != size:
            what = "is missing" if got < 0 else f"has {got} bytes"
            raise InputError(f"{path}: {what}, its manifest says {size} bytes.")
        if files.sha256(path) != digest:
            raise InputError(f"{path}: its content changed since it was saved (SHA-256 differs).")


def newest_valid(run: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and one sentence for each newer one that does not."""
    refused = []
    for step in reversed(all_steps(run)):
        folder = path_of(run, step)
        try:
            verify(folder)
        except (InputError, OSError) as error:
            refused.append(str(error))
        else:
            return folder, refused
    return None, refused


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """Model tensors, optimizer tensors and state of a checkpoint that was verified."""
    model = load_file(folder / "model.safetensors")
    optimizer = load_file(folder / "optimizer.safetensors")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return model, optimizer, state
