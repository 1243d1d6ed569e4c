"""Ids equal those of transformers and of an independent byte-pair encoder; decoding is exact."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from yunque.data import vocabularies
from yunque.data.tokenizer import (
    Tokenizer,
    add_tokens,
    is_path,
    load_tokenizer,
    loaded_tokenizer,
    tokenizer_for,
    train_tokenizer,
)
from yunque.data.vocabularies import BYTE_OF, UNKNOWN
from yunque.errors import InputError

SEP = "<|endoftext|>"
TEXT = (
    "El ingenioso hidalgo don Quijote de la Mancha.\r\n\n\tEn un lugar…  de 1605, 42 «años».\n" * 4
)
HARD = "  \n\r\n\t ñandú e\u0301 👩‍👩‍👧‍👦🏳️‍🌈 \x00\x07 中文 <|endoftext|> ’s \u00a0 12345 \ufeff "
SPECS = ("char", "byte", "word", "word:30", "bpe:280", "bpe-gpt2:280", "unigram:290")


def make(spec: str, text: str = TEXT, **more: object) -> Tokenizer:
    return train_tokenizer(spec, lambda: iter([text]), SEP, **more)  # type: ignore[arg-type]


def asked_for(spec: str) -> Tokenizer:
    """What a preparation takes for a setting; nothing is there to be trained on."""
    return tokenizer_for(spec, loaded_tokenizer(spec), lambda: iter([]), SEP)


def auto(folder: Path) -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("spec", SPECS)
def test_transformers_opens_it_with_the_same_ids(tmp_path: Path, spec: str) -> None:
    ours = make(spec, special_tokens=["<|user|>"])
    ours.save(tmp_path)
    theirs = auto(tmp_path)
    for text in (TEXT, HARD, "", "a <|user|>hola<|endoftext|>"):
        assert theirs.encode(text) == ours.encode(text, special=True)  # type: ignore[attr-defined]
        ids = ours.encode(text, special=True)
        assert theirs.decode(ids) == ours.decode(ids, skip_special=False)  # type: ignore[attr-defined]
    assert theirs.eos_token_id == ours.separator_id  # type: ignore[attr-defined]
    assert len(theirs) == ours.vocab_size  # type: ignore[arg-type]
    assert (
        ours.fingerprint == hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    )
    again = load_tokenizer(tmp_path)
    kind = {"bpe-gpt2:280": "gpt2"}.get(spec, spec.split(":")[0])
    assert (again.kind, again.fingerprint) == (kind, ours.fingerprint)
    assert (again.separator_id, again.unknown_id) == (ours.separator_id, ours.unknown_id)
    assert again.encode(HARD) == ours.encode(HARD)


@pytest.mark.parametrize("spec", ["byte", "bpe:280", "bpe-gpt2:280", "unigram:290"])
@settings(max_examples=80, deadline=None)
@given(text=st.text(max_size=60) | st.just(HARD))
def test_bytes_hold_every_text(spec: str, text: str) -> None:
    tokenizer = CACHE.setdefault(spec, make(spec))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_array(text).tolist() == ids
    assert tokenizer.separator_id not in ids
    assert tokenizer.unknown_id is None


CACHE: dict[str, Tokenizer] = {}


@pytest.mark.parametrize("spec", ["char", "word"])
def test_training_text_comes_back_exactly(spec: str) -> None:
    tokenizer = make(spec, TEXT + HARD)
    ids = tokenizer.encode(TEXT + HARD)
    assert tokenizer.decode(ids, skip_special=False) == TEXT + HARD
    assert tokenizer.unknown_id not in ids
    assert tokenizer.encode_array(TEXT + HARD).tolist() == ids


def test_char_ids_are_the_sorted_characters() -> None:
    tokenizer = make("char", "hola ñ")
    tokens = [tokenizer.backend.id_to_token(id) for id in range(tokenizer.vocab_size)]
    assert tokens == [SEP, UNKNOWN, " ", "a", "h", "l", "o", "ñ"]
    assert tokenizer.encode("la z") == [5, 3, 2, 1]
    assert tokenizer.unknown_id == 1
    assert tokenizer.encode(SEP) == [1, 1, 1, 1, 1, 6, 1, 1, 1, 1, 1, 1, 1]
    assert tokenizer.encode(SEP, special=True) == [0]


def test_byte_ids_are_the_bytes() -> None:
    tokenizer = make("byte")
    assert tokenizer.encode(HARD) == list(HARD.encode())
    assert (tokenizer.separator_id, tokenizer.vocab_size) == (256, 257)


def test_word_keeps_the_most_frequent() -> None:
    tokenizer = make("word:6", "el sol, el sol, el mar 12")
    assert tokenizer.vocab_size == 6
    # Pieces: "el" " sol" "," " el" " sol" "," " el" " mar" " " "1" "2"
    assert [tokenizer.token_text(id) for id in range(6)] == [SEP, UNKNOWN, " el", " sol", ",", " "]
    assert tokenizer.encode(" el sol, mar") == [2, 3, 4, 1]
    assert make("word", "el sol, el sol, el mar 12").vocab_size == 2 + 8


def test_bpe_gpt2_splits_as_gpt2_does() -> None:
    """A number is one piece, so that its digits merge; our own split keeps them apart."""
    tokenizer = make("bpe-gpt2:270", " aaab aaab aaab 11 11 11")
    texts = [tokenizer.token_text(id) for id in tokenizer.encode(" aaab1111")]
    assert texts == [" aaab", "11", "11"]


def test_bpe_merges_and_digits() -> None:
    tokenizer = make("bpe:262", "aaab aaab aaab 11 11 11")
    assert tokenizer.vocab_size == 1 + 256 + 4  # fewer merges than asked: 5 would need more text
    texts = [tokenizer.token_text(id) for id in tokenizer.encode(" aaab1111")]
    assert texts == [" aaab", "1", "1", "1", "1"]
    assert make("bpe:280").fingerprint == make("bpe:280").fingerprint


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("bpe:256", r"at least 257 \(256 bytes \+ 1 special tokens: <\|endoftext\|>\)"),
        ("bpe", "expected the size of the vocabulary.*'bpe:4096'"),
        ("bpe:many", "whole number"),
        ("char:9", "char takes no size"),
        ("word:2", "at least 3"),
        ("unigram:256", r"at least 257 \(256 bytes"),
        ("unigram", "'unigram:4096'"),
        ("bpe4096", "Did you mean 'bpe:4096'"),
        ("/no/such/tokenizer.json", "no such file or folder"),
    ],
)
def test_wrong_specs_say_what_to_write(spec: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        asked_for(spec)


def reference_bpe(text: str) -> list[int]:
    """GPT-2's encoder as its paper and tiktoken do it: lowest rank first, on the same files."""
    ids = json.loads(shared("tokenizers/gpt2/encoder.json").read_text())
    lines = shared("tokenizers/gpt2/vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines) if line}
    character_of = {byte: character for character, byte in BYTE_OF.items()}
    rule = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    result = []
    for piece in regex.findall(rule, text):
        parts = [character_of[byte] for byte in piece.encode()]
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, 10**9))
            if best not in ranks:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        result += [ids[part] for part in parts]
    return result


