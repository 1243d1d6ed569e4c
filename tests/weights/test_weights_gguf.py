"""GGUF files, both ways: against the gguf package's reader and against transformers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from yunque.config import ModelConfig
from yunque.errors import InputError, MissingPackageError
from yunque.model.decoder import Decoder
from yunque.weights.gguf import gguf_tokenizer, load_gguf, save_gguf

TEXT = (
    "El niño comió 12 manzanas; don't ask WHY it's 3.14 — ¿qué tal?\n\n  Cada  mañana, el tren "
    "de las 07:45 sale de Atocha. They'll say: \"we've seen 1024 of them\".\r\n\tfin 🚀 中文\n"
)
SHAPE = ModelConfig(
    preset="",
    vocab_size=320,
    context_length=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    hidden_size=64,
    intermediate_size=96,
    qk_norm=False,
    tie_embeddings=False,
    dropout=0.0,
    rope_theta=500_000.0,
)
GPT2 = dataclasses.replace(
    SHAPE,
    num_kv_heads=4,
    positions="learned",
    norm="layernorm",
    mlp="gelu",
    bias=True,
    qkv_bias=True,
    tie_embeddings=True,
    rope_theta=10_000.0,
)
SHAPES = {
    "gpt2": GPT2,
    "gpt2-untied": dataclasses.replace(GPT2, tie_embeddings=False),
    "gpt2-no-qkv-bias": dataclasses.replace(GPT2, qkv_bias=False),
    "llama": SHAPE,
    "llama-tied": dataclasses.replace(SHAPE, tie_embeddings=True, num_kv_heads=1),
    "qwen2": dataclasses.replace(SHAPE, qkv_bias=True, norm_eps=1e-6),
    "qwen3": dataclasses.replace(SHAPE, qk_norm=True, tie_embeddings=True),
}
TOKENS = torch.tensor([[1, 5, 300, 0, 33, 5, 7, 2], [9, 9, 8, 1, 0, 59, 4, 4]])


def random_model(config: ModelConfig) -> Decoder:
    """Every weight random and large, so that biases, norms and attention show in the logits."""
    model = Decoder(config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.2, generator=generator)
    return model


def logits(model: Decoder) -> torch.Tensor:
    with torch.no_grad():
        return model.head(model(TOKENS))  # (B, T, V)


def byte_level(pieces: Any) -> Tokenizer:
    """A small byte-level BPE with a control token inside its vocabulary and added ones behind."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pieces
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        min_frequency=1,
        show_progress=False,
        special_tokens=[AddedToken("<|endoftext|>", special=True, normalized=False)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator([TEXT], trainer)
    backend.add_tokens([AddedToken("  ", normalized=False)])
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    return backend


def gpt2_pieces() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def write_tokenizer(
    folder: Path,
    backend: Tokenizer | None = None,
    settings: dict[str, Any] | None = None,
    generation: dict[str, Any] | None = None,
) -> Path:
    folder.mkdir(exist_ok=True)
    backend = backend or byte_level(gpt2_pieces())
    (folder / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
    settings = {"eos_token": "<|endoftext|>"} if settings is None else settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    generation = {"eos_token_id": 0} if generation is None else generation
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return folder


def saved(tmp_path: Path, name: str, dtype: str = "f32") -> tuple[Decoder, Path]:
    model, file = random_model(SHAPES[name]), tmp_path / "model.gguf"
    save_gguf(model, file, write_tokenizer(tmp_path / "tokenizer"), dtype, name="small")
    return model, file


def expected(model: Decoder, name: str) -> dict[str, torch.Tensor]:
    """What a file must hold: a table of this test's own, written apart from the product's."""
    state, config, found = model.state_dict(), model.config, {}
    parts = {
        "token_embedding": "token_embd",
        "position_embedding": "position_embd",
        "final_norm": "output_norm",
        "attention_norm": "attn_norm",
        "mlp_norm": "ffn_norm",
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "q_norm": "attn_q_norm",
        "k_norm": "attn_k_norm",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
        "head": "output",
    }
    for key, tensor in state.items():
        *path, part, kind = key.split(".")
        if part == "head" and config.tie_embeddings:
            continue
        if name == "llama" and part in ("q_proj", "k_proj"):
            heads = config.num_heads if part == "q_proj" else config.num_kv_heads
            size = config.hidden_size // config.num_heads
            # Row by row: the pair (i, i + half) of a head stands at 2 i and 2 i + 1.
            order = [
                head * size + half * (size // 2) + i
                for head in range(heads)
                for i in range(size // 2)
                for half in (0, 1)
            ]
            tensor = tensor[order]
        prefix = f"blk.{path[1]}." if path else ""
        found[f"{prefix}{parts[part]}.{kind}"] = tensor
    if name == "gpt2":
        for layer in range(config.num_layers):
            for kind in ("weight", "bias"):
                three = [found.pop(f"blk.{layer}.attn_{part}.{kind}", None) for part in "qkv"]
                none = torch.zeros(3 * config.hidden_size)
                found[f"blk.{layer}.attn_qkv.{kind}"] = (
                    none if three[0] is None else torch.cat(three)  # type: ignore[arg-type]
                )
    return found


def read(file: Path) -> dict[str, tuple[str, torch.Tensor]]:
    """Name → (type, numbers as float32) by the gguf package alone."""
    return {
        tensor.name: (
            tensor.tensor_type.name,
            torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type))),
        )
        for tensor in gguf.GGUFReader(file).tensors
    }


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_the_gguf_reader_sees_every_tensor(tmp_path: Path, name: str, dtype: str) -> None:
    model, file = saved(tmp_path, name, dtype)
    wanted, found = expected(model, SHAPES[name].family), read(file)
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        kind, numbers = found[key]
        whole = tensor.dim() == 1 or key == "position_embd.weight"
        assert kind == ("F32" if whole else dtype.upper()), key
        if kind == "Q8_0":
            blocks = tensor.reshape(-1, 32)
            step = blocks.abs().amax(1, keepdim=True) / 127
            # Half a step, and what the step lost when it became a float16.
            bound = 0.5 * step + 127 * (step - step.half().float()).abs() + 1e-7
            assert ((numbers.reshape(-1, 32) - blocks).abs() <= bound).all(), key
            assert not torch.equal(numbers, tensor)
        else:
            cast = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
            assert torch.equal(numbers, tensor.to(cast).float()), key


@pytest.mark.parametrize("name", SHAPES)
def test_there_and_back_gives_equal_logits(tmp_path: Path, name: str) -> None:
    model, file = saved(tmp_path, name)
    back = load_gguf(file)
    config = SHAPES[name]
    assert back.config == dataclasses.replace(
        config, qkv_bias=config.qkv_bias or name[:4] == "gpt2"
    )
    assert (back.head.weight is back.token_embedding.weight) == config.tie_embeddings
    assert torch.equal(logits(back), logits(model))


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_smaller_types_load_as_they_were_stored(tmp_path: Path, dtype: str) -> None:
    _, file = saved(tmp_path, "qwen3", dtype)
    found, state = read(file), load_gguf(file).state_dict()
    for ours, theirs in (
        ("q_proj", "attn_q"),
        ("down_proj", "ffn_down"),
        ("q_norm", "attn_q_norm"),
    ):
        part = "mlp" if ours == "down_proj" else "attention"
        assert torch.equal(
            state[f"blocks.1.{part}.{ours}.weight"], found[f"blk.1.{theirs}.weight"][1]
        )
    half = load_gguf(file, dtype=torch.bfloat16).head.weight
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, state["head.weight"].bfloat16())


