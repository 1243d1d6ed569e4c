"""Files are found, read exactly and cut into documents; faults name file, line and byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from yunque.data import sources
from yunque.data.sources import find_files, read_blocks, read_documents, read_parts
from yunque.errors import InputError

SEP = "<|endoftext|>"


def put(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_folder_is_read_recursively_in_order_and_once(tmp_path: Path) -> None:
    b = put(tmp_path, "b.txt", "b")
    a = put(tmp_path, "sub/a.TXT", "a")
    put(tmp_path, "notes.md", "no")
    assert find_files([str(tmp_path)]) == [b, a]
    assert find_files([str(a), str(tmp_path)]) == [a, b]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "no such file or folder"),
        ("corpus.pdf", "x", r"unknown kind of file '.pdf'; accepted: .txt"),
        ("corpus", "x", r"'\(no suffix\)'"),
        ("zip.txt", b"PK\x03\x04\0\0", "binary file .zero byte at offset 4"),
        ("wide.txt", "hola".encode("utf-16"), "UTF-16"),
    ],
)
def test_unusable_files_are_refused(
    tmp_path: Path, name: str, content: str | bytes | None, says: str
) -> None:
    if content is not None:
        put(tmp_path, name, content)
    with pytest.raises(InputError, match=says):
        find_files([str(tmp_path / name)])


def test_all_faults_come_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        find_files([str(tmp_path / "empty"), str(tmp_path / "no.txt")])
    assert "no text files in this folder (accepted: .txt)" in str(caught.value)
    assert "no.txt: no such file" in str(caught.value)
    with pytest.raises(InputError, match="no sources"):
        find_files([])


def test_documents_and_their_lines(tmp_path: Path) -> None:
    text = f"\ufeffuno\ndos{SEP}\ntres\n{SEP}{SEP} \n {SEP}cuatro\r\n"
    path = put(tmp_path, "a.txt", text)
    found = [(item.text, item.line) for item in read_documents(path, SEP)]
    assert found == [("uno\ndos", 1), ("\ntres\n", 2), ("cuatro\r\n", 5)]
    assert {item.source for item in read_documents(path, SEP)} == {str(path)}


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
        patch.setattr(sources, "BLOCK_BYTES", block)
        found = [(item.text, item.line) for item in read_documents(path, separator)]
        blank = [part for part in read_parts(path, separator) if part.blank]
    assert found == expected
    assert len(blank) + len(found) == len(text.split(separator))


def test_invalid_utf8_is_named_by_line_and_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK_BYTES", 3)
    path = put(tmp_path, "a.txt", b"\xef\xbb\xbfa\n\xc3\xb1b\nz\xf3x")
    with pytest.raises(InputError, match=r"a\.txt:3: not UTF-8: byte 0xF3 at offset 10 "):
        list(read_blocks(path))
    path = put(tmp_path, "cut.txt", b"ab\xc3")
    with pytest.raises(InputError, match=r"cut\.txt:1: not UTF-8: byte 0xC3 at offset 2 "):
        list(read_blocks(path))


def test_real_files_are_read_exactly() -> None:
    path = shared("messy/quijote_pg2000_bom_crlf.txt")
    (document,) = read_documents(path, SEP)
    assert document.text.encode() == path.read_bytes()[3:]
    latin = shared("messy/quijote_latin1.txt")
    with pytest.raises(InputError, match=r"not UTF-8.*iconv -f latin1"):
        list(read_documents(latin, SEP))
