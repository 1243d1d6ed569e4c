"""GGUF files, both ways: against the gguf package's reader and against transformers."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from shared_data import shared
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from yunque.config import ModelConfig
from yunque.data.tokenizer import load_tokenizer, train_tokenizer
from yunque.errors import InputError, MissingPackageError
from yunque.model.decoder import Decoder
from yunque.weights.gguf import gguf_config, gguf_tokenizer, load_gguf, save_gguf
from yunque.weights.gguf_tokenizer import tokenizer_metadata

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
    "qwen3-wide-heads": dataclasses.replace(SHAPE, qk_norm=True, head_dim=32),
    "llama-wide-heads": dataclasses.replace(SHAPE, head_dim=32),
    "llama-linear": dataclasses.replace(SHAPE, rope_scaling="linear", rope_factor=2.5),
    "llama-yarn": dataclasses.replace(
        SHAPE, rope_scaling="yarn", rope_factor=4.0, rope_original_length=12
    ),
    "qwen2-yarn": dataclasses.replace(
        SHAPE,
        qkv_bias=True,
        rope_theta=100.0,
        rope_scaling="yarn",
        rope_factor=4.0,
        rope_original_length=12,
        rope_slow=0.02,
        rope_fast=0.5,
    ),
    "llama-3": dataclasses.replace(
        SHAPE, rope_scaling="llama3", rope_factor=8.0, rope_original_length=32, rope_theta=300.0
    ),
    "phi": dataclasses.replace(
        GPT2,
        positions="rotary",
        head_bias=True,
        parallel_residual=True,
        rotary_fraction=0.5,
        tie_embeddings=False,
    ),
}
SHAPES = {name: config.resolved(1) for name, config in SHAPES.items()}
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
            size = config.head_size
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
    if config.rope_scaling == "llama3":
        # Llama 3.1's own way, in double precision: by which each pair's angle is divided.
        factors = []
        for pair in range(config.head_size // 2):
            wave = 2 * math.pi * config.rope_theta ** (2 * pair / config.head_size)
            share = (config.rope_original_length / wave - 1.0) / (4.0 - 1.0)
            slowed = 1 / ((1 - share) / config.rope_factor + share)
            factors.append(1.0 if share > 1 else config.rope_factor if share < 0 else slowed)
        assert len({round(factor, 4) for factor in factors}) > 2  # all three cases
        found["rope_freqs.weight"] = torch.tensor(factors)
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
        if key == "rope_freqs.weight":
            torch.testing.assert_close(numbers, tensor, rtol=1e-6, atol=0)
        elif kind == "Q8_0":
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
    assert gguf_config(file) == back.config
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
    "qwen3": dataclasses.replace(SHAPES["qwen3"], head_dim=128),
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


def split_pieces(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# As the tokenizer.json of Llama 3 and of Qwen2 have them.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def pipeline(name: str) -> Tokenizer:
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return byte_level(pre_tokenizers.Sequence([digits, gpt2_pieces()]))
    if name in ("llama-bpe", "dbrx"):
        backend = byte_level(split_pieces(LLAMA3))
        backend.model.ignore_merges = name == "llama-bpe"
        return backend
    if name in ("qwen2", "stablelm2"):
        backend = byte_level(split_pieces(QWEN2))
        if name == "qwen2":
            backend.normalizer = normalizers.NFC()
        return backend
    assert name == "gpt-2"
    return byte_level(gpt2_pieces())


SAMPLES = [
    TEXT,
    "",
    " ",
    "\n\n  \n",
    "12345 1 22 333 ½ ²",
    "it's IT'S l'amour 'tis ’s",
    "<|endoftext|>Hola<|im_end|>  \n<|endoftext|>",
    "cafe\u0301 café e\u0301",
    "def f(x):\n    return x  # no\t\n",
    "niño" * 5 + " 🚀🚀 中文テスト",
    "\x00\x7f\xa0\u200b",
]


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "stablelm2"])
def test_tokenizer_there_and_back_gives_equal_ids(tmp_path: Path, name: str) -> None:
    backend = pipeline(name)
    folder = write_tokenizer(
        tmp_path / "tokenizer",
        backend,
        {
            "eos_token": {"content": "<|endoftext|>"},
            "pad_token": "<|im_end|>",
            "chat_template": "{{ messages }}",
        },
        {"eos_token_id": [0, 301], "pad_token_id": 301},
    )
    file, out = tmp_path / "m.gguf", tmp_path / "out"
    save_gguf(random_model(SHAPE), file, folder, "f32")
    fields = gguf.GGUFReader(file).fields
    assert fields["tokenizer.ggml.pre"].contents() == name
    types = fields["tokenizer.ggml.token_type"].contents()
    assert [types.index(kind) for kind in (3, 4, 5)] == [0, 300, 302]
    assert types.count(1) == 299
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 301
    gguf_tokenizer(file, out)
    back = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert back.get_vocab() == backend.get_vocab()
    for text in SAMPLES:
        assert back.encode(text).ids == backend.encode(text).ids, text
        for plain in (back, backend):
            plain.encode_special_tokens = True
        assert back.encode(text).ids == backend.encode(text).ids, text
        for plain in (back, backend):
            plain.encode_special_tokens = False
        ids = backend.encode(text).ids
        assert back.decode(ids, skip_special_tokens=False) == backend.decode(
            ids, skip_special_tokens=False
        )
    settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token"] == "<|endoftext|>"
    assert settings["pad_token"] == "<|im_end|>"
    assert settings["chat_template"] == "{{ messages }}"
    assert "bos_token" not in settings
    generation = json.loads((out / "generation_config.json").read_text(encoding="utf-8"))
    assert generation == {"eos_token_id": [0, 301], "pad_token_id": 301}


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2"])
def test_transformers_opens_the_written_tokenizer(tmp_path: Path, name: str) -> None:
    from transformers import AutoTokenizer

    backend = pipeline(name)
    file, out = tmp_path / "m.gguf", tmp_path / "out"
    save_gguf(random_model(SHAPE), file, write_tokenizer(tmp_path / "t", backend), "f32")
    gguf_tokenizer(file, out)
    found = AutoTokenizer.from_pretrained(out)
    for text in SAMPLES:
        assert found(text, add_special_tokens=False).input_ids == backend.encode(text).ids, text
    assert found.eos_token_id == 0


@pytest.mark.parametrize(("begin", "end"), [(True, False), (True, True), (False, True)])
def test_tokens_around_a_text_are_kept(tmp_path: Path, begin: bool, end: bool) -> None:
    backend = byte_level(gpt2_pieces())
    backend.post_processor = processors.TemplateProcessing(
        single=[*["<|im_end|>"] * begin, "$A", *["<|endoftext|>"] * end],
        special_tokens=[("<|im_end|>", 301), ("<|endoftext|>", 0)],
    )
    roles = {"bos_token": "<|im_end|>", "eos_token": "<|endoftext|>"}
    file, out = tmp_path / "m.gguf", tmp_path / "out"
    folder = write_tokenizer(tmp_path / "t", backend, roles)
    save_gguf(random_model(SHAPE), file, folder, "f32")
    fields = gguf.GGUFReader(file).fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is begin
    assert fields["tokenizer.ggml.add_eos_token"].contents() is end
    gguf_tokenizer(file, out)
    back = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert back.encode("Hola").ids == backend.encode("Hola").ids
    assert len(back.encode("").ids) == begin + end
    # Tokens that are neither begin nor end cannot be told.
    folder = write_tokenizer(tmp_path / "t", backend, {})
    if begin:
        with pytest.raises(InputError, match="other tokens around a text"):
            save_gguf(random_model(SHAPE), file, folder, "f32")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt2", None),
        ("phi-2", None),
        ("minimind", None),
        ("sentencepiece/test_model.model", "its tokens are of the kind Unigram"),
    ],
)
def test_published_tokenizers(tmp_path: Path, name: str, reason: str | None) -> None:
    tokenizer = load_tokenizer(shared("tokenizers") / name)
    tokenizer.save(tmp_path / "t")
    (tmp_path / "t" / "generation_config.json").write_text("{}", encoding="utf-8")
    if reason is not None:
        with pytest.raises(InputError, match=f"{reason}. A GGUF file holds byte-level BPE"):
            tokenizer_metadata(tmp_path / "t", tokenizer.vocab_size)
        return
    tiny = dataclasses.replace(
        GPT2, vocab_size=tokenizer.vocab_size + 3, num_layers=1, hidden_size=8
    )
    file = tmp_path / "m.gguf"
    save_gguf(Decoder(tiny.resolved(0)), file, tmp_path / "t", "f32")
    gguf_tokenizer(file, tmp_path / "out")
    back = load_tokenizer(tmp_path / "out")
    assert back.separator == tokenizer.separator
    assert back.chat_template == tokenizer.chat_template
    for text in SAMPLES:
        for special in (True, False):
            assert back.encode(text, special) == tokenizer.encode(text, special), text


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("char", "kind WordLevel"),
        ("word", "kind WordLevel"),
        ("byte", "no merges"),
        ("bpe:300", "splits text in a way that llama.cpp does not know"),
        ("unigram:300", "kind Unigram"),
    ],
)
def test_tokenizers_that_llama_cpp_cannot_hold_are_refused(
    tmp_path: Path, spec: str, reason: str
) -> None:
    made = train_tokenizer(spec, lambda: iter([TEXT * 3]), "<|endoftext|>")
    made.save(tmp_path / "t")
    (tmp_path / "t" / "generation_config.json").write_text("{}", encoding="utf-8")
    file = tmp_path / "m.gguf"
    with pytest.raises(InputError, match=f"{reason}.*byte-level BPE that splits") as caught:
        save_gguf(random_model(SHAPE), file, tmp_path / "t", "f32")
    assert "--tokenizer bpe-gpt2:4096" in str(caught.value)
    assert not file.exists()


def changed(path: tuple[str, ...], value: Any) -> Tokenizer:
    """The small tokenizer with one value of its JSON changed."""
    content = json.loads(byte_level(gpt2_pieces()).to_str())
    part = content
    for key in path[:-1]:
        part = part[int(key)] if isinstance(part, list) else part[key]
    part[path[-1]] = value
    return Tokenizer.from_str(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("pre_tokenizer", "add_prefix_space"), True, "splits text in a way"),
        (("normalizer",), {"type": "NFC"}, "splits text in a way"),
        (("normalizer",), {"type": "Lowercase"}, "splits text in a way"),
        (("pre_tokenizer", "use_regex"), False, "splits text in a way"),
        (("model", "ignore_merges"), True, "splits text in a way"),
        (("model", "dropout"), 0.5, "sets dropout to 0.5"),
        (("decoder",), None, "does not work on bytes"),
        (("added_tokens", "1", "lstrip"), True, r"'  ' is matched in a way of its own \(lstrip"),
    ],
)
def test_every_step_that_would_change_ids_is_refused(
    tmp_path: Path, path: tuple[str, ...], value: Any, reason: str
) -> None:
    folder = write_tokenizer(tmp_path / "t", changed(path, value))
    with pytest.raises(InputError, match=reason):
        tokenizer_metadata(folder, 320)


def test_other_faults_of_a_tokenizer(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "t")
    with pytest.raises(InputError, match="302 tokens and the model 301 rows"):
        tokenizer_metadata(folder, 301)
    write_tokenizer(folder, generation={"eos_token_id": [0, 5, 6, 7]})
    with pytest.raises(InputError, match="4 end tokens"):
        tokenizer_metadata(folder, 302)
    write_tokenizer(folder, settings={"chat_template": [{"name": "default", "template": "x"}]})
    with pytest.raises(InputError, match="list of several"):
        tokenizer_metadata(folder, 302)
    (folder / "chat_template.jinja").write_text("{{ bos_token }}", encoding="utf-8")
    assert tokenizer_metadata(folder, 302)["tokenizer.chat_template"].content == "{{ bos_token }}"
    (folder / "generation_config.json").unlink()
    with pytest.raises(InputError, match=r"generation_config.json: no such file"):
        tokenizer_metadata(folder, 302)


def rewritten(
    file: Path,
    target: Path,
    keys: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None,
) -> Path:
    """A copy by the gguf package with keys and tensors changed; None leaves one out."""
    reader = gguf.GGUFReader(file)
    keys, tensors = dict(keys or {}), dict(tensors or {})
    writer = gguf.GGUFWriter(target, "")
    found = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    for name, field in found.items():
        if name not in keys:
            writer.add_key_value(name, field.contents(), field.types[0], *field.types[1:2])
    keys = {name: value for name, value in keys.items() if value is not None}
    for name, value in keys.items():
        writer.add_key_value(name, value, gguf.GGUFValueType.get_type(value))
    for tensor in reader.tensors:
        value = tensors.pop(tensor.name, np.array(tensor.data))
        if value is not None:
            writer.add_tensor(tensor.name, value, raw_dtype=tensor.tensor_type)
    for name, value in tensors.items():
        array, kind = value if isinstance(value, tuple) else (value, None)
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_a_copy_by_the_gguf_package_is_sound(tmp_path: Path) -> None:
    model, file = saved(tmp_path, "llama")
    copy = rewritten(file, tmp_path / "copy.gguf", {"general.author": "somebody"})
    assert torch.equal(logits(load_gguf(copy)), logits(model))


def test_all_misfits_in_one_error(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "llama")
    changes = {
        "blk.0.ffn_up.weight": None,
        "output_norm.weight": None,
        "blk.1.attn_q.weight": np.zeros((32, 64), np.float32),
        "score.weight": np.zeros((2, 64), np.float32),
    }
    with pytest.raises(InputError) as caught:
        load_gguf(rewritten(file, tmp_path / "bad.gguf", tensors=changes))
    text = str(caught.value)
    assert "bad.gguf" in text
    assert "missing (2): blk.0.ffn_up.weight, output_norm.weight" in text.replace(
        "output_norm.weight, blk.0.ffn_up.weight", "blk.0.ffn_up.weight, output_norm.weight"
    )
    assert "left over (1): score.weight." in text
    assert "wrong shape: blk.1.attn_q.weight is [32, 64], expected [64, 64]." in text


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("llama", {"general.architecture": "mamba"}, "general.architecture is 'mamba'"),
        ("llama", {"llama.embedding_length": None}, "llama.embedding_length is missing"),
        ("llama", {"llama.context_length": None}, "llama.context_length is missing"),
        ("llama", {"llama.rope.dimension_count": 8}, "rope.dimension_count is 8"),
        ("llama", {"llama.attention.key_length": 32}, "attention.value_length is not key_length"),
        ("llama", {"llama.rope.scaling.type": "linear"}, "scaling.factor is missing"),
        ("llama", {"llama.rope.scaling.type": "longrope"}, "scaling.type is 'longrope'"),
        ("llama", {"llama.rope.scaling.factor": 2.0}, "rope.scaling.factor is 2.0"),
        ("phi", {"phi2.rope.dimension_count": 17}, "rope.dimension_count is 17"),
        ("llama", {"llama.expert_count": 8}, "expert_count is 8"),
        ("llama", {"llama.attention.sliding_window": 16}, "sliding_window is 16"),
        ("gpt2", {"gpt2.attention.head_count": 3}, "num_heads"),
        ("gpt2", {"gpt2.attention.layer_norm_epsilon": None}, "layer_norm_epsilon is missing"),
        ("llama", {"llama.block_count": 10**9}, "block_count is 1000000000, with 21 tensors"),
        ("llama", {"llama.block_count": "two"}, "block_count is 'two', expected int"),
        ("llama", {"split.count": 3}, "one of 3 parts"),
    ],
)
def test_what_the_decoder_cannot_do_is_named(
    tmp_path: Path, name: str, change: dict[str, Any], reason: str
) -> None:
    _, file = saved(tmp_path, name)
    with pytest.raises(InputError, match=f"(?s)bad.gguf.*{reason}"):
        load_gguf(rewritten(file, tmp_path / "bad.gguf", change))


def test_a_window_is_held_where_it_hides_nothing(tmp_path: Path) -> None:
    mistral = dataclasses.replace(SHAPE, sliding_window=48)
    model, file = random_model(mistral), tmp_path / "m.gguf"
    save_gguf(model, file, write_tokenizer(tmp_path / "t"), "f32")
    assert gguf.GGUFReader(file).fields["general.architecture"].contents() == "llama"
    back = load_gguf(file)
    assert back.config == dataclasses.replace(mistral, sliding_window=0)
    assert torch.equal(logits(back), logits(model))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sliding_window": 47}, "sliding_window is 47.*write 47 as max_position_embeddings"),
        (
            {"rope_scaling": "llama3", "rope_factor": 8.0, "qkv_bias": True},
            "rope_scaling is llama3, which is for Llama and not for qwen2",
        ),
        (
            {"rope_scaling": "yarn", "rope_factor": 4.0, "rope_amplitude": 1.5},
            "rope_amplitude is 1.5, and only 1.138",
        ),
    ],
)
def test_what_llama_cpp_cannot_hold_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    model, file = Decoder(dataclasses.replace(SHAPE, **change)), tmp_path / "m.gguf"
    with pytest.raises(InputError, match=f"(?s)llama.cpp cannot hold this model.*{reason}"):
        save_gguf(model, file, write_tokenizer(tmp_path / "t"), "f32")
    tied = dataclasses.replace(SHAPES["phi"], tie_embeddings=True)
    with pytest.raises(InputError, match="phi2 needs a head of its own"):
        save_gguf(Decoder(tied), file, tmp_path / "t", "f32")
    assert not file.exists()


def test_rotary_factors_that_are_not_llama_3s_are_refused(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "llama-3")
    for factors in (np.linspace(1, 8, 8, dtype=np.float32), np.ones(8, np.float32)):
        change = {"rope_freqs.weight": factors}
        with pytest.raises(InputError, match=r"rope_freqs\.weight holds factors that are not"):
            load_gguf(rewritten(file, tmp_path / "bad.gguf", tensors=change))
    change = {"rope_freqs.weight": np.ones(7, np.float32)}
    with pytest.raises(InputError, match=r"rope_freqs\.weight is \[7\] in F32, expected \[8\]"):
        load_gguf(rewritten(file, tmp_path / "bad.gguf", tensors=change))


def test_absent_keys_have_the_formats_defaults(tmp_path: Path) -> None:
    model, file = saved(tmp_path, "gpt2-untied")
    bare = {"gpt2.vocab_size": None, "gpt2.attention.head_count_kv": None}
    copy = rewritten(file, tmp_path / "copy.gguf", bare)
    assert torch.equal(logits(load_gguf(copy)), logits(model))


def test_types_that_are_not_read_are_named_with_those_that_are(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "llama")
    array = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    blocks = gguf.quantize(array, gguf.GGMLQuantizationType.Q4_0)
    changes: dict[str, Any] = {"blk.0.attn_v.weight": None, "blk.1.attn_v.weight": None}
    copy = rewritten(file, tmp_path / "copy.gguf", tensors=changes)
    changes = {
        f"blk.{layer}.attn_v.weight": (blocks, gguf.GGMLQuantizationType.Q4_0) for layer in (0, 1)
    }
    changes["other"] = np.zeros(4, np.int32)
    wanted = (
        r"1 tensors are I32 \(other\); 2 tensors are Q4_0 \(blk.0.attn_v.weight, "
        r"blk.1.attn_v.weight\). Supported are F32, F16, BF16 and Q8_0"
    )
    with pytest.raises(InputError, match=wanted):
        load_gguf(rewritten(copy, tmp_path / "bad.gguf", tensors=changes))


def test_a_file_that_is_cut_off_is_named_wherever_it_ends(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "llama", "q8_0")
    content = file.read_bytes()
    bad = tmp_path / "bad.gguf"
    # Everywhere in the head's first part, then here and there up to the last byte.
    sizes = [*range(0, 200, 7), *np.linspace(200, len(content) - 32, 40).astype(int)]
    for size in sizes:
        bad.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"bad\.gguf: (not a GGUF|a damaged or unfinished)"):
            load_gguf(bad)


def test_damage_in_the_head_is_named_or_harmless(tmp_path: Path) -> None:
    model, file = saved(tmp_path, "gpt2")
    content = bytearray(file.read_bytes())
    head = gguf.GGUFReader(file).data_offset
    draws = np.random.default_rng(5)
    caught = 0
    for place in [4, 8, 15, 16, 23, 24, 31, *draws.integers(24, head, 30)]:
        old = content[place]
        content[place] ^= 0x80
        (tmp_path / "bad.gguf").write_bytes(content)
        content[place] = old
        try:
            back = load_gguf(tmp_path / "bad.gguf")
        except InputError:
            caught += 1
        else:  # the letters of a token, which are no matter of the weights
            assert torch.equal(logits(back), logits(model))
    assert caught >= 7


def test_tensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    _, file = saved(tmp_path, "llama")
    content = bytearray(file.read_bytes())
    name = b"blk.1.attn_k.weight"
    place = content.index(name) + len(name) + 4 + 2 * 8 + 4
    offset = int.from_bytes(content[place : place + 8], "little")
    content[place : place + 8] = (offset - 32).to_bytes(8, "little")
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"blk\.1\.attn_k\.weight begins within blk"):
        load_gguf(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.gguf: no such file"):
        load_gguf(tmp_path / "none.gguf")
    with pytest.raises(InputError, match="no such file"):
        load_gguf(tmp_path)
    (tmp_path / "zip.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match=r"begins with b'PK.*expected b'GGUF'"):
        load_gguf(tmp_path / "zip.gguf")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model is 'bert'"),
        ({"tokenizer.ggml.model": "llama"}, "token_type or scores is missing"),
        ({"tokenizer.ggml.pre": "tekken"}, "tokenizer.ggml.pre is 'tekken'"),
        ({"tokenizer.ggml.pre": None}, "tokenizer.ggml.pre is None"),
        ({"tokenizer.ggml.merges": None}, "merges is missing"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "320 tokens and 2 types"),
        ({"tokenizer.ggml.merges": ["Ġ qqqq"]}, "do not fit together"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "tokens is no list of texts"),
        ({"tokenizer.ggml.bos_token_id": "<s>"}, "bos_token_id is '<s>'"),
        ({"tokenizer.ggml.eos_token_id": 320}, "eos_token_id is 320, and there are 320"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_named(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    _, file = saved(tmp_path, "llama")
    with pytest.raises(InputError, match=f"bad.gguf: .*{reason}"):
        gguf_tokenizer(rewritten(file, tmp_path / "bad.gguf", change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("dtype", "value", "reason"),
    [
        ("f16", 7e4, "blk.0.attn_q.weight holds 70000"),
        ("q8_0", 1e7, "blk.0.attn_q.weight holds 1e"),
        ("q8_0", float("nan"), "blk.0.attn_q.weight holds nan"),
        ("q8_0", float("inf"), "blk.0.attn_q.weight holds inf"),
    ],
)
def test_numbers_that_the_type_cannot_hold_are_refused(
    tmp_path: Path, dtype: str, value: float, reason: str
) -> None:
    model = random_model(SHAPE)
    with torch.no_grad():
        model.blocks[0].attention.q_proj.weight[3, 5] = value
    file = tmp_path / "m.gguf"
    with pytest.raises(InputError, match=reason):
        save_gguf(model, file, write_tokenizer(tmp_path / "t"), dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_unknown_type_and_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = saved(tmp_path, "llama")
    with pytest.raises(InputError, match="dtype is 'q4_0': use one of f32, f16, bf16, q8_0"):
        save_gguf(model, tmp_path / "x.gguf", tmp_path / "tokenizer", "q4_0")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert torch.equal(logits(load_gguf(file)), logits(model))  # reading needs no package
    with pytest.raises(MissingPackageError, match=r"pip install 'yunque\[gguf\]'"):
        save_gguf(model, tmp_path / "x.gguf", tmp_path / "tokenizer", "f32")


def test_rows_that_are_no_multiple_of_32_are_half_precision(tmp_path: Path) -> None:
    model = random_model(dataclasses.replace(SHAPE, intermediate_size=80))
    file = tmp_path / "m.gguf"
    save_gguf(model, file, write_tokenizer(tmp_path / "t"), "q8_0")
    kinds = {name: kind for name, (kind, _) in read(file).items()}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q8_0"
    down = load_gguf(file).state_dict()["blocks.0.mlp.down_proj.weight"]
    assert torch.equal(down, model.state_dict()["blocks.0.mlp.down_proj.weight"].half().float())


def sentencepiece_bpe(tmp_path: Path) -> Path:
    """A model of Llama 2's kind, trained by the sentencepiece library."""
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT.replace("\n", " ")] * 2),
        model_prefix=str(tmp_path / "spm"),
        model_type="bpe",
        vocab_size=420,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        minloglevel=2,
    )
    return tmp_path / "spm.model"


