"""SentencePiece models give the ids of the sentencepiece library, here and in transformers."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from shared_data import shared

from yunque.data.blocks import Stretch, cut_blocks
from yunque.data.sentencepiece import best_borders, load_sentencepiece
from yunque.data.tokenizer import Tokenizer, load_tokenizer
from yunque.errors import InputError

SENTENCES = [
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme,",
    "no ha mucho tiempo que vivía un hidalgo de los de lanza en astillero.",
    "La vieja niña comió piñones, melocotón y café; ¿quién lo diría? ¡Nadie!",
    "It was the best of times, it was the worst of times; don't you think?",
    "The quick brown fox jumps over the lazy dog in 1999 and 2024.",
    "int main() {        return 0;    }",
    "a = b + c / d - (e * f) < g > h [i] </x>",
] * 3

KEPT = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
LLAMA = KEPT | {"model_type": "bpe", "byte_fallback": True, "allow_whitespace_only_pieces": True}
KINDS: dict[str, dict[str, Any]] = {
    "unigram": {"model_type": "unigram"},
    "t5": {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "unigram_bytes": KEPT | {"model_type": "unigram", "byte_fallback": True},
    "keeps_spaces": {"model_type": "unigram", "remove_extra_whitespaces": False},
    "lower_case": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc_cf"},
    "across_words": {"model_type": "unigram", "split_by_whitespace": False},
    "no_prefix": {"model_type": "unigram", "add_dummy_prefix": False},
    "bpe": {"model_type": "bpe"},
    "llama": LLAMA | {"split_digits": True},
    "mistral": LLAMA | {"control_symbols": ["[INST]", "[/INST]"]},
    "gemma": LLAMA
    | {"add_dummy_prefix": False, "user_defined_symbols": ["\n\n", "▁▁", "▁▁▁▁", "<mask>"]},
    "user_defined": {"model_type": "unigram", "user_defined_symbols": ["<mask>", "<sep>"]},
}
# Where a text may be cut, and whether cuts within one text are of use.
CUTS = {
    "unigram": ("safe", False),
    "t5": ("safe", False),
    "lower_case": ("safe", False),
    "bpe": ("safe", False),
    "gemma": ("safe", False),
    "unigram_bytes": ("never", True),
    "llama": ("never", True),
    "mistral": ("never", True),
    "keeps_spaces": ("never", False),
    "across_words": ("never", False),
    "no_prefix": ("never", False),
    "user_defined": ("never", False),
}

TEXTS = [
    "",
    " ",
    "Hola, mundo: ¿qué tal el ñandú?",
    "The cat isn't here; it's 12345 o'clock.",
    "👩🏽‍🚀 ❤️ 1️⃣ 🏳️‍🌈 😀😀",
    "  dos  espacios\tuno\t\ttab \n\n línea\r\notra   ",
    "        def f(x):\n            return x\n",
    "e\u0301 n\u0303 か\u3099 ｶﾞ 한국 ½ ﬁ ™ … \u00a0 \u2028 \ufeff \u200b",
    "\x00\x01\x07\x1f\x7f\x80 a",
    "<s> </s> <unk> <pad> <0x0A> [INST] x</s>y",
    "▁ ▁▁ a▁b",
    "中文，テスト ꙮ 𓀀 zzzz",
    "Ünicode " * 40,
]


@cache
def model_bytes(kind: str) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=out,
        vocab_size=450,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **KINDS[kind],
    )
    return out.getvalue()


def model_file(kind: str, folder: Path) -> Path:
    path = folder / "tokenizer.model"
    path.write_bytes(model_bytes(kind))
    return path


def random_texts(count: int) -> list[str]:
    rng = random.Random(7)
    pieces = [
        *"abeñ ,.<>/s▁\n\t\x00é中😀",
        "  ",
        "    ",
        "Quijote",
        " de",
        "<mask>",
        "</s>",
        "2024",
    ]
    return ["".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_the_library_and_transformers(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    ours = load_tokenizer(model_file(kind, tmp_path))
    library = sentencepiece.SentencePieceProcessor(model_proto=model_bytes(kind))
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in [*TEXTS, *SENTENCES[:7], *random_texts(300)]:
        if kind == "user_defined" and text in KINDS[kind]["user_defined_symbols"]:
            continue  # has no space before it; told in the module
        if kind == "keeps_spaces" and not text.strip("\x00"):
            continue  # nothing is left of it; told in the module
        ids = library.encode(text)
        assert ours.encode(text) == ids, text
        assert ours.encode_array(text).tolist() == ids, text
        assert theirs.encode(text) == ours.encode(text, special=True), text
        if library.unk_id() not in ids:
            assert ours.decode(ids) == library.decode(ids), text
    assert len(theirs) == ours.vocab_size == len(library)
    again = load_tokenizer(tmp_path / "saved")
    assert (again.fingerprint, again.kind) == (ours.fingerprint, "sentencepiece")
    assert (again.cuts, again.encode(TEXTS[5])) == (ours.cuts, ours.encode(TEXTS[5]))


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_and_blocks_have_the_ids_of_the_whole(tmp_path: Path, kind: str) -> None:
    tokenizer = load_tokenizer(model_file(kind, tmp_path))
    assert (tokenizer.cuts, tokenizer._following is not None) == CUTS[kind]
    text = " ".join([*TEXTS, *SENTENCES]) + "\n".join([*SENTENCES, *TEXTS]) + "palabra " * 9000
    whole = tokenizer.encode(text)
    assert tokenizer.encode_array(text).tolist() == whole
    assert [ids.tolist() for ids in tokenizer.encode_blocks([text, "", text], 2)] == [
        whole,
        [],
        whole,
    ]
    blocks = [
        block.text for block in cut_blocks([Stretch("train", text, True)], tokenizer.cuts, 50)
    ]
    assert (len(blocks) > 10) == (tokenizer.cuts == "safe")
    assert [id for ids in tokenizer.encode_blocks(blocks) for id in ids.tolist()] == whole


def test_the_shared_model_over_every_text_of_it() -> None:
    path = shared("tokenizers/sentencepiece/test_model.model")
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ours = load_tokenizer(path)
    assert (ours.kind, ours.vocab_size, ours.unknown_id) == ("sentencepiece", 1000, 0)
    for name in ("corpora/the-verdict.txt", "messy/emoji-test.txt", "maths/mgsm_es_001-125.tsv"):
        lines = shared(name).read_text(encoding="utf-8").split("\n")[:400]
        assert [ids.tolist() for ids in ours.encode_blocks(lines)] == library.encode(lines)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["test_model", "t5", "unigram_bytes", "llama"])
def test_every_line_of_the_corpora(tmp_path: Path, kind: str) -> None:
    if kind == "test_model":
        path = shared("tokenizers/sentencepiece/test_model.model")
    else:
        path = model_file(kind, tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ours = load_tokenizer(path)
    for folder in ("corpora", "messy", "formats", "maths"):
        for file in sorted(shared(folder).iterdir()):
            text = file.read_bytes().decode("utf-8", "surrogateescape")
            if text.encode("utf-8", "replace") != file.read_bytes():
                text = file.read_bytes().decode("latin-1")
            lines = text.split("\n")
            found = [ids.tolist() for ids in ours.encode_blocks(lines)]
            assert found == library.encode(lines), file.name


def test_roles_and_bytes(tmp_path: Path) -> None:
    t5 = load_tokenizer(model_file("t5", tmp_path))
    assert (t5.separator, t5.separator_id, t5.unknown_id) == ("</s>", 1, 2)
    assert t5.named_tokens == {"pad_token": "<pad>"}
    llama = load_tokenizer(model_file("llama", tmp_path))
    assert llama.named_tokens == {"bos_token": "<s>"}
    ids = llama.encode("\nñ")
    assert [llama.token_text(id) for id in ids[:2]] == [" ", "\\n"]
    assert llama.decode(llama.encode("\x00 中文\n😀")) == "\x00 中文\n😀"
    firsts = [llama.backend.id_to_token(llama.encode(word)[0]) for word in ("Hola", "de la")]
    assert firsts == ["▁", "▁de"]
    assert [llama.first_token_bytes(word) for word in ("Hola", "de la", " Hola")] == [0, 2, 1]
    gemma = load_tokenizer(model_file("gemma", tmp_path))
    assert gemma.first_token_bytes("中文") == 1
    # What a user writes never becomes a control token.
    for kind in ("t5", "llama", "unigram_bytes"):
        tokenizer = load_tokenizer(model_file(kind, tmp_path))
        assert tokenizer.separator_id not in tokenizer.encode("a</s>b</s>")
        assert tokenizer.encode("</s>", special=True) == [tokenizer.separator_id]


def test_tokens_of_the_configuration_are_added(tmp_path: Path) -> None:
    path = model_file("t5", tmp_path)
    size = load_tokenizer(path).vocab_size
    extra = {"content": "<extra_id_0>", "special": True, "normalized": False}
    settings = {"added_tokens_decoder": {"1": {"content": "</s>", "special": True}, size: extra}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_tokenizer(tmp_path).encode("<extra_id_0>", special=True) == [size]
    settings["added_tokens_decoder"] = {"0": {"content": "</s>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"'</s>' has the id 0 .* and 1 here"):
        load_tokenizer(tmp_path)


def test_broken_and_strange_models_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    good = model_bytes("llama")
    for data in (b"", b"hello\n", good[:-400], good[:1000], b"\xff" * 30, bytes(100)):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"x\.model: (not a SentencePiece model|it has 0 unk)"):
            load_sentencepiece(path)
    rng = random.Random(3)
    messages = []
    for number in range(300):
        data = bytearray(good if number % 3 else model_bytes("t5"))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            Tokenizer(load_sentencepiece(path)[0], "</s>")
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all("x.model" in message for message in messages)
    for options, says in (
        ({"model_type": "word"}, "words or characters"),
        ({"treat_whitespace_as_suffix": True}, "spaces behind words"),
    ):
        KINDS["strange"] = options
        model_bytes.cache_clear()
        path.write_bytes(model_bytes("strange"))
        del KINDS["strange"]
        with pytest.raises(InputError, match=says):
            load_sentencepiece(path)


def test_borders_of_the_likeliest_segmentation() -> None:
    scores = {"a": -1.0, "b": -1.0, "ab": -1.5, "c": -3.0, "bc": -2.0}
    assert best_borders("abc", scores) == [1]  # a|bc: -3.0; ab|c: -4.5
    assert best_borders("abz", scores) == [2]
    assert best_borders("a", scores) == []


@pytest.mark.parametrize("kind", ["unigram", "t5", "llama", "mistral", "gemma", "no_prefix"])
def test_what_follows_a_beginning_keeps_its_space(tmp_path: Path, kind: str) -> None:
    tokenizer = load_tokenizer(model_file(kind, tmp_path))
    text = "the quick brown fox jumps over the lazy dog in 1999 and 2024."
    ids = tokenizer.encode(text)
    assert len(ids) > 12
    for cut in range(1, len(ids)):
        begin, rest = tokenizer.decode(ids[:cut]), tokenizer.continuation(ids[cut:])
        assert begin + rest == tokenizer.decode(ids), cut
