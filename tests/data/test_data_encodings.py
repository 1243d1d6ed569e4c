"""Bytes become text exactly: encodings, compressions, line ends, normalisation, and the account."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import sys
import tracemalloc
import unicodedata
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared

from yunque.config import DataConfig
from yunque.data import encodings
from yunque.data.encodings import SAFE, BadRecord, ReadNotes, is_plain, read_text
from yunque.errors import InputError, MissingPackageError

SPANISH = "El niño comió jamón en la montaña; ¿qué más dirá el año que viene?\n" * 3


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def whole(path: Path, **options: object) -> tuple[str, ReadNotes]:
    notes = ReadNotes()
    text = "".join(read_text(path, DataConfig(**options), notes))  # type: ignore[arg-type]
    return text, notes


@pytest.mark.parametrize(
    ("encoded", "named", "encoding", "found"),
    [
        (SPANISH.encode(), "auto", "utf-8", "utf-8"),
        (SPANISH.encode("utf-8-sig"), "auto", "utf-8", "bom"),
        (SPANISH.encode("utf-16"), "auto", "utf-16-le", "bom"),
        (b"\xfe\xff" + SPANISH.encode("utf-16-be"), "auto", "utf-16-be", "bom"),
        (SPANISH.encode("utf-16-le"), "auto", "utf-16-le", "detected"),
        (SPANISH.encode("utf-16-be"), "auto", "utf-16-be", "detected"),
        (SPANISH.encode("utf-16-be"), "utf-16", "utf-16-be", "named"),
        (SPANISH.encode("utf-16"), "utf-16", "utf-16-le", "bom"),
        (SPANISH.encode("latin-1"), "auto", "latin-1", "detected"),
        (SPANISH.encode("latin-1"), "latin-1", "latin-1", "named"),
        (SPANISH.encode("cp1252"), "windows-1252", "windows-1252", "named"),
    ],
)
def test_every_encoding_gives_the_same_text(
    tmp_path: Path, encoded: bytes, named: str, encoding: str, found: str
) -> None:
    text, notes = whole(put(tmp_path, "a.txt", encoded), encoding=named)
    assert text == SPANISH
    assert (notes.encoding, notes.found) == (encoding, found)
    assert notes.language == ("Spanish" if found == "detected" and "16" not in encoding else "")
    assert notes.bytes_read == len(encoded)
    assert notes.text_bytes == len(SPANISH.encode())
    assert notes.open_bytes == 0


@pytest.mark.parametrize(
    ("text", "encoding", "language"),
    [
        ("Déjà vu, où êtes-vous ? L’été — «ça» brûle, là-bas. ", "cp1252", "French"),
        ("Übergrößen für Äpfel und Öl, heiß und schön. ", "cp1252", "German"),
        ("Não há coração sem razão, é verdade; às três irmãs. ", "cp1252", "Portuguese"),
        ("På lørdag spiser vi blåbær og kål. Smörgås är gött. ", "cp1252", "Scandinavian"),
    ],
)
def test_western_languages_are_told_by_their_accents(
    tmp_path: Path, text: str, encoding: str, language: str
) -> None:
    read, notes = whole(put(tmp_path, "a.txt", (text * 9).encode(encoding)))
    assert read == text * 9
    assert (notes.found, notes.language) == ("detected", language)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Příliš žluťoučký kůň úpěl ďábelské ódy. ", "cp1250"),
        ("Zażółć gęślą jaźń. ", "cp1250"),
        ("Şu köyde ağaç dalı kırıldı, çiğ düştü. ", "cp1254"),
        ("Съешь ещё этих мягких булок. ", "cp1251"),
        ("Съешь ещё этих мягких булок. ", "koi8-r"),
        ("Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ", "cp1253"),
        ("日本語の文章です。", "shift-jis"),
        ("中文的文章在这里。", "gb18030"),
    ],
)
def test_other_encodings_are_never_taken_for_latin(
    tmp_path: Path, text: str, encoding: str
) -> None:
    with pytest.raises(InputError, match=r"a\.txt:1: not UTF-8: byte 0x.* at offset \d"):
        whole(put(tmp_path, "a.txt", (text * 20).encode(encoding)))


def test_a_few_bytes_are_no_clear_evidence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt:2: .*0xF1 at offset 7 .*: --encoding wind"):
        whole(put(tmp_path, "a.txt", b"hola\nni\xf1o\n"))


def test_mixed_encodings_are_an_error_or_left_out(tmp_path: Path) -> None:
    good = SPANISH.splitlines(keepends=True)[0]
    content = good.encode() * 40 + good.encode("latin-1") + good.encode() * 2
    path = put(tmp_path, "a.txt", content)
    at = 40 * len(good.encode()) + good.index("ñ")
    with pytest.raises(
        InputError, match=rf"a\.txt:41: not UTF-8: byte 0xF1 at offset {at} .*mixes"
    ):
        whole(path)
    bad: list[BadRecord] = []
    notes = ReadNotes()
    text = "".join(read_text(path, DataConfig(), notes, bad.append))
    assert text == good * 40 + "\n" + good * 2
    assert [(item.line, item.size) for item in bad] == [(41, len(good) - 1)]
    assert bad[0].reason == f"not utf-8: byte 0xF1 at character {good.index('ñ') + 1}"
    assert (notes.bad_records, notes.bad_bytes, notes.open_bytes) == (1, len(good) - 1, 0)
    # The other way round: UTF-8 in a Latin-1 text.
    path = put(tmp_path, "b.txt", good.encode("latin-1") * 9 + good.encode() * 9)
    with pytest.raises(InputError, match=r"b\.txt:1: not UTF-8"):
        whole(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_broken_utf16_names_the_line(tmp_path: Path, encoding: str) -> None:
    broken = "\ufeffuno\ndos".encode(encoding) + "\ud800".encode(encoding, "surrogatepass")
    path = put(tmp_path, "a.txt", broken + "\ntres".encode(encoding) + b"x")
    with pytest.raises(InputError, match=r"a\.txt:2: not UTF-16-.E: byte 0x.. at offset 16"):
        whole(path, encoding="utf-16")
    bad: list[BadRecord] = []
    notes = ReadNotes()
    text = "".join(read_text(path, DataConfig(), notes, bad.append))
    assert (text, [item.line for item in bad]) == ("uno\n\n", [2, 3])
    assert notes.open_bytes == 0


def test_a_named_encoding_is_held_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="begins with the byte-order mark of utf-16-le, but enco"):
        whole(put(tmp_path, "a.txt", "hola".encode("utf-16")), encoding="latin-1")
    with pytest.raises(InputError, match=r"b\.txt:1: not WINDOWS-1252: byte 0x81 at offset 2"):
        whole(put(tmp_path, "b.txt", b"ab\x81"), encoding="windows-1252")
    with pytest.raises(InputError, match=r"c\.txt:1: not UTF-8: byte 0xF1"):
        whole(put(tmp_path, "c.txt", SPANISH.encode("latin-1")), encoding="utf-8")


PACK = {
    ".gz": gzip.compress,
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files_one_stream_or_two(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "BLOCK_BYTES", 61)
    packed = PACK[suffix](SPANISH.encode()) + PACK[suffix](b"fin")
    text, notes = whole(put(tmp_path, f"a.txt{suffix}", packed))
    assert text == SPANISH + "fin"
    assert (notes.compressed_bytes, notes.bytes_read) == (len(packed), len(SPANISH.encode()) + 3)
    assert notes.open_bytes == 0


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("fault", ["cut", "changed", "empty of sense"])
def test_damaged_compression_is_named(tmp_path: Path, suffix: str, fault: str) -> None:
    text = "\n".join(str(n * 7919 % 10007) for n in range(30_000))
    packed = bytearray(PACK[suffix](text.encode()))
    if fault == "cut":
        del packed[-200:]
    elif fault == "changed":
        packed[len(packed) // 2 : len(packed) // 2 + 64] = bytes(64)
    else:
        packed[:] = b"no such data at all"
    path = put(tmp_path, f"a.txt{suffix}", bytes(packed))
    with pytest.raises(InputError, match=rf"a\.txt\{suffix}:\d+: damaged \{suffix} data"):
        whole(path)


def test_damage_behind_latin1_text_is_named_too(tmp_path: Path) -> None:
    packed = gzip.compress((SPANISH * 2000).encode("latin-1"))[:-9]
    with pytest.raises(InputError, match=r"a\.txt\.gz:\d+: damaged \.gz data"):
        whole(put(tmp_path, "a.txt.gz", packed))


@pytest.mark.parametrize("suffix", PACK)
def test_a_decompression_bomb_stays_small_in_memory(tmp_path: Path, suffix: str) -> None:
    pieces = 48  # of 1 MB of one letter with line ends
    packed = PACK[suffix]((b"a" * 1023 + b"\n") * 1024 * pieces)
    path = put(tmp_path, f"a.txt{suffix}", packed)
    del packed
    tracemalloc.start()
    size = sum(map(len, read_text(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == pieces << 20
    assert peak < 32 << 20, peak


def test_the_package_for_zst_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a.txt.zst", b"")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingPackageError, match='pip install "zstandard'):
        whole(path)


def test_line_ends_are_kept_or_made_lf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "uno\r\ndos\rtres\n\r\n"
    path = put(tmp_path, "a.txt", content.encode())
    for block in range(1, 9):
        monkeypatch.setattr(encodings, "BLOCK_BYTES", block)
        text, notes = whole(path)
        assert (text, notes.crlf, notes.cr, notes.has_crlf) == (content, 0, 0, True)
        text, notes = whole(path, newlines="lf")
        assert (text, notes.crlf, notes.cr) == ("uno\ndos\ntres\n\n", 2, 1)
        assert notes.text_bytes - notes.crlf == len(text.encode())


COMPOSING = (
    "e\u0301\u0323a\u0308\u1100\u1161\u11a8\u0344\u2126\u0958가\u0915\u093cÅA\u030a日🙂 \n\r\u0300"
)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet=COMPOSING, max_size=40),
    block=st.integers(1, 12),
    newlines=st.sampled_from(["keep", "lf"]),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-8-sig"]),
)
def test_streamed_nfc_is_the_nfc_of_the_whole_and_bytes_are_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    block: int,
    newlines: str,
    encoding: str,
) -> None:
    if encoding == "utf-16-le":
        raw = b"\xff\xfe" + text.encode(encoding)
        if raw[2:4] == b"\0\0":
            return
    else:
        raw = text.encode(encoding)
    path = put(tmp_path_factory.mktemp("n"), "a.txt", raw)
    expected = text
    if newlines == "lf":
        expected = text.replace("\r\n", "\n").replace("\r", "\n")
    was_nfc = unicodedata.is_normalized("NFC", expected)
    expected = unicodedata.normalize("NFC", expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "BLOCK_BYTES", block)
        found, notes = whole(path, newlines=newlines)
        plain, untouched = whole(path, normalise="none")
    assert found == expected
    assert notes.open_bytes == 0
    assert notes.text_bytes == len(text.encode())
    assert notes.text_bytes - notes.crlf - notes.normalised_bytes == len(expected.encode())
    assert (notes.normalised_characters == 0) == was_nfc
    assert plain == text
    assert untouched.normalised_characters == 0


def test_changed_characters_are_counted_exactly(tmp_path: Path) -> None:
    text = "así asi\u0301 canción cancio\u0301n \u212b"
    found, notes = whole(put(tmp_path, "a.txt", text.encode()))
    assert found == "así así canción canción Å"
    # Two pairs of letter and accent, and the Ångström sign; 1 byte less, 1 less, 1 less.
    assert (notes.normalised_characters, notes.normalised_bytes) == (5, 3)


def test_cuts_are_safe_by_unicodes_own_tables() -> None:
    seconds = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(int(parts[1], 16))
    safe = [code for code in range(0x110000) if SAFE.match(chr(code))]
    assert len(safe) > 40_000
    wrong = [
        hex(code)
        for code in safe
        if unicodedata.combining(chr(code))
        or code in seconds
        or not unicodedata.is_normalized("NFC", chr(code))
    ]
    assert wrong == []


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=COMPOSING + "ñ—", max_size=12) | st.text(max_size=12))
def test_plain_text_is_nfc(text: str) -> None:
    long = text * (1 + (1 << 14) // max(1, len(text)))
    assert not is_plain(long) or unicodedata.is_normalized("NFC", long)
    if is_plain(text):
        assert unicodedata.is_normalized("NFC", text)


def test_a_stretch_of_nothing_but_accents_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings, "HELD_CHARACTERS", 100)
    monkeypatch.setattr(encodings, "BLOCK_BYTES", 64)
    path = put(tmp_path, "a.txt", ("a\nb" + "\u0301" * 300).encode())
    with pytest.raises(InputError, match=r'a\.txt:2: .* set normalise = "none"'):
        whole(path)


# -- the three Quijotes: what differs between them, in numbers ------------------------------------


def test_the_latin1_quijote_is_the_clean_one_from_its_first_chapter_on() -> None:
    clean, _ = whole(shared("corpora/don_quijote_utf8_lf.txt"))
    latin, notes = whole(shared("messy/quijote_latin1.txt"))
    assert (notes.encoding, notes.found, notes.language) == ("latin-1", "detected", "Spanish")
    assert len(latin) == notes.bytes_read == 2_071_088
    begin = clean.index("En un lugar de la Mancha")
    assert begin == 26_857  # preliminaries and verses that the other edition leaves out
    assert clean[begin:].split()[:-1] == latin.split()
    assert clean.split()[-1] == "Fin"
    assert len(latin.split()) == 376_482


def test_the_bom_crlf_quijote_is_the_clean_one_but_for_dashes_indents_and_a_sonnet() -> None:
    clean, _ = whole(shared("corpora/don_quijote_utf8_lf.txt"))
    other, notes = whole(shared("messy/quijote_pg2000_bom_crlf.txt"), newlines="lf")
    assert (notes.encoding, notes.found, notes.bom_bytes) == ("utf-8", "bom", 3)
    assert (notes.crlf, notes.cr, notes.normalised_characters) == (38_054, 0, 0)
    assert "\r" not in other
    begin, end = other.index("TASA"), other.index("*** END OF THE PROJECT GUTENBERG")
    body = other[begin:end]
    words = [re.findall(r"\w+", text) for text in (clean[clean.index("TASA") :], body)]
    # The clean edition leaves out one sonnet, "Sancho Panza es aqueste, en cuerpo chico".
    assert (len(words[0]), len(words[1])) == (381_218, 381_314)
    sonnet = words[1][185_604:185_700]
    assert (sonnet[:2], sonnet[-2:]) == (["Sancho", "Panza"], ["en", "sueño"])
    assert words[0] == words[1][:185_604] + words[1][185_700:]
