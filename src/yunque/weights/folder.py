"""Hugging Face model folders: config.json, safetensors, generation_config.json and a tokenizer.

Both ways go tensor by tensor. Reading holds one block of the file besides the model; files are read
and not mapped, because the pages of a mapped file count as memory of the process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from yunque.config import ModelConfig
from yunque.errors import InputError
from yunque.files import read_json, staged_file, staged_folder, storage_error, write_json
from yunque.model.decoder import Decoder
from yunque.weights.families import (
    EMBEDDING,
    HEAD,
    Place,
    Shape,
    check_ours,
    check_tied_head,
    foreign_config,
    join,
    match,
    model_config,
    places,
    raise_misfit,
    split,
    table,
)

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {
    "float32": (torch.float32, "F32"),
    "bfloat16": (torch.bfloat16, "BF16"),
    "float16": (torch.float16, "F16"),
}
READABLE = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
BLOCK = 1 << 18
"""Numbers of a file that are held at once while it is read: 1 MiB in float32."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def save_folder(
    model: Decoder,
    folder: Path,
    save_tokenizer: Callable[[Path], None] | None,
    generation: Mapping[str, Any],
    dtype: str = "float32",
) -> None:
    """Write a folder that transformers opens; it appears whole or not at all.

    Args:
        save_tokenizer: writes the tokenizer's files into the folder that it is given.
        generation: content of generation_config.json; its `eos_token_id`, `bos_token_id` and
            `pad_token_id` go into config.json too.
        dtype: float32, bfloat16 or float16.

    Raises:
        InputError: unknown dtype, weights that overflow in it, or a tokenizer that transformers
            would replace by another.
        StorageError: writing failed; an older folder of that name is still there.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}: use one of {', '.join(DTYPES)}.")
    config, state = model.config, model.state_dict()
    check_ours(config, state)
    ids = (generation.get(f"{name}_token_id") for name in ("eos", "bos", "pad"))
    with staged_folder(folder) as stage:
        write_json(stage / "config.json", foreign_config(config, dtype, *ids))
        write_json(stage / "generation_config.json", dict(generation))
        if save_tokenizer is not None:
            save_tokenizer(stage)
            refuse_other_tokenizer(config, stage)
        with staged_file(stage / WEIGHTS) as handle:
            write_tensors(handle, places(config), state, dtype)


def refuse_other_tokenizer(config: ModelConfig, folder: Path) -> None:
    """Refuse a folder that transformers would open with other token ids than ours.

    transformers 5 takes Qwen2's own way of splitting text for every folder of model_type qwen2,
    whatever its tokenizer.json says, and does not tell.

    Raises:
        InputError: a Qwen2 shape with a tokenizer that is not Qwen2's.
    """
    if config.family != "qwen2" or not (folder / "tokenizer.json").exists():
        return
    path = folder / "tokenizer_config.json"
    name = read_json(path).get("tokenizer_class") if path.exists() else None
    if str(name).removesuffix("Fast") != "Qwen2Tokenizer":
        raise InputError(
            "rotary positions with qkv_bias is the Qwen2 shape, which transformers opens with "
            f"Qwen2's tokenizer only; this one is {name}. Set qkv_bias to false (Llama), or to "
            "false with qk_norm true (Qwen3)."
        )


def write_tensors(
    handle: IO[bytes], content: list[Place], state: Mapping[str, Tensor], dtype: str
) -> None:
    """Write a safetensors file: 8 bytes header length, JSON header, the numbers in its order.

    Source: the format's own description in the safetensors project's README.
    """
    kind, code = DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for place in content:
        end = start + torch.Size(place.shape).numel() * kind.itemsize
        header[place.foreign] = {
            "dtype": code,
            "shape": list(place.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8 bytes
    handle.write(len(text).to_bytes(8, "little") + text)
    for place in content:
        tensor = cast(place.foreign, join(place, state).detach().cpu(), kind)
        handle.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in `dtype`, itself where it already is.

    Raises:
        InputError: a finite number became infinite.
    """
    result = tensor.to(dtype)
    narrower = torch.finfo(dtype).max < torch.finfo(tensor.dtype).max
    if narrower and (result.isinf() & tensor.isfinite()).any():
        largest = tensor.abs().max().item()
        raise InputError(
            f"{name} holds {largest:g}, more than {dtype} can hold. Use bfloat16 or float32."
        )
    return result


