"""SENTENCEPIECE MODEL → `tokenizers` pipeline with the ids of the sentencepiece library.

A `.model` file is one protocol-buffer message. Its few fields are read here by hand: the package
sentencepiece brings a reader that works only together with the package protobuf, and neither is
needed to use a model.

What the pipeline does, in the order of the library's normalizer and encoder:

1. characters are mapped by the model's own table (`precompiled_charsmap`);
2. spaces at both ends are dropped and runs of them become one (`remove_extra_whitespaces`);
3. `▁` stands for a space, and one is put before the text (`add_dummy_prefix`);
4. the text falls into runs of `▁` with what follows them, where no piece spans such a border;
5. each is cut into its likeliest pieces (unigram), or characters are merged into pieces, the best
   score first (BPE).

What differs from the library, known and measured:

- A character that the table takes apart (™, ½) and that a combining mark follows at once loses
  the mark (`tokenizers` looks up whole graphemes). No line of our corpora holds one.
- A text of which the table leaves nothing (control characters alone) has no token; the library
  gives it the space before a text, where it does not remove extra spaces.
- A text that is nothing but one user-defined token has no space before it.
- The library adds up scores of a whole text in 32 bits, `tokenizers` those of a word in 64: where
  two segmentations are equally likely to seven digits, another may win in long lines.

Source: Kudo and Richardson 2018 (arXiv:1808.06226); sentencepiece_model.proto, version 0.2.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from yunque.data.vocabularies import special
from yunque.errors import InputError
from yunque.files import storage_error

SPACE = "▁"
# A run of spaces with what follows it: no piece spans the border to the next one.
WORD = r"▁+[^▁]*|[^▁]+"
LEADING, TRAILING, RUN = r"\A +", r"▁+\z", r" {2,}"

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces
UNIGRAM, BPE = 1, 2  # types of models


@dataclass(frozen=True)
class Piece:
    """A token of the model; its id is its place."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What a `.model` file says; names as in sentencepiece_model.proto."""

    pieces: tuple[Piece, ...]
    model_type: int
    byte_fallback: bool
    suffix: bool
    roles: dict[str, str]
    charsmap_name: str
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool


