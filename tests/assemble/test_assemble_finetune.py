"""Fine-tuning on the one loop: what is trained and kept, exactness, exams against the base."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import CONTEXT, VOCAB, saved_foreign
from safetensors.torch import load_file, save_file
from test_assemble_runs import StopAt, assert_same_bits, rows, tensors

from yunque.assemble import demo, exams, runs
from yunque.assemble.convert import convert
from yunque.assemble.models import load
from yunque.assemble.recipes import finetune_recipe
from yunque.assemble.runs import finetune, pretrain, resume
from yunque.assemble.sources import prepare
from yunque.cli import main
from yunque.config import TUTOR
from yunque.data import tutor
from yunque.data.alignment import render
from yunque.data.batches import Batches
from yunque.data.chat_template import chat_template_of
from yunque.data.conversations import Message
from yunque.data.prepare import open_prepared
from yunque.data.rendered import encode_rendered
from yunque.data.tokenizer import train_tokenizer
from yunque.errors import InputError, OutOfMemory
from yunque.model import decoder
from yunque.screen import SilentScreen

OPTIONS: dict[str, Any] = {
    "steps": 6,
    "epochs": 0.0,
    "eval_every": 2,
    "batch_size": 4,
    "micro_batch_size": 2,
    "learning_rate": 1e-2,
    "rank": 2,
    "sample_tokens": 4,
    "early_stopping": False,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
}


def talk(n: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"¿{n} + 1?"},
        {"role": "assistant", "content": f"Son {n + 1}."},
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a few updates on other sums, with a chat template."""
    folder = tmp_path_factory.mktemp("base")
    lines = [json.dumps({"messages": talk(n)}) for n in range(100, 130)]
    (folder / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shape = {"context_length": 64, "num_layers": 2, "num_heads": 2, "hidden_size": 16}
    made = pretrain(
        str(folder / "chats.jsonl"),
        folder / "run",
        **shape,
        **{name: OPTIONS[name] for name in ("threads", "device", "precision", "sample_tokens")},
        tokenizer="byte",
        steps=4,
        eval_every=4,
        batch_size=4,
        warmup_steps=1,
    )
    return made.run / "best"


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    lines = [json.dumps({"messages": talk(n)}) for n in range(24)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    path = tmp_path / "exam.jsonl"
    lines = [json.dumps({"question": f"¿{n} + 1?", "answer": str(n + 1)}) for n in range(40, 46)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def logits_of(folder: Path, ids: list[int]) -> torch.Tensor:
    model = load(folder, device="cpu").module
    with torch.no_grad():
        return model.head(model(torch.tensor([ids])))[0]


def test_a_lora_run_leaves_an_adapter_that_peft_opens(
    base: Path, chats: Path, tmp_path: Path
) -> None:
    import peft
    import transformers

    before = {path.name: path.read_bytes() for path in base.iterdir()}
    done = finetune(base, str(chats), tmp_path / "run", **OPTIONS)
    assert (done.reason, done.steps) == ("steps", 6)
    best = done.run / "best"
    assert {path.name for path in best.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    twin = transformers.AutoModelForCausalLM.from_pretrained(base)
    theirs = peft.PeftModel.from_pretrained(twin, done.run / "last").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(best)
    ids = tokenizer("¿4 + 1?")["input_ids"]
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits_of(done.run / "last", ids), expected, rtol=0, atol=1e-5)
    assert (logits_of(base, ids) - expected).abs().max() > 1e-3
    # Only the adapter was trained and is kept; the recipe says what it was trained on.
    names = tensors(done.run, 6, "model").keys()
    assert names
    assert all(".lora_" in name for name in names)
    recipe = tomllib.loads((done.run / "recipe.toml").read_text(encoding="utf-8"))
    assert (recipe["base"], recipe["data"]["packing"]) == (str(base), "on")
    assert recipe["data"]["max_length"] == 64
    (start,) = rows(done.run, "start")
    stored = sum(
        tensor.numel() for tensor in load_file(best / "adapter_model.safetensors").values()
    )
    assert start["parameters"]["adapter"] == stored


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [("lora", "adamw"), ("qlora", "adamw"), ("full", "adamw"), ("full", "adamw8bit")],
)
@pytest.mark.parametrize("stop", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_stopped_and_resumed_equals_never_stopped_bit_for_bit(
    method: str,
    optimizer: str,
    stop: int,
    base: Path,
    chats: Path,
    exam: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if method == "qlora" or "8bit" in optimizer:
        pytest.importorskip("bitsandbytes")
    options = {
        **OPTIONS,
        "method": method,
        "optimizer": optimizer,
        "lora_dropout": 0.0 if method == "full" else 0.2,
    }
    options |= {"exam": str(exam), "quantize_bits": 8}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finetune(base, str(chats), whole, **options)
    with monkeypatch.context() as patch:
        halted = finetune(base, str(chats), parts, screen=StopAt(stop, patch), **options)
    assert (halted.reason, halted.steps) == ("interrupted", stop)
    assert resume(parts).reason == "steps"
    for name in ("model", "optimizer"):
        assert_same_bits(tensors(whole, 6, name), tensors(parts, 6, name))
    in_8_bits = [t for t in tensors(whole, 6, "optimizer").values() if t.dtype == torch.uint8]
    assert bool(in_8_bits) == ("8bit" in optimizer)
    for event in ("start", "step", "eval", "sample", "exam", "stop"):
        ours = [{**row, "run": ""} for row in rows(parts, event)]
        assert [{**row, "run": ""} for row in rows(whole, event)] == ours, event
    weights = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    for name in ("best", "last"):
        assert (whole / name / weights).read_bytes() == (parts / name / weights).read_bytes()


def test_a_base_that_changed_meanwhile_is_noticed(
    base: Path, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        finetune("copy", str(chats), tmp_path / "run", screen=StopAt(3, patch), **OPTIONS)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    kept = bytes(content)
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    monkeypatch.chdir(base)
    with pytest.raises(InputError, match=r"step-00000003: changed since .*\n.*base: "):
        resume(tmp_path / "run")
    weights.write_bytes(kept)
    assert resume(tmp_path / "run").reason == "steps"


def test_the_first_loss_is_that_of_the_assistants_words(
    base: Path, chats: Path, tmp_path: Path
) -> None:
    """One batch with every conversation, against the same sum by transformers."""
    import transformers

    options = {**OPTIONS, "steps": 1, "val": 0.0, "batch_size": 24, "micro_batch_size": 6}
    done = finetune(base, str(chats), tmp_path / "run", **{**options, "packing": "off"})
    (step,) = rows(done.run, "step")
    tokenizer = load(base, device="cpu").tokenizer
    template = chat_template_of(tokenizer)
    ids: list[int] = []
    carries: list[int] = []
    for n in range(24):
        messages = [Message(**message) for message in talk(n)]  # type: ignore[arg-type]
        row, mask = encode_rendered(tokenizer, render(messages, template))
        ids += row.tolist()
        carries += mask.tolist()
    assert tokenizer.decode([id for id, one in zip(ids, carries, strict=True) if one]).startswith(
        "Son 1.Son 2."
    )
    (start,) = rows(done.run, "start")
    facts = open_prepared(done.run / "data").facts["splits"]["train"]
    assert (facts["tokens"], facts["masked"]) == (len(ids), len(ids) - sum(carries))
    twin = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    # Windows of 64 over the stream of all conversations, from the phase that the seed gives.
    batches = Batches(open_prepared(done.run / "data").splits["train"], 64, 24, 64, seed=1)
    batch = batches.batch(0)
    with torch.no_grad():
        logits = twin(batch.inputs).logits
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), batch.targets, ignore_index=-100, reduction="sum"
    )
    count = int((batch.targets != -100).sum())
    assert 0 < count < batch.targets.numel()
    assert step["train_loss"] == pytest.approx(losses.item() / count, abs=1e-5)
    assert start["windows"] == batches.windows


def test_the_base_sits_the_exam_first_and_the_change_is_told(
    base: Path, chats: Path, exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = iter([["41."] * 6, ["41."] * 6, ["0."] * 6, ["41.", "42.", *["0."] * 4]])
    counted: list[int] = []

    def asked(module: Any, tokenizer: Any, ends: Any, items: Any, **_: Any) -> Any:
        counted.append(len(items))
        return exams.marked(exams.questions_of(items, tokenizer), next(replies))

    monkeypatch.setattr(exams, "sit_exam", asked)
    options = {**OPTIONS, "exam": str(exam), "watch": "exam", "early_stopping": True}
    done = finetune(base, str(chats), tmp_path / "run", **options)
    first, second, third, last = rows(done.run, "exam")
    assert (first["step"], first["right"], first["total"]) == (0, 1, 6)
    assert "lost" not in first
    assert (second["lost"], second["gained"], second["verdict"]) == (0, 0, "no different")
    assert (third["lost"], third["gained"], third["p_value"]) == (1, 0, 1.0)
    assert (last["right"], last["gained"]) == (2, 1)
    # The best model is that of the best exam; the losses are those of its evaluation.
    assert done.best_step == 6
    assert done.exam == {"base": first, "last": last, "best": last} | {
        name: {**row, "seconds": done.exam[name]["seconds"]}  # type: ignore[index]
        for name, row in (("base", first), ("last", last), ("best", last))
    }
    evals = {row["step"]: row for row in rows(done.run, "eval")}
    assert done.best_loss == evals[6]["val_loss"]
    assert all(0 < row["general_loss"] < 20 for row in evals.values())
    kept = [json.loads(line) for line in (done.run / "exam/step-00000004.jsonl").open()]
    assert [(row["reply"], row["key"], row["right"]) for row in kept[:2]] == [
        ("0.", "41", False),
        ("0.", "42", False),
    ]


def test_full_training_keeps_a_whole_model(base: Path, chats: Path, tmp_path: Path) -> None:
    import transformers

    done = finetune(base, str(chats), tmp_path / "run", **OPTIONS, method="full")
    twin = transformers.AutoModelForCausalLM.from_pretrained(done.run / "last").eval()
    ids = load(base, device="cpu").tokenizer.encode("¿4 + 1?")
    with torch.no_grad():
        expected = twin(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits_of(done.run / "last", ids), expected, rtol=0, atol=1e-5)
    assert (logits_of(base, ids) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_model_that_transformers_computes_is_trained_too(tmp_path: Path, method: str) -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:\n"
    tokenizer = train_tokenizer("char", lambda: iter([alphabet]), "<|endoftext|>")
    assert tokenizer.vocab_size <= VOCAB
    base = tmp_path / "neox"
    saved_foreign("gpt_neox", base)
    tokenizer.save(base)
    lines = [{"prompt": "abc" + chr(97 + n), "completion": "xyz"} for n in range(20)]
    source = tmp_path / "pairs.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = finetune(base, str(source), tmp_path / "run", **OPTIONS, method=method)
    losses = [row["train_loss"] for row in rows(done.run, "eval")]
    assert losses[-1] < losses[0] - 0.05
    assert load(done.run, device="cpu").by_transformers
    (start,) = rows(done.run, "start")
    assert start["context_length"] <= CONTEXT
    # The base knows no turns: they are written in words of its own vocabulary.
    assert "User: " in load(done.run, device="cpu").tokenizer.chat_template  # type: ignore[operator]


def test_gradient_checkpointing_changes_no_bit(
    base: Path, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    original = decoder.checkpoint

    def counted(*arguments: Any, **options: Any) -> Any:
        kept.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(decoder, "checkpoint", counted)
    for name, on in (("plain", False), ("kept", True)):
        options = {**OPTIONS, "method": "full", "gradient_checkpointing": on, "dropout": 0.3}
        finetune(base, str(chats), tmp_path / name, **options)
        assert len(kept) == (6 * 2 * 2 if on else 0)  # updates, micro-batches, blocks
    assert_same_bits(
        tensors(tmp_path / "plain", 6, "model"), tensors(tmp_path / "kept", 6, "model")
    )


def test_dropout_is_that_of_the_recipe(base: Path, chats: Path, tmp_path: Path) -> None:
    """None unless asked for, whatever the base was trained with; both kinds change the losses."""
    losses = []
    for number, more in enumerate(({}, {"lora_dropout": 0.5}, {"dropout": 0.5})):
        done = finetune(base, str(chats), tmp_path / f"run{number}", **OPTIONS, **more)
        losses.append([row["train_loss"] for row in rows(done.run, "step")])
    assert losses[0][0] != losses[2][0]
    assert len({tuple(found) for found in losses}) == 3
    first = rows(tmp_path / "run0", "eval")[0]["train_loss"]
    assert first > 0
    assert load(tmp_path / "run0", device="cpu").decoder.config.dropout == 0.2  # the base's own


def test_an_average_of_the_weights_is_that_of_the_adapter(
    base: Path, chats: Path, tmp_path: Path
) -> None:
    done = finetune(base, str(chats), tmp_path / "run", **OPTIONS, average_decay=0.5)
    names = [name for name in tensors(done.run, 6, "optimizer") if name.startswith("average|")]
    assert names
    assert all(".lora_" in name for name in names)


def test_an_exam_that_changed_meanwhile_is_noticed(
    base: Path, chats: Path, exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OPTIONS, "exam": str(exam)}
    with monkeypatch.context() as patch:
        finetune(base, str(chats), tmp_path / "run", screen=StopAt(1, patch), **options)
    moved, other = exam.with_name("moved.jsonl"), exam.with_name("other.jsonl")
    shutil.copy(exam, moved)
    other.write_text(exam.read_text(encoding="utf-8").replace("41", "14"), encoding="utf-8")
    refused = r"step-00000001: changed since .*\n.*exam: .* `yunque evaluate RUN --exam OTHER`"
    for name in (str(other), ""):  # also where it is asked for: no test holds two exams together
        with pytest.raises(InputError, match=refused):
            resume(tmp_path / "run", settings={"exam": name}, force=True)
    exam.write_text(other.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match=refused):
        resume(tmp_path / "run", force=True)
    resume(tmp_path / "run", settings={"exam": str(moved)})
    assert len(rows(tmp_path / "run", "exam")) == 4


def test_no_exam_comes_to_a_run_that_began_without(
    base: Path, chats: Path, exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        finetune(base, str(chats), tmp_path / "run", screen=StopAt(1, patch), **OPTIONS)
    with pytest.raises(InputError, match="exam: '' → '"):
        resume(tmp_path / "run", settings={"exam": str(exam)})


def test_an_adapter_ends_where_its_training_data_ended(
    base: Path, chats: Path, tmp_path: Path
) -> None:
    done = finetune(base, str(chats), tmp_path / "run", **{**OPTIONS, "steps": 1})
    path = done.run / "last" / "generation_config.json"
    stated = json.loads(path.read_text(encoding="utf-8"))["eos_token_id"]
    path.write_text(json.dumps({"eos_token_id": [stated, 7]}), encoding="utf-8")
    assert load(done.run / "last", device="cpu").end_ids == {stated, 7}
    settings = done.run / "last" / "adapter_config.json"
    own = json.loads(settings.read_text(encoding="utf-8"))
    own["base_model_name_or_path"] = str(done.run / "last")
    settings.write_text(json.dumps(own), encoding="utf-8")
    with pytest.raises(InputError, match="is an adapter too"):
        load(done.run / "last")


def test_what_has_been_seen_to_fail_is_said_before_the_first_step(
    base: Path, chats: Path, tmp_path: Path
) -> None:
    said = {"cli.many_passes", "cli.high_rate", "cli.no_val_no_exam"}
    options = {**OPTIONS, "val": 0.0, "steps": 1, "learning_rate": 3e-3, "batch_size": 640}
    done = finetune(base, str(chats), tmp_path / "hot", **{**options, "micro_batch_size": 64})
    ids = {row["id"] for row in rows(done.run, "warning") if row["step"] == 0}
    assert said <= ids
    calm = finetune(base, str(chats), tmp_path / "calm", **{**OPTIONS, "learning_rate": 2e-3})
    ids = {row["id"] for row in rows(calm.run, "warning")}
    assert ids & said == set()
    assert "cli.no_exam" in ids


def test_defaults_are_those_of_the_method(tmp_path: Path) -> None:
    assert finetune_recipe("", "full").optim.learning_rate == 2e-5
    assert finetune_recipe().optim.learning_rate == 2e-4
    assert finetune_recipe("", "qlora").adapt.method == "qlora"
    path = tmp_path / "r.toml"
    path.write_text('[adapt]\nmethod = "full"\n[train]\nepochs = 1.0\n', encoding="utf-8")
    recipe = finetune_recipe(str(path))
    assert (recipe.adapt.method, recipe.optim.learning_rate) == ("full", 2e-5)
    assert (recipe.train.epochs, recipe.train.batch_size) == (1.0, 8)
    path.write_text("[train]\nsteps = 2\n", encoding="utf-8")
    assert (finetune_recipe(str(path)).train.steps, finetune_recipe(str(path)).train.epochs) == (
        2,
        0.0,
    )


def test_what_cannot_be_fine_tuned_is_refused(
    base: Path, chats: Path, exam: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no model: name a run folder"):
        finetune("", str(chats), tmp_path / "a")
    with pytest.raises(InputError, match=r"hidden_size, tokenizer: that of the base holds"):
        finetune(base, str(chats), tmp_path / "h", hidden_size=8, tokenizer="char")
    with pytest.raises(InputError, match="for whole matrices and not for the small ones"):
        finetune(base, str(chats), tmp_path / "m", **OPTIONS, optimizer="muon")
    with pytest.raises(InputError, match="there is no exam to watch"):
        finetune(base, str(chats), tmp_path / "b", **OPTIONS, watch="exam")
    with pytest.raises(InputError, match=r"max_length is 65: the model sees 64 tokens"):
        finetune(base, str(chats), tmp_path / "c", **OPTIONS, max_length=65)
    with pytest.raises(InputError, match="no such file, expected an exam file"):
        finetune(base, str(chats), tmp_path / "d", **OPTIONS, exam=str(tmp_path / "no.jsonl"))
    prepare(str(chats), tmp_path / "other", tokenizer="char")
    with pytest.raises(InputError, match="prepared with another tokenizer than that of"):
        finetune(base, str(tmp_path / "other"), tmp_path / "e", **OPTIONS)
    done = finetune(base, str(chats), tmp_path / "run", **{**OPTIONS, "steps": 1})
    with pytest.raises(InputError, match="this is the recipe of a fine-tuning"):
        pretrain(out=tmp_path / "p", recipe=done.run / "recipe.toml")
    with pytest.raises(InputError, match=r"an adapter\. Merge it first"):
        finetune(done.run, str(chats), tmp_path / "f", **OPTIONS)


@pytest.mark.parametrize("lang", ["en", "es"])
def test_the_last_words_say_better_or_worse(
    lang: str,
    base: Path,
    chats: Path,
    exam: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["finetune", str(base), str(chats), "--out", str(tmp_path / "run"), "--lang", lang]
    words += ["--exam", str(exam), "--steps", "2", "--eval-every", "1", "--rank", "2"]
    words += ["--device", "cpu", "--precision", "fp32", "--threads", "1", "--sample-tokens", "0"]
    assert main([*words, "--epochs", "0", "--quiet"]) == 0
    out = capsys.readouterr().out
    said = {"en": "NO DIFFERENCE between the trained model and its base", "es": "NO muestra DIFE"}
    assert said[lang] in out
    assert "/6" in out


def test_a_merged_adapter_is_certified_against_the_unmerged_model(
    base: Path, chats: Path, tmp_path: Path
) -> None:
    import transformers

    done = finetune(base, str(chats), tmp_path / "run", **OPTIONS)
    with pytest.raises(InputError, match=r"an adapter, .* give --merge"):
        convert(done.run / "last", tmp_path / "whole")
    made = convert(done.run / "last", tmp_path / "whole", merge=True)
    merged = made.certificate.checks[0]
    assert (merged.id, merged.passed) == ("merge", True)
    assert merged.figure is not None
    assert merged.figure < 3e-5
    ids = load(base, device="cpu").tokenizer.encode("¿4 + 1?")
    twin = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    with torch.no_grad():
        logits = twin(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits, logits_of(done.run / "last", ids), rtol=0, atol=3e-5)
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    assert 'base_model: "run"' in card
    with pytest.raises(InputError, match="nothing to merge"):
        convert(tmp_path / "whole", tmp_path / "again", merge=True)


def test_a_run_that_is_given_little_memory_says_what_it_chose(
    base: Path, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the program itself takes counts too; that of a test process is not the run's.
    monkeypatch.setattr(runs.Runtime, "resident_bytes", lambda _: 0)
    monkeypatch.setattr(runs, "library_bytes", lambda _: 0)
    monkeypatch.setattr(runs, "LATER_BYTES", 0)
    said: list[str] = []

    class Listening(SilentScreen):
        def phase(self, text: str) -> None:
            said.append(text)

    options = {**OPTIONS, "micro_batch_size": 0, "steps": 1, "eval_every": 1, "memory": "1MB"}
    done = finetune(base, str(chats), tmp_path / "run", screen=Listening(), **options)
    recipe = tomllib.loads((done.run / "recipe.toml").read_text(encoding="utf-8"))
    assert recipe["train"]["batch_size"] == 4
    assert 1 <= recipe["train"]["micro_batch_size"] < 4
    assert any(
        text.startswith("Memory: 0.00 GB by arithmetic, at most 0.00, of 0.00 GB") for text in said
    )
    assert any("an update still has 4" in text for text in said)
    with pytest.raises(OutOfMemory, match="memory is '10KB': even one row"):
        finetune(base, str(chats), tmp_path / "no", **{**options, "memory": "10KB"})


def test_relative_names_hold_when_the_run_is_resumed_from_another_folder(
    base: Path, chats: Path, exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token files are made anew from a pattern that was given beside the data."""
    shutil.copytree(base, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        halted = finetune(
            "base", "ch*.jsonl", "run", exam=exam.name, screen=StopAt(2, patch), **OPTIONS
        )
    assert halted.reason == "interrupted"
    recipe = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text(encoding="utf-8"))
    assert recipe["base"] == str(tmp_path / "base")
    assert recipe["exam"] == str(exam)
    assert recipe["sources"] == [str(tmp_path / "ch*.jsonl")]
    shutil.rmtree(tmp_path / "run" / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume(Path("..") / "run").reason == "steps"


COMMIT, LATER = "0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98"


def on_the_hub(cache: Path, folder: Path, commit: str) -> None:
    """Put a model into the cache of the Hub as the newest commit of taller/base."""
    repository = cache / "models--taller--base"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)


def test_a_base_of_the_hub_is_pinned_to_its_commit(
    base: Path, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    on_the_hub(tmp_path / "cache", base, COMMIT)
    with monkeypatch.context() as patch:
        halted = finetune(
            "taller/base", str(chats), tmp_path / "run", screen=StopAt(2, patch), **OPTIONS
        )
    recipe = tomllib.loads((halted.run / "recipe.toml").read_text(encoding="utf-8"))
    assert recipe["base"] == f"hf:taller/base@{COMMIT}"
    ids = [104, 111, 108, 97]
    kept = logits_of(halted.run / "last", ids)
    # The repository moves on to other weights: the run and its adapter stay with theirs.
    other = tmp_path / "other"
    shutil.copytree(base, other)
    weights = {k: v + 0.1 for k, v in load_file(base / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    on_the_hub(tmp_path / "cache", other, LATER)
    assert (load("taller/base", device="cpu").folder.name) == LATER
    assert torch.equal(logits_of(halted.run / "last", ids), kept)
    assert resume(halted.run).reason == "steps"
    theirs = peft.PeftConfig.from_pretrained(halted.run / "best")
    assert (theirs.base_model_name_or_path, theirs.revision) == ("taller/base", COMMIT)
    card = convert(halted.run / "best", tmp_path / "out", merge=True).folder / "README.md"
    assert 'base_model: "taller/base"\n' in card.read_text(encoding="utf-8")


def test_the_tutor_teaches_a_base_in_the_bases_own_words(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = sorted(demo.tutor_items(), key=lambda item: len(item.question.encode()))[:4]
    monkeypatch.setattr(runs, "tutor_items", lambda: short)
    monkeypatch.setattr("yunque.assemble.tutor.CONVERSATIONS", {"train": 12, "val": 4})
    done = finetune(base, TUTOR, tmp_path / "run", **OPTIONS)
    (start,) = rows(done.run, "start")
    assert start["packed"]
    own, theirs = (load(folder, device="cpu").tokenizer for folder in (base, done.run / "best"))
    assert theirs.fingerprint == own.fingerprint
    data = open_prepared(done.run / "data")
    assert (data.facts["conversations"], data.tokenizer.fingerprint) == (16, own.fingerprint)
    problem = tutor.make("train", 12, seed=1)[0]
    talk = [Message(**message) for message in tutor.messages(problem)]
    ids, mask = encode_rendered(own, render(talk, chat_template_of(own)))
    split = data.splits["train"]
    assert split.read(0, len(ids)).tolist() == list(ids)
    assert split.mask is not None
    assert split.mask.read(0, len(ids)).astype(bool).tolist() == mask.astype(bool).tolist()
    # It is examined as a base is: before the first update, and against that.
    marks = rows(done.run, "exam")
    assert (marks[0]["step"], marks[0]["total"]) == (0, 4)
    assert marks[-1]["verdict"] == "no different"
