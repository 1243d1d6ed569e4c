"""Checkpoints: verified by hash, the newest valid one found, old ones removed last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from yunque import files
from yunque.errors import InputError, StorageError
from yunque.train import checkpoint


def save(run: Path, step: int, keep: int = 2) -> Path:
    model = {"w": torch.full((3, 2), float(step))}
    return checkpoint.save(
        run, step, model, {"w|m": torch.ones(2)}, {"step": step}, {"data": "d"}, keep
    )


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
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(InputError, match=r"manifest\.json|checkpoint format [^2]"):
            checkpoint.verify(folder)
    path.write_bytes(content.replace(b'"format": 2', b'"format": 9'))
    with pytest.raises(InputError, match=r"step-00000001: checkpoint format 9, .* reads format 2"):
        checkpoint.verify(folder)
    path.write_bytes(checkpoint.sealed({"format": 2, "step": 1, "fingerprints": {}, "files": {}}))
    with pytest.raises(InputError, match="names other files"):
        checkpoint.verify(folder)
    path.write_bytes(checkpoint.sealed({"format": 2}))
    with pytest.raises(InputError, match="not a manifest"):
        checkpoint.verify(folder)
    path.write_text("[]")
    with pytest.raises(InputError, match="not a manifest"):
        checkpoint.verify(folder)


def test_a_full_disk_is_told_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint.files, "free_bytes", lambda folder: 10)
    with pytest.raises(StorageError, match=r"no room for a checkpoint: .* are needed, 10 are free"):
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


def test_tensors_are_a_file_that_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "wide": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
        "half": torch.arange(5).to(torch.bfloat16),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "flag": torch.tensor([True, False]),
        "number": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
    }
    path = tmp_path / "t.safetensors"
    told = checkpoint.write_file(path, checkpoint.tensor_parts(tensors))
    assert told == {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


def test_a_disk_that_gives_back_other_bytes_is_no_good_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    original = files.perform

    def lying(kind: str, path: Path, action: Any, *arguments: Any) -> Any:
        if kind == "write" and path.name == "model.safetensors":
            content = bytearray(arguments[0])
            content[-1] ^= 4
            return action(content)
        return original(kind, path, action, *arguments)

    monkeypatch.setattr(files, "perform", lying)
    with pytest.raises(StorageError, match="gives back other bytes than it got"):
        save(tmp_path, 2)
    assert checkpoint.all_steps(tmp_path) == [1]
