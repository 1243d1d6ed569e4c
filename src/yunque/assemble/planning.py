"""A recipe becomes a forecast: shape, data and machine, and what past runs came to.

PyTorch is imported only to measure the machine and to read a base's shape.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yunque.assemble.recipes import base_recipe, finetune_recipe, overlaid
from yunque.config import MachineConfig, ModelConfig, Recipe, validate
from yunque.errors import InputError
from yunque.files import read_json
from yunque.forecast import store
from yunque.forecast.fit import Fit, fit
from yunque.forecast.history import (
    GUESSED_MEMORY_SPREAD,
    MEMORY_SPREAD,
    Correction,
    Outcome,
)
from yunque.forecast.lines import fit_lines, plan_lines
from yunque.forecast.machine import Machine, Rates, published
from yunque.forecast.memory import library_bytes, loaded_later
from yunque.forecast.plan import Plan, past_of, plan_run
from yunque.forecast.remarks import Data, Remark, remarks
from yunque.forecast.shape import generic_shape
from yunque.forecast.work import Workload
from yunque.hub import fetch, hub_id
from yunque.screen import Screen, SilentScreen
from yunque.words import say

if TYPE_CHECKING:
    from yunque.runtime import Runtime

DEFAULT_STEPS = 2_000
TOKENS_A_BYTE = {"char": 0.97, "byte": 1.0, "word": 0.2}
SUBWORD_TOKENS_A_BYTE = 0.28
"""Of byte-level BPE of some thousand entries on European text, where its size is not known."""
VOCABULARY = {"char": 120, "byte": 258, "word": 20_000}
COMPRESSED, COMPRESSION = (".gz", ".zst", ".bz2", ".xz", ".parquet"), 3.0
COUNTED_BYTES = 20_000_000
"""Files of records up to this size are read for a forecast: a second or less."""
STREAM, BUCKET = 1024, 64
LATER_BYTES = 40_000_000
"""What the program itself takes on a CPU between its first update and the last: the code of
kernels, the log, saving. Measured (docs/lab-notes.md)."""
LEAST_STEPS = 5
"""Updates of a run from which a forecast is corrected."""


@dataclass(frozen=True)
class Planned:
    """A forecast, the data that it is for, and a second opinion on the recipe."""

    plan: Plan
    data: Data
    doubts: tuple[Remark, ...]
    chosen: Fit | None = None
    """What `memory` chose so that it fits; None where no bound was given."""

    def lines(self, lang: str) -> list[str]:
        """What `yunque plan` prints."""
        first = fit_lines(self.chosen, lang) if self.chosen else []
        return first + plan_lines(self.plan, self.data, self.doubts, lang)

    def to_json(self) -> dict[str, Any]:
        """The forecast as a JSON object, the doubts in both languages."""
        return {
            **self.plan.to_json(),
            "fit": self.chosen.to_json() if self.chosen else None,
            "tokens": {
                "train": self.data.train_tokens or None,
                "val": self.data.val_tokens or None,
                "guessed": self.data.guessed,
            },
            "doubts": [
                {
                    "id": doubt.key.partition(".doubt_")[2],
                    "numbers": doubt.numbers,
                    "text": {lang: doubt.text(lang) for lang in ("en", "es")},
                }
                for doubt in self.doubts
            ],
        }

    def _repr_markdown_(self) -> str:
        return "```\n" + "\n".join(self.lines("en")) + "\n```"


def plan(
    recipe: str | Path | Recipe = "",
    *,
    base: str | Path = "",
    sources: Sequence[str] | str = (),
    on: str = "",
    screen: Screen | None = None,
    lang: str = "en",
    **options: Any,
) -> Planned:
    """What a run will take: memory, time, disk; does it fit; what to change; a second opinion.

    Args:
        recipe: a recipe file, a run folder or a `Recipe`; `options` go over it.
        base: the MODEL that is fine-tuned, or a preset's name for its shape alone; empty: that of
            the recipe, or training from scratch.
        sources: what is trained on; its size gives the number of passes.
        on: a machine of the table of published figures; empty: this one, measured once.
        screen: told of the measurement's progress.

    Raises:
        InputError: a fault of the recipe, or an unknown machine.
    """
    show = screen or SilentScreen()
    if isinstance(recipe, Recipe):
        whole = dataclasses.replace(recipe, base=str(base) or recipe.base)
    else:
        named = (str(options.get("method", "")), str(options.get("preset", "")))
        whole = planned_recipe(str(recipe), str(base), *named)
    whole = overlaid(whole, options)
    if sources:
        given = [sources] if isinstance(sources, (str, Path)) else sources
        whole = dataclasses.replace(whole, sources=tuple(str(one) for one in given))
    validate(whole)
    if on:
        machine = published(on)
    else:
        machine = this_machine(
            whole.machine,
            lambda done, count: show.progress(
                say("plan.calibrating", lang, done=done, all=count), done / count
            ),
        )
    job, data = job_of(whole, precision_on(machine, whole.machine))
    job = dataclasses.replace(job, device="cuda" if machine.kind == "cuda" else "cpu")
    taken = machine.base_memory + library_bytes(job)
    machine = dataclasses.replace(machine, base_memory=taken)
    room = MEMORY_SPREAD if machine.measured else GUESSED_MEMORY_SPREAD
    past = past_of(job, machine, store.outcomes(), room)
    chosen, budget = None, machine.memory
    if whole.machine.memory:
        from yunque.weights.folder import parse_size

        asked = whole.machine.memory
        if asked != "auto":
            budget = min(parse_size(asked), machine.memory or sys.maxsize)
        chosen = fit(job, budget, machine.base_memory, past=past)
        # Where nothing fits, the forecast is of what was asked: nothing is given up in vain.
        job = chosen.job if chosen.fits else job
    made = plan_run(job, machine, past, token_bytes(job, data), budget)
    return Planned(made, data, tuple(remarks(job, data)), chosen)


def planned_recipe(path: str = "", base: str = "", method: str = "", preset: str = "") -> Recipe:
    """The recipe that a forecast starts from: a file's or a run's, else the defaults.

    Args:
        path: a recipe file or a run folder.
        base, method, preset: as given beside it; "" takes the file's. With a base the defaults
            are those of fine-tuning.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    file = Path(path) / "recipe.toml" if path and Path(path).is_dir() else Path(path)
    if path and not file.is_file():
        raise InputError(
            f"{file}: no recipe there. Name a recipe file (.toml) or a run folder; to plan for a "
            f"text: --sources {path}"
        )
    text = str(file) if path else ""
    try:
        whole = base_recipe(text, preset)
    except InputError as fault:
        if not path or file.suffix == ".toml":
            raise
        raise InputError(f"{fault} To plan for a text: --sources {path}") from None
    if base or whole.base:
        tuned = finetune_recipe(text, method)
        whole = dataclasses.replace(tuned, base=base or tuned.base)
    own = Path(path) / "data"
    if path and is_prepared(own):  # what a run was trained on is counted there
        whole = dataclasses.replace(whole, sources=(str(own),))
    return whole


