"""The embedded tutor, from data to last words: `yunque demo`.

PyTorch is imported inside functions: meanwhile another process prepares the data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yunque.assemble.tutor import RECIPE, talk
from yunque.config import TUTOR, GenerateConfig
from yunque.data import tutor
from yunque.data.alignment import render_prompt
from yunque.data.chat_template import chat_template_of
from yunque.data.rendered import encode_rendered
from yunque.data.tokenizer import Tokenizer
from yunque.errors import InputError
from yunque.exam import ExamResult, Question, sit
from yunque.files import in_use
from yunque.screen import Screen
from yunque.words import say
from yunque.words.writing import duration, number, percent

if TYPE_CHECKING:
    from yunque.assemble.exams import ExamItem
    from yunque.assemble.runs import RunResult
    from yunque.model.protocol import LanguageModel
    from yunque.runtime import Runtime

EVALUATION_EXAM, FINAL_EXAM = 120, 300
EXAM_SEEDS = {EVALUATION_EXAM: 7, FINAL_EXAM: 1}  # other questions at the end than on the way
ANSWER_TOKENS = 120


def tutor_items() -> list[ExamItem]:
    """The tutor's exam of an evaluation as questions for any model."""
    from yunque.assemble.exams import ExamItem

    made = tutor.make("exam", EVALUATION_EXAM, EXAM_SEEDS[EVALUATION_EXAM])
    return [
        ExamItem(tuple(talk(problem)[:1]), str(problem.answer), "number", problem.kind)
        for problem in made
    ]


