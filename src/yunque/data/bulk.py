"""BULK TEXT → IDS by tiktoken, for byte-level BPE vocabularies and only where the ids are equal.

tiktoken encodes several times faster than `tokenizers`, but by a shorter rule: it merges any two
neighbours whose union is a token, the token with the lowest rank first, where `tokenizers` goes by
a list of pairs. Yet they give equal ids, whatever the text, under conditions that are checked on
the whole vocabulary when it is opened:

- Let two neighbours make up a token somewhere in a text. No merge has crossed its ends so far, so
  what happened within is what happens when the token is encoded alone. Alone, it comes down to one
  pair before it is made. So these two are that pair: no other one ever makes this token, in the
  list or not, and the place of that pair in the list is the token's rank.
- Tokens that the list does not make of their own bytes occur in no text and are left out. (With
  `ignore_merges` they occur as whole pieces: they come last, and must not arise by merging.)

Both programs split the text by the same regular expression in different engines; a text goes to
tiktoken only where the engines agree about each of its characters. Otherwise the caller takes the
slow way.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from yunque.data.pipelines import steps_of
from yunque.data.vocabularies import BPE_PATTERN, BYTE_OF, CHARACTER_OF

Ids = npt.NDArray[np.int64]
Pair = tuple[str, str]

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same alternatives with words first, which are met most: up to twice as fast. Only
# alternatives that no character can begin both of have changed their order.
QUICKER = {
    GPT2_PATTERN: (r" ?\p{L}+| ?\p{N}+|'s|'t|'re|'ve|'m|'ll|'d| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    BPE_PATTERN: (
        r" ?[\p{L}\p{M}]+|\p{N}|['’]\p{L}{1,2}(?![\p{L}\p{M}])| ?[^\s\p{L}\p{M}\p{N}]+"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
# Expressions made of these parts alone mean the same in both engines, given the same classes.
PART = re.compile(
    r"\\p\{[A-Za-z]+\}|\\[sSnrt]|\\[^\w\s]|\(\?:|\(\?i:|\(\?!|\(\?=|\[\^?|[\])|]"
    r"|[*+?](?![*+?])|\{[0-9]+(?:,[0-9]*)?\}(?![*+?])|[^\\()\[\]{}|*+?.^$&~-]"
)
CLASS = re.compile(r"\\p\{[A-Za-z]+\}|\\[sS]")

END = 1 << 62  # behind every place in a list

ASCII = bytes(range(128))
NEW, DOUBTFUL, TRUSTED = 0, 1, 2  # what is known of a character

TRIAL = (
    "El 24 de mayo, «¿qué?»\r\n\r\n\tdon't  won'T we'LL ’tis I'm 12345 3.14\n   \n x  y\u00a0 z "
    "naïve e\u0301 __init__(self): #### ... !!!  \n\n\nÑandú's  中文，テスト 한국어 ½ ² "
    "👩🏽‍🚀 ❤️\u200b<|x|>\n"
)


class Bulk:
    """A vocabulary as tiktoken reads it.

    Args:
        ranks: bytes of each token → its rank, lowest merged first; ranks have no gaps.
        ids: (ranks,) the id of each rank.
        composed: the pipeline composes characters first (NFC).
        added: matches tokens that are taken out of the text before it is split.
    """

    def __init__(
        self,
        pattern: str,
        ranks: dict[bytes, int],
        ids: Ids,
        composed: bool,
        added: re.Pattern[str] | None,
    ) -> None:
        self.pattern = pattern
        self.ranks = ranks
        self.mine = threading.local()
        self.ids = ids
        self.sizes = np.array([len(token) for token in ranks], dtype=np.int64)
        self.composed = composed
        self.added = added
        self.total = pattern in QUICKER.values()  # known to leave no character out
        self.classes = [Class(name) for name in dict.fromkeys(CLASS.findall(pattern))]
        self.folds = "(?i:" in pattern
        self.known = np.zeros(0x110000, dtype=np.uint8)

    def encode(self, text: str) -> Ids | None:
        """The ids, or None where this text must go the slow way."""
        if self.composed:
            text = unicodedata.normalize("NFC", text)
        raw = text.encode("utf-8")
        if not self.trusts(raw.translate(None, ASCII).decode("utf-8")):
            return None
        if self.added is not None and self.added.search(text):
            return None
        try:
            ranks = self.encoding().encode_to_numpy(text, disallowed_special=())
        except ValueError:  # its regex engine gives up on very long runs of white space
            return None
        if not self.total and int(self.sizes.take(ranks).sum()) != len(raw):
            return None  # the expression leaves something out
        return self.ids.take(ranks, mode="clip")  # the fastest way of not checking the range

    def encode_marked(self, text: str, marks: tuple[str, ...]) -> Ids | None:
        """Ranks of a text in which `marks` stand between texts; the k-th is rank `ranks` + k.

        Each text between two marks is encoded as if it stood alone. None: as of `encode`, which
        knows neither composition nor added tokens here.
        """
        if self.composed or self.added is not None:
            return None
        found: tiktoken.Encoding | None = self.marked().get(marks)
        if found is None:
            numbers = {mark: len(self.ranks) + place for place, mark in enumerate(marks)}
            found = self.marked()[marks] = tiktoken.Encoding(
                "yunque", pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens=numbers
            )
        try:
            ranks = found.encode_to_numpy(text, allowed_special="all", disallowed_special=())
        except ValueError:
            return None
        return ranks.astype(np.int64)

    def marked(self) -> dict[tuple[str, ...], tiktoken.Encoding]:
        """This thread's own encodings with marks."""
        if not hasattr(self.mine, "marked"):
            self.mine.marked = {}
        found: dict[tuple[str, ...], tiktoken.Encoding] = self.mine.marked
        return found

    def encoding(self) -> tiktoken.Encoding:
        """This thread's own: its regex engine serves the first thread that uses it best.

        (A quarter faster than one that is shared.)
        """
        found: tiktoken.Encoding | None = getattr(self.mine, "encoding", None)
        if found is None:
            # The search for special tokens needs one; this one is never allowed.
            nothing = {"\U0010ffff\U0010fffe": len(self.ranks)}
            found = self.mine.encoding = tiktoken.Encoding(
                "yunque", pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens=nothing
            )
        return found

    def trusts(self, characters: str) -> bool:
        """Whether both regex engines agree about every one of these characters."""
        codes = np.frombuffer(characters.encode("utf-32-le"), np.dtype("<u4"))
        known = self.known.take(codes)
        if (known == NEW).any():
            self.examine("".join(map(chr, np.unique(codes[known == NEW]))))
            known = self.known.take(codes)
        return bool((known == TRUSTED).all())

    def examine(self, characters: str) -> None:
        """Find out about characters that were not met before."""
        doubtful: set[str] = set()
        for kind in self.classes:
            doubtful |= kind.disputed(characters)
        for character in characters:
            # Case folding reaches plain letters from afar (the long s), and composition changes
            # with the version of Unicode.
            if not character.isascii() and (
                (self.folds and any(folded.isascii() for folded in character.casefold()))
                or (self.composed and unicodedata.category(character) == "Cn")
            ):
                doubtful.add(character)
        for character in characters:
            self.known[ord(character)] = DOUBTFUL if character in doubtful else TRUSTED


