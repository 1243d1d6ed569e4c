"""TEXT → VOCABULARY: the tokenizers that are trained here, each a `tokenizers` pipeline.

| spec          | a token is                       | unknown text |
|---------------|----------------------------------|--------------|
| char          | a character of the training text | `<|unk|>`    |
| byte          | a byte of UTF-8, id = its value  | cannot be    |
| word:SIZE     | a word with the space before it, | `<|unk|>`    |
|               | a digit, a punctuation mark      |              |
| bpe:SIZE      | a frequent sequence of bytes     | cannot be    |
| bpe-gpt2:SIZE | the same, split as GPT-2 does it | cannot be    |
| unigram:SIZE  | a likely sequence of bytes       | cannot be    |

SIZE is the whole vocabulary, special tokens included. llama.cpp knows ways of splitting by name:
GPT-2's has one, ours has none, so that only the former goes into a GGUF file.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from yunque.config import unknown_name
from yunque.data.blocks import SAFE_CUT
from yunque.errors import InputError, MissingPackageError

UNKNOWN = "<|unk|>"
KINDS = ("char", "byte", "word", "bpe", "bpe-gpt2", "unigram")
SPECS = ("char", "byte", "word", "word:8000", "bpe:4096", "bpe-gpt2:4096", "unigram:8000")
SIZED = ("bpe", "bpe-gpt2", "unigram")  # these cannot do without SIZE

CHAR_PATTERN = r"[\s\S]"
WORD_PATTERN = r" ?[\p{L}\p{M}]+|\p{N}|[^\s\p{L}\p{M}\p{N}]|\s"
# Like GPT-4's in spirit: words with the space before them, contractions, every digit alone (so
# that numbers of any length are read digit by digit), runs of punctuation, line ends, white space.
BPE_PATTERN = (
    r"['’]\p{L}{1,2}(?![\p{L}\p{M}])"
    r"| ?[\p{L}\p{M}]+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

LEAST_TIMES = 2  # that a pair occurs before it becomes a token
BETWEEN, TEXTS_AT_ONCE = "\0", 10_000  # texts are counted many at a time, with this between them
# Up to here merging counted pieces is faster than `tokenizers`, which reads the text as a whole.
MOST_PARTS, MOST_PIECES, MOST_MERGES = 50_000, 5_000, 1_000

Texts = Callable[[], Iterator[str]]


def byte_characters() -> dict[int, str]:
    """Byte → the character that stands for it in byte-level vocabularies.

    Visible Latin-1 characters stand for themselves; the other 68 bytes take the code points from
    256 on, in order, so that no token holds a space or control character. Source: GPT-2's files.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {byte: chr(byte) for byte in visible}
    return table | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


CHARACTER_OF = byte_characters()
BYTE_OF = {character: byte for byte, character in CHARACTER_OF.items()}


def special(text: str) -> AddedToken:
    """A control token: matched as it stands, never trimmed."""
    return AddedToken(text, special=True, normalized=False)


def parse_spec(spec: str) -> tuple[str, int | None]:
    """("bpe", 4096) of "bpe:4096".

    Raises:
        InputError: no such kind, or a size where none belongs, or none where one does.
    """
    name, colon, size = spec.partition(":")
    if name not in KINDS:
        raise InputError(
            unknown_name(spec, SPECS, "tokenizer")
            + " Or give the path of an existing tokenizer.json, of a SentencePiece model or of a "
            "folder with one, or a Hub id (owner/name)."
        )
    if name in ("char", "byte") and colon:
        raise InputError(f"tokenizer {spec!r}: {name} takes no size; write {name!r}.")
    if not colon and name not in SIZED:
        return name, None
    if not re.fullmatch(r"[0-9]{1,9}", size):
        raise InputError(
            f"tokenizer {spec!r}: expected the size of the vocabulary as a whole number, "
            f"for example '{name}:4096'."
        )
    return name, int(size)


