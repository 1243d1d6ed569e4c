"""Files are found, read exactly and cut into documents; faults name file, line and byte."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from yunque.config import DataConfig
from yunque.data import encodings
from yunque.data.encodings import DEFAULT
from yunque.data.sources import (
    HubData,
    Source,
    find_sources,
    hub_data,
    hub_revision,
    left_aside,
    read_parts,
    records_of,
)
from yunque.errors import InputError, MissingPackageError

SEP = "<|endoftext|>"


def put(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def files(*sources: Path) -> list[Path | None]:
    return [source.path for source in find_sources(list(map(str, sources)))]


def documents(
    path: Path, separator: str = SEP, config: DataConfig = DEFAULT
) -> list[tuple[str, int]]:
    """(text, line) of each document that is not blank."""
    found: list[tuple[str, int]] = []
    for part in read_parts(path, separator, config):
        if part.first and not part.blank:
            found.append((part.text, part.line))
        elif not part.blank:
            found[-1] = (found[-1][0] + part.text, part.line)
    return found


def test_folder_is_read_recursively_in_order_and_once(tmp_path: Path) -> None:
    b = put(tmp_path, "b.txt", "b")
    a = put(tmp_path, "sub/a.TXT", "a")
    put(tmp_path, "notes.pdf", "no")
    put(tmp_path, "README.md", "about the data")
    put(tmp_path, ".cache/c.txt", "hidden")
    assert files(tmp_path) == [b, a]
    assert files(a, tmp_path) == [a, b]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "no such file or folder"),
        ("corpus.pdf", "x", r"unknown kind of file '.pdf'; accepted: .txt"),
        ("corpus.txt.zip", "x", r"unknown kind of file '.txt.zip'.*plain or .gz"),
        ("corpus", "x", r"'\(no suffix\)'"),
        ("zip.txt", b"PK\x03\x04\0\0", "binary file .zero byte at offset 4"),
        ("wide.txt", "hola".encode("utf-32"), "UTF-32"),
        # mtime=0: the bytes name the case, and every process must name it alike.
        (
            "packed.txt",
            gzip.compress(b"hola", mtime=0),
            "gzip data under a name that does not say so",
        ),
        ("packed.txt.gz", b"hola, that is no gzip", "damaged .gz data"),
    ],
)
def test_unusable_files_are_refused(
    tmp_path: Path, name: str, content: str | bytes | None, says: str
) -> None:
    if content is not None:
        put(tmp_path, name, content)
    with pytest.raises(InputError, match=says):
        find_sources([str(tmp_path / name)])


def test_all_faults_come_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        find_sources([str(tmp_path / "empty"), str(tmp_path / "no.txt")])
    assert "no files to read in this folder (accepted: .txt, .md, .json" in str(caught.value)
    assert "no.txt: no such file" in str(caught.value)
    with pytest.raises(InputError, match="no sources"):
        find_sources([])


def test_what_a_folder_holds_besides_is_counted(tmp_path: Path) -> None:
    for name in ("a.txt", "b.PDF", "c.pdf", "d.docx", "Makefile", ".hidden", "LICENSE.txt"):
        put(tmp_path, name, "x")
    expected = {".pdf": 2, ".docx": 1, "LICENSE.txt": 1, "Makefile": 1}
    assert left_aside([str(tmp_path)]) == expected
    # Once, however often it is reached; and what is named is read.
    twice = [str(tmp_path), str(tmp_path / "*"), str(tmp_path / "LICENSE.txt")]
    assert left_aside(twice) == {".pdf": 2, ".docx": 1, "Makefile": 1}
    assert left_aside([str(tmp_path / "a.txt"), "owner/name"]) == {}
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match=r"it holds \.pdf \(2\), \.docx \(1\), LICENSE\.txt \(1\)"):
        find_sources([str(tmp_path)])


def test_documents_and_their_lines(tmp_path: Path) -> None:
    text = f"\ufeffuno\ndos{SEP}\ntres\n{SEP}{SEP} \n {SEP}cuatro\r\n"
    path = put(tmp_path, "a.txt", text)
    assert documents(path) == [("uno\ndos", 1), ("\ntres\n", 2), ("cuatro\r\n", 5)]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet="ab \n<|>é🙂", max_size=80),
    separator=st.sampled_from(["<|>", "\n\n", "a"]),
    block=st.integers(1, 9),
)
def test_small_blocks_give_the_documents_of_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, separator: str, block: int
) -> None:
    path = put(tmp_path_factory.mktemp("s"), "a.txt", text)
    expected, line = [], 1
    for piece in text.split(separator):
        if piece.strip():
            expected.append((piece, line))
        line += (piece + separator).count("\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "BLOCK_BYTES", block)
        found = documents(path, separator)
        blank = [part for part in read_parts(path, separator) if part.blank]
    assert found == expected
    assert len(blank) + len(found) == len(text.split(separator))


def test_kinds_compressions_and_globs(tmp_path: Path) -> None:
    names = ["a.txt", "b.md.gz", "c.jsonl.zst", "d.JSON.bz2", "e.csv.xz", "f.tsv", "g.parquet"]
    for name in names:
        put(tmp_path, name, b"")
    for name in ("b.md.gz", "c.jsonl.zst", "d.JSON.bz2", "e.csv.xz"):
        (tmp_path / name).unlink()
    found = find_sources([str(tmp_path)])
    assert [(source.path.name, source.kind) for source in found if source.path] == [
        ("a.txt", "text"),
        ("f.tsv", "records"),
        ("g.parquet", "records"),
    ]
    assert find_sources([str(tmp_path / "*.t[xs][tv]")]) == found[:2]
    put(tmp_path, "x[1].txt", "a name that looks like a pattern")
    assert files(tmp_path / "x[1].txt") == [tmp_path / "x[1].txt"]
    with pytest.raises(InputError, match="matches no file to read"):
        find_sources([str(tmp_path / "*.doc")])


@pytest.mark.parametrize(
    ("source", "name", "configuration", "split"),
    [
        ("hf:owner/name", "owner/name", None, "train"),
        ("hf:name:test", "name", None, "test"),
        ("hf:openai/gsm8k:main:test", "openai/gsm8k", "main", "test"),
        ("owner/name-1.0", "owner/name-1.0", None, "train"),
    ],
)
def test_hub_names(source: str, name: str, configuration: str | None, split: str) -> None:
    hub = hub_data(source)
    assert hub is not None
    assert (hub.name, hub.configuration, hub.split) == (name, configuration, split)
    assert find_sources([source]) == [Source(str(hub), "records")]


@pytest.mark.parametrize("source", ["data/missing.txt", "data/missing.json.gz", "a/b/c", "name"])
def test_a_missing_file_is_no_hub_name(source: str) -> None:
    assert hub_data(source) is None
    with pytest.raises(InputError, match="no such file or folder"):
        find_sources([source])


def test_hub_data_offline_and_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    (source,) = find_sources(["hf:yunque-tests/there-is-no-such-data"])
    with pytest.raises(InputError, match=r"^hf:yunque-tests/.*: the data set cannot be read from"):
        list(records_of(source))
    with pytest.raises(InputError, match=r"cannot be read from the Hub: OfflineModeIsEnabled"):
        hub_revision(HubData("yunque-tests/there-is-no-such-data"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match=r'pip install "yunque\[hub\]"'):
        list(records_of(source))
    with pytest.raises(InputError, match="expected hf:NAME"):
        find_sources(["hf:"])


def test_hub_rows_are_those_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set changes between the fingerprint and its passes: one commit is read."""
    import huggingface_hub

    hub_revision.cache_clear()
    commits = iter("abc")
    asked: list[dict[str, object]] = []

    def load_dataset(name: str, configuration: str | None, **options: object) -> list[object]:
        asked.append(options)
        return [{"text": "una"}]

    def dataset_info(api: object, name: str) -> SimpleNamespace:
        return SimpleNamespace(sha=next(commits))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    (source,) = find_sources(["hf:taller/yunque"])
    assert hub_revision(HubData("taller/yunque")) == "a"
    for _ in range(2):
        assert [record.fields for record in records_of(source)] == [{"text": "una"}]
    assert asked == [{"split": "train", "revision": "a", "streaming": True}] * 2
    hub_revision.cache_clear()


