"""New control tokens: in the tokenizer, in the rows of a model, and in what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import saved_foreign
from reference_models import pair

from yunque.assemble.models import load
from yunque.assemble.origins import Finetuned
from yunque.assemble.runs import finetune, pretrain, resume
from yunque.assemble.sources import doubts, prepare, tokens_for
from yunque.config import Recipe
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.prepare import open_prepared
from yunque.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from yunque.errors import InputError
from yunque.model.decoder import Decoder
from yunque.runtime import start
from yunque.screen import SilentScreen
from yunque.weights.folder import save_folder

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:|<>"[:58]
OPTIONS: dict[str, Any] = {
    "method": "full",
    "steps": 2,
    "epochs": 0.0,
    "eval_every": 1,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "val": 0.25,
    "sample_tokens": 4,
    "early_stopping": False,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
}


def tokenizer() -> Tokenizer:
    return train_tokenizer("char", lambda: iter([ALPHABET]), "<|endoftext|>")


def base_of(folder: Path, family: str, tie: bool = True, vocab_size: int = 60) -> Decoder:
    """A random model whose tokenizer has 60 tokens and no template."""
    model, _ = pair(family, vocab_size=vocab_size, tie=tie)
    own = tokenizer()
    assert own.vocab_size == 60
    save_folder(model, folder, own.save, {"eos_token_id": own.separator_id})
    return model


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    rows = [
        {"question": f"what is {word} <|user|>", "answer": word.upper()}
        for word in ("one", "two", "six", "ten", "red", "sea", "sky", "sun")
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def grown(folder: Path, chats: Path, out: Path, tokens: tuple[str, ...]) -> tuple[Any, Tokenizer]:
    """The base as a run would begin with it."""
    options = {"base": str(folder), "method": "full", "add_tokens": tokens}
    recipe = Recipe().replace(**options, sources=(str(chats),))
    origin = Finetuned(recipe)
    data = tokens_for(recipe, out, SilentScreen(), "en", origin.tokenizer)
    settled = origin.settled(recipe, data)
    return origin.build(settled, start(settled.machine)).eval(), origin.tokenizer


@pytest.mark.parametrize(
    ("family", "tie", "rows"),
    [
        ("llama", True, 60),
        ("qwen3", False, 60),
        ("gpt2", True, 60),
        ("phi", False, 61),
        ("llama", False, 64),
    ],
)
def test_old_rows_and_logits_stay_and_new_rows_are_the_mean(
    tmp_path: Path, chats: Path, family: str, tie: bool, rows: int
) -> None:
    before = base_of(tmp_path / "base", family, tie, rows)
    model, own = grown(tmp_path / "base", chats, tmp_path / "data", CHAT_TOKENS)
    assert own.vocab_size == 62
    assert model.config.vocab_size == max(62, rows)
    assert (model.head.weight is model.token_embedding.weight) == tie
    pieces = [(before.token_embedding.weight, model.token_embedding.weight)]
    pieces.append((before.head.weight, model.head.weight))
    if family == "phi":
        pieces.append((before.head.bias, model.head.bias))
    for old, new in pieces:
        assert torch.equal(new[:60], old[:60])
        assert len(new) == max(62, rows)
        for row in new[60:62]:
            torch.testing.assert_close(row, old[:60].mean(0), rtol=0, atol=1e-6)
        assert torch.equal(new[62:], old[62:])  # of a padded vocabulary
    ids = torch.tensor([own.encode("what is one")])
    with torch.no_grad():
        was, now = before.head(before(ids)), model.head(model(ids))
    assert (now[..., :60] - was[..., :60]).abs().max() <= 1e-6
    # Hewitt's bound: V others lose at most a factor of 1 + 1/V to each new token.
    lost = now.log_softmax(-1)[..., :60] - was[..., :60].log_softmax(-1)
    if rows == 60:
        assert (lost <= 1e-6).all()
        assert (lost >= -torch.tensor(1 + 2 / 60).log() - 1e-6).all()


@pytest.mark.parametrize("name", ["gpt_neox", "gemma2", "bloom", "opt"])
def test_a_model_that_transformers_computes_grows_as_well(
    tmp_path: Path, chats: Path, name: str
) -> None:
    folder = tmp_path / "base"
    saved_foreign(name, folder)  # 61 rows
    tokenizer().save(folder)
    before = load(folder, device="cpu").module
    model, own = grown(folder, chats, tmp_path / "data", CHAT_TOKENS)
    assert (own.vocab_size, model.config.vocab_size) == (62, 62)
    ids = torch.tensor([own.encode("what is one")])
    with torch.no_grad():
        was, now = before.head(before(ids)), model.head(model(ids))
    assert now.shape[-1] == 62
    assert (now[..., :60] - was[..., :60]).abs().max() <= 1e-6
    old = before.causal.get_input_embeddings().weight
    new = model.causal.get_input_embeddings().weight
    assert torch.equal(new[:60], old[:60])
    torch.testing.assert_close(new[61], old[:60].mean(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("foreign", [False, True])
def test_what_is_kept_opens_in_transformers_with_equal_ids_and_logits(
    tmp_path: Path, chats: Path, foreign: bool
) -> None:
    import transformers

    base = tmp_path / "base"
    if foreign:
        saved_foreign("gpt_neox", base)
        tokenizer().save(base)
    else:
        base_of(base, "llama", tie=False)
    done = finetune(base, str(chats), tmp_path / "run", add_tokens=CHAT_TOKENS, **OPTIONS)
    for name in ("best", "last"):
        folder = done.run / name
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        reference = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        ours = load(folder, device="cpu")
        asked = [{"role": "user", "content": "what is red"}]
        text = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert text == "<|user|>what is red<|assistant|>"
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ids == ours.tokenizer.encode(text, special=True)
        assert (ids[0], ids[-1], len(ids)) == (60, 61, len("what is red") + 2)
        with torch.no_grad():
            expected = reference(torch.tensor([ids])).logits[0]
            got = ours.module.head(ours.module(torch.tensor([ids])))[0]
        assert expected.shape == (len(ids), 62)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    # The rows of new tokens are learnt; a row that no text had is not the mean any more either.
    old = load(base, device="cpu").module.state_dict()
    key = "causal.gpt_neox.embed_in.weight" if foreign else "token_embedding.weight"
    row = load(done.run / "last", device="cpu").module.state_dict()[key][60]
    assert (row - old[key][:60].mean(0)).abs().max() > 1e-4


def test_the_same_text_of_a_user_stays_text(tmp_path: Path, chats: Path) -> None:
    base_of(tmp_path / "base", "llama")
    done = finetune(
        tmp_path / "base", str(chats), tmp_path / "run", add_tokens=CHAT_TOKENS, **OPTIONS
    )
    data = open_prepared(done.run / "data")
    assert data.tokenizer.chat_template == DEFAULT_CHAT_TEMPLATE
    for split in data.splits.values():
        ids = split.read(0, split.length).tolist()
        begins = [at for at, id in enumerate(ids) if id == 60]
        ends = [0, *split.documents.tolist()[:-1]]
        assert begins == ends  # one a conversation, where the template writes it
        assert ids.count(61) == len(ends)
    assert data.facts["doubts"]["unmet_tokens"] == []


def test_tokens_that_nothing_writes_are_named_and_a_resumed_run_is_the_same(
    tmp_path: Path, chats: Path
) -> None:
    base_of(tmp_path / "base", "llama")
    done = finetune(
        tmp_path / "base", str(chats), tmp_path / "run", add_tokens=("<|tool|>",), **OPTIONS
    )
    told = [check.text("en") for check in doubts(open_prepared(done.run / "data"))]
    assert any(text.startswith("<|tool|> does not occur in the training") for text in told)
    again = resume(done.run)
    assert (again.steps, again.best_loss) == (done.steps, done.best_loss)


def test_a_vocabulary_that_is_trained_or_loaded_holds_them(tmp_path: Path) -> None:
    import transformers

    (tmp_path / "a.txt").write_text("uno dos <|mark|> tres\n" * 40, encoding="utf-8")
    for spec in ("bpe:300", "char", "word:200"):
        made = prepare(
            str(tmp_path / "a.txt"),
            tmp_path / f"data-{spec[:2]}",
            tokenizer=spec,
            add_tokens=("<|mark|>", "<|end|>"),
        )
        own = made.tokenizer
        assert made.splits["train"].read(0, 200).tolist().count(own.controls["<|mark|>"]) == 0
        theirs = transformers.AutoTokenizer.from_pretrained(made.folder)
        for text in ("<|mark|>", "<|end|>"):
            assert own.encode(text, special=True) == [own.controls[text]]
            assert theirs(text, add_special_tokens=False)["input_ids"] == [own.controls[text]]
        assert len(own.encode("<|mark|>")) > 1
    assert not made.facts["reused"]
    again = prepare(
        str(tmp_path / "a.txt"), made.folder, tokenizer=spec, add_tokens=("<|mark|>", "<|end|>")
    )
    assert again.facts["reused"]
    other = prepare(str(tmp_path / "a.txt"), made.folder, tokenizer=spec)
    assert other.facts["rebuilt_because"]["en"].startswith("tokenizer changed from word:200 + <|m")
    own = tokenizer()
    own.save(tmp_path / "own")
    loaded = prepare(
        str(tmp_path / "a.txt"),
        tmp_path / "data",
        tokenizer=str(tmp_path / "own"),
        add_tokens=("<|mark|>",),
    )
    assert loaded.tokenizer.controls["<|mark|>"] == 60
    shape = {"context_length": 16, "num_layers": 1, "num_heads": 2, "hidden_size": 8}
    options = {k: v for k, v in OPTIONS.items() if k not in ("method", "val")}
    done = pretrain(str(loaded.folder), tmp_path / "run", warmup_steps=0, **shape, **options)
    model = load(done.run / "best", device="cpu")
    assert model.module.config.vocab_size == 61
    assert load_tokenizer(done.run / "best").controls["<|mark|>"] == 60


def test_what_cannot_be_is_refused_with_what_to_do(tmp_path: Path, chats: Path) -> None:
    base_of(tmp_path / "base", "llama")
    for method in ("lora", "qlora"):
        with pytest.raises(
            InputError, match=rf"--method {method}: an adapter leaves.*--method full"
        ):
            finetune(
                tmp_path / "base",
                str(chats),
                tmp_path / "run",
                add_tokens="<|user|>",
                **{**OPTIONS, "method": method},
            )
    with pytest.raises(InputError, match=r"holds 'a', an ordinary token .*Choose"):
        finetune(tmp_path / "base", str(chats), tmp_path / "run", add_tokens="a", **OPTIONS)
    for wrong in ("", " <|a|>"):
        with pytest.raises(InputError, match=r"add_tokens is .*without white space"):
            prepare(str(chats), tmp_path / "data", add_tokens=(wrong,))