def test_sentencepiece_bpe_there_and_back(tmp_path: Path) -> None:
    import sentencepiece
    from transformers import AutoTokenizer

    path = sentencepiece_bpe(tmp_path)
    tokenizer = load_tokenizer(path)
    tokenizer.save(tmp_path / "t")
    (tmp_path / "t" / "generation_config.json").write_text('{"eos_token_id": 2}', encoding="utf-8")
    shape = dataclasses.replace(SHAPE, vocab_size=tokenizer.vocab_size)
    save_gguf(random_model(shape), tmp_path / "m.gguf", tmp_path / "t", "f32", name="x")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    assert fields["tokenizer.ggml.tokens"].contents() == [
        library.id_to_piece(id) for id in range(len(library))
    ]
    assert fields["tokenizer.ggml.token_type"].contents()[:4] == [2, 3, 3, 6]
    gguf_tokenizer(tmp_path / "m.gguf", tmp_path / "out")
    back = load_tokenizer(tmp_path / "out")
    foreign = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert back.separator == "</s>"
    for text in SAMPLES:
        text = text.replace("<|endoftext|>", "</s>")
        ids = library.encode(text)
        assert tokenizer.encode(text) == ids, text
        assert back.encode(text) == ids, text
        # transformers puts no space before a text that begins with one, or behind a control token.
        if text.strip() and "</s>" not in text and not text.startswith(" "):
            assert foreign(text, add_special_tokens=False).input_ids == ids, text
        assert back.decode(ids) == tokenizer.decode(ids)


