"""Preparation: exact splits, separators, the ledger, reuse, and nothing whole when interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shared_data import shared

from yunque.config import DataConfig
from yunque.data import encodings
from yunque.data import prepare as room
from yunque.data.prepare import Prepared, is_prepared, open_prepared, prepare
from yunque.errors import InputError, StorageError

SEP = "<|endoftext|>"


def put(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return str(path)


def texts(prepared: Prepared) -> dict[str, str]:
    return {
        name: prepared.tokenizer.decode(tokens.read(0, tokens.length), skip_special=False)
        for name, tokens in prepared.splits.items()
    }


def check_ledger(facts: dict[str, object]) -> None:
    splits = facts["splits"]
    kept = sum(item["characters"] for item in splits.values())  # type: ignore[attr-defined]
    lost = facts["blank_characters"] + facts["separators_read"] * facts["separator_length"]  # type: ignore[operator]
    assert facts["characters"] == kept + lost


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:300", "word"])
@pytest.mark.parametrize(("val", "test"), [(0.1, 0.0), (0.3, 0.1), (0.0, 0.25), (0.0, 0.0)])
def test_tail_of_a_single_text(
    tmp_path: Path, spec: str, val: float, test: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "BLOCK_BYTES", 97)
    text = "".join(f"línea {n} del texto\n" for n in range(57)) * 1
    source = put(tmp_path, "a.txt", text)
    made = prepare([source], DataConfig(tokenizer=spec, val=val, test=test), tmp_path / "out")
    n = len(text)
    cut = {(0.1, 0.0): (0.9, 1.0), (0.3, 0.1): (0.6, 0.9), (0.0, 0.25): (0.75, 0.75)}
    low, high = cut.get((val, test), (1.0, 1.0))
    expected = {
        "train": text[: int(low * n)],
        "val": text[int(low * n) : int(high * n)] if val else "",
        "test": text[int(high * n) :],
    }
    known = {name: value for name, value in expected.items() if value}
    if spec == "word":  # words of the held-out text may be unknown
        assert texts(made)["train"] == known["train"]
    else:
        assert texts(made) == known
    for name, part in known.items():
        tokens = made.splits[name]
        assert tokens.read(0, tokens.length).tolist() == made.tokenizer.encode(part)
        assert made.facts["splits"][name]["bytes"] == len(part.encode())
    check_ledger(made.facts)
    assert made.facts["separators_read"] == 0


def test_the_vocabulary_comes_from_the_training_text_alone(tmp_path: Path) -> None:
    source = put(tmp_path, "a.txt", "ab" * 45 + "zz" * 5)
    made = prepare([source], DataConfig(tokenizer="char"), tmp_path / "out")
    assert made.tokenizer.vocab_size == 4
    assert made.facts["unknown_tokens"] == 10
    assert made.facts["tokenizer_trained_on_characters"] == 90


def test_every_document_ends_in_one_separator(tmp_path: Path) -> None:
    put(tmp_path, "in/a.txt", f"uno{SEP}dos{SEP} \n{SEP}")
    put(tmp_path, "in/b.txt", "tres")
    config = DataConfig(tokenizer="byte", val=0.4)
    made = prepare([str(tmp_path / "in")], config, tmp_path / "out")
    # 10 characters: 6 train, 4 val; the cut falls between "dos" and its end.
    assert texts(made) == {"train": f"uno{SEP}dos{SEP}", "val": f"tres{SEP}"}
    facts = made.facts
    assert (facts["documents"], facts["blank_documents"], facts["separators_read"]) == (3, 2, 3)
    assert facts["tokens"] == {"train": 8, "val": 5}
    check_ledger(facts)
    inside = prepare(
        [str(tmp_path / "in")], DataConfig(tokenizer="byte", val=0.5), tmp_path / "half"
    )
    assert texts(inside) == {"train": f"uno{SEP}do", "val": f"s{SEP}tres{SEP}"}
    one = prepare([put(tmp_path, "c.txt", f"solo{SEP}")], DataConfig("byte", val=0), tmp_path / "1")
    assert texts(one) == {"train": f"solo{SEP}"}


def test_whole_documents_are_held_out(tmp_path: Path) -> None:
    documents = [f"documento {n}" for n in range(40)] + ["igual"] * 3
    source = put(tmp_path, "a.txt", SEP.join(documents))
    config = DataConfig(tokenizer="byte", val=0.1, test=0.05)
    made = prepare([source], config, tmp_path / "out")
    assert made.facts["split_by"] == "documents"
    found = {name: value.split(SEP)[:-1] for name, value in texts(made).items()}
    assert sorted(item for value in found.values() for item in value) == sorted(documents)
    sizes = {name: len(value) for name, value in found.items()}
    assert sizes["val"] in (4, 5, 6)
    assert sizes["test"] in (2, 3, 4)
    assert not set(found["train"]) & set(found["val"])  # equal documents stay together
    check_ledger(made.facts)
    # The choice does not depend on the order.
    back = prepare(
        [put(tmp_path, "b.txt", SEP.join(reversed(documents)))], config, tmp_path / "back"
    )
    again = {name: value.split(SEP)[:-1] for name, value in texts(back).items()}
    assert {name: sorted(value) for name, value in again.items()} == {
        name: sorted(value) for name, value in found.items()
    }


def test_documents_ask_for_at_least_one_in_each(tmp_path: Path) -> None:
    source = put(tmp_path, "a.txt", SEP.join("abc"))
    config = DataConfig(tokenizer="byte", val=0.01, test=0.01, split_by="documents")
    made = prepare([source], config, tmp_path / "out")
    assert {name: item["documents"] for name, item in made.facts["splits"].items()} == {
        "train": 1,
        "val": 1,
        "test": 1,
    }
    few = put(tmp_path, "b.txt", f"a{SEP}a{SEP}a")
    with pytest.raises(InputError, match=r"3 documents \(1 different\).*--val 0.*--split-by text"):
        prepare([few], config, tmp_path / "few")


def test_same_request_is_reused_and_changes_are_named(tmp_path: Path) -> None:
    source = put(tmp_path, "a.txt", "hola mundo " * 30)
    out = tmp_path / "out"
    first = prepare([source], DataConfig(tokenizer="byte"), out)
    assert (first.facts["reused"], first.facts["rebuilt_because"]) == (False, None)
    stamp = (out / "train.bin").stat().st_mtime_ns
    second = prepare([source], DataConfig(tokenizer="byte", stride=7), out)
    assert second.facts["reused"] is True
    assert (out / "train.bin").stat().st_mtime_ns == stamp
    assert second.facts["tokens"] == first.facts["tokens"]

    third = prepare([source], DataConfig(tokenizer="byte", val=0), out)
    assert third.facts["rebuilt_because"]["en"].startswith("val changed from 0.1 to 0")
    assert third.facts["rebuilt_because"]["es"].startswith("val ha pasado de 0.1 a 0")
    assert not (out / "val.bin").exists()
    put(tmp_path, "a.txt", "hola mundo!" * 30)
    fourth = prepare([source], DataConfig(tokenizer="byte", val=0), out)
    assert "(1: a.txt)" in fourth.facts["rebuilt_because"]["en"]


def test_what_was_made_in_a_folder_of_sources_is_no_source(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", "hola mundo " * 30)
    out = tmp_path / "made" / "tokens"
    first = prepare([str(tmp_path)], DataConfig(tokenizer="byte"), out)
    put(tmp_path, "runs/one/recipe.toml", "")
    put(tmp_path, "runs/one/log.jsonl", "{}")
    put(tmp_path, "runs/one/data/data.json", "{}")
    again = prepare([str(tmp_path)], DataConfig(tokenizer="byte"), out)
    assert again.facts["reused"] is True
    assert [source["name"] for source in first.facts["sources"]] == [str(tmp_path / "a.txt")]


def chat(question: str, answer: str) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}) + "\n"


def test_what_cannot_be_encoded_is_named_by_its_line_and_can_be_skipped(tmp_path: Path) -> None:
    bad = chat("¿2?", "dos \U0010f001")
    source = put(tmp_path, "chats.jsonl", chat("¿1?", "uno") + bad + chat("¿3?", "tres"))
    with pytest.raises(InputError, match=r"chats\.jsonl:2: the text holds the private-use"):
        prepare([source], DataConfig(tokenizer="byte", val=0), tmp_path / "out")
    made = prepare([source], DataConfig(tokenizer="byte", val=0, skip_bad=True), tmp_path / "out")
    assert made.facts["doubts"]["bad"]["count"] == 1
    assert "chats.jsonl:2: the text holds" in made.facts["doubts"]["bad"]["examples"][0]


def test_examples_are_whole_characters_of_every_source(tmp_path: Path) -> None:
    many = [chat(f"¿{n}?", f"«ñandú» 👍 {n}") for n in range(5)]
    sources = [put(tmp_path, f"{name}.jsonl", "".join(many)) for name in "ab"]
    facts = prepare(sources, DataConfig(tokenizer="byte", val=0), tmp_path / "out").facts
    examples = facts["examples"]
    assert [(item["source"], item["line"]) for item in examples] == [(0, 1), (0, 2), (1, 1)]
    first = examples[0]["tokens"]
    assert "".join(text for text, _ in first) == "<|user|>¿0?<|assistant|>«ñandú» 👍 0<|endoftext|>"
    learnt = "".join(text for text, carries in first if carries)
    assert learnt == "«ñandú» 👍 0<|endoftext|>"
    # Every token stands in one account, by its source and by its split.
    tokens = facts["ledger"]["tokens"]
    assert tokens["read"] == facts["tokens"]["train"] == tokens["with_loss"] + tokens["masked"]
    assert tokens["masked"] == facts["splits"]["train"]["masked"] > 0


def test_damage_is_seen(tmp_path: Path) -> None:
    source = put(tmp_path, "a.txt", "hola mundo " * 30)
    out = tmp_path / "out"
    prepare([source], DataConfig(tokenizer="byte"), out)
    with (out / "train.bin").open("r+b") as handle:
        handle.truncate(100)
    assert not is_prepared(out)
    with pytest.raises(StorageError, match=r"train.bin: 100 bytes, expected 594"):
        open_prepared(out)
    made = prepare([source], DataConfig(tokenizer="byte"), out)
    assert "incomplete or were changed" in made.facts["rebuilt_because"]["en"]
    assert is_prepared(out)
    (out / "tokenizer.json").write_text((out / "tokenizer.json").read_text() + "\n \n")
    assert is_prepared(out)  # the same tokenizer, other white space
    other = prepare([source], DataConfig(tokenizer="char"), tmp_path / "other")
    other.tokenizer.save(out)
    with pytest.raises(InputError, match="not the tokenizer that the tokens were made with"):
        open_prepared(out)


@pytest.mark.parametrize("at", ["tokenizer", "tokens", "facts"])
def test_interrupted_preparation_is_never_taken_for_whole(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path, "a.txt", "hola mundo " * 30)
    out = tmp_path / "out"
    prepare([source], DataConfig(tokenizer="char"), out)

    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "tokenizer":
            patch.setattr(room.Tokenizer, "save", stop)
        elif at == "tokens":
            patch.setattr(room.Tokenizer, "encode_blocks", stop)
        else:
            patch.setattr(room, "remove_file", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare([source], DataConfig(tokenizer="byte"), out)
    assert not is_prepared(out)
    with pytest.raises(InputError, match="interrupted"):
        open_prepared(out)
    made = prepare([source], DataConfig(tokenizer="byte"), out)
    assert "interrupted" in made.facts["rebuilt_because"]["en"]
    assert not list(out.glob(".tmp-*"))


def test_a_fault_in_the_text_leaves_an_older_preparation_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare([put(tmp_path, "a.txt", "hola " * 30)], DataConfig(tokenizer="byte"), out)
    bad = tmp_path / "b.txt"
    bad.write_bytes(b"a\n\xff")
    with pytest.raises(InputError, match=r"b\.txt:2: not UTF-8"):
        prepare([str(bad)], DataConfig(tokenizer="byte"), out)
    assert is_prepared(out)


def test_sources_that_change_meanwhile_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path, "a.txt", "hola " * 30)
    whole = room.count

    def count(*args: object) -> object:
        found = whole(*args)  # type: ignore[arg-type]
        put(tmp_path, "a.txt", "hola " * 29)
        return found

    monkeypatch.setattr(room, "count", count)
    with pytest.raises(InputError, match="changed while they were read"):
        prepare([source], DataConfig(tokenizer="byte"), tmp_path / "out")
    assert not is_prepared(tmp_path / "out")


def test_foreign_files_are_not_touched(tmp_path: Path) -> None:
    source = put(tmp_path, "a.txt", "hola " * 30)
    put(tmp_path, "model/tokenizer.json", "{}")
    with pytest.raises(InputError, match=r"holds tokenizer.json that yunque prepare did not"):
        prepare([source], DataConfig(tokenizer="byte"), tmp_path / "model")
    put(tmp_path, "kept/ledger.html", "mine")
    with pytest.raises(InputError, match=r"holds ledger.html that yunque prepare did not"):
        prepare([source], DataConfig(tokenizer="byte"), tmp_path / "kept")
    put(tmp_path, "notes/data.json", "[]")
    with pytest.raises(InputError, match="not written by yunque prepare"):
        prepare([source], DataConfig(tokenizer="byte"), tmp_path / "notes")
    put(tmp_path, "mixed/mine.bin", "x")
    prepare([source], DataConfig(tokenizer="byte"), tmp_path / "mixed")
    assert (tmp_path / "mixed/mine.bin").read_text() == "x"


def test_texts_and_token_files_are_kept_apart(tmp_path: Path) -> None:
    source = put(tmp_path, "texts/a.txt", "hola mundo " * 30)
    folder = tmp_path / "texts"
    with pytest.raises(InputError, match=r"texts: holds texts or records \(a\.txt\)"):
        prepare([source], DataConfig(tokenizer="byte"), folder)
    made = prepare([str(folder)], DataConfig(tokenizer="byte"), folder / "tokens")
    # Where an older version let it happen, our files are no data.
    for path in (folder / "tokens").iterdir():
        path.rename(folder / path.name)
    again = prepare([str(folder)], DataConfig(tokenizer="byte"), tmp_path / "out")
    assert again.facts["characters"] == made.facts["characters"] == 330
    assert again.facts["files"] == 1


def test_empty_and_tiny_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing but white space"):
        prepare([put(tmp_path, "a.txt", " \n")], DataConfig(tokenizer="byte"), tmp_path / "out")
    with pytest.raises(InputError, match="val: no character left"):
        prepare(
            [put(tmp_path, "b.txt", "abcd")],
            DataConfig(tokenizer="byte", val=1e-13),
            tmp_path / "out",
        )


def test_bpe_learns_from_an_even_sample_of_a_large_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TRAINING_CHARACTERS", 200_000)
    text = "".join(f"palabra{n % 700} otra frase\n" for n in range(40_000))
    seen: list[float] = []
    made = prepare(
        [put(tmp_path, "a.txt", text)],
        DataConfig(tokenizer="bpe:400"),
        tmp_path / "out",
        lambda what, fraction: seen.append(fraction),
    )
    assert 100_000 < made.facts["tokenizer_trained_on_characters"] < 270_000
    assert (made.facts["vocab_size"], made.facts["vocab_size_asked"]) == (270, 400)  # few words
    assert max(seen) == 1.0
    assert min(seen) > 0


def test_progress_is_spoken_in_both_languages(tmp_path: Path) -> None:
    from yunque.words import both

    spoken: list[str] = []
    prepare(
        [put(tmp_path, "a.txt", "hola " * 30)],
        DataConfig(tokenizer="char"),
        tmp_path / "out",
        lambda what, fraction: spoken.append(both(what)["es"]),
    )
    assert list(dict.fromkeys(spoken)) == [
        "Leyendo el texto",
        "Construyendo el tokenizador",
        "Convirtiendo el texto en tokens",
    ]


def test_the_verdict_as_published(tmp_path: Path) -> None:
    source = str(shared("corpora/the-verdict.txt"))
    gpt2 = str(shared("tokenizers/gpt2"))
    made = prepare([source], DataConfig(tokenizer=gpt2), tmp_path / "out")
    text = Path(source).read_text(encoding="utf-8")
    assert len(text) == 20_479
    expected = {
        "train": made.tokenizer.encode(text[: int(0.9 * len(text))]),
        "val": made.tokenizer.encode(text[int(0.9 * len(text)) :]),
    }
    assert {n: t.read(0, t.length).tolist() for n, t in made.splits.items()} == expected
    assert (made.facts["tokenizer_kind"], made.facts["dtype"]) == ("gpt2", "uint16")