def tutor_exam(
    model: LanguageModel,
    tokenizer: Tokenizer,
    count: int = EVALUATION_EXAM,
    where: Runtime | None = None,
    batch_tokens: int = 0,
) -> ExamResult:
    """Sit an exam of problems that no training text holds, with greedy answers."""
    from yunque.assemble.exams import shared_sitting
    from yunque.generate.decode import generate

    chat = chat_template_of(tokenizer)
    questions = []
    for problem in tutor.make("exam", count, EXAM_SEEDS[count]):
        asked = render_prompt(talk(problem)[:1], chat)
        prompt = tuple(encode_rendered(tokenizer, asked)[0].tolist())
        questions.append(Question(prompt, str(problem.answer), problem.kind, problem.question))
    settings = GenerateConfig(temperature=0.0, max_new_tokens=ANSWER_TOKENS)

    def ask(prompts: list[list[int]]) -> list[str]:
        made = generate(model, prompts, settings, [tokenizer.separator_id])
        return [tokenizer.decode(ids) for ids in made.token_ids]

    def part(own: Sequence[Question]) -> ExamResult:
        return sit(ask, own, batch_tokens=batch_tokens, reply_tokens=ANSWER_TOKENS)

    return part(questions) if where is None else shared_sitting(part, questions, where)


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to."""

    result: RunResult
    exam: ExamResult | None
    """None: the run was interrupted before its final exam, or another process sat it."""

    @property
    def signal(self) -> int:
        return self.result.signal

    def to_json(self) -> dict[str, Any]:
        from yunque.assemble.exams import exam_json

        if self.exam is None:
            return {**self.result.to_json(), "exam": None}
        return {**self.result.to_json(), "exam": exam_json(self.exam)}

    def lines(self, lang: str) -> list[str]:
        """The last words of the demo: samples, marks, losses, where everything is, what next."""
        run, result = self.result.run, self.result
        if self.exam is None:
            return [say("cli.stopped_interrupted", lang, run=run, steps=result.steps)]
        shown = [reply for reply in self.exam.replies if reply[0].kind in ("addition", "missing")]
        lines = ["", say("demo.samples", lang)]
        for question, reply, good in shown[:3]:
            mark = "✓" if good else "✗"
            lines += ["", f"  {question.text}"]
            lines += [f"    {line}" for line in reply.strip().splitlines()]
            lines[-1] += f"   {mark}"
        lines += ["", say("demo.exam", lang, total=self.exam.total)]
        for kind, (right, total) in sorted(self.exam.by_kind.items()):
            share = percent(right / total, lang)
            lines.append(f"  {say(f'demo.{kind}', lang):<22} {right:>3}/{total:<3} {share:>6}")
        low, high = self.exam.interval
        lines.append(
            say(
                "demo.total",
                lang,
                right=self.exam.right,
                total=self.exam.total,
                share=percent(self.exam.accuracy, lang, 1),
                low=percent(low, lang),
                high=percent(high, lang),
            )
        )
        lines += [
            "",
            say(
                "demo.losses",
                lang,
                train=number(result.train_loss, lang, 4),
                loss=number(result.best_loss, lang, 4),
                ppl=number(result.perplexity, lang, 3),
                step=result.best_step,
                steps=result.steps,
                time=duration(result.seconds),
            ),
            say("demo.folder", lang, run=run),
            "",
            say("demo.next", lang),
            f"  yunque report {run}",
            f'  yunque generate {run} --chat --temperature 0 --prompt "{say("demo.ask", lang)}"',
            f'  yunque explain {run} --text "{say("demo.explain", lang)}"',
        ]
        return lines


def demo(out: str | Path, *, steps: int, seed: int, screen: Screen, lang: str) -> DemoResult:
    """Train the tutor, or show again one that is trained; then the final exam.

    An interrupted demo goes on where it stopped.

    Raises:
        InputError: `out` holds something else than a demo.
    """
    from yunque.config import read_tree

    path = Path(out) / "recipe.toml"
    if path.is_file():
        if read_tree(path).get("sources") != [TUTOR]:
            raise InputError(f"{out}: holds another run. Choose another --out for the demo.")
        from yunque.assemble.runs import resume

        result = resume(out, screen=screen, lang=lang)
    else:
        train = dataclasses.replace(RECIPE.train, steps=steps or RECIPE.train.steps)
        recipe = dataclasses.replace(RECIPE, train=train).replace(seed=seed)
        with preparing(Path(out), lang):
            from yunque.assemble.runs import pretrain
        result = pretrain(out=out, recipe=recipe, screen=screen, lang=lang)
    screen.close()
    if result.signal or not result.main:
        return DemoResult(result, None)
    from yunque.assemble.models import load

    model = load(result.run)
    return DemoResult(result, tutor_exam(model.decoder, model.tokenizer, FINAL_EXAM))


@contextlib.contextmanager
def preparing(run: Path, lang: str) -> Iterator[None]:
    """Prepare the data of a new run in a process of its own, while this one does what is inside.

    What that process leaves undone, whatever the reason, the run does itself. Where a run has
    several processes, one of those that they start does it, and all wait for that one.
    """
    data = run / "data"
    command = [sys.executable, "-P", "-m", "yunque", "prepare", TUTOR, "--out", str(data)]
    command += ["--tokenizer", RECIPE.data.tokenizer, "--loss", RECIPE.data.loss]
    command += ["--lang", lang, "--quiet"]
    helper: subprocess.Popen[bytes] | None = None
    nowhere = subprocess.DEVNULL
    if not run.exists():
        with contextlib.suppress(OSError):
            helper = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        with ending_on_request():
            yield
            if helper is not None:
                helper.wait()
    except BaseException:
        if helper is not None:
            helper.terminate()
            helper.wait()
        raise
    while in_use(data):
        time.sleep(0.05)


@contextlib.contextmanager
def ending_on_request() -> Iterator[None]:
    """SIGTERM ends this process as an error does, not at once: what it started ends with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tutor_marks(
    step: int, model: LanguageModel, tokenizer: Tokenizer, where: Runtime, batch_tokens: int
) -> Mapping[str, Any] | None:
    """The exam of an evaluation as a row of the run log.

    None before the first update: random weights get nothing right, at great length.
    """
    if step == 0:
        return None
    return tutor_exam(model, tokenizer, where=where, batch_tokens=batch_tokens).marks()
