"""Reply → its final answer: which number, or which words, the reply commits itself to.

In this order: the last `####` or `\\boxed{}`; "the answer is …", "La respuesta es …", "Answer: …";
else the last sentence that holds a number, of which a number in bold or the last one. A statement
with two different numbers states none, and neither does a calculation without its result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from yunque.marking.numbers import Value, numbers_in, plain

THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
THOUGHT_END = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
TURN = re.compile(
    r"<\|[\w /-]{1,40}\|>|</s>|<end_of_turn>|<start_of_turn>|\[/?INST\]"
    r"|^[ \t>#*]*(?:Question|Pregunta|Q|P|User|Usuario|Human|Humano|Problem|Problema|Instruction"
    r"|Instrucción|Exercise|Ejercicio)(?:[ ]+\d+)?\**[ ]?:",
    re.MULTILINE,
)
"""Where a reply ends and the model goes on with a question of its own."""

MARK = re.compile(r"(?<!#)####(?!#)")
LABEL = re.compile(
    r"[\s*_#]*(?:(?:the|la|el)\s+)?(?:final\s+|correct\s+)?"
    r"(?:answer|result|respuesta|resultado|soluci[oó]n|solution)"
    r"(?:\s+(?:final|correcta))?[\s*_:.]*",
    re.IGNORECASE,
)
HEADING = re.compile(
    r"[\s*_]*(?:(?:step|paso|part|parte|explanation|explicaci[oó]n|soluci[oó]n|solution|c[aá]lculos?|"
    r"calculations?|an[aá]lisis|analysis|verification|verificaci[oó]n|check|comprobaci[oó]n|given|datos|"
    r"conclusion|conclusi[oó]n)\b|\d+[.)]\s+[^\W\d])",
    re.IGNORECASE,
)
BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(\{|(?=\s?-?\d))")
FILLER = r"(?:\s+(?!is\b|are\b|es\b|son\b)[\w'’]+){0,5}?"
PHRASE = re.compile(
    rf"\b(?:answer|result|solution){FILLER}\s*(?:\b(?:is|are|would be|will be|should be|equals|"
    rf"comes (?:out )?to)\b|=)"
    rf"|\b(?:respuesta|resultado|soluci[oó]n){FILLER}\s*"
    r"(?:\b(?:es igual a|es|son|ser[ií]a|ser[aá])\b|=)",
    re.IGNORECASE,
)
NEGATION = re.compile(r"\b(?:no|not)\b", re.IGNORECASE)
COLON = re.compile(
    r"\b(?:answer|respuesta|result|resultado)(?:\s+(?:final|correcta))?\s*:", re.IGNORECASE
)
SENTENCE_END = re.compile(r"(?<!i\.e)(?<!e\.g)[.!?…](?=\s|$)[\"'”»)]*|\n")
BECAUSE = re.compile(r"\b(?:because|porque|ya que)\b", re.IGNORECASE)
BRACKETS = re.compile(r"\(([^()]*)\)")
REASON = re.compile(
    r"\b(?:because|since|as|given|where|which|after|so that|porque|ya que|pues|puesto que|dado que|"
    r"debido|que es|que son|en vez de|instead of|rather than)\b|;|\((?!\s*(?:or|o|u|and|y)\b)",
    re.IGNORECASE,
)
NEITHER = re.compile(
    r"(?:^|(?<![-+*/×÷=])\s)(?:or|o|u|and|y|e|to|a|hasta|vs\.?|nor|ni|&|versus|between|entre)"
    r"(?:\s(?![-+*/×÷=])|$)|^\s*[,;/]\s*$",
    re.IGNORECASE,
)
AT_LAST = re.compile(r"\b(?:finally|lastly|in the end|finalmente|por último|al final)\b", re.I)
RESTATED = re.compile(r"\W*(?:that is|i\.e\.|in other words|o sea|es decir|esto es)\W*", re.I)
AND = re.compile(r"^\W*(?:and|y|e)?\W*$", re.IGNORECASE)
AFTERWARDS = re.compile(
    r"(?!.*\b(?:total|all|todo|so|thus|makes|gives)\b)[^\W\d]{0,3}(?:\s[^\s,;.=]+){0,5}?\s"
    r"(?:after|in|for|per|from|over|during|each|every|by|on|with|at|en|por|tras|durante|para|cada|con|de|between|entre)\s+"
    r"(?:(?:the|a|los|las|el|la|only|just)\s+)?¤?",
    re.IGNORECASE,
)
BETWEEN = re.compile(r"\b(?:between|entre)\s+\W*$", re.IGNORECASE)
EQUALS = re.compile(r"=|≈|⇒|→|->|\b(?:equals|is equal to|es igual a|gives us|makes)\b")
VERB = re.compile(
    r"^\W*(?:is|are|makes?|gives?|equals|es|son|da|dan|hacen|suman|igual a)\W*$", re.I
)
OPERATION = re.compile(
    r"[+×÷·^]|^\($|(?:^|[\s)])[*x/–-](?:[\s(¤]|$)|^\s*[*/x–-]\s*¤?$"
    r"|\b(?:plus|minus|times|multiplied by|divided by|over|"
    r"m[aá]s|menos|por|entre|dividido|multiplicado)\b",
    re.IGNORECASE,
)
BOLD = re.compile(r"\*\*(.+?)\*\*|__(.+?)__|\\textbf\{([^{}]*)\}")
BULLET = re.compile(r"^\s*(?:[-*•–]\s+|\d{1,2}[.)]\s+(?=\S)|(?:step|paso)\s+\d+\s*[:.)-])", re.I)


@dataclass(frozen=True)
class Statement:
    """What a reply says last, and whether it says that this is the answer."""

    text: str
    explicit: bool


def own_words(reply: str) -> str:
    """A reply without its reasoning in think tags and without turns that it invents."""
    if "</think" in reply and "<think" not in reply:
        reply = THOUGHT_END.sub("", reply)
    reply = THOUGHT.sub("", reply)
    for match in TURN.finditer(reply):
        if reply[: match.start()].strip():
            return reply[: match.start()]
    return reply


def marked_statement(reply: str) -> str | None:
    r"""What stands after the last `####` or in the last `\boxed{}`; None: there is neither."""
    box = boxed(reply)
    for mark in reversed(list(MARK.finditer(reply))):
        if box is not None and box[0] > mark.start():
            break
        lines = [line for line in reply[mark.end() :].splitlines() if line.strip()]
        if not lines:
            continue
        if LABEL.fullmatch(lines[0]):
            lines = lines[1:]
        if lines and not HEADING.match(lines[0]):
            return lines[0]
    return box[1] if box else None


def boxed(reply: str) -> tuple[int, str] | None:
    """(place, contents) of the boxes on the last line that has one; several are joined by "or"."""
    found: list[tuple[int, str]] = []
    place = 0
    for match in BOX.finditer(reply):
        if match.start() < place:
            continue  # a box in a box
        if not match[1]:
            number = re.match(r"\s?-?[\d.,]*\d", reply[match.end() :])
            found.append((match.start(), number.group() if number else ""))
            continue
        depth, place = 1, match.end()
        while place < len(reply) and depth:
            depth += {"{": 1, "}": -1}.get(reply[place], 0)
            place += 1
        found.append((match.start(), reply[match.end() : place - 1 if not depth else place]))
    if not found:
        return None
    last = found[-1][0]
    line = reply.rfind("\n", 0, last)
    return last, " or ".join(text for place, text in found if place > line)


def phrases(text: str) -> list[tuple[str, str, bool]]:
    """What follows each "the answer is", the last one first: (sentence, rest, colon?)."""
    matches = [(m, False) for m in PHRASE.finditer(text)]
    matches += [(m, True) for m in COLON.finditer(text)]
    found = []
    end_of_rest = len(text)
    for match, colon in sorted(matches, key=lambda pair: -pair[0].end()):
        rest, end_of_rest = text[match.end() : end_of_rest], match.start()
        shown = rest.lstrip(" \t\r\n*_:")
        end = SENTENCE_END.search(shown)
        sentence = shown[: end.start()] if end else shown
        if NEGATION.search(match.group()):
            sentence = f"not {sentence}"
        found.append((sentence, rest, colon))
    return found


def final_number(reply: str, convention: str) -> Value | None:
    """The number that a reply states as its answer; None where it states none or several.

    Args:
        reply: in its own words (see `own_words`).
        convention: its decimal mark, "" where not known.
    """
    marked = marked_statement(reply)
    if marked is not None:
        return the_one(plain(marked), convention)
    text = plain(without_emphasis(reply))
    for sentence, rest, colon in phrases(text):
        if not results(sentence, convention):
            if results(rest, convention):
                return last_number(rest, rest, convention)
            continue
        if colon and not is_bare(sentence, convention):
            return last_number(rest, rest, convention)
        return the_one(sentence, convention)
    if phrases(text) and not COLON.search(text):
        return None  # "the answer is unknown"
    return last_number(text, reply, convention)


def without_emphasis(text: str) -> str:
    return re.sub(r"\*\*|__", "", text)


def is_bare(sentence: str, convention: str) -> bool:
    """Whether a sentence begins with its number and has little more than a unit after it."""
    first = results(sentence, convention)[0]
    before = re.findall(r"[^\W\d]{2,}", sentence[: first.start])
    return not before and len(re.findall(r"[^\W\d]+", sentence)) <= 4


def the_one(text: str, convention: str) -> Value | None:
    """The one number of an explicit statement; the reason after it does not count."""
    first, reason = text, REASON.search(text)
    if reason and results(text[: reason.start()], convention):
        if contradicted(text, convention):
            return None
        first = text[: reason.start()]
    values = distinct(results(first, convention))
    return values[0] if len(values) == 1 else None


def contradicted(text: str, convention: str) -> bool:
    """Whether a number is followed by another one alone in brackets: 42 (forty-three)."""
    for match in BRACKETS.finditer(text):
        inside = results(match[1], convention)
        if len(inside) != 1 or not inside[0].readings:
            continue
        if re.search(r"\w", match[1][: inside[0].start] + match[1][inside[0].end :]):
            continue
        front = text[: match.start()].rstrip()
        if front == text[: match.start()] and front[-1:].isdigit() and match[1][0] in ".0123456789":
            continue  # 2(3) is a product
        before = results(front, convention)
        beside = bool(before) and before[-1].end == len(front)
        if beside and inside[0].unit in ("", before[-1].unit):
            if inside[0].agrees(before[-1]):
                continue
            return True
    return False


def last_number(text: str, raw: str, convention: str) -> Value | None:
    """The number of a reply that does not say which is its answer."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if len(lines) > 1:
            line = BULLET.sub("", line) or line
        for sentence in reversed(sentences(line)):
            values = results(sentence, convention)
            if not values:
                continue
            because = BECAUSE.search(sentence)
            if because and results(sentence[: because.start()], convention):
                sentence = sentence[: because.start()]
                values = results(sentence, convention)
            if contradicted(sentence, convention):
                return None
            outside = BRACKETS.sub("", sentence)
            if len(values) > 1 and results(outside, convention):
                sentence, values = outside, results(outside, convention)
            values = [value for value in values if not value.denied]
            bold = bold_numbers(raw, sentence, convention)
            if bold or not values:
                return bold[0] if len(bold) == 1 else None
            return settled(sentence, values)
    return None