class Class:
    """One class of characters, such as letters, in both engines."""

    def __init__(self, name: str) -> None:
        single = {bytes([byte]): byte for byte in range(256)}
        self.here = tiktoken.Encoding(name, pat_str=name, mergeable_ranks=single, special_tokens={})
        self.there = pre_tokenizers.Split(Regex(name), "removed", invert=True)

    def disputed(self, characters: str) -> set[str]:
        """The characters that are of this class in one engine alone."""
        here = set(bytes(self.here.encode_ordinary(characters)).decode("utf-8"))
        there = set("".join(piece for piece, _ in self.there.pre_tokenize_str(characters)))
        return here ^ there


def bulk_of(pipeline: Mapping[str, Any], plain: Backend) -> Bulk | None:
    """The same vocabulary for tiktoken, or None where it cannot be proved equal.

    Args:
        plain: the pipeline itself, which reads special tokens as plain text.
    """
    pattern = pattern_of(pipeline)
    if pattern is None or re.fullmatch(rf"(?:{PART.pattern})+", pattern) is None:
        return None
    normalizer = pipeline["normalizer"]
    if normalizer is not None and normalizer["type"] != "NFC":
        return None
    added = [token for token in pipeline["added_tokens"] if not token["special"]]
    if any(token["normalized"] and normalizer is not None for token in added):
        return None
    ids = ids_by_rank(pipeline["model"])
    if ids is None:
        return None
    tokens = {id: token for token, id in pipeline["model"]["vocab"].items()}
    found = Bulk(
        QUICKER.get(pattern, pattern),
        {raw_bytes(tokens[id]): rank for rank, id in enumerate(ids)},
        np.array(ids, dtype=np.int64),
        normalizer is not None,
        re.compile("|".join(re.escape(token["content"]) for token in added)) if added else None,
    )
    if not found.trusts(ASCII.decode("ascii")):
        return None
    for text in (TRIAL, TRIAL.upper(), *TRIAL.split(" ")):
        quick = found.encode(text)
        if quick is not None and quick.tolist() != plain.encode(text, add_special_tokens=False).ids:
            return None
    return found


