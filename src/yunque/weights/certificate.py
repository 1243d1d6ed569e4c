"""Is an export the model that it came from? Two speakers answer the same questions.

A speaker is a model with its tokenizer, whoever opened it: ours in memory, the folder as
transformers reads it, the GGUF file as a reader of that format gives it back. Nothing here knows
which; what is compared is what a user would see. Both compute in float32, the source on its
weights as the export's number format rounds them, so that the bound is that of the arithmetic
and not of the rounding. How far the rounding itself moved the model is measured apart: what the
source answered before it is kept, and the export's answers are held against that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

LOGITS_BOUND = 1e-5
"""Largest difference of two logits, as a part of the largest logit (but at least of 1).

float32 rounds by 6e-8; two programs that sum in another order differ by some tens of roundings.
A wrong number, position, constant or layer shows by far more."""
SPOKEN = 4
"""Prompts that are continued: half of them the first ones, half the last."""
NAMED = 3
"""Differences that one check spells out; the rest it counts."""


@dataclass(frozen=True)
class Prompt:
    """A plain text, or a conversation for the chat template."""

    text: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    """(role, content) of each message."""
    asking: bool = True
    """A conversation ends with what precedes the assistant's next words."""

    def __str__(self) -> str:
        shown = self.text or " / ".join(f"{role}: {content}" for role, content in self.messages)
        return repr(shown if len(shown) <= 40 else f"{shown[:39]}…")


@dataclass(frozen=True)
class Speaker:
    """A model and its tokenizer, by what they answer."""

    name: str
    """Who opened it, with the version."""
    ids: Callable[[Prompt], list[int] | None]
    """Token ids as a user gets them, begin and end tokens included; None: it is refused."""
    text: Callable[[Sequence[int]], str]
    """The text of ids, control tokens included."""
    logits: Callable[[Sequence[int]], Tensor]
    """Ids → `(T, V)`, float32, on the CPU."""
    write: Callable[[Sequence[int], int], list[int]]
    """Ids and a number → so many most probable next tokens, fewer after an end token, which is
    the last then."""
    stops_after: Callable[[Sequence[int]], int]
    """How many tokens of a script are written when the model is made to write that script."""
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]
    """Name and weight, a tied head left out; the same names for both speakers."""
    vocabulary: Mapping[str, int]
    """Token → id, control tokens included."""
    end_ids: frozenset[int]
    """What ends a text."""
    pad_ids: frozenset[int]
    """What fills up rows, wherever it is stated."""
    context: int
    """Tokens that it sees at once."""
    shape: Mapping[str, Any]
    """The numbers that make its architecture, by their names."""
    faults: tuple[str, ...] = ()
    """What its own reader found amiss."""
    template: str | None = None
    """The chat template; None: it continues plain text."""
    template_fault: str = ""
    """Why the template cannot be used; empty where it can, or there is none."""


@dataclass(frozen=True)
class Check:
    """One comparison: the figure, and what it may be at most."""

    id: str
    passed: bool
    figure: float | None
    """None: there is no number, or not a finite one."""
    bound: float
    detail: str = ""
    """What differs, or what was not compared."""


@dataclass(frozen=True)
class Answers:
    """What a model said, kept for a comparison after its weights were rounded."""

    logits: tuple[Tensor, ...]
    """Of each row of ids, `(T, V)`."""
    texts: tuple[list[int], ...]
    """The greedy new tokens after the rows that are continued."""


@dataclass(frozen=True)
class Rounding:
    """How far an export is from its source because its numbers have fewer digits."""

    logits: float
    """The largest difference of two logits."""
    kl: float
    """KL(source ‖ export) of the worst position, nats."""
    mean_kl: float
    positions: int
    """Places in the texts that were read."""
    same_positions: int
    """Those where both hold the same token most likely."""
    texts: int
    """Greedy texts that were written."""
    same_texts: int


@dataclass(frozen=True)
class Certificate:
    """All comparisons of one export with its source."""

    source: str
    reader: str
    checks: tuple[Check, ...]
    rounding: Rounding | None = None
    """None: the export holds every number of the source as it is."""
    template: Literal["none", "usable", "unusable"] = "none"
    """Whether the source has a chat template: only of a usable one are conversations certified."""
    template_fault: str = ""
    """Why it is unusable."""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    def figure(self, id: str) -> float | None:
        """The figure of one check."""
        return next(check.figure for check in self.checks if check.id == id)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": "yunque-certificate-1",
            "passed": self.passed,
            "source": self.source,
            "read_back_by": self.reader,
            "rounding": None if self.rounding is None else dataclasses.asdict(self.rounding),
            "chat_template": {"state": self.template, "fault": self.template_fault},
            "checks": [dataclasses.asdict(check) for check in self.checks],
        }

    def differences(self) -> str:
        """Every failed check as a line."""
        return "\n".join(f"  {check.id}: {check.detail}" for check in self.failed)


