"""SOURCES → FILES, DOCUMENTS, RECORDS: finds what the sources name and reads it as a stream.

A source is a file, a folder (recursively), a glob, or a Hub data set (`hf:NAME[:SPLIT]`). Text
comes as documents, with the line of each; tables and JSON as records. Nothing here holds more
than one block of a file in memory.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from yunque.config import DataConfig, raise_faults
from yunque.data.encodings import (
    COMPRESSIONS,
    DEFAULT,
    OnBad,
    ReadNotes,
    head_fault,
    read_text,
)
from yunque.data.reader import Reader, Record, text_size
from yunque.data.records import read_records, record_kind
from yunque.errors import InputError, MissingPackageError, YunqueError
from yunque.files import path_of, storage_error
from yunque.hub import HUB, hub_id

TEXT_SUFFIXES = (".txt", ".md")
RECORD_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
SUFFIXES = TEXT_SUFFIXES + RECORD_SUFFIXES
ACCEPTED = f"{', '.join(SUFFIXES)}, plain or {', '.join(COMPRESSIONS)}"
# What stands in a folder beside the data and is not meant as text to learn.
ABOUT = re.compile(r"(readme|license|licence|changelog|notice)\b.*", re.IGNORECASE)

# What a preparation writes that would be read as records, were a folder prepared into itself.
OWN_RECORDS = ("data.json", "tokenizer.json", "tokenizer_config.json")

ENDINGS = 6  # named in a message

Kind = Literal["text", "records"]


@dataclass(frozen=True)
class Source:
    """A file, or a Hub data set (then `path` is None); `name` is what messages call it."""

    name: str
    kind: Kind
    path: Path | None = None


@dataclass(frozen=True)
class HubData:
    """A data set on the Hub: `hf:NAME`, `hf:NAME:SPLIT` or `hf:NAME:CONFIGURATION:SPLIT`."""

    name: str
    configuration: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return ":".join(filter(None, ["hf", self.name, self.configuration, self.split]))


@dataclass(frozen=True)
class Part:
    """A stretch of one document; a document comes in one part or, where it is long, in several.

    `line` is where the document begins. `blank`: the document is nothing but white space (such a
    document always comes in one part).
    """

    text: str
    line: int
    first: bool
    last: bool
    blank: bool = False


def find_sources(sources: Sequence[str], encoding: str = "auto") -> list[Source]:
    """What the sources name, in the order given; folders recursively, globs and folders sorted.

    A file reached twice (by name and through its folder) is listed once. In folders and globs,
    files of other suffixes are left alone; in folders also hidden files, README, LICENSE and the
    like, and the runs and preparations that Yunque wrote there. `owner/name` that is no path is a
    data set on the Hub.

    Args:
        encoding: as in [data]; decides whether zero bytes may be text.

    Raises:
        InputError: no sources; a source is missing, has an unknown suffix, is binary or no
            regular file; a folder or glob without files to read. All faults together.
        StorageError: a file cannot be read.
        MissingPackageError: the package for .zst is absent.
    """
    if not sources:
        raise InputError(f"no sources given: name files or folders ({ACCEPTED}).")
    found: dict[object, Source] = {}
    faults: list[str] = []
    for source in sources:
        try:
            path = path_of(source)
            hub = hub_data(source)
            if hub:
                found.setdefault(hub, Source(str(hub), "records"))
                continue
            fault, paths = files_of(source, path)
            if fault:
                faults.append(fault)
            for item in paths:
                kind = kind_of(item)
                assert kind, item
                packed_columns = record_kind(item) == ".parquet"
                fault = head_fault(item, encoding, packed_columns)
                if fault:
                    faults.append(fault)
                found.setdefault(item.resolve(), Source(str(item), kind, item))
        except YunqueError:
            raise
        except OSError as error:
            raise storage_error(error, path, "read") from None
    raise_faults(faults)
    return list(found.values())


def left_aside(sources: Sequence[str]) -> dict[str, int]:
    """Ending → files of folders and globs that are no data of ours, the most frequent first.

    A file whose name says that it is about the data, as README.md, goes by its name.
    """
    found: set[Path] = set()
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir() or (not path.exists() and glob.has_magic(source)):
            found |= {item.resolve() for item in candidates(source, path) if not is_data(item)}
    read = {item.resolve() for item in map(Path, sources) if item.is_file()}
    return endings(found - read)


def endings(files: Iterable[Path]) -> dict[str, int]:
    """Ending → how many, the most frequent first; the name of what would be read but for it."""
    names = Counter(
        item.name if kind_of(item) else item.suffix.lower() or item.name for item in files
    )
    return dict(sorted(names.items(), key=lambda row: (-row[1], row[0])))


def files_of(source: str, path: Path) -> tuple[str, list[Path]]:
    """(fault or "", the files) of one source that is no Hub data set."""
    if path.is_dir():
        found = candidates(source, path)
        inside = [item for item in found if is_data(item)]
        held = ", ".join(f"{name} ({n})" for name, n in list(endings(found).items())[:ENDINGS])
        holds = f"; it holds {held}" if held else ""
        fault = f"{source}: no files to read in this folder (accepted: {ACCEPTED}){holds}."
        return ("" if inside else fault), inside
    if path.is_file():
        if kind_of(path):
            return "", [path]
        shown = "".join(path.suffixes[-2:]) or "(no suffix)"
        return (
            f"{source}: unknown kind of file {shown!r}; accepted: {ACCEPTED}. Plain text under "
            "another name: rename it to .txt.",
            [],
        )
    if path.exists():
        return f"{source}: neither a regular file nor a folder.", []
    if glob.has_magic(source):
        files = [item for item in candidates(source, path) if kind_of(item)]
        fault = f"{source}: this pattern matches no file to read (accepted: {ACCEPTED})."
        return ("" if files else fault), files
    return f"{source}: no such file or folder.", []


def candidates(source: str, path: Path) -> list[Path]:
    """Every file that a folder or a glob offers, sorted: in folders nothing hidden or made here."""
    if not path.is_dir():
        matched = sorted(map(Path, glob.glob(str(path), recursive=True)))
        return [item for item in matched if item.is_file()]
    found = list(path.rglob("*"))
    made = {item for item in found if item.is_dir() and is_made(item)}
    ours = {path / name for name in OWN_RECORDS} if is_made(path) else set()
    return sorted(
        item
        for item in found
        if item not in ours
        and not any(part.startswith(".") for part in item.relative_to(path).parts)
        and made.isdisjoint(item.parents)
        and item.is_file()
    )


def is_data(path: Path) -> bool:
    """Whether a file in a folder is meant as data."""
    return not ABOUT.fullmatch(path.name) and bool(kind_of(path))


def is_made(folder: Path) -> bool:
    """Whether a folder is a run or a preparation: what Yunque writes is not what it reads."""
    return any(
        all((folder / name).is_file() for name in names)
        for names in (("recipe.toml", "log.jsonl"), ("data.json", "tokenizer.json"))
    )


def kind_of(path: Path) -> Kind | None:
    """Whether a file holds text or records, by its suffix; None for a kind that is not read."""
    suffix = record_kind(path)
    if suffix in TEXT_SUFFIXES:
        return "text"
    return "records" if suffix in RECORD_SUFFIXES else None


def hub_data(source: str) -> HubData | None:
    """The Hub data set that a source names, or None.

    Raises:
        InputError: `hf:` with no name or too many parts.
    """
    if source.startswith(HUB):
        name, *rest = source.removeprefix(HUB).split(":")
        if not name or len(rest) > 2 or not all(rest):
            raise InputError(
                f"{source}: expected hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIGURATION:SPLIT."
            )
        configuration = rest[0] if len(rest) == 2 else None
        return HubData(name, configuration, rest[-1] if rest else "train")
    named = None if kind_of(Path(source)) else hub_id(source)
    return HubData(named.name) if named and not named.revision else None


def records_of(
    source: Source,
    config: DataConfig = DEFAULT,
    notes: ReadNotes | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[Record]:
    """The records of a file or Hub data set of the kind "records".

    Raises:
        As `read_records`; InputError where the Hub does not answer or does not know the name.
    """
    if source.path is not None:
        return read_records(source.path, config, notes, on_bad)
    hub = hub_data(source.name)
    assert hub is not None, source
    return read_hub(hub, config, notes, on_bad)


@lru_cache(maxsize=64)
def hub_revision(hub: HubData) -> str:
    """The commit that the data set is at: what stands for its content in a fingerprint.

    Asked for once, so that every pass of this process reads the rows that the fingerprint is of.

    Raises:
        InputError: no connection, or no such data set.
    """
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(hub.name).sha)
    except Exception as error:  # as in read_hub
        raise InputError(hub_fault(hub, error, "")) from None


def hub_fault(hub: HubData, error: Exception, where: str) -> str:
    """The message for anything that the libraries of the Hub raise."""
    reason = str(error).strip().split("\n")[0][:300]
    return (
        f"{hub}: {where}the data set cannot be read from the Hub: {type(error).__name__}: {reason} "
        "Check the name and the connection, or download its files and name those. If a file or "
        "folder was meant: there is none of this name."
    )


def read_hub(
    hub: HubData,
    config: DataConfig = DEFAULT,
    notes: ReadNotes | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[Record]:
    """The rows of a data set on the Hub, streamed: nothing is kept on disk but small caches.

    Raises:
        InputError: no connection, no such data set, configuration or split, a bad row.
        MissingPackageError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingPackageError(
            f'{hub}: Hub data needs the package datasets: pip install "yunque[hub]". If a file or '
            "folder was meant: there is none of this name."
        ) from None
    notes = notes if notes is not None else ReadNotes()
    notes.layout = "hub"
    reader = Reader(str(hub), config, notes, on_bad)
    row = 0
    try:
        rows = datasets.load_dataset(
            hub.name,
            hub.configuration,
            split=hub.split,
            revision=hub_revision(hub),
            streaming=True,
        )
        for fields in rows:
            row += 1
            size = text_size(fields)
            notes.bytes_read += size
            notes.text_bytes += size
            record = reader.record(fields, "", row, size)
            if record:
                yield record
    except YunqueError:
        raise
    except Exception as error:  # the library raises what its many layers raise
        where = f"row {row + 1}: " if row else ""
        raise InputError(hub_fault(hub, error, where)) from None


