"""The verbs: each a dataclass of its flags and one call. No logic lives here.

Flags and help are made by tyro from these classes and from those of `config.py`; a class's
docstring is the help of its verb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from tyro.conf import Positional, UseAppendAction

from yunque.config import (
    SECTIONS,
    AdaptConfig,
    DataConfig,
    GenerateConfig,
    MachineConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    Weights,
)
from yunque.errors import InputError, OutOfMemory
from yunque.words import say, user_language
from yunque.words.writing import data_size, duration, number, scientific, visible

if TYPE_CHECKING:
    from yunque.assemble.models import Model, Onto
    from yunque.assemble.runs import RunResult
    from yunque.reports.report import Report as TrainingReport


@dataclass(frozen=True)
class Output:
    """How the answer is given."""

    json: bool = False
    """Print one JSON object on standard output and nothing else there."""
    lang: str = ""
    """es or en. Empty: the language of your system."""
    quiet: bool = False
    """No progress on standard error."""
    debug: bool = False
    """Show the traceback of an error."""

    @property
    def language(self) -> str:
        return self.lang or user_language()


def show(output: Output) -> Any:
    """The screen that a long verb reports to: standard error, live on a terminal."""
    from yunque.screen import make_screen

    return make_screen(output.language, quiet=output.quiet)


def say_all(output: Output, value: dict[str, Any], lines: Sequence[str]) -> None:
    """The answer of a verb: JSON, or its lines."""
    if output.json:
        print(json.dumps(value, ensure_ascii=False, allow_nan=False))
    else:
        print("\n".join(lines))


@dataclass(frozen=True)
class Demo:
    """Train a small maths tutor on the embedded data: the quickest way to see everything.

    A GPT of under two million parameters learns the four operations in Spanish and English from
    generated conversations, sits an exam of problems that it never saw at each evaluation, and
    ends with samples, its score by kind of problem, its losses and the next commands to try.
    About five minutes on two CPU cores.

    For example:
      yunque demo
      yunque demo --out runs/tutor --lang es
    """

    out: str = "runs/demo"
    """The run folder, new or empty. A finished run there is shown again, not trained again."""
    steps: int = 0
    """Updates. 0: as measured for the full demo; 100 gives a first look in half a minute."""
    seed: int = 1
    """Fixes the initial weights, the order of the data, dropout and the samples."""
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.assemble.demo import demo

        with contextlib.closing(show(self.output)) as screen:
            result = demo(
                self.out,
                steps=self.steps,
                seed=self.seed,
                screen=screen,
                lang=self.output.language,
            )
        if result.result.main:
            say_all(self.output, result.to_json(), result.lines(self.output.language))
        return 128 + result.signal if result.signal else 0


@dataclass(frozen=True)
class Prepare:
    """Turn text into token files once, so that runs start at once and need little memory.

    SOURCES are .txt .md .json .jsonl .csv .tsv .parquet files, also compressed (.gz .zst .bz2 .xz),
    folders of them, globs, or data sets of the Hub. Records are recognised by their shape: plain
    text, or conversations (messages, ShareGPT, Alpaca, prompt/completion, question/answer), of
    which only the assistant's words are learnt. Writes train.bin, val.bin (test.bin), data.json,
    ledger.html and tokenizer.json to --out; `yunque pretrain OUT` trains on them. Preparing the
    same sources in the same way again does nothing.

    For example:
      yunque prepare quijote.txt --out tokens --tokenizer bpe:4096 --val 0.1
      yunque prepare chats.jsonl --out tokens --tokenizer bpe:2000
    """

    sources: Positional[tuple[str, ...]] = ()
    """Files, folders, globs, data sets of the Hub."""
    out: str = ""
    """Folder for the token files."""
    data: DataConfig = field(default_factory=DataConfig)
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.assemble.sources import doubts, prepare, remarks
        from yunque.screen.ledger import ledger_lines, print_examples
        from yunque.words.ledger import left_aside

        if not self.out:
            raise InputError("no folder for the tokens: give --out DIR.")
        if not self.sources:
            raise InputError("no sources: name a file or a folder with text or records.")
        with contextlib.closing(show(self.output)) as screen:
            lang = self.output.language
            done = prepare(self.sources, self.out, screen=screen, lang=lang, **vars(self.data))
        facts, folder = done.facts, done.folder
        lines = [say("cli.prepared", lang, folder=folder)]
        if facts["reused"]:
            lines.append(say("cli.prepared_reused", lang))
        elif facts["rebuilt_because"]:
            lines.append(f"  {facts['rebuilt_because'][lang]}")
        counts = {key: facts[key] for key in ("files", "documents", "characters")}
        tokens = ", ".join(f"{split} {number(n, lang)}" for split, n in facts["tokens"].items())
        lines += [
            say("cli.prepared_text", lang, size=data_size(facts["bytes"], lang), **counts),
            say(
                "cli.prepared_tokens",
                lang,
                tokens=tokens,
                per=number(facts["bytes_per_token"], lang, 2),
                vocab=number(facts["vocab_size"], lang),
                unknown=number(facts["unknown_tokens"], lang),
            ),
        ]
        lines += [f"  {line}" for line in ledger_lines(facts["ledger"], lang)]
        lines += [f"  {line}" for line in left_aside(facts.get("left_aside", {}), lang)]
        lines += [f"  ! {doubt.text(lang)}" for doubt in doubts(done, self.data)]
        lines += [f"  · {remark.text(lang)}" for remark in remarks(done)]
        if not facts["reused"]:
            speed = data_size(1e6 * facts["megabytes_per_second"], lang)
            lines.append(
                say("cli.prepared_speed", lang, seconds=duration(facts["seconds"]), speed=speed)
            )
        lines.append(say("cli.prepared_next", lang, folder=folder))
        say_all(self.output, {"folder": str(done.folder), **facts}, lines)
        if not self.output.json and not self.output.quiet:
            names = [source["name"] for source in facts["sources"]]
            print_examples(facts["examples"], names, sys.stdout, lang)
        return 0


def shared(source: object, but: str = "") -> dict[str, Any]:
    """The sections that a verb and a recipe both hold, for the one to be made from the other.

    Args:
        but: a section that is left out.
    """
    held = (name for name in SECTIONS if name != but and hasattr(source, name))
    return {name: getattr(source, name) for name in held}


@dataclass(frozen=True)
class Pretrain:
    """Train a GPT from scratch on your own text.

    SOURCES are .txt files, folders of them, or one folder made by `yunque prepare`. Measures
    training and validation loss before the first update and every --eval-every updates, writes a
    sample of text each time, keeps the best model in RUN/best, stops when the validation loss no
    longer improves, and writes a report. Ctrl-C saves; `yunque resume RUN` goes on exactly.

    Values come from, in rising order: the defaults, --preset (nano, gpt2-124m, gpt2-355m,
    gpt2-774m, gpt2-1558m, llama-135m, llama-1.1b, phi-1.4b, phi-2.8b), --recipe, the other flags.

    For example:
      yunque pretrain quijote.txt --out runs/quijote --tokenizer char
      yunque pretrain texts/ --out runs/mine --preset nano --steps 3000 --dropout 0.1
      yunque pretrain book.txt --recipe recipes/sancho-mini.toml --out runs/book
    """

    sources: Positional[tuple[str, ...]] = ()
    """Text files, folders, or one prepared folder. Empty: those of the recipe."""
    out: str = ""
    """The run folder, new or empty."""
    recipe: str = ""
    """A recipe file (TOML) with any of the values below."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.assemble.recipes import base_recipe, later_length
        from yunque.assemble.runs import pretrain

        base = base_recipe(self.recipe, self.model.preset)
        asked = dataclasses.replace(base, sources=tuple(self.sources), **shared(self))
        recipe = later_length(base, asked)
        with contextlib.closing(show(self.output)) as screen:
            result = pretrain(out=self.out, recipe=recipe, screen=screen, lang=self.output.language)
        return tell_run(result, self.output)


