"""RENDERED CONVERSATIONS → TOKEN IDS AND LOSS MASK.

The template's control tokens become their ids, and the same text in what somebody wrote stays
text. A tokenizer cannot tell the two apart, so it is given another name for each control token, a
private-use character, which is put in the place of the template's own ones. What surrounds them is
encoded exactly as it would be in the whole text.
"""

from __future__ import annotations

import json
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
from yunque.data.chat_template import control_pattern
from yunque.data.tokenizer import Ids, Tokenizer
from yunque.errors import InputError

Mask = npt.NDArray[np.uint8]

NAMES = 0x10F000  # the end of plane 16 of Unicode, for private use
BEHIND_NAMES = 0x10FFFE
NAME = re.compile(f"[{chr(NAMES)}-{chr(BEHIND_NAMES - 1)}]")


@dataclass(frozen=True)
class Renamed:
    """A tokenizer whose control tokens have other names.

    Attributes:
        names: text of a control token → the character that stands for it.
        ids: id of this pipeline → id of the tokenizer; -1 for what must not come out.
    """

    backend: Backend
    names: Mapping[str, str]
    control: re.Pattern[str]
    ids: Ids


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
    return Renamed(backend, names, control_pattern(list(names)), ids)


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
    ends: list[int] = []  # of the control tokens, in the old text
    shifts = [0]  # by how much the new text is shorter, behind so many control tokens
    at = begin = 0
    for start, end in (*rendered.content, (len(text), len(text))):
        for found in pipeline.control.finditer(text, begin, start):
            pieces += (text[at : found.start()], pipeline.names[found.group()])
            at = found.end()
            ends.append(at)
            shifts.append(shifts[-1] + at - found.start() - 1)
        begin = max(begin, end)
    pieces.append(text[at:])

    def place(old: int) -> int:
        return old - shifts[bisect_right(ends, old)]

    return "".join(pieces), [(place(start), place(end)) for start, end in rendered.loss]


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
