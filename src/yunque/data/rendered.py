"""RENDERED CONVERSATIONS → TOKEN IDS AND LOSS MASK.

The template's control tokens become their ids, and the same text in what somebody wrote stays
text. A tokenizer cannot tell the two apart, so it is given another name for each control token, a
private-use character, which is put in the place of the template's own ones. What surrounds them is
encoded exactly as it would be in the whole text.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from yunque.data.alignment import Rendered, Span
from yunque.data.bulk import ASCII, Bulk
from yunque.data.chat_template import control_pattern
from yunque.data.tokenizer import Ids, Tokenizer, workers
from yunque.errors import InputError

Mask = npt.NDArray[np.uint8]

NAMES = 0x10F000  # the end of plane 16 of Unicode, for private use
BEHIND_NAMES = 0x10FFFD
BETWEEN = chr(BEHIND_NAMES)
"""Stands between two conversations that are encoded in one go."""
NAME = re.compile(f"[{chr(NAMES)}-{BETWEEN}]")


@dataclass(frozen=True)
class Renamed:
    """A tokenizer whose control tokens have other names.

    Attributes:
        names: text of a control token → the character that stands for it.
        ids: id of this pipeline → id of the tokenizer; -1 for what must not come out.
        control_ids: text of a control token → its id in the tokenizer.
        apart: the control tokens take nothing of the text beside them.
    """

    backend: Backend
    names: Mapping[str, str]
    control: re.Pattern[str]
    ids: Ids
    control_ids: Mapping[str, int]
    apart: bool


@lru_cache(maxsize=4)
def renamed(tokenizer: Tokenizer) -> Renamed:
    """The pipeline for rendered texts; made once for a tokenizer.

    Raises:
        InputError: more control tokens than there are names.
    """
    pipeline = json.loads(tokenizer.backend.to_str())
    added = {token["id"]: token for token in pipeline["added_tokens"]}
    control = [token for token in added.values() if token["special"]]
    if len(control) > BEHIND_NAMES - NAMES:
        raise InputError(f"the tokenizer has {len(control):,} control tokens, too many to rename.")
    pipeline["added_tokens"] = [token for token in added.values() if not token["special"]]
    # It would add tokens of its own and trim white space off the places of tokens.
    pipeline["post_processor"] = None
    backend = Backend.from_str(json.dumps(pipeline))
    names = {token["content"]: chr(NAMES + place) for place, token in enumerate(control)}
    backend.add_special_tokens(
        [
            AddedToken(
                names[token["content"]],
                special=True,
                **{key: token[key] for key in ("lstrip", "rstrip", "single_word", "normalized")},
            )
            for token in control
        ]
    )
    vocabulary = backend.get_vocab(with_added_tokens=True)
    ids = np.arange(max(vocabulary.values()) + 1, dtype=np.int64)
    # A vocabulary may hold the text of a control token as a piece; plain text must not become it.
    forbidden = {token["id"] for token in control} - {tokenizer.unknown_id}
    ids[[id for id in forbidden if id < len(ids)]] = -1
    for token in added.values():
        ids[vocabulary[names.get(token["content"], token["content"])]] = token["id"]
    flags = ("lstrip", "rstrip", "single_word")
    apart = not any(token[flag] for token in control for flag in flags)
    own = {token["content"]: token["id"] for token in control}
    return Renamed(backend, names, control_pattern(list(names)), ids, own, apart)


@dataclass(frozen=True)
class Encoded:
    """Conversations one behind the other.

    Attributes:
        ids: (N,).
        mask: (N,), 1 for each token that carries loss as a target.
        ends: (conversations,), the offset behind each one's last token.
    """

    ids: Ids
    mask: Mask
    ends: Ids


def encode_all(tokenizer: Tokenizer, rendered: Sequence[Rendered]) -> Encoded:
    """`encode_rendered_many`, joined; by tiktoken on all cores where the ids are proved equal.

    Raises:
        InputError: as `encode_rendered_many`.
    """
    bulk = tokenizer.bulk(sum(len(item.text) for item in rendered))
    if bulk is not None:
        pipeline, threads = renamed(tokenizer), os.cpu_count() or 1
        size = max(1, -(-len(rendered) // threads))
        parts = [rendered[first : first + size] for first in range(0, len(rendered), size)]
        done = list(
            workers(threads, os.getpid()).map(
                lambda part: encode_quickly(part, pipeline, bulk), parts
            )
        )
        quick = [part for part in done if part is not None]
        if len(quick) == len(parts) > 0:
            return joined(quick)
    return joined(
        [
            Encoded(ids, mask, np.array([len(ids)], dtype=np.int64))
            for ids, mask in encode_rendered_many(tokenizer, rendered)
        ]
    )


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Several of them as one."""
    if len(parts) == 1:
        return parts[0]
    shifts = np.cumsum([0, *(len(part.ids) for part in parts)])
    ends = [part.ends + shift for part, shift in zip(parts, shifts.tolist(), strict=False)]
    none, no_mask = np.zeros(0, np.int64), np.zeros(0, np.uint8)
    return Encoded(
        np.concatenate([none, *(part.ids for part in parts)]),
        np.concatenate([no_mask, *(part.mask for part in parts)]),
        np.concatenate([none, *ends]),
    )


