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
from typing import Literal, NamedTuple

BLOCK_CHARACTERS = 1 << 16
LIMIT_CHARACTERS = 1 << 26
SAFE_CUT = re.compile(r"(?<=[!-~\w])(?= [^\W\d_])|(?<=[!-~\w]\n)(?=[^\W\d_])")

Cuts = Literal["anywhere", "safe", "never"]


class Block(NamedTuple):
    """Text to be tokenized at once.

    `split` is the set it belongs to; `ends`: a document ends behind it; `forced`: it was cut
    where a token may span the cut, because the text offered no better place.
    """

    split: str
    text: str
    ends: bool
    forced: bool = False


def cut_blocks(
    stream: Iterable[tuple[str, str, bool]],
    cuts: Cuts,
    size: int = BLOCK_CHARACTERS,
    limit: int = LIMIT_CHARACTERS,
) -> Iterator[Block]:
    """Regroup a stream of (split, text, document ends behind it) into blocks.

    Args:
        cuts: where the tokenizer may be cut; "never" gives whole documents.
        size: a block is cut at the first safe place behind so many characters.
        limit: a stretch of so many characters without a safe place is cut anyway (`forced`), so
            that memory stays bounded.
    """
    split, buffer, searched = "", "", 0
    for name, text, ends in stream:
        if name != split:
            if buffer:
                yield Block(split, buffer, False)
            split, buffer, searched = name, "", 0
        buffer += text
        if cuts == "anywhere":
            yield Block(split, buffer, ends)
            buffer = ""
            continue
        start = 0
        while cuts == "safe" and len(buffer) - start > size:
            # A match needs to see at most two characters on both sides.
            place = SAFE_CUT.search(buffer, max(start + size, searched))
            if place is None:
                searched = len(buffer) - 2
                break
            yield Block(split, buffer[start : place.start()], False)
            start = place.start()
        buffer, searched = buffer[start:], max(0, searched - start)
        if ends:
            yield Block(split, buffer, True)
            buffer, searched = "", 0
        elif len(buffer) >= limit:
            yield Block(split, buffer, False, forced=True)
            buffer, searched = "", 0
    if buffer:
        yield Block(split, buffer, False)
