"""The loss of a fine-tuning step against a few lines of arithmetic on transformers' raw logits.

The ids and the place of every token that carries loss are written out here by hand, for each form
in which conversations come; nothing of ours computes the number that ours is held against.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_assemble_runs import rows

from yunque.assemble.runs import finetune
from yunque.config import ModelConfig
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.tokenizer import train_tokenizer
from yunque.model.decoder import Decoder
from yunque.weights.folder import save_folder

END, USER, ASSISTANT = 256, 257, 258
TOLERANCE = 1e-6  # nats per token, float32

TALKS = (("a\nb", "casa"), ("¿dos?", "sí, dos"), ("x", "y"), ("uno más uno", "2"))
"""Questions and answers of unequal lengths."""

FORMS: dict[str, Any] = {
    "messages": lambda asked, told: {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": told},
        ]
    },
    "sharegpt": lambda asked, told: {
        "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": told}]
    },
    "alpaca": lambda asked, told: {"instruction": asked, "input": "", "output": told},
    "prompt and completion": lambda asked, told: {"prompt": asked, "completion": told},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with random weights, of bytes and three control tokens."""
    folder = tmp_path_factory.mktemp("model") / "base"
    tokenizer = train_tokenizer(
        "byte", lambda: iter(()), "<|endoftext|>", CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
    )
    shape = ModelConfig(
        context_length=128, num_layers=2, num_heads=2, hidden_size=32, qk_norm=False, dropout=0.0
    )
    model = Decoder(shape.resolved(tokenizer.vocab_size), seed=5)
    with torch.no_grad():  # far from the uniform guess, so that a wrong token shows
        for parameter in model.parameters():
            parameter.mul_(4.0)
    save_folder(model, folder, tokenizer.save, {"eos_token_id": END})
    return folder


def by_hand(base: Path, turns: list[tuple[str, str]]) -> tuple[float, int]:
    """(sum of -log p over the answers and their end tokens, how many), read alone."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    ids: list[int] = []
    learnt: list[int] = []
    for asked, told in turns:
        ids += [USER, *asked.encode(), ASSISTANT]
        answer = [*told.encode(), END]
        learnt += range(len(ids), len(ids) + len(answer))
        ids += answer
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    total = 0.0
    for place in learnt:
        row = logits[place - 1]
        largest = float(row.max())
        normaliser = largest + math.log(float((row - largest).exp().sum()))
        total += normaliser - float(row[ids[place]])
    return total, len(learnt)


def first_loss(base: Path, records: list[dict[str, Any]], out: Path, **options: Any) -> float:
    """The loss of the first update over all the records."""
    out.mkdir()
    (out / "chats.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
    )
    common: dict[str, Any] = {
        "val": 0.0,
        "steps": 1,
        "epochs": 0.0,
        "sample_tokens": 0,
        "early_stopping": False,
        "device": "cpu",
        "precision": "fp32",
    }
    done = finetune(base, str(out / "chats.jsonl"), out / "run", **{**common, **options})
    (step,) = rows(done.run, "step")
    return float(step["train_loss"])


def expected(base: Path, talks: list[list[tuple[str, str]]]) -> float:
    """Loss over all answers: one sum over one number, and no mean of means."""
    parts = [by_hand(base, turns) for turns in talks]
    return sum(total for total, _ in parts) / sum(count for _, count in parts)


@pytest.mark.parametrize(
    ("form", "micro", "method"),
    [
        ("messages", 4, "full"),
        ("sharegpt", 1, "full"),
        ("alpaca", 4, "lora"),
        ("prompt and completion", 1, "lora"),
    ],
)
def test_each_form_alone_in_its_row(
    base: Path, form: str, micro: int, method: str, tmp_path: Path
) -> None:
    """Rows so short that no two conversations share one; in one piece, or accumulated one by one.

    The answers have 5, 9, 2 and 2 tokens: a mean of means would be another number.
    """
    records = [FORMS[form](*talk) for talk in PADDED]
    wanted = expected(base, [[talk] for talk in PADDED])
    options = {"batch_size": 4, "micro_batch_size": micro, "max_length": 32, "method": method}
    assert first_loss(base, records, tmp_path / "out", **options) == pytest.approx(
        wanted, abs=TOLERANCE
    )
    means = [total / count for total, count in (by_hand(base, [talk]) for talk in PADDED)]
    assert abs(sum(means) / len(means) - wanted) > 1e-2


PADDED = tuple((asked + "." * (17 - len(asked.encode())), told) for asked, told in TALKS)
"""The same, each of more than half a row of 32 tokens."""


@pytest.mark.parametrize("form", sorted(FORMS))
def test_each_form_packed_into_one_row(base: Path, form: str, tmp_path: Path) -> None:
    """Four conversations in one row of 128, none seen by another."""
    records = [FORMS[form](*talk) for talk in TALKS]
    options = {"batch_size": 1, "max_length": 128, "method": "full", "packing": "on"}
    found = first_loss(base, records, tmp_path / "out", **options)
    assert found == pytest.approx(expected(base, [[talk] for talk in TALKS]), abs=TOLERANCE)
    # Read one after the other they would have seen their neighbours.
    assert abs(found - expected(base, [list(TALKS)])) > 1e-2


def test_several_turns(base: Path, tmp_path: Path) -> None:
    """Every answer of a conversation carries loss and sees all that came before it."""
    talks = [list(TALKS[:3]), list(TALKS[2:])]
    records = [
        {
            "messages": [
                {"role": role, "content": text}
                for talk in turns
                for role, text in zip(("user", "assistant"), talk, strict=True)
            ]
        }
        for turns in talks
    ]
    options = {"batch_size": 1, "max_length": 128, "method": "full", "packing": "on"}
    found = first_loss(base, records, tmp_path / "out", **options)
    assert found == pytest.approx(expected(base, talks), abs=TOLERANCE)
