"""Text logs: lines in which names and numbers stand side by side (llm.c, nanoGPT, Megatron …)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from yunque.reports.log import Log, figure, record
from yunque.reports.names import EXACT, HELD_OUT, LOSS, bare, folded
from yunque.reports.rows import Rows, log_of
from yunque.reports.tables import text_of

NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
PAIR = re.compile(
    rf"(?P<key>[^\W\d][\w/\-]*(?: [^\W\d_][\w/\-]*){{0,3}}(?: ?\([a-z]+\))?)\"?'?\s*[:=]?\s*"
    rf"'?\"?(?P<value>{NUMBER})(?![\w.])(?:\s*/\s*(?P<total>\d[\d,]*))?",
    re.IGNORECASE,
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STEP_WORDS = ("step", "iter", "iteration", "update", "s")
EPOCH = re.compile(r"\b(?:epochs?|epocas?)\b\s*[:=\[]{0,2}\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
PLACE = re.compile(r"(?:^|(?<=[\[(|\s]))(\d+)\s*/\s*(\d+)(?=[\])\s|,:]|$)(\s*\(\d+%\))?")
"""`1875/1875`, `[50/5000]`, `[6400/60000 (10%)]`: how far a run is, or an epoch of it."""
HELD_LINE = re.compile(rf"^\W*(?:on (?:the )?)?(?:{'|'.join(HELD_OUT)}|held-?out)\b")
"""A line about what was held out says so at its beginning: `Test set: Average loss: 0.4`."""
PEFT = re.compile(r"trainable params: ([\d,]+) \|\| all params: ([\d,]+) \|\| trainable%: ([\d.]+)")
"""What PEFT's print_trainable_parameters writes."""
BILLIONS = re.compile(r"[\w.\-]*\w[-_](\d+(?:\.\d+)?)[bB](?=[-_./\"'\s]|$)")
"""A model's name with its size, as Llama-2-7b-hf."""
KNOWN = {name for ours in EXACT for name in EXACT[ours]}


@dataclass(frozen=True)
class Place:
    """How far a line says the run is: the number of a step, or of an example, of how many."""

    number: int
    of: int
    examples: bool
    """Whether examples are counted, as PyTorch's demonstrations do: `[6400/60000 (10%)]`."""


def place_of(line: str, cells: dict[str, Any]) -> Place | None:
    """The place that a line names: `step 10/600`, `[10/600]`, `10/600 [00:05<…`."""
    if "step" in cells and "total_steps" in cells:
        number, of = float(cells["step"]), int(cells["total_steps"])
        return Place(int(number), of, False) if number.is_integer() and of else None
    if "step" in cells:
        return None
    for match in PLACE.finditer(line):
        before = line[: match.start()].rstrip()
        named = re.search(r"(\w+)\W{0,2}[\[(]$", before)
        # "Epoch [1/10]", "Accuracy: 9100/10000", "Epoch 1/20": the pair belongs to that name.
        if before.endswith(("[", "(")):
            mine = named is None or named[1].isdigit() or named[1] in (*STEP_WORDS, "batch")
        else:
            mine = not before or before[-1] in "|]"
        if mine and int(match[2]) > 0 and int(match[1]) <= int(match[2]):
            return Place(int(match[1]), int(match[2]), match[3] is not None)
    return None


def pairs(line: str) -> dict[str, Any]:
    """The names and numbers of one line, `step` and the losses among them under one name each."""
    found: dict[str, Any] = {}
    held_out = ""
    for match in PAIR.finditer(line):
        key = bare(re.sub(r" ?\([a-z]+\)$", "", match["key"]))
        words = re.split(r"[_/]", key)
        if set(words) & set(HELD_OUT) or key in ("tel", "vl"):
            held_out = "val"
        value = match["value"].replace(",", "")
        last = words[-1]
        if key not in KNOWN:
            # "validation loss at iteration 1000": the last word says what the number is.
            for size in (2, 1):
                tail = "_".join(words[-size:])
                if len(words) > size and tail in KNOWN and not set(words) & set(HELD_OUT):
                    key = tail
                    break
        if key in EXACT["step"] or last in STEP_WORDS:
            # A line may count micro-batches and updates: the update is the step.
            if "step" in found and (last == "step" or key == "num_updates"):
                found["step"] = value
            key = "step"
            if match["total"]:
                found["total_steps"] = match["total"].replace(",", "")
        if last == "lr":
            key = "lr"
        found.setdefault(key, value)
    plain = folded(line)
    if held_out or (HELD_LINE.match(plain) and "train" not in plain):
        for name in (*LOSS, "lm_loss", "lm_loss_value"):
            if name in found and not any(n in found for n in EXACT["val_loss"]):
                found["val_loss"] = found.pop(name)
        if "val" in found and any("train" in k for k in found) and "loss" in plain:
            found["val_loss"] = found.pop("val")
    epoch = EPOCH.search(plain)
    if epoch:
        found["epoch"] = epoch[1]
    return found


LOSSES = {*EXACT["train_loss"], *EXACT["val_loss"]}


