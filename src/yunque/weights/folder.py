"""Hugging Face model folders: config.json, safetensors, generation_config.json and a tokenizer.

Both ways go tensor by tensor. Reading holds one block of the file besides the model; files are read
and not mapped, because the pages of a mapped file count as memory of the process.

A folder may come from anywhere: links that lead out of it are refused, and nothing in it is ever
run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from yunque.config import ModelConfig
from yunque.errors import InputError
from yunque.files import (
    read_json,
    refuse_strange_files,
    staged_file,
    staged_folder,
    storage_error,
    unique_keys,
    write_json,
)
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
STRIPE = 1 << 16  # numbers that are cast at once; larger pieces leave holes in the heap
LONGEST_NAME = 500  # characters of a tensor's name; the longest of any published model has 120
LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors library
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def save_folder(
    model: Decoder,
    folder: Path,
    save_tokenizer: Callable[[Path], None] | None,
    generation: Mapping[str, Any],
    dtype: str = "float32",
) -> None:
    """Write a folder that transformers opens; it appears whole or not at all.

    Raises:
        InputError: as `write_folder`.
        StorageError: writing failed; an older folder of that name is still there.
    """
    with staged_folder(folder) as stage:
        write_folder(model, stage, save_tokenizer, generation, dtype)


def write_folder(
    model: Decoder,
    folder: Path,
    save_tokenizer: Callable[[Path], None] | None,
    generation: Mapping[str, Any],
    dtype: str = "float32",
    shard_bytes: int = 0,
) -> None:
    """Write the files of a model into a folder that is there.

    Args:
        save_tokenizer: writes the tokenizer's files into the folder that it is given.
        generation: content of generation_config.json; its `eos_token_id`, `bos_token_id` and
            `pad_token_id` go into config.json too.
        dtype: float32, bfloat16 or float16.
        shard_bytes: numbers in one file at most, in bytes; a larger tensor has a file of its own.
            0: one file for all.

    Raises:
        InputError: unknown dtype, weights that overflow in it, or a tokenizer that transformers
            would replace by another.
        StorageError: writing failed.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}: use one of {', '.join(DTYPES)}.")
    config, state = model.config, model.state_dict()
    check_ours(config, state)
    ids = (generation.get(f"{name}_token_id") for name in ("eos", "bos", "pad"))
    write_json(folder / "config.json", foreign_config(config, dtype, *ids))
    write_json(folder / "generation_config.json", dict(generation))
    if save_tokenizer is not None:
        save_tokenizer(folder)
        settings = folder / "tokenizer_config.json"
        if (folder / "tokenizer.json").exists():
            stated = read_json(settings).get("tokenizer_class") if settings.exists() else None
            refuse_other_tokenizer(config, stated)
    width = DTYPES[dtype][0].itemsize
    groups = shards(places(config), width, shard_bytes)
    names = [WEIGHTS]
    if len(groups) > 1:
        count = len(groups)
        names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
        files = {
            place.foreign: name
            for name, group in zip(names, groups, strict=True)
            for place in group
        }
        numbers = sum(size_of(place) for group in groups for place in group)
        totals = {"total_parameters": numbers, "total_size": numbers * width}
        write_json(folder / INDEX, {"metadata": totals, "weight_map": files})
    for name, group in zip(names, groups, strict=True):
        with staged_file(folder / name) as handle:
            write_tensors(handle, group, state, dtype)


def shards(content: list[Place], width: int, most: int) -> list[list[Place]]:
    """The tensors in files of at most `most` bytes, in order; 0 is without a limit.

    Args:
        width: bytes of one number.
    """
    groups: list[list[Place]] = [[]]
    filled = 0
    for place in content:
        size = size_of(place) * width
        if most and groups[-1] and filled + size > most:
            groups.append([])
            filled = 0
        groups[-1].append(place)
        filled += size
    return groups


def size_of(place: Place) -> int:
    """How many numbers a tensor of the file holds."""
    return torch.Size(place.shape).numel()