@dataclass(frozen=True)
class Finetune:
    """Train a model further on your own examples, and say whether it became better.

    MODEL is a run folder, a model folder or a Hub id. SOURCES are conversations (OpenAI messages,
    ShareGPT, Alpaca, prompt/completion, question/answer tables) or text; of conversations only the
    assistant's words are learnt. With --exam, the base sits it before the first update and the
    model at each evaluation; the last words say plainly: better, no different, or worse.

    Values come from, in rising order: the defaults of --method, --recipe, the other flags. Usual
    learning rates: 2e-4 for lora and qlora, 2e-5 for full; three passes.

    For example:
      yunque finetune runs/demo chats.jsonl --out runs/helper --exam exam.jsonl
      yunque finetune microsoft/phi-2 data/ --out runs/tutor --method qlora --watch exam
    """

    model: Positional[str] = ""
    """Run folder, model folder or Hub id. Empty: that of the recipe."""
    sources: Positional[tuple[str, ...]] = ()
    """Files or folders with conversations or text. Empty: those of the recipe."""
    out: str = ""
    """The run folder, new or empty."""
    recipe: str = ""
    """A recipe file (TOML) with any of the values below."""
    exam: str = ""
    """A file of questions with checkable answers: a number, a text, one of several options."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.assemble.recipes import finetune_recipe, later_length
        from yunque.assemble.runs import finetune

        base = finetune_recipe(self.recipe, self.adapt.method)
        asked = dataclasses.replace(
            base,
            base=self.model or base.base,
            exam=self.exam or base.exam,
            sources=tuple(self.sources) or base.sources,
            **shared(self, but="model"),
        )
        recipe = later_length(base, asked)
        with contextlib.closing(show(self.output)) as screen:
            result = finetune(out=self.out, recipe=recipe, screen=screen, lang=self.output.language)
        return tell_run(result, self.output)


@dataclass(frozen=True)
class Resume:
    """Continue an interrupted run exactly where its newest checkpoint stands.

    The order of the data, dropout and the learning rate are functions of the seed and the step,
    so the finished run has the same losses and weights as one that was never interrupted.

    With --verify nothing is continued or written: some updates are made again from a checkpoint,
    with the evaluations on the way, and that part of the log is confirmed (exit code 0) or refuted
    (1), bit for bit. It says what it did not look at; samples and exams are never made again.

    A change of recipe.toml, of the data or of the machine is told, with what is still promised:
    exact, reproducible (equal but for rounding) or continued (another experiment from here on).

    For example:
      yunque resume runs/quijote
      yunque resume runs/quijote --set steps=4000 --set learning_rate=1e-4
      yunque resume runs/quijote --verify --steps 50
    """

    run: Positional[str]
    """The run folder."""
    verify: bool = False
    """Make some updates again and hold them against the log; the run is left as it is."""
    steps: int = 20
    """Updates that --verify makes again."""
    set: UseAppendAction[tuple[str, ...]] = ()
    """key=value of the recipe, from here on; may be given several times."""
    force: bool = False
    """Go on though the data, the tokenizer or the order of the run changed, or begin again where
    all its checkpoints are lost."""
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        if self.verify:
            return self.verified()
        from yunque.assemble.resumption import settings
        from yunque.assemble.runs import resume

        chosen = settings(self.set)
        with contextlib.closing(show(self.output)) as screen:
            result = resume(
                self.run,
                settings=chosen,
                force=self.force,
                screen=screen,
                lang=self.output.language,
            )
        return tell_run(result, self.output)

    def verified(self) -> int:
        """Replay, and tell what came of it."""
        from yunque.assemble.replay import replay

        lang = self.output.language
        done = replay(self.run, self.steps)
        numbers = {
            "steps": done.steps,
            "first": done.begun_at + 1,
            "tensors": done.tensors,
            "updates": done.updates,
            "measured": len(done.measured),
            "evaluations": done.evaluations,
        }
        lines = [say("cli.replayed" if done.confirmed else "cli.refuted", lang, **numbers)]
        unseen = max(0, done.updates - done.steps), done.evaluations - len(done.measured)
        if done.confirmed and any(unseen):
            left = {"updates": unseen[0], "evaluations": unseen[1]}
            lines.append(say("cli.not_replayed", lang, **left))
        lines += [
            say("cli.difference", lang, **dataclasses.asdict(one)) for one in done.differences[:10]
        ]
        if done.changed and not done.confirmed:
            lines.append(say("cli.changed", lang, what="; ".join(done.changed)))
        say_all(self.output, done.to_json(), lines)
        return 0 if done.confirmed else 1


def tell_run(result: RunResult, output: Output) -> int:
    """Print what a run came to; the exit code says whether a signal stopped it."""
    failed = result.reason in ("non_finite", "spikes")
    code = 128 + result.signal if result.signal else 2 if failed else 0
    if not result.main:
        return code
    lang = output.language
    reason = result.reason
    if reason == "early_stopping" and result.watched == "exam":
        reason = "by_exam"
    lines = [say(f"cli.stopped_{reason}", lang, run=result.run, steps=result.steps)]
    if result.best_loss is not None:
        key = "cli.best_val" if result.validated else "cli.best_train"
        loss, ppl = number(result.best_loss, lang, 4), number(result.perplexity, lang, 2)
        lines.append(say(key, lang, loss=loss, ppl=ppl, step=result.best_step))
    if result.verdict is not None and not result.signal:
        lines += ["", result.verdict[lang], ""]
    lines += exam_words(result, lang)
    if result.best_loss is not None:
        lines.append(say("cli.run_next", lang, run=result.run))
    say_all(output, result.to_json(), lines)
    return code


def opened(
    model: str, device: str, full_base: bool, output: Output, weights: Weights = "full"
) -> Model:
    """MODEL; where transformers computes it, that is said on standard error."""
    from yunque.assemble.models import load

    onto: Onto = "full" if full_base else "trained"
    found = load(model, device=device, onto=onto, weights=weights)
    if found.by_transformers and not output.quiet:
        family = found.module.config.family
        print(say("cli.by_transformers", output.language, family=family), file=sys.stderr)
    return found


def exam_words(result: RunResult, lang: str) -> list[str]:
    """Better, no different or worse than the base, plainly; nothing without an exam of both."""
    exam = result.exam
    if exam is None or exam["base"] is None or "verdict" not in exam["last"]:
        return []
    base, last, best = exam["base"], exam["last"], exam["best"]
    key = {"better": "better", "no different": "same", "worse": "worse"}[last["verdict"]]
    lines = [
        say(
            "cli.exam_result",
            lang,
            before=base["right"],
            after=last["right"],
            total=last["total"],
            lost=last["lost"],
            gained=last["gained"],
            p=number(last["p_value"], lang, 3)
            if last["p_value"] >= 0.0005
            else scientific(last["p_value"], lang),
        ),
        say(f"cli.exam_{key}", lang),
    ]
    if best["step"] == 0:
        lines.append(say("cli.exam_kept_base", lang))
    elif best["step"] != last["step"]:
        kept = {name: best[name] for name in ("step", "right", "total")}
        lines.append(say("cli.exam_kept", lang, **kept))
    return [*lines, ""]


@dataclass(frozen=True)
class Generate:
    """Let a model write.

    MODEL is a run folder (its best/), a model folder or a Hub id. Texts longer than the model's
    context go on with a sliding window. Temperature 0 always takes the most probable token.

    For example:
      yunque generate runs/quijote --prompt "En un lugar" --temperature 0.7
      yunque generate runs/demo --chat --prompt "¿Cuánto es 47 + 38?" --temperature 0
      yunque generate runs/quijote --prompt "Sancho" --beams 4
    """

    model: Positional[str]
    """Run folder, model folder or Hub id (OWNER/NAME, also with @REVISION)."""
    prompt: str = ""
    """Text to continue. Empty: a new document."""
    chat: bool = False
    """Put the prompt into the model's chat template, as a user's message."""
    settings: GenerateConfig = field(default_factory=GenerateConfig)
    full_base: bool = False
    """Put an adapter that was trained on a quantised base (QLoRA) on the base in the precision of
    its files: another model than the one that was trained and examined."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    weights: Weights = "full"
    """full, or int8: faster on CPUs, with results that are not exactly the model's."""
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        model = opened(self.model, self.device, self.full_base, self.output, self.weights)
        live = not self.output.json and self.settings.samples == 1
        lead = "" if self.chat else self.prompt
        started = False

        def show_piece(piece: str) -> None:
            nonlocal started
            print(on_screen(piece if started else lead + piece), end="", flush=True)
            started = True

        text = model.generate(
            self.prompt,
            chat=self.chat,
            settings=self.settings,
            on_text=show_piece if live else None,
        )
        if text.generation.window_slid and not self.output.quiet:
            length = model.module.config.context_length
            print(file=sys.stderr)
            print(say("cli.window_slid", self.output.language, length=length), file=sys.stderr)
        if live:
            print()
        else:
            lines = [f"--- {n}\n{on_screen(lead + one)}" for n, one in enumerate(text.texts, 1)]
            say_all(self.output, text.to_json(), lines)
        return 0