def sentences(line: str) -> list[str]:
    """A line cut after each full stop."""
    found, start = [], 0
    for match in SENTENCE_END.finditer(line):
        found.append(line[start : match.end()])
        start = match.end()
    return [*found, line[start:]]


def bold_numbers(raw: str, sentence: str, convention: str) -> list[Value]:
    """The different numbers in bold of a reply's last sentence with a number."""
    values: list[Value] = []
    for match in BOLD.finditer(raw):
        inner = next(group for group in match.groups() if group is not None)
        text = plain(inner).strip()
        latest = raw.rfind(inner) == match.start(match.lastindex or 0)
        if text and text in sentence and latest:
            values += results(text, convention)
    return distinct(values)


def settled(sentence: str, values: Sequence[Value]) -> Value | None:
    """The last number of a sentence, unless it stands beside another in "5 or 6", "5 and 6"."""
    last = values[-1]
    if len(values) == 1 or last.agrees(values[-2]):
        return last
    between = sentence[values[-2].end : last.start]
    if RESTATED.fullmatch(between) and last.unit and values[-2].unit not in ("", last.unit):
        return replace(last, restates=values[-2])
    if AT_LAST.search(between):
        return last
    lead = sentence[: values[-2].start]
    beside = len(re.findall(r"\w+", between)) <= 3
    if values[-2].calculated and not last.calculated and AFTERWARDS.fullmatch(between):
        return values[-2]  # 3 * 40 = 120 pages in 5 days
    variable = re.search(r"\b([a-z])\s*=\s*$", between)
    if variable and re.search(rf"\d\s?{variable[1]}\b", lead):
        return last  # 2x = 10 and x = 5
    if not between.strip() or (beside and BETWEEN.search(lead)):
        return None
    if beside and NEITHER.search(between) and not (last.calculated and AND.search(between)):
        return None
    return last


