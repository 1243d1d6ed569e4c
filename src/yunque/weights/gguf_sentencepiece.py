"""llama.cpp's "llama" tokenizer, both ways: SentencePiece BPE that falls back on bytes (Llama 2).

llama.cpp has scores where `tokenizers` has a list of merges: any two neighbours whose union is a
token are joined, the union with the best score first. A list says the same where it holds every
pair that makes a token, all pairs of one token together; other lists are refused.

Where two overlapping pairs make the same token, llama.cpp joins the left one, and `tokenizers`
the one that stands first in the list.

Source: llama-vocab.cpp of llama.cpp (SPM); Kudo and Richardson 2018 (arXiv:1808.06226).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as Backend

from yunque.errors import InputError

KEYS = ("tokens", "token_type", "scores")  # under tokenizer.ggml
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of tokens
SPACE = "▁"
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
PREFIX = {"type": "Prepend", "prepend": SPACE}
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
# As data/sentencepiece.py cuts: changes no ids where no piece spans the border of a word.
WORDS = {
    "type": "Split",
    "pattern": {"Regex": "▁+[^▁]*|[^▁]+"},
    "behavior": "Isolated",
    "invert": False,
}


def unsupported(
    model: Mapping[str, Any],
    normalizer: list[Mapping[str, Any]],
    pieces: list[Mapping[str, Any]],
    added: set[str],
) -> str | None:
    """Why llama.cpp cannot give the ids of a pipeline.

    Args:
        normalizer, pieces: the steps of the normalizer and of the pre-tokenizer.
        added: the texts of the tokens outside the merges.
    """
    if [step for step in normalizer if step != PREFIX] != [SPACES] or normalizer.count(PREFIX) > 1:
        return "it does more, or less, to a text than putting ▁ for each space"
    normal = set(model["vocab"]) - added - BYTES
    spans = any(left != SPACE and SPACE in token for token in normal for left in token[:1])
    if pieces and (pieces != [WORDS] or spans):
        return "it splits text in a way that llama.cpp does not know"
    if model["vocab"].keys() < BYTES or model.get("unk_token") not in model["vocab"]:
        return "a byte or the unknown token is not among its tokens"
    groups: dict[str, set[tuple[str, str]]] = {}
    last = ""
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        union = left + right
        if union in groups and union != last:
            return f"the merges that make {union!r} stand apart"
        groups.setdefault(union, set()).add((left, right))
        last = union
    for token in normal:
        if set(splits(token, normal)) != groups.get(token, set()):
            return f"its merges leave out a pair that makes {token!r}"
    return None


def splits(token: str, known: set[str]) -> Iterator[tuple[str, str]]:
    """The pairs of known tokens that make up a token."""
    for place in range(1, len(token)):
        if token[:place] in known and token[place:] in known:
            yield token[:place], token[place:]


def scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """The score of each id: the earlier its first merge, the better."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    order = {union: at for at, union in enumerate(dict.fromkeys(map("".join, pairs)))}
    return [-float(order.get(token, len(order))) for token in tokens]


def token_types(tokens: list[str], types: list[int], unknown: str) -> list[int]:
    """The types of the ids, where bytes and the unknown token have their own."""
    return [
        UNKNOWN if token == unknown else BYTE if token in BYTES and type == NORMAL else type
        for token, type in zip(tokens, types, strict=True)
    ]


def to_backend(file: Path, found: Mapping[str, Any]) -> Backend:
    """The pipeline that the keys under tokenizer.ggml describe.

    Raises:
        InputError: keys are missing, of the wrong kind or contradict each other.
    """
    tokens, types, points = (found.get(key) for key in KEYS)
    if not (isinstance(tokens, list) and isinstance(types, list) and isinstance(points, list)):
        raise InputError(f"{file}: tokens, token_type or scores is missing under tokenizer.ggml.")
    if not len(tokens) == len(types) == len(points):
        raise InputError(
            f"{file}: {len(tokens)} tokens, {len(types)} types of tokens and {len(points)} scores."
        )
    kinds = ((str,), (int,), (int, float))
    for name, values, kind in zip(KEYS, (tokens, types, points), kinds, strict=True):
        wrong = next((value for value in values if not isinstance(value, kind)), None)
        if wrong is not None:
            raise InputError(
                f"{file}: {wrong!r} under tokenizer.ggml.{name}, expected "
                f"{'texts' if str in kind else 'numbers'} only."
            )
    if found.get("remove_extra_whitespaces"):
        raise InputError(f"{file}: tokenizer.ggml.remove_extra_whitespaces is not supported.")
    if types.count(UNKNOWN) != 1 or types.count(BYTE) != len(BYTES):
        raise InputError(
            f"{file}: {types.count(UNKNOWN)} unknown tokens and {types.count(BYTE)} bytes, "
            "expected 1 and 256."
        )
    normal = {token for token, type in zip(tokens, types, strict=True) if type == NORMAL}
    best = sorted(range(len(tokens)), key=lambda id: -points[id])
    pairs = [pair for id in best if types[id] == NORMAL for pair in splits(tokens[id], normal)]
    used = {token: id for id, token in enumerate(tokens) if types[id] != UNUSED}
    unknown = tokens[types.index(UNKNOWN)]
    try:
        model = models.BPE(
            vocab=used, merges=pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    except Exception as error:  # the library raises bare Exception for what it cannot use
        raise InputError(f"{file}: its tokens do not fit together: {error}.") from None
    backend = Backend(model)
    prefixed = found.get("add_space_prefix", True)
    backend.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(SPACE)] if prefixed else []), normalizers.Replace(" ", SPACE)]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefixed else []),
        ]
    )
    for token, id in used.items():
        if types[id] in (UNKNOWN, CONTROL, USER_DEFINED):
            control = types[id] != USER_DEFINED
            backend.add_tokens([AddedToken(token, special=control, normalized=False)])
    return backend