def read_stretches(
    path: Path,
    separator: str,
    config: DataConfig = DEFAULT,
    notes: ReadNotes | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[tuple[str, bool]]:
    """(text, whether the document ends behind it): the file cut at every separator."""
    held = ""  # may be the beginning of a separator that ends in the next block
    for block in read_text(path, config, notes, on_bad):
        text = held + block if held else block
        if separator in text:
            *done, text = text.split(separator)
            for document in done:
                yield document, True
        begin = text.find(separator[0], max(0, len(text) - len(separator) + 1))
        sure = begin if begin >= 0 and len(separator) > 1 else len(text)
        held = text[sure:]
        if sure:
            yield text[:sure], False
    yield held, True


def read_parts(
    path: Path,
    separator: str,
    config: DataConfig = DEFAULT,
    notes: ReadNotes | None = None,
    on_bad: OnBad | None = None,
) -> Iterator[Part]:
    """The documents of a file as a stream of parts; the separators themselves are not in them.

    Args and Raises: as `read_text`.
    """
    line = begin = 1
    lead = ""  # white space at the start of a document, held back until we know it is not blank
    inside = False
    breaks = separator.count("\n")
    for text, last in read_stretches(path, separator, config, notes, on_bad):
        if inside:
            yield Part(text, begin, first=False, last=last)
        else:
            lead += text
            if text and not text.isspace():
                yield Part(lead, begin, first=True, last=last)
                lead, inside = "", True
            elif last:
                yield Part(lead, begin, first=True, last=True, blank=True)
                lead = ""
        line += text.count("\n")
        if last:
            line += breaks
            begin, inside = line, False
