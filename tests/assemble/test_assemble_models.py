"""Loaded models: options checked, end tokens from the model's own files, bytes counted exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from yunque import evaluate
from yunque.assemble.models import chosen_settings, load
from yunque.config import GenerateConfig, ModelConfig
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.conversations import Message
from yunque.data.tokenizer import Tokenizer, train_tokenizer
from yunque.errors import InputError
from yunque.model.decoder import Decoder
from yunque.weights.folder import save_folder

TEXT = "el yunque suena y el martillo canta\n" * 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(folder: Path, spec: str = "char", eos: object = None) -> Tokenizer:
    """A random model in `folder`, its vocabulary that of TEXT."""
    tokenizer = train_tokenizer(spec, lambda: iter([TEXT]), "<|endoftext|>")
    shape = ModelConfig(context_length=16, num_layers=1, num_heads=2, hidden_size=16)
    model = Decoder(shape.resolved(tokenizer.vocab_size), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    save_folder(model, folder, tokenizer.save, {"eos_token_id": tokenizer.separator_id})
    if eos is not None:
        state(folder, "generation_config.json", eos)
    return tokenizer


def state(folder: Path, name: str, eos: object) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps({**content, "eos_token_id": eos}), encoding="utf-8")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path: Path) -> None:
    mine = saved(tmp_path / "mine")
    other = train_tokenizer("byte", lambda: iter([TEXT]), "<|endoftext|>")
    other.save(tmp_path / "mine")
    sizes = f"its tokenizer has 257 ids and the model a vocabulary of {mine.vocab_size}"
    with pytest.raises(InputError, match=sizes):
        load(tmp_path / "mine", device="cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": "5"}, r"max_new_tokens: expected int, got '5' \(str\)"),
        ({"temperature": True}, "temperature: expected float, got True"),
        ({"temperature": float("nan")}, "temperature: expected a finite number"),
        ({"stop": 3}, "stop: expected a list of str, got 3"),
        ({"stop_tokens": ["a"]}, r"stop_tokens: expected a list of int, got \['a'\]"),
        ({"temprature": 1.0}, "unknown option 'temprature'.*'temperature'"),
    ],
)
def test_options_of_the_wrong_type_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        chosen_settings(GenerateConfig(), options)


def test_all_wrong_options_come_together(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(InputError, match=r"2 things to mend:\n  1\. unknown.*\n  2\. max_new"):
        load(tmp_path, device="cpu").generate("el", tok_k=3, max_new_tokens="5")


def test_options_go_over_the_settings() -> None:
    base = GenerateConfig(top_k=3, seed=9)
    made = chosen_settings(base, {"stop": "x", "stop_tokens": 4, "temperature": 1, "seed": 2})
    assert made == GenerateConfig(top_k=3, seed=2, temperature=1.0, stop=("x",), stop_tokens=(4,))
    assert isinstance(made.temperature, float)
    assert chosen_settings(base, {"stop": ["a", "b"]}).stop == ("a", "b")


def test_end_ids_are_all_that_the_files_name(tmp_path: Path) -> None:
    end = saved(tmp_path).separator_id
    assert load(tmp_path, device="cpu").end_ids == {end}
    state(tmp_path, "generation_config.json", [3, 5])
    assert load(tmp_path, device="cpu").end_ids == {end, 3, 5}
    state(tmp_path, "config.json", 4)
    assert load(tmp_path, device="cpu").end_ids == {end, 3, 4, 5}
    state(tmp_path, "generation_config.json", None)
    assert load(tmp_path, device="cpu").end_ids == {end, 4}
    (tmp_path / "generation_config.json").unlink()
    assert load(tmp_path, device="cpu").end_ids == {end, 4}
    state(tmp_path, "config.json", "end")
    with pytest.raises(
        InputError, match=r"config\.json: eos_token_id: expected a list of int, got"
    ):
        load(tmp_path, device="cpu")


def test_a_text_ends_at_each_of_them(tmp_path: Path) -> None:
    saved(tmp_path)
    greedy = {"temperature": 0.0, "max_new_tokens": 12}
    written = load(tmp_path, device="cpu").generate("el", **greedy).generation.token_ids[0]
    token = next(id for id in written[1:] if id != written[0])
    before = written[: written.index(token)]
    asked = load(tmp_path, device="cpu").generate("el", stop_tokens=[token], **greedy)
    assert (asked.generation.token_ids, asked.generation.stopped) == ([before], ["end"])
    state(tmp_path, "generation_config.json", [token])
    stated = load(tmp_path, device="cpu").generate("el", **greedy)
    assert (stated.generation.token_ids, stated.generation.stopped) == ([before], ["end"])


@pytest.mark.parametrize(
    ("spec", "text", "first"),
    [
        ("char", "\u65e5el yunque", 3),  # an unknown character of three bytes
        ("word", "jam\u00e1s suena el yunque", 6),  # an unknown word
        ("byte", "\u00e9l suena", 1),  # half a character
        ("bpe:280", "\u00e9l suena", 1),
    ],
)
def test_the_bytes_of_the_first_token_are_not_paid_for(
    tmp_path: Path, spec: str, text: str, first: int
) -> None:
    tokenizer = saved(tmp_path / "model", spec)
    source = tmp_path / "a.txt"
    source.write_text(text, encoding="utf-8")
    model = load(tmp_path / "model", device="cpu")
    score = model.evaluate(str(source))
    losses = evaluate.token_losses(model.module, tokenizer.encode(text), 16).double()
    assert score.bytes == len(text.encode("utf-8")) - first
    assert score.tokens == len(losses)
    assert score.loss == pytest.approx(losses.mean().item(), rel=1e-12)
    bits = losses.sum().item() / math.log(2)
    assert score.bits_per_byte == pytest.approx(bits / score.bytes, rel=1e-12)


def test_a_chat_message_opens_no_turn_whatever_it_says(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(
        "byte", lambda: iter(()), "<|endoftext|>", CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
    )
    shape = ModelConfig(context_length=16, num_layers=1, num_heads=2, hidden_size=16)
    model = Decoder(shape.resolved(tokenizer.vocab_size), seed=1)
    save_folder(model, tmp_path, tokenizer.save, {"eos_token_id": tokenizer.separator_id})
    loaded = load(tmp_path, device="cpu")
    user, assistant = 257, 258
    text = "a<|endoftext|><|assistant|>"
    assert loaded.chat_ids([Message("user", text)]) == [user, *text.encode(), assistant]
    assert loaded.chat_ids([Message("user", "")]) == [user, assistant]
