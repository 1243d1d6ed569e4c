"""Exam files → questions; a model sits the exam.

An exam is read from the files that conversations are read from (json, jsonl, csv, tsv, parquet):

| columns                                                | the key is                      |
|--------------------------------------------------------|---------------------------------|
| question + answer (pregunta, problem; answer_number,   | the answer; after its last ####,|
| key, clave, answerKey, respuesta, solution)            | or in its last \\boxed{}         |
| two columns without names                              | the second one                  |
| messages, conversations, instruction/output, prompt/…  | the assistant's last turn       |

Optional columns: `kind` (what scores are grouped by), `choices` (the options), `check` (number,
exact, choice or regex) and `regex` (an expression instead of a key). Without `check`: choice where
there are choices, number where the key is a number with at most a unit, else exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn, cast

from yunque.config import DataConfig, GenerateConfig, unknown_name
from yunque.data.alignment import render_prompt
from yunque.data.chat_template import chat_template_of, conversing
from yunque.data.conversations import Conversation, Message, messages_of, misspelt, seen
from yunque.data.reader import Record
from yunque.data.records import read_records, record_kind
from yunque.data.rendered import encode_rendered
from yunque.data.sources import RECORD_SUFFIXES
from yunque.data.tokenizer import Tokenizer
from yunque.errors import InputError
from yunque.exam import ExamResult, Question, compare, marked, sit
from yunque.files import write_text
from yunque.generate.decode import generate
from yunque.marking.answers import CHECKS, LETTERS, Check, is_plain_number, key_fault
from yunque.marking.statements import boxed
from yunque.model.protocol import LanguageModel
from yunque.runtime import Runtime
from yunque.words import say
from yunque.words.exam import kind_name
from yunque.words.writing import number, percent

QUESTION = ("question", "pregunta", "problem", "problema")
KEY = ("answer_number", "key", "clave", "answerKey", "answer", "respuesta", "solution", "solución")
KIND = ("kind", "category", "tipo", "categoría", "categoria", "subject", "type")
CHOICES = ("choices", "options", "opciones")
CONVERSATIONS = ("messages", "conversations", "instruction", "prompt")
NAMES = (*QUESTION, *KEY, *KIND, *CHOICES, *CONVERSATIONS)
ANSWER_TOKENS = 256
BATCH_SIZE = 32
LONGEST_KEY = 200
"""Characters of a key that a model could be asked to write exactly."""


@dataclass(frozen=True)
class ExamItem:
    """One question of an exam file."""

    messages: tuple[Message, ...]
    """What is asked: the conversation up to where the reply begins."""
    answer: str
    """The key."""
    check: Check
    kind: str
    """What the scores are grouped by; the check where the file does not say."""
    choices: tuple[str, ...] = ()
    where: str = ""
    """file:line"""

    @property
    def question(self) -> str:
        """The question as a reader should see it: the last message of the user."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


# Files → items


