"""Model folders, both ways against transformers and safetensors; planted faults are named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_models import shapes

from yunque.config import ModelConfig
from yunque.errors import InputError, StorageError
from yunque.model.decoder import Decoder
from yunque.weights.folder import INDEX, WEIGHTS, load_folder, save_folder

TINY, GPT2, PHI = shapes(preset="nano", vocab_size=61)
OURS = {
    "gpt2": GPT2,
    "gpt2-tied": dataclasses.replace(GPT2, tie_embeddings=True),
    "gpt2-no-qkv-bias": dataclasses.replace(GPT2, qkv_bias=False),
    "phi": PHI,
    "phi-tied": dataclasses.replace(PHI, tie_embeddings=True, rope_theta=500.0),
    "llama": TINY,
    "llama-tied": dataclasses.replace(TINY, tie_embeddings=True, rope_theta=500_000.0),
    "mistral": dataclasses.replace(TINY, sliding_window=3, head_dim=12),
    "qwen2": dataclasses.replace(TINY, qkv_bias=True, norm_eps=1e-6),
    "qwen3": dataclasses.replace(TINY, qk_norm=True, tie_embeddings=True),
}
TOKENS = torch.tensor([[1, 5, 60, 0, 33, 5, 7, 2], [9, 9, 8, 1, 0, 59, 4, 4]])


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


def greedy(model: Decoder, steps: int) -> list[int]:
    tokens = TOKENS[:1]
    with torch.no_grad():
        for _ in range(steps):
            best = model.head(model(tokens)[:, -1]).argmax(-1, keepdim=True)
            tokens = torch.cat((tokens, best), dim=1)
    return tokens[0, TOKENS.shape[1] :].tolist()


def foreign_greedy(model: Any, steps: int) -> list[int]:
    ids = model.generate(
        TOKENS[:1],
        attention_mask=torch.ones_like(TOKENS[:1]),
        max_new_tokens=steps,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    return ids[0, TOKENS.shape[1] :].tolist()


def saved(tmp_path: Path, config: ModelConfig = TINY) -> Path:
    folder = tmp_path / "model"
    save_folder(random_model(config), folder, None, {"eos_token_id": 0})
    return folder


def rewrite(folder: Path, change: Any) -> None:
    """Read the weights with safetensors, let `change` edit them, write them with safetensors."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def word_tokenizer() -> Any:
    """w1 → 1, w2 → 2, …, and an end token, 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<|endoftext|>": 0, **{f"w{number}": number for number in range(1, 61)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<|endoftext|>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


@pytest.mark.parametrize("name", OURS)
def test_transformers_opens_what_we_write(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = random_model(OURS[name])
    folder = tmp_path / "best"
    save_tokenizer = None if name == "qwen2" else word_tokenizer().save_pretrained
    save_folder(model, folder, save_tokenizer, {"eos_token_id": 0, "max_new_tokens": 12})

    theirs, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    assert theirs.dtype == torch.float32
    assert theirs.generation_config.eos_token_id == 0
    assert theirs.config.eos_token_id == 0
    with torch.no_grad():
        assert (theirs(TOKENS).logits - logits(model)).abs().max() < 1e-5
    assert foreign_greedy(theirs, 12) == greedy(model, 12)
    if save_tokenizer:
        read = AutoTokenizer.from_pretrained(folder)
        assert read("w3 w60 <|endoftext|>")["input_ids"] == [3, 60, 0]
        assert read.eos_token_id == 0


def test_tokenizer_that_transformers_would_replace(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model, tokenizer = random_model(OURS["qwen2"]), word_tokenizer()
    with pytest.raises(InputError, match="Qwen2's tokenizer only"):
        save_folder(model, tmp_path / "a", tokenizer.save_pretrained, {})
    assert list(tmp_path.iterdir()) == []
    # The reason: the same files beside a qwen2 config give other ids.
    save_folder(model, tmp_path / "b", None, {})
    tokenizer.save_pretrained(tmp_path / "b")
    assert AutoTokenizer.from_pretrained(tmp_path / "b")("w3 w60")["input_ids"] != [3, 60]

    def qwen(folder: Path) -> None:
        tokenizer.save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({"tokenizer_class": "Qwen2TokenizerFast"}))

    save_folder(model, tmp_path / "c", qwen, {})
    assert (tmp_path / "c" / "tokenizer.json").exists()


@pytest.mark.parametrize("name", OURS)
def test_round_trip_keeps_every_bit(name: str, tmp_path: Path) -> None:
    config = OURS[name]
    model = random_model(config)
    with torch.no_grad():
        model.blocks[0].mlp.down_proj.weight[0, :3] = torch.tensor([-0.0, 1e-45, float("inf")])
    save_folder(model, tmp_path / "a", None, {})
    back = load_folder(tmp_path / "a")
    assert back.config == config
    assert not back.training
    assert (back.head.weight is back.token_embedding.weight) == config.tie_embeddings
    before, after = model.state_dict(), back.state_dict()
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor.view(torch.int32), after[key].view(torch.int32)), key
        assert after[key].is_contiguous()
    # A second save gives the same file, and training may go on: the weights are real parameters.
    save_folder(back, tmp_path / "b", None, {})
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
    back.head(back(TOKENS)).sum().backward()
    assert all(parameter.grad is not None for parameter in back.parameters())


def test_safetensors_reads_the_very_numbers(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    folder = saved(tmp_path)
    model = random_model(TINY)
    tensors = load_file(folder / WEIGHTS)
    assert torch.equal(tensors["lm_head.weight"], model.head.weight)
    assert torch.equal(tensors["model.norm.weight"], model.final_norm.weight)
    with safe_open(folder / WEIGHTS, framework="pt") as content:
        assert content.metadata() == {"format": "pt"}
    assert int.from_bytes((folder / WEIGHTS).read_bytes()[:8], "little") % 8 == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        WEIGHTS,
    ]


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_stored_types(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, dtype = random_model(GPT2), getattr(torch, name)
    save_folder(model, tmp_path, None, {}, dtype=name)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == dtype
    for target in (torch.float32, dtype):
        back = load_folder(tmp_path, dtype=target).state_dict()
        for key, tensor in model.state_dict().items():
            assert back[key].dtype == target
            assert torch.equal(back[key], tensor.to(dtype).to(target)), key


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = random_model(TINY)
    with torch.no_grad():
        model.head.weight[3, 3] = 7e4
    with pytest.raises(InputError, match=r"lm_head.weight holds 70000"):
        save_folder(model, tmp_path / "out", None, {}, dtype="float16")
    assert list(tmp_path.iterdir()) == []
    save_folder(model, tmp_path / "out", None, {})
    with pytest.raises(InputError, match=r"more than torch\.float16 can hold"):
        load_folder(tmp_path / "out", dtype=torch.float16)
    with pytest.raises(InputError, match="'int8': use one of float32"):
        save_folder(model, tmp_path / "out", None, {}, dtype="int8")


def test_a_failed_save_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    before = (folder / WEIGHTS).read_bytes()

    def broken(stage: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        save_folder(Decoder(TINY, seed=9), folder, broken, {})
    assert (folder / WEIGHTS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_loaded_model_does_not_need_its_file(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    model = load_folder(folder)
    before = logits(model)
    (folder / WEIGHTS).write_bytes(b"\0" * (folder / WEIGHTS).stat().st_size)
    assert torch.equal(logits(model), before)


def test_misfits_of_a_file_are_listed_together(tmp_path: Path) -> None:
    folder = saved(tmp_path)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.layers.1.input_layernorm.weight"]
        tensors["model.layers.2.input_layernorm.weight"] = torch.zeros(32)
        tensors["lm_head.weight"] = torch.zeros(61, 31)
        tensors["model.norm.weight"] = torch.zeros(32, dtype=torch.int64)

    rewrite(folder, spoil)
    with pytest.raises(InputError) as caught:
        load_folder(folder)
    text = str(caught.value)
    assert "missing (1): model.layers.1.input_layernorm.weight." in text
    assert "left over (1): model.layers.2.input_layernorm.weight." in text
    assert "wrong shape: lm_head.weight is [61, 31], expected [61, 32]." in text
    assert "model.norm.weight is I64, expected one of F64, F32, F16, BF16." in text
    assert str(folder) in text


def test_tied_file_with_another_head_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, OURS["llama-tied"])

    def repeat(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    rewrite(folder, repeat)
    assert torch.equal(logits(load_folder(folder)), logits(random_model(OURS["llama-tied"])))
    rewrite(folder, lambda tensors: tensors["lm_head.weight"][0].add_(1))
    with pytest.raises(InputError, match="output head differs"):
        load_folder(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: content[:40],
        lambda content: b"",
        lambda content: (2**40).to_bytes(8, "little") + content[8:],
        lambda content: content[:8] + b"!" + content[9:],
        lambda content: content + b"tail",
    ],
    ids=["cut-tail", "cut-header", "empty", "header-beyond-the-file", "not-json", "tail"],
)
def test_damaged_files_are_named(damage: Any, tmp_path: Path) -> None:
    path = saved(tmp_path) / WEIGHTS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=f"{WEIGHTS}: damaged or not a safetensors file"):
        load_folder(path.parent)


def sharded(tmp_path: Path) -> Path:
    """Our model as two shards with an index, written by safetensors."""
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    parts = {"a.safetensors": {}, "b.safetensors": {}}
    for number, (name, tensor) in enumerate(tensors.items()):
        parts["ab"[number % 2] + ".safetensors"][name] = tensor
    for file, part in parts.items():
        save_file(part, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def test_shards_equal_the_single_file(tmp_path: Path) -> None:
    assert torch.equal(logits(load_folder(sharded(tmp_path))), logits(random_model(TINY)))


@pytest.mark.parametrize(
    "outside", ["../b.safetensors", "/etc/b.safetensors", "..\\b.safetensors", "b.bin", 3]
)
def test_index_stays_inside_the_folder(outside: object, tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    shutil.copy(folder / "b.safetensors", tmp_path / "b.safetensors")  # it could be read
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = outside
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model\.norm\.weight points to .*not to a file of this"):
        load_folder(folder)


def test_faults_of_an_index_are_listed_together(tmp_path: Path) -> None:
    folder = sharded(tmp_path)
    index = json.loads((folder / INDEX).read_text())
    name = next(name for name, file in index["weight_map"].items() if file == "a.safetensors")
    index["weight_map"][name] = "b.safetensors"
    index["weight_map"]["ghost"] = "c.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError) as caught:
        load_folder(folder)
    assert f"{name} is not in b.safetensors." in str(caught.value)
    assert "names c.safetensors, which is not in the folder." in str(caught.value)
    (folder / INDEX).write_text("[]")
    with pytest.raises(InputError, match="weight_map"):
        load_folder(folder)


def test_folders_that_cannot_be_opened_say_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        load_folder(tmp_path / "absent")
    folder = saved(tmp_path)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match=rf"(?s)no weights.*{WEIGHTS} and {INDEX}.*config\.json"):
        load_folder(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, a pickle.*safetensors"):
        load_folder(folder)
    (folder / "pytorch_model.bin").unlink()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="an adapter, not a whole model"):
        load_folder(folder)


def test_folder_without_a_sound_configuration(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config\.json: expected a JSON object, got list"):
        load_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        load_folder(folder)