def on_screen(text: str) -> str:
    """What a model wrote, for standard output: a terminal gets nothing that could steer it."""
    if not sys.stdout.isatty():
        return text
    return "\t".join(visible(part, newlines=True) for part in text.split("\t"))


@dataclass(frozen=True)
class Chat:
    """Talk with a model, in its chat template; the answers appear as they are written.

    MODEL is a run folder (its best/), a model folder, an adapter folder or a Hub id. The model is
    given the conversation as far as its context holds it: of a long one the oldest turns are left
    out, each question with its answer, and the system prompt stays.

    A line is a question, or a command: /reset begins anew, /undo takes the last question and its
    answer back, /temperature N, /save FILE, /help, /quit. A question that begins with / gets a
    space before it. Ctrl-C stops an answer and keeps what was written; at the prompt it ends the
    chat, as Ctrl-D does.

    The transcript (.json or .jsonl, by the name of the file) holds {"messages": [...]}, which
    `yunque prepare` and training read. Where standard input is a file, each line is a question
    and standard output holds the answers only; a line that could not be answered is named on
    standard error, and the exit code is then 2.

    For example:
      yunque chat runs/demo
      yunque chat runs/demo --save talk.jsonl --system "Answer in one line." --temperature 0.3
      yunque chat runs/demo --temperature 0 --quiet < questions.txt > answers.txt
    """

    model: Positional[str]
    """Run folder, model folder, adapter folder or Hub id (OWNER/NAME, also with @REVISION)."""
    save: str = ""
    """File for the transcript, new (.json or .jsonl); written after every turn."""
    system: str = ""
    """System prompt: what the model is told before the first question."""
    settings: GenerateConfig = field(default_factory=GenerateConfig)
    full_base: bool = False
    """Put an adapter that was trained on a quantised base (QLoRA) on the base in the precision of
    its files: another model than the one that was trained and examined."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    weights: Weights = "full"
    """full, or int8: faster on CPUs, with results that are not exactly the model's."""
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.assemble.chat import Talk, new_chat
        from yunque.screen.chat import chat_console

        chat = new_chat(self.system, self.settings, self.save)
        model = opened(self.model, self.device, self.full_base, self.output, self.weights)
        console = chat_console(self.output.json, self.output.quiet)
        talk = Talk(model, chat, console, save=self.save, lang=self.output.language)
        code = talk.run()
        if self.output.json:
            say_all(self.output, talk.chat.to_json(), [])
        return code