def precision_on(machine: Machine, asked: MachineConfig) -> str:
    """The precision that a run would compute in there."""
    if asked.precision != "auto":
        return asked.precision
    best = ("bf16", "fp16") if machine.kind == "cuda" else ("bf16",)
    return next((name for name in best if name in machine.rates), "fp32")


def machine_key(machine: MachineConfig) -> str:
    """What rates depend on: device, precision and threads that are asked for, PyTorch."""
    torch = importlib.metadata.version("torch")
    return f"{machine.device}/{machine.precision}/{machine.threads}/torch-{torch}"


def this_machine(
    machine: MachineConfig, told: Callable[[int, int], None] = lambda done, count: None
) -> Machine:
    """This machine as it was measured before, or measured now."""
    key = machine_key(machine)
    found = store.kept_machine(key)
    if found is None or not found.steady:
        from yunque.assemble.calibration import calibrate

        found = calibrate(machine, told)
        store.keep_machine(key, found)
    return found


def job_of(recipe: Recipe, precision: str) -> tuple[Workload, Data]:
    """What the forecast needs of a recipe, and what is known of its data."""
    method = recipe.adapt.method if recipe.base else "pretrain"
    shape = base_shape(recipe.base) if recipe.base else recipe.model
    known, vocabulary = data_of(recipe, shape.vocab_size if recipe.base else 0)
    shape = dataclasses.replace(
        shape,
        dropout=recipe.model.dropout,
        attention_dropout=recipe.model.attention_dropout,
    ).resolved(shape.vocab_size or vocabulary)
    length = recipe.data.max_length or shape.context_length
    if recipe.base and not recipe.data.max_length:
        longest = known.longest or STREAM
        length = min(shape.context_length, -(-longest // BUCKET) * BUCKET)
    stride = recipe.data.stride or length
    rows = math.ceil(known.train_tokens / stride)
    if known.documents and recipe.data.packing == "off":
        rows = max(rows, known.documents)
    steps = recipe.train.steps
    if not steps and recipe.train.epochs and rows:
        steps = max(1, math.ceil(recipe.train.epochs * rows / recipe.train.batch_size))
    job = Workload(
        shape=shape,
        train=recipe.train,
        optim=recipe.optim,
        method=method,
        adapt=recipe.adapt,
        length=length,
        precision=precision,
        steps=steps or DEFAULT_STEPS,
        kept_bytes=base_bytes(recipe.base) if recipe.base else 0,
        epoch_rows=rows,
        val_rows=math.ceil(known.val_tokens / length),
        validated=known.validation,
        exact=recipe.machine.exactness == "exact",
    )
    return job, known


def forecast_run(job: Workload, machine: MachineConfig, where: Runtime, base_memory: int) -> Plan:
    """The forecast of a run that is about to begin, on this machine.

    Nothing is measured now: where the machine was not measured before, memory and disk are
    forecast, and every time is 0.
    """
    found = store.kept_machine(machine_key(machine))
    if found is None:
        found = Machine(
            name="",
            kind=where.device.type,
            memory=where.memory_size() or 0,
            rates={"fp32": Rates(*(0.0,) * 7)},
            base_memory=0,
            watts=0.0,
            measured=False,
        )
    later = LATER_BYTES + loaded_later(job) if where.device.type == "cpu" else 0
    found = dataclasses.replace(found, base_memory=base_memory + later)
    past = past_of(job, found, store.outcomes(), MEMORY_SPREAD)
    return plan_run(job, found, past)


def told(plan: Plan) -> dict[str, Any]:
    """A forecast as it stands in the first row of a run's log; null where it is not known."""
    timed = plan.machine.measured
    return {
        "seconds": round(plan.seconds.value, 3) if timed else None,
        "low_seconds": round(plan.seconds.low, 3) if timed else None,
        "high_seconds": round(plan.seconds.high, 3) if timed else None,
        "update_seconds": plan.update_seconds.value if timed else None,
        "evaluation_seconds": plan.evaluation_seconds if timed else None,
        "evaluations": plan.evaluations,
        "memory_bytes": round(plan.peak.value),
        "disk_bytes": plan.disk,
        "base_bytes": plan.machine.base_memory,
    }


def learn(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep what a run came to, so that the next forecast on this machine is better.

    Args:
        rows: the run log. A resumed run is not learnt from: its peak is that of a part.
    """
    steps = [row for row in rows if row["event"] == "step"]
    if not plan.machine.measured or len(steps) < LEAST_STEPS or not steps[-1]["memory_bytes"]:
        return
    seen = [0, *(row["tokens_seen"] for row in steps)]
    seconds = [
        (seen[index + 1] - seen[index]) / row["tokens_per_second"]
        for index, row in enumerate(steps)
        if row["tokens_per_second"]
    ]
    uncorrected = plan_run(plan.job, plan.machine, Correction())
    store.add_outcome(
        Outcome(
            machine=plan.machine.name,
            method=plan.job.method,
            forecast_seconds=uncorrected.update_seconds.value,
            seconds=statistics.median(seconds),
            forecast_memory=uncorrected.peak.value - plan.machine.base_memory,
            memory=steps[-1]["memory_bytes"] - plan.machine.base_memory,
            base=plan.machine.base_memory,
        )
    )


def is_preset(base: str) -> bool:
    """Whether a base is named by a preset, for its shape alone."""
    from yunque.model.presets import PRESETS

    return base in PRESETS and not Path(base).exists()


def described(base: str) -> Path:
    """Where the configuration of a base lies: a folder, or the file that has the weights too."""
    from yunque.assemble.models import model_path  # brings PyTorch, as the families' tables do

    hub = None if Path(base).exists() else hub_id(base)
    return fetch(hub, ["config.json"]) if hub else model_path(base)


def base_bytes(base: str) -> int:
    """Bytes in which a frozen number of a base is kept; 0: as the precision is.

    What is stored in float32 stays in float32 (runtime.kept_dtype), and that is how weights are
    read whose configuration does not say otherwise, GGUF and GPT-2's first files among them. Of a
    configuration alone that does not say it, the usual 16 bits are taken.
    """
    if is_preset(base):
        return 0
    path = described(base)
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    stored = config.get("dtype", config.get("torch_dtype"))
    if stored is None and (not config or list(path.glob("*.safetensors"))):
        stored = "float32"
    return 4 if stored == "float32" else 0


def base_shape(base: str) -> ModelConfig:
    """The shape of a base from its configuration alone, without its weights.

    Raises:
        InputError: no configuration there, or one whose shape cannot be told.
    """
    from yunque.model.presets import PRESETS

    if is_preset(base):
        return PRESETS[base]
    path = described(base)
    if path.is_file():
        from yunque.weights.gguf_file import open_gguf
        from yunque.weights.gguf_shape import shape_of

        return shape_of(open_gguf(path))
    from yunque.weights.openai import is_openai, read_hparams

    if is_openai(path):
        return read_hparams(path / "hparams.json", sys.maxsize)
    if not (path / "config.json").is_file():
        raise InputError(f"{base}: an adapter, which says nothing of the base's shape.")
    from yunque.weights.families import model_config

    config = read_json(path / "config.json")
    try:
        return model_config(config, str(path / "config.json"))
    except InputError:
        # transformers may compute it all the same: its sizes say most of what a forecast needs.
        return generic_shape(config, str(path / "config.json"))


def data_of(recipe: Recipe, entries: int = 0) -> tuple[Data, int]:
    """(what is known of the data of a recipe, entries of its vocabulary).

    Args:
        entries: of a base's vocabulary; 0: the recipe says which tokenizer is built.

    Raises:
        InputError: a source is missing or cannot be read.
    """
    kind, _, size = recipe.data.tokenizer.partition(":")
    vocabulary = entries or VOCABULARY.get(kind) or (int(size) if size.isdigit() else 0)
    held_out = recipe.data.val > 0
    prepared = [Path(source) for source in recipe.sources if is_prepared(Path(source))]
    if prepared:
        record = read_json(prepared[0] / "data.json")
        splits = record["facts"]["splits"]
        tokens = read_json(prepared[0] / "tokenizer.json")["model"].get("vocab", {})
        val = splits.get("val", {}).get("tokens", 0)
        documents = splits["train"]["documents"]
        apart = bool(record["facts"].get("conversations"))
        longest = round(2 * splits["train"]["tokens"] / max(1, documents)) if apart else 0
        data = Data(
            train_tokens=splits["train"]["tokens"],
            val_tokens=val,
            documents=documents if apart else 0,
            longest=longest,
            validation=val > 0,
            entries=len(tokens),
        )
        return data, len(tokens)
    each = subword_tokens_a_byte(vocabulary)
    # A base's vocabulary was not made for this text.
    each = max(SUBWORD_TOKENS_A_BYTE, each) if entries else TOKENS_A_BYTE.get(kind, each)
    if not recipe.sources:
        return Data(validation=held_out, entries=vocabulary), vocabulary or 32_000
    from yunque.data.sources import find_sources

    sources = [source.path for source in find_sources(recipe.sources, recipe.data.encoding)]
    files = [path for path in sources if path is not None]
    if len(files) < len(sources):  # a data set of the Hub, whose size is not known here
        return Data(validation=held_out, entries=vocabulary), vocabulary or 32_000
    records = [size for path in files for size in record_sizes(path)]
    size_on_disk = sum(bytes_of(path) for path in files if not counted(path))
    tokens = round((size_on_disk + sum(records)) * each)
    val = round(tokens * recipe.data.val)
    kept = 1 - recipe.data.val - recipe.data.test
    data = Data(
        train_tokens=tokens - val - round(tokens * recipe.data.test),
        val_tokens=val,
        documents=0 if size_on_disk else round(len(records) * kept),
        longest=0 if size_on_disk else round(max(records, default=0) * each),
        guessed=tokens > 0,
        validation=held_out,
        entries=vocabulary,
    )
    return data, vocabulary or 32_000


def subword_tokens_a_byte(entries: int) -> float:
    """Tokens that byte-level BPE of so many entries makes of a byte of European text.

    Fitted to five sizes on four texts, Spanish and English: within 9 % (docs/lab-notes.md).
    """
    if not entries:
        return SUBWORD_TOKENS_A_BYTE
    doublings = math.log2(max(entries, 257) / 257)  # above an entry for each byte
    return min(1.0, 1.1 / (1 + 1.3 * doublings**0.527))


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds a finished preparation."""
    if not (folder / "data.json").is_file():
        return False
    record = read_json(folder / "data.json")
    return isinstance(record, dict) and record.get("state") == "complete"


def counted(path: Path) -> bool:
    """Whether the records of a file are few enough to be read for a forecast."""
    records = path.suffix in (".json", ".jsonl", ".csv", ".tsv")
    return records and path.stat().st_size <= COUNTED_BYTES


def record_sizes(path: Path) -> list[int]:
    """Bytes of the texts of every record of a file that is small enough; else none."""
    if not counted(path):
        return []
    from yunque.data.reader import text_size
    from yunque.data.records import read_records

    return [text_size(record.fields) for record in read_records(path, on_bad=lambda bad: None)]


def bytes_of(path: Path) -> float:
    """Bytes of text in a file, as good as its size tells."""
    return path.stat().st_size * (COMPRESSION if path.suffix in COMPRESSED else 1.0)


def token_bytes(job: Workload, data: Data) -> int:
    """The prepared tokens on disk."""
    width = 2 if job.shape.vocab_size <= 2**16 else 4
    return width * (data.train_tokens + data.val_tokens)