def load_sentencepiece(path: Path) -> tuple[Backend, dict[str, str]]:
    """The pipeline of a `.model` file, and the texts of its control tokens by role.

    Raises:
        InputError: the file is no SentencePiece model, or one of a kind that is not supported.
        StorageError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise storage_error(error, path, "read") from None
    try:
        model = read_model(data)
    except (ValueError, IndexError, struct.error) as error:
        raise InputError(f"{path}: not a SentencePiece model: {error}.") from None
    fault = unsupported(model)
    if fault:
        raise InputError(
            f"{path}: {fault}, which is not supported. Convert the model to a tokenizer.json and "
            "give that."
        )
    try:
        return to_backend(model), model.roles
    except Exception as error:  # `tokenizers` raises bare Exception for what it cannot use
        raise InputError(f"{path}: not a SentencePiece model that can be used: {error}.") from None


def read_model(data: bytes) -> SentencePieceModel:
    """Read the message; fields that are absent have the defaults of the format.

    Raises:
        ValueError, IndexError, struct.error: it is broken.
    """
    message = fields_of(data)
    trainer = fields_of(last(message, 2, b""))
    normalizer = fields_of(last(message, 3, b""))
    pieces = []
    for number, raw in enumerate(message.get(1, [])):
        piece = fields_of(typed(raw, bytes))
        text = last(piece, 1, b"").decode("utf-8")
        if not text:
            raise ValueError(f"piece {number} is empty")
        pieces.append(Piece(text, last(piece, 2, 0.0), last(piece, 3, NORMAL)))
    if not pieces:
        raise ValueError("it holds no pieces")
    controls = {piece.text for piece in pieces if piece.type == CONTROL}
    names = {"bos_token": (46, b"<s>"), "eos_token": (47, b"</s>"), "pad_token": (48, b"<pad>")}
    roles = {role: last(trainer, *name).decode("utf-8") for role, name in names.items()}
    return SentencePieceModel(
        pieces=tuple(pieces),
        model_type=last(trainer, 3, UNIGRAM),
        byte_fallback=bool(last(trainer, 35, 0)),
        suffix=bool(last(trainer, 24, 0)),
        roles={role: name for role, name in roles.items() if name in controls},
        charsmap_name=last(normalizer, 1, b"").decode("utf-8"),
        charsmap=last(normalizer, 2, b""),
        add_dummy_prefix=bool(last(normalizer, 3, 1)),
        remove_extra_whitespaces=bool(last(normalizer, 4, 1)),
        escape_whitespaces=bool(last(normalizer, 5, 1)),
    )


def fields_of(data: bytes) -> dict[int, list[Any]]:
    """Field number → its values, in order, of one protocol-buffer message.

    Source: protobuf.dev, "Encoding": varints, and the wire types 0, 1, 2 and 5.
    """
    found: dict[int, list[Any]] = {}
    place = 0
    while place < len(data):
        key, place = varint(data, place)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, place = varint(data, place)
        elif wire == 1:
            value, place = struct.unpack_from("<d", data, place)[0], place + 8
        elif wire == 2:
            size, place = varint(data, place)
            value, place = data[place : place + size], place + size
            if place > len(data):
                raise ValueError(f"it ends within field {number}")
        elif wire == 5:
            value, place = struct.unpack_from("<f", data, place)[0], place + 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        found.setdefault(number, []).append(value)
    return found


def varint(data: bytes, place: int) -> tuple[int, int]:
    """(number, place behind it): seven bits a byte, low ones first."""
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {place}")


def last(message: dict[int, list[Any]], number: int, default: Any) -> Any:
    """The value of a field, which counts as its last one; of the type of `default`."""
    return typed(message[number][-1], type(default)) if number in message else default


def typed(value: Any, kind: type) -> Any:
    """`value`, which must be of that type."""
    if not isinstance(value, kind):
        raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def unsupported(model: SentencePieceModel) -> str | None:
    """Why this model cannot be used here, if so."""
    of_type = {type: [p for p in model.pieces if p.type == type] for type in range(1, 7)}
    if model.model_type not in (UNIGRAM, BPE):
        return "its pieces are words or characters (expected unigram or bpe)"
    if model.suffix:
        return "it writes spaces behind words (treat_whitespace_as_suffix)"
    if not model.escape_whitespaces:
        return "it keeps spaces as they are (escape_whitespaces false)"
    if of_type[UNUSED]:
        return f"{len(of_type[UNUSED])} of its pieces are marked as unused"
    if len(of_type[UNKNOWN]) != 1:
        return f"it has {len(of_type[UNKNOWN])} unknown tokens (expected 1)"
    if len({piece.text for piece in model.pieces}) < len(model.pieces):
        return "a piece comes more than once"
    if model.byte_fallback and len(of_type[BYTE]) != 256:
        return f"it falls back on bytes, but has {len(of_type[BYTE])} of 256"
    if model.model_type == BPE:
        known = {piece.text for piece in of_type[NORMAL]}
        for piece in of_type[NORMAL]:
            if not known.issuperset(piece.text):
                return f"a character of its piece {piece.text!r} is no piece"
    return None


def to_backend(model: SentencePieceModel) -> Backend:
    """The pipeline of a supported model."""
    ids = {piece.text: id for id, piece in enumerate(model.pieces)}
    unknown = next(piece.text for piece in model.pieces if piece.type == UNKNOWN)
    normal = [piece for piece in model.pieces if piece.type == NORMAL]
    user_defined = [piece.text for piece in model.pieces if piece.type == USER_DEFINED]
    encoder: Any
    if model.model_type == UNIGRAM:
        scores = [(piece.text, piece.score) for piece in model.pieces]
        encoder = models.Unigram(scores, ids[unknown], model.byte_fallback)
    else:
        encoder = models.BPE(
            vocab=ids,
            merges=list(merges(normal)),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    backend = Backend(encoder)
    steps = normalizer_steps(model, user_defined)
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    cuts = []
    if model.model_type == UNIGRAM:
        cuts.append(
            pre_tokenizers.Split(Regex(reserved_cuts(model.pieces)), "merged_with_previous")
        )
    if SPACE in ids and not any(re.search(r"[^▁]▁", p.text) for p in model.pieces):
        cuts.append(pre_tokenizers.Split(Regex(WORD), "isolated"))
    if cuts:
        backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if model.add_dummy_prefix else []),
        ]
    )
    backend.add_special_tokens(
        [special(piece.text) for piece in model.pieces if piece.type in (CONTROL, UNKNOWN)]
    )
    # Found in the text as it is after normalization, as the library does.
    backend.add_tokens([AddedToken(text, normalized=True) for text in user_defined])
    return backend


def merges(normal: list[Piece]) -> Iterator[tuple[str, str]]:
    """The pairs that make each piece, the piece with the best score first.

    The library merges any two neighbours whose union is a piece, the leftmost of equal ones.
    """
    known = {piece.text for piece in normal}
    for piece in sorted(normal, key=lambda piece: -piece.score):
        for place in range(1, len(piece.text)):
            left, right = piece.text[:place], piece.text[place:]
            if left in known and right in known:
                yield left, right


def normalizer_steps(model: SentencePieceModel, user_defined: list[str]) -> list[Any]:
    """Steps 1 to 3 of the module's list."""
    steps: list[Any] = []
    if model.charsmap:
        compatible = "nfkc" in model.charsmap_name
        # `tokenizers` looks up graphemes of up to five bytes and single characters; composing
        # before and after gives it the longer sequences that the library's table holds.
        steps += [normalizers.NFC()] if compatible else []
        if model.charsmap_name.startswith("nmt"):
            steps.append(normalizers.Replace("\r\n", "\n\n"))  # one grapheme, but two spaces
        steps.append(normalizers.Precompiled(model.charsmap))
        steps += [normalizers.NFC()] if compatible else []
    if model.remove_extra_whitespaces:
        steps += [
            normalizers.Replace(Regex(LEADING), ""),
            normalizers.Replace(Regex(RUN), " "),
        ]
    steps.append(normalizers.Replace(" ", SPACE))
    if model.add_dummy_prefix:
        steps.append(prefix(user_defined))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(TRAILING), ""))
    return steps


