"""Bases as they are published: their tokenizer's class, begin token, templates and end tokens."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import saved_foreign
from test_assemble_finetune import OPTIONS
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from yunque.assemble.convert import convert
from yunque.assemble.exams import questions_of, read_exam
from yunque.assemble.models import load
from yunque.assemble.origins import Finetuned
from yunque.assemble.runs import finetune
from yunque.config import DataConfig, Recipe
from yunque.data.chat_template import chat_template_of, conversing
from yunque.data.prepare import open_prepared, prepare
from yunque.data.tokenizer import load_tokenizer
from yunque.errors import InputError
from yunque.weights.transformers_model import load_transformers

QWEN2 = (  # as its tokenizer.json has it
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
ROWS = 264


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_settings(folder: Path, **changed: Any) -> None:
    """Change keys of tokenizer_config.json; None takes one out."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    settings |= changed
    kept = {key: value for key, value in settings.items() if value is not None}
    path.write_text(json.dumps(kept))


def qwen2(folder: Path, **settings: Any) -> Path:
    """A random Qwen2 model with Qwen2's pipeline on 256 bytes and one merge."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=ROWS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=257,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = {token: id for id, token in enumerate([*ALPHABET, "ab"])}
    backend = Backend(models.BPE(vocab=words, merges=[("a", "b")]))
    backend.normalizer = normalizers.NFC()
    pieces = pre_tokenizers.Split(Regex(QWEN2), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pieces, level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    backend.save(str(folder / "tokenizer.json"))
    end = "<|endoftext|>"
    write_settings(folder, tokenizer_class="Qwen2Tokenizer", eos_token=end, **settings)
    return folder


def llama(folder: Path, **settings: Any) -> Path:
    """A random Llama model whose tokenizer puts <s> before every text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=ROWS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=256,
        eos_token_id=257,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    backend = Backend(models.BPE(vocab={c: id for id, c in enumerate(ALPHABET)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    controls = [AddedToken(text, special=True, normalized=False) for text in ("<s>", "</s>")]
    backend.add_special_tokens(controls)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 256)]
    )
    backend.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    write_settings(folder, **{**named, "eos_token": "</s>", **settings})
    return folder


