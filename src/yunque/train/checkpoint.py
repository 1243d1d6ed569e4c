"""Checkpoints: a folder of safetensors and JSON with a hashed manifest, written atomically.

```
checkpoints/step-00000500/  model.safetensors  optimizer.safetensors  state.json  manifest.json
```

There is no "latest" pointer: the newest valid checkpoint is the one with the highest step whose
files all have the size and SHA-256 that its manifest names. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from yunque import files
from yunque.errors import InputError, StorageError

FORMAT = 2
FOLDER = "checkpoints"
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")
ROOM = 1.2
"""A save is begun only where so many times its size is free."""
_NAME = re.compile(r"step-(\d{8})")
TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def path_of(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates stands."""
    return run / FOLDER / f"step-{step:08d}"


def save(
    run: Path,
    step: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
    fingerprints: Mapping[str, str],
    keep: int,
) -> Path:
    """Write the checkpoint of `step`, verify it from disk, then remove all but the newest `keep`.

    Only checkpoints that verify count. Those of later steps are removed too: they are of a run
    that was cut back to before `step`, because they were damaged, and its log no longer reaches
    them. No clock is asked: the order is that of the steps.

    Raises:
        StorageError: no space, no permission, a disk that gives back other bytes than it got;
            older checkpoints are untouched and no part of the new one is left.
    """
    tensors = {"model.safetensors": model, "optimizer.safetensors": optimizer}
    target = path_of(run, step)
    size = sum(t.numel() * t.element_size() for part in tensors.values() for t in part.values())
    files.refuse_full_disk(target, int(size * ROOM), "a checkpoint")
    with files.staged_folder(target) as stage:
        entries = {
            name: write_file(stage / name, tensor_parts(part)) for name, part in tensors.items()
        }
        text = json.dumps(dict(state), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        entries["state.json"] = write_file(stage / "state.json", [text.encode("utf-8")])
        manifest = {
            "format": FORMAT,
            "step": step,
            "fingerprints": dict(fingerprints),
            "files": entries,
        }
        write_file(stage / "manifest.json", [sealed(manifest)])
    # The hashes are of what was meant. This reading is of what stands under the final name, as a
    # resume will read it, and nothing older is removed before it holds.
    try:
        verify(target)
    except InputError as error:
        files.remove_folder(target)
        raise StorageError(f"{error} The disk gives back other bytes than it got.") from None
    remove_old(run, step, keep)
    return target


def not_finite(*parts: Mapping[str, Tensor]) -> str:
    """The name of a tensor that holds NaN or infinity, or nothing: such a state is never saved."""
    for part in parts:
        for name, tensor in part.items():
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            # The largest magnitude: one pass, no copy, and a NaN stays one.
            largest = torch.linalg.vector_norm(tensor.detach(), math.inf).item()
            if not math.isfinite(largest):
                return name
    return ""


def remove_old(run: Path, step: int, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` that verify, none of them later than `step`.

    What cannot be removed stays until the next save.
    """
    try:
        steps = all_steps(run)
    except StorageError:
        return
    if len(steps) <= keep and steps[-1] <= step:
        return
    kept: list[int] = []
    for other in reversed([one for one in steps if one <= step]):
        if len(kept) < keep and (other == step or is_valid(path_of(run, other))):
            kept.append(other)
    for other in steps:
        if other not in kept:
            try:
                files.remove_folder(path_of(run, other))
            except StorageError:
                continue


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a file of a staged folder; returns size and SHA-256 of what was meant to be written."""
    digest, size = hashlib.sha256(), 0
    with files.new_file(path) as handle:
        for part in parts:
            handle.write(part)
            digest.update(part)
            size += len(part)
    return {"bytes": size, "sha256": digest.hexdigest()}


def tensor_parts(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """A safetensors file in parts: length and text of the header, then one tensor after another.

    Source: the format's own description in the safetensors project's README; the widest types
    first, so that every tensor is aligned.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, begin = {}, 0
    for name in names:
        tensor = tensors[name]
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            yield flat.view(torch.uint8).numpy().data


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest with the SHA-256 of its own values: no byte of it can change."""
    text = json.dumps(manifest, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    whole = {**manifest, "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}
    return (json.dumps(whole, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def all_steps(run: Path) -> list[int]:
    """Steps of the checkpoints in a run, ascending, valid or not.

    Raises:
        StorageError: the system does not let us look.
    """
    folder = run / FOLDER
    try:
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise files.storage_error(error, folder, "read") from None
    matches = (_NAME.fullmatch(name) for name in names)
    return sorted(int(match.group(1)) for match in matches if match)


def verify(folder: Path) -> dict[str, Any]:
    """Hold every file of a checkpoint against the manifest, which is returned.

    Raises:
        InputError: a file is missing or one too many, or its size or hash is another; file and
            figures named.
    """
    path = folder / "manifest.json"
    manifest = files.read_json(path)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise InputError(f"{path}: not a manifest of a checkpoint.")
    if manifest["format"] != FORMAT:
        raise InputError(
            f"{folder}: checkpoint format {manifest['format']!r}, this version reads format "
            f"{FORMAT}. Go on with the version that wrote it, or start a new run."
        )
    manifest.pop("sha256", None)
    try:
        try:
            same = path.read_bytes() == sealed(manifest)
        except UnicodeEncodeError:  # half a surrogate pair, which we never write
            same = False
        if not same:
            raise InputError(f"{path}: its content changed since it was saved (SHA-256 differs).")
        extra = sorted({p.name for p in folder.iterdir()} - {*FILES, path.name})
    except OSError as error:
        raise files.storage_error(error, folder, "read") from None
    try:
        named = set(manifest["files"])
        step = int(manifest["step"])
        wanted = {n: (int(e["bytes"]), str(e["sha256"])) for n, e in manifest["files"].items()}
        dict(manifest["fingerprints"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError(f"{path}: not a manifest of a checkpoint.") from None
    if folder.name != path_of(folder, step).name:
        raise InputError(f"{path}: of step {step}, but in the folder {folder.name}.")
    if named != set(FILES):
        raise InputError(f"{path}: names other files: {sorted(named)}.")
    if extra:
        raise InputError(f"{folder / extra[0]}: not a file of this checkpoint.")
    for name, (size, digest) in wanted.items():
        contents(folder / name, size, digest)
    return manifest


def contents(path: Path, size: int, digest: str) -> None:
    """Hold one file against what its manifest says.

    Raises:
        InputError: it is missing, or its size or hash is another.
    """
    got = path.stat().st_size if path.is_file() else -1
    if got != size:
        what = "is missing" if got < 0 else f"has {got} bytes"
        raise InputError(f"{path}: {what}, its manifest says {size} bytes.")
    try:
        held = files.sha256(path)
    except OSError as error:
        raise files.storage_error(error, path, "read") from None
    if held != digest:
        raise InputError(f"{path}: its content changed since it was saved (SHA-256 differs).")


def is_valid(folder: Path) -> bool:
    """Whether a checkpoint verifies."""
    try:
        verify(folder)
    except (InputError, OSError):
        return False
    return True


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
    model, optimizer = (load_file(folder / name) for name in FILES[:2])
    return model, optimizer, files.read_json(folder / FILES[2])


def fingerprints(folder: Path) -> dict[str, str]:
    """What recipe, tokenizer and data were when a checkpoint that was verified was saved."""
    return dict(files.read_json(folder / "manifest.json")["fingerprints"])