def pattern_of(pipeline: Mapping[str, Any]) -> str | None:
    """The one expression that splits the text before its bytes are merged, if that is the rule."""
    steps = steps_of(pipeline["pre_tokenizer"])
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    if len(steps) == 1:
        return GPT2_PATTERN if steps[0]["use_regex"] else None
    split = steps[0]
    if len(steps) > 2 or split["type"] != "Split" or steps[-1]["use_regex"]:
        return None
    if split["behavior"] != "Isolated" or split["invert"]:
        return None
    pattern: str | None = split["pattern"].get("Regex")
    return pattern


def raw_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for."""
    return bytes(BYTE_OF[character] for character in token)


def ids_by_rank(model: Mapping[str, Any]) -> list[int] | None:
    """The ids of all tokens that can occur, bytes first, then in the order of the merges.

    None where the model does not meet the conditions of this module.
    """
    changes = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model["type"] != "BPE" or any(model.get(change) for change in changes):
        return None
    vocabulary: dict[str, int] = model["vocab"]
    if not set(BYTE_OF) <= set(vocabulary):
        return None
    pairs = [(left, right) for left, right in model["merges"]]
    place_of = {pair: place for place, pair in enumerate(pairs)}
    merges = models.BPE(vocab=vocabulary, merges=pairs)

    def made(token: str) -> bool:
        return [part.id for part in merges.tokenize(token)] == [vocabulary[token]]

    if not all(map(made, CHARACTER_OF.values())):
        return None
    places: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault("".join(pair), []).append(place)
    rank = {
        token: found[0] if found[-1] - found[0] < len(found) else place_of[last(token, place_of)]
        for token, found in places.items()
        if made(token)
    }
    ranked = [*CHARACTER_OF.values(), *sorted(rank, key=rank.__getitem__)]
    if model.get("ignore_merges"):
        # A piece that is a token is taken whole, though no merges make it.
        known = set(ranked)
        whole = [token for token in vocabulary if token not in known and set(token) <= set(BYTE_OF)]
        ranked += whole
        unions = {token: place for place, token in enumerate(ranked)}
        if any(arises(token, unions) for token in whole):
            return None
    return [vocabulary[token] for token in ranked]


def last(token: str, place_of: Mapping[Pair, int]) -> Pair:
    """The pair that makes a token of its bytes: the first of the list, then leftmost, at a time."""
    parts = list(token)
    while len(parts) > 2:
        places = [place_of.get(pair, END) for pair in pairwise(parts)]
        at = places.index(min(places))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def arises(token: str, rank_of: Mapping[str, int]) -> bool:
    """Whether merging any two neighbours whose union is a token makes this one of its bytes."""
    parts = list(token)
    while len(parts) > 1:
        unions = [left + right for left, right in pairwise(parts)]
        ranks = [rank_of.get(union, END) for union in unions]
        at = ranks.index(min(ranks))
        if ranks[at] == END:
            return False
        parts[at : at + 2] = [unions[at]]
    return True