def certify(
    source: Speaker,
    export: Speaker,
    prompts: Sequence[Prompt],
    probes: Sequence[Prompt] = (),
    tokens: int = 24,
    unrounded: Answers | None = None,
) -> Certificate:
    """Compare an export that was read back with the model that it came from.

    Args:
        prompts: plain texts and conversations.
        probes: further texts, of which only the ids are compared.
        tokens: length of the greedy texts.
        unrounded: what the source answered to these prompts before it was rounded; None where
            there was nothing to round.
    """
    plain = [prompt for prompt in prompts if not prompt.messages]
    chats = [prompt for prompt in prompts if prompt.messages]
    rows, spoken, tokens = questions(source, prompts, tokens)
    checks = [
        counted("reader", list(export.faults)),
        counted("shape", list(shape_faults(source, export))),
        counted("vocabulary", list(vocabulary_faults(source, export))),
        counted("prompt_ids", list(id_faults(source, export, [*plain, *probes]))),
        chat_check(source, export, chats),
        counted("texts", list(text_faults(source, export, [*prompts, *probes]))),
        counted("ends", list(end_faults(source, export))),
        counted("pad", list(pad_faults(export))),
        *tensor_checks(source, export),
        *logit_checks(source, export, rows),
        counted("greedy", list(greedy_faults(source, export, spoken, tokens))),
    ]
    lost = None
    if unrounded is not None and all(check.passed for check in checks):
        lost = rounding(unrounded, answers(export, rows, spoken, tokens))
    has: Literal["usable", "unusable"] = "unusable" if source.template_fault else "usable"
    return Certificate(
        source=source.name,
        reader=export.name,
        checks=tuple(checks),
        rounding=lost,
        template="none" if source.template is None else has,
        template_fault=source.template_fault,
    )


Rows = list[tuple[int, ...]]