@dataclass(frozen=True)
class Stored:
    """Where a tensor stands and what the file's header says of it."""

    file: Path
    shape: Shape
    dtype: str
    start: int
    """Its first byte in the file."""


def load_folder(
    folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """The Decoder of a Hugging Face folder, in evaluation mode.

    Raises:
        InputError: no folder, no weights, a damaged or foreign file, a model that the Decoder
            cannot hold, or tensors that are missing, left over or wrongly shaped (all together).
        StorageError: reading failed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder.")
    files, faults = weight_files(folder)
    path = folder / "config.json"
    described = read_json(path)
    if not isinstance(described, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(described).__name__}.")
    config = model_config(described, str(path))

    stored: dict[str, Stored] = {}
    for file, expected in files.items():
        header = read_header(file)
        for name, entry in header.items():
            if name in stored:
                faults.append(f"{name} is in {stored[name].file.name} and in {file.name}.")
            if entry.dtype not in READABLE:
                faults.append(f"{name} is {entry.dtype}, expected one of {', '.join(READABLE)}.")
            stored[name] = entry
        faults += [f"{name} is not in {file.name}." for name in expected - header.keys()]
    names, misfits = match(config, {name: entry.shape for name, entry in stored.items()})
    raise_misfit(str(folder), faults + misfits)

    model = Decoder.empty(config)
    state = dict(read_state(config, names, stored, torch.device(device), dtype))
    if config.tie_embeddings:
        check_repeated_head(config, names, stored)
        state[HEAD] = state[EMBEDDING]
    model.load_state_dict(state, assign=True)
    if config.tie_embeddings:  # assigning gave the two names a parameter each
        model.head.weight = model.token_embedding.weight
    return model.to(device).eval()


def weight_files(folder: Path) -> tuple[dict[Path, set[str]], list[str]]:
    """The files of weights with the tensors that an index expects in each, and the index's faults.

    Raises:
        InputError: there are none; pickles and adapters are named with the way out.
    """
    if (folder / WEIGHTS).exists():
        return {folder / WEIGHTS: set()}, []
    index = folder / INDEX
    if not index.exists():
        raise no_weights(folder)
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: expected an object with a 'weight_map' from tensors to files.")
    files: dict[Path, set[str]] = {}
    faults = []
    for name, file in weight_map.items():
        # Only plain names of this folder: an index must not make us read elsewhere.
        if (
            not isinstance(file, str)
            or not file.endswith(".safetensors")
            or set(file) & set("/\\:")
        ):
            faults.append(f"{index.name}: {name} points to {file!r}, not to a file of this folder.")
        else:
            files.setdefault(folder / file, set()).add(name)
    for path in [path for path in files if not path.is_file()]:
        faults.append(f"{index.name} names {path.name}, which is not in the folder.")
        del files[path]
    return files, faults


def no_weights(folder: Path) -> InputError:
    """Why a folder without weights that we read is not opened, and what to do."""
    names = sorted(path.name for path in folder.iterdir())
    pickles = [name for name in names if name.lower().endswith(PICKLES)]
    if pickles:
        return InputError(
            f"{folder}: the weights are in {', '.join(pickles)}, a pickle, which may run any "
            "program when it is opened; Yunque never does. Ask the author for safetensors, or, if "
            "you trust the file, open the folder with transformers and call "
            "save_pretrained(new_folder)."
        )
    if "adapter_config.json" in names:
        return InputError(f"{folder}: an adapter, not a whole model. Give its base model.")
    return InputError(
        f"{folder}: no weights. Looked for {WEIGHTS} and {INDEX}; the folder holds "
        f"{', '.join(names[:8]) or 'nothing'}{', …' if len(names) > 8 else ''}."
    )


def read_header(file: Path) -> dict[str, Stored]:
    """Name → shape and type of every tensor in a safetensors file.

    Raises:
        InputError: the file is damaged or not safetensors.
        StorageError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # Held against the format's own reader first; it does not tell where a tensor begins.
        with safe_open(file, framework="pt"), file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(length))
    except SafetensorError as error:
        raise InputError(
            f"{file}: damaged or not a safetensors file ({error}). Copy or download it again."
        ) from None
    except OSError as error:
        raise storage_error(error, file, "read") from None
    return {
        name: Stored(
            file, tuple(part["shape"]), part["dtype"], 8 + length + part["data_offsets"][0]
        )
        for name, part in header.items()
        if name != "__metadata__"
    }


