"""A CHAT WITH A MODEL: turns as one value, cut to the context by whole turns; the commands."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from yunque.assemble.models import Model
from yunque.config import GenerateConfig, unknown_name
from yunque.data.conversations import Message
from yunque.errors import InputError, StorageError
from yunque.files import remove_file, write_json, write_text
from yunque.generate.decode import check
from yunque.screen.chat import ChatConsole
from yunque.words import say
from yunque.words.writing import number

COMMANDS = ("help", "quit", "reset", "save", "temperature", "undo")

Encode = Callable[[Sequence[Message]], list[int]]


# The value


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """What the model is given for one answer."""

    ids: list[int]
    dropped: int
    """Turns, the oldest ones, that are not among the ids."""
    settings: GenerateConfig
    """With a seed of its own, and no more new tokens than the context has room for."""


@dataclass(frozen=True)
class Chat:
    """A conversation so far; every change makes a new one."""

    system: str = ""
    settings: GenerateConfig = field(default_factory=GenerateConfig)
    turns: tuple[Turn, ...] = ()
    ended: tuple[tuple[Turn, ...], ...] = ()
    """Conversations before a reset: the model has forgotten them, the transcript has not."""
    asked: int = 0
    """Answers written so far, undone ones too: a question asked again draws another answer."""

    def prompt(self, question: str, encode: Encode, context: int) -> Prompt:
        """The next question after as many of the newest turns as the context holds.

        Half of the context at most is kept free for the answer. Turns leave whole, the oldest
        first; the system prompt stays.

        Args:
            encode: messages → ids, ready for the answer.
            context: tokens that the model sees at once.

        Raises:
            InputError: the system prompt and the question alone leave no room for an answer.
        """
        room = min(self.settings.max_new_tokens, context // 2)

        @cache
        def ids_from(first: int) -> list[int]:
            return encode(self.messages(self.turns[first:], question))

        def fits(first: int) -> bool:
            return len(ids_from(first)) + room <= context

        first = bisect_left(range(len(self.turns)), True, key=fits)
        ids = ids_from(first)
        left = context - len(ids)
        if left < 1:
            what = "the system prompt and the question are" if self.system else "the question is"
            raise InputError(
                f"{what} {len(ids):,} tokens, and the model's context is {context:,}, the answer "
                "included. Say it in fewer words."
            )
        settings = replace(
            self.settings,
            max_new_tokens=min(self.settings.max_new_tokens, left),
            seed=(self.settings.seed + self.asked) % 2**31,
        )
        return Prompt(ids, first, settings)

    def messages(self, turns: Sequence[Turn], question: str = "") -> list[Message]:
        """The system prompt, some turns, and a question that is still to be answered."""
        found = [Message("system", self.system)] if self.system else []
        for turn in turns:
            # Without loss: a template may then leave the reasoning of past answers out.
            found.append(Message("user", turn.question))
            found.append(Message("assistant", turn.answer, loss=False))
        return [*found, Message("user", question)] if question else found

    def answered(self, question: str, answer: str) -> Chat:
        """With one more turn; an empty answer is none, and the question goes with it."""
        turns = (*self.turns, Turn(question, answer)) if answer else self.turns
        return replace(self, turns=turns, asked=self.asked + 1)

    def undo(self) -> Chat:
        """Without the last question and its answer.

        Raises:
            InputError: there is none.
        """
        if not self.turns:
            raise InputError("nothing to undo: no question has been answered yet.")
        return replace(self, turns=self.turns[:-1])

    def reset(self) -> Chat:
        """A new conversation under the same system prompt."""
        ended = (*self.ended, self.turns) if self.turns else self.ended
        return replace(self, turns=(), ended=ended)

    def at_temperature(self, text: str) -> Chat:
        """With another temperature, as somebody wrote it; a decimal comma is understood.

        Raises:
            InputError: it is no number, or below 0.
        """
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"temperature: expected 0 (greedy) or more, got {text!r}.")
        return replace(self, settings=replace(self.settings, temperature=value))

    def to_json(self) -> dict[str, Any]:
        """The conversation since the last reset, as `yunque prepare` reads it."""
        return {"messages": [message.as_dict() for message in self.messages(self.turns)]}

    def transcript(self) -> list[dict[str, Any]]:
        """Every conversation that has a turn, the oldest first, each as `to_json`."""
        return [
            replace(self, turns=turns).to_json() for turns in (*self.ended, self.turns) if turns
        ]


def new_chat(system: str, settings: GenerateConfig, save: str) -> Chat:
    """An empty chat, everything checked that can be before a model is opened.

    Raises:
        InputError: a setting is out of range, or the transcript's file is not one to write.
    """
    check(settings)
    if settings.samples != 1:
        raise InputError(f"samples is {settings.samples}: a chat writes one answer, leave it at 1.")
    if save:
        new_file(save)
    return Chat(system if system.strip() else "", settings)


# The transcript


def new_file(name: str) -> Path:
    """Where a transcript is to be written.

    Raises:
        InputError: something stands there already, or the suffix is another.
    """
    path = Path(name)
    if path.suffix not in (".json", ".jsonl"):
        raise InputError(f"{name}: a transcript is a .json or a .jsonl file; name it so.")
    if path.exists():
        raise InputError(f"{name}: is there already, and nothing is overwritten. Name a new file.")
    return path


def write_transcript(path: Path, chat: Chat) -> None:
    """Write every conversation of a chat: one object, several where there was a /reset.

    JSON lines hold one conversation a line; JSON holds the one, or a list of them.

    Raises:
        StorageError: the file cannot be written; an older one is still there.
    """
    talks = chat.transcript()
    if path.suffix == ".jsonl":
        write_text(path, "".join(json.dumps(talk, ensure_ascii=False) + "\n" for talk in talks))
    else:
        write_json(path, talks[0] if len(talks) == 1 else talks)


# The loop


class Talk:
    """A chat that goes on: reads a line, asks the model or obeys a command, until the end.

    Args:
        chat: as `new_chat` gives it.
        save: file that holds the transcript after every turn; "" for none.

    Raises:
        InputError: the model has no chat template, its template refuses the system prompt, or
            the system prompt leaves no room in the context.
    """

    def __init__(
        self, model: Model, chat: Chat, console: ChatConsole, *, save: str = "", lang: str = "en"
    ) -> None:
        self.model, self.chat, self.console, self.lang = model, chat, console, lang
        self.save = Path(save) if save else None
        self.written: set[Path] = set()
        self.context = model.module.config.context_length
        self.faults = 0
        self._told_dropped = False
        chat.prompt("?", model.chat_ids, self.context)

    def run(self) -> int:
        """Until the last line, /quit or Ctrl-C; the exit code.

        A file of questions comes to 2 where a line could not be done, to 130 after Ctrl-C.
        """
        console = self.console
        prompt = ""
        if console.interactive:
            prompt = say("chat.prompt", self.lang)
            name = str(self.model.folder)
            console.note(say("chat.hello", self.lang, model=name, context=self.context))
        while True:
            try:
                line = console.read(prompt)
                if line is None or not self.obeyed(line):
                    break
            except KeyboardInterrupt:
                console.tell("")
                return 0 if console.interactive else 130
        return 2 if self.faults and not console.interactive else 0

    def obeyed(self, line: str) -> bool:
        """Do what a line says; False where it ends the chat."""
        try:
            if line.startswith("/"):
                return self.command(line)
            if line.strip():
                self.ask(line.strip())
        except (InputError, StorageError) as fault:
            self.faults += 1
            self.console.fault(str(fault))
        return True

    def command(self, line: str) -> bool:
        """A line that begins with /; False for /quit.

        Raises:
            InputError: there is no such command, or it cannot be done.
            StorageError: the transcript cannot be written.
        """
        name, _, value = line[1:].strip().partition(" ")
        name, value = name.lower(), value.strip()
        if name not in COMMANDS:
            known = [f"/{command}" for command in COMMANDS]
            raise InputError(
                unknown_name(f"/{name}", known, "command")
                + " A question that begins with / gets a space before it."
            )
        if value and name not in ("save", "temperature"):
            raise InputError(f"/{name} stands alone on its line, got {value!r} behind it.")
        if name == "help":
            self.console.tell(say("chat.help", self.lang))
        elif name == "reset":
            self.chat, self._told_dropped = self.chat.reset(), False
            self.console.note(say("chat.reset", self.lang))
        elif name == "undo":
            question = self.chat.turns[-1].question if self.chat.turns else ""
            self.chat = self.chat.undo()
            self.keep()
            self.console.note(say("chat.undone", self.lang, question=question))
        elif name == "temperature":
            if value:
                self.chat = self.chat.at_temperature(value)
            now = number(self.chat.settings.temperature, self.lang, 2)
            self.console.note(say("chat.temperature", self.lang, temperature=now))
        elif name == "save":
            self.save_as(value)
        return name != "quit"

    def ask(self, question: str) -> None:
        """One turn: the answer as it is written, then the transcript.

        Raises:
            InputError: the question is no text or too long; it is then as if never asked.
            StorageError: the transcript cannot be written; the turn is kept.
            KeyboardInterrupt: Ctrl-C where questions come from a file; the turn is kept.
        """
        try:
            question.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError("the question holds bytes that are no text.") from None
        prompt = self.chat.prompt(question, self.model.chat_ids, self.context)
        if prompt.dropped and not self._told_dropped:
            self._told_dropped = True
            self.console.note(say("chat.dropped", self.lang, context=self.context))
        pieces: list[str] = []

        def show(piece: str) -> None:
            pieces.append(piece)
            self.console.piece(piece)

        stopped = False
        try:
            made = self.model.continued(prompt.ids, prompt.settings, show)
            reason, pieces = made.stopped[0], made.texts or []
        except KeyboardInterrupt:
            reason, stopped = "stopped", True
        answer = "".join(pieces).strip()
        self.chat = self.chat.answered(question, answer)
        self.console.end_answer()
        self.keep()
        if stopped and not self.console.interactive:
            raise KeyboardInterrupt
        tokens = prompt.settings.max_new_tokens
        if not answer:
            reason = "empty"
        elif reason == "length":
            reason = "cut" if tokens == self.chat.settings.max_new_tokens else "full"
        if reason not in ("end", "stop"):
            told = say(f"chat.{reason}", self.lang, tokens=tokens, context=self.context)
            self.console.note(told)

    def keep(self) -> None:
        """Bring the transcript's file up to date.

        Raises:
            StorageError: it cannot be written.
        """
        if self.save is None:
            return
        if self.chat.transcript():
            write_transcript(self.save, self.chat)
            self.written.add(self.save)
        elif self.save in self.written:  # the only turn was taken back
            remove_file(self.save)

    def save_as(self, name: str) -> None:
        """`/save FILE`, or `/save` for the file of --save.

        Raises:
            InputError: no file was named, nothing to write, or the file is not one to write.
            StorageError: it cannot be written.
        """
        path = Path(name) if name else self.save
        if path is None:
            raise InputError("/save: name a file, as in /save talk.jsonl.")
        if not self.chat.transcript():
            raise InputError("/save: nothing to save, no question has been answered yet.")
        if path not in self.written:
            new_file(str(path))
        write_transcript(path, self.chat)
        self.written.add(path)
        turns = len(self.chat.turns) + sum(map(len, self.chat.ended))
        self.console.note(say("chat.saved", self.lang, path=path, turns=turns))
