"""DOCUMENTS → KEYS: which are equal, which nearly, and whether validation text stands in training.

A key is 8 bytes, so that millions of documents fit into memory; two different documents share one
with a probability of about n² / 2^65, 1 in 40,000 for 30 million of them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib

KEY = b"yunque split 1"
NEAR_KEY = b"yunque near 1"
FORM_KEY = b"yunque form 1"
ACCENTS = re.compile("[̀-ͯ]")
NUMBERS = re.compile(rb"[0-9]+")
WHITE_SPACE = b" \t\n\r\x0b\x0c"
NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))

BYTES_PER_DIGIT = 30  # a text with more digits than one in so many bytes may be about its numbers

NEAR_BYTES = 1 << 18  # a book's near key is that of its beginning: comparing more costs time

LINE_CHARACTERS = 40  # shorter lines ("Sancho:", "—Sí.") are equal by chance
MOST_LINES = 1 << 20


class DocumentKeys:
    """The keys of one document, fed in stretches: exact, near, and near but for the numbers."""

    def __init__(self) -> None:
        self._exact = hashlib.blake2b(key=KEY, digest_size=8)
        self._near = hashlib.blake2b(key=NEAR_KEY, digest_size=8)
        self._form = hashlib.blake2b(key=FORM_KEY, digest_size=8)
        self._fed = self._digits = 0  # bytes for the near key so far, and digits among them
        self._in_number = False  # whether they end in a digit

    def update(self, text: str) -> int:
        """Add a stretch of the document; return its size in bytes of UTF-8."""
        raw = text.encode("utf-8")
        size = len(raw)
        self._exact.update(raw)
        if self._fed >= NEAR_BYTES:
            return size
        if not text.isascii():
            raw = ACCENTS.sub("", unicodedata.normalize("NFKD", text)).lower().encode("utf-8")
        else:
            raw = raw.lower()
        part = raw.translate(None, WHITE_SPACE)[: NEAR_BYTES - self._fed]
        digits = len(part.translate(None, NO_DIGITS))
        form = NUMBERS.sub(b"0", part) if digits else part
        if self._in_number and form.startswith(b"0"):
            form = form[1:]  # the number began in the stretch before
        self._near.update(part)
        self._form.update(form)
        self._fed += len(part)
        self._digits += digits
        if part:
            self._in_number = part[-1:].isdigit()
        return size

    def exact(self) -> int:
        """Equal for equal texts."""
        return int.from_bytes(self._exact.digest(), "little")

    def near(self) -> int:
        """Equal for texts that differ in case, white space or accents only."""
        return int.from_bytes(self._near.digest(), "little")

    def form(self) -> int:
        """Equal for texts that differ in their numbers too, however many digits these have."""
        return int.from_bytes(self._form.digest(), "little")

    def about_numbers(self) -> bool:
        """Whether the text has so many digits that it may be about them, as "2 + 3" is."""
        return self._digits * BYTES_PER_DIGIT > self._fed


class LineOverlap:
    """How many lines of the validation text stand in the training text, too.

    Lines are kept as numbers, at most `MOST_LINES` of each side: beyond that every second one is
    let go, by its number, so that both sides keep the same ones and the share stays true.
    """

    def __init__(self) -> None:
        self._train: set[int] = set()
        self._val: dict[int, int] = {}
        self._kept_bits = 0

    def add(self, split: str, text: str) -> None:
        """Count the lines of a stretch of text; only "train" and "val" matter."""
        if split not in ("train", "val"):
            return
        mask = (1 << self._kept_bits) - 1
        for line in text.split("\n"):
            line = line.strip()
            if len(line) < LINE_CHARACTERS:
                continue
            raw = line.encode("utf-8")
            number = zlib.crc32(raw) << 32 | zlib.adler32(raw)
            if number & mask:
                continue
            if split == "train":
                self._train.add(number)
            else:
                self._val[number] = self._val.get(number, 0) + 1
        while max(len(self._train), len(self._val)) > MOST_LINES:
            self._kept_bits += 1
            mask = (1 << self._kept_bits) - 1
            self._train = {number for number in self._train if not number & mask}
            self._val = {k: count for k, count in self._val.items() if not k & mask}

    def result(self) -> tuple[int, int]:
        """(validation lines seen in training, validation lines), of those that were kept."""
        seen = sum(count for number, count in self._val.items() if number in self._train)
        return seen, sum(self._val.values())
