"""Folders laid out as OpenAI published GPT-2, written from a transformers model.

The names and shapes are those of github.com/openai/gpt-2, src/model.py, apart from the product's.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from bundle_writer import Numbers, write_bundle
from torch import nn

Shapes = dict[str, tuple[int, ...]]
SMALL = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}
"""hparams.json of 124M, as published."""
END = "<|endoftext|>"


def openai_shapes(hparams: dict[str, int]) -> Shapes:
    """Every variable of a checkpoint with its shape."""
    C = hparams["n_embd"]
    found: Shapes = {"model/wpe": (hparams["n_ctx"], C), "model/wte": (hparams["n_vocab"], C)}
    for layer in range(hparams["n_layer"]):
        for name, shape in {
            "ln_1/g": (C,),
            "ln_1/b": (C,),
            "attn/c_attn/w": (1, C, 3 * C),
            "attn/c_attn/b": (3 * C,),
            "attn/c_proj/w": (1, C, C),
            "attn/c_proj/b": (C,),
            "ln_2/g": (C,),
            "ln_2/b": (C,),
            "mlp/c_fc/w": (1, C, 4 * C),
            "mlp/c_fc/b": (4 * C,),
            "mlp/c_proj/w": (1, 4 * C, C),
            "mlp/c_proj/b": (C,),
        }.items():
            found[f"model/h{layer}/{name}"] = shape
    return {**found, "model/ln_f/g": (C,), "model/ln_f/b": (C,)}


def openai_tensors(reference: nn.Module) -> dict[str, Numbers]:
    """The weights of a GPT2LMHeadModel under OpenAI's names; both store them (in, out)."""
    found = {}
    for name, tensor in reference.state_dict().items():
        parts = name.removeprefix("transformer.").split(".")
        if parts[0] == "lm_head":
            continue
        numbers = tensor.detach().numpy().astype(np.float32)
        if parts[0] in ("wte", "wpe"):
            found[f"model/{parts[0]}"] = numbers
            continue
        *path, kind = parts
        if path[0] == "h":
            path = [f"h{path[1]}", *path[2:]]
        if path[-1].startswith("ln_"):
            kind = {"weight": "g", "bias": "b"}[kind]
        else:
            kind = {"weight": "w", "bias": "b"}[kind]
            numbers = numbers[None] if kind == "w" else numbers
        found["/".join(["model", *path, kind])] = numbers
    return found


def write_openai(
    folder: Path, reference: nn.Module, shards: int = 1, prefix: str = "model.ckpt"
) -> None:
    """hparams.json, checkpoint and the bundle of a GPT2LMHeadModel."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = reference.config
    hparams = {
        "n_vocab": shape.vocab_size,
        "n_ctx": shape.n_positions,
        "n_embd": shape.n_embd,
        "n_head": shape.n_head,
        "n_layer": shape.n_layer,
    }
    (folder / "hparams.json").write_text(json.dumps(hparams), encoding="utf-8")
    note = f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "{prefix}"\n'
    (folder / "checkpoint").write_text(note, encoding="utf-8")
    write_bundle(folder / prefix, openai_tensors(reference), shards=shards)


def write_gpt2_vocabulary(folder: Path) -> int:
    """encoder.json and vocab.bpe with the 256 bytes, two merges and the end; how many tokens."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*bytes_to_unicode().values(), "Ġe", "Ġef", END]
    ids = {token: place for place, token in enumerate(tokens)}
    (folder / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    (folder / "vocab.bpe").write_text("#version: 0.2\nĠ e\nĠe f\n", encoding="utf-8")
    return len(tokens)