@pytest.fixture
def sums(tmp_path: Path) -> str:
    path = tmp_path / "sums.jsonl"
    lines = [{"question": f"¿{n} + 1?", "answer": f"Son {n + 1}."} for n in range(20)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(path)


def kind_of(folder: Path) -> str:
    return str(json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"])


def test_qwen2_is_tuned_in_full_merged_and_read_from_gguf(tmp_path: Path, sums: str) -> None:
    from transformers import AutoTokenizer

    base = qwen2(tmp_path / "base")
    options = {**OPTIONS, "steps": 2, "sample_tokens": 0}
    full = finetune(str(base), sums, tmp_path / "full", **options, method="full").run / "best"
    assert kind_of(full) == "Qwen2Tokenizer"
    text = "abba año 123\n\n ab"
    assert AutoTokenizer.from_pretrained(full)(text)["input_ids"] == load(full).tokenizer.encode(
        text
    )
    adapter = finetune(str(base), sums, tmp_path / "lora", **options, method="lora").run
    merged = convert(adapter, tmp_path / "merged", merge=True)
    assert merged.certificate.passed
    assert kind_of(merged.folder) == "Qwen2Tokenizer"
    pytest.importorskip("gguf")
    file = convert(base, tmp_path / "gguf", to="gguf").folder
    back = convert(file, tmp_path / "back", dtype="float32")
    assert back.certificate.passed
    assert kind_of(back.folder) == "Qwen2Tokenizer"


def test_what_would_be_kept_with_another_tokenizer_is_refused_at_once(
    tmp_path: Path, sums: str
) -> None:
    base = qwen2(tmp_path / "base")
    write_settings(base, tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(InputError, match="Qwen2's tokenizer only"):
        finetune(str(base), sums, tmp_path / "run", **OPTIONS, method="full")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def judge(folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer as transformers opens them."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def text_losses(model: Any, ids: list[int]) -> torch.Tensor:
    """What transformers makes of each token but the first, nats."""
    rows = torch.tensor([ids])
    with torch.no_grad():
        logits = model(rows).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, rows[0, 1:], reduction="none")


def test_a_model_reads_the_begin_token_that_its_tokenizer_adds(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    model, tokenizer = judge(base)
    ours = load(base, device="cpu")
    text = "Hola que tal"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 256
    assert ours.tokenizer.prompt_ids(text) == ids
    assert ours.tokenizer.prompt_ids("<s>" + text, special=True) == ids  # never twice
    rows = torch.tensor([ids])
    made = model.generate(rows, max_new_tokens=12, do_sample=False, pad_token_id=0)
    found = ours.generate(text, temperature=0.0, max_new_tokens=12).generation.token_ids[0]
    expected = made[0, len(ids) :].tolist()
    assert found == (expected[: expected.index(257)] if 257 in expected else expected)
    losses = text_losses(model, ids)
    views = ours.explain(text)
    assert [view.id for view in views] == ids
    assert [view.loss for view in views[1:]] == pytest.approx(losses.tolist(), abs=1e-4)
    (tmp_path / "a.txt").write_text(text)
    score = ours.evaluate(str(tmp_path / "a.txt"))
    assert (score.tokens, score.bytes) == (len(text), len(text))
    assert score.loss == pytest.approx(losses.mean().item(), abs=1e-4)


def test_documents_of_plain_text_begin_with_it(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    lines = [json.dumps({"text": f"texto {n} de prueba"}) for n in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    config = DataConfig(tokenizer=str(base))
    made = prepare([str(tmp_path / "a.jsonl")], config, tmp_path / "out")
    tokenizer, facts = load_tokenizer(base), made.facts
    for name, split in open_prepared(tmp_path / "out").splits.items():
        ids = split.read(0, split.length).tolist()
        documents = "".join("<s>" if id == 256 else chr(0) if id == 257 else "x" for id in ids)
        assert (
            documents.count("<s>") == documents.count(chr(0)) == facts["splits"][name]["documents"]
        )
        assert all(part.startswith("<s>x") for part in documents.split(chr(0)) if part)
        assert facts["splits"][name]["separators"] == 2 * facts["splits"][name]["documents"]
        assert facts["tokens"][name] == len(ids)
    text = sum(len(tokenizer.encode(json.loads(line)["text"])) for line in lines)
    assert sum(facts["tokens"].values()) == text + 2 * len(lines)
    again = prepare([str(tmp_path / "a.jsonl")], config, tmp_path / "out")
    assert again.facts["reused"]


def test_a_base_without_a_template_is_asked_alike_everywhere(tmp_path: Path, sums: str) -> None:
    base = llama(tmp_path / "base")
    ours = load(base, device="cpu")
    tuned = Finetuned(dataclasses.replace(Recipe(), base=str(base))).tokenizer
    assert tuned.chat_template == conversing(ours.tokenizer).chat_template
    messages = [{"role": "user", "content": "¿1 + 1?"}]
    said = chat_template_of(tuned).run(messages, add_generation_prompt=True)
    assert said == "<s>User: ¿1 + 1?\nAssistant:"
    (question, *_) = questions_of(read_exam(Path(sums)), ours.tokenizer)
    assert question.prompt[:2] == (256, ours.tokenizer.encode("User")[0])
    assert question.prompt.count(256) == 1
    record = {"messages": [*messages, {"role": "assistant", "content": "Dos."}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    model, tokenizer = judge(base)
    before = tokenizer("<s>User: ¿1 + 1?\nAssistant: ", add_special_tokens=False)["input_ids"]
    ids = tokenizer("<s>User: ¿1 + 1?\nAssistant: Dos.</s>", add_special_tokens=False)["input_ids"]
    score = ours.evaluate(str(tmp_path / "a.jsonl"))
    losses = text_losses(model, ids)[-score.tokens :]
    assert score.tokens in (len(ids) - len(before), len(ids) - len(before) + 1)
    assert score.loss == pytest.approx(losses.mean().item(), abs=1e-4)


def test_of_several_templates_the_default_one_is_taken(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    words = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": words}]
    base = llama(tmp_path / "base", chat_template=several)
    messages = [{"role": "user", "content": "hi"}]
    theirs = AutoTokenizer.from_pretrained(base).apply_chat_template(messages, tokenize=False)
    assert chat_template_of(load_tokenizer(base)).run(messages) == theirs == "[user]hi"
    write_settings(base, chat_template=several[:1])
    with pytest.raises(InputError, match="none is named 'default'"):
        load_tokenizer(base)
    write_settings(base, chat_template=[3])
    with pytest.raises(InputError, match="chat_template is a list of nothing"):
        load_tokenizer(base)
    write_settings(base, chat_template={"a": 1})
    with pytest.raises(InputError, match="chat_template is dict"):
        load_tokenizer(base)


def test_an_end_token_that_only_the_model_names_is_taken(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", eos_token=None)
    found = load_tokenizer(base)
    assert (found.separator, found.separator_id, found.vocab_size) == ("</s>", 257, 258)
    for path in ("config.json", "generation_config.json"):
        content = json.loads((base / path).read_text())
        (base / path).write_text(json.dumps({**content, "eos_token_id": 7}))
    # An ordinary letter: left from another model, and no end.
    assert load_tokenizer(base).separator == "<|endoftext|>"


def test_links_out_of_a_folder_are_refused_whoever_computes_the_model(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("{{ 'SECRET' }}")
    base = llama(tmp_path / "base")
    (base / "chat_template.jinja").symlink_to(outside / "secret")
    with pytest.raises(InputError, match=r"chat_template\.jinja is a link to"):
        load_tokenizer(base)
    neox = tmp_path / "neox"
    saved_foreign("gpt_neox", neox)
    (neox / "model.safetensors").rename(outside / "weights")
    (neox / "model.safetensors").symlink_to(outside / "weights")
    with pytest.raises(InputError, match=r"model\.safetensors is a link to"):
        load_transformers(neox)


def test_the_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    published = tmp_path / "published"
    saved_foreign("gpt_neox", published)
    llama(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (published / name).write_text((tmp_path / "base" / name).read_text())
    home = tmp_path / "models--owner--name"
    snapshot = home / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for number, path in enumerate(sorted(published.iterdir())):
        blob = home / "blobs" / str(number)
        path.rename(blob)
        (snapshot / path.name).symlink_to(blob)
    assert load_tokenizer(snapshot).begin_ids == (256,)
    assert load_transformers(snapshot).config.family == "gpt_neox"