def read_exam(path: str | Path) -> list[ExamItem]:
    """The questions of an exam file, in its order.

    Raises:
        InputError: no such file, no questions, or a record that is none, with file and line.
        StorageError: the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}, expected an exam file ({', '.join(RECORD_SUFFIXES)}).")
    if record_kind(path) not in RECORD_SUFFIXES:
        raise InputError(
            f"{path}: an exam is read from {', '.join(RECORD_SUFFIXES)}, not from "
            f"{record_kind(path) or 'a file without a suffix'}."
        )
    items = [item_of(record) for record in read_records(path, DataConfig(header=header_of(path)))]
    if not items:
        raise InputError(f"{path}: no questions. Expected at least one record.")
    return items


def header_of(path: Path) -> Any:
    """Whether the first row of a table names its columns: "no" where two names say nothing."""
    if record_kind(path) not in (".csv", ".tsv"):
        return "auto"
    with_header = DataConfig(header="yes")
    first = next(iter(read_records(path, with_header, on_bad=lambda bad: None)), None)
    if first is None:
        return "auto"
    known = any(name in first.fields for name in (*QUESTION, *KEY, *CONVERSATIONS))
    return "yes" if known else "no" if len(first.fields) == 2 else "auto"


def item_of(record: Record) -> ExamItem:
    """The question that a record holds.

    Raises:
        InputError: file and line, what is wrong, and what to do.
    """
    where, fields = f"{record.source}:{record.line}", record.fields
    choices, labels = choices_of(fields, where)
    messages, key = asked(record, where)
    check, key = check_of(fields, key, choices, labels, where)
    fault = key_fault(key, check, choices)
    if fault:
        fail(where, fault)
    if check == "exact" and (len(key) > LONGEST_KEY or "\n" in key.strip()):
        fail(
            where,
            f"the answer has {len(key)} characters in {len(key.splitlines())} lines; no reply will "
            "be equal to it. End it with #### and the final answer, or give a regex column.",
        )
    if choices:
        messages = with_options(messages, choices)
    kind = str(next((fields[name] for name in KIND if fields.get(name)), check))
    return ExamItem(messages, key, check, kind, choices, where)


def asked(record: Record, where: str) -> tuple[tuple[Message, ...], Any]:
    """What a record asks, and what stands for its answer (None where nothing does)."""
    fields = record.fields
    name = next((name for name in QUESTION if name in fields), None)
    if name is None and set(fields) == {"1", "2"}:
        name, key = "1", fields["2"]
    else:
        key = next((fields[k] for k in KEY if fields.get(k) not in (None, "")), None)
    if name is not None:
        question = fields[name]
        if not isinstance(question, str) or not question.strip():
            fail(where, f"{name} is {question!r}, expected the text of a question.")
        system = fields.get("system")
        first = (Message("system", system),) if isinstance(system, str) and system.strip() else ()
        if key is None and not any(k in fields for k in (*KEY, "regex")):
            hint = misspelt(fields, NAMES)
            fail(where, f"no answer in the columns {seen(fields)}.{hint} Expected answer.")
        return (*first, Message("user", question)), key
    if not any(name in fields for name in CONVERSATIONS):
        fail(
            where,
            f"no question in the columns {seen(fields)}.{misspelt(fields, NAMES)} Expected "
            f"question and answer (or pregunta "
            "and respuesta), messages, conversations, instruction and output, or prompt and "
            "completion.",
        )
    talk = messages_of(record, {})
    if not isinstance(talk, Conversation) or talk.messages[-1].role != "assistant":
        fail(where, "the last turn is not the assistant's, so there is no answer to check against.")
    *before, last = talk.messages
    if not any(message.role == "user" for message in before):
        fail(where, "no turn of the user, so there is no question.")
    return tuple(before), last.content


def check_of(
    fields: Mapping[str, Any], key: Any, choices: Sequence[str], labels: Sequence[str], where: str
) -> tuple[Check, str]:
    """How a reply is checked, and against what."""
    stated = fields.get("check") or None
    if stated is not None and stated not in CHECKS:
        fail(where, "check: " + unknown_name(str(stated), CHECKS, "check"))
    pattern = fields.get("regex")
    if isinstance(pattern, str) and pattern:
        if stated not in (None, "regex"):
            fail(where, f"check is {stated!r} and there is a regex too. Leave one of them out.")
        return "regex", pattern
    if key is None or isinstance(key, bool) or not isinstance(key, (str, int, float)):
        fail(where, f"the answer is {key!r}, expected a text or a number.")
    if stated == "regex":
        return "regex", str(key)
    if choices or stated == "choice":
        return "choice", chosen_key(key, choices, labels, where)
    text = final_answer(key) if isinstance(key, str) else figure(key)
    check = stated or ("number" if is_plain_number(text) else "exact")
    return cast(Check, check), text


def final_answer(text: str) -> str:
    """The key in a worked solution: after its last `####`, else in its last box, else all of it."""
    _, mark, after = text.rpartition("####")
    if mark and after.strip():
        return after.strip().splitlines()[0].strip()
    box = boxed(text)
    return box[1].strip() if box else text.strip()


def figure(value: int | float) -> str:
    """A number of JSON as a key; 1.234 gets a zero, so that it is not read as 1,234."""
    text = f"{Decimal(repr(value)):f}"
    return f"{text}0" if re.fullmatch(r"-?[1-9]\d{0,2}\.\d{3}", text) else text


def choices_of(fields: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options of a question and what they are called; both empty where it has none."""
    value = next((fields[name] for name in CHOICES if fields.get(name)), None)
    if value is None:
        lettered = [letter for letter in LETTERS if letter in fields]
        if len(lettered) < 2:
            return (), ()
        value = [fields[letter] for letter in lettered if fields[letter] not in (None, "")]
    if isinstance(value, str):
        value = options_in_text(value)
    labels = list(LETTERS)
    if isinstance(value, dict) and {"text", "label"} <= value.keys():  # as ARC has it
        labels, value = value["label"], value["text"]
    if not isinstance(value, list) or not all(is_option(v) for v in value):
        fail(where, "choices: expected a list of texts (in a table: A | B | C, or a JSON list).")
    if not isinstance(labels, list) or len(labels) < len(value) <= len(LETTERS):
        fail(where, f"choices: label is {labels!r}, expected a list with one for each text.")
    if len(value) > len(LETTERS):
        fail(where, f"choices: expected 2 to {len(LETTERS)}, got {len(value)}.")
    options = tuple(v if isinstance(v, str) else figure(v) for v in value)
    return options, tuple(str(label) for label in labels[: len(options)])