def questions(source: Speaker, prompts: Sequence[Prompt], tokens: int) -> tuple[Rows, Rows, int]:
    """The rows of ids that are read, those that are continued, and by how many tokens."""
    asked = [source.ids(prompt) for prompt in prompts]
    tokens = min(tokens, source.context // 2)
    begun = (tuple(ids[: source.context - tokens]) for ids in asked if ids)
    rows = list(dict.fromkeys(begun))
    spoken = rows if len(rows) <= SPOKEN else rows[: SPOKEN // 2] + rows[-SPOKEN // 2 :]
    return rows, spoken, tokens


def answers_before(source: Speaker, prompts: Sequence[Prompt], tokens: int = 24) -> Answers:
    """What a source says to the prompts of `certify`, before its weights are rounded."""
    return answers(source, *questions(source, prompts, tokens))


def answers(speaker: Speaker, rows: Rows, spoken: Rows, tokens: int) -> Answers:
    """The logits of rows, and the greedy texts after some of them."""
    return Answers(
        tuple(speaker.logits(ids) for ids in rows),
        tuple(speaker.write(ids, tokens) for ids in spoken),
    )


def rounding(source: Answers, export: Answers) -> Rounding:
    """How far the answers of an export are from those of its source."""
    gaps, divergences, same = [], [], 0
    for ours, theirs in zip(source.logits, export.logits, strict=True):
        gap, divergence = moved(ours, theirs)
        gaps.append(gap)
        divergences += divergence.tolist()
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    pairs = zip(source.texts, export.texts, strict=True)
    return Rounding(
        logits=max(gaps, default=0.0),
        kl=max(divergences, default=0.0),
        mean_kl=math.fsum(divergences) / max(1, len(divergences)),
        positions=len(divergences),
        same_positions=same,
        texts=len(source.texts),
        same_texts=sum(ours == theirs for ours, theirs in pairs),
    )


def moved(ours: Tensor, theirs: Tensor) -> tuple[float, Tensor]:
    """The largest difference of two logits, and KL(ours ‖ theirs) of each position, `(T,)`, nats.

    Both are infinite where a logit is not a number."""
    ours, theirs = ours.double(), theirs.double()
    gap = (ours - theirs).abs().nan_to_num(math.inf, math.inf).max().item()
    p, q = ours.log_softmax(-1), theirs.log_softmax(-1)
    return gap, (p.exp() * (p - q)).sum(-1).nan_to_num(math.inf, math.inf)


def counted(id: str, faults: Sequence[str]) -> Check:
    """A check whose figure is the number of differences, and must be 0."""
    more = [f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
    return Check(id, not faults, float(len(faults)), 0.0, "; ".join([*faults[:NAMED], *more]))


def shape_faults(source: Speaker, export: Speaker) -> Iterator[str]:
    """Sizes and constants that are not the source's."""
    for name, value in source.shape.items():
        got = export.shape.get(name)
        if got != value:
            yield f"{name} is {got!r}, expected {value!r}"


def vocabulary_faults(source: Speaker, export: Speaker) -> Iterator[str]:
    """Tokens with other ids, and ids that the embedding has no row for."""
    for token, id in source.vocabulary.items():
        if token not in export.vocabulary:
            yield f"the token {token!r} (id {id}) is missing"
        elif export.vocabulary[token] != id:
            yield f"the token {token!r} has the id {export.vocabulary[token]}, expected {id}"
    for token in export.vocabulary.keys() - source.vocabulary.keys():
        yield f"a token too many: {token!r} (id {export.vocabulary[token]})"
    rows = export.shape.get("vocab_size")
    highest = max(export.vocabulary.values(), default=-1)
    if rows is not None and highest >= rows:
        yield f"the highest id is {highest}, and the embedding has {rows} rows"


def id_faults(source: Speaker, export: Speaker, prompts: Sequence[Prompt]) -> Iterator[str]:
    """Prompts that become other tokens."""
    texts = {id: token for token, id in source.vocabulary.items()}
    for prompt in prompts:
        ours, theirs = source.ids(prompt), export.ids(prompt)
        if ours == theirs:
            continue
        if ours is None or theirs is None:
            who = "the source" if ours is None else "the export"
            yield f"{prompt}: refused by {who} only"
        else:
            yield f"{prompt}: {id_fault(ours, theirs, texts)}"


def chat_check(source: Speaker, export: Speaker, chats: Sequence[Prompt]) -> Check:
    """Conversations become the same tokens; a template that cannot be used is at least the same.

    Such a template may refuse every conversation, on both sides, and equal ids would say nothing.
    """
    faults = list(id_faults(source, export, chats))
    if source.template_fault and export.template != source.template:
        faults.append("the chat template is another one")
    check = counted("chat_ids", faults)
    if check.passed and source.template_fault:
        told = f"only the template's text was compared: {source.template_fault}"
        return dataclasses.replace(check, detail=told)
    return check


def id_fault(ours: list[int], theirs: list[int], texts: Mapping[int, str]) -> str:
    """What is wrong with the ids of a prompt, in words."""

    def named(id: int) -> str:
        return f"{texts.get(id, '?')!r} ({id})"

    if ours[:1] and theirs == ours[1:]:
        return f"the beginning token {named(ours[0])} is missing"
    if theirs[:1] and theirs[1:] == ours:
        twice = theirs[:1] == ours[:1]
        return f"the beginning token {named(theirs[0])} {'stands twice' if twice else 'was added'}"
    if ours[:1] and theirs == ours[:-1]:
        return f"the last token {named(ours[-1])} is missing"
    if theirs[:1] and theirs[:-1] == ours:
        return f"the token {named(theirs[-1])} was added at the end"
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((n for n, (expected, got) in pairs if expected != got), None)
    if at is None:
        return f"it has {len(theirs)} tokens, expected {len(ours)}"
    return f"token {at} is {named(theirs[at])}, expected {named(ours[at])}"


def text_faults(source: Speaker, export: Speaker, prompts: Sequence[Prompt]) -> Iterator[str]:
    """Ids that become other texts."""
    for prompt in prompts:
        ids = source.ids(prompt)
        if ids is None:
            continue
        ours, theirs = source.text(ids), export.text(ids)
        if ours != theirs:
            yield f"the ids of {prompt} are read as {theirs[:40]!r}, expected {ours[:40]!r}"


def end_faults(source: Speaker, export: Speaker) -> Iterator[str]:
    """Other end tokens, stated or obeyed."""
    if source.end_ids != export.end_ids:
        yield f"the end ids are {sorted(export.end_ids)}, expected {sorted(source.end_ids)}"
    other = next(id for id in range(len(source.vocabulary) + 1) if id not in source.end_ids)
    for end in sorted(source.end_ids | export.end_ids):
        script = [other, other, end, other, other]
        ours, theirs = source.stops_after(script), export.stops_after(script)
        if ours != theirs:
            yield f"with the token {end} in third place it stops after {theirs}, expected {ours}"


def pad_faults(export: Speaker) -> Iterator[str]:
    """Padding that is an end: who masks padding by its id masks the end, and it is not learnt."""
    for id in sorted(export.pad_ids & export.end_ids):
        yield f"the token {id} is both padding and an end"


def tensor_checks(source: Speaker, export: Speaker) -> list[Check]:
    """Every weight against the source's: finite, there, of one shape, of the same bits."""
    theirs = dict(export.tensors())
    infinite, faults, largest = [], [], 0.0
    bodies = dict(source.tensors())
    for name, tensor in bodies.items():
        got = theirs.get(name)
        if got is None:
            faults.append(f"{name} is missing")
        elif got.shape != tensor.shape:
            faults.append(f"{name} is {list(got.shape)}, expected {list(tensor.shape)}")
        else:
            lost = int((tensor.isfinite() & ~got.isfinite()).sum())
            if lost:
                infinite.append(f"{name} holds {lost} infinite numbers or none")
            gap = (got.double() - tensor.double()).abs().nan_to_num(math.inf, math.inf)
            # Equal infinities differ by nothing.
            difference = gap.masked_fill(got == tensor, 0.0).max().item() if gap.numel() else 0.0
            if difference:
                place = misplaced(got, name, bodies)
                faults.append(f"{name} differs by {difference:.3g}{place}")
            largest = max(largest, difference)
    faults += [f"{name} is left over" for name in theirs.keys() - bodies.keys()]
    joined = counted("tensors", faults)
    figure = largest if math.isfinite(largest) else None
    return [counted("finite", infinite), dataclasses.replace(joined, figure=figure)]


def misplaced(got: Tensor, name: str, tensors: Mapping[str, Tensor]) -> str:
    """Whether a wrong tensor is another one of the model, for the message."""
    for other, tensor in tensors.items():
        if other != name and tensor.shape == got.shape and torch.equal(tensor, got):
            return f" (it holds {other})"
    return ""


def logit_checks(source: Speaker, export: Speaker, rows: Sequence[Sequence[int]]) -> list[Check]:
    """Largest difference of two logits, and KL(source ‖ export) of the worst token, in nats.

    Where no logit differs by more than d, KL is at most d²/2 (Hoeffding's lemma), which is the
    bound of the second check.
    """
    largest, scale, divergence = 0.0, 1.0, 0.0
    for ids in rows:
        ours, theirs = source.logits(ids), export.logits(ids)
        if ours.shape != theirs.shape:
            detail = f"logits are {list(theirs.shape)}, expected {list(ours.shape)}"
            return [Check(id, False, None, 0.0, detail) for id in ("logits", "kl")]
        gap, kl = moved(ours, theirs)
        largest, divergence = max(largest, gap), max(divergence, kl.max().item())
        scale = max(scale, ours.abs().max().item())
    bound = LOGITS_BOUND * scale
    return [
        bounded("logits", largest, bound, f"logits differ by {largest:.3g}, at most {bound:.3g}"),
        # 1e-12: the rounding of the logarithms themselves.
        bounded("kl", divergence, bound**2 / 2 + 1e-12, f"KL is {divergence:.3g} nats"),
    ]


def bounded(id: str, figure: float, bound: float, fault: str) -> Check:
    """A check whose figure is measured; `fault` is its detail where it is above the bound."""
    passed = figure <= bound
    return Check(id, passed, figure if math.isfinite(figure) else None, bound, fault * (not passed))


def greedy_faults(
    source: Speaker, export: Speaker, rows: Sequence[Sequence[int]], tokens: int
) -> Iterator[str]:
    """Greedy texts that part, unless two tokens are as likely as the arithmetic can tell."""
    for ids in rows:
        ours, theirs = source.write(ids, tokens), export.write(ids, tokens)
        if ours == theirs:
            continue
        same = 0
        while same < min(len(ours), len(theirs)) and ours[same] == theirs[same]:
            same += 1
        if same < min(len(ours), len(theirs)):
            last = source.logits([*ids, *ours[:same]])[-1]
            lead = (last[ours[same]] - last[theirs[same]]).item()
            if lead <= 2 * LOGITS_BOUND * max(1.0, last.abs().max().item()):
                continue
            got, expected = theirs[same], ours[same]
            yield f"new token {same + 1} is {got}, expected {expected} (it leads by {lead:.3g})"
        else:
            yield f"it ends after {len(theirs)} new tokens, expected {len(ours)}"
