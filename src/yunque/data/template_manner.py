"""HOW A TEMPLATE SPEAKS, learnt from small conversations of our own, before any record is read.

The same probes find the faults that would teach a model nothing, or the wrong side: a template
that drops the answer, that has no turn for the assistant, or that swaps the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from yunque.data.chat_template import ChatTemplate
from yunque.data.checks import Check
from yunque.data.conversations import Message
from yunque.data.marks import Edges, Place, free_marks, marked, places
from yunque.errors import InputError

QUESTION, ANSWER, THANKS = "Cuatro y cinco", "Nueve", "Gracias"
MEND = "Use the template that belongs to the model, or leave it out to use the default one."
USER_WORD = re.compile(r"user|human|usuario|\[INST\]|pregunta|question|instruction", re.IGNORECASE)
ASSISTANT_WORD = re.compile(
    r"assistant|\bai\b|asistente|model|bot|gpt|\[/INST\]|respuesta|response|answer", re.IGNORECASE
)


@dataclass(frozen=True)
class Manner:
    """How a template writes the assistant's turn.

    Attributes:
        prompt: what follows a user's words where an answer is asked for.
        end_of_turn: the control token behind an answer; None where the template writes none.
        openers: control tokens that begin a text or a turn, and so never end one.
    """

    prompt: str
    end_of_turn: str | None
    openers: frozenset[str]


@lru_cache(maxsize=16)
def manner_of(template: ChatTemplate) -> Manner:
    """What the rendering of records needs to know of a template.

    Raises:
        InputError: no Jinja; it drops the question or the answer; nothing stands between them; it
            writes the assistant's words where the user's belong; it goes over a limit.
    """
    if not re.search(r"\{\{|\{%", template.source):
        raise InputError(
            "chat template: no Jinja, it holds neither {{ … }} nor {% … %} and so writes the same "
            f"text for every conversation. {MEND}"
        )
    text, (question, answer) = probe(template, QUESTION, ANSWER)
    asked, (question_alone,) = probe(template, QUESTION)
    assert answer.start is not None
    gap, prompt = text[question.end : answer.start], asked[question_alone.end :]
    if not gap.strip():
        raise InputError(
            "chat template: nothing marks the assistant's turn, its answer follows the question "
            f"with {gap!r} between them. {MEND}"
        )
    check_sides(template, text, answer, gap, prompt)
    before = text[: question.start]
    own = generation_prompt(template, prompt)
    openers = {*template.control.findall(before), *template.control.findall(own)}
    openers.discard(template.end_token)
    after = template.control.search(text, answer.end)
    end = after.group() if after and after.group() not in openers else None
    return Manner(prompt, end, frozenset(openers))


def check_template(template: ChatTemplate) -> list[Check]:
    """Doubts about a template that do not forbid its use, each with its numbers.

    Raises:
        InputError: the template cannot be used; what it does wrong is named.
    """
    manner = manner_of(template)
    doubts = []
    if manner.end_of_turn is None:
        doubts.append(Check("data.template_no_end", {"token": template.end_token}))
    text, (question, answer) = probe(template, QUESTION, ANSWER)
    gap, prompt = text[question.end : answer.start].rstrip(), manner.prompt.rstrip()
    if not gap.startswith(prompt) and not prompt.startswith(gap):
        doubts.append(Check("data.template_prompt_differs", {"trained": gap, "prompt": prompt}))
    if "strftime_now" in template.source:
        doubts.append(Check("data.template_date", {}))
    return doubts


def probe(template: ChatTemplate, *contents: str) -> tuple[str, list[Place]]:
    """A small conversation, user first, and where its messages are; one message asks for more.

    Raises:
        InputError: a message is not in the text.
    """
    roles = ("user", "assistant")
    messages = [Message(roles[n % 2], content) for n, content in enumerate(contents)]
    plain = template.run([m.as_dict() for m in messages], add_generation_prompt=len(messages) == 1)
    first = free_marks([plain], len(messages))
    entries, _ = marked(messages, None, first, Edges())
    text = template.run(entries, add_generation_prompt=len(messages) == 1)
    found = places(text, plain, first, len(messages))
    by_owner = {place.owner: place for place in found or []}
    for number, message in enumerate(messages):
        place = by_owner.get(number)
        if place is None or place.start is None:
            raise InputError(lost(message, plain))
    return plain, [by_owner[number] for number in range(len(messages))]


def lost(message: Message, text: str) -> str:
    """The error for a message that is not found in the text."""
    if message.content in text:
        return (
            "chat template: it writes other texts for other words, so nobody can say which part "
            f"of the text is the {message.role}'s. {MEND}"
        )
    if message.role == "assistant":
        return (
            "chat template: it drops the assistant's answer, there would be nothing to learn. "
            f"{MEND}"
        )
    return f"chat template: it drops the {message.role}'s words. {MEND}"


def generation_prompt(template: ChatTemplate, prompt: str) -> str:
    """The part of `prompt` that is there only because an answer is asked for."""
    try:
        plain = template.run([Message("user", QUESTION).as_dict()])
    except InputError:
        return prompt
    behind = plain[plain.rfind(QUESTION) + len(QUESTION) :]
    return prompt[len(shared_start(prompt, behind)) :]


def check_sides(template: ChatTemplate, text: str, answer: Place, gap: str, prompt: str) -> None:
    """Refuse a template that writes the assistant's words as the user's.

    Three signs, each enough: the mark that asks for an answer stands before the user's words and
    not before the assistant's; the end token stands behind the user's words alone; the marks name
    the other side.

    Raises:
        InputError: it does.
    """
    names_user = names_only(USER_WORD, ASSISTANT_WORD, gap)
    try:
        longer, (_, first_answer, thanks) = probe(template, QUESTION, ANSWER, THANKS)
    except InputError:  # a template for one question and one answer
        swapped = names_user
    else:
        back = longer[first_answer.end : thanks.start]
        header = generation_prompt(template, prompt).strip().partition("\n")[0]
        swapped = (
            (header != "" and header in back and header not in gap)
            or (template.end_token in gap and template.end_token not in text[answer.end :] + back)
            or (names_user and names_only(ASSISTANT_WORD, USER_WORD, back))
        )
    if swapped:
        raise InputError(
            "chat template: it swaps the roles, the assistant's answer stands in the user's place "
            f"(behind {gap!r}). {MEND}"
        )


def names_only(this: re.Pattern[str], other: re.Pattern[str], text: str) -> bool:
    return this.search(text) is not None and other.search(text) is None


def shared_start(one: str, two: str) -> str:
    """The longest text that both begin with."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return one[:low]
