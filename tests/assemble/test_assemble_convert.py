"""Exports: good ones pass, each planted fault is caught and named; nothing bad is left."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import yunque
from yunque import cli
from yunque.assemble.convert import CHATS, TEXTS, probes, speaker_of
from yunque.assemble.models import load
from yunque.config import GenerateConfig, ModelConfig
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from yunque.errors import ExportError, InputError
from yunque.model.decoder import Decoder
from yunque.weights.certificate import Certificate, Prompt
from yunque.weights.export import read_back
from yunque.weights.folder import INDEX, WEIGHTS, load_folder, save_folder, stored_dtype
from yunque.weights.readback import tensors_of, transformers_speaker

TEXT = "\n".join(f"línea {n}: el herrero golpea {n * 13 % 17} veces, hello" for n in range(120))
END, BEGIN, PAD = "<|endoftext|>", "<s>", "<pad>"
LLAMA = ModelConfig(
    context_length=32,
    num_layers=2,
    num_heads=4,
    hidden_size=32,
    intermediate_size=48,
    qk_norm=False,
    tie_embeddings=False,
    dropout=0.0,
)
SHAPES = {
    "gpt2": dataclasses.replace(
        LLAMA, positions="learned", norm="layernorm", mlp="gelu", bias=True, qkv_bias=True
    ),
    "llama": LLAMA,
    "grouped": dataclasses.replace(LLAMA, num_kv_heads=2, rope_theta=500_000.0),
    "qwen3": dataclasses.replace(LLAMA, num_kv_heads=2, qk_norm=True, norm_eps=1e-6),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokenizer_of(kind: str) -> Tokenizer:
    """A trained tokenizer; "framed": begin token, padding and a chat template as well."""
    spec = "bpe:330" if kind in ("framed", "chat") else kind
    template = DEFAULT_CHAT_TEMPLATE if kind in ("framed", "chat") else None
    special = [*CHAT_TOKENS, BEGIN, PAD] if template else []
    made = train_tokenizer(spec, lambda: iter([TEXT]), END, special, template)
    if kind != "framed":
        return made
    pipeline = json.loads(made.backend.to_str())
    begin = made.backend.token_to_id(BEGIN)
    pipeline["post_processor"] = framing(begin, 1)
    named = {"bos_token": BEGIN, "pad_token": PAD}
    return Tokenizer(type(made.backend).from_str(json.dumps(pipeline)), END, template, named)


def framing(begin: int, times: int) -> dict[str, Any]:
    """The part of a tokenizer.json that puts a begin token before every text."""
    token = {"SpecialToken": {"id": BEGIN, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*[token] * times, text],
        "pair": [*[token] * times, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BEGIN: {"id": BEGIN, "ids": [begin], "tokens": [BEGIN]}},
    }


def random_model(shape: ModelConfig, vocab: int, tie: bool = False) -> Decoder:
    """Every weight random and wide, so that each one shows in the logits."""
    config = dataclasses.replace(shape, tie_embeddings=tie).resolved(vocab)
    model, generator = Decoder(config, seed=1).eval(), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.2, generator=generator)
    return model


def source_folder(folder: Path, shape: str, tokenizer: Tokenizer, tie: bool = False) -> Path:
    ids = {"eos_token_id": tokenizer.separator_id}
    model = random_model(SHAPES[shape], tokenizer.vocab_size, tie)
    save_folder(model, folder, tokenizer.save, ids)
    return folder


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: tokenizer_of(kind) for kind in ("framed", "chat", "char", "byte", "word")}


GOOD = [
    ("gpt2", True, "float32", "chat"),
    ("gpt2", False, "float32", "framed"),
    ("gpt2", True, "bfloat16", "char"),
    ("gpt2", False, "float16", "byte"),
    ("gpt2", True, "float16", "word"),
    ("llama", True, "float32", "framed"),
    ("llama", False, "float32", "char"),
    ("llama", False, "bfloat16", "chat"),
    ("llama", True, "float16", "framed"),
    ("llama", False, "float16", "word"),
    ("grouped", True, "float32", "byte"),
    ("grouped", False, "float32", "framed"),
    ("grouped", True, "bfloat16", "framed"),
    ("grouped", False, "bfloat16", "char"),
    ("grouped", False, "float16", "chat"),
    ("qwen3", True, "float32", "framed"),
    ("qwen3", False, "float32", "word"),
    ("qwen3", True, "bfloat16", "chat"),
    ("qwen3", False, "bfloat16", "byte"),
    ("qwen3", True, "float16", "char"),
]


@pytest.mark.parametrize(
    ("shape", "tie", "dtype", "kind"),
    [
        # Two thirds of them are slow tests, so that the others come quickly.
        pytest.param(*case, marks=[pytest.mark.slow] * (number % 3 > 0))
        for number, case in enumerate(GOOD)
    ],
)
def test_good_exports_pass(
    shape: str, tie: bool, dtype: str, kind: str, tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    source = source_folder(tmp_path / "source", shape, tokenizers[kind], tie)
    done = yunque.convert(source, tmp_path / "out", dtype=dtype, shard_size="20KB")
    assert done.certificate.passed
    assert done.certificate.figure("tensors") == 0.0
    assert len(done.certificate.checks) == 13
    written = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert written["passed"]
    assert written["read_back_by"].startswith("transformers ")
    ours = load_folder(tmp_path / "out").state_dict()
    for name, tensor in load_folder(source).state_dict().items():
        assert torch.equal(ours[name], tensor.to(getattr(torch, dtype)).float()), name
    assert (tmp_path / "out" / INDEX).exists()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tokenizers: dict[str, Tokenizer]) -> Path:
    """A folder with source/ and its good export out/: a Llama shape with everything named."""
    base = tmp_path_factory.mktemp("exported")
    source_folder(base / "source", "llama", tokenizers["framed"])
    yunque.convert(base / "source", base / "out")
    return base


def certificate(source: Path, export: Path, chats: Sequence[Prompt] = CHATS) -> Certificate:
    """Read an export back as `convert` does."""
    model = load(source, device="cpu")
    module = model.module
    speaker = speaker_of(model, lambda: tensors_of(module))
    prompts = [*map(Prompt, TEXTS), *chats]
    asked = probes(model.tokenizer)
    return read_back(speaker, prompts, asked, "transformers", lambda: transformers_speaker(export))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def begin_id(folder: Path) -> int:
    return int(json.loads((folder / "config.json").read_text())["bos_token_id"])


def begin_missing(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda t: t.update(post_processor=None))


def begin_twice(folder: Path) -> None:
    twice = framing(begin_id(folder), 2)
    edit(folder / "tokenizer.json", lambda t: t.update(post_processor=twice))


def wrong_end(folder: Path) -> None:
    edit(folder / "generation_config.json", lambda g: g.update(eos_token_id=5))


def template_newline(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    edit(path, lambda t: t.update(chat_template=t["chat_template"].replace("]}}", "] }}\n", 1)))
    edit(path, lambda t: t.update(chat_template=t["chat_template"] + "{{ '\\n' }}"))


def pad_is_end(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda t: t.update(pad_token=END))


def padded_vocabulary(folder: Path) -> None:
    def pad(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = torch.cat((tensors[name], torch.zeros(7, 32)))

    edit_tensors(folder, pad)
    edit(folder / "config.json", lambda c: c.update(vocab_size=c["vocab_size"] + 7))


def head_lost(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))


def head_tied(folder: Path) -> None:
    head_lost(folder)
    edit(folder / "config.json", lambda c: c.update(tie_word_embeddings=True))


def rope_base(folder: Path) -> None:
    edit(folder / "config.json", lambda c: c.update(rope_theta=20_000.0))


def merge_base(folder: Path) -> None:
    def other(tensors: dict[str, torch.Tensor]) -> None:
        generator = torch.Generator().manual_seed(9)
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = torch.randn(tensors[name].shape, generator=generator) * 0.2

    edit_tensors(folder, other)


def lora_alpha(folder: Path) -> None:
    def twice(tensors: dict[str, torch.Tensor]) -> None:
        # The source holds W + BA; with alpha taken twice it would be W + 2 BA.
        generator = torch.Generator().manual_seed(9)
        up = torch.randn(32, 2, generator=generator)
        down = torch.randn(2, 32, generator=generator)
        tensors["model.layers.0.self_attn.v_proj.weight"] += up @ down * 0.01

    edit_tensors(folder, twice)


def swapped(folder: Path) -> None:
    def swap(tensors: dict[str, torch.Tensor]) -> None:
        q, k = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qk")
        tensors[q], tensors[k] = tensors[k], tensors[q]

    edit_tensors(folder, swap)


def overflow(folder: Path) -> None:
    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        big = tensors["model.layers.1.mlp.down_proj.weight"]
        big[3, 4] = 7e4
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})

    edit_tensors(folder, narrow)
    edit(folder / "config.json", lambda c: c.update(torch_dtype="float16"))


def stale_tokenizer(folder: Path) -> None:
    def reorder(content: dict[str, Any]) -> None:
        merges = content["model"]["merges"]
        merges[:20] = merges[19::-1]

    edit(folder / "tokenizer.json", reorder)


WEIGHTS_FAIL = {"tensors", "logits", "kl", "greedy"}
FAULTS: list[tuple[Callable[[Path], None], set[str], str]] = [
    (begin_missing, {"prompt_ids"}, r"the beginning token '<s>' \(\d+\) is missing"),
    (begin_twice, {"prompt_ids"}, r"the beginning token '<s>' \(\d+\) stands twice"),
    (wrong_end, {"ends"}, r"the end ids are \[0, 5\], expected \[0\]"),
    (template_newline, {"chat_ids"}, r"'Ċ' \(\d+\) was added at the end"),
    (pad_is_end, {"pad"}, "the token 0 is both padding and an end"),
    (padded_vocabulary, {"shape", "tensors", "logits", "kl"}, r"vocab_size is \d+, expected \d+"),
    (head_lost, {"reader", *WEIGHTS_FAIL}, "missing keys: lm_head.weight"),
    (head_tied, {"shape", *WEIGHTS_FAIL}, "tie_embeddings is True, expected False"),
    (rope_base, {"shape", "logits", "kl", "greedy"}, "rope_theta is 20000.0, expected 10000.0"),
    (merge_base, WEIGHTS_FAIL, r"model\.layers\.1\.mlp\.up_proj\.weight differs by"),
    (lora_alpha, WEIGHTS_FAIL, r"model\.layers\.0\.self_attn\.v_proj\.weight differs by"),
    (swapped, WEIGHTS_FAIL, r"0\.self_attn\.q_proj.*\(it holds model\.layers\.0\.self_attn\.k_pr"),
    (overflow, {"finite", *WEIGHTS_FAIL}, r"layers\.1\.mlp\.down_proj\.weight holds 1 infinite"),
    (stale_tokenizer, {"prompt_ids"}, r"token \d+ is '.+' \(\d+\), expected '.+'"),
]


@pytest.mark.parametrize(
    ("plant", "failed", "words"), FAULTS, ids=[plant.__name__ for plant, _, _ in FAULTS]
)
def test_planted_faults_are_caught_and_named(
    plant: Callable[[Path], None], failed: set[str], words: str, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(exported / "out", folder)
    plant(folder)
    found = certificate(exported / "source", folder)
    assert {check.id for check in found.failed} == failed, found.differences()
    assert re.search(words, found.differences()), found.differences()


def test_the_good_export_passes_read_back_again(exported: Path) -> None:
    found = certificate(exported / "source", exported / "out")
    assert found.passed, found.differences()
    assert found.figure("logits") is not None


def test_an_export_that_differs_is_not_kept(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def spoiled(folder: Path) -> Any:
        rope_base(folder)
        return transformers_speaker(folder)

    monkeypatch.setattr("yunque.weights.export.transformers_speaker", spoiled)
    out = tmp_path / "out"
    assert cli.main(["convert", str(exported / "source"), str(out), "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]["message"]
    assert "rope_theta is 20000.0, expected 10000.0" in error
    assert str(tmp_path / "out.failed.json") in error
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed.json"]
    kept = json.loads((tmp_path / "out.failed.json").read_text())
    assert not kept["passed"]
    assert [check["id"] for check in kept["checks"] if not check["passed"]] == [
        "shape",
        "logits",
        "kl",
        "greedy",
    ]


def test_an_export_that_cannot_be_opened_is_not_kept(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(folder: Path) -> Any:
        path = folder / WEIGHTS
        path.write_bytes(path.read_bytes()[:-9])
        return transformers_speaker(folder)

    monkeypatch.setattr("yunque.weights.export.transformers_speaker", torn)
    with pytest.raises(ExportError, match="reader: it cannot be opened"):
        yunque.convert(exported / "source", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed.json"]


def test_the_verb_says_one_line_and_gives_json(exported: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["convert", str(exported / "source"), str(tmp_path / "a"), "--lang", "es"]
    assert cli.main(words) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line.startswith("Escrito y releído por transformers 5")
    assert "## Lo que no se sabe" in (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a" / "certificate.json").read_text())["passed"]


def test_settings_and_folders_that_cannot_be_used(exported: Path, tmp_path: Path) -> None:
    source = exported / "source"
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("mine")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"out": kept}, "not empty"),
        ({"out": kept / "mine.txt"}, "a file stands there"),
        ({"out": tmp_path / "m.gguf", "to": "gguf"}, "OUT is a folder"),
        ({"to": "onnx"}, "onnx"),
        ({"dtype": "q8_0"}, "for hf use one of float32, bfloat16, float16"),
        ({"to": "gguf", "shard_size": "1GB"}, "a GGUF file is one file"),
        ({"shard_size": "lots"}, "write it as 500MB"),
        ({"merge": True}, "not an adapter"),
        ({"model": tmp_path / "none"}, "no such folder"),
        ({"model": tmp_path / "none.gguf"}, "no such file"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            yunque.convert(**{"model": source, "out": tmp_path / "out", **options})
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert [path.name for path in kept.iterdir()] == ["mine.txt"]


def test_weights_too_large_for_the_format_are_refused(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    shutil.copytree(exported / "source", folder)
    edit_tensors(folder, lambda tensors: tensors["model.norm.weight"].fill_(7e4))
    with pytest.raises(InputError, match=r"holds 70000, more than torch.float16 can hold"):
        yunque.convert(folder, tmp_path / "out", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def run_folder(folder: Path, tokenizer: Tokenizer) -> None:
    """The files of a run that a card is made of, with numbers of their own."""
    source_folder(folder / "best", "llama", tokenizer)
    (folder / "recipe.toml").write_text('sources = ["/somewhere/book.txt"]\n[machine]\nseed = 7\n')
    row: dict[str, Any] = {"epoch": 0.0, "tokens_seen": 640, "seconds": 12.0}
    rows = [
        {"event": "eval", "step": 0, **row, "train_loss": 5.0, "val_loss": 5.1},
        {"event": "eval", "step": 10, **row, "train_loss": 2.0, "val_loss": 2.5},
        {"event": "exam", "step": 10, **row, "right": 3, "total": 8, "kinds": {}},
        {"event": "eval", "step": 20, **row, "train_loss": 1.0, "val_loss": 2.75},
        {"event": "stop", "step": 20, **row, "reason": "steps"},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {"documents": 4, "tokens": {"train": 1234, "val": 56}}
    record = {"sources": [{"name": "book.txt"}], "fingerprint": "ab12", "facts": facts}
    (folder / "data").mkdir()
    (folder / "data" / "data.json").write_text(json.dumps(record))
    text = {"en": "It learnt.", "es": "Aprendió."}
    unknown = [{"id": "x", "text": {"en": "Its manners.", "es": "Sus modales."}}]
    report = {"verdict": {"id": "x", "text": text}, "unknown": unknown}
    (folder / "report.json").write_text(json.dumps(report))


def test_the_card_of_a_run_says_what_its_files_say(
    tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    run_folder(tmp_path / "run", tokenizers["char"])
    yunque.convert(tmp_path / "run", tmp_path / "mine")
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    assert 'license: "unknown"' in card
    assert "base_model" not in card
    assert "somewhere" not in card  # the folders of the one who trained it are nobody's business
    for words in (
        "Trained from scratch",
        "Sources: book.txt.",
        "Documents: 4; tokens for training: 1,234; for validation: 56.",
        "`ab12`",
        "Updates: 20; tokens seen: 640;",
        "seed: 7.",
        "Validation loss 2.5000 nats per token (perplexity 12.18), training loss 2.0000, at "
        "update 10",
        "Exam: 3 of 8 answers right at update 10.",
        "It learnt.",
        "- Its manners.",
        "- Under which licence",
    ):
        assert words in card, words


def test_the_card_of_a_converted_model_names_its_base(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "their-model"
    shutil.copytree(exported / "source", folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Theirs\n")
    yunque.convert(folder, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert 'base_model: "their-model"\nlicense: "apache-2.0"\n---' in card
    assert "without further training" in card
    assert "- What it was trained on, how long, and with what losses" in card
    assert "licence it may be used" not in card


def test_the_number_format_is_that_of_the_source(exported: Path, tmp_path: Path) -> None:
    yunque.convert(exported / "source", tmp_path / "half", dtype="bfloat16")
    assert stored_dtype(tmp_path / "half") == "bfloat16"
    assert stored_dtype(exported / "source") == "float32"


def test_a_model_pretrained_here_goes_into_a_gguf_file(tmp_path: Path) -> None:
    """With the tokenizer that is there for it; one that llama.cpp cannot hold is named."""
    gguf = pytest.importorskip("gguf")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    settings: dict[str, Any] = {
        "context_length": 16, "num_layers": 1, "num_heads": 2, "hidden_size": 16,
        "qk_norm": False, "batch_size": 2, "steps": 2, "eval_every": 2, "threads": 1,
        "device": "cpu", "precision": "fp32",
    }  # fmt: skip
    for spec in ("bpe-gpt2:330", "byte"):
        out = tmp_path / spec.split(":")[0]
        yunque.pretrain(str(tmp_path / "text.txt"), out, tokenizer=spec, **settings)
    done = yunque.convert(tmp_path / "bpe-gpt2", tmp_path / "out", to="gguf")
    assert done.certificate.passed
    assert done.certificate.figure("tensors") == 0.0
    read = gguf.GGUFReader(tmp_path / "out" / "model-f32.gguf")
    assert read.get_field("tokenizer.ggml.pre").contents() == "gpt-2"
    ours = load(tmp_path / "bpe-gpt2").decoder.token_embedding.weight
    theirs = next(one for one in read.tensors if one.name == "token_embd.weight")
    assert torch.equal(torch.from_numpy(theirs.data.copy()), ours.detach())
    with pytest.raises(InputError, match=r"Train with such a tokenizer .*bpe-gpt2:4096"):
        yunque.convert(tmp_path / "byte", tmp_path / "no", to="gguf")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_llama_cpp_writes_what_a_model_pretrained_here_writes(family: str, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    old: dict[str, Any] = {"positions": "learned", "norm": "layernorm", "mlp": "gelu", "bias": True}
    yunque.pretrain(
        str(tmp_path / "text.txt"), tmp_path / "run", tokenizer="bpe-gpt2:400", steps=60,
        learning_rate=5e-3, context_length=48, num_layers=2, num_heads=2, hidden_size=64,
        qk_norm=False, batch_size=8, eval_every=60, threads=1, device="cpu", precision="fp32",
        **(old | {"qkv_bias": True} if family == "gpt2" else {}),
    )  # fmt: skip
    yunque.convert(tmp_path / "run", tmp_path / "out", to="gguf")
    model = load(tmp_path / "run", device="cpu")
    assert model.module.config.family == family
    program = llama_cpp.Llama(
        str(tmp_path / "out" / "model-f32.gguf"), n_ctx=48, n_batch=48, n_threads=1, verbose=False
    )
    for text in (*TEXTS, " línea", "línea 7: el herrero  golpea", "ñ", "\n\n", "<|endoftext|>x"):
        ids = model.tokenizer.encode(text)
        assert program.tokenize(text.encode(), add_bos=False, special=False) == ids, text
    for prompt in ("línea 7: el", "línea", " "):
        ours = model.generate(prompt, temperature=0.0, max_new_tokens=30).texts[0]
        answer = program.create_completion(prompt, temperature=0.0, max_tokens=30, repeat_penalty=1)
        assert answer["choices"][0]["text"] == ours
        assert len(ours) > 20


def gpt2_like(tokenizer: Tokenizer) -> Tokenizer:
    """The same vocabulary, its text split as GPT-2 does, which llama.cpp knows."""
    pipeline = json.loads(tokenizer.backend.to_str())
    pipeline["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    backend = type(tokenizer.backend).from_str(json.dumps(pipeline))
    named = tokenizer.named_tokens
    return Tokenizer(backend, tokenizer.separator, tokenizer.chat_template, named)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "tie"),
    [("llama", "q8_0", "framed", False), ("gpt2", "float16", "chat", True)],
)
def test_good_gguf_exports_pass(
    shape: str, dtype: str, kind: str, tie: bool, tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    source = source_folder(tmp_path / "source", shape, gpt2_like(tokenizers[kind]), tie)
    done = yunque.convert(source, tmp_path / "out", to="gguf", dtype=dtype)
    assert done.certificate.passed
    assert done.certificate.figure("tensors") == 0.0
    assert "library_name: gguf" in (tmp_path / "out" / "README.md").read_text()
    name = {"q8_0": "model-q8_0.gguf", "float16": "model-f16.gguf"}[dtype]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {name, "README.md", "certificate.json"}


def test_a_gguf_file_of_other_weights_is_not_kept(
    tokenizers: dict[str, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    from yunque.weights import gguf

    source = source_folder(tmp_path / "source", "llama", gpt2_like(tokenizers["framed"]))
    save = gguf.save_gguf

    def swapped_heads(model: Decoder, *others: Any) -> None:
        other = Decoder(model.config)
        other.load_state_dict(model.state_dict())
        attention = other.blocks[0].attention
        attention.q_proj.weight, attention.k_proj.weight = (
            attention.k_proj.weight,
            attention.q_proj.weight,
        )
        save(other, *others)

    monkeypatch.setattr(gguf, "save_gguf", swapped_heads)
    with pytest.raises(ExportError, match=r"0\.attention\.q_proj\.weight differs by"):
        yunque.convert(source, tmp_path / "out", to="gguf", dtype="q8_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.failed.json", "source"]


@pytest.mark.parametrize(("to", "dtype"), [("hf", "bfloat16"), ("gguf", "q8_0")])
def test_a_rounded_export_says_how_far_it_is_from_the_source(
    to: str, dtype: str, tokenizers: dict[str, Tokenizer], tmp_path: Path, capsys: Any
) -> None:
    if to == "gguf":
        pytest.importorskip("gguf")
    source = source_folder(tmp_path / "source", "llama", gpt2_like(tokenizers["framed"]))
    out = tmp_path / "out"
    before, words = load(source, device="cpu"), ["convert", str(source), str(out), "--to", to]
    assert cli.main([*words, "--dtype", dtype]) == 0
    line = capsys.readouterr().out
    after = load(out, device="cpu")
    found = json.loads((out / "certificate.json").read_text())
    figures = {check["id"]: check["figure"] for check in found["checks"]}
    assert figures["tensors"] == 0.0  # what was to be written is what is there

    asked = [speaker_of(before, lambda: iter([])).ids(p) for p in (*map(Prompt, TEXTS), *CHATS)]
    rows = list(dict.fromkeys(tuple(ids[: 32 - 16]) for ids in asked if ids))
    largest, divergences, same = 0.0, [], 0
    with torch.no_grad():
        for ids in rows:
            ours, theirs = (one.module(torch.tensor([ids]))[0] for one in (before, after))
            ours, theirs = before.module.head(ours), after.module.head(theirs)
            largest = max(largest, (ours - theirs).abs().max().item())
            same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            p, q = ours.double().softmax(-1), theirs.double().softmax(-1)
            divergences += (p * (p / q).log()).sum(-1).tolist()
    assert largest > 1e-3
    rounding = found["rounding"]
    assert rounding["logits"] == pytest.approx(largest, abs=2e-5)
    assert rounding["kl"] == pytest.approx(max(divergences), rel=0.02)
    assert rounding["mean_kl"] == pytest.approx(sum(divergences) / len(divergences), rel=0.02)
    assert rounding["positions"] == len(divergences)
    assert abs(rounding["same_positions"] - same) <= 1
    written = [
        [
            one.continued(row, GenerateConfig(max_new_tokens=16, temperature=0.0)).token_ids
            for row in (*rows[:2], *rows[-2:])
        ]
        for one in (before, after)
    ]
    equal = sum(ours == theirs for ours, theirs in zip(*written, strict=True))
    assert (rounding["texts"], rounding["same_texts"]) == (4, equal)

    assert "same model" not in line
    assert f"holds exactly the model rounded to {dtype}" in line
    card = (out / "README.md").read_text(encoding="utf-8")
    for text in (line, card):
        assert f"a logit differs by up to {largest:.1e}" in text
        assert f"{equal} of 4 greedy texts" in text
    assert "not exactly the model it came from" in card


def test_the_same_model_is_said_where_nothing_was_rounded(
    exported: Path, tmp_path: Path, capsys: Any
) -> None:
    yunque.convert(exported / "source", tmp_path / "half", dtype="bfloat16")
    for source, dtype in (("half", "bfloat16"), ("half", "float32")):
        out = tmp_path / dtype
        words = ["convert", str(tmp_path / source), str(out), "--dtype", dtype, "--lang", "es"]
        assert cli.main(words) == 0
        assert "es el mismo modelo" in capsys.readouterr().out
        assert json.loads((out / "certificate.json").read_text())["rounding"] is None
        assert "redondearon" not in (out / "README.md").read_text(encoding="utf-8")


UNUSABLE = {
    "endless": (
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "stopped, it ",
    ),
    "torn": ("{% for m in messages %}{{ m.contnt }", "line 1: "),
    "swapped": (
        "{% for m in messages %}{% if m['role'] == 'user' %}A: {{ m['content'] }}\n"
        "{% else %}U: {{ m['content'] }}<|endoftext|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}A: {% endif %}",
        "it swaps the roles",
    ),
    "late": (  # endless only where there is a system message, so that a first look is content
        "{% for m in messages %}{% if m['role'] == 'system' %}{% for i in range(99999) %}"
        "{% for j in range(99999) %}x{% endfor %}{% endfor %}{% endif %}"
        "<|{{ m['role'] }}|>{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "stopped, it ",
    ),
}


@pytest.mark.parametrize("kind", list(UNUSABLE))
def test_a_template_that_cannot_be_used_is_told_and_never_run_without_limits(
    kind: str,
    tokenizers: dict[str, Tokenizer],
    tmp_path: Path,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yunque.data.sandbox.SECONDS", 0.2)
    template, reason = UNUSABLE[kind]
    source = source_folder(tmp_path / "source", "llama", tokenizers["chat"])
    edit(source / "tokenizer_config.json", lambda t: t.update(chat_template=template))
    assert cli.main(["convert", str(source), str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("There is no usable chat template")
    found = json.loads((tmp_path / "out" / "certificate.json").read_text())
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert found["chat_template"]["state"] == "unusable"
    chats = next(check for check in found["checks"] if check["id"] == "chat_ids")
    for text in (lines[1], card, found["chat_template"]["fault"], chats["detail"]):
        assert reason in text
    assert "the same token ids for prompts, " in card
    kept = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert kept["chat_template"] == template

    edit(tmp_path / "out" / "tokenizer_config.json", lambda t: t.update(chat_template="other"))
    if kind != "swapped":  # whose conversations are compared as well
        failed = certificate(source, tmp_path / "out", chats=()).failed
        assert [(check.id, check.detail) for check in failed] == [
            ("chat_ids", "the chat template is another one")
        ]


def test_a_model_without_a_template_claims_no_conversations(
    tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    source = source_folder(tmp_path / "source", "llama", tokenizers["char"])
    assert yunque.convert(source, tmp_path / "out").certificate.template == "none"
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "There is no chat template: conversations are not certified." in card
    assert "the same token ids for prompts, " in card


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("to", ["hf", "gguf"])
def test_weights_that_are_no_numbers_are_named(
    value: float, to: str, tokenizers: dict[str, Tokenizer], tmp_path: Path, capsys: Any
) -> None:
    name, file = "model.layers.1.mlp.down_proj.weight", WEIGHTS
    source = source_folder(tmp_path / "source", "llama", gpt2_like(tokenizers["framed"]))
    if to == "gguf":
        pytest.importorskip("gguf")
        from yunque.weights.gguf import save_gguf

        broken = load(source, device="cpu").decoder
        with torch.no_grad():
            broken.blocks[1].mlp.down_proj.weight[0, 0] = value
        save_gguf(broken, tmp_path / "m.gguf", source, "f32")
        source, name, file = tmp_path / "m.gguf", "blk.1.ffn_down.weight", "m.gguf"
    else:
        edit_tensors(source, lambda tensors: tensors[name][0].fill_(value))
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    for words in (
        ["generate", str(source), "--prompt", "hello"],
        ["generate", str(source), "--prompt", "hello", "--beams", "2", "--temperature", "0"],
        ["evaluate", str(source), str(tmp_path / "text.txt")],
        ["explain", str(source), "--text", "hello hello"],
        ["convert", str(source), str(tmp_path / "out")],
    ):
        assert cli.main(words) == 2, words
        told = capsys.readouterr().err
        assert f"{file}: the tensor {name} holds numbers that are not finite" in told, words
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_with_a_program_of_its_own_is_refused(
    tokenizers: dict[str, Tokenizer], tmp_path: Path
) -> None:
    source = source_folder(tmp_path / "source", "llama", tokenizers["char"])
    named = {"AutoTokenizer": ["evil.Tokenizer", None]}
    edit(source / "tokenizer_config.json", lambda t: t.update(auto_map=named))
    for path in (source, source / "tokenizer.json"):
        with pytest.raises(InputError, match=r"tokenizer_config\.json: auto_map: .* runs none"):
            load_tokenizer(path)
    with pytest.raises(InputError, match="auto_map"):
        yunque.convert(source, tmp_path / "out")


def test_what_a_model_writes_cannot_steer_a_terminal(
    tokenizers: dict[str, Tokenizer], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_folder(tmp_path / "source", "llama", tokenizers["char"])
    words = ["generate", str(source), "--prompt", "a\x1b[2J\tb\nc", "--max-new-tokens", "2"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith("a\x1b[2J\tb\nc")  # a file gets what was written
    for samples in ("1", "2"):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        assert cli.main([*words, "--samples", samples]) == 0
        assert "a␛[2J\tb\nc" in capsys.readouterr().out