def parse_size(text: str) -> int:
    """Bytes of a size as "2GB", "500MB" or "1.5GiB"; a GB is 10^9 bytes, a GiB 2^30.

    Raises:
        InputError: it cannot be read, or is less than one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B\s*", text.upper())
    if match is None or (match[3] and not match[2]):
        raise InputError(f"size is {text!r}: write it as 500MB, 2GB or 2GiB.")
    power = " KMGT".index(match[2] or " ")
    size = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if size < 1:
        raise InputError(f"size is {text!r}: 1B or more.")
    return size


def refuse_other_tokenizer(config: ModelConfig, name: str | None) -> None:
    """Refuse a tokenizer's class that transformers would open with other token ids than ours.

    transformers 5 takes Qwen2's own way of splitting text for every folder of model_type qwen2,
    whatever its tokenizer.json says, and does not tell.

    Raises:
        InputError: a Qwen2 shape with a tokenizer that is not Qwen2's.
    """
    if config.family == "qwen2" and str(name).removesuffix("Fast") != "Qwen2Tokenizer":
        raise InputError(
            "rotary positions with qkv_bias is the Qwen2 shape, which transformers opens with "
            f"Qwen2's tokenizer only; this one is {name}. For a new model set qkv_bias to false "
            "(Llama), or to false with qk_norm true (Qwen3); a model with its own Qwen2 tokenizer "
            'needs "tokenizer_class": "Qwen2Tokenizer" in its tokenizer_config.json.'
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
        end = start + size_of(place) * kind.itemsize
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


@dataclass(frozen=True)
class Opened:
    """A folder whose headers are read and fit together; no number of it is."""

    config: ModelConfig
    names: Mapping[str, str]
    """Published name → name in the files."""
    stored: Mapping[str, Stored]


def open_folder(folder: Path) -> Opened:
    """What a Hugging Face folder holds, before its numbers are read.

    Raises:
        InputError: no folder, no weights, a damaged or foreign file, a model that the Decoder
            cannot hold, or tensors that are missing, left over or wrongly shaped (all together).
        StorageError: reading failed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model folder.")
    refuse_strange_files(folder)
    files, faults = weight_files(folder)
    path = folder / "config.json"
    described = read_json(path)
    if not isinstance(described, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(described).__name__}.")
    if described.get("auto_map"):
        raise InputError(
            f"{path}: auto_map names code that came with the model ({described['auto_map']}); "
            "Yunque never runs such code. Use a model that transformers knows by itself."
        )
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
    if config.num_layers > len(stored):  # before so many are built
        few = f"{config.num_layers} blocks, and the files hold {len(stored)} tensors in all."
        raise_misfit(str(folder), [*faults, few])
    names, misfits = match(config, {name: entry.shape for name, entry in stored.items()})
    raise_misfit(str(folder), faults + misfits)
    return Opened(config, names, stored)


def load_folder(
    folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """The Decoder of a Hugging Face folder, in evaluation mode.

    Raises:
        InputError, StorageError: as `open_folder`.
    """
    found = open_folder(folder)
    config = found.config
    state = dict(read_state(config, found.names, found.stored, torch.device(device), dtype))
    if config.tie_embeddings:
        check_repeated_head(config, found.names, found.stored)
    return assembled(config, state).to(device)


def stream_folder(
    folder: Path, dtype: torch.dtype = torch.float32
) -> tuple[Decoder, Iterator[tuple[str, Tensor]]]:
    """The Decoder of a folder without its weights (device meta), and these one by one.

    For who puts each away, quantised, before the next one is read: memory never holds the model.

    Raises:
        InputError, StorageError: as `open_folder`.
    """
    found = open_folder(folder)
    if found.config.tie_embeddings:
        check_repeated_head(found.config, found.names, found.stored)
    tensors = read_state(found.config, found.names, found.stored, torch.device("cpu"), dtype)
    return Decoder.empty(found.config).eval(), tensors


def stored_dtype(folder: Path) -> str:
    """The number format of a folder's weights, float32 where there is not one for all."""
    if not folder.is_dir() or not list(folder.glob("*.safetensors")):
        return "float32"
    files, _ = weight_files(folder)
    found = {entry.dtype for file in files for entry in read_header(file).values()}
    names = {code: name for name, (_, code) in DTYPES.items()}
    return names.get(found.pop(), "float32") if len(found & set(READABLE)) == 1 else "float32"


def assembled(config: ModelConfig, state: dict[str, Tensor]) -> Decoder:
    """The Decoder with these very tensors as its weights, in evaluation mode.

    Args:
        state: all weights; a tied head is left out.
    """
    if config.tie_embeddings:
        state = {**state, HEAD: state[EMBEDDING]}
    model = Decoder.empty(config)
    model.load_state_dict(state, assign=True)
    if config.tie_embeddings:  # assigning gave the two names a parameter each
        model.head.weight = model.token_embedding.weight
    return model.eval()


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
            or set(file) & set("/\\:\0")
            or len(file.encode()) > 255  # what a file system takes as a name
        ):
            faults.append(
                f"{index.name}: {name[:LONGEST_NAME]} points to {str(file)[:80]!r}, not to a file "
                "of this folder."
            )
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
        refuse_strange_header(file)
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


def refuse_strange_header(file: Path) -> None:
    """Refuse what the safetensors library takes: a name that stands twice, and endless names.

    Lengths, offsets and overlaps are that library's own checks.

    Raises:
        InputError: the header is damaged or holds such names.
    """
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        left = file.stat().st_size - 8
        if length > min(left, LONGEST_HEADER):
            raise InputError(
                f"{file}: damaged or not a safetensors file (a header of {length} bytes, the file "
                f"has {max(left, 0)}; {LONGEST_HEADER} at most). Copy or download it again."
            )
        text = handle.read(length)
    try:
        header = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file}: damaged or not a safetensors file ({error}). Copy or download it again."
        ) from None
    longest = max(header, key=len, default="") if isinstance(header, dict) else ""
    if len(longest) > LONGEST_NAME:
        raise InputError(
            f"{file}: a tensor's name has {len(longest)} characters, {LONGEST_NAME} at most: "
            f"{longest[:40]!r}…"
        )


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


def copied(name: str, tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy in `dtype` on `device`, laid out by rows.

    It is cast stripe by stripe, so that memory holds no third copy of a large embedding.

    Raises:
        InputError: a finite number became infinite.
    """
    copy = torch.empty(tensor.shape, dtype=dtype, device=device)
    rows = max(1, STRIPE // max(1, tensor[:1].numel()))
    for target, part in zip(copy.split(rows), tensor.split(rows), strict=True):
        target.copy_(cast(name, part, dtype))
    return copy


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
