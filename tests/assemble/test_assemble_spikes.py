"""Which documents made a spike: the report of a run names the file and line that did."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from yunque.assemble.runs import pretrain
from yunque.config import DataConfig
from yunque.data.prepare import open_prepared, prepare
from yunque.reports.report import report

STEPS = 130
RUN: dict[str, Any] = {
    "tokenizer": "char",
    "context_length": 24,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_size": 32,
    "batch_size": 2,
    "steps": STEPS,
    "eval_every": STEPS,
    "sample_tokens": 0,
    "learning_rate": 0.02,
    "warmup_steps": 0,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "split_by": "documents",
    "val": 0.02,
    "packing": "on",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 240 sentences of one kind and one, in line 77, of letters in no order."""
    folder, random = tmp_path_factory.mktemp("spikes"), Random(3)
    texts = [f"la suma es {i:03} y ya está" for i in range(240)]
    texts[76] = "".join(random.choices("lasumeyndá0123456", k=24))
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (folder / "notes.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    pretrain(str(folder / "notes.jsonl"), folder / "run", **RUN)
    return folder / "run"


def test_the_document_that_made_the_spike_is_named(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    stop = rows[-1]
    losses = {row["step"]: row["train_loss"] for row in rows if row["event"] == "step"}
    late = {step: loss for step, loss in losses.items() if step > 40}
    assert stop["loss_spike_step"] == max(late, key=lambda step: late[step])
    assert stop["loss_spike_source"] == f"{run.parent / 'notes.jsonl'}:77"
    assert stop["loss_spike_worst"] > 3 * stop["loss_spike_middle"]
    assert stop["loss_spike_read"] == len("; ".join(stop["loss_spike_rows"]).split("; "))
    assert stop["loss_spike_rows"][0].endswith("notes.jsonl:77)")
    found = report(run).analysis.finding("loss_spike")
    assert found is not None
    assert found.numbers["source"] == stop["loss_spike_source"]
    assert "notes.jsonl:77" in found.text["en"]
    assert "notes.jsonl:77" in found.text["es"]
    assert {"row": len(rows), "field": "loss_spike_read", "value": stop["loss_spike_read"]} in (
        found.evidence
    )


def test_every_token_knows_its_line(run: Path) -> None:
    """Each document of the training file is the text of the line that is named for it."""
    prepared = open_prepared(run / "data")
    tokens, lines = prepared.splits["train"], (run.parent / "notes.jsonl").read_text().splitlines()
    assert tokens.documents is not None
    begin = 0
    for end in tokens.documents.tolist():
        source = prepared.source(begin, end - begin - 1)  # The last token separates.
        name, _, line = source.rpartition(":")
        text = prepared.tokenizer.decode(tokens.read(begin, end - begin - 1).tolist())
        assert Path(name) == run.parent / "notes.jsonl"
        assert text == json.loads(lines[int(line) - 1])["text"]
        begin = end


def test_a_text_is_named_by_its_line(tmp_path: Path) -> None:
    """One text without documents, whose blocks begin somewhere: the line that holds a token."""
    lines = [f"línea {number} de un texto largo, con su fin" for number in range(1, 4001)]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    prepared = prepare([str(tmp_path / "text.txt")], DataConfig(tokenizer="char"), tmp_path / "out")
    tokens = prepared.splits["train"]
    blocks = (tmp_path / "out" / "train.origins.bin").stat().st_size // 24
    assert blocks > 1
    for start in range(0, tokens.length - 20, 9973):
        before = prepared.tokenizer.decode(tokens.read(0, start).tolist())
        line = 1 + before.count("\n")
        assert prepared.source(start, 1) == f"{tmp_path / 'text.txt'}:{line}"