def read_blocks(entry: Stored, unit: int = 1) -> Iterator[Tensor]:
    """The numbers of a tensor in file order, about BLOCK at a time: `(N,)`, N a multiple of unit.

    The next block overwrites the one before.

    Raises:
        InputError: the file has become shorter.
        StorageError: it cannot be read.
    """
    kind = READABLE[entry.dtype]
    left = torch.Size(entry.shape).numel()
    most = min(left, unit * max(1, BLOCK // unit))
    buffer = bytearray(most * kind.itemsize)
    try:
        with entry.file.open("rb") as handle:
            handle.seek(entry.start)
            while left:
                count = min(left, most)
                wanted = memoryview(buffer)[: count * kind.itemsize]
                if handle.readinto(wanted) != len(wanted):
                    raise InputError(f"{entry.file}: it was cut while it was read. Copy it again.")
                yield torch.frombuffer(buffer, dtype=kind, count=count)
                left -= count
    except OSError as error:
        raise storage_error(error, entry.file, "read") from None


def read_state(
    config: ModelConfig,
    names: Mapping[str, str],
    stored: Mapping[str, Stored],
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[tuple[str, Tensor]]:
    """Our name and tensor, one after the other, each with its own memory and in its own order."""
    for place in places(config):
        name = names[place.foreign]
        if place.transposed:
            yield from read_turned(place, name, stored[name], device, dtype).items()
            continue
        whole = torch.empty(place.shape, dtype=dtype, device=device)
        flat, start = whole.view(-1), 0
        for block in read_blocks(stored[name]):
            flat[start : start + len(block)] = cast(name, block, dtype)
            start += len(block)
        for ours, part in split(place, whole).items():
            yield ours, part if len(place.ours) == 1 else part.clone()


def read_turned(
    place: Place, name: str, entry: Stored, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Our tensors of one that is stored `(in, out)`: its rows are columns of ours."""
    inputs, outputs = place.shape
    turned = {
        ours: torch.empty((height, inputs), dtype=dtype, device=device)
        for ours, height in zip(place.ours, place.heights, strict=True)
    }
    start = 0
    for block in read_blocks(entry, unit=outputs):
        rows = cast(name, block, dtype).view(-1, outputs)
        for ours, part in split(place, rows).items():
            turned[ours][:, start : start + len(rows)] = part
        start += len(rows)
    return turned


def check_repeated_head(
    config: ModelConfig, names: Mapping[str, str], stored: Mapping[str, Stored]
) -> None:
    """Where the file of a tied model holds the head too, it must equal the embedding."""
    head = names.get(table(config).head)
    if head is None:
        return
    (embedding,) = (names[place.foreign] for place in places(config) if EMBEDDING in place.ours)
    pair = (read_blocks(stored[name]) for name in (head, embedding))
    for one, other in zip(*pair, strict=True):
        if one.dtype != other.dtype:  # float64 holds every number of the readable types
            one, other = one.double(), other.double()
        check_tied_head(str(stored[head].file), one, other)