class Names:
    """Where control tokens stood in a text before each got a name of one character."""

    def __init__(self) -> None:
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.shifts = [0]
        """By how much the new text is shorter, behind so many control tokens."""

    def add(self, begin: int, end: int) -> None:
        """The next control token, in characters of the old text."""
        self.begins.append(begin)
        self.ends.append(end)
        self.shifts.append(self.shifts[-1] + end - begin - 1)

    def moved(self, span: Span) -> Span:
        """The span in the new text; of a control token that it has a part of, the whole."""
        return self._place(span[0], 0), self._place(span[1], 1)

    def _place(self, old: int, inside: int) -> int:
        count = bisect_right(self.ends, old)
        if count < len(self.begins) and self.begins[count] < old:
            return self.begins[count] - self.shifts[count] + inside
        return old - self.shifts[count]


def encode_quickly(rendered: Sequence[Rendered], pipeline: Renamed, bulk: Bulk) -> Encoded | None:
    """The same by tiktoken, in one text with marks between conversations and for control tokens.

    A byte-level pipeline encodes what stands between control tokens as if it stood alone, and so
    does tiktoken. A token overlaps a span of characters where its bytes overlap those of the span.
    None where that is not so, and where a conversation must be refused.
    """
    said = "".join([item.text for item in rendered])
    strange = said.encode("utf-8").translate(None, ASCII).decode("utf-8")
    if not pipeline.apart or NAME.search(strange) or not bulk.trusts(strange):
        return None
    known: dict[str, tuple[str, list[Span]]] = {}

    def template_text(text: str) -> tuple[str, list[Span]]:
        """What a template writes, with names for control tokens, and where these stood."""
        if text not in known:
            named = pipeline.control.sub(lambda token: pipeline.names[token.group()], text)
            known[text] = named, [token.span() for token in pipeline.control.finditer(text)]
        return known[text]

    pieces: list[str] = []
    bounds: list[int] = []  # begin and end of what carries loss, in characters of the new text
    at = 0  # where the conversation begins in the new text
    for item in rendered:
        text, behind, named = item.text, 0, Names()
        for start, end in (*item.content, (len(text), len(text))):
            if start < behind:
                return None
            piece, tokens = template_text(text[behind:start])
            pieces += (piece, text[start:end])
            for token_begin, token_end in tokens:
                named.add(behind + token_begin, behind + token_end)
            behind = end
        pieces.append(BETWEEN)
        for span in item.loss:
            bounds += [at + place for place in named.moved(span)]
        at += len(text) - named.shifts[-1] + 1

    whole = "".join(pieces)
    marks = (*pipeline.names.values(), BETWEEN)
    ranks = bulk.encode_marked(whole, marks)
    if ranks is None:
        return None
    # Bytes: where each character of the new text begins, and each token ends.
    codes = np.frombuffer(whole.encode("utf-32-le"), np.dtype("<u4"))
    widths = 1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
    begins = np.concatenate([[0], np.cumsum(widths)])
    name_bytes = np.full(len(marks), len(BETWEEN.encode("utf-8")), dtype=np.int64)
    token_ends = np.cumsum(np.concatenate([bulk.sizes, name_bytes])[ranks])
    if not len(ranks) or token_ends[-1] != begins[-1]:
        return None
    spans = begins[np.array(bounds, dtype=np.int64)].reshape(-1, 2)
    change = np.zeros(len(ranks) + 1, dtype=np.int64)
    np.add.at(change, np.searchsorted(token_ends, spans[:, 0], side="right"), 1)
    token_begins = np.concatenate([[0], token_ends[:-1]])
    np.add.at(change, np.searchsorted(token_begins, spans[:, 1], side="left"), -1)
    mask = (np.cumsum(change[:-1]) > 0).astype(np.uint8)

    own = np.array([pipeline.control_ids[name] for name in pipeline.names], dtype=np.int64)
    ids = np.concatenate([pipeline.ids[bulk.ids], own, [-1]])[ranks]
    told = ranks != len(bulk.ranks) + len(own)  # all but the marks between
    ids, mask, last = ids[told], mask[told], np.flatnonzero(~told)
    if len(last) != len(rendered) or ids.min(initial=0) < 0:
        return None
    return Encoded(ids, mask, last - np.arange(len(last)))


