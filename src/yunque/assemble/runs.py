"""A recipe becomes a run: data, model, optimizer, loop, report. New runs and resumed ones."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yunque import evaluate, files, runtime
from yunque.assemble.demo import tutor_items, tutor_marks
from yunque.assemble.environment import environment
from yunque.assemble.exams import Exam, read_exam
from yunque.assemble.origins import Origin, origin_of, put_back, trained
from yunque.assemble.planning import LATER_BYTES, forecast_run, learn, told
from yunque.assemble.recipes import (
    FINETUNE_RATES,
    HIGHEST_RATES,
    finetune_recipe,
    overlaid,
    recipe_with,
    with_options,
)
from yunque.assemble.resumption import Change, level, recipe_changes, refuse, surroundings
from yunque.assemble.sources import listed, located, prepared_for
from yunque.batch import MASKED, Batch
from yunque.config import (
    ADAMWS,
    TUTOR,
    DataConfig,
    GenerateConfig,
    Recipe,
    TrainConfig,
    flat_names,
    merge,
    raise_faults,
    read_tree,
    to_toml,
    to_tree,
    validate,
)
from yunque.data.batches import Batches, EvaluationWindows, WindowCounts, carrying, windows_at
from yunque.data.checks import Check, check_data, check_sizes
from yunque.data.copies import SEARCHED_TOKENS, STRETCH_BYTES, copies, pieces
from yunque.data.general import GENERAL_TEXTS
from yunque.data.ledger import Account, token_accounts
from yunque.data.packing import PackedBatches, PackedCounts, PackedEvaluation, Packing
from yunque.data.prepare import Prepared, is_prepared, open_prepared
from yunque.errors import InputError, OutOfMemory, ProcessLost, StorageError, YunqueError
from yunque.forecast.fit import Fit, fit, methods_that_fit
from yunque.forecast.lines import before_line, fit_lines
from yunque.forecast.machine import CUDA_CONTEXT
from yunque.forecast.memory import library_bytes, stored
from yunque.forecast.plan import Plan
from yunque.forecast.work import Workload
from yunque.generate.decode import generate
from yunque.model.protocol import LanguageModel
from yunque.reports.read import read as read_log
from yunque.reports.report import report, write
from yunque.reports.spikes import spike_steps
from yunque.runlog import FORMAT, NAME, RunLog, read
from yunque.runtime import Interrupt, Runtime
from yunque.screen import Screen, SilentScreen
from yunque.train import checkpoint
from yunque.train.loop import Job, State, row_keys, run
from yunque.train.optim import Optimizers, WeightAverage
from yunque.train.spikes import Recent
from yunque.train.stopping import Stopping
from yunque.weights.folder import parse_size
from yunque.words import say
from yunque.words.ledger import equations, left_aside

DEFAULT_STEPS = 2_000
MANY_PASSES, FEW_DOCUMENTS = 20, 200  # together they have been seen to memorise
EVALUATIONS = 20  # at most, of a run whose recipe does not say how often
SEARCHED = 1 << 20  # tokens in which the first question is looked for
FIRST_TOKENS = 4_096  # of each split, that the demo's first losses rest on
EVALUATION_ROWS = 16  # more at once is no faster
EXAM_TOKENS = 1024  # of a batch of the exam at least: a question and a long reply or a few
SAMPLE = GenerateConfig(temperature=0.8)


@dataclass(frozen=True)
class RunResult:
    """What a run came to. `reason`: steps, early_stopping, interrupted, non_finite, spikes."""

    run: Path
    reason: str
    signal: int
    """Number of the signal that stopped it, 0 for none."""
    steps: int
    tokens_seen: int
    seconds: float
    best_step: int
    best_loss: float | None
    """Nats per token on the validation set, on the training set where there is none; None: the
    run stopped before its first evaluation."""
    train_loss: float | None
    """Training loss at that evaluation, over as many tokens as the validation set has."""
    validated: bool
    main: bool
    """Whether this process speaks for the run; of several only the first does."""
    verdict: Mapping[str, str] | None = None
    """What the report says of the run in two sentences, by language."""
    watched: str = "loss"
    """What early stopping watched: loss or exam."""
    exam: Mapping[str, Any] | None = None
    """Of a run with an exam: `base`, `last` and `best`, the rows of the exam before the first
    update, at the end, and of the model that was kept."""

    @property
    def perplexity(self) -> float | None:
        return None if self.best_loss is None else math.exp(min(self.best_loss, 700.0))

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        values = dataclasses.asdict(self)
        del values["main"]
        return {
            **values,
            "run": str(self.run),
            "perplexity": self.perplexity,
            "best": str(self.run / "best"),
            "report": str(self.run / "report.html"),
        }


def pretrain(
    sources: Sequence[str] | str = (),
    out: str | Path = "",
    *,
    recipe: str | Path | Recipe = "",
    screen: Screen | None = None,
    lang: str = "en",
    **options: Any,
) -> RunResult:
    """Train a decoder from scratch on text files, folders, or one prepared folder.

    Args:
        sources: paths; empty takes those of the recipe.
        out: the run folder, new or empty.
        recipe: a recipe file or a `Recipe`; `options` (flat names of recipe keys) go over it.
        screen: told of the progress; by default nothing is printed.
        lang: language of the report that is written at the end, "en" or "es".

    Raises:
        InputError: every fault of the recipe or of the data that can be known before step 1.
    """
    if isinstance(recipe, Recipe):
        whole = with_options(recipe, options)
    else:
        whole = recipe_with(options, str(recipe))
    if sources:
        whole = dataclasses.replace(whole, sources=tuple(listed(sources)))
    faults = []
    if not whole.sources:
        faults.append("no sources: name a text file, a folder of .txt files or a prepared folder.")
    if not str(out):
        faults.append("no run folder: give --out RUN.")
    if whole.base:
        faults.append(
            f"this is the recipe of a fine-tuning (base is {whole.base!r}): yunque finetune "
            "--recipe. To train from scratch, take base out of it."
        )
    raise_faults(faults)
    validate(whole)
    return begun(whole, Path(out), screen or SilentScreen(), lang)


def finetune(
    model: str | Path = "",
    sources: Sequence[str] | str = (),
    out: str | Path = "",
    *,
    recipe: str | Path | Recipe = "",
    screen: Screen | None = None,
    lang: str = "en",
    **options: Any,
) -> RunResult:
    """Train a model further on conversations or text: in full, by LoRA, or by 4-bit QLoRA.

    Args:
        model: MODEL: a run folder, a model folder, or a Hub id; empty takes the recipe's `base`.
        sources: paths; empty takes those of the recipe.
        out: the run folder, new or empty.
        recipe: a recipe file or a `Recipe`; `options` (flat names of recipe keys, among them
            `method` and `exam`) go over it.
        screen: told of the progress; by default nothing is printed.
        lang: language of the report that is written at the end, "en" or "es".

    Raises:
        InputError: every fault of the recipe, of the model or of the data that can be known
            before step 1.
    """
    if isinstance(recipe, Recipe):
        whole = overlaid(recipe, options)
    else:
        whole = overlaid(finetune_recipe(str(recipe), str(options.get("method", ""))), options)
    if str(model):
        whole = dataclasses.replace(whole, base=str(model))
    # Whole paths: the run can be resumed from another folder.
    whole = dataclasses.replace(whole, base=found(whole.base), exam=found(whole.exam))
    if sources:
        whole = dataclasses.replace(whole, sources=tuple(listed(sources)))
    whole = dataclasses.replace(whole, sources=tuple(map(found, whole.sources)))
    faults = []
    if not whole.base:
        faults.append("no model: name a run folder, a model folder or a Hub id.")
    if not whole.sources:
        faults.append("no sources: name files or folders with conversations or text.")
    if not str(out):
        faults.append("no run folder: give --out RUN.")
    shape = {name for name, home in flat_names().items() if home == "model"}
    fixed = sorted(options.keys() & ((shape - {"dropout", "attention_dropout"}) | {"tokenizer"}))
    if fixed or whole.data.tokenizer != DataConfig().tokenizer:
        named = ", ".join(fixed or ["tokenizer"])
        faults.append(f"{named}: that of the base holds in fine-tuning. Leave it out.")
    if whole.optim.optimizer == "muon" and whole.adapt.method != "full":
        faults.append(
            "optimizer is 'muon', which is for whole matrices and not for the small ones of an "
            "adapter: use adamw, or --method full."
        )
    raise_faults(faults)
    validate(whole)
    return begun(whole, Path(out), screen or SilentScreen(), lang)


def found(name: str) -> str:
    """The whole path of what is there, and of a pattern; anything else, as a Hub id, as it is."""
    if name and Path(name).exists():
        return str(Path(name).resolve())
    return str(Path(name).expanduser().absolute()) if glob.has_magic(name) else name


def begun(recipe: Recipe, folder: Path, screen: Screen, lang: str) -> RunResult:
    """A new run in `folder`."""
    where = runtime.start(recipe.machine)
    with owned(folder, where):
        if where.main:
            refuse_used_folder(folder)
        return Run(recipe, folder, where, screen, lang).train(None)


def resume(
    run_folder: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    force: bool = False,
    screen: Screen | None = None,
    lang: str = "en",
) -> RunResult:
    """Continue an interrupted run from its newest valid checkpoint, exactly.

    Args:
        settings: flat names of recipe keys with other values from here on.
        force: go on though what the run rests on has changed (see `assemble/resumption.py`).

    Raises:
        InputError: no run there, or changes that were not asked for or cannot be.
    """
    folder = Path(run_folder)
    path = folder / "recipe.toml"
    if not path.is_file():
        raise InputError(f"{folder}: no run there (recipe.toml is missing).")
    files.refuse_links(folder)
    recipe = merge(Recipe(), read_tree(path), str(path)).replace(**(settings or {}))
    validate(recipe)
    show = screen or SilentScreen()
    where = runtime.start(recipe.machine)
    with owned(folder, where):
        if where.main:
            files.remove_stages(folder)
            files.remove_stages(folder / checkpoint.FOLDER)
        where.wait()
        newest, refused = checkpoint.newest_valid(folder)
        if newest is None and not force:
            refuse_to_lose(folder, refused)
        assembled = Run(recipe, folder, where, show, lang, resuming=True)
        if newest is None:
            assembled.screen.warning(say("cli.no_checkpoint", lang))
        for sentence in refused:
            assembled.screen.warning(sentence)
        return assembled.train(newest, frozenset(settings or ()), force)


def refuse_to_lose(folder: Path, refused: list[str]) -> None:
    """A run that once saved, and of which no checkpoint can be used, is not begun again unasked.

    A run that was killed in its first save has written the row of it and nothing behind that.

    Raises:
        InputError: the log would be cut to nothing and best/ overwritten.
    """
    path = folder / NAME
    rows = list(read(path)) if path.is_file() else []
    saved = any(row.event == "checkpoint" for row in rows[:-1])
    if not saved and not refused:
        return
    last = max((int(row.values["step"]) for row in rows if row.event == "step"), default=0)
    why = refused[0] if refused else f"{folder / checkpoint.FOLDER}: the checkpoints are gone."
    raise InputError(
        f"{why} The log reaches step {last:,}, and no checkpoint is left to continue from. Put it "
        "back from a copy; or copy log.jsonl and best/ elsewhere and begin again at step 0 with "
        f"`yunque resume {folder} --force`, which overwrites them."
    )


def owned(folder: Path, where: Runtime) -> contextlib.AbstractContextManager[None]:
    """The run's lock, held by its main process for all of them."""
    return files.run_lock(folder) if where.main else contextlib.nullcontext()