@dataclass(frozen=True)
class Evaluate:
    """Loss, perplexity and bits per byte of a model over any text, and its marks in an exam.

    Every token is predicted once, in non-overlapping windows of the model's context; sums and
    counts are pooled over all files. Loss is in nats per token; bits per byte compares models
    with different tokenizers.

    An exam is a file of questions whose answers a program can check (.jsonl .json .csv .tsv
    .parquet; question and answer, or conversations whose last turn is the key). Each question is
    asked once, with greedy decoding, in the model's chat template; a model without one is asked
    in plain words (User: …, Assistant:), as when it is fine-tuned.

    For example:
      yunque evaluate runs/quijote other-text.txt
      yunque evaluate runs/tutor --exam exam.jsonl --exam-out replies.jsonl
    """

    model: Positional[str]
    """Run folder, model folder or Hub id (OWNER/NAME, also with @REVISION)."""
    sources: Positional[tuple[str, ...]] = ()
    """Text files and folders. May be left out where there is an exam."""
    exam: str = ""
    """A file of questions with their answers."""
    exam_out: str = ""
    """File (.jsonl) for every question with the model's reply, the key and the mark."""
    max_new_tokens: int = 256
    """Longest reply to a question of the exam, in tokens; replies end at the end token."""
    full_base: bool = False
    """Put an adapter that was trained on a quantised base (QLoRA) on the base in the precision of
    its files: another model than the one that was trained and examined."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    weights: Weights = "full"
    """full, or int8: faster on CPUs, with results that are not exactly the model's."""
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.assemble.exams import exam_json, exam_lines, read_exam, write_replies

        if not self.sources and not self.exam:
            raise InputError("nothing to evaluate: name sources, or an exam with --exam FILE.")
        if self.exam_out and not self.exam:
            raise InputError("--exam-out holds the replies to an exam: give --exam FILE too.")
        lang, lines = self.output.language, []
        items = read_exam(self.exam) if self.exam else []
        model = opened(self.model, self.device, self.full_base, self.output, self.weights)
        value: dict[str, Any] = dict.fromkeys(
            ("loss", "perplexity", "bits_per_byte", "tokens", "bytes", "exam")
        )
        if self.sources:
            score = model.evaluate(self.sources)
            value |= dataclasses.asdict(score)
            lines.append(
                say(
                    "cli.evaluated",
                    lang,
                    loss=number(score.loss, lang, 4),
                    ppl=number(score.perplexity, lang, 3),
                    bpb=number(score.bits_per_byte, lang, 4),
                    tokens=number(score.tokens, lang),
                    bytes=number(score.bytes, lang),
                )
            )
        if items:
            with contextlib.closing(show(self.output)) as screen:
                if model.tokenizer.chat_template is None:
                    screen.warning(say("exam.no_template", lang))
                result = model.exam(
                    items,
                    max_new_tokens=self.max_new_tokens,
                    progress=lambda done, of: screen.progress(
                        say("exam.progress", lang), done / of
                    ),
                )
            value["exam"] = exam_json(result)
            lines += exam_lines(result, lang)
            if self.exam_out:
                write_replies(result, self.exam_out)
                lines.append(say("exam.written", lang, path=self.exam_out))
        say_all(self.output, value, lines)
        return 0


