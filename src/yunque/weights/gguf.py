"""GGUF, the format of llama.cpp, both ways: weights, shape and tokenizer in one file.

What llama.cpp's own converter does, and this one too:

- GPT-2's and Phi's matrices are stored `(out, in)`, GPT-2's q, k and v as one.
- The rows of q and k of the Llama architecture are put in another order: llama.cpp turns
  neighbouring elements of a head there, our Decoder turns its two halves. The others keep theirs.
- Vectors and GPT-2's table of positions stay in float32, whatever the type of the rest.
- A tied head is not repeated: a file without `output.weight` is a tied model.

Source: the tensor names and keys of the `gguf` package; convert_hf_to_gguf.py of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yunque.config import ModelConfig
from yunque.errors import InputError, raise_all
from yunque.files import staged_file
from yunque.model.decoder import Decoder
from yunque.weights.families import (
    EMBEDDING,
    HEAD,
    Place,
    Row,
    Table,
    check_ours,
    join,
    match,
    places,
    raise_misfit,
    split,
    table,
)
from yunque.weights.folder import cast
from yunque.weights.gguf_file import BLOCK, Content, gguf_package, open_gguf, read_tensor
from yunque.weights.gguf_shape import (
    ARCHITECTURES,
    ROPE_FACTORS,
    add_shape,
    not_held,
    rope_factors,
    shape_of,
)
from yunque.weights.gguf_tokenizer import gguf_tokenizer, tokenizer_metadata

__all__ = ["gguf_tokenizer", "load_gguf", "save_gguf"]

FILE_TYPES = {
    "f32": ("F32", "ALL_F32"),
    "f16": ("F16", "MOSTLY_F16"),
    "bf16": ("BF16", "MOSTLY_BF16"),
    "q8_0": ("Q8_0", "MOSTLY_Q8_0"),
}
LARGEST_Q8_0 = 127 * torch.finfo(torch.float16).max  # its scale is a float16

NO_BUFFERS = r"(?!)"


def rows(fused: bool) -> tuple[Row, ...]:
    """The rows of an architecture; those of parts that a model lacks are left out.

    Args:
        fused: q, k and v are one tensor.
    """
    block = {
        "attention_norm": "attn_norm",
        "attention.q_norm": "attn_q_norm",
        "attention.k_norm": "attn_k_norm",
        "attention.o_proj": "attn_output",
        "mlp_norm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    if not fused:
        block |= {f"attention.{part}_proj": f"attn_{part}" for part in "qkv"}
    ends = {
        "token_embedding": "token_embd",
        "position_embedding": "position_embd",
        "final_norm": "output_norm",
        "head": "output",
    }
    # The largest first: what is read beside the model is then small when the model is whole.
    names = ends | {f"blocks.{{}}.{ours}": f"blk.{{}}.{name}" for ours, name in block.items()}
    found = [
        Row(f"{theirs}.{kind}", (f"{ours}.{kind}",))
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
    ]
    if fused:
        found += [
            Row(
                f"blk.{{}}.attn_qkv.{kind}",
                tuple(f"blocks.{{}}.attention.{part}_proj.{kind}" for part in "qkv"),
                zeros=kind == "bias",
            )
            for kind in ("weight", "bias")
        ]
    return tuple(found)


GPT2 = Table(prefix="", head="output.weight", rows=rows(fused=True), buffers=NO_BUFFERS)
LLAMA = Table(prefix="", head="output.weight", rows=rows(fused=False), buffers=NO_BUFFERS)
TABLES = {"gpt2": GPT2, "llama": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "phi2": LLAMA}


def save_gguf(
    model: Decoder, file: Path, tokenizer_folder: Path, dtype: str, name: str = ""
) -> None:
    """Write a GGUF file that llama.cpp opens; it appears whole or not at all.

    Besides the model, memory holds one tensor.

    Args:
        tokenizer_folder: holds tokenizer.json, tokenizer_config.json and generation_config.json.
        dtype: type of the matrices: f32, f16, bf16 or q8_0. Matrices whose rows are no multiple
            of 32 are stored in f16 instead of q8_0, as llama.cpp does.
        name: the model's name, for people.

    Raises:
        InputError: unknown dtype, numbers that it cannot hold, a shape or a tokenizer that
            llama.cpp cannot hold.
        StorageError: writing failed; an older file of that name is still there.
        MissingPackageError: the gguf package is not installed.
    """
    if dtype not in FILE_TYPES:
        raise InputError(f"dtype is {dtype!r}: use one of {', '.join(FILE_TYPES)}.")
    gguf = gguf_package(file)
    config, state = model.config, model.state_dict()
    check_ours(config, state)
    table(config)  # only shapes of a family that an open format holds
    raise_all(f"{file}: llama.cpp cannot hold this model", not_held(config))
    architecture = ARCHITECTURES[config.family]
    content = places(config, TABLES[architecture])
    writer = gguf.GGUFWriter(None, architecture)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[dtype][1]])
    if dtype == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_shape(writer, config)
    for key, value in tokenizer_metadata(tokenizer_folder, config.vocab_size).items():
        kind, *inner = (gguf.GGUFValueType[part] for part in value.kind.split())
        writer.add_key_value(key, value.content, kind, *inner)
    kinds = [gguf.GGMLQuantizationType[stored_kind(place, dtype)] for place in content]
    for place, kind in zip(content, kinds, strict=True):
        shape = gguf.quant_shape_to_byte_shape(place.shape, kind)
        size = int(np.prod(shape))
        writer.add_tensor_info(place.foreign, shape, np.dtype(np.uint8), size, raw_dtype=kind)
    factors = rope_factors(config).numpy() if config.rope_scaling == "llama3" else None
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    with staged_file(file) as handle:
        # The writer would open a file of its own; it takes one that is open already.
        writer.fout, writer.state = [handle], gguf.gguf_writer.WriterState.EMPTY
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for place, kind in zip(content, kinds, strict=True):
            tensor = reordered(config, place, join(place, state), to_file=True)
            writer.write_tensor_data(stored(gguf, place.foreign, tensor, kind))
        if factors is not None:
            writer.write_tensor_data(factors)


def stored_kind(place: Place, dtype: str) -> str:
    """The number type of one tensor in a file of this dtype."""
    if len(place.shape) == 1 or place.foreign == "position_embd.weight":
        return "F32"
    if dtype == "q8_0" and place.shape[-1] % BLOCK:
        return "F16"
    return FILE_TYPES[dtype][0]


def stored(gguf: Any, name: str, tensor: Tensor, kind: Any) -> npt.NDArray[Any]:
    """The bytes of a tensor in the file.

    Raises:
        InputError: it holds numbers that the type cannot hold.
    """
    tensor = tensor.detach().cpu()
    if kind.name == "Q8_0":
        tensor = tensor.float()
        largest = tensor.abs().max().item()
        if not largest <= LARGEST_Q8_0:  # also where it is not a number
            raise InputError(f"{name} holds {largest:g}, which Q8_0 cannot hold. Use bf16 or f32.")
        return gguf.quants.quantize(tensor.contiguous().numpy(), kind)
    types = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    return cast(name, tensor, types[kind.name]).contiguous().view(-1).view(torch.uint8).numpy()


def reordered(config: ModelConfig, place: Place, tensor: Tensor, to_file: bool) -> Tensor:
    """The rows of Llama's q and k in the order of the file, or back in ours; others as they are.

    A head of ours is two halves, element i of the one turned with element i of the other; in the
    file the two stand side by side.
    """
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(
        place.ours[0].split(".")[-2]
    )
    if ARCHITECTURES[config.family] != "llama" or heads is None:
        return tensor
    sizes = (2, -1) if to_file else (-1, 2)
    return tensor.reshape(heads, *sizes, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def gguf_config(file: Path) -> ModelConfig:
    """The shape that a GGUF file says, before its numbers are read.

    Raises:
        InputError: no such file, a damaged one, or a model that the Decoder cannot hold.
        StorageError: reading failed.
    """
    return shape_of(open_gguf(file))


def load_gguf(
    file: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """The Decoder of a GGUF file, in evaluation mode; quantised weights become `dtype`.

    Besides the model, memory holds one tensor. Dropout, of which the format says nothing, is 0.

    Raises:
        InputError: no such file, a damaged one, types that are not read, a model that the Decoder
            cannot hold, or tensors that are missing, left over or wrongly shaped (all together).
        StorageError: reading failed.
    """
    content = open_gguf(file)
    config = shape_of(content)
    names = TABLES[ARCHITECTURES[config.family]]
    shapes = {name: entry.shape for name, entry in content.tensors.items() if name != ROPE_FACTORS}
    _, faults = match(config, shapes, names)
    raise_misfit(str(file), faults)
    state = dict(read_state(content, config, names, torch.device(device), dtype))
    if config.tie_embeddings:
        state[HEAD] = state[EMBEDDING]
    model = Decoder.empty(config)
    model.load_state_dict(state, assign=True)
    if config.tie_embeddings:  # assigning gave the two names a parameter each
        model.head.weight = model.token_embedding.weight
    return model.to(device).eval()


def read_state(
    content: Content, config: ModelConfig, names: Table, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """Our name and tensor, one after the other."""
    for place in places(config, names):
        tensor = read_tensor(content, place.foreign)
        for ours, part in split(place, tensor).items():
            ordered = reordered(config, place, part, to_file=False)
            if (ordered.dtype, ordered.device) == (dtype, device) and alone(ordered):
                yield ours, ordered
                continue
            copy = torch.empty(part.shape, dtype=dtype, device=device)
            yield ours, copy.copy_(cast(place.foreign, ordered, dtype))


def alone(tensor: Tensor) -> bool:
    """Whether the tensor is all that its memory holds, in its order."""
    return tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