def test_metadata_are_llama_cpps(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "llama", "q8_0")
    fields = {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}
    wanted = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "small",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "llama.vocab_size": 320,
        "llama.context_length": 48,
        "llama.embedding_length": 64,
        "llama.block_count": 2,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 500_000.0,
        "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
    }
    assert {key: fields[key] for key in wanted} == wanted
    arrays = {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"}
    rest = {key for key in fields if not key.startswith("GGUF.")}
    assert rest == wanted.keys() | arrays
    assert len(fields["tokenizer.ggml.tokens"]) == len(fields["tokenizer.ggml.token_type"]) == 320


# What the loader of transformers does not read from a file: GPT-2's positions (1024) and the size
# of Qwen3's heads (128).
FOR_TRANSFORMERS = {
    "gpt2": dataclasses.replace(GPT2, context_length=1024, intermediate_size=256),
    "llama": SHAPE,
    "llama-tied": SHAPES["llama-tied"],
    "qwen2": SHAPES["qwen2"],
    "qwen3": dataclasses.replace(SHAPES["qwen3"], hidden_size=512),
}


@pytest.mark.parametrize("name", FOR_TRANSFORMERS)
def test_transformers_opens_the_file_with_equal_logits(tmp_path: Path, name: str) -> None:
    import transformers

    model = random_model(FOR_TRANSFORMERS[name])
    with torch.no_grad():
        model.head.weight.mul_(0.1)  # logits near 1, where 1e-5 is a bound with a meaning
    save_gguf(model, tmp_path / "m.gguf", write_tokenizer(tmp_path / "t"), "f32", name="x")
    foreign = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        theirs = foreign(TOKENS).logits
    assert theirs.shape == logits(model).shape
    torch.testing.assert_close(theirs, logits(model), rtol=0, atol=1e-5)