def refuse_used_folder(folder: Path) -> None:
    """A run folder must be new: nothing that somebody made is overwritten.

    Raises:
        InputError: it holds a run or other files.
    """
    if (folder / NAME).exists():
        raise InputError(
            f"{folder}: holds a run already. `yunque resume {folder}` continues it; "
            "for a new run choose another --out."
        )
    if (folder / "recipe.toml").exists():
        raise InputError(
            f"{folder}: a run was begun here and stopped before its first row. "
            f"`yunque resume {folder}` begins it again; or choose another --out."
        )
    if folder.is_dir():
        ours = (files.LOCK_NAME, "data")
        names = [entry.name for entry in folder.iterdir()]
        foreign = sorted(n for n in names if n not in ours and not n.startswith(files.STAGE_PREFIX))
        if foreign:
            raise InputError(
                f"{folder}: not empty (it holds {foreign[0]!r}). Choose a new --out folder."
            )


@dataclass(frozen=True)
class Learner:
    """A model and all that changes while it learns; what a checkpoint holds."""

    model: Any
    """A `LanguageModel` that is an `nn.Module`."""
    spread: nn.Module
    """The same, over all processes."""
    optimizers: Optimizers
    average: WeightAverage | None
    scaler: torch.amp.GradScaler


class Run:
    """One run being assembled: the parts that the loop needs, made in order."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        where: Runtime,
        screen: Screen,
        lang: str,
        resuming: bool = False,
    ):
        self.exam = exam_of(recipe, folder / "exam")
        recipe, tokens = located(recipe, folder)
        self.origin: Origin = origin_of(recipe)
        self.folder, self.runtime, self.lang = folder, where, lang
        self.screen: Screen = screen if where.main else SilentScreen()
        if recipe.train.batch_size % self.runtime.world:
            raise InputError(
                f"batch_size is {recipe.train.batch_size}: must be a multiple of the "
                f"{self.runtime.world} processes."
            )
        self.exact = recipe.machine.exactness == "exact"
        if recipe.train.update_in_backward and (where.world > 1 or where.precision == "fp16"):
            raise InputError(
                "update_in_backward is True: it takes one process, in fp32 or bf16; here are "
                f"{where.world} and {where.precision}. Leave it out, or give --precision."
            )
        if self.exact and (where.world & (where.world - 1) or where.precision == "fp16"):
            raise InputError(
                "exactness is 'exact', which needs 1, 2, 4, 8 … processes and fp32 or bf16: here "
                f"are {where.world} and {where.precision}."
            )
        if where.main and not (resuming and is_prepared(tokens)):
            prepared_for(recipe, folder, screen, lang, self.origin.tokenizer)
        where.wait()
        self.data: Prepared = open_prepared(tokens)
        recipe = self.origin.settled(recipe, self.data)
        self.fit = self.fitted(recipe) if recipe.machine.memory else None
        if self.fit is not None:
            recipe = as_fitted(recipe, self.fit)
        refuse_host_embeddings(recipe, where)
        train = self.data.splits["train"]
        length, seed = recipe.data.max_length, recipe.machine.seed
        batch_size = recipe.train.batch_size
        self.packed = packs(recipe, self.data)
        self.batches: Batches | PackedBatches
        self.packings: dict[str, Packing] = {}
        if self.packed:
            self.batches = PackedBatches(train, length, batch_size, seed, recipe.data.over_long)
            self.packings = {
                name: self.batches.packing if name == "train" else Packing(tokens, length)
                for name, tokens in self.data.splits.items()
                if name in ("train", "val")
            }
        else:
            stride = recipe.data.stride or length
            self.batches = Batches(train, length, batch_size, stride, seed)
        self.counts: PackedCounts | WindowCounts
        if isinstance(self.batches, PackedBatches):
            self.counts = self.batches.counts
        else:
            self.counts = self.batches.counts()
        steps = recipe.train.steps
        if not steps and recipe.train.epochs:
            windows = recipe.train.epochs * self.batches.windows
            steps = max(1, math.ceil(windows / recipe.train.batch_size))
        self.steps = steps or DEFAULT_STEPS
        data = dataclasses.replace(recipe.data, packing="on" if self.packed else "off")
        half = math.ceil(self.batches.windows / recipe.train.batch_size / 2)
        every = recipe.train.eval_every or max(math.ceil(self.steps / EVALUATIONS), half)
        loop = dataclasses.replace(recipe.train, eval_every=every)
        warmup = recipe.optim.warmup_steps
        optim = dataclasses.replace(
            recipe.optim, warmup_steps=self.steps // 20 if warmup < 0 else warmup
        )
        self.recipe = dataclasses.replace(recipe, data=data, optim=optim, train=loop)
        self.val = self.data.splits.get("val")
        self.end_ids = sorted({*self.data.facts["end_ids"], *self.origin.end_ids})

    def train(
        self, start_from: Path | None, chosen: frozenset[str] = frozenset(), force: bool = False
    ) -> RunResult:
        """Run the loop from the beginning or from a checkpoint, then write what a run leaves.

        Args:
            chosen: keys of the recipe whose new values were asked for.
            force: accept all changes that can be.
        """
        recipe, folder = self.recipe, self.folder
        warnings = self.check()
        if self.fit is not None:
            for line in fit_lines(self.fit, self.lang):
                self.screen.phase(line)
        changes = self.changed(start_from, chosen, force) if start_from is not None else []
        if start_from is not None and (done := self.finished(start_from)):
            return done
        made = self.learner()
        # What is taken whatever the model: libraries that came with it, and the data's own heap.
        taken, held = self.runtime.resident_bytes() or 0, stored(self.counted)
        own = held.weights + held.quantisation + held.adapter + held.average
        own += sum(tensor.nbytes for tensor in made.optimizers.state().values())  # there already
        self.base_memory = max(0, taken - own)
        model, optimizers, average, scaler = made.model, made.optimizers, made.average, made.scaler
        state, log_bytes = State(self.stopping), 0
        if start_from is not None:
            state, log_bytes = self.restore(start_from, made)
        elif self.runtime.main:
            files.write_text(folder / "recipe.toml", to_toml(recipe))
            files.write_json(folder / "environment.json", environment(self.runtime, recipe))
            ledger = self.ledger()
            files.write_json(folder / "ledger.json", ledger)
            for line in equations(ledger, self.lang) + left_aside(ledger["left_aside"], self.lang):
                self.screen.phase(line)
            for line in self.origin.remarks(self.runtime, self.lang):
                self.screen.phase(line)
        told_level = ""
        if start_from is not None and self.runtime.main:
            now, path = environment(self.runtime, recipe), folder / "environment.json"
            others = surroundings(files.read_json(path), now)
            promised = level(changes, others)
            told_level = "; ".join([*(change.text for change in changes), *others])
            self.screen.phase(say(f"cli.level_{promised}", self.lang, what=told_level))
            note_session(path, {**now, "level": promised}, state.step)
            if changes:
                files.write_text(folder / "recipe.toml", to_toml(recipe))
        self.runtime.wait()
        runtime.keep_freed_memory()  # from now on every step takes the same blocks
        plan = self.forecast()
        self.screen.phase(before_line(plan, self.lang))

        main = self.runtime.main
        log_path = folder / NAME if main else Path(os.devnull)
        with RunLog(log_path, log_bytes if main else None) as log, Interrupt() as interrupt:
            facts = {**self.facts(model), "forecast": told(plan)}
            if log_bytes == 0:
                log.write("start", step=0, epoch=0.0, tokens_seen=0, seconds=0.0, **facts)
            self.screen.start({**facts, "resumed_step": state.step})
            for warning in warnings:
                self.screen.warning(warning.text(self.lang))
                if log_bytes == 0:
                    counts = {k: n for k, n in warning.numbers.items() if isinstance(n, int)}
                    row = {"id": warning.key, "text": warning.text("en"), "numbers": counts}
                    log.write("warning", step=0, epoch=0.0, tokens_seen=0, seconds=0.0, **row)

            if told_level:
                text = f"resumed with changes: {told_level}."
                log.write("warning", **self.row(state), id="changed", text=text, level=promised)
            fingerprints = self.fingerprints()

            def kept() -> dict[str, torch.Tensor]:
                averages = average.average if average is not None else {}
                return optimizers.state() | {f"average|{k}": v for k, v in averages.items()}

            def save(state: State) -> str:
                self.runtime.wait()
                if not self.runtime.main:
                    return ""
                path = checkpoint.path_of(folder, state.step)
                row, size = self.row(state), log.size
                try:
                    log.write("checkpoint", **row, path=str(path.relative_to(folder)))
                    log.sync()
                    checkpoint.save(
                        folder,
                        state.step,
                        trained(model),
                        kept(),
                        {
                            "state": {**vars(state), "stopping": None, "recent": None},
                            "stopping": vars(state.stopping),
                            "recent": vars(state.recent),
                            "scaler": scaler.state_dict(),
                            "recipe": to_tree(recipe),
                            "log_bytes": log.size,
                        },
                        fingerprints,
                        recipe.train.keep_checkpoints,
                    )
                except OSError:
                    # The row speaks of a checkpoint that there is not. One that got its name and
                    # failed later needs it: a resume cuts the log to the length that it had then.
                    if files.surely_absent(path):
                        log.cut(size)
                    raise
                return str(path)

            def keep_best() -> None:
                log.refuse_lost()
                self.keep(model, "best")

            job = Job(
                train=recipe.train,
                optim=recipe.optim,
                seed=recipe.machine.seed,
                exact=self.exact,
                steps=self.steps,
                windows=self.batches.windows,
                runtime=self.runtime,
                model=made.spread,
                head=model.head,
                optimizers=optimizers,
                scaler=scaler,
                average=average,
                rows=self.batches.batch,
                places=self.places,
                measure=lambda step, rows: self.measure(model, step, rows),
                evaluation_rows=self.evaluation_rows,
                sample=self.sampler(model),
                exam=self.examiner(model),
                general=self.general(model),
                keep_best=keep_best,
                save=save,
                broken=lambda: checkpoint.not_finite(trained(model), kept()),
                rewind=lambda: self.rewind(made),
                checkpoint_blocks=lambda: setattr(model, "checkpointing", True),
                log=log,
                screen=self.screen,
                interrupt=interrupt,
                resumed_step=state.step if start_from is not None else -1,
            )
            model.checkpointing |= state.gradient_checkpointing
            with self.telling_where_to_go_on():
                state, reason = run(job, state)
            if average is not None:
                average.swap()
            # Weights of half an update may be finite, and are no model of this run.
            torn = reason == "non_finite" and recipe.train.update_in_backward
            if not torn and (reason != "non_finite" or not checkpoint.not_finite(trained(model))):
                self.keep(model, "last")
            looked_back: dict[str, Any] = {}
            if main and reason != "interrupted":  # who stops a run does not wait for this
                looked_back = self.copied(log_path) | self.spikes(model, log_path)
            log.write("stop", **self.row(state), reason=reason, **looked_back)
        result = self.result(state, reason, interrupt.signal)
        if self.runtime.main:
            page = report(folder, self.lang)
            write(page, folder)
            if start_from is None:
                learn(plan, [{"event": r.event, **r.values} for r in read(folder / NAME)])
            result = dataclasses.replace(result, verdict=page.json["verdict"]["text"])
        self.screen.stop(reason, result.to_json())
        return result

    def fitted(self, recipe: Recipe) -> Fit:
        """How the run fits into the memory that it may take.

        Raises:
            OutOfMemory: it does not, with what would.
            InputError: the size cannot be read, or what the model needs is not known.
        """
        asked, where = recipe.machine.memory, self.runtime
        if not self.origin.counted(recipe.model)[1]:
            raise InputError(
                f"memory: {recipe.base} is computed by transformers, and what it needs is not "
                "known exactly. Leave memory out, and set micro_batch_size."
            )
        budget = where.memory_size() if asked == "auto" else parse_size(asked)
        if not budget:
            raise InputError(
                "memory is 'auto', and the system does not say how much there is: give a size, as "
                "4GB."
            )
        job = self.workload(recipe, packs(recipe, self.data))
        base = CUDA_CONTEXT
        if where.device.type == "cpu":
            # What the libraries take that are not loaded yet, and the program once it trains.
            base = (where.resident_bytes() or 0) + library_bytes(job) + LATER_BYTES
        chosen = fit(job, budget, base)
        if not chosen.fits:
            others = methods_that_fit(job, budget, base) if recipe.base else []
            way = f"--method {others[-1]} would fit." if others else "Use a smaller model."
            if base >= budget:
                way = "The program alone takes more than that, whatever the model: allow more."
            raise OutOfMemory(
                f"memory is {asked!r}: even one row of {chosen.job.row_length} tokens with "
                f"gradient checkpointing needs {chosen.memory.total / 1e9:.2f} GB, perhaps up to "
                f"{chosen.most / 1e9:.2f}; the weights are {chosen.memory.weights / 1e9:.2f} of "
                f"it and the program itself {base / 1e9:.2f}. {way}"
            )
        return chosen

    def workload(self, recipe: Recipe, packed: bool) -> Workload:
        """What arithmetic needs to know of this run; one process's share of a batch."""
        share = recipe.train.batch_size // self.runtime.world
        train = dataclasses.replace(
            recipe.train,
            batch_size=share,
            micro_batch_size=min(recipe.train.micro_batch_size or share, share),
        )
        return Workload(
            shape=self.origin.counted(recipe.model)[0],
            train=train,
            optim=recipe.optim,
            method=recipe.adapt.method if recipe.base else "pretrain",
            adapt=recipe.adapt,
            length=recipe.data.max_length,
            precision=self.runtime.precision,
            packed=packed,
            kept_bytes=self.origin.weight_bytes(self.runtime),
            device="cuda" if self.runtime.device.type == "cuda" else "cpu",
        )

    def learner(self) -> Learner:
        """The model as the run begins, and what makes it learn."""
        model = self.origin.build(self.recipe, self.runtime)
        decay = self.recipe.optim.average_decay
        fp16 = self.runtime.precision == "fp16"
        return Learner(
            model,
            self.runtime.spread(model),
            Optimizers(model, self.recipe.optim),
            WeightAverage(model, decay) if decay else None,
            torch.amp.GradScaler(self.runtime.device.type, enabled=fp16),
        )

    @contextlib.contextmanager
    def telling_where_to_go_on(self) -> Iterator[None]:
        """Put the last checkpoint behind the message of what failed: a disk, the memory, another
        process."""
        try:
            yield
        except (StorageError, OutOfMemory, MemoryError, RuntimeError) as error:
            lost = self.runtime.world > 1 and runtime.lost_process(error)
            if not isinstance(error, YunqueError) and not lost and not runtime.lacks_memory(error):
                raise
            where = self.where_to_go_on()
            if isinstance(error, StorageError):
                raise StorageError(f"{error} {where}") from None
            if lost:
                raise ProcessLost(f"another process of the run is gone. {where}") from None
            said = str(error) if isinstance(error, YunqueError) else "the memory ran out."
            raise OutOfMemory(f"{said} {where}") from None

    def where_to_go_on(self) -> str:
        """The last checkpoint and the command that goes on from it, as far as can be told now."""
        resuming = f"`yunque resume {self.folder}`."
        if files.surely_absent(self.folder):
            return "The run folder is gone, and its checkpoints with it."
        try:
            steps = checkpoint.all_steps(self.folder)
        except StorageError:
            return f"Its checkpoints cannot be looked at now; when they can: {resuming}"
        last = f"The last checkpoint is that of step {steps[-1]}" if steps else "None was saved"
        return f"{last}: {resuming}"

    def finished(self, newest: Path) -> RunResult | None:
        """The result of a run that came to its end and wrote its last row, else None."""
        state = state_of(files.read_json(newest / "state.json"))
        events = list(read(self.folder / NAME)) if (self.folder / NAME).is_file() else []
        last = events[-1] if events else None
        reason = last.values.get("reason") if last and last.event == "stop" else None
        if reason not in ("steps", "early_stopping") or state.evaluated_step != state.step:
            return None
        if reason == "steps" and state.step < self.steps:
            return None  # it was made longer
        verdict = report(self.folder, self.lang).json["verdict"]["text"]
        return dataclasses.replace(self.result(state, reason, 0), verdict=verdict)

    def result(self, state: State, reason: str, signal: int) -> RunResult:
        """What the run came to, with the training loss of its best evaluation from the log."""
        best = state.stopping.best_step
        rows = list(read(self.folder / NAME)) if self.runtime.main else []
        kept = [r.values for r in rows if r.event == "eval" and r.values["step"] == best]
        exams = {r.values["step"]: r.values for r in rows if r.event == "exam"}
        exam = None
        if exams and best in exams:
            exam = {"base": exams.get(0), "last": exams[max(exams)], "best": exams[best]}
        loss = state.stopping.best_loss
        if kept and self.recipe.train.watch == "exam":
            loss = kept[-1]["train_loss" if self.val is None else "val_loss"]
        return RunResult(
            run=self.folder,
            reason=reason,
            signal=signal,
            steps=state.step,
            tokens_seen=state.tokens_seen,
            seconds=state.seconds,
            best_step=best,
            best_loss=loss,
            train_loss=kept[-1]["train_loss"] if kept else None,
            watched=self.recipe.train.watch,
            exam=exam,
            validated=self.val is not None,
            main=self.runtime.main,
        )

    @property
    def counted(self) -> Workload:
        """This run as arithmetic counts it."""
        recipe = self.recipe
        return dataclasses.replace(
            self.workload(recipe, self.packed),
            steps=self.steps,
            epoch_rows=self.batches.windows,
            val_rows=math.ceil(self.val.length / recipe.data.max_length) if self.val else 0,
            validated=self.val is not None,
        )

    def forecast(self) -> Plan:
        """Memory, time and disk of this run."""
        return forecast_run(self.counted, self.recipe.machine, self.runtime, self.base_memory)

    def check(self) -> list[Check]:
        """Warnings about sizes.

        Raises:
            InputError: the data cannot fill one batch, or another fault that stops a run.
        """
        shape = self.recipe.model
        errors, warnings = check_sizes(
            train_tokens=self.data.splits["train"].length,
            val_tokens=self.val.length if self.val else 0,
            context_length=self.recipe.data.max_length,
            batch_size=self.recipe.train.batch_size,
            # The base knows its vocabulary already.
            vocab_size=0 if self.recipe.base else shape.vocab_size,
            packed=self.packed,
        )
        lost = self.counts.truncated if isinstance(self.counts, PackedCounts) else 0
        more = check_data(self.data.facts, lost)
        errors, warnings = errors + more[0], warnings + more[1]
        raise_faults([error.text("en") for error in errors])
        warmup = self.recipe.optim.warmup_steps
        if 2 * warmup > self.steps:
            numbers = {"warmup": warmup, "steps": self.steps, "fitting": self.steps // 10}
            warnings.append(Check("cli.long_warmup", numbers))
        return warnings + (self.finetuning_doubts() if self.recipe.base else [])

    def finetuning_doubts(self) -> list[Check]:
        """What has been seen to fail, and what this run will not be able to tell."""
        recipe, documents = self.recipe, self.data.facts["splits"]["train"]["documents"]
        doubts = []
        passes = self.steps * recipe.train.batch_size / self.batches.windows
        if passes > MANY_PASSES and documents < FEW_DOCUMENTS:
            numbers = {"passes": passes, "documents": documents}
            doubts.append(Check("cli.many_passes", numbers))
        method = recipe.adapt.method
        adam = recipe.optim.optimizer in ADAMWS
        if adam and recipe.optim.learning_rate > HIGHEST_RATES[method]:
            numbers = {
                "rate": recipe.optim.learning_rate,
                "method": method,
                "usual": FINETUNE_RATES[method],
            }
            doubts.append(Check("cli.high_rate", numbers))
        if self.exam is None:
            doubts.append(Check("cli.no_val_no_exam" if self.val is None else "cli.no_exam", {}))
        elif self.val is None:
            doubts.append(Check("cli.no_val", {}))
        return doubts

    @property
    def stopping(self) -> Stopping:
        """Early stopping before the first evaluation; one more right answer is always progress."""
        train = self.recipe.train
        by_exam = train.watch == "exam"
        return Stopping(
            train.patience,
            0.0 if by_exam else train.min_change,
            enabled=train.early_stopping and (self.val is not None or by_exam),
        )

    def row(self, state: State) -> dict[str, Any]:
        """The keys that every row of the run log has."""
        windows = self.batches.windows
        return row_keys(state, state.seconds, self.recipe.train.batch_size, windows)

    def facts(self, model: LanguageModel) -> dict[str, Any]:
        """What the first row of the log and the screen say of the run."""
        recipe, splits = self.recipe, self.data.splits
        counted = self.data.facts.get("ngrams") or {"losses": ()}
        yardsticks = {f"ngram_{n}": loss for n, loss in enumerate(counted["losses"], 1)}
        if yardsticks:
            yardsticks["ngram_tokens"] = counted["train_tokens"]
        cuda = self.runtime.device.type == "cuda"
        room = {"device_bytes": self.runtime.memory_size()} if cuda else {}
        return {
            "format": FORMAT,
            "run": self.folder.name,
            "steps": self.steps,
            "batch_size": recipe.train.batch_size,
            "context_length": recipe.data.max_length,
            "windows": self.batches.windows,
            "packed": self.packed,
            "parameters": self.origin.parameters(model),
            "tokens": {name: tokens.length for name, tokens in splits.items()},
            "vocab_size": recipe.model.vocab_size,
            "tokenizer": self.data.tokenizer.kind,
            "optimizer": recipe.optim.optimizer,
            "schedule": recipe.optim.schedule,
            "early_stopping": self.stopping.enabled,
            "patience": recipe.train.patience,
            "eval_every": recipe.train.eval_every,
            "device": str(self.runtime.device),
            "precision": self.runtime.precision,
            "processes": self.runtime.world,
            "seed": recipe.machine.seed,
            **room,
            **yardsticks,
        }

    def ledger(self) -> dict[str, Any]:
        """Where every document, byte and token went, checked to the last one.

        Raises:
            LedgerError: an equation does not hold.
        """
        facts, context = self.data.facts, self.batches.context_length
        accounts = token_accounts(facts, self.counts, self.batches.windows, context)
        train = self.data.splits["train"]
        if train.mask is not None:
            # What was masked when the data was prepared, against the mask as it lies on disk.
            mask = Account("loss mask", train.length)
            mask.add("carry loss", carrying(train.mask, 0, train.length))
            mask.add("masked", facts["splits"]["train"]["masked"])
            mask.check(str(self.data.folder))
        for account in accounts.values():
            account.check(str(self.folder))
        return {
            **facts["ledger"],
            **{name: account.to_json() for name, account in accounts.items()},
            "rows": self.batches.windows,
            "sources": facts["sources"],
            "left_aside": facts.get("left_aside", {}),
            "doubts": facts["doubts"],
            "examples": facts["examples"],
        }

    def fingerprints(self) -> dict[str, str]:
        """What must be the same for a resumed run to be the same run."""
        # Written and read as text: the recipe is compared as the user would see it.
        text = to_toml(self.recipe).encode("utf-8")
        known = {
            "recipe": hashlib.sha256(text).hexdigest(),
            "tokenizer": self.data.tokenizer.fingerprint,
            "data": str(self.data.facts["fingerprint"]),
        }
        if self.origin.fingerprint:
            known["base"] = self.origin.fingerprint
        if self.recipe.exam:
            known["exam"] = files.sha256(Path(self.recipe.exam))
        return known

    def restore(self, path: Path, made: Learner) -> tuple[State, int]:
        """Put a checkpoint's tensors in place; returns its state and the length of its log."""
        tensors, optimizer, values = checkpoint.load(path)
        put_back(made.model, tensors)
        averages = {k: v for k, v in optimizer.items() if k.startswith("average|")}
        made.optimizers.load({k: v for k, v in optimizer.items() if k not in averages})
        if made.average is not None:
            for key, value in averages.items():
                made.average.average[key.removeprefix("average|")].copy_(value)
        made.scaler.load_state_dict(values["scaler"])
        state, now = state_of(values), self.stopping
        train = self.recipe.train
        if train.update_in_backward and 0 < state.micro_batch_size < train.batch_size:
            raise InputError(
                f"update_in_backward is True, and the memory of this run held only "
                f"{state.micro_batch_size} of its {train.batch_size} rows at once, whose gradients "
                "would have to be added up. Leave it out, or begin a new run with batch_size "
                f"{state.micro_batch_size}."
            )
        # Its history is the checkpoint's, its rules are the recipe's.
        stopping = dataclasses.replace(
            state.stopping,
            patience=now.patience,
            min_change=now.min_change,
            enabled=now.enabled,
        )
        return dataclasses.replace(state, stopping=stopping), int(values["log_bytes"])

    def changed(
        self, path: Path, chosen: frozenset[str] = frozenset(), force: bool = False
    ) -> list[Change]:
        """What is another than when a checkpoint was saved.

        Raises:
            InputError: a change that was not asked for, or that cannot be.
        """
        now, then = self.fingerprints(), checkpoint.fingerprints(path)
        changes = [
            Change(what, digest[:12], now.get(what, "")[:12], "forced")
            for what, digest in then.items()
            if what not in ("recipe", "exam") and now.get(what) != digest
        ]
        if then.get("exam") != now.get("exam"):  # its file may lie elsewhere, not be another
            before, after = then.get("exam", "")[:12], now.get("exam", "")[:12]
            changes.append(Change("exam", before, after, "fixed"))
        if then["recipe"] != now["recipe"]:
            kept = files.read_json(path / "state.json").get("recipe")
            if kept is None:  # saved before checkpoints kept their recipe
                changes.append(Change("recipe", then["recipe"][:12], now["recipe"][:12], "forced"))
            else:
                changes += recipe_changes(kept, self.recipe)
        refuse(changes, chosen, force, f"{self.folder}, {path.name}")
        return changes

    def rewind(self, made: Learner) -> int | None:
        """Put back the tensors of the last good checkpoint; returns its step, None without one.

        One that was saved between updates that failed is not good, though its tensors are finite.
        """
        self.runtime.wait()
        for step in reversed(checkpoint.all_steps(self.folder)):
            path = checkpoint.path_of(self.folder, step)
            if checkpoint.is_valid(path):
                state = state_of(files.read_json(path / "state.json"))
                if state.non_finite == 0:
                    self.restore(path, made)
                    return step
        return None

    @property
    def evaluation_rows(self) -> int:
        """Rows that an evaluation takes at once."""
        return 1 if self.exact else min(EVALUATION_ROWS, self.micro_batch)

    def measure(self, model: LanguageModel, step: int, rows: int) -> tuple[float, float | None]:
        """Training and validation loss over the same number of windows of each.

        Args:
            step: updates made. Before the first the tutor's model gives nearly every token the
                same loss, and few of them tell it; the demo begins sooner.
            rows: at once.
        """
        limit = self.recipe.train.eval_tokens
        if step == 0 and self.recipe.sources == (TUTOR,) and not self.recipe.base:
            limit = min(limit or FIRST_TOKENS, FIRST_TOKENS)
        if self.val is None:
            return self.loss_over(model, "train", limit or TrainConfig().eval_tokens, rows), None
        cap = self.val.length if not limit else min(limit, self.val.length)
        ours = self.loss_over(model, "train", cap, rows)
        return ours, self.loss_over(model, "val", limit, rows)

    def loss_over(self, model: LanguageModel, split: str, limit: int, rows: int) -> float:
        """Loss of a split in nats per token, each process taking every world-th batch.

        In exact mode each reads all of them, so that the order of the sum is one and the same.
        Where none of so few tokens carries loss, all tokens are read.

        Raises:
            InputError: no token of the split carries loss.
        """
        sums = torch.zeros(2, dtype=torch.float64)
        for index, batch in enumerate(self.windows(split, limit, rows)):
            mine = self.exact or index % self.runtime.world == self.runtime.rank
            if mine and (batch.targets != MASKED).any():
                with self.runtime.autocast():
                    part = evaluate.score(model, [batch])
                sums += torch.tensor([part.loss * part.tokens, part.tokens], dtype=torch.float64)
        total, count = (sums if self.exact else self.runtime.total(sums)).tolist()
        if not count and limit:
            return self.loss_over(model, split, 0, rows)
        if not count:
            raise InputError(
                f"{self.data.splits[split].path}: no token carries loss, so there is nothing to "
                "evaluate. Look at the roles and the answers of the records, or give --val 0."
            )
        return total / count

    def windows(self, split: str, limit: int, rows: int) -> Iterable[Batch]:
        """What an evaluation reads of a split: laid out as in training, every target once."""
        if self.packed:
            return PackedEvaluation(self.packings[split], limit, rows)
        length = self.recipe.data.max_length
        return EvaluationWindows(self.data.splits[split], length, limit, rows)

    @property
    def micro_batch(self) -> int:
        """Rows that one process holds at once: what fits in training fits in an evaluation."""
        share = self.recipe.train.batch_size // self.runtime.world
        return min(self.recipe.train.micro_batch_size or share, share)

    @property
    def exam_tokens(self) -> int:
        """Tokens of a batch of the exam, replies included.

        The keys and values of a token take a small part of what training keeps of it.
        """
        rows = 1 if self.exact else self.micro_batch
        return max(EXAM_TOKENS, 2 * rows * self.recipe.data.max_length)

    def sampler(self, model: LanguageModel) -> Callable[[], tuple[str, str]] | None:
        """A function that writes a text sample, or None where none is wanted."""
        if not self.recipe.train.sample_tokens or not self.runtime.main:
            return None
        tokenizer, prompt = self.data.tokenizer, self.recipe.train.sample_prompt
        ids = tokenizer.prompt_ids(prompt, special=True) or [tokenizer.separator_id]
        facts = self.data.facts
        ends = self.end_ids
        if facts["conversations"] and not prompt and self.recipe.base:
            ids = self.first_question()
            prompt = tokenizer.decode(ids, skip_special=False)
        if not facts["conversations"] and not facts["splits"]["train"]["separators"]:
            # A text without separators teaches the model neither where to begin nor where to end:
            # begin with the text's own first token, and go on.
            ends = []
            if not prompt:
                ids = self.data.splits["train"].read(0, 1).tolist()
                prompt = tokenizer.decode(ids)
        settings = dataclasses.replace(
            SAMPLE,
            max_new_tokens=self.recipe.train.sample_tokens,
            seed=self.recipe.machine.seed,
        )

        def sample() -> tuple[str, str]:
            with self.runtime.autocast():
                made = generate(model, [ids], settings, ends)
            return prompt, tokenizer.continuation(made.token_ids[0])

        return sample

    def copied(self, log: Path) -> dict[str, int]:
        """What of the samples in the log stands in the training data, for its last row.

        Beside it the same of held-out text, in pieces as long as the samples.
        """
        rows = [row.values for row in read(log) if row.event == "sample"]
        if not rows:
            return {}
        train, encode = self.data.splits["train"], self.data.tokenizer.encode
        texts = [np.array(encode(row["text"]), dtype=np.int64) for row in rows]
        shortest = max(4, round(STRETCH_BYTES / self.data.facts["bytes_per_token"]))
        ours = copies(train, texts, shortest)
        figures = {
            "copied_tokens": ours.copied,
            "copied_of": ours.tokens,
            "copied_samples": ours.texts_with,
            "samples": ours.texts,
            "copied_longest": ours.longest,
            "copied_longest_step": rows[ours.longest_text]["step"],
            "copied_shortest": shortest,
            "copied_searched": min(train.length, SEARCHED_TOKENS),
        }
        if self.val is not None:
            parts = pieces(self.val, [len(text) for text in texts if len(text)])
            other = copies(train, parts, shortest)
            figures |= {
                "held_out_copied_tokens": other.copied,
                "held_out_of": other.tokens,
                "held_out_copied_pieces": other.texts_with,
                "held_out_pieces": other.texts,
                "held_out_longest": other.longest,
            }
        return figures

    def places(self, step: int) -> list[str]:
        """Where each row of update `step` (0-based) stands in the training data."""
        rows = self.batches.stretches(step)
        return ["; ".join(self.data.place(*stretch) for stretch in row) for row in rows]

    def spikes(self, model: LanguageModel, log: Path) -> dict[str, Any]:
        """What the updates of the highest spikes in the log had read, for its last row.

        The stretches of the training data stand in the order of the loss that the model as it is
        has on them, the highest first: what is odd in a batch is still odd at the end.
        """
        found: dict[str, Any] = {}
        for id, step in spike_steps(read_log(log)).items():
            judged = []
            for start, count in [s for row in self.batches.stretches(step - 1) for s in row]:
                batch = windows_at(self.data.splits["train"], np.array([start]), count - 1)
                carries = bool((batch.targets != MASKED).any())
                with self.runtime.autocast():
                    loss = evaluate.score(model, [batch]).loss if carries else 0.0
                judged.append((loss, start, count))
            if len(judged) > 1 and all(math.isfinite(loss) for loss, *_ in judged):
                judged.sort(key=lambda one: -one[0])
                found[f"{id}_worst"] = judged[0][0]
                found[f"{id}_middle"] = judged[len(judged) // 2][0]
            (_, start, count), places = judged[0], [self.data.place(*s) for _, *s in judged]
            found |= {
                f"{id}_step": step,
                f"{id}_read": len(judged),
                f"{id}_first": start + 1,
                f"{id}_source": self.data.source(start, count),
                f"{id}_rows": places,
            }
        return found

    def first_question(self) -> list[int]:
        """The first held-out conversation up to where its answer begins."""
        split = self.val or self.data.splits["train"]
        ids = split.read(0, min(split.length, SEARCHED))
        if split.mask is None:
            return [int(id) for id in ids[:1]]
        carries = np.flatnonzero(split.mask.read(0, len(ids)))
        first = int(carries[0]) if len(carries) else 1
        # The answer may come after documents without one: its question begins where its own does.
        ends: Any = [] if split.documents is None else split.documents[split.documents <= first]
        begin = int(ends[-1]) if len(ends) else 0
        room = self.recipe.model.context_length - 1
        return [int(id) for id in ids[max(begin, first - room) : max(begin + 1, first)]]

    def examiner(self, model: LanguageModel) -> Callable[[int], Mapping[str, Any] | None] | None:
        """Updates made → the marks of an exam that the model sits as it is; None: there is none."""
        if self.recipe.sources == (TUTOR,) and not self.recipe.base:
            return lambda step: tutor_marks(
                step, model, self.data.tokenizer, self.runtime, self.exam_tokens
            )
        exam = self.exam
        if exam is None:
            return None

        def sat(step: int) -> Mapping[str, Any]:
            with self.runtime.autocast():
                return exam.row(
                    step,
                    model,
                    self.data.tokenizer,
                    self.end_ids,
                    self.runtime,
                    self.exam_tokens,
                )

        return sat

    def general(self, model: LanguageModel) -> Callable[[], float] | None:
        """A function that measures the loss on a general text: where it rises, a base forgets."""
        if not self.recipe.base or not self.runtime.main:
            return None
        ids = [self.data.tokenizer.prompt_ids(text) for text in GENERAL_TEXTS]

        def measure() -> float:
            with self.runtime.autocast():
                parts = [
                    evaluate.token_losses(model, row, self.recipe.model.context_length)
                    for row in ids
                    if len(row) > 1
                ]
            losses = torch.cat(parts).double()
            return float(losses.mean())

        return measure

    def keep(self, model: LanguageModel, name: str) -> None:
        """Save the model as it is under RUN/name, a Hugging Face folder."""
        if self.runtime.main:
            # An answer may end in another token than a text.
            self.origin.save(model, self.folder / name, self.data.tokenizer, self.end_ids)
        self.runtime.wait()


def refuse_host_embeddings(recipe: Recipe, where: Runtime) -> None:
    """An embedding in the CPU's memory and several GPUs: data parallelism wants one device.

    Raises:
        InputError: the recipe asks for both, or its memory needs both.
    """
    asked = recipe.base and recipe.adapt.method == "qlora" and recipe.adapt.cpu_embeddings
    if asked and where.world > 1 and where.device.type == "cuda":
        raise InputError(
            f"cpu_embeddings with {where.world} processes: every process must have its whole model "
            "on its own GPU. Leave cpu_embeddings out (and give more memory, where memory chose "
            "it), or train in one process."
        )


def exam_of(recipe: Recipe, folder: Path) -> Exam | None:
    """The exam that a run sits as an exam of files; a base taught by the tutor has the tutor's.

    Raises:
        InputError: as `read_exam`.
    """
    if recipe.exam:
        return Exam(read_exam(recipe.exam), folder)
    if recipe.base and recipe.sources == (TUTOR,):
        return Exam(tutor_items(), folder)
    return None


def as_fitted(recipe: Recipe, chosen: Fit) -> Recipe:
    """The recipe with what was chosen so that it fits; the batch stays the same."""
    job = chosen.job
    train = dataclasses.replace(
        recipe.train,
        micro_batch_size=job.micro_batch,
        gradient_checkpointing=job.train.gradient_checkpointing,
    )
    data = dataclasses.replace(recipe.data, max_length=job.row_length)
    return dataclasses.replace(recipe, train=train, data=data, adapt=job.adapt)


def packs(recipe: Recipe, data: Prepared) -> bool:
    """Whether a run packs documents; `auto` packs conversations.

    Raises:
        InputError: the recipe asks for what the data or its other settings forbid.
    """
    asked, apart = recipe.data.packing, data.splits["train"].documents is not None
    if asked == "on" and not apart:
        raise InputError(
            f"packing is 'on', but {data.folder} keeps no documents apart: its text is one stream. "
            "Leave --packing at auto, or give the documents as files or records of their own."
        )
    packed = asked == "on" or (asked == "auto" and apart and bool(data.facts.get("conversations")))
    if packed and recipe.data.stride:
        raise InputError(
            f"stride is {recipe.data.stride}, but the documents are packed and there are no "
            "windows: leave --stride at 0, or give --packing off."
        )
    if not packed and recipe.data.over_long == "truncate":
        raise InputError(
            "over_long is 'truncate', but the documents are not packed, and windows leave nothing "
            "out: give --packing on, or leave --over-long at split."
        )
    return packed


def state_of(values: Mapping[str, Any]) -> State:
    """The loop's state from a checkpoint's state.json; one from before spikes knows of none."""
    recent = Recent(**{name: tuple(kept) for name, kept in values.get("recent", {}).items()})
    stopping = Stopping(**values["stopping"])
    return State(**{**values["state"], "stopping": stopping, "recent": recent})


def note_session(path: Path, now: dict[str, Any], step: int) -> None:
    """Add the environment of a resumed session: where it differs, equal bytes are not promised."""
    first = files.read_json(path)
    sessions = [*first.get("resumed", []), {"step": step, **now}]
    files.write_json(path, {**first, "resumed": sessions})