def test_gpt2_equals_the_reference_encoder_and_transformers(tmp_path: Path) -> None:
    from transformers import GPT2TokenizerFast

    folder = shared("tokenizers/gpt2")
    ours = load_tokenizer(folder)
    assert (ours.kind, ours.vocab_size, ours.separator_id) == ("gpt2", 50257, 50256)
    text = shared("corpora/the-verdict.txt").read_text(encoding="utf-8")
    assert len(ours.encode(text)) == 5145
    theirs = GPT2TokenizerFast(
        vocab=json.loads((folder / "encoder.json").read_text()),
        merges=[
            tuple(line.split(" "))
            for line in (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
            if line
        ],
    )
    for sample in (text, HARD, TEXT):
        assert ours.encode(sample) == reference_bpe(sample)
        assert ours.encode(sample, special=True) == theirs.encode(sample)
        assert ours.decode(ours.encode(sample)) == sample
    ours.save(tmp_path)
    assert auto(tmp_path).encode(HARD) == ours.encode(HARD, special=True)  # type: ignore[attr-defined]


def test_gpt2_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    alphabet = dict(BYTE_OF.items())
    (tmp_path / "vocab.json").write_text(json.dumps(alphabet | {"ab": 256}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nb c\n")
    with pytest.raises(InputError, match=r"merges\.txt:3: .*got 'b c'"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    assert load_tokenizer(tmp_path).encode("abc") == [256, ord("c")]
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(InputError, match="255 of the 256 bytes have no token"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["phi-2", "minimind"])
def test_public_tokenizers_keep_their_ids(name: str) -> None:
    folder = shared(f"tokenizers/{name}")
    ours, theirs = load_tokenizer(folder), auto(folder)
    for text in (HARD, TEXT, "def f(x):\n        return x"):
        assert ours.encode(text, special=True) == theirs.encode(text)  # type: ignore[attr-defined]
    assert ours.separator_id == theirs.eos_token_id  # type: ignore[attr-defined]
    # Pretraining writes its own separator where the vocabulary has it.
    chosen = asked_for(str(folder))
    assert chosen.token_text(chosen.separator_id) == SEP


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no tokenizer here; expected"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(InputError, match="no such tokenizer"):
        load_tokenizer(tmp_path / "nothing")


def test_runs_of_whole_characters() -> None:
    tokenizer = make("byte")
    text = "añ👍\n"
    assert [shown for _, shown in tokenizer.whole_characters(tokenizer.encode(text))] == [
        "a",
        "ñ",
        "👍",
        "\\n",
    ]
    broken = [*"é".encode(), 0xC3, 0x61, 0xF0, 0x9F]
    runs = list(tokenizer.whole_characters(broken))
    assert runs == [
        ([0xC3, 0xA9], "é"),
        ([0xC3], "\\xc3"),
        ([0x61], "a"),
        ([0xF0], "\\xf0"),
        ([0x9F], "\\x9f"),
    ]


def test_chat_template_and_token_text(tmp_path: Path) -> None:
    template = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    tokenizer = make("byte", special_tokens=["<|user|>"], chat_template=template)
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).chat_template == template
    shown = auto(tmp_path).apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)  # type: ignore[attr-defined]
    assert shown == "<|user|>a"
    assert [tokenizer.token_text(id) for id in (10, 32, 65, 195, 256, 257, 999)] == [
        "\\n",
        " ",
        "A",
        "\\xc3",
        SEP,
        "<|user|>",
        "<id 999>",
    ]


@pytest.mark.parametrize(
    ("spec", "text", "size"),
    [
        ("char", "ñu", 2),
        ("char", "日本", 3),  # not in the training text: unknown
        ("byte", "ñu", 1),
        ("word", "El ingenioso", 2),
        ("word", " jamás leído", 7),  # unknown, with the space before it
        ("bpe:280", "日本", 1),  # a third of the first character
        ("bpe:280", " \u00e9l", 1),
        ("char", "", 0),
        ("byte", "", 0),
        ("bpe:280", "", 0),
        ("unigram:290", "日本", 1),
    ],
)
def test_bytes_of_the_first_token(spec: str, text: str, size: int) -> None:
    assert make(spec).first_token_bytes(text) == size


def test_unigram_takes_the_likeliest_pieces_and_is_the_same_each_time() -> None:
    stems = ["cas", "roj", "blanc", "cos", "rar", "llan", "gat", "perr", "niñ", "viej", "alt"]
    text = " ".join(stem + end for stem in stems for end in ("a", "o", "as", "os", "ita", "azo"))
    tokenizer = make("unigram:290", text)
    assert (tokenizer.kind, tokenizer.vocab_size) == ("unigram", 290)
    assert [tokenizer.token_text(tokenizer.vocab_size - 1)] == [SEP]
    scores = dict(json.loads(tokenizer.backend.to_str())["model"]["vocab"])
    piece = "Ġcasa"
    totals = {}
    for borders in itertools.product([0, 1], repeat=len(piece) - 1):
        places = [0, *(at for at, border in enumerate(borders, 1) if border), len(piece)]
        parts = tuple(piece[left:right] for left, right in itertools.pairwise(places))
        if all(part in scores for part in parts):
            totals[parts] = sum(scores[part] for part in parts)
    assert len(totals) > 1
    likeliest = max(totals, key=lambda way: totals[way])
    assert [tokenizer.backend.id_to_token(id) for id in tokenizer.encode(" casa")] == [*likeliest]
    assert make("unigram:290", text).fingerprint == tokenizer.fingerprint
    shorter = len(tokenizer.encode(text))
    assert shorter < len(make("byte").encode(text)) / 3
    # The separator is no piece of the model: its text is never taken for it.
    assert tokenizer.separator_id not in tokenizer.encode(f"a{SEP}b")


def test_added_tokens_come_behind_the_others() -> None:
    before = make("bpe:280")
    after = add_tokens(before, ["<|user|>", SEP, "<|end|>"])
    assert after.vocab_size == before.vocab_size + 2
    assert after.encode("<|user|>a<|end|>", special=True) == [
        before.vocab_size,
        *before.encode("a"),
        before.vocab_size + 1,
    ]
    assert after.encode(TEXT) == before.encode(TEXT)
    assert after.separator_id == before.separator_id
    assert after.fingerprint != before.fingerprint
    assert before.encode("<|user|>", special=True) == before.encode("<|user|>")  # not changed


def test_pad_is_never_the_end_token(tmp_path: Path) -> None:
    make("bpe:280").save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert "pad_token" not in settings
    settings["pad_token"] = SEP
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert auto(tmp_path).pad_token_id == auto(tmp_path).eos_token_id  # type: ignore[attr-defined]
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_is_end
    assert loaded.named_tokens == {}
    assert add_tokens(loaded, ["<|user|>"]).pad_is_end
    assert asked_for(str(tmp_path)).pad_is_end
    loaded.save(tmp_path / "again")
    assert auto(tmp_path / "again").pad_token is None  # type: ignore[attr-defined]
    assert not load_tokenizer(tmp_path / "again").pad_is_end
    # Qwen's case: its pad token is our separator, its end token another one.
    both = add_tokens(loaded, ["<|im_end|>"])
    both.save(tmp_path / "qwen")
    settings |= {"eos_token": "<|im_end|>", "pad_token": SEP}
    (tmp_path / "qwen" / "tokenizer_config.json").write_text(json.dumps(settings))
    assert not load_tokenizer(tmp_path / "qwen").pad_is_end
    assert load_tokenizer(tmp_path / "qwen").named_tokens == {"pad_token": SEP}
    assert asked_for(str(tmp_path / "qwen")).pad_is_end


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_hub_id_opens_from_the_cache(hub_cache: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = hub_cache / "models--taller--yunque"
    make("bpe:280", special_tokens=["<|user|>"], chat_template="{{ 1 }}").save(
        repository / "snapshots" / revision
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    assert is_path("taller/yunque")
    found = asked_for("taller/yunque")
    assert found.fingerprint == make("bpe:280", special_tokens=["<|user|>"]).fingerprint
    assert found.chat_template == "{{ 1 }}"


def test_a_hub_id_that_cannot_be_fetched_says_so(hub_cache: Path) -> None:
    for spec, name in (("taller/nada", "taller/nada"), ("hf:nada", "nada")):
        with pytest.raises(InputError, match=rf"tokenizer {name}: it could not be fetched"):
            asked_for(spec)
    assert not is_path("tok/tokenizer.json")
    assert not is_path("bpe:300/400")


def test_a_folder_that_only_transformers_reads(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hola", "mundo", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    ours = load_tokenizer(tmp_path)
    assert ours.encode("Hola mundos") == [5, 6, 7]
    assert auto(tmp_path).encode("Hola mundos", add_special_tokens=False) == [5, 6, 7]  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", SPECS)
def test_many_blocks_at_once_have_the_ids_of_each(spec: str) -> None:
    tokenizer = make(spec, TEXT + HARD)
    texts = [TEXT * 3, "", HARD, " ", TEXT]
    expected = [tokenizer.encode(text) for text in texts]
    for threads in (1, 3):
        assert [ids.tolist() for ids in tokenizer.encode_blocks(texts, threads)] == expected
    assert tokenizer.encode_blocks([], 2) == []


@pytest.mark.parametrize("spec", ["nowhere/tokenizer.json", "nowhere.model", "./nowhere"])
def test_a_missing_tokenizer_file_is_called_missing(spec: str) -> None:
    with pytest.raises(InputError, match=f"tokenizer '{spec}': no such file or folder"):
        loaded_tokenizer(spec)


@pytest.mark.parametrize(
    "texts",
    [
        ["4 + 4 = 8", "Suma 4 y 4.\nSon 8, ¿no?", "4 × 4 = 16 ÷ 1", "año añejo", ""],
        ["abab abab aaaa aaa aa ba ba", "don't can't 'tis", " begins with one", "abcabc abcab"],
        ["x", "one\ttab and\r\nlines", "中文 中文 中文", "👩🏽‍🚀 👩🏽‍🚀 x"],
    ],
)
@pytest.mark.parametrize("size", [259, 263, 290, 700])
def test_merging_counted_pieces_is_the_trainer(texts: list[str], size: int) -> None:
    controls = ["<|endoftext|>", "<|user|>"]
    rows = [text for text in texts for _ in range(3)]
    assert vocabularies.few_pieces(iter(rows)) is not None
    want = vocabularies.merged(vocabularies.byte_level_pieces(), lambda: iter(rows), controls, size)
    assert vocabularies.bpe(lambda: iter(rows), controls, size).to_str() == want.to_str()


def test_pieces_are_counted_only_where_they_are_known() -> None:
    assert vocabularies.few_pieces(iter(["a b", "b b."])) == {"a": 1, "Ġb": 2, "b": 1, ".": 1}
    for text in ("a  b", "a\n b", "a\0b", "a \u00a0 b"):  # a piece may reach over the space
        assert vocabularies.few_pieces(iter(["a b", text])) is None
