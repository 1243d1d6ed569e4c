"""Records of every format: strict, streamed, each with file and line, every byte accounted for."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from yunque.config import DataConfig
from yunque.data import encodings, json_records, reader
from yunque.data.encodings import BadRecord, ReadNotes
from yunque.data.records import read_records
from yunque.errors import InputError, MissingPackageError

ROWS = [{"pregunta": f"¿{n} + {n}?", "respuesta": f"Son {2 * n}.\n«{n}»"} for n in range(7)]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(rows: list[dict[str, str]], **options: Any) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    writer.write_table(arrow.Table.from_pylist(rows), path, row_group_size=2)
    return path


def read(path: Path, **options: Any) -> tuple[list[dict[str, Any]], ReadNotes]:
    notes = ReadNotes()
    return [record.fields for record in read_records(path, DataConfig(**options), notes)], notes


def read_some(path: Path) -> tuple[list[dict[str, Any]], list[BadRecord], ReadNotes]:
    """With bad records left out; and the account closes."""
    notes, bad = ReadNotes(), []
    config = DataConfig(skip_bad=True)
    found = [record.fields for record in read_records(path, config, notes, bad.append)]
    assert notes.open_bytes == 0
    assert notes.bad_records == len(bad)
    assert notes.bad_bytes == sum(item.size for item in bad)
    assert notes.records == len(found)
    return found, bad, notes


LAYOUTS: dict[str, tuple[str, Callable[[], str], str]] = {
    "list": ("a.json", lambda: json.dumps(ROWS, indent=1, ensure_ascii=False), "list"),
    "escaped list": ("a.json", lambda: json.dumps(ROWS), "list"),
    "lines": ("a.jsonl", lambda: "\n".join(map(json.dumps, ROWS)), "lines"),
    "lines, CRLF": ("a.jsonl", lambda: "".join(json.dumps(r) + "\r\n" for r in ROWS), "lines"),
    "lines as json": ("a.json", lambda: "\n".join(map(json.dumps, ROWS)) + "\n", "lines"),
    "wrapped": (
        "a.json",
        lambda: json.dumps({"version": "1", "tags": ["x"], "data": ROWS}, indent=2),
        "list under 'data'",
    ),
    "columns": (
        "a.json",
        lambda: json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}),
        "columns",
    ),
    "csv": ("a.csv", lambda: table(ROWS), "table"),
    "semicolons": ("a.csv", lambda: table(ROWS, delimiter=";"), "table"),
    "bars": ("a.csv", lambda: table(ROWS, delimiter="|"), "table"),
    "said": ("a.csv", lambda: "\ufeffsep=^\r\n" + table(ROWS, delimiter="^"), "table"),
    "tsv": ("a.tsv", lambda: table(ROWS, dialect="excel-tab"), "table"),
    "all quoted": ("a.csv", lambda: "\ufeff" + table(ROWS, quoting=csv.QUOTE_ALL), "table"),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("block", [7, 64, 1 << 17])
def test_every_layout_gives_the_same_records(
    tmp_path: Path, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "BLOCK_BYTES", block)
    file, content, layout = LAYOUTS[name]
    path = put(tmp_path, file, content())
    found, notes = read(path)
    assert found == ROWS
    assert (notes.layout, notes.records, notes.open_bytes) == (layout, len(ROWS), 0)
    delimiters = {"csv": ",", "semicolons": ";", "bars": "|", "said": "^", "tsv": "\t"}
    assert notes.delimiter == (delimiters | {"all quoted": ","}).get(name, "")
    packed = put(tmp_path, file + ".gz", gzip.compress(path.read_bytes()))
    assert read(packed)[0] == ROWS


def test_parquet_plain_and_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"n{n}"}], "n": n, "text": "nin\u0303o"}
        for n in range(5)
    ]
    path = parquet(tmp_path / "a.parquet", rows)
    expected = [{**row, "text": "niño"} for row in rows]
    assert read(path)[0] == expected
    packed = put(tmp_path, "a.parquet.gz", gzip.compress(path.read_bytes()))
    found, notes = read(packed)
    assert found == expected
    assert notes.normalised_characters == 10
    assert [r.line for r in read_records(path)] == [1, 2, 3, 4, 5]
    broken = put(tmp_path, "b.parquet", path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"b\.parquet:1: not readable as parquet"):
        read(broken)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match='pip install "pyarrow'):
        read(path)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    indented = put(tmp_path, "a.json", '\n[\n  {"a": 1},\n  {"a":\n2}, {"a": 3}\n]\n')
    assert [r.line for r in read_records(indented)] == [3, 4, 5]
    wrapped = put(tmp_path, "b.json", '{"n": 1,\n"data": [\n{"a": "]"},\n{"a": 2}]}')
    assert [r.line for r in read_records(wrapped)] == [3, 4]
    rows = put(tmp_path, "c.csv", 'a,b\n1,"x\n\ny"\n2,z\n')
    found = [(r.line, r.fields, r.size, r.source) for r in read_records(rows)]
    assert found == [
        (2, {"a": "1", "b": "x\n\ny"}, len('1,"x\n\ny"'), str(rows)),
        (5, {"a": "2", "b": "z"}, 3, str(rows)),
    ]


FAULTS = [
    ("NaN", '{"a": NaN}', "NaN, which JSON does not know"),
    ("infinity", '{"a": -Infinity}', "-Infinity, which JSON does not know"),
    ("overflow", '{"a": 1e999}', "the number 1e999 is too large"),
    ("key twice", '{"a": {"b": 1, "b": 2}}', "the field 'b' stands twice in one object"),
    ("depth", '{"a": ' + "[" * 65 + "]" * 65 + "}", "nested more than 64 deep"),
    ("depth bomb", '{"a": ' + "[" * 99_999 + "]" * 99_999 + "}", "nested more than 64 deep"),
    ("surrogate", r'{"a": "x\ud83d"}', r"half a surrogate pair"),
    ("surrogate key", r'{"\udc00": 1}', r"half a surrogate pair in the name"),
    ("digits", '{"a": ' + "1" * 5000 + "}", "a whole number of 5,000 digits"),
    ("no object", '"text"', "a text, expected an object"),
    ("null", "null", "null, expected an object"),
    ("list", "[1]", "a list, expected an object"),
    ("not JSON", "{'a': 1}", "not JSON: Expecting property name .* at character 2"),
    ("control", '{"a": "x\ty"}', "not JSON: Invalid control character"),
    ("zero byte", '{"a": "x\0y"}', "not JSON: Invalid control character"),
    ("open", '{"a": "x"', "not JSON: Expecting ',' delimiter"),
    ("two", '{"a": 1} {"a": 2}', "not JSON: Extra data"),
    ("comma", '{"a": 1},', "not JSON: Extra data"),
    ("bytes", b'{"a": "ma\xf1ana"}', "not utf-8: byte 0xF1 at character 10"),
]


@pytest.mark.parametrize(("name", "text", "reason"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_json_lines_are_strict(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    good = b'{"a": "\xc3\xb1"}'
    path = put(tmp_path, "a.jsonl", good + b"\n" + raw + b"\n" + good + b"\n")
    expected = r"a\.jsonl:2: .*" + ("byte 0xF1" if name == "bytes" else reason)
    with pytest.raises(InputError, match=expected):
        read(path)
    found, bad, _ = read_some(path)
    assert found == [{"a": "ñ"}] * 2
    assert [(item.line, item.size, item.source) for item in bad] == [(2, len(raw), str(path))]
    assert re.search(reason, bad[0].reason)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [fault for fault in FAULTS if fault[0] not in ("two", "comma", "open")],
)
def test_json_lists_are_strict(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    path = put(tmp_path, "a.json", b'[{"a": "\xc3\xb1"},\n' + raw + b',\n{"a": 2}]')
    with pytest.raises(InputError, match=r"a\.json:2: "):
        read(path)
    found, bad, _ = read_some(path)
    assert found == [{"a": "ñ"}, {"a": 2}]
    assert [(item.line, item.size) for item in bad] == [(2, len(raw))]


@pytest.mark.parametrize(
    ("content", "says", "good"),
    [
        ('[{"a": 1},\n{"a": 2', r":2: the file is cut off inside this record", 1),
        ('[{"a": 1},\n{"a": 2}', r":2: the file is cut off: the list that begins in line 1", 2),
        ('[{"a": 1},\n{"a": "2', r":2: the file is cut off inside this record", 1),
        ('[{"a": 1}\n{"a": 2}]', r":2: '{', expected a comma or \]", 2),
        ('[{"a": 1},\n]', ":2: a comma with nothing behind it", 1),
        ('[,\n{"a": 1}]', ":1: a comma with nothing before it", 1),
        ('[{"a": 1},\n,{"a": 1}]', ":2: a comma with nothing before it", 2),
        ('[{"a": 1}]\n]', r":2: '\]' behind the end of the list", 1),
        ('{"a": 1}\n{"a": 2', ":2: the file is cut off inside this record", 1),
        ('{"a": 1}\n,{"a": 2}', ":2: not JSON", 2),
        ('{"a": 1', ":1: the file is cut off", 0),
        ('{"a": 1, "a": 2}', ":1: the field 'a' stands twice", 0),
    ],
)
def test_the_structure_of_a_json_file_is_strict(
    tmp_path: Path, content: str, says: str, good: int
) -> None:
    path = put(tmp_path, "a.json", content)
    with pytest.raises(InputError, match=r"a\.json" + says):
        read(path)
    found, bad, _ = read_some(path)
    assert len(found) == good
    assert bad


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ":1: is empty, expected JSON"),
        ("\n hola", ":2: begins with 'h', expected JSON"),
        ("3", ":1: begins with '3'"),
        ('{"a": [{"x": 1}], "b": [{"y": 2}]}', r"lists 'a' \(1 items\), 'b' \(1 items\): which"),
        ('{"a": ["x"], "b": ["y", "z"]}', r"'a' \(1 items\), 'b' \(2 items\)"),
    ],
)
def test_a_json_file_that_holds_no_records(tmp_path: Path, content: str, says: str) -> None:
    path = put(tmp_path, "a.json", content)
    for on_bad in (None, list[BadRecord]().append):
        with pytest.raises(InputError, match=says):
            list(read_records(path, on_bad=on_bad))


def test_one_object_may_be_one_record(tmp_path: Path) -> None:
    for record in (
        {"instruction": "a", "output": "b", "history": [["x", "y"]]},
        {"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "t"}]},
        {"text": "solo"},
    ):
        found, notes = read(put(tmp_path, "a.json", json.dumps(record, indent=1)))
        assert (found, notes.layout) == ([record], "object")
    assert read(put(tmp_path, "b.json", "[]"))[0] == []
    assert read(put(tmp_path, "b.jsonl", ""))[0] == []


def test_blank_and_cut_lines(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.jsonl", '{"a": 1}\n\n \r\n'))[0] == [{"a": 1}]
    path = put(tmp_path, "b.jsonl", '{"a": 1}\n \n{"a": 2}\n{"a": "tr')
    with pytest.raises(InputError, match=r"b\.jsonl:2: a blank line, expected a record"):
        read(path)
    found, bad, _ = read_some(path)
    assert found == [{"a": 1}, {"a": 2}]
    assert [(item.line, item.reason[:30]) for item in bad] == [
        (2, "a blank line, expected a recor"),
        (4, "the file is cut off inside thi"),
    ]


@pytest.mark.parametrize(
    ("content", "says", "good"),
    [
        ("a,b\n1\n2,3\n", r":2: 1 fields, expected 2 \(a, b\)", 1),
        ("a,b\n1,2,3\n2,3\n", r":2: 3 fields, expected 2", 1),
        ('a,b\n1,"x\n2,3\n4,5\n', ":2: a quote that opens in this row is never closed", 2),
        ('a,b\n1,"x"y\n2,3\n', ":2: a quote inside a quoted field; write it twice", 1),
        ("a,b\n1,x\0y\n2,3\n", ":2: a zero byte", 1),
        ("a,b\n\n2,3\n\n", ":2: a blank line, expected a row", 1),
        ("a,b\n1,x\ry\n2,3\n", ":2: a lone carriage return", 1),
        (b"a,b\n1,ma\xf1ana\n2,\xc3\xb1\n", ":2: not UTF-8: byte 0xF1 at offset 8", 1),
    ],
)
def test_tables_are_strict(tmp_path: Path, content: str | bytes, says: str, good: int) -> None:
    path = put(tmp_path, "a.csv", content)
    with pytest.raises(InputError, match=r"a\.csv" + says):
        read(path)
    found, bad, _ = read_some(path)
    assert [row["a"] for row in found] == ["2", "4"][:good]
    assert [item.line for item in bad] == [2]


def test_headers(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", "¿Cuánto es 2 + 2?\t4\n¿Y 3 + 3?\t6\n")
    found, notes = read(path)
    assert (found[0], notes.header) == ({"1": "¿Cuánto es 2 + 2?", "2": "4"}, False)
    found, notes = read(path, header="yes")
    assert (found, notes.header) == ([{"¿Cuánto es 2 + 2?": "¿Y 3 + 3?", "4": "6"}], True)
    names = put(tmp_path, "b.csv", "question,answer\nq,a\n")
    assert read(names)[0] == [{"question": "q", "answer": "a"}]
    assert len(read(names, header="no")[0]) == 2
    with pytest.raises(InputError, match=r"c\.csv:1: two columns are called 'a'.*--header no"):
        read(put(tmp_path, "c.csv", "a,a\n1,2\n"))
    with pytest.raises(InputError, match=r"d\.csv:1: .*never closed in the first row"):
        read(put(tmp_path, "d.csv", 'a,"b\n1,2\n'))


def test_values_are_normalised_and_names_are_not(tmp_path: Path) -> None:
    row = {"e\u0301": "e\u0301\r\n", "deep": [{"x": ["a\u0308"]}]}
    path = put(tmp_path, "a.jsonl", json.dumps(row))
    found, notes = read(path, newlines="lf")
    assert found == [{"e\u0301": "é\n", "deep": [{"x": ["ä"]}]}]
    assert (notes.normalised_characters, notes.crlf) == (4, 1)
    assert read(path, normalise="none")[0] == [row]


def test_latin1_records_are_detected(tmp_path: Path) -> None:
    rows = [{"a": f"mañana será otro año {n}"} for n in range(5)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    found, notes = read(put(tmp_path, "a.jsonl", text.encode("latin-1")))
    assert (found, notes.found, notes.language) == (rows, "detected", "Spanish")
    assert notes.open_bytes == 0


def test_what_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "BLOCK_BYTES", 1000)
    for module in (json_records, reader):
        monkeypatch.setattr(module, "RECORD_CHARACTERS", 10_000)
    monkeypatch.setattr("yunque.data.tables.RECORD_CHARACTERS", 10_000)
    big = "x" * 30_000
    for name, content in [
        ("a.jsonl", '{"a": 1}\n{"a": "' + big + '"}\n'),
        ("b.json", '[{"a": 1},\n{"a": "' + big + '"}]'),
        ("c.json", '[{"a": 1},\n{"a": [' + "1," * 15_000 + "1]}]"),
        ("d.json", '[{"a": 1},\n"' + big + '"]'),
    ]:
        with pytest.raises(InputError, match=rf"{name}:2: a \w+ of more than .* memory"):
            read_some(put(tmp_path, name, content))


@pytest.mark.parametrize("bomb", ["[", "[{", "[[],", '[{"a":', '"', "\\", "[1,"])
def test_brackets_and_quotes_without_end_are_no_hang(tmp_path: Path, bomb: str) -> None:
    path = put(tmp_path, "a.json", '[{"a": ' + bomb * (1_000_000 // len(bomb)))
    began = time.perf_counter()
    found, bad, _ = read_some(path)
    assert (found, bad[0].line) == ([], 1)
    assert time.perf_counter() - began < 5


def test_a_forgotten_quote_costs_one_row(tmp_path: Path) -> None:
    rows = 60_000
    path = put(tmp_path, "a.csv", 'a,b\n1,"x\n' + "2,y\n" * rows)
    with pytest.raises(InputError, match=r"a\.csv:2: a quote .* not closed in 50,000 lines"):
        read(path)
    found, bad, _ = read_some(path)
    assert (len(found), [item.line for item in bad]) == (rows, [2])


def test_a_ten_megabyte_line_is_read(tmp_path: Path) -> None:
    big = "añ" * 4_000_000
    path = put(tmp_path, "a.jsonl", json.dumps({"a": big}, ensure_ascii=False) + '\n{"a": ""}\n')
    assert [(r.line, len(r.fields["a"]), r.size) for r in read_records(path)] == [
        (1, 8_000_000, 12_000_009),
        (2, 0, 9),
    ]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    texts: dict[str, Callable[[list[dict[str, str]]], str]] = {
        "a.json": json.dumps,
        "a.jsonl": lambda rows: "\n".join(map(json.dumps, rows)),
        "a.csv": table,
    }
    count = 5000
    path = put(tmp_path, name, texts[name]([{"a": "x" * 2000, "b": str(n)} for n in range(count)]))
    tracemalloc.start()
    assert sum(1 for _ in read_records(path)) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 3 << 20, peak


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\{}[],:ñ\n🙂', max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab{]", max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text('ab"{]', max_size=3), VALUES, max_size=3), max_size=5),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
    escaped=st.booleans(),
)
def test_any_list_is_read_as_json_reads_it(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    block: int,
    indent: int | None,
    escaped: bool,
) -> None:
    folder = tmp_path_factory.mktemp("j")
    path = put(folder, "a.json", json.dumps(rows, indent=indent, ensure_ascii=escaped))
    lines = "".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "BLOCK_BYTES", block)
        for file in (path, put(folder, "a.jsonl", lines)):
            found, notes = read(file, normalise="none")
            assert found == rows
            assert notes.open_bytes == 0


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.lists(st.text('a",;\tñ\n ', max_size=5), min_size=2, max_size=2), max_size=5),
    block=st.integers(1, 40),
    tabs=st.booleans(),
)
def test_any_table_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], block: int, tabs: bool
) -> None:
    stream = io.StringIO()
    delimiter = "\t" if tabs else ","
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerows([["uno", "dos"], *rows])
    name = "a.tsv" if tabs else "a.csv"
    path = put(tmp_path_factory.mktemp("c"), name, stream.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "BLOCK_BYTES", block)
        found, notes = read(path)
    assert [list(row.values()) for row in found] == rows
    assert notes.open_bytes == 0


@pytest.mark.parametrize(
    ("name", "records", "keys"),
    [
        ("formats/alpaca_en_demo.json", 999, {"instruction", "input", "output"}),
        ("formats/alpaca_rasbt_instruction-data.json", 1100, {"instruction", "input", "output"}),
        ("formats/identity.json", 91, {"instruction", "input", "output"}),
        ("formats/litgpt_alpaca_fixture.json", 23, {"instruction", "input", "output"}),
        ("formats/sharegpt_glaive_toolcall_en_demo.json", 300, {"conversations", "tools"}),
        ("maths/gsm8k_train.jsonl", 7473, {"question", "answer"}),
        ("maths/mgsm_es_001-125.csv", 125, {"pregunta", "respuesta"}),
        ("maths/mgsm_es_001-125.tsv", 125, {"1", "2"}),
        ("maths/mgsm_es_001-125_alpaca.json", 125, {"instruction", "input", "output"}),
        ("maths/mgsm_es_001-125_messages.jsonl", 125, {"messages"}),
        ("maths/mgsm_es_001-125_sharegpt.json", 125, {"conversations"}),
    ],
)
def test_real_files(name: str, records: int, keys: set[str]) -> None:
    path = shared(name)
    found, notes = read(path, normalise="none")
    assert len(found) == records
    assert set(found[0]) == keys
    assert notes.open_bytes == 0
    assert notes.bytes_read == path.stat().st_size
    if path.suffix == ".json":
        assert found == json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".jsonl":
        assert found == [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_records_over_several_lines_are_sent_to_json(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", "\n".join(json.dumps(row, indent=1) for row in ROWS))
    with pytest.raises(InputError, match=r"a\.jsonl:1: .* Rename the file to \.json"):
        read(path)
    assert read(path.rename(tmp_path / "a.json"))[0] == ROWS