@dataclass(frozen=True)
class Explain:
    """What a model thinks of each token of a text: its probability, its loss, the alternatives.

    For example:
      yunque explain runs/quijote --text "En un lugar de la Mancha"
      yunque explain runs/quijote --text "En un lugar" --out explanation.html
    """

    model: Positional[str]
    """Run folder, model folder or Hub id (OWNER/NAME, also with @REVISION)."""
    text: str = ""
    """The text to explain."""
    alternatives: int = 5
    """Best alternatives shown for each token."""
    out: str = ""
    """Also write an HTML page coloured by loss."""
    full_base: bool = False
    """Put an adapter that was trained on a quantised base (QLoRA) on the base in the precision of
    its files: another model than the one that was trained and examined."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        if self.alternatives < 0:
            raise InputError(f"alternatives is {self.alternatives}: 0 or more.")
        model = opened(self.model, self.device, self.full_base, self.output)
        tokens = model.explain(self.text, self.alternatives)
        lang = self.output.language
        if self.out:
            from yunque.files import write_text
            from yunque.reports.explain_page import explain_html

            title = say("cli.explain_title", lang, model=self.model)
            page = explain_html(tokens, lang, title, {"model": self.model, "tokens": len(tokens)})
            write_text(Path(self.out), page)
        if self.output.json:
            rows = [dataclasses.asdict(token) for token in tokens]
            say_all(self.output, {"text": self.text, "tokens": rows}, [])
        else:
            from yunque.screen import print_explanation

            print_explanation(tokens, sys.stdout, lang)
            if self.out:
                print(say("cli.page_written", lang, path=self.out))
        return 0


@dataclass(frozen=True)
class Convert:
    """Write a model in an open format, and certify that it is the same model.

    What is written is read back from disk, by transformers or as GGUF, and compared with the
    model that it came from: token ids, logits, greedy texts, end of text. Where --dtype rounds the
    weights, it is compared with the rounded model, and its distance from the source is told. OUT
    gets a model card (README.md) and certificate.json. An export that differs is not kept.

    For example:
      yunque convert runs/quijote quijote-hf --to hf --dtype bfloat16
      yunque convert runs/quijote quijote-gguf --to gguf --dtype q8_0
    """

    model: Positional[str]
    """Run folder or model folder."""
    out: Positional[str]
    """Folder for the export, new or empty."""
    to: Literal["hf", "gguf"] = "hf"
    """hf: a folder that transformers opens; gguf: a file for llama.cpp."""
    merge: bool = False
    """Put the changes of an adapter into a copy of its base model."""
    merge_onto: Literal["full", "dequantised"] = "full"
    """Of an adapter that was trained on a quantised base (QLoRA): full: the base in the precision
    of its files; dequantised: the weights that it was trained on. Either way the answer says how
    far both are from the model that was trained."""
    dtype: Literal["", "float32", "bfloat16", "float16", "q8_0"] = ""
    """Number format of the weights: float32; bfloat16 or float16, half as large; q8_0, a quarter,
    for gguf only. A smaller one rounds the weights; the certificate says how far that moves the
    model. Empty: as the source is stored, which loses nothing."""
    shard_size: str = ""
    """Largest size of one file of weights, as 2GB or 500MB. Empty: one file."""
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.assemble.convert import convert

        lang = self.output.language
        done = convert(
            self.model,
            self.out,
            to=self.to,
            merge=self.merge,
            merge_onto=self.merge_onto,
            dtype=self.dtype,
            shard_size=self.shard_size,
            lang=lang,
        )
        lines = done.sentences(lang)
        if done.drifts:
            drifts = {name: scientific(value, lang) for name, value in done.drifts.items()}
            lines.append(say(f"cli.merged_{self.merge_onto}", lang, **drifts))
        say_all(self.output, done.to_json(), lines)
        return 0


@dataclass(frozen=True)
class Report:
    """What happened in a training: the curves, the best step, the findings, the evidence.

    LOG is a run folder or another tool's log: Hugging Face (trainer_state.json), TensorBoard, W&B
    and trackio (CSV), Lightning (metrics.csv), LLaMA-Factory, text logs of llm.c or nanoGPT, any
    table (CSV, JSON lines) with a step and a loss. For a run folder of Yunque the page is
    RUN/report.html, beside report.json and report.png, unless --out names another; for the logs and
    folders of other tools a page is written only where --out names it.

    For example:
      yunque report runs/quijote
      yunque report trainer_state.json --out report.html
      yunque report --compare runs/a runs/b --out compared.html
      yunque report runs/quijote --watch
    """

    log: Positional[str] = ""
    """Run folder or log file."""
    compare: tuple[str, ...] = ()
    """Runs or logs to set side by side, two or more; each is held against the first."""
    out: str = ""
    """File for the page (.html, .md, .png or .json). Empty: the run folder; none for other logs,
    and none for a comparison."""
    watch: bool = False
    """Show the page on this machine alone, and renew it while the run goes on."""
    port: int = 0
    """Where the page of --watch is shown. 0: any port that is free."""
    columns: str = ""
    """Columns of a table whose names do not tell, as step=it,train_loss=my_loss."""
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.reports.report import report, write

        pairs = [pair.partition("=") for pair in self.columns.split(",") if pair]
        columns = {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
        if self.compare:
            paths = [path for path in (self.log, *self.compare) if path]
            return self.side_by_side(
                [report(Path(p), self.output.language, columns) for p in paths]
            )
        if not self.log:
            raise InputError("report: got no LOG, expected a run folder or a log.")
        if self.watch:
            return self.show_live(lambda: report(Path(self.log), self.output.language, columns))
        made = report(Path(self.log), self.output.language, columns)
        # Folders of other tools are theirs: a page goes there only where --out says so.
        own = Path(self.log).is_dir() and made.log.format == "yunque"
        target = self.out or (self.log if own else "")
        written = write(made, Path(target)) if target else []
        lines = [made.summary(self.output.language)]
        lines += [say("cli.page_written", self.output.language, path=path) for path in written]
        say_all(self.output, made.json, lines)
        return 0 if made.is_training_log else 2

    def show_live(self, read: Callable[[], TrainingReport]) -> int:
        from yunque.reports.watch import server

        lang = self.output.language
        with server(Path(self.log), read, lang, self.port) as served:
            url = f"http://127.0.0.1:{served.server_address[1]}/"
            line = say("cli.watching", lang, path=self.log, url=url)
            say_all(self.output, {"url": url}, [line])
            sys.stdout.flush()
            with contextlib.suppress(KeyboardInterrupt):
                served.serve_forever(poll_interval=0.2)
        return 0

    def side_by_side(self, runs: Sequence[TrainingReport]) -> int:
        from yunque.reports.compare import compare
        from yunque.reports.compare_page import terminal, to_json, write

        made, lang = compare(runs), self.output.language
        written = [write(made, Path(self.out), lang)] if self.out else []
        lines = [terminal(made, lang)]
        lines += [say("cli.page_written", lang, path=path) for path in written]
        say_all(self.output, to_json(made), lines)
        return 0


@dataclass(frozen=True)
class Plan:
    """What a run will take before it runs: memory by part, time, disk, electricity; does it fit?

    RECIPE is a recipe file or a run folder; flags go over it, and without one they are the recipe.
    Also said: what could be changed, with what each gives in memory and costs in time, and a
    second opinion on the recipe. The first forecast measures this machine for some seconds; the
    measurement is kept, and every run that ends makes the next forecast better.

    For example:
      yunque plan --preset gpt2-124m --batch-size 8 --steps 10000
      yunque plan recipes/sancho-mini.toml
      yunque plan --base phi-2.8b --method qlora --max-length 390 --on "GTX 1050 Ti 4GB"
    """

    recipe: Positional[str] = ""
    """A recipe file (.toml) or a run folder, before the flags. Empty: the flags are the recipe."""
    base: str = ""
    """The MODEL that is fine-tuned, or the name of a preset for its shape alone. Empty: that of
    the recipe, else training from scratch."""
    sources: tuple[str, ...] = ()
    """What is trained on; the sizes of the files give the number of passes."""
    on: str = ""
    """Another machine, by its published figures: 'GTX 1050 Ti 4GB', h200… Empty: this one."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.assemble.planning import plan, planned_recipe
        from yunque.assemble.recipes import later_length

        start = planned_recipe(self.recipe, self.base, self.adapt.method, self.model.preset)
        asked = dataclasses.replace(start, sources=tuple(self.sources), **shared(self))
        recipe = later_length(start, asked)
        with contextlib.closing(show(self.output)) as screen:
            made = plan(recipe, on=self.on, screen=screen, lang=self.output.language)
        say_all(self.output, made.to_json(), made.lines(self.output.language))
        return OutOfMemory.exit_code if made.chosen and not made.chosen.fits else 0