def encode_rendered(tokenizer: Tokenizer, rendered: Rendered) -> tuple[Ids, Mask]:
    """The ids of a rendered conversation, and 1 for each token that carries loss as a target.

    A token carries loss where any character of it does. Without control-token texts in what
    somebody wrote, the ids are those of `apply_chat_template(tokenize=True)`.

    Raises:
        InputError: the text holds characters that stand for control tokens here, or the vocabulary
            knows the text of a control token only as that token.
    """
    return encode_rendered_many(tokenizer, [rendered])[0]


def encode_rendered_many(
    tokenizer: Tokenizer, rendered: Sequence[Rendered]
) -> list[tuple[Ids, Mask]]:
    """`encode_rendered` for many conversations, in one go.

    Raises:
        InputError: as `encode_rendered`; nothing tells which conversation, so on an error take
            them one by one.
    """
    pipeline = renamed(tokenizer)
    exchanged = [exchange(item, pipeline) for item in rendered]
    encodings = pipeline.backend.encode_batch(
        [text for text, _ in exchanged], add_special_tokens=False
    )
    found = []
    for encoding, (text, loss) in zip(encodings, exchanged, strict=True):
        ids = pipeline.ids[encoding.ids]
        if ids.min(initial=0) < 0:
            start, end = encoding.offsets[int(np.argmin(ids))]
            raise InputError(
                f"{text[start:end]!r} in a message is the text of a control token, and the "
                "tokenizer has no other token for it. Take it out."
            )
        found.append((ids, mask_of(encoding.offsets, loss)))
    return found


def check_encodable(rendered: Rendered, tokenizer: Tokenizer | None) -> None:
    """Raise now what encoding a conversation would raise later; it is hardly ever encoded for that.

    Args:
        tokenizer: None where it is still to be trained.

    Raises:
        InputError: as `encode_rendered`.
    """
    refuse_names(rendered.text)
    if tokenizer is None:
        return
    control = renamed(tokenizer).control
    if any(control.search(rendered.text, start, end) for start, end in rendered.content):
        encode_rendered(tokenizer, rendered)


def refuse_names(text: str) -> None:
    """Raise InputError where a text holds a character that stands for a control token here."""
    taken = NAME.search(text)
    if taken:
        raise InputError(
            f"the text holds the private-use character U+{ord(taken.group()):X}, which stands for "
            "a control token here. Take it out."
        )


def exchange(rendered: Rendered, pipeline: Renamed) -> tuple[str, list[Span]]:
    """The text with the names of control tokens outside of content, and the loss spans in it.

    Raises:
        InputError: the text holds such a name already.
    """
    text = rendered.text
    refuse_names(text)
    pieces: list[str] = []
    named = Names()
    at = begin = 0
    for start, end in (*rendered.content, (len(text), len(text))):
        for found in pipeline.control.finditer(text, begin, start):
            pieces += (text[at : found.start()], pipeline.names[found.group()])
            named.add(*found.span())
            at = found.end()
        begin = max(begin, end)
    pieces.append(text[at:])

    return "".join(pieces), [named.moved(span) for span in rendered.loss]


def mask_of(offsets: Sequence[Span], loss: Sequence[Span]) -> Mask:
    """1 for each token (first, behind last character) that overlaps a span.

    A token of no width, as for a space that the tokenizer puts before a text, counts as the
    character that it stands before.
    """
    places = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    starts, ends = places[:, 0], np.maximum(places[:, 1], places[:, 0] + 1)
    mask = np.zeros(len(places), dtype=np.uint8)
    for start, end in loss:
        mask |= ((starts < end) & (ends > start)).astype(np.uint8)
    return mask
