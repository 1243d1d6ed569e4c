"""Checkpoints: verified by hash, the newest valid one found, old ones removed last."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from yunque.errors import InputError, StorageError
from yunque.train import checkpoint


def save(run: Path, step: int, keep: int = 2) -> Path:
    model = {"w": torch.full((3, 2), float(step))}
    return checkpoint.save(run, step, model, {"w|m": torch.ones(2)}, {"step": step}, keep)


def test_round_trip_and_rotation(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        folder = save(tmp_path, step)
    assert checkpoint.all_steps(tmp_path) == [2, 3]
    model, optimizer, state = checkpoint.load(folder)
    assert torch.equal(model["w"], torch.full((3, 2), 3.0))
    assert torch.equal(optimizer["w|m"], torch.ones(2))
    assert state == {"step": 3}
    assert checkpoint.newest_valid(tmp_path) == (folder, [])


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("fault", ["flip", "truncate", "remove"])
def test_every_fault_is_named_and_the_older_one_is_taken(
    tmp_path: Path, name: str, fault: str
) -> None:
    older, newer = save(tmp_path, 1), save(tmp_path, 2)
    path = newer / name
    content = bytearray(path.read_bytes())
    if fault == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif fault == "truncate":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    found, refused = checkpoint.newest_valid(tmp_path)
    assert found == older
    assert len(refused) == 1
    assert name in refused[0]


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["format"] = 99
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="format 99, this version reads format 1"):
        checkpoint.verify(folder)
    path.write_text('{"format": 1, "files": {}}')
    with pytest.raises(InputError, match="names other files"):
        checkpoint.verify(folder)
    path.write_text("[]")
    with pytest.raises(InputError, match="not a manifest"):
        checkpoint.verify(folder)


def test_a_full_disk_is_told_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint.files, "free_bytes", lambda folder: 10)
    with pytest.raises(StorageError, match="a checkpoint needs"):
        save(tmp_path, 2)
    assert checkpoint.all_steps(tmp_path) == [1]


def test_a_run_without_checkpoints(tmp_path: Path) -> None:
    assert checkpoint.newest_valid(tmp_path) == (None, [])


def test_rotation_removes_what_was_cut_off_and_keeps_what_came_before(tmp_path: Path) -> None:
    for step in (50, 100, 200):
        damaged = save(tmp_path, step, keep=3)
    (damaged / "state.json").write_text("{}")
    newest, refused = checkpoint.newest_valid(tmp_path)
    assert newest == checkpoint.path_of(tmp_path, 100)
    assert len(refused) == 1
    save(tmp_path, 150)  # the run went on from 100
    assert checkpoint.all_steps(tmp_path) == [100, 150]
    assert checkpoint.newest_valid(tmp_path) == (checkpoint.path_of(tmp_path, 150), [])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), "No space left"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_tensors_that_cannot_be_written_are_a_storage_error_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    save(tmp_path, 1)

    def refuse(tensors: Any, path: Path) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(StorageError, match=f"step-00000002/model.safetensors: cannot .*{told}"):
        save(tmp_path, 2)
    assert os.listdir(tmp_path / checkpoint.FOLDER) == ["step-00000001"]
