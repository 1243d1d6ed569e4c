"""What kind of tokenizer a `tokenizers` pipeline is, and where it lets a text be cut.

Recognised by their rules, whoever wrote the file.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer as Backend

from yunque.data.blocks import SAFE_CUT, Cuts
from yunque.data.sentencepiece import LEADING, RUN, SPACE, TRAILING, WORD
from yunque.data.vocabularies import BPE_PATTERN, BYTE_OF, CHAR_PATTERN, WORD_PATTERN

# Both sides of a trial cut: line ends, spaces, accents, and a letter that few vocabularies hold.
LEFT = ["uno\n", "end.\n", "x)\n", "a b\n", "12\n", "día", "the  cat", "\n\nword", "It's", "𓀀\n"]
RIGHT = ["dos tres", "Élan", "s x", " cat", " s", " a\n", "𓀀 a", " 𓀀"]

# A piece that spans one of the places where blocks are cut.
SPANS_CUT = re.compile(r"[^▁]▁|\n[^\W\d_]")

SENTENCEPIECE_RULES = (LEADING, RUN, TRAILING, " ")


def kind_of(pipeline: Mapping[str, Any]) -> str:
    """char, byte, word, bpe, unigram (ours), gpt2, sentencepiece or other."""
    model, before = pipeline["model"], pipeline["pre_tokenizer"]
    if spaces_as_signs(pipeline):
        return "sentencepiece"
    if pipeline["normalizer"] is not None or before is None:
        return "other"
    if any(not token["special"] for token in pipeline["added_tokens"]):
        return "other"
    steps = steps_of(before)
    patterns = [step.get("pattern", {}).get("Regex") for step in steps]
    byte_level = steps[-1]["type"] == "ByteLevel" and not steps[-1]["add_prefix_space"]
    own_rules = byte_level and not steps[-1]["use_regex"]
    if model["type"] == "WordLevel" and model["unk_token"] in model["vocab"]:
        return {CHAR_PATTERN: "char", WORD_PATTERN: "word"}.get(patterns[0], "other")
    if model["type"] not in ("BPE", "Unigram") or not set(BYTE_OF) <= tokens_of(model):
        return "other"
    if own_rules and patterns == [BPE_PATTERN, None]:
        return "bpe" if model["type"] == "BPE" else "unigram"
    if model["type"] != "BPE":
        return "other"
    if own_rules and len(steps) == 1 and not model["merges"]:
        return "byte"
    return "gpt2" if byte_level and steps[-1]["use_regex"] and len(steps) == 1 else "other"


def cuts_of(pipeline: Mapping[str, Any], kind: str, plain: Backend) -> tuple[Cuts, Backend | None]:
    """Where a text may be cut so that its parts have the ids of the whole, and how.

    Args:
        plain: the pipeline itself, which reads special tokens as plain text.

    Returns:
        The cuts that a stream may be given; and, where these are "never" because a space is put
        before every text, the pipeline for what follows a cut within one text.
    """
    if kind in ("char", "byte"):
        return "anywhere", None
    if kind in ("word", "bpe", "unigram", "gpt2"):
        return "safe", None
    if kind == "sentencepiece":
        rest = without_prefix(pipeline)
        if rest is None or any(SPANS_CUT.search(token) for token in pieces_of(pipeline)):
            return "never", None
        if splits_alike(plain, plain):
            return "safe", None
        following = Backend.from_str(json.dumps(rest))
        following.encode_special_tokens = True
        return "never", following if splits_alike(plain, following) else None
    return ("safe" if bytes_alone(pipeline) and splits_alike(plain, plain) else "never"), None


def splits_alike(before: Backend, behind: Backend) -> bool:
    """Whether two halves of a text have the ids of the whole, on both sides of trial cuts."""
    for first in LEFT:
        for second in RIGHT:
            text = first + second
            if all(cut.start() != len(first) for cut in SAFE_CUT.finditer(text)):
                continue
            whole = before.encode(text, add_special_tokens=False).ids
            left = before.encode(first, add_special_tokens=False).ids
            if whole != left + behind.encode(second, add_special_tokens=False).ids:
                return False
    return True


def bytes_alone(pipeline: Mapping[str, Any]) -> bool:
    """Whether it is of the families whose rules we know: a regular expression, then bytes."""
    rules = json.dumps(pipeline["pre_tokenizer"])
    normalizer = pipeline["normalizer"]
    if '"ByteLevel"' not in rules or ('"Split"' not in rules and '"use_regex": true' not in rules):
        return False
    return normalizer is None or normalizer["type"] in ("NFC", "NFKC")


def spaces_as_signs(pipeline: Mapping[str, Any]) -> bool:
    """Whether spaces become the sign that SentencePiece uses for them."""
    rules = json.dumps([pipeline["normalizer"], pipeline["pre_tokenizer"]], ensure_ascii=False)
    return pipeline["model"]["type"] in ("BPE", "Unigram") and f'"{SPACE}"' in rules


def without_prefix(pipeline: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pipeline without the space before every text; None where a step is not understood."""
    rest = copy.deepcopy(dict(pipeline))
    steps = []
    for step in steps_of(rest["normalizer"]):
        if step["type"] == "Prepend":
            continue
        if step["type"] == "Replace":
            pattern = next(iter(step["pattern"].values()))
            if pattern not in SENTENCEPIECE_RULES and pattern != "\r\n":
                return None
        elif step["type"] not in ("Precompiled", "NFC", "NFKC", "Nmt", "Strip"):
            return None
        steps.append(step)
    rest["normalizer"] = {"type": "Sequence", "normalizers": steps} if steps else None
    for step in steps_of(rest["pre_tokenizer"]):
        if step["type"] == "Metaspace":
            step["prepend_scheme"] = "never"
        elif step["type"] == "Split":
            # Ours: words, or the texts of control tokens, which none of our cuts touches.
            if step["pattern"].get("Regex") != WORD and step["behavior"] != "MergedWithPrevious":
                return None
        elif step["type"] != "WhitespaceSplit":
            return None
    return rest


def steps_of(part: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer; those of one sequence are its members."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [dict(part)] if not isinstance(part, dict) else [part]
    return part.get("normalizers") or part.get("pretokenizers") or []


def tokens_of(model: Mapping[str, Any]) -> set[str]:
    """The texts of a model's vocabulary."""
    if model["type"] == "Unigram":
        return {token for token, _ in model["vocab"]}
    return set(model["vocab"])


def pieces_of(pipeline: Mapping[str, Any]) -> set[str]:
    """The vocabulary without the special tokens."""
    special = {token["content"] for token in pipeline["added_tokens"] if token["special"]}
    added = {token["content"].replace(" ", SPACE) for token in pipeline["added_tokens"]}
    return (tokens_of(pipeline["model"]) | added) - special
