"""The command: overview, dispatch, errors as messages. The verbs themselves are in verbs.py,
which is imported only when one runs, so that `yunque --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from yunque import __version__, heap
from yunque.config import unknown_name
from yunque.errors import InputError, StorageError, YunqueError, without_secrets
from yunque.words import LANGUAGES, say, user_language

VERBS = (
    "demo",
    "prepare",
    "pretrain",
    "finetune",
    "resume",
    "generate",
    "chat",
    "evaluate",
    "explain",
    "convert",
    "report",
    "plan",
    "doctor",
)


def overview(lang: str) -> str:
    """The help of the command itself: one line a verb."""
    lines = [say("cli.tagline", lang), "", say("cli.usage", lang), ""]
    lines += [f"  {name:<10}{say(f'cli.verb_{name}', lang)}" for name in VERBS]
    return "\n".join([*lines, "", say("cli.more", lang)])


def chosen_language(words: Sequence[str]) -> str:
    """The value of --lang, else the user's language."""
    for index, word in enumerate(words):
        if word == "--lang" and index + 1 < len(words):
            return words[index + 1]
        if word.startswith("--lang="):
            return word.partition("=")[2]
    return user_language()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, as_json = "--debug" in words, "--json" in words
    try:
        lang = chosen_language(words)
        if lang not in LANGUAGES:
            raise InputError(unknown_name(lang, LANGUAGES, "language"))
        if words and words[0].partition("=")[0] == "--lang":  # yunque --lang es VERB
            own = 1 if "=" in words[0] else 2
            words = words[own:] + (words[:own] if words[own:] else [])
        if not words or words[0] in ("-h", "--help", "help"):
            print(overview(lang))
            return 0
        if words[0] in ("-V", "--version"):
            print(f"yunque {__version__}")
            return 0
        if words[0] not in VERBS:
            raise InputError(unknown_name(words[0], VERBS, "verb"))
        if arguments is None:
            heap.begin_anew(words[0])
        from yunque.verbs import parse

        return int(parse(words[0], words[1:])())
    except YunqueError as error:
        if debug:
            raise
        return complain(str(error), error.exit_code, as_json)
    except SystemExit as stop:
        if as_json and stop.code == 2:  # what was wrong stands on standard error
            text = f"the flags of {words[0]} could not be read; yunque {words[0]} --help lists them"
            print(json.dumps({"error": {"exit_code": 2, "message": text}}))
        raise
    except KeyboardInterrupt:
        print(say("cli.interrupted", lang), file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        if debug:
            raise
        return complain(str(error), StorageError.exit_code, as_json)
    except Exception as error:
        if debug:
            raise
        text = f"{type(error).__name__}: {error}\nThis is our own fault; --debug shows where."
        return complain(text, 1, as_json)


def complain(text: str, code: int, as_json: bool) -> int:
    """Print an error: on standard error, as JSON also on standard output."""
    text = without_secrets(text)
    print(f"yunque: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": {"exit_code": code, "message": text}}, ensure_ascii=False))
    return code


if __name__ == "__main__":
    sys.exit(main())