@dataclass(frozen=True)
class Doctor:
    """Look at every layer from Python to CUDA: there, missing or unusable, and what mends it.

    For example:
      yunque doctor
    """

    output: Output = field(default_factory=Output)

    def __call__(self) -> int:
        from yunque.doctor import diagnose, render, to_json

        checks = diagnose()
        say_all(self.output, to_json(checks), [render(checks, self.output.language)])
        return 0


VERBS: dict[str, type[Any]] = {
    "demo": Demo,
    "prepare": Prepare,
    "pretrain": Pretrain,
    "finetune": Finetune,
    "resume": Resume,
    "generate": Generate,
    "chat": Chat,
    "evaluate": Evaluate,
    "explain": Explain,
    "convert": Convert,
    "report": Report,
    "plan": Plan,
    "doctor": Doctor,
}


def parse(verb: str, arguments: Sequence[str]) -> Any:
    """Flags → the verb's dataclass; the preset and the recipe give the defaults.

    Raises:
        InputError: the recipe or the preset cannot be used.
        SystemExit: 2 on unknown or ill-typed flags (tyro names the nearest), 0 after --help.
    """
    arguments = written_out(verb, arguments)
    default: Any = tyro.MISSING_NONPROP
    if verb == "pretrain":
        from yunque.assemble.recipes import base_recipe

        path, name = flag(arguments, "--recipe"), flag(arguments, "--preset")
        base = base_recipe(path, name)
        default = Pretrain(sources=base.sources, recipe=path, **shared(base, but="adapt"))
    if verb == "finetune":
        from yunque.assemble.recipes import finetune_recipe

        path = flag(arguments, "--recipe")
        base = finetune_recipe(path, flag(arguments, "--method"))
        default = Finetune(
            model=base.base,
            sources=base.sources,
            recipe=path,
            exam=base.exam,
            **shared(base, but="model"),
        )
    if verb == "plan":
        from yunque.assemble.planning import planned_recipe

        first = arguments[0] if arguments and not arguments[0].startswith("-") else ""
        named = [flag(arguments, name) for name in ("--base", "--method", "--preset")]
        base = planned_recipe(first, *named)
        default = Plan(base=base.base, sources=base.sources, recipe=first, **shared(base))
    kind = VERBS[verb]
    return tyro.cli(
        kind,
        prog=f"yunque {verb}",
        description=inspect.cleandoc(kind.__doc__ or ""),
        args=list(arguments),
        default=default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )


def written_out(verb: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with what is short written out: --fit, and --val or --test given as 10%.

    Raises:
        InputError: both --fit and --memory are given.
    """
    found = list(arguments)
    if verb in ("pretrain", "finetune", "plan") and "--fit" in found:
        if flag(arguments, "--memory"):
            raise InputError("--fit is short for --memory auto: give one of the two.")
        found[found.index("--fit")] = "--memory=auto"
    for index, argument in enumerate(found):
        name, equals, value = argument.rpartition("=")
        if not equals:
            name, value = (found[index - 1] if index else ""), argument
        if name in ("--val", "--test") and re.fullmatch(r"\d+(\.\d+)?%", value):
            share = str(float(value[:-1]) / 100)
            found[index] = f"{name}={share}" if equals else share
    return found


def flag(arguments: Sequence[str], name: str) -> str:
    """Value of one flag, looked up before parsing; "" where it is not given."""
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return ""