def prefix(user_defined: list[str]) -> Any:
    """A space before the text.

    User-defined tokens go through the same normalizer on their own before they are looked for,
    and must come out of it unchanged.
    """
    if not user_defined:
        return normalizers.Prepend(SPACE)
    alone = "|".join(map(literal, user_defined))
    return normalizers.Replace(Regex(rf"\A(?!(?:{alone})\z)(?=[\s\S])"), SPACE)


def reserved_cuts(pieces: tuple[Piece, ...]) -> str:
    """Where to cut texts that look like control or byte tokens, so that they stay text.

    The unigram model of `tokenizers` finds every piece of its vocabulary in the text, these too.
    The cut is put where the library cuts as well: always, where no piece spans that place, else
    at least where the text stands alone.
    """
    scores = {piece.text: piece.score for piece in pieces if piece.type == NORMAL}
    pairs = {text[place : place + 2] for text in scores for place in range(len(text) - 1)}
    found = []
    for piece in pieces:
        text = piece.text
        if piece.type in (NORMAL, USER_DEFINED) or len(text) < 2:
            continue
        borders = best_borders(text, scores)
        # Two unknown characters side by side are one unknown token.
        apart = [p for p in borders if text[p - 1] in scores or text[p] in scores] or borders
        place = next((p for p in apart if text[p - 1 : p + 1] not in pairs), apart[0])
        found.append(f"{literal(text[:place])}(?={literal(text[place:])})")
    return "|".join(found)


def best_borders(text: str, scores: dict[str, float]) -> list[int]:
    """The borders within `text` of its likeliest segmentation; unknown characters cost most."""
    unknown = min(scores.values(), default=0.0) - 10
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        ways = []
        for start in range(end):
            score = scores.get(text[start:end], unknown if end - start == 1 else None)
            if score is not None:
                ways.append((best[start][0] + score, [*best[start][1], start]))
        best.append(max(ways))
    return best[-1][1][1:]


def literal(text: str) -> str:
    """A regular expression for exactly this text, in the syntax of `tokenizers`."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)
