"""DOCUMENTS → TRAIN, VALIDATION, TEST: the tail of a text, or whole documents by their content."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import numpy as np

from yunque.config import DataConfig
from yunque.data.blocks import Stretch
from yunque.data.documents import Piece
from yunque.errors import InputError

SPLITS = ("train", "val", "test")
DUPLICATE = "duplicate"
PLACES = (*SPLITS, DUPLICATE)


def text_bounds(characters: int, config: DataConfig) -> dict[str, tuple[int, int]]:
    """Split → its (first, behind last) character: train first, then val, test at the end.

    The fractions are rounded to 12 digits first: 1 - 0.3 - 0.1 is 0.6000000000000001 otherwise.
    """
    train = int(round(1 - config.val - config.test, 12) * characters)
    val = int(round(1 - config.test, 12) * characters) if config.test else characters
    if not config.val:
        val = train
    bounds = {"train": (0, train), "val": (train, val), "test": (val, characters)}
    for name, asked in (("train", 1.0), ("val", config.val), ("test", config.test)):
        if asked and bounds[name][0] == bounds[name][1]:
            raise InputError(
                f"{name}: no character left for it: {characters} characters, val {config.val}, "
                f"test {config.test}. Give more text, other fractions, or none "
                "(--val 0)."
            )
    return bounds


def document_codes(hashes: array[int], config: DataConfig) -> bytes:
    """One byte a document, in order: its place in PLACES.

    The documents with the lowest hashes of their content are held out, as many as the fractions
    say and at least one: the choice does not depend on their order, it hardly moves when
    documents are added, and equal documents always fall into the same split. Where the recipe
    drops duplicates, the second and later copies get the place of "duplicate".

    Raises:
        InputError: too few different documents.
    """
    values = np.frombuffer(hashes, dtype=np.uint64)
    codes = np.zeros(len(values), dtype=np.uint8)
    unique, first = np.unique(values, return_index=True)
    kept = np.ones(len(values), dtype=bool)
    if config.duplicates == "drop":
        kept[:] = False
        kept[first] = True
    ranked = np.sort(values[kept])
    need = 1 + (config.val > 0) + (config.test > 0)
    message = (
        f"{len(values)} document{'s' * (len(values) != 1)} ({len(unique)} different) cannot be "
        f"split into {need} sets with val {config.val} and test {config.test}. Give more, or hold "
        "nothing out (--val 0); of plain text a part can be (--split-by text)."
    )
    if len(unique) < need:
        raise InputError(message)
    taken = 0
    for name, share in (("val", config.val), ("test", config.test)):
        if share:
            taken += max(1, int(round(share * len(ranked), 9)))
            if taken >= len(ranked):
                raise InputError(message)
            limit = ranked[taken - 1]
            codes[(codes == 0) & (values <= limit)] = PLACES.index(name)
            taken = int(np.searchsorted(ranked, limit, side="right"))
    if not (codes == 0).any():
        raise InputError(message)
    codes[~kept] = PLACES.index(DUPLICATE)
    return codes.tobytes()


def split_text(pieces: Iterable[Piece], bounds: dict[str, tuple[int, int]]) -> Iterator[Stretch]:
    """The text cut at the bounds in characters."""
    start, split = 0, "train"
    for piece in pieces:
        if piece.blank:
            continue
        for name, (low, high) in bounds.items():
            text = piece.text[max(0, low - start) : max(0, high - start)]
            if text:
                split = name
                yield Stretch(split, text, False, piece.source, piece.line)
        start += len(piece.text)
        if piece.last:
            yield Stretch(split, "", True, piece.source, piece.line)


def split_documents(pieces: Iterable[Piece], codes: bytes) -> Iterator[Stretch]:
    """Whole documents, each to the split of its code."""
    number = 0
    for piece in pieces:
        if not piece.blank:
            place = PLACES[codes[number]]
            yield Stretch(place, piece.text, piece.last, piece.source, piece.line, piece.rendered)
            number += piece.last