def train_backend(spec: str, texts: Texts, controls: list[str]) -> Backend:
    """The pipeline that a spec asks for, trained on the texts.

    Args:
        controls: the special tokens, the separator first.

    Raises:
        InputError: the spec cannot be read, or SIZE is too small.
    """
    name, size = parse_spec(spec)
    if name in ("char", "word"):
        controls = [controls[0], UNKNOWN, *controls[1:]]
    least = len(controls) + (256 if name in SIZED else 1)
    if name in (*SIZED, "word") and size is not None and size < least:
        parts = "256 bytes + " if name in SIZED else "1 word + "
        raise InputError(
            f"tokenizer {spec!r}: a vocabulary of {size} is too small; at least {least} "
            f"({parts}{len(controls)} special tokens: {', '.join(controls)})."
        )
    train = {
        "char": char,
        "byte": byte,
        "word": word,
        "bpe": bpe,
        "bpe-gpt2": bpe_gpt2,
        "unigram": unigram,
    }[name]
    return train(texts, controls, size)


def char(texts: Texts, controls: list[str], size: int | None) -> Backend:
    """One token a character: specials first, then the characters by code point."""
    characters: set[str] = set()
    for text in texts():
        characters.update(text)
    tokens = [*controls, *sorted(characters.difference(controls))]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    backend = Backend(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(CHAR_PATTERN), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([special(token) for token in controls])
    return backend


def byte(texts: Texts, controls: list[str], size: int | None) -> Backend:
    """One token a byte: ids 0 to 255 are the bytes, then the specials."""
    vocabulary = {character: value for value, character in CHARACTER_OF.items()}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([special(token) for token in controls])
    return backend


def word(texts: Texts, controls: list[str], size: int | None) -> Backend:
    """One token a word, the most frequent ones; all that occur where `size` is None."""
    backend = Backend(models.WordLevel({}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    backend.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(
        vocab_size=2**31 if size is None else size,
        min_frequency=0,
        show_progress=False,
        special_tokens=[special(token) for token in controls],
    )
    backend.train_from_iterator(texts(), trainer)
    return backend


def byte_level_pieces() -> Any:
    """Text → pieces by BPE_PATTERN → bytes, a character for each."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(BPE_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def bpe(texts: Texts, controls: list[str], size: int | None) -> Backend:
    """Byte-level byte-pair encoding; a merge must occur at least twice in the text.

    Source: Sennrich et al. 2016 (arXiv:1508.07909), on bytes as in GPT-2.
    """
    assert size is not None  # parse_spec demands it
    pieces = few_pieces(texts())
    if pieces is not None and size - 256 <= MOST_MERGES:
        backend = Backend(by_counts(pieces, controls, size))
        backend.pre_tokenizer = byte_level_pieces()
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([special(token) for token in controls])
        return backend
    return merged(byte_level_pieces(), texts, controls, size)


def few_pieces(texts: Iterator[str]) -> Counter[str] | None:
    """Piece of `byte_level_pieces` → how often it occurs; None where there are many.

    A text is cut before each space behind a visible character: no piece of BPE_PATTERN reaches over
    such a place, and none looks back. Each distinct part is then split into its pieces once.
    """
    parts: Counter[str] = Counter()
    while group := list(islice(texts, TEXTS_AT_ONCE)):
        whole = BETWEEN.join(group)
        if whole.count(BETWEEN) != len(group) - 1:
            return None
        # A space is put back where it was cut off; the first text begins without one.
        first, *others = whole.split(" ")
        parts[first] += 1
        parts.update(map(" ".__add__, others))
        if len(parts) > MOST_PARTS:
            return None
    split = byte_level_pieces()
    pieces: Counter[str] = Counter()
    for part, times in ((part, n) for row, n in parts.items() for part in row.split(BETWEEN)):
        # Where white space stands before a space, a piece may reach over it.
        if part and unicodedata.category(part[-1])[0] in "ZC":
            return None
        for piece, _ in split.pre_tokenize_str(part):
            pieces[piece] += times
    return pieces if len(pieces) <= MOST_PIECES else None


def by_counts(pieces: Counter[str], controls: list[str], size: int) -> Any:
    """The model that the trainer of `tokenizers` makes of these pieces.

    Again and again the pair of neighbours that occurs most often becomes a token: among equals the
    one with the lowest ids, left before right. Equal texts of different pairs share a token.
    """
    tokens = [*controls, *sorted(CHARACTER_OF.values())]
    ids = {token: id for id, token in enumerate(tokens)}
    words = [[ids[character] for character in piece] for piece in pieces]
    times = list(pieces.values())
    counts: Counter[tuple[int, int]] = Counter()
    where: dict[tuple[int, int], set[int]] = {}
    for number, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += times[number]
            where.setdefault(pair, set()).add(number)
    merges: list[tuple[str, str]] = []
    while len(ids) < size and counts:
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[pair] < LEAST_TIMES:
            break
        left, right = tokens[pair[0]], tokens[pair[1]]
        new = ids.setdefault(left + right, len(ids))
        if new == len(tokens):
            tokens.append(left + right)
        merges.append((left, right))
        for number in where.pop(pair):
            word = words[number]
            for old in pairwise(word):
                counts[old] -= times[number]
            words[number] = word = joined(word, pair, new)
            for made in pairwise(word):
                counts[made] += times[number]
                where.setdefault(made, set()).add(number)
        del counts[pair]
    return models.BPE(vocab=ids, merges=merges)


def joined(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """A word with each such pair, from left to right, as one token."""
    made: list[int] = []
    at = 0
    while at < len(word):
        together = tuple(word[at : at + 2]) == pair
        made.append(new if together else word[at])
        at += 2 if together else 1
    return made


def bpe_gpt2(texts: Texts, controls: list[str], size: int | None) -> Backend:
    """The same on GPT-2's pieces, in which numbers are not split into their digits."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return merged(split, texts, controls, size)


def merged(split: Any, texts: Texts, controls: list[str], size: int | None) -> Backend:
    """Merges within the pieces that `split` makes of a text."""
    assert size is not None  # parse_spec demands it
    backend = Backend(models.BPE())
    backend.pre_tokenizer = split
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=LEAST_TIMES,
        show_progress=False,
        special_tokens=[special(token) for token in controls],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(texts(), trainer)
    return backend


def unigram(texts: Texts, controls: list[str], size: int | None) -> Backend:
    """A unigram language model over pieces of bytes: each text takes its likeliest pieces.

    It works on bytes, so that nothing is unknown and every text comes back exactly. Trained by
    the sentencepiece library on the counted pieces, because the trainer of `tokenizers` gives
    another vocabulary each time. The special tokens stand behind the pieces and outside the
    model, which would otherwise find them in plain text.

    Source: Kudo 2018 (arXiv:1804.10959).

    Raises:
        MissingPackageError: without the package sentencepiece.
    """
    try:
        import sentencepiece
    except ImportError:
        raise MissingPackageError(
            "training a unigram tokenizer needs the package sentencepiece: "
            "pip install sentencepiece"
        ) from None
    assert size is not None  # parse_spec demands it
    segments: Counter[str] = Counter()
    for text in texts():
        segments.update(SAFE_CUT.split(text))
    split = byte_level_pieces()
    pieces: Counter[str] = Counter()
    for segment, times in segments.items():
        for piece, _ in split.pre_tokenize_str(segment):
            pieces[piece] += times
    # Bytes that the text does not hold get a token too, less likely than any piece.
    present = set("".join(pieces))
    absent = [character for character in CHARACTER_OF.values() if character not in present]
    # Sorted, so that equal texts give equal vocabularies.
    rows = [f"{piece}\t{times}" for piece, times in sorted(pieces.items())]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(rows),
        model_writer=model,
        input_format="tsv",
        model_type="unigram",
        # Its unknown token is left out again.
        vocab_size=size - len(controls) - len(absent) + 1,
        hard_vocab_limit=False,  # a short text gives fewer pieces
        character_coverage=1.0,
        max_sentence_length=1 << 30,
        # The pieces are already cut, and are taken as they are.
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_by_number=False,
        split_by_whitespace=False,
        bos_id=-1,
        eos_id=-1,
        num_threads=1,  # sums in one order
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = [
        (trained.id_to_piece(id), trained.get_score(id))
        for id in range(trained.get_piece_size())
        if not trained.is_unknown(id)
    ]
    least = min(score for _, score in vocabulary) - 10
    backend = Backend(models.Unigram([*vocabulary, *((c, least) for c in absent)]))
    backend.pre_tokenizer = byte_level_pieces()
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([special(token) for token in controls])
    return backend