def test_merges_that_scores_cannot_say_are_refused(tmp_path: Path) -> None:
    load_tokenizer(sentencepiece_bpe(tmp_path)).save(tmp_path / "t")
    (tmp_path / "t" / "generation_config.json").write_text("{}", encoding="utf-8")
    path = tmp_path / "t" / "tokenizer.json"
    whole = json.loads(path.read_text(encoding="utf-8"))

    def refused(change: Any, reason: str) -> None:
        content = json.loads(json.dumps(whole))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(InputError, match=f"{reason}.*SentencePiece BPE as Llama 2 has"):
            tokenizer_metadata(tmp_path / "t", 1000)

    refused(lambda c: c["model"]["merges"].pop(3), "leave out a pair that makes")
    lowercase = {"type": "Lowercase"}
    refused(lambda c: c["normalizer"]["normalizers"].append(lowercase), "does more, or less")
    refused(lambda c: c.update(pre_tokenizer={"type": "Whitespace"}), "splits text in a way")
    refused(lambda c: c["model"].update(dropout=0.1), "sets dropout")


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "phi", "llama-3", "llama-yarn"])
def test_llama_cpp_writes_the_same_text(tmp_path: Path, name: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    model, file = saved(tmp_path, name)
    backend = byte_level(gpt2_pieces())
    program = llama_cpp.Llama(
        str(file), n_ctx=48, n_batch=48, n_threads=1, logits_all=True, verbose=False
    )
    for text in SAMPLES:
        backend.encode_special_tokens = True
        ids = backend.encode(text).ids
        assert program.tokenize(text.encode(), add_bos=False, special=False) == ids, text
        backend.encode_special_tokens = False
        ids = backend.encode(text).ids
        assert program.tokenize(text.encode(), add_bos=False, special=True) == ids, text
    ids = backend.encode("El niño comió").ids
    ours, theirs = list(ids), list(ids)
    with torch.no_grad():
        while len(ours) < 40:
            ours.append(int(model.head(model(torch.tensor([ours]))[:, -1]).argmax()))
    program.eval(ids)
    while len(theirs) < 40:
        theirs.append(int(np.argmax(program.scores[program.n_tokens - 1])))
        program.eval(theirs[-1:])
    assert theirs == ours


@pytest.mark.parametrize(
    ("size", "length", "factor", "theta"),
    [
        (8, 64, 8.0, 10_000.0),  # four pairs: 32 and 64 make the same factors
        (8, 8192, 8.0, 10_000.0),  # no pair is slowed by the whole factor
        (8, 8192, 8.0, 100.0),  # none is slowed
        (8, 100, 3.3, 10_000.0),  # a length that is no power of two
    ],
)
def test_llama_3s_scaling_is_found_again_in_small_heads(
    size: int, length: int, factor: float, theta: float, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        SHAPES["llama-3"],
        head_dim=size,
        rope_theta=theta,
        rope_factor=factor,
        rope_original_length=length,
        rope_slow=1.0,
        rope_fast=4.0,
    )
    file = tmp_path / "model.gguf"
    save_gguf(Decoder(config), file, write_tokenizer(tmp_path / "tokenizer"), "f32")
    found = load_gguf(file).config
    assert found.rope_scaling == "llama3"
    assert (found.rope_original_length, found.rope_factor) == (length, factor)
    assert (found.rope_slow, found.rope_fast) == (1.0, 4.0)
    other = np.full(size // 2, 2.0, np.float32)
    with pytest.raises(InputError, match="holds factors that are not"):  # the key alone is no proof
        load_gguf(rewritten(file, tmp_path / "bad.gguf", tensors={"rope_freqs.weight": other}))


@pytest.mark.parametrize("numbers", [[8.0, 1.0, 4.0], [8.0, 1.0, 4.0, 31.5], [0.0, 1.0, 4.0, 32.0]])
def test_numbers_of_a_scaling_that_are_none(numbers: list[float], tmp_path: Path) -> None:
    _, file = saved(tmp_path, "llama-3")
    change = {"yunque.rope.llama3": numbers}
    with pytest.raises(InputError, match=r"yunque\.rope\.llama3 is"):
        load_gguf(rewritten(file, tmp_path / "bad.gguf", change))
