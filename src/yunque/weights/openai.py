"""The checkpoints in which OpenAI published GPT-2: hparams.json and a TensorFlow bundle.

```
hparams.json    n_vocab, n_ctx, n_embd, n_head, n_layer
checkpoint      the name of the bundle: model.ckpt
model.ckpt.index, model.ckpt.data-00000-of-00001
encoder.json, vocab.bpe    the tokenizer, which data/tokenizer.py reads
```

Source: src/model.py and download_model.py of github.com/openai/gpt-2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from yunque.config import ModelConfig
from yunque.errors import InputError, raise_all
from yunque.files import read_json, storage_error
from yunque.model.decoder import Decoder
from yunque.weights.families import OPENAI, match, model_config, places, raise_misfit, split
from yunque.weights.folder import assembled, copied
from yunque.weights.tensor_bundle import Entry, read_bundle, read_entry

HPARAMS = "hparams.json"
# OpenAI's key → that of transformers' config.json for the same family.
KEYS = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
LARGEST = 1 << 24
NAMED = re.compile(r'^model_checkpoint_path: *"([^"\n]*)"', re.MULTILINE)


def is_openai(folder: Path) -> bool:
    """Whether a folder is laid out as OpenAI's: a checkpoint of TensorFlow and no config.json."""
    if (folder / "config.json").exists():
        return False
    return (folder / HPARAMS).is_file() or any(folder.glob("*.index"))


def openai_config(folder: Path) -> ModelConfig:
    """The shape of OpenAI's files, before their numbers are read.

    Raises:
        InputError, StorageError: as `load_openai`.
    """
    return read_hparams(folder / HPARAMS, len(read_bundle(bundle_of(folder))))


def load_openai(
    folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """The Decoder of OpenAI's files, in evaluation mode; each tensor is checked as it is read.

    Raises:
        InputError: no such folder, a file of it is missing or damaged, or tensors are missing,
            left over or wrongly shaped (all together).
        StorageError: reading failed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder.")
    path = folder / HPARAMS
    if not path.is_file():
        raise InputError(
            f"{path}: no such file. OpenAI's checkpoints have it: {', '.join(KEYS)}. Copy it from "
            "where the checkpoint is from."
        )
    entries = read_bundle(bundle_of(folder))
    config = read_hparams(path, len(entries))
    shapes = {name: entry.shape for name, entry in entries.items()}
    names, faults = match(config, shapes, OPENAI)
    raise_misfit(str(folder), faults)
    state = dict(read_state(config, names, entries, torch.device(device), dtype))
    return assembled(config, state)


def bundle_of(folder: Path) -> Path:
    """The prefix of the folder's bundle: the one that the file `checkpoint` names, or the only one.

    Raises:
        InputError: there is none, several stand to choose from, or the named one is not there.
    """
    found = sorted(path.name for path in folder.glob("*.index"))
    note = folder / "checkpoint"
    if note.is_file():
        try:
            text = note.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{note}: not UTF-8 text (byte {error.start}).") from None
        except OSError as error:
            raise storage_error(error, note, "read") from None
        named = NAMED.search(text)
        if named is None:
            raise InputError(f'{note}: expected a line like model_checkpoint_path: "model.ckpt".')
        # Some programs write the whole path of the machine where it was saved. Only its end
        # counts: the bundle lies beside this file.
        name = re.split(r"[/\\]", named[1])[-1]
        if f"{name}.index" not in found:
            raise InputError(
                f"{note}: it names {name!r}, but {name}.index is not in the folder; it holds "
                f"{', '.join(found) or 'no .index file'}. Copy the file, or mend the name."
            )
        return folder / name
    if len(found) != 1:
        what = f"{len(found)} checkpoints ({', '.join(found)})" if found else "no checkpoint"
        raise InputError(
            f"{folder}: {what}, expected one: model.ckpt.index, with its data in "
            "model.ckpt.data-00000-of-00001."
        )
    return folder / found[0].removesuffix(".index")


def read_hparams(path: Path, tensors: int) -> ModelConfig:
    """The Decoder's shape.

    Args:
        tensors: how many the checkpoint has; there cannot be more blocks.

    Raises:
        InputError: keys that are missing, unknown or wrong, all together.
    """
    stated = read_json(path)
    if not isinstance(stated, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(stated).__name__}.")
    faults = [f"{key} is missing." for key in KEYS if key not in stated]
    for key, value in stated.items():
        if key not in KEYS:
            faults.append(f"{key} is unknown; expected are {', '.join(KEYS)}.")
        elif type(value) is not int or not 1 <= value < LARGEST:
            faults.append(f"{key} is {value!r}, expected a whole number, 1 or more.")
        elif key == "n_layer" and value > tensors:
            faults.append(f"n_layer is {value}, but the checkpoint has {tensors} tensors.")
    raise_all(f"{path}: not the shape of a GPT-2", faults)
    shape = {KEYS[key]: value for key, value in stated.items()}
    return model_config({"model_type": "gpt2", **shape}, str(path))


def read_state(
    config: ModelConfig,
    names: Mapping[str, str],
    entries: Mapping[str, Entry],
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[tuple[str, Tensor]]:
    """Our name and tensor, one after the other; one tensor of the file is in memory at a time."""
    for place in places(config, OPENAI):
        name = names[place.foreign]
        tensor = torch.from_numpy(read_entry(entries[name]))
        for ours, part in split(place, tensor).items():
            yield ours, copied(name, part, device, dtype)
