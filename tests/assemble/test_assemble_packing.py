"""Packed, masked documents: equal to documents alone, and exact in every sense that windows are."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_models import FAMILIES, pair
from test_assemble_runs import (
    SMALL,
    StopAt,
    assert_same_bits,
    compare_with_two_processes,
    one_update,
    rows,
    tensors,
)
from token_files import write_split

from yunque import evaluate
from yunque.assemble.models import load
from yunque.assemble.runs import pretrain, resume
from yunque.assemble.sources import prepare
from yunque.batch import MASKED
from yunque.data.ledger import LedgerError
from yunque.data.packing import PackedBatches, PackedEvaluation, Packing
from yunque.data.prepare import open_prepared
from yunque.errors import InputError, StorageError

LOSS_TOLERANCE = 1e-6  # absolute, nats of a document, float32
CONTEXT = 24


def documents(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids below 61, loss mask and ends of documents; some are over-long, some single, one empty."""
    rng = np.random.default_rng(seed)
    lengths = np.concatenate([rng.integers(1, 20, count - 5), [0, 1, 25, 26, 90]])
    rng.shuffle(lengths)
    total = lengths.sum()
    return rng.integers(0, 61, total), rng.integers(0, 2, total), np.cumsum(lengths)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_of_packed_documents_equal_those_of_documents_alone(
    family: str, tmp_path: Path
) -> None:
    """Every token's loss in its row against the document read alone, in pieces of the context."""
    model, _ = pair(family, context_length=CONTEXT, std=0.08)
    ids, mask, ends = documents(1)
    packing = Packing(write_split(tmp_path, ids, mask, ends), CONTEXT)
    # The same documents with each token's place as its id tell where a target comes from.
    places = Packing(write_split(tmp_path, range(len(ids)), mask, ends, "places"), CONTEXT)
    packed = torch.full((len(ids),), float("nan"))
    everything = np.arange(packing.rows)
    batch, origin = packing.batch(everything), places.batch(everything)
    assert batch.layout
    with torch.no_grad():
        logits = model.head(model(batch.inputs, **batch.layout))
    known = batch.targets != MASKED
    packed[origin.targets[known]] = torch.nn.functional.cross_entropy(
        logits[known], batch.targets[known], reduction="none"
    )
    trained, compared = set(origin.targets[known].tolist()), 0
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        own = np.arange(begin + 1, end)[mask[begin + 1 : end] == 1]
        assert trained.issuperset(own)
        trained -= set(own.tolist())
        if len(own):
            alone = evaluate.token_losses(model, ids[begin:end].tolist(), CONTEXT)
            expected = alone[own - begin - 1].double().mean().item()
            found = packed[own].double().mean().item()
            assert found == pytest.approx(expected, abs=LOSS_TOLERANCE)
            compared += 1
    assert trained == set()  # nothing else was trained
    assert compared > 30


# One update in parts


class Packed:
    """The packed rows of an update, for `one_update`; ids below 40, context 16."""

    def __init__(self, folder: Path):
        ids, mask, ends = documents(2, 60)
        self.batches = PackedBatches(write_split(folder, ids % 40, mask, ends), 16, 8, seed=3)
        self.rows = self.batches.batch
        self.targets = self.rows(0).targets


@pytest.mark.parametrize("micro", [4, 2, 1, 3])
def test_a_split_batch_is_the_batch_with_packed_rows(tmp_path: Path, micro: int) -> None:
    batch = Packed(tmp_path)
    assert batch.rows(0).layout
    whole, gradients = one_update(batch, 8)
    split, others = one_update(batch, micro)
    assert whole.tokens == split.tokens == int((batch.targets != MASKED).sum())
    assert split.loss == pytest.approx(whole.loss, abs=1e-6)
    assert split.grad_norm == pytest.approx(whole.grad_norm, abs=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=0, atol=1e-6)