def read_text(file: Path, content: bytes, sha256: str) -> Log | None:
    """Lines that name a step or an epoch, and a loss; two different ones at least, or it is no log.

    A line that sums a run up (Hugging Face's train_runtime) needs neither.
    """
    if b"\0" in content[:4000] and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return None
    rows: list[tuple[int, dict[str, Any], Place | None]] = []
    sums: Rows = []
    lines = text_of(content).splitlines()
    totals: set[str] = set()
    step: Any = None
    epoch: Any = None
    place: Place | None = None
    sizes: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        if len(line) <= 4000 and (size := PEFT.search(line)):
            trained, every, part = (figure(cell.replace(",", "")) for cell in size.groups())
            told = {"all_params": every, "trainable_params": trained, "trainable_percent": part}
            sizes["sizes"] = record(number, told)
        if len(line) <= 4000 and (named := BILLIONS.search(line)):
            sizes.setdefault("model_name", record(number, {"model": named[0]}))
        plain = folded(line)
        words = ("loss", "trl:", "tel:", "step", "iter", "epoch", "perdida", "epoca")
        if len(line) > 4000 or not any(word in plain for word in words):
            continue
        # Times and places at the beginning of a line are no figures; `[50/5000]` is one.
        clean = re.sub(r"^(?:\s*\[(?!\s*\d+/\d+\s*[\]( ])[^\]]*\])+", "", COLOUR.sub("", line))
        clean = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?", "", clean)
        cells = pairs(clean)
        if "train_runtime" in cells:
            sums.append((number, cells))
            continue
        here = place_of(folded(clean), cells)
        if here is not None:
            cells["step"], place = str(here.number), here
        if "total_steps" in cells:
            totals.add(cells.pop("total_steps"))
        elif here is not None:
            totals.add(str(here.of))  # An evaluation's own bar has another, and then none is told.
        step, epoch = cells.get("step", step), cells.get("epoch", epoch)
        if not LOSSES & set(cells):
            continue
        if "step" not in cells and set(EXACT["val_loss"]) & set(cells) and step is not None:
            cells["step"] = step  # llm.c prints the validation loss on a line of its own.
            here = place
        elif not {"step", "epoch"} & set(cells) and step is None and epoch is None:
            cells["step"] = "0"  # And the first of them before the first update.
        if epoch is not None and ("step" not in cells or here is not None):
            cells.setdefault("epoch", epoch)  # Keras prints the epoch on a line of its own.
        if "step" in cells or "epoch" in cells:
            rows.append((number, cells, here))
    if any("loss" in cells for _, cells, _ in rows):
        # nanoGPT: "train loss" is that of an evaluation where the rows of training say "loss".
        for _, cells, _ in rows:
            if "train_loss" in cells:
                cells["evaluated train_loss"] = cells.pop("train_loss")
    leave_other_bars(rows)
    stepped = [row for row in rows if "step" in row[1]]
    counted = ""
    if len(stepped) >= len(rows) / 2:
        whole_run, examples = through_epochs(stepped)
        table, counted = whole_run or [row[:2] for row in stepped], "examples" if examples else ""
        totals = totals if whole_run is None else set()
    else:
        table = [
            (n, {k: v for k, v in cells.items() if k != "step"})
            for n, cells, _ in rows
            if "epoch" in cells
        ]
    log = log_of("text", str(file), len(lines), sha256, [*table, *sums])
    if len({row.step for row in (*log.steps, *log.evals)}) < 2:
        return None
    total = int(totals.pop()) if len(totals) == 1 else None
    log = replace(log, asked_steps=None if log.counted else total, settings=sizes)
    return replace(log, counted=counted or log.counted) if log.has_losses else None


def leave_other_bars(rows: list[tuple[int, dict[str, Any], Place | None]]) -> None:
    """Give rows with another bar than the training (an evaluation has its own) the step before."""
    sizes = Counter(p.of for _, cells, p in rows if p and not set(EXACT["val_loss"]) & set(cells))
    if not sizes:
        return
    ((own, _),) = sizes.most_common(1)
    step = "0"
    for _, cells, place in rows:
        if place is not None and place.of != own and "step" in cells:
            cells["step"] = step
        step = cells.get("step", step)


def through_epochs(
    rows: list[tuple[int, dict[str, Any], Place | None]],
) -> tuple[Rows | None, bool]:
    """Rows whose places begin anew with every epoch, as places in the whole run.

    Returns:
        the rows, None where their places do not begin anew; whether they count examples.
    """
    places = [place for _, _, place in rows if place is not None]
    epochs = [figure(cells.get("epoch")) for _, cells, _ in rows]
    marks = [mark for mark in epochs if isinstance(mark, int | float) and float(mark).is_integer()]
    sizes = {(place.of, place.examples) for place in places}
    if len(places) < len(rows) or len(marks) < len(rows) or len(sizes) != 1:
        return None, False
    ((of, examples),) = sizes
    steps = [(mark, place.number) for mark, place in zip(marks, places, strict=True)]
    new = [b for a, b in pairwise(steps) if b[0] != a[0]]
    begun = any(b[1] < a[1] for a, b in pairwise(steps)) or all(n == of for _, n in steps)
    back = any(b < a for a, b in pairwise(steps))
    on = any(b[0] != a[0] and b[1] > a[1] for a, b in pairwise(steps))
    if not new or not begun or back or on:
        return None, False
    first = int(marks[0])
    table: Rows = []
    for (line, cells, _), (mark, n) in zip(rows, steps, strict=True):
        passed = int(mark) - first
        told = {"step": str(passed * of + n), "epoch": str(passed + n / of)}
        table.append((line, {**cells, **told}))
    return table, examples
