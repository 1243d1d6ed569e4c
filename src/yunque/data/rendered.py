"""RENDERED CONVERSATIONS → TOKEN IDS AND LOSS MASK, from character offsets alone.

The text of control tokens becomes their ids where the template wrote it, and plain text where a
person did. What stands between two control tokens is encoded as one stretch, so that the ids are
those of the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from yunque.data.chat_template import Rendered, Span
from yunque.data.tokenizer import Ids, Tokenizer

Mask = npt.NDArray[np.uint8]


def encode_rendered(tokenizer: Tokenizer, rendered: Rendered) -> tuple[Ids, Mask]:
    """Ids (N,) and mask (N,): 1 where a token holds a character that carries loss."""
    return encode_rendered_many(tokenizer, [rendered])[0]


def encode_rendered_many(
    tokenizer: Tokenizer, conversations: Sequence[Rendered]
) -> list[tuple[Ids, Mask]]:
    """The same for many, in order; their stretches are encoded at once."""
    cut = [cut_at_controls(tokenizer, conversation) for conversation in conversations]
    texts = [text for pieces in cut for text, _, id in pieces if id < 0]
    encoded = iter(tokenizer.encode_with_offsets(texts))
    found = []
    for conversation, pieces in zip(conversations, cut, strict=True):
        ids: list[int] = []
        spans: list[Span] = []
        for text, start, id in pieces:
            if id >= 0:
                ids.append(id)
                spans.append((start, start + len(text)))
            else:
                inner, offsets = next(encoded)
                ids += inner
                spans += [(start + a, start + b) for a, b in offsets]
        found.append((np.array(ids, dtype=np.int64), mask_of(spans, conversation.loss)))
    return found


def mask_of(tokens: Sequence[Span], loss: Sequence[Span]) -> Mask:
    """1 for every token that overlaps a loss span; both lists are in order of place."""
    mask = np.zeros(len(tokens), dtype=np.uint8)
    spans = iter(loss)
    span = next(spans, None)
    for number, (start, stop) in enumerate(tokens):
        while span is not None and span[1] <= start:
            span = next(spans, None)
        if span is None:
            break
        mask[number] = start < span[1] and stop > span[0]
    return mask


def cut_at_controls(tokenizer: Tokenizer, conversation: Rendered) -> list[tuple[str, int, int]]:
    """(text, where it begins, id of the control token or -1), in order, nothing left out."""
    text = conversation.text
    pattern, ids = controls_of(tokenizer.fingerprint, tuple(tokenizer.controls.items()))
    if pattern is None:
        return [(text, 0, -1)]
    pieces: list[tuple[str, int, int]] = []
    done = 0
    spans = iter(conversation.content)
    span = next(spans, None)
    place = 0
    while (match := pattern.search(text, place)) is not None:
        start, stop = match.span()
        while span is not None and span[1] <= start:
            span = next(spans, None)
        if span is not None and span[0] < stop:
            # A person wrote it, or a part of it: plain text. Look again behind its first character.
            place = start + 1
            continue
        if start > done:
            pieces.append((text[done:start], done, -1))
        pieces.append((match.group(), start, ids[match.group()]))
        done = place = stop
    if done < len(text):
        pieces.append((text[done:], done, -1))
    return pieces


@lru_cache(maxsize=8)
def controls_of(
    fingerprint: str, controls: tuple[tuple[str, int], ...]
) -> tuple[re.Pattern[str] | None, dict[str, int]]:
    """A pattern that finds control tokens, the longest first, and their ids."""
    ids = dict(controls)
    if not ids:
        return None, ids
    names = sorted(ids, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names))), ids
