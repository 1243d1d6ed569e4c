"""The embedded tutor, from data to last words: `yunque demo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yunque.assemble.exams import exam_json, shared_sitting
from yunque.config import (
    TUTOR,
    DataConfig,
    GenerateConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    TrainConfig,
)
from yunque.data import tutor
from yunque.data.alignment import Rendered, render, render_prompt
from yunque.data.chat_template import DEFAULT_CHAT_TEMPLATE, ChatTemplate, chat_template_of
from yunque.data.conversations import Message
from yunque.data.prepare import Prepared, Progress, prepare_conversations
from yunque.data.rendered import encode_rendered
from yunque.data.tokenizer import Tokenizer
from yunque.errors import InputError
from yunque.exam import ExamResult, Question, sit
from yunque.generate.decode import generate
from yunque.model.protocol import LanguageModel
from yunque.words import say
from yunque.words.writing import duration, number, percent

if TYPE_CHECKING:
    from yunque.assemble.runs import RunResult
    from yunque.runtime import Runtime
from yunque.screen import Screen

CONVERSATIONS = {"train": 40_000, "val": 600}
EVALUATION_EXAM, FINAL_EXAM = 120, 300
EXAM_SEEDS = {EVALUATION_EXAM: 7, FINAL_EXAM: 1}  # other questions at the end than on the way
ANSWER_TOKENS = 120

# Measured in docs/lab-notes.md: what each choice gave.
RECIPE = Recipe(
    sources=(TUTOR,),
    data=DataConfig(tokenizer="bpe:512", packing="off", loss="all"),
    model=ModelConfig(
        context_length=128,
        num_layers=4,
        num_heads=4,
        hidden_size=128,
        qk_norm=True,
        dropout=0.0,
    ),
    optim=OptimConfig(
        optimizer="muon",
        learning_rate=3e-3,
        muon_learning_rate=0.02,
        schedule="linear",
        warmup_steps=50,
        final_learning_rate_fraction=0.0,
    ),
    train=TrainConfig(
        batch_size=16,
        steps=1250,
        eval_every=250,
        eval_tokens=32_768,
        patience=5,
        sample_prompt="<|user|>¿Cuánto es 47 + 38?<|assistant|>",
        sample_tokens=100,
    ),
)


def talk(problem: tutor.Problem) -> list[Message]:
    """A problem of the tutor as a conversation."""
    return [Message(**message) for message in tutor.messages(problem)]  # type: ignore[arg-type]


def prepare_tutor(config: DataConfig, out: Path, progress: Progress | None = None) -> Prepared:
    """Token files of the tutor's conversations."""
    chat = ChatTemplate(end_token=config.separator)

    def splits() -> dict[str, list[Rendered]]:
        return {
            split: [
                render(talk(problem), chat)
                for problem in tutor.make(split, count, seed=1)  # type: ignore[arg-type]
            ]
            for split, count in CONVERSATIONS.items()
        }

    name = f"{TUTOR} 1 {sorted(CONVERSATIONS.items())}"
    return prepare_conversations(splits, name, config, out, DEFAULT_CHAT_TEMPLATE, progress)


def tutor_exam(
    model: LanguageModel,
    tokenizer: Tokenizer,
    count: int = EVALUATION_EXAM,
    where: Runtime | None = None,
    batch_tokens: int = 0,
) -> ExamResult:
    """Sit an exam of problems that no training text holds, with greedy answers."""
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
    from yunque.assemble.models import load
    from yunque.assemble.runs import pretrain, resume
    from yunque.config import read_tree

    path = Path(out) / "recipe.toml"
    if path.is_file():
        if read_tree(path).get("sources") != [TUTOR]:
            raise InputError(f"{out}: holds another run. Choose another --out for the demo.")
        result = resume(out, screen=screen, lang=lang)
    else:
        train = dataclasses.replace(RECIPE.train, steps=steps or RECIPE.train.steps)
        recipe = dataclasses.replace(RECIPE, train=train).replace(seed=seed)
        result = pretrain(out=out, recipe=recipe, screen=screen, lang=lang)
    screen.close()
    if result.signal or not result.main:
        return DemoResult(result, None)
    model = load(result.run)
    return DemoResult(result, tutor_exam(model.decoder, model.tokenizer, FINAL_EXAM))


def tutor_marks(
    step: int, model: LanguageModel, tokenizer: Tokenizer, where: Runtime, batch_tokens: int
) -> Mapping[str, Any] | None:
    """The exam of an evaluation as a row of the run log.

    None before the first update: random weights get nothing right, at great length.
    """
    if step == 0:
        return None
    return tutor_exam(model, tokenizer, where=where, batch_tokens=batch_tokens).marks()
