"""Text logs: lines in which names and numbers stand side by side (llm.c, nanoGPT, Megatron …)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from yunque.reports.log import Log, figure, record
from yunque.reports.names import EXACT, HELD_OUT
from yunque.reports.rows import Rows, log_of
from yunque.reports.tables import text_of

NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
PAIR = re.compile(
    rf"(?P<key>[A-Za-z_][\w/\-]*(?: [A-Za-z][\w/\-]*){{0,3}}(?: ?\([a-z]+\))?)\"?'?\s*[:=]?\s*"
    rf"'?\"?(?P<value>{NUMBER})(?![\w.])(?:\s*/\s*(?P<total>\d[\d,]*))?",
    re.IGNORECASE,
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STEP_WORDS = ("step", "iter", "iteration", "update", "s")
EPOCH = re.compile(r"\bepochs?\b\s*[:=\[]?\s*(\d+(?:\.\d+)?)", re.IGNORECASE)
PEFT = re.compile(r"trainable params: ([\d,]+) \|\| all params: ([\d,]+) \|\| trainable%: ([\d.]+)")
"""What PEFT's print_trainable_parameters writes."""
BILLIONS = re.compile(r"[\w.\-]*\w[-_](\d+(?:\.\d+)?)[bB](?=[-_./\"'\s]|$)")
"""A model's name with its size, as Llama-2-7b-hf."""
KNOWN = {name for ours in EXACT for name in EXACT[ours]}


def pairs(line: str) -> dict[str, Any]:
    """The names and numbers of one line, `step` and the losses among them under one name each."""
    found: dict[str, Any] = {}
    held_out = ""
    for match in PAIR.finditer(line):
        key = " ".join(match["key"].lower().split())
        words = re.split(r"[ _/]", key)
        if set(words) & set(HELD_OUT) or key in ("tel", "vl"):
            held_out = "val"
        value = match["value"].replace(",", "")
        last = words[-1].strip("()")
        if key not in KNOWN:
            # "validation loss at iteration 1000": the last word says what the number is.
            for size in (2, 1):
                tail = " ".join(words[-size:])
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
    if held_out:
        for name in ("loss", "lm loss", "lm loss value"):
            if name in found and not any(n in found for n in EXACT["val_loss"]):
                found["val loss"] = found.pop(name)
        if "val" in found and any("train" in k for k in found) and "loss" in line.lower():
            found["val loss"] = found.pop("val")
    epoch = EPOCH.search(line)
    if epoch:
        found["epoch"] = epoch[1]
    return found


LOSSES = {*EXACT["train_loss"], *EXACT["val_loss"]}


def read_text(file: Path, content: bytes, sha256: str) -> Log | None:
    """Lines that name a step and a loss; two different steps at least, or it is no log."""
    if b"\0" in content[:4000] and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return None
    rows: Rows = []
    lines = text_of(content).splitlines()
    totals: set[str] = set()
    step: Any = None
    epoch: Any = None
    sizes: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        if len(line) <= 4000 and (size := PEFT.search(line)):
            trained, every, part = (figure(cell.replace(",", "")) for cell in size.groups())
            told = {"all_params": every, "trainable_params": trained, "trainable_percent": part}
            sizes["sizes"] = record(number, told)
        if len(line) <= 4000 and (named := BILLIONS.search(line)):
            sizes.setdefault("model_name", record(number, {"model": named[0]}))
        lower = line.lower()
        words = ("loss", "trl:", "tel:", "step", "iter", "epoch", "pérdida")
        if len(line) > 4000 or not any(word in lower for word in words):
            continue
        # Times and places at the beginning of a line are no figures.
        clean = re.sub(r"^(?:\s*\[[^\]]*\])+", "", COLOUR.sub("", line))
        clean = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?", "", clean)
        cells = pairs(clean)
        if "total_steps" in cells:
            totals.add(cells.pop("total_steps"))
        step, epoch = cells.get("step", step), cells.get("epoch", epoch)
        if not LOSSES & set(cells):
            continue
        if "step" not in cells and set(EXACT["val_loss"]) & set(cells) and step is not None:
            cells["step"] = step  # llm.c prints the validation loss on a line of its own.
        elif not {"step", "epoch"} & set(cells) and step is None and epoch is None:
            cells["step"] = "0"  # And the first of them before the first update.
        if epoch is not None and "step" not in cells:
            cells.setdefault("epoch", epoch)  # Keras prints the epoch on a line of its own.
        if "step" in cells or "epoch" in cells:
            rows.append((number, cells))
    stepped: Rows = [(n, c) for n, c in rows if "step" in c]
    if len(stepped) >= len(rows) / 2:
        rows = stepped
    else:
        # Printed dictionaries with an epoch and no step: their order is the step.
        rows = [(n, {**cells, "step": str(i)}) for i, (n, cells) in enumerate(rows, 1)]
    if len({c["step"] for _, c in rows}) < 2:
        return None
    log = log_of("text", str(file), len(lines), sha256, rows)
    log = log if rows is stepped else replace(log, counted="rows")
    total = int(totals.pop()) if len(totals) == 1 else None
    return replace(log, asked_steps=total, settings=sizes) if log.has_losses else None
