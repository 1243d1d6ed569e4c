"""Names, settings and values that are not what they should be are told, with no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yunque.assemble.models import model_path
from yunque.assemble.sources import located
from yunque.config import DataConfig, Recipe
from yunque.data.prepare import prepare
from yunque.data.sources import find_sources
from yunque.data.tokenizer import SEPARATOR, load_tokenizer, loaded_tokenizer, train_tokenizer
from yunque.errors import InputError
from yunque.hub import hub_id
from yunque.weights.gguf_sentencepiece import BYTE, BYTES, NORMAL, UNKNOWN, to_backend
from yunque.weights.transformers_model import beyond_decoder, refuse_code


@pytest.mark.parametrize("name", ["x" * 300, "o/" + "x" * 300, "~no-such-user/x", "a\0b"])
@pytest.mark.parametrize(
    "asked",
    [model_path, loaded_tokenizer, lambda name: find_sources([name])],
    ids=["model", "tokenizer", "sources"],
)
def test_a_name_that_no_path_can_have(
    name: str, asked: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "o").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as told:
        asked(name)
    assert len(str(told.value)) < 400


def test_a_hub_id_that_is_too_long_for_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "o").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^'o/x{78}…': no path: a name that is too long"):
        hub_id("o/" + "x" * 300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tokenizer"
    made.mkdir()
    tokenizer = train_tokenizer("char", lambda: iter(["una frase"]), SEPARATOR)
    tokenizer.backend.save(str(made / "tokenizer.json"))
    return made


def test_the_settings_of_a_tokenizer(folder: Path) -> None:
    settings = folder / "tokenizer_config.json"
    settings.write_text("[]")
    with pytest.raises(InputError, match=r"tokenizer_config.json: expected a JSON object"):
        load_tokenizer(folder)
    settings.write_text('{"eos_token": ""}')
    assert load_tokenizer(folder).separator == SEPARATOR
    (folder / "chat_template.jinja").write_bytes(b"{{ 'se\xf1or' }}")
    with pytest.raises(InputError, match=r"chat_template.jinja: not UTF-8 text \(byte 6\)"):
        load_tokenizer(folder)


@pytest.mark.parametrize("family", [["llama"], {"a": 1}, 5])
def test_a_kind_of_model_that_is_no_name(family: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config.json: model_type is .*, expected a text"):
        refuse_code({"model_type": family}, tmp_path / "config.json")
    assert beyond_decoder({"model_type": family}) == [f"model_type is {family!r}."]


def test_the_tokens_of_a_gguf_file() -> None:
    tokens: list[Any] = ["<unk>", *sorted(BYTES), "a"]
    found: dict[str, list[Any]] = {
        "tokens": tokens,
        "token_type": [UNKNOWN, *[BYTE] * 256, NORMAL],
        "scores": [0.0] * 258,
    }
    assert to_backend(Path("m.gguf"), found).get_vocab_size() == 258
    for key, wrong, kind in (("scores", "x", "numbers"), ("tokens", 7, "texts")):
        bad = {**found, key: [*found[key][:-1], wrong]}
        with pytest.raises(InputError, match=rf"m.gguf: {wrong!r} under .*{key}, expected {kind}"):
            to_backend(Path("m.gguf"), bad)


def test_a_date_that_python_does_not_know(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    dates = pyarrow.array([0] * 40 + [10**15], type=pyarrow.timestamp("ms"))
    texts = [f"frase {n}" for n in range(41)]
    parquet.write_table(pyarrow.table({"text": texts, "at": dates}), tmp_path / "a.parquet")
    config = DataConfig(tokenizer="char")
    with pytest.raises(InputError, match=r"a.parquet:41: a date that Python does not know"):
        prepare([str(tmp_path / "a.parquet")], config, tmp_path / "out")


def test_a_preparation_whose_settings_were_changed(tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("una frase y otra\n" * 40)
    config = DataConfig(tokenizer="char")
    prepare([str(text)], config, out)
    path = out / "data.json"
    record = json.loads(path.read_text())
    recipe = Recipe(sources=(str(out),))
    assert located(recipe, tmp_path / "run")[0].data.tokenizer == "char"

    def changed(**values: Any) -> None:
        kept = {key: value for key, value in {**record, **values}.items() if value is not None}
        path.write_text(json.dumps(kept))

    for settings, words in (([], "settings is"), ({"zzz": 1}, "zzz"), ({"val": "x"}, "val")):
        changed(settings=settings)
        with pytest.raises(InputError, match=rf"data.json: .*{words}"):
            located(recipe, tmp_path / "run")
    for lost in ("settings", "sources", "fingerprint"):
        changed(**{lost: None})
        prepare([str(text)], config, out)
        assert json.loads(path.read_text())[lost] == record[lost]
