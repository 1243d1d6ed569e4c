"""TEXT STREAM → BLOCKS that can be tokenized one by one with the ids of the whole text.

A tokenizer may look at a whole document at once, but a corpus does not fit into memory. Byte and
character tokenizers can be cut anywhere. The others first split the text into pieces by a regular
expression and tokenize each piece alone, so a cut between two pieces changes nothing. Two places
are such a boundary for the expressions of GPT-2, GPT-4, Llama 3, Qwen and for our own:

- behind a newline that follows a visible character and stands before a letter (a newline among
  other white space is not: GPT-2's `\\s+(?!\\S)` takes "all white space but the last");
- before a single space between a visible character and a letter (the space belongs to the word).

The characters around a cut are narrower than "not white space", because regex engines disagree
about what white space is, and because some expressions join punctuation with line breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from yunque.data.alignment import Rendered

BLOCK_CHARACTERS = 1 << 16
LIMIT_CHARACTERS = 1 << 26
SAFE_CUT = re.compile(r"(?<=[!-~\w])(?= [^\W\d_])|(?<=[!-~\w]\n)(?=[^\W\d_])")

Cuts = Literal["anywhere", "safe", "never"]


class Stretch(NamedTuple):
    """A stretch of a document on its way to a split; a rendered conversation comes whole.

    `source` is the place of its file in the list, `line` where its document begins.
    """

    split: str
    text: str
    ends: bool
    source: int = 0
    line: int = 0
    rendered: Rendered | None = None


class Block(NamedTuple):
    """Text to be tokenized at once.

    `split` is the set it belongs to; `ends`: a document ends behind it; `forced`: it was cut
    where a token may span the cut, because the text offered no better place.
    """

    split: str
    text: str
    ends: bool
    forced: bool = False
    source: int = 0
    line: int = 0
    rendered: Rendered | None = None


def cut_blocks(
    stream: Iterable[Stretch],
    cuts: Cuts,
    size: int = BLOCK_CHARACTERS,
    limit: int = LIMIT_CHARACTERS,
) -> Iterator[Block]:
    """Regroup stretches into blocks; a conversation is a block of its own.

    Args:
        cuts: where the tokenizer may be cut; "never" gives whole documents.
        size: a block is cut at the first safe place behind so many characters.
        limit: a stretch of so many characters without a safe place is cut anyway (`forced`), so
            that memory stays bounded.
    """
    split, buffer, searched, source, line = "", "", 0, 0, 0

    def block(text: str, ends: bool, forced: bool = False) -> Block:
        return Block(split, text, ends, forced, source, line)

    for stretch in stream:
        if (stretch.split, stretch.source) != (split, source):
            if buffer:
                yield block(buffer, False)
            split, buffer, searched, source = stretch.split, "", 0, stretch.source
        line = stretch.line
        if stretch.rendered is not None:
            assert not buffer, "a document before a conversation did not end"
            yield Block(*stretch[:3], False, *stretch[3:])
            continue
        buffer += stretch.text
        if cuts == "anywhere":
            yield block(buffer, stretch.ends)
            buffer = ""
            continue
        start = 0
        while cuts == "safe" and len(buffer) - start > size:
            # A match needs to see at most two characters on both sides.
            place = SAFE_CUT.search(buffer, max(start + size, searched))
            if place is None:
                searched = len(buffer) - 2
                break
            yield block(buffer[start : place.start()], False)
            start = place.start()
        buffer, searched = buffer[start:], max(0, searched - start)
        if stretch.ends:
            yield block(buffer, True)
            buffer, searched = "", 0
        elif len(buffer) >= limit:
            yield block(buffer, False, forced=True)
            buffer, searched = "", 0
    if buffer:
        yield block(buffer, False)