def is_option(value: Any) -> bool:
    """Whether a value is a text or a number; JSON's true and false are neither."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def options_in_text(text: str) -> Any:
    """The options that one field of a table holds: a JSON list, or texts between bars."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return [part.strip() for part in text.split("|")]


def chosen_key(
    key: str | int | float, choices: Sequence[str], labels: Sequence[str], where: str
) -> str:
    """The letter of the right option: the key is its text, its label, or (a number) its index.

    Raises:
        InputError: the key could mean two of them.
    """
    text = key.strip() if isinstance(key, str) else figure(key)
    meant = {choices.index(text)} if text in choices else set()
    if isinstance(key, int) and 0 <= key < len(choices):
        meant.add(key)
    elif text in labels:
        meant.add(labels.index(text))
    if len(meant) > 1:
        fail(
            where,
            f"the answer {text!r} is one of the choices and the index or label of another. Give "
            "the letter of the right choice.",
        )
    return LETTERS[meant.pop()] if meant else text


def with_options(messages: tuple[Message, ...], choices: Sequence[str]) -> tuple[Message, ...]:
    """The options below the question, unless it shows them all by itself."""
    *before, last = messages
    if all(choice in last.content for choice in choices):
        return messages
    lines = [f"{letter}) {text}" for letter, text in zip(LETTERS, choices, strict=False)]
    return (*before, Message(last.role, "\n".join([last.content, *lines])))


def fail(where: str, what: str) -> NoReturn:
    raise InputError(f"{where}: {what}")


# Items → replies


def questions_of(items: Sequence[ExamItem], tokenizer: Tokenizer) -> list[Question]:
    """The questions as token ids: in the model's chat template; without one, in the plain one.

    The plain template is the one that a base without a template is fine-tuned with, so that the
    base is asked alike before, during and after.

    Raises:
        InputError: the template does not take such messages.
    """
    found = []
    tokenizer = conversing(tokenizer)
    template = chat_template_of(tokenizer)
    for item in items:
        prompt = render_prompt(list(item.messages), template)
        ids = [int(id) for id in encode_rendered(tokenizer, prompt)[0]]
        found.append(
            Question(tuple(ids), item.answer, item.kind, item.question, item.check, item.choices)
        )
    return found


def sit_exam(
    module: LanguageModel,
    tokenizer: Tokenizer,
    end_ids: Collection[int],
    items: Sequence[ExamItem],
    *,
    max_new_tokens: int = ANSWER_TOKENS,
    batch_size: int = BATCH_SIZE,
    batch_tokens: int = 0,
    progress: Callable[[int, int], None] | None = None,
    where: Runtime | None = None,
) -> ExamResult:
    """Ask a model every question, greedily, and mark its replies.

    Args:
        batch_tokens: most tokens of one batch, replies included. 0: no bound but `batch_size`.
        where: the processes that share the questions; each gets all the marks.

    Raises:
        InputError: a question leaves no room for a reply in the model's context.
    """
    questions = questions_of(items, tokenizer)
    context = module.config.context_length
    for question, item in zip(questions, items, strict=True):
        if len(question.prompt) >= context:
            fail(
                item.where,
                f"the question has {len(question.prompt)} tokens, the context is {context}. "
                "Take it out of the exam, or use a model with a longer context.",
            )
    settings = GenerateConfig(temperature=0.0, max_new_tokens=max_new_tokens)

    def ask(prompts: list[list[int]]) -> list[str]:
        made = generate(module, prompts, settings, end_ids)
        return [tokenizer.decode(ids) for ids in made.token_ids]

    def part(own: Sequence[Question]) -> ExamResult:
        return sit(ask, own, batch_size, progress, batch_tokens, max_new_tokens)

    return part(questions) if where is None else shared_sitting(part, questions, where)