def distinct(values: Sequence[Value]) -> list[Value]:
    """The values without repetitions and without those that are denied."""
    kept: list[Value] = []
    for value in values:
        if value.denied:
            continue
        if not any(value.agrees(other) for other in kept):
            kept.append(value)
    return kept


def results(text: str, convention: str) -> list[Value]:
    """The numbers of a text, each calculation as its result.

    A calculation without a result ("5 + 3") is a value without a reading.
    """
    values = numbers_in(text, convention)
    if any(not value.weak for value in values):
        values = [value for value in values if not value.weak]
    done: list[Value] = []
    open_sum = False
    place = 0
    for value in values:
        gap = text[place : value.start]
        if done:
            short = len(re.findall(r"\w+", gap)) <= 4
            signed = text[value.start : value.start + 1] in ("-", "+") and not gap.strip()
            head, equal = gap, EQUALS.search(gap)
            if equal:
                head = gap[: equal.start()]
            if equal and not NEITHER.search(head) and "," not in head:
                left = done.pop()
                value = replace(value, start=left.start, calculated=open_sum)
                if equal.group() == "≈":
                    value = replace(value, readings=left.readings + value.readings)
                open_sum = False
            elif open_sum and VERB.match(gap):
                value = replace(value, start=done.pop().start, calculated=True)
                open_sum = False
            elif short and not equal and (signed or OPERATION.search(gap)):
                if not open_sum:
                    done[-1] = replace(done[-1], readings=())
                done[-1] = replace(done[-1], end=value.end)
                open_sum = True
                place = value.end
                continue
            else:
                open_sum = False
        done.append(value)
        place = value.end
    return done