def test_hub_rows_are_streamed_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("yunque.data.sources.hub_revision", lambda hub: None)
    rows = [{"text": f"l\u0069\u0301nea {n}"} for n in range(3)]
    content = "\n".join(json.dumps(row) for row in rows)
    put(tmp_path, "train.jsonl", content)
    notes = encodings.ReadNotes()
    (source,) = find_sources([f"hf:{tmp_path}:train"])
    found = [(r.fields["text"], r.source, r.line) for r in records_of(source, notes=notes)]
    assert found == [(f"línea {n}", f"hf:{tmp_path}:train", n + 1) for n in range(3)]
    assert (notes.records, notes.normalised_characters, notes.open_bytes) == (3, 6, 0)


def test_invalid_utf8_is_named_by_line_and_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "BLOCK_BYTES", 3)
    path = put(tmp_path, "a.txt", b"\xef\xbb\xbfa\n\xc3\xb1b\nz\xf3x")
    with pytest.raises(InputError, match=r"a\.txt:3: not UTF-8: byte 0xF3 at offset 10 "):
        documents(path)
    path = put(tmp_path, "cut.txt", b"ab\xc3")
    with pytest.raises(InputError, match=r"cut\.txt:1: not UTF-8: byte 0xC3 at offset 2 "):
        documents(path)


def test_real_files_are_read_exactly() -> None:
    path = shared("messy/quijote_pg2000_bom_crlf.txt")
    ((text, _),) = documents(path)
    assert text.encode() == path.read_bytes()[3:]
    ((text, _),) = documents(shared("messy/quijote_latin1.txt"))
    assert text.encode("latin-1") == shared("messy/quijote_latin1.txt").read_bytes()


def test_settings_reach_the_documents(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", "uno\r\ndos e\u0301".encode())
    ((text, _),) = documents(path, SEP, DataConfig(newlines="lf"))
    assert text == "uno\ndos é"
    ((text, _),) = documents(path, SEP, DataConfig(normalise="none"))
    assert text == "uno\r\ndos e\u0301"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_pointer_of_git_lfs_is_no_data(tmp_path: Path, name: str) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: only a pointer .* `git lfs pull`"):
        find_sources([str(tmp_path / name)])