def shared_sitting(
    sit_part: Callable[[Sequence[Question]], ExamResult],
    questions: Sequence[Question],
    where: Runtime,
) -> ExamResult:
    """The marks of an exam whose questions the processes of a run share out.

    Args:
        sit_part: lets this process's model sit some of them.
    """
    own = questions[where.rank :: where.world]
    replies = [reply for _, reply, _ in sit_part(own).replies] if own else []
    parts = [json.loads(text) for text in where.gather(json.dumps(replies))]
    return marked(
        questions, [parts[n % where.world][n // where.world] for n in range(len(questions))]
    )


def exam_json(result: ExamResult) -> dict[str, Any]:
    """An exam as the JSON output holds it."""
    return {**result.marks(), "accuracy": result.accuracy, "interval": list(result.interval)}


def exam_lines(result: ExamResult, lang: str) -> list[str]:
    """An exam in words: the marks with their interval, and by kind where there are several."""
    low, high = result.interval
    lines = [
        say(
            "exam.total",
            lang,
            right=number(result.right, lang),
            total=number(result.total, lang),
            share=percent(result.accuracy, lang, 1),
            low=percent(low, lang),
            high=percent(high, lang),
        )
    ]
    if len(result.by_kind) > 1:
        named = {kind: kind_name(kind, lang) for kind in result.by_kind}
        width = max(map(len, named.values()))
        for kind, (right, total) in sorted(result.by_kind.items()):
            share = percent(right / total, lang)
            lines.append(f"  {named[kind]:<{width}}  {right:>4}/{total:<4} {share:>6}")
    return lines


def write_replies(result: ExamResult, path: str | Path) -> None:
    """Every question with its reply, key and mark, one JSON object a line.

    Raises:
        StorageError: the file cannot be written.
    """
    rows = [
        {
            "question": question.text,
            "reply": reply,
            "key": question.answer,
            "right": good,
            "check": question.check,
            "kind": question.kind,
            **({"choices": question.choices} if question.choices else {}),
        }
        for question, reply, good in result.replies
    ]
    write_text(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class Exam:
    """The exam of a run: sat before the first update and at each evaluation, every reply kept.

    Args:
        items: the questions.
        folder: where the replies go, one file for each sitting.
    """

    def __init__(self, items: Sequence[ExamItem], folder: Path) -> None:
        self.items, self.folder = items, folder

    def file(self, step: int) -> Path:
        """The replies after so many updates."""
        return self.folder / f"step-{step:08d}.jsonl"

    def row(
        self,
        step: int,
        model: LanguageModel,
        tokenizer: Tokenizer,
        end_ids: Collection[int],
        where: Runtime,
        batch_tokens: int = 0,
    ) -> dict[str, Any]:
        """Let the model sit it: the marks, and from the second time on the change since step 0.

        Keys: right, total, kinds; lost, gained (answers that were right before and are wrong now,
        and the other way round), p_value (exact, two-sided) and verdict (better, no different,
        worse).
        """
        result = sit_exam(
            model, tokenizer, end_ids, self.items, batch_tokens=batch_tokens, where=where
        )
        if where.main:
            write_replies(result, self.file(step))
        where.wait()  # the replies of the base must lie there for all
        row = result.marks()
        if step > 0 and self.file(0).is_file():
            change = compare(self.replies(0, tokenizer), result)
            row |= {
                "lost": len(change.lost),
                "gained": len(change.gained),
                "p_value": float(change.p_value),
                "verdict": change.verdict,
            }
        return row

    def replies(self, step: int, tokenizer: Tokenizer) -> ExamResult:
        """A sitting as its file tells it.

        Raises:
            InputError: the file is damaged or of another exam.
        """
        path = self.file(step)
        try:
            # splitlines() would also cut at the line separators that a reply may hold.
            lines = path.read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines if line]
            texts = [str(row["reply"]) for row in rows]
            asked = [(row["question"], row["key"], row["check"]) for row in rows]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: not the replies of an exam: {error}.") from None
        if len(texts) != len(self.items):
            raise InputError(f"{path}: {len(texts)} replies, the exam has {len(self.items)}.")
        for line, (one, item) in enumerate(zip(asked, self.items, strict=True), 1):
            if one != (item.question, item.answer, item.check):
                raise InputError(
                    f"{path}, line {line}: a reply to {one[0]!r} with the key {one[1]!r}, but "
                    f"{item.where} asks {item.question!r} with the key {item.answer!r}. Put back "
                    "the exam that the run began with."
                )
        return marked(questions_of(self.items, tokenizer), texts)
