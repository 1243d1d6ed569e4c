"""Bulk encoding gives the ids of the slow way, and is used only where that is proved."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from yunque.data import bulk as room
from yunque.data import tokenizer as tokenizers_room
from yunque.data.bulk import Bulk, Class, arises, bulk_of, ids_by_rank, last
from yunque.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from yunque.data.vocabularies import BYTE_OF

SEP = "<|endoftext|>"
TEXT = (
    "El ingenioso hidalgo don Quijote de la Mancha.\r\n\n\tEn un lugar…  de 1605, 42 «años».\n"
    "It's the 12345th time; we'LL see.    ==== aaaa\n\n\n    return x\n" * 6
)
# The rules of Llama 3 (digits by three) and Qwen (digits alone, composed characters).
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PIECES = [
    "\n",
    "\r\n",
    " ",
    "  ",
    "\t",
    "\u00a0",
    "\u2028",
    "\x85",
    "a",
    "é",
    "e\u0301",
    "'s",
    "'S",
]
PIECES += [
    "’",
    "7",
    "4242",
    "½",
    "²",
    "_",
    "...",
    "👩‍👩‍👧",
    "\x00",
    "中文",
    "ſ",
    "'ſ",
    "K",
    "ﬆ",
    "ꙮ",
]
PIECES += [
    "Quijote",
    " de ",
    "====",
    "aaaa",
    "    ",
    SEP,
    "क्",
    "\U0001fadf",
    "\U000e0fff",
    "\ufffe",
]
HARD = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=40)


def trained(pattern: str | None, **changes: Any) -> Tokenizer:
    backend = Backend(models.BPE(ignore_merges=changes.get("ignore_merges", False)))
    last_step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, last_step])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator([TEXT], trainer)
    if changes.get("nfc"):
        backend.normalizer = normalizers.NFC()
    backend.add_tokens([AddedToken(text, normalized=False) for text in changes.get("added", ())])
    return Tokenizer(backend, SEP)


def of(tokenizer: Tokenizer) -> Bulk:
    found = bulk_of(json.loads(tokenizer.backend.to_str()), tokenizer._plain)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def families() -> list[tuple[Tokenizer, Bulk]]:
    made = [
        train_tokenizer("bpe:420", lambda: iter([TEXT]), SEP),
        trained(LLAMA3, ignore_merges=True),
        trained(LLAMA3.replace("{1,3}", ""), nfc=True),
        trained(None, added=["  ", "    ", "<tool>"]),
        *(load_tokenizer(shared(f"tokenizers/{name}")) for name in ("gpt2", "phi-2", "minimind")),
    ]
    return [(tokenizer, of(tokenizer)) for tokenizer in made]


@settings(max_examples=300, deadline=None)
@given(text=HARD)
def test_ids_equal_the_slow_way(families: list[tuple[Tokenizer, Bulk]], text: str) -> None:
    for tokenizer, bulk in families:
        ids = bulk.encode(text)
        assert ids is None or ids.tolist() == tokenizer.encode(text)


@pytest.mark.parametrize("pattern", room.QUICKER)
@settings(max_examples=300, deadline=None)
@given(text=HARD)
def test_the_quicker_expressions_split_alike(pattern: str, text: str) -> None:
    assert regex.findall(room.QUICKER[pattern], text) == regex.findall(pattern, text)
    assert "".join(regex.findall(pattern, text)) == text


def test_most_texts_go_the_quick_way(families: list[tuple[Tokenizer, Bulk]]) -> None:
    text = shared("corpora/the-verdict.txt").read_text(encoding="utf-8")
    for tokenizer, bulk in families:
        for line in (*text.split("\n")[:60], "¿Qué? «ñandú» — 中文 😀", "a\u00a0b\u2028c"):
            if bulk.added is None or not bulk.added.search(line):
                ids = bulk.encode(line)
                assert ids is not None
                assert ids.tolist() == tokenizer.encode(line)


def test_texts_that_engines_may_read_differently_go_the_slow_way() -> None:
    llama = of(trained(LLAMA3))
    assert llama.encode("it's") is not None
    assert llama.encode("it'ſ") is None  # the long s is an s where case does not count
    qwen = of(trained(LLAMA3, nfc=True))
    assert qwen.encode("e\u0301").tolist() == qwen.encode("é").tolist()  # type: ignore[union-attr]
    assert qwen.encode("\U000e0fff") is None  # not assigned: it may compose one day
    added = of(trained(None, added=["  "]))
    assert added.encode("a b") is not None
    assert added.encode("a  b") is None
    # A run of white space at which tiktoken's regular expressions give up.
    gpt2 = of(trained(None))
    assert gpt2.encode(" " * 3_000_000) is None
    # An expression that leaves something out: `tokenizers` keeps it as a piece of its own.
    partial = trained(r"\p{L}+| +")
    quick = of(partial)
    assert quick.encode("a 1 b") is None
    assert quick.encode("a b").tolist() == partial.encode("a b")  # type: ignore[union-attr]


def test_a_disputed_class_is_noticed() -> None:
    bulk = of(trained(None))
    assert bulk.encode("añ") is not None
    letters = next(kind for kind in bulk.classes if kind.here.name == r"\p{L}")
    assert letters.disputed("aé1 ") == set()
    other = Class(r"\p{L}")
    other.there = Class(r"\p{Lu}").there
    assert other.disputed("aA1ñ") == {"a", "ñ"}
    bulk.classes = [other]
    assert bulk.encode("ħ") is None
    assert bulk.encode("Ħ") is not None


def vocabulary(*tokens: str) -> dict[str, int]:
    return {token: id for id, token in enumerate([*BYTE_OF, *tokens])}


def model(tokens: list[str], merges: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    return {"type": "BPE", "vocab": vocabulary(*tokens), "merges": merges, **more}


def test_ranks_follow_the_list_and_not_the_ids() -> None:
    merges = [("b", "c"), ("a", "b"), ("a", "bc")]
    found = model(["ab", "abc", "bc"], merges)
    ranked = ids_by_rank(found)
    assert ranked is not None
    tokens = {id: token for token, id in found["vocab"].items()}
    assert [tokens[id] for id in ranked[256:]] == ["bc", "ab", "abc"]


def test_tokens_that_no_merge_makes_are_left_out() -> None:
    # "abc" asks for "ab" + "c", but "bc" is always merged first.
    found = model(["bc", "ab", "abc", "zz"], [("b", "c"), ("a", "b"), ("ab", "c")])
    ranked = ids_by_rank(found)
    assert ranked is not None
    tokens = {id: token for token, id in found["vocab"].items()}
    assert [tokens[id] for id in ranked[256:]] == ["bc", "ab"]
    # With ignore_merges a piece "abc" is taken whole, but tiktoken would also merge "a" + "bc".
    assert ids_by_rank({**found, "ignore_merges": True}) is None
    # "zz" alone is harmless only if no merge of two tokens makes it: "z" + "z" does.
    assert ids_by_rank(model(["zz"], [], ignore_merges=True)) is None
    whole = ids_by_rank(model(["xyz"], [], ignore_merges=True))
    assert whole is not None
    assert len(whole) == 257


def test_the_pair_that_makes_a_token() -> None:
    place_of = {("a", "b"): 0, ("c", "d"): 1, ("ab", "c"): 2, ("ab", "cd"): 3, ("abc", "d"): 4}
    assert last("abcd", place_of) == ("ab", "cd")
    assert arises("abcd", {"ab": 0, "cd": 1, "abcd": 2})
    assert not arises("abcd", {"bc": 0, "ab": 1, "cd": 2, "abcd": 3})


@pytest.mark.parametrize("seed", range(12))
def test_random_lists_of_merges(seed: int) -> None:
    """Lists that no trainer would write: what is accepted gives equal ids, on every string."""
    rng = random.Random(seed)
    tokens, merges = ["a", "b", "c"], []
    for _ in range(rng.randint(3, 14)):
        pair = (rng.choice(tokens), rng.choice(tokens))
        if pair not in merges and len("".join(pair)) < 9:
            merges.append(pair)
            if "".join(pair) not in tokens:
                tokens.append("".join(pair))
    rng.shuffle(merges)
    for whole in (False, True):
        ids = vocabulary(*tokens[3:])
        backend = Backend(models.BPE(vocab=ids, merges=merges, ignore_merges=whole))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer = Tokenizer(backend, SEP)
        bulk = bulk_of(json.loads(tokenizer.backend.to_str()), tokenizer._plain)
        assert bulk is not None or whole
        for _ in range(400):
            text = "".join(rng.choices("abc", k=rng.randint(1, 16)))
            ids_found = None if bulk is None else bulk.encode(text)
            assert ids_found is None or ids_found.tolist() == tokenizer.encode(text)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w+|\W",
        r"^a|[\s\S]",
        r"a++|[\s\S]",
        r"a*?|[\s\S]",
        r"(a)\1|[\s\S]",
        r"[a-z]+|.",
        r"\h+|\H",
    ],
)
def test_expressions_that_engines_read_differently_are_refused(pattern: str) -> None:
    tokenizer = trained(pattern)
    assert bulk_of(json.loads(tokenizer.backend.to_str()), tokenizer._plain) is None


def test_other_pipelines_are_refused() -> None:
    sound = json.loads(trained(LLAMA3).backend.to_str())
    plain = trained(LLAMA3)._plain
    assert bulk_of(sound, plain) is not None
    for change in (
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {**sound["pre_tokenizer"]["pretokenizers"][1], "add_prefix_space": True}},
        {"model": {**sound["model"], "dropout": 0.1}},
        {"model": {**sound["model"], "end_of_word_suffix": "</w>"}},
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
    ):
        assert bulk_of({**sound, **change}, plain) is None


def test_it_is_used_from_some_size_on(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_tokenizer("bpe:420", lambda: iter([TEXT]), SEP)
    expected = tokenizer.encode(TEXT)
    assert tokenizer._bulk is not None
    seen: list[int] = []
    quick = Bulk.encode

    def watched(self: Bulk, text: str) -> Any:
        seen.append(len(text))
        return quick(self, text)

    monkeypatch.setattr(room.Bulk, "encode", watched)
    assert tokenizer.encode_array(TEXT).tolist() == expected
    assert seen == []
    monkeypatch.setattr(tokenizers_room, "BULK_CHARACTERS", 1)
    for threads in (1, 2):
        assert [ids.tolist() for ids in tokenizer.encode_blocks([TEXT, "", TEXT], threads)] == [
            expected,
            [],
            expected,
        ]
    assert sorted(seen) == [0, 0, *[len(TEXT)] * 4]


def corpora() -> list[Path]:
    folders = [shared(name) for name in ("corpora", "messy", "formats", "maths")]
    return [path for folder in folders for path in sorted(folder.iterdir())]


def read(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def test_a_slice_of_every_corpus(families: list[tuple[Tokenizer, Bulk]]) -> None:
    quick = 0
    for path in corpora():
        text = read(path)[:4000]
        for tokenizer, bulk in families:
            ids = bulk.encode(text)
            quick += ids is not None
            assert ids is None or ids.tolist() == tokenizer.encode(text), path.name
    assert quick > 80


@pytest.mark.slow
def test_every_corpus_whole(
    families: list[tuple[Tokenizer, Bulk]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2's ids are those of tiktoken on its own files, too; all texts come back exactly."""
    import tiktoken

    monkeypatch.setattr(tokenizers_room, "BULK_CHARACTERS", 0)
    ranks = {
        bytes(BYTE_OF[character] for character in token): id
        for token, id in json.loads(shared("tokenizers/gpt2/encoder.json").read_text()).items()
        if token != SEP
    }
    gpt2 = tiktoken.Encoding(
        "gpt2", pat_str=room.GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={SEP: 50256}
    )
    for path in corpora():
        text = read(path)
        for tokenizer, bulk in families:
            ids = tokenizer.encode_array(text).tolist()
            assert ids == tokenizer.encode(text), path.name
            if not bulk.composed:
                assert tokenizer.decode(ids, skip_special=False) == text, path.name
            if tokenizer.kind == "gpt2" and tokenizer.vocab_size == 50257:
                assert ids == gpt2.encode_ordinary(text), path.name
