"""The sentences that both kinds of screen say at the start and at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yunque.screen.progress import finite
from yunque.words import say
from yunque.words.exam import kind_name
from yunque.words.screen import WORDS
from yunque.words.writing import number, visible


def start_facts(facts: Mapping[str, Any], lang: str, parts: bool = True) -> list[str]:
    """The facts of a run that are known, each as a few words.

    Args:
        parts: name the parameters of each part of the model after their sum.
    """

    def count(key: str) -> str:
        return number(facts.get(key), lang)

    known = {key for key, value in facts.items() if value is not None}
    words = []
    parameters = facts.get("parameters")
    if isinstance(parameters, Mapping):
        sizes = {str(k): v for k, v in parameters.items() if isinstance(v, int)}
        total = sizes.pop("total", sum(sizes.values()))
        names = ", ".join(f"{_known('part', k, lang)} {number(v, lang)}" for k, v in sizes.items())
        words.append(say("screen.parameters", lang, n=number(total, lang)))
        words[-1] += f" ({names})" if names and parts else ""
    elif parameters is not None:
        words.append(say("screen.parameters", lang, n=number(parameters, lang)))
    tokens = facts.get("tokens") or {}
    splits = {name: number(tokens.get(name), lang) for name in ("train", "val")}
    if tokens.get("val"):
        words.append(say("screen.tokens", lang, **splits))
    elif tokens:
        words.append(say("screen.train_tokens", lang, train=splits["train"]))
    for key, word in (("steps", "steps"), ("batch_size", "batch"), ("context_length", "context")):
        if key in known:
            words.append(say(f"screen.{word}", lang, n=count(key)))
    words += [visible(str(facts[key])) for key in ("device", "precision") if key in known]
    return words


def stop_sentences(reason: str, facts: Mapping[str, Any], lang: str) -> list[str]:
    """Why the run ended, its best evaluation, its folder."""
    sentences = [say("screen.stop", lang, reason=_known("reason", reason, lang))]
    loss, step = finite(facts.get("best_loss")), facts.get("best_step")
    if loss is not None and step is not None:
        best = {"loss": number(loss, lang, 3), "step": number(step, lang)}
        watched = "stop_best" if facts.get("validated") else "stop_best_train"
        sentences.append(say(f"screen.{watched}", lang, **best))
    if facts.get("run"):
        sentences.append(say("screen.stop_run", lang, run=visible(str(facts["run"]))))
    return sentences


def _known(group: str, name: str, lang: str) -> str:
    """The words for a name of ours; a name that we do not know, as it is."""
    key = f"screen.{group}_{name}"
    return say(key, lang) if key in WORDS else visible(name)


def exam_kinds(row: Mapping[str, Any], lang: str) -> str:
    """`suma 20/20, resta 12/20`, in the reader's language; empty where there are no kinds."""
    kinds = row.get("kinds") or {}
    return ", ".join(
        f"{kind_name(str(kind), lang)} {number(right, lang)}/{number(total, lang)}"
        for kind, (right, total) in kinds.items()
    )