def test_an_update_without_any_target_changes_nothing(tmp_path: Path) -> None:
    batch = Packed(tmp_path)
    empty = batch.rows(0)
    empty.targets.fill_(MASKED)
    batch.rows = lambda *_: empty
    done, gradients = one_update(batch, 4)
    assert (done.tokens, done.applied, gradients) == (0, False, {})


# Whole runs

LINES = [
    "el yunque suena",
    "quien canta sus males espanta",
    "a hierro frío no se le saca forma",
    "y",
]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A prepared folder of 60 documents, the first third of each without loss."""
    text, folder = tmp_path / "text.txt", tmp_path / "tokens"
    text.write_text("\n".join(LINES * 15), encoding="utf-8")
    prepare(str(text), folder, tokenizer="char", val=0.2)
    record = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    facts = record["facts"]
    facts |= {"masked": True, "apart": True}
    made = open_prepared(folder).tokenizer
    for name, length in facts["tokens"].items():
        ids = np.fromfile(folder / f"{name}.bin", dtype="<u2")
        newline = made.encode("\n")[0]
        ends = np.append(np.flatnonzero(ids == newline) + 1, length)
        starts = np.repeat(np.append(0, ends[:-1]), np.diff(ends, prepend=0))
        sizes = np.repeat(np.diff(ends, prepend=0), np.diff(ends, prepend=0))
        mask = np.arange(length) - starts >= sizes // 3
        write_split(folder, ids, mask.astype(int), ends, name)
        facts["splits"][name]["masked"] = int((~mask).sum())
    (folder / "data.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


OPTIONS = {key: value for key, value in SMALL.items() if key != "tokenizer"} | {"packing": "on"}


@pytest.mark.parametrize(("optimizer", "stop"), [("muon", 0), ("muon", 7), ("adamw", 4)])
def test_stopped_and_resumed_equals_never_stopped_bit_for_bit(
    tokens: Path, tmp_path: Path, optimizer: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OPTIONS, "optimizer": optimizer}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(str(tokens), whole, **options)
    with monkeypatch.context() as patch:
        halted = pretrain(str(tokens), parts, screen=StopAt(stop, patch), **options)
    assert (halted.reason, halted.steps) == ("interrupted", stop)
    assert resume(parts).reason == "steps"
    for name in ("model", "optimizer"):
        assert_same_bits(tensors(whole, 12, name), tensors(parts, 12, name))
    for event in ("start", "step", "eval", "sample", "stop"):
        ours = [{**row, "run": ""} for row in rows(parts, event)]
        assert [{**row, "run": ""} for row in rows(whole, event)] == ours, event


@pytest.mark.parametrize("packing", ["on", "off"])
def test_an_epoch_trains_the_tokens_that_it_says(
    tokens: Path, tmp_path: Path, packing: str
) -> None:
    options = {**OPTIONS, "packing": packing, "steps": 0, "epochs": 3.0, "eval_every": 1000}
    options |= {"batch_size": 1, "micro_batch_size": 1, "early_stopping": False}
    done = pretrain(str(tokens), tmp_path / "run", **options)
    (start,) = rows(done.run, "start")
    assert done.reason == "steps"
    assert (start["packed"], done.steps) == (packing == "on", 3 * start["windows"])
    if packing == "on":
        train = open_prepared(tokens).splits["train"]
        counts = PackedBatches(train, 16, 1, seed=1).counts
        assert done.tokens_seen == 3 * counts.trained
        assert counts.tokens == train.length
        assert min(counts.trained, counts.masked, counts.first, counts.padding) > 0
    recipe = tomllib.loads((done.run / "recipe.toml").read_text(encoding="utf-8"))
    assert recipe["data"]["packing"] == packing


def test_the_evaluated_loss_is_that_of_the_documents_alone(tokens: Path, tmp_path: Path) -> None:
    done = pretrain(str(tokens), tmp_path / "run", **OPTIONS)
    model = load(done.run / "best", device="cpu").module
    splits = open_prepared(tokens).splits
    for split, loss in (("val", done.best_loss), ("train", done.train_loss)):
        file = splits[split]
        begin = 0
        alone = torch.full((file.length,), float("nan"), dtype=torch.float64)
        assert file.documents is not None
        assert file.mask is not None
        for end in file.documents.tolist():
            if end - begin > 1:
                losses = evaluate.token_losses(model, file.read(begin, end - begin), 16)
                alone[begin + 1 : end] = losses.double()
            begin = end
        # Of each split as many tokens are read as the validation split has: which ones, tell the
        # same documents with each token's place as its id.
        mask = file.mask.read(0, file.length)
        (tmp_path / split).mkdir()
        places = write_split(tmp_path / split, range(file.length), mask, file.documents)
        batches = PackedEvaluation(Packing(places, 16), splits["val"].length, 2)
        read = torch.cat([batch.targets[batch.targets != MASKED] for batch in batches])
        assert len(read.unique()) == len(read) > 20
        assert loss == pytest.approx(alone[read].mean().item(), abs=1e-6)


def test_two_processes_train_as_one(tokens: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "dropout": 0.0, "attention_dropout": 0.0, "average_decay": 0.0}
    options |= {"optimizer": "adamw", "micro_batch_size": 1, "steps": 6}
    compare_with_two_processes(str(tokens), tmp_path, options)


def test_auto_packs_conversations_alone(tokens: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "packing": "auto", "steps": 1}
    record = json.loads((tokens / "data.json").read_text(encoding="utf-8"))
    for conversations, packed in ((0, False), (60, True)):
        record["facts"]["conversations"] = conversations
        (tokens / "data.json").write_text(json.dumps(record), encoding="utf-8")
        done = pretrain(str(tokens), tmp_path / f"run-{conversations}", **options)
        assert rows(done.run, "start")[0]["packed"] is packed


def note(tokens: Path, train_masked: int = -1, **facts: Any) -> None:
    """Change what a preparation says of itself."""
    record = json.loads((tokens / "data.json").read_text(encoding="utf-8"))
    record["facts"] |= facts
    if train_masked >= 0:
        record["facts"]["splits"]["train"]["masked"] = train_masked
    (tokens / "data.json").write_text(json.dumps(record), encoding="utf-8")


def test_what_does_not_fit_together_is_refused(tokens: Path, tmp_path: Path) -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=message):
            pretrain(str(tokens), tmp_path / "run", **{**OPTIONS, **changes})

    refused("stride is 8, but the documents are packed", stride=8)
    refused("over_long is 'truncate', but .* not packed", packing="off", over_long="truncate")
    (tokens / "train.documents.bin").unlink()
    with pytest.raises(StorageError, match=r"train\.documents\.bin: missing"):
        pretrain(str(tokens), tmp_path / "run", **OPTIONS)
    (tokens / "val.documents.bin").unlink()
    note(tokens, apart=False)
    refused("packing is 'on', but .* its text is one stream")


def test_a_batch_without_loss_is_told_and_left_out(tokens: Path, tmp_path: Path) -> None:
    file = open_prepared(tokens).splits["train"]
    mask = np.zeros(file.length, dtype=np.uint8)
    mask[1:3] = 1
    mask.tofile(tokens / "train.mask.bin")
    with pytest.raises(LedgerError, match="loss mask"):
        pretrain(str(tokens), tmp_path / "changed", **OPTIONS)
    note(tokens, train_masked=file.length - 2)
    done = pretrain(str(tokens), tmp_path / "run", **OPTIONS)
    told = [row["step"] for row in rows(done.run, "warning") if row["id"] == "no_loss"]
    learnt = [row["step"] for row in rows(done.run, "step")]
    assert done.reason == "steps"
    assert sorted(told + learnt) == list(range(1, 13))
    assert len(told) > 5
    assert done.tokens_seen == 2 * len(learnt)
    np.zeros(file.length, dtype=np.uint8).tofile(tokens / "train.mask.bin")
    with pytest.raises(InputError, match="no token of the training data carries loss"):
        pretrain(str(tokens), tmp_path / "none", **OPTIONS)
