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
        return [replace(self, turns=turns).to_json() for turns in (*self.ended, self.turns) if turns]
