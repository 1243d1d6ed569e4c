"""The screen of a chat: questions come in line by line, answers go out piece by piece.

On a terminal there is a prompt; a file of questions gets nothing but the answers on standard
output, and the line number with every fault.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

from yunque.errors import InputError
from yunque.screen.lines import encodable
from yunque.words.writing import NO_BREAK_SPACE, visible


class ChatConsole:
    """Where a chat is read from and written to.

    Args:
        questions: one a line.
        answers: where they go; None: nowhere.
        notes: what Yunque itself says.
        quiet: no notices; what was asked for and faults are told all the same.
    """

    def __init__(
        self, questions: TextIO, answers: TextIO | None, notes: TextIO, quiet: bool = False
    ) -> None:
        self.questions, self.answers, self.notes, self.quiet = questions, answers, notes, quiet
        self.interactive = questions.isatty()
        self.line = 0
        self._begun = False
        self._held = ""

    def read(self, prompt: str) -> str | None:
        """The next line without its line end; None behind the last one.

        Raises:
            InputError: it is not text.
            KeyboardInterrupt: Ctrl-C instead of a line.
        """
        self.line += 1
        try:
            if not self.interactive:
                line = self.questions.readline()
            elif self.questions is sys.stdin and sys.stdout.isatty():
                with contextlib.suppress(ImportError):  # line editing, where the system has it
                    import readline  # noqa: F401
                line = input(prompt) + "\n"
            else:
                self._write(self.notes, prompt)
                line = self.questions.readline()
        except EOFError:
            line = ""
        except UnicodeDecodeError as error:
            raise InputError(
                f"standard input is not {error.encoding} text (byte {error.start} of what was "
                "read). Convert the file first."
            ) from None
        if not line:
            if self.interactive:
                self._write(self.notes, "\n")
            return None
        if self.line == 1:
            line = line.removeprefix("\ufeff")
        return line.rstrip("\r\n")

    def piece(self, text: str) -> None:
        """The next piece of an answer; white space at its edges is not shown."""
        text = self._held + text
        body = text.rstrip()
        self._held = text[len(body) :]
        body = body if self._begun else body.lstrip()
        if body and self.answers is not None:
            if self.answers.isatty():  # what a model writes must not steer a terminal
                body = visible(body.replace("\t", "    "), newlines=True)
            self._write(self.answers, body)
        self._begun = self._begun or bool(body)
        if not self._begun:
            self._held = ""

    def end_answer(self) -> None:
        """The answer is complete."""
        if self.answers is not None:
            self._write(self.answers, "\n")
        self._begun, self._held = False, ""

    def note(self, text: str) -> None:
        """A notice that nobody asked for."""
        if not self.quiet:
            self.tell(text)

    def tell(self, text: str) -> None:
        """What a command came to."""
        self._write(self.notes, text.replace(NO_BREAK_SPACE, " ") + "\n")

    def fault(self, text: str) -> None:
        """Why something was not done; the chat goes on."""
        self.tell(f"! {text}" if self.interactive else f"yunque: line {self.line}: {text}")

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        stream.write(encodable(text, stream.encoding or "utf-8"))
        stream.flush()


def chat_console(as_json: bool, quiet: bool) -> ChatConsole:
    """The console of this process.

    JSON has standard output for itself: on a terminal the answers are then shown on standard
    error, elsewhere nowhere.
    """
    answers: TextIO | None = sys.stdout
    if as_json:
        answers = sys.stderr if sys.stdin.isatty() else None
    return ChatConsole(sys.stdin, answers, sys.stderr, quiet)
