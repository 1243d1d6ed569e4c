"""SOURCES → TOKEN FILES: count, split, tokenize, write; and the ledger of every byte and token.

The sources are read two or three times (count; train the tokenizer; encode), always as a stream,
so memory does not grow with them: 33 bytes a document are kept, nothing else.

    OUT/ train.bin val.bin test.bin        token ids, uint16 or uint32, little-endian
         train.mask.bin …                  where a loss mask is: a byte a token, 1 = carries loss
         train.documents.bin …             where documents are kept apart: uint64, the end of each
         train.origins.bin                 file and line of every block: see `origins`
         tokenizer.json tokenizer_config.json
         data.json                         facts, ledger and fingerprint; written first as
                                           "building" and last as "complete"
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from yunque.config import DataConfig
from yunque.data.alignment import Rendered
from yunque.data.batches import TokenFile, open_split
from yunque.data.blocks import Block, Stretch, cut_blocks
from yunque.data.chat_template import CHAT_TOKENS
from yunque.data.documents import LINE_BITS, Corpus, line_and_record
from yunque.data.duplicates import DocumentKeys, LineOverlap
from yunque.data.languages import LanguageSurvey
from yunque.data.ledger import Account
from yunque.data.ngrams import of_splits
from yunque.data.origins import Origins, origin_bytes
from yunque.data.rendered import Encoded, Mask, encode_all, encode_rendered
from yunque.data.sources import is_data
from yunque.data.split import (
    DUPLICATE,
    SPLITS,
    document_codes,
    split_documents,
    split_text,
    text_bounds,
)
from yunque.data.tokenizer import (
    Ids,
    Tokenizer,
    add_tokens,
    load_tokenizer,
    loaded_tokenizer,
    parse_spec,
    tokenizer_for,
)
from yunque.errors import InputError, StorageError, placed
from yunque.files import (
    read_json,
    remove_file,
    remove_stages,
    run_lock,
    staged_file,
    write_json,
)
from yunque.words import both

KIND = "yunque tokens"
FORMAT = 2
PARTS_OF_A_SPLIT = (".bin", ".mask.bin", ".documents.bin", ".origins.bin")
OWN_NAMES = (
    *(f"{name}{part}" for name in SPLITS for part in PARTS_OF_A_SPLIT),
    "tokenizer.json",
    "tokenizer_config.json",
    "ledger.html",
)
MIN_DOCUMENTS = 20  # from here on, "auto" holds out whole documents
TRAINING_CHARACTERS = 50_000_000  # merges learnt from more text hardly differ; memory is bounded
TEXTS_AT_ONCE = 1000  # conversations
GROUP = 16  # blocks that are tokenized at once, for every thread
GROUP_CHARACTERS = 1 << 21  # at most so much text at once, for every thread
COPY_VERSIONS = 2  # texts that differ in their digits only; from three on they are a form
LONG_RECORD = 1_000_000  # characters; hardly meant as one document
EXAMPLES = 3  # records that are shown token by token, of each kind
EXAMPLE_TOKENS = 300

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Prepared:
    """Token files ready for training; `facts` tells how they came about.

    Facts: files, bytes, documents, conversations, blank_documents, blank_characters,
    separators_read, separator_length, characters, split_by, splits (per split: documents,
    characters, bytes, tokens, separators, unknown_tokens, masked), tokens (per split),
    bytes_per_token, vocab_size, vocab_size_asked, tokenizer, tokenizer_kind,
    tokenizer_trained_on_characters, unknown_tokens, forced_cuts, seconds, megabytes_per_second,
    reused, rebuilt_because, ledger (documents and bytes: what was read and where it went),
    sources (the same for each file), left_aside (ending → files of folders that are not read),
    doubts (what `checks` makes warnings of), examples, ngrams (what `ngrams.of_splits` says).

    characters = those of the splits + blank_characters + separators_read * separator_length
    (+ those of dropped duplicates). Tokens of a split include its separators:
    the end tokens behind documents, and the begin tokens before them where the tokenizer has one.
    """

    folder: Path
    tokenizer: Tokenizer
    splits: dict[str, TokenFile]
    facts: dict[str, Any]

    def place(self, start: int, count: int) -> str:
        """Where a stretch of the training tokens stands: tokens, document, file and line."""
        tokens = self.splits["train"]
        text, source = tokens.place(start, count), self.source(start, count)
        return f"{text} ({source})" if source else text

    def source(self, start: int, count: int) -> str:
        """File and line of a stretch of the training tokens, at its beginning and where it ends.

        Empty where they are not known: made conversations have no file.
        """
        if self._origins is None:
            return ""
        length = self.splits["train"].length
        ends = (start % length, (start + count - 1) % length)
        first, last = map(self._origins.line, ends)
        return first if first == last else f"{first} – {last}"

    @cached_property
    def _origins(self) -> Origins | None:
        """Read once, when the first place is asked for; None where places are not known."""
        path = self.folder / "train.origins.bin"
        if not path.exists() or not self.facts["sources"]:
            return None
        return Origins(path, self.facts["sources"], self.splits["train"], self.tokenizer)


@dataclass
class Survey:
    """What the first reading of the sources counts."""

    documents: int = 0
    conversations: int = 0
    blank_documents: int = 0
    blank_characters: int = 0
    blank_bytes: int = 0
    separators: int = 0
    characters: int = 0  # of the documents that are not blank
    bytes: int = 0  # the same as UTF-8
    exact: array[int] = field(default_factory=lambda: array("Q"))
    near: array[int] = field(default_factory=lambda: array("Q"))
    form: array[int] = field(default_factory=lambda: array("Q"))
    about_numbers: array[int] = field(default_factory=lambda: array("B"))
    places: array[int] = field(default_factory=lambda: array("Q"))  # source << 40 | line
    languages: dict[int, LanguageSurvey] = field(default_factory=dict)
    documents_by_source: dict[int, int] = field(default_factory=dict)
    bytes_by_source: dict[int, int] = field(default_factory=dict)  # with blanks and separators
    long_records: array[int] = field(default_factory=lambda: array("Q"))


def prepare(
    sources: Sequence[str],
    config: DataConfig,
    out: Path,
    progress: Progress | None = None,
    tokenizer: Tokenizer | None = None,
) -> Prepared:
    """Turn sources into token files under `out`, or reuse those that are already right.

    Args:
        progress: called with a key of `yunque.words` ("data.counting", "data.training_tokenizer",
            "data.encoding") and the fraction done.
        tokenizer: used as it is; None: the one that `config.tokenizer` says.

    Raises:
        InputError: sources, tokenizer or split cannot be used; `out` holds files of something
            else under our names.
        StorageError: reading or writing failed.
    """
    tell = progress or (lambda what, fraction: None)
    loaded = tokenizer or loaded_with(config)
    corpus = Corpus(sources, config, loaded)
    return reuse_or_build(
        out,
        lambda: describe(corpus, config, loaded),
        lambda: build(corpus, config, loaded, out, tell),
    )


def prepare_conversations(
    splits: Callable[[], Mapping[str, Sequence[Rendered]]],
    name: str,
    config: DataConfig,
    out: Path,
    template: str,
    progress: Progress | None = None,
    own: Tokenizer | None = None,
) -> Prepared:
    """Token files of rendered conversations whose split is made beforehand.

    Args:
        splits: makes split ("train", "val") → its conversations; called only where needed.
        name: what they are made from; the same name stands for the same conversations.
        template: the chat template that rendered them, saved with the tokenizer.
        own: used as it is; None: the tokenizer that `config.tokenizer` says, with chat tokens.

    Raises:
        InputError, StorageError: as `prepare`.
    """
    tell = progress or (lambda what, fraction: None)
    loaded = own or loaded_with(config)

    def build_them() -> tuple[Tokenizer, dict[str, Any]]:
        made = splits()

        def texts() -> Iterator[str]:
            # With a control token between them, many at a time are the same stretches.
            rows = made["train"]
            for first in range(0, len(rows), TEXTS_AT_ONCE):
                part = (row.text for row in rows[first : first + TEXTS_AT_ONCE])
                yield from between(config.separator.join(part), (config.separator, *CHAT_TOKENS))

        end = config.separator if loaded is None else loaded.separator
        controls = (*CHAT_TOKENS, *config.add_tokens)
        tokenizer = own or tokenizer_for(config.tokenizer, loaded, texts, end, controls, template)
        total = sum(len(conversation.text) for part in made.values() for conversation in part)
        stream = (
            Stretch(split, conversation.text, True, 0, number, conversation)
            for split, part in made.items()
            for number, conversation in enumerate(part, 1)
        )
        written = write_tokens(
            stream,
            tokenizer,
            Layout(separate=False, apart=True, mask=config.loss != "all"),
            out,
            lambda done: tell("data.encoding", done / total),
            lambda block: f"{name}:{block.line}",
            config.add_tokens,
        )
        sums = total_of(written["splits"].values())
        documents = Account("documents", sum(map(len, made.values())))
        for split, item in written["splits"].items():
            documents.add(split, item["documents"])
        facts = {
            "files": 0,
            "bytes": sums["bytes"],
            "documents": documents.read,
            "conversations": documents.read,
            "characters": total,
            "split_by": "documents",
            "tokenizer": config.tokenizer,
            "add_tokens": list(config.add_tokens),
            "ledger": closed([documents, tokens_written(written)], name),
            "sources": [],
            "left_aside": {},
            **written,
        }
        del facts["by_source"], facts["divided"]
        return tokenizer, facts

    def describe_them() -> dict[str, Any]:
        key = json.dumps([name, template]).encode("utf-8")
        digest = hashlib.sha256(key).hexdigest()
        settings = {
            "tokenizer": tokenizer_identity(config, loaded),
            "separator": config.separator,
            "loss": config.loss,
        }
        return request_of(settings, [{"name": name, "bytes": 0, "sha256": digest}])

    return reuse_or_build(out, describe_them, build_them)


def reuse_or_build(
    out: Path,
    describe: Callable[[], dict[str, Any]],
    build: Callable[[], tuple[Tokenizer, dict[str, Any]]],
) -> Prepared:
    """What `out` holds where it is what `describe` asks for, else what `build` writes there.

    Raises:
        InputError: `out` holds files of something else under our names.
        StorageError: reading or writing failed.
    """
    began = time.monotonic()
    with run_lock(out):
        request = describe()
        reason = rebuild_reason(out, request)
        if reason is None:
            found = open_prepared(out)
            found.facts["reused"] = True
            return found
        remove_stages(out)
        tokenizer, facts = build()
        tokens = token_files(out, facts)
        facts["ngrams"] = of_splits(tokens, facts["vocab_size"])
        seconds = time.monotonic() - began
        facts["seconds"] = seconds
        facts["megabytes_per_second"] = facts["bytes"] / 1e6 / seconds
        facts["fingerprint"] = request["fingerprint"]
        record = {"kind": KIND, "format": FORMAT, "state": "complete", **request, "facts": facts}
        write_json(out / "data.json", record)
        facts["rebuilt_because"] = reason or None
        return Prepared(out, tokenizer, tokens, facts)


def describe(corpus: Corpus, config: DataConfig, loaded: Tokenizer | None) -> dict[str, Any]:
    """What the result depends on: the content of the sources, the settings, the format."""
    names = "separator val test split_by encoding newlines normalise header skip_bad columns"
    names += " loss duplicates"
    settings = {
        "tokenizer": tokenizer_identity(config, loaded),
        **{name: getattr(config, name) for name in names.split()},
    }
    return request_of(settings, corpus.content())


def request_of(settings: dict[str, Any], content: list[dict[str, Any]]) -> dict[str, Any]:
    """Settings and sources (name, bytes, sha256) with the one fingerprint of both."""
    key = json.dumps([FORMAT, settings, [item["sha256"] for item in content]])
    fingerprint = hashlib.sha256(key.encode("utf-8")).hexdigest()
    return {"settings": settings, "sources": content, "fingerprint": fingerprint}


def loaded_with(config: DataConfig) -> Tokenizer | None:
    """The tokenizer that a setting names, with the tokens to be added; None: one is to be trained.

    Raises:
        InputError: as `loaded_tokenizer` and `add_tokens`.
    """
    loaded = loaded_tokenizer(config.tokenizer)
    return add_tokens(loaded, config.add_tokens) if loaded and config.add_tokens else loaded


def tokenizer_identity(config: DataConfig, loaded: Tokenizer | None) -> str:
    """What the tokens depend on: spec and added tokens, or what is in the files of a path."""
    if loaded is not None:
        # What counts is the tokenizer, not where it lies.
        roles = [loaded.chat_template, loaded.separator, sorted(loaded.named_tokens.items())]
        around = json.dumps([*roles, loaded.pad_is_end, *loaded.begin_ids]).encode("utf-8")
        return f"sha256:{loaded.fingerprint}:{hashlib.sha256(around).hexdigest()[:16]}"
    return " + ".join([config.tokenizer, *config.add_tokens])


def rebuild_reason(out: Path, request: dict[str, Any]) -> dict[str, str] | None:
    """Why `out` must be built anew, in both languages: {} for a fresh folder, None for no need.

    Raises:
        InputError: files of ours by name that this program did not write.
    """
    if not (out / "data.json").exists():
        strangers = [name for name in OWN_NAMES if (out / name).exists()]
        if strangers:
            raise InputError(
                f"{out}: holds {', '.join(strangers)} that yunque prepare did not write, and would "
                "overwrite them. Choose another --out."
            )
        texts = sorted(item.name for item in out.glob("*") if item.is_file() and is_data(item))
        if texts:
            raise InputError(
                f"{out}: holds texts or records ({', '.join(texts[:3])}), among which token files "
                f"have no place. Choose a folder of their own, as --out {out / 'tokens'}."
            )
        return {}
    old = read_json(out / "data.json")
    if not isinstance(old, dict) or old.get("kind") != KIND:
        raise InputError(
            f"{out / 'data.json'}: not written by yunque prepare, which would overwrite it. "
            "Choose another --out."
        )
    if old.get("state") != "complete":
        return both("data.rebuilt_interrupted")
    if old.get("format") != FORMAT:
        return both("data.rebuilt_format", old=old.get("format"), new=FORMAT)
    kinds = {"settings": dict, "sources": list, "fingerprint": str}
    whole = all(isinstance(old.get(name), kind) for name, kind in kinds.items())
    if not whole or not all("sha256" in item for item in old["sources"]) or not is_prepared(out):
        return both("data.rebuilt_damaged")
    for name, new in request["settings"].items():
        # Made conversations have fewer settings than files: where one follows the other, the
        # sources below differ.
        before = old["settings"].get(name, new)
        if before != new:
            return both("data.rebuilt_setting", name=name, old=before, new=new)
    if old["fingerprint"] != request["fingerprint"]:
        known = {item["sha256"] for item in old["sources"]}
        changed = [item["name"] for item in request["sources"] if item["sha256"] not in known]
        if changed:
            return both("data.rebuilt_sources", names=", ".join(changed[:3]), count=len(changed))
        return both("data.rebuilt_source_list", old=len(known), new=len(request["sources"]))
    return None


def build(
    corpus: Corpus, config: DataConfig, loaded: Tokenizer | None, out: Path, tell: Progress
) -> tuple[Tokenizer, dict[str, Any]]:
    """Write the token files and the tokenizer; return the tokenizer and the facts."""
    whole_documents = config.split_by != "text"
    survey = count(corpus, whole_documents, lambda done: tell("data.counting", done))
    bad = corpus.bad_records()
    if not survey.characters and bad["count"]:
        raise InputError(
            f"{', '.join(corpus.names[:3])}: no text is left: {bad['count']} bad records left "
            f"out, the first: {bad['examples'][0]}"
        )
    if not survey.characters:
        raise InputError(
            f"{', '.join(corpus.names[:3])}: empty, or nothing but white space; there is no text "
            f"to learn."
        )
    if survey.conversations and config.split_by == "text":
        raise InputError(
            f"split_by is text, but {survey.conversations} of the {survey.documents} documents "
            "are conversations, which are held out whole. Use --split-by documents or auto."
        )
    if config.duplicates == "drop" and config.split_by == "text":
        raise InputError(
            "duplicates is drop, but split_by is text, which takes the text as one. Use "
            "--split-by documents or auto, or --duplicates keep."
        )
    by_documents = config.split_by == "documents" or (
        whole_documents
        and (
            config.duplicates == "drop"
            or bool(survey.conversations)
            or (survey.documents >= MIN_DOCUMENTS and config.val + config.test > 0)
        )
    )
    codes = document_codes(survey.exact, config) if by_documents else b""
    bounds = {} if by_documents else text_bounds(survey.characters, config)

    def stream() -> Iterator[Stretch]:
        pieces = corpus.pieces()
        return split_documents(pieces, codes) if by_documents else split_text(pieces, bounds)

    # 1. The tokenizer, from the training text alone.
    trained_on = 0
    controls = corpus.control_tokens if survey.conversations else ()

    def training_texts() -> Iterator[str]:
        nonlocal trained_on
        trained_on = seen = 0
        sampled = config.tokenizer.startswith(("bpe", "unigram"))
        sample = TRAINING_CHARACTERS if sampled else survey.characters
        share = min(1.0, sample / survey.characters)
        for block in cut_blocks(stream(), "safe"):
            seen += len(block.text)
            # Evenly spread: a block is taken whenever the sample lags behind its share.
            if block.split == "train" and (share == 1 or trained_on < share * seen):
                trained_on += len(block.text)
                if block.rendered is None:
                    yield block.text
                else:
                    yield from between(block.text, (config.separator, *controls))
            tell("data.training_tokenizer", seen / survey.characters)

    template = corpus.template if survey.conversations else None
    # Conversations were rendered with a loaded tokenizer's own end token, which must stay the end.
    end = loaded.separator if loaded and survey.conversations else config.separator
    special = (*controls, *config.add_tokens)
    tokenizer = tokenizer_for(config.tokenizer, loaded, training_texts, end, special, template)

    # 2. The tokens. A lone text without separators stays as it is; else each document ends in one.
    layout = Layout(
        separate=survey.documents > 1 or survey.separators > 0,
        apart=survey.documents > 1,
        mask=bool(survey.conversations) and config.loss != "all",
    )
    written = write_tokens(
        stream(),
        tokenizer,
        layout,
        out,
        lambda done: tell("data.encoding", done / survey.characters),
        lambda block: corpus.place(block.source << LINE_BITS | block.line),
        config.add_tokens,
    )
    counted = total_of(written["splits"].values(), written["dropped"])
    if counted["characters"] != survey.characters:
        raise InputError(f"{out}: the sources changed while they were read; run it again.")
    asked = parse_spec(config.tokenizer)[1] if loaded is None else None
    separator_bytes = len(config.separator.encode("utf-8"))
    facts = {
        "files": len(corpus.names),
        "bytes": corpus.bytes_read(),
        "documents": survey.documents,
        "conversations": survey.conversations,
        "blank_documents": survey.blank_documents,
        "blank_characters": survey.blank_characters,
        "separators_read": survey.separators,
        "separator_length": len(config.separator),
        "characters": survey.characters
        + survey.blank_characters
        + survey.separators * len(config.separator),
        "split_by": "documents" if by_documents else "text",
        "tokenizer": config.tokenizer,
        "add_tokens": list(config.add_tokens),
        "tokenizer_trained_on_characters": trained_on,
        "vocab_size_asked": asked,
        **written,
    }
    check_bytes(corpus, survey, str(out))
    documents, sizes = Account("documents"), Account("bytes")
    # A line of a text that cannot be read is no document; its bytes are accounted for.
    bad_documents = bad["count"] - bad["lines"]
    documents.read = survey.documents + survey.blank_documents + bad_documents
    sizes.read = survey.bytes + survey.blank_bytes + survey.separators * separator_bytes
    sizes.read += bad["bytes"]
    divided: Mapping[str, int] = facts.pop("divided")
    for place, item in [*written["splits"].items(), (DUPLICATE, written["dropped"])]:
        # A document that a split divides is counted where it ends: apart from the whole ones.
        ending = sum(n for over, n in divided.items() if over.endswith(place))
        documents.add(place, item["documents"] - ending)
        sizes.add(place, item["bytes"])
    for over, n in divided.items():
        documents.add(over, n)
    documents.add("blank", survey.blank_documents)
    documents.add("bad", bad_documents)
    sizes.add("blank", survey.blank_bytes)
    sizes.add("bad", bad["bytes"])
    sizes.add("separators", survey.separators * separator_bytes)
    facts["ledger"] = closed([documents, sizes, tokens_written(written)], str(out))
    facts["sources"] = source_rows(corpus, survey, facts.pop("by_source"))
    facts["left_aside"] = corpus.left_aside
    facts["doubts"] |= doubts_of(corpus, survey, codes, bad)
    return tokenizer, facts


def tokens_written(written: Mapping[str, Any]) -> Account:
    """Every token by its source, against the tokens of the splits."""
    by_source = written["by_source"].values()
    account = Account("tokens", sum(row["tokens"] for row in by_source))
    for split, item in written["splits"].items():
        if split == "train":
            account.add("with_loss", sum(row["with_loss"] for row in by_source))
            account.add("masked", item["masked"])
        else:
            account.add(split, item["tokens"])
    account.add(DUPLICATE, written["dropped"]["tokens"])
    return account


def closed(accounts: Sequence[Account], where: str) -> dict[str, Any]:
    """The accounts for the facts.

    Raises:
        LedgerError: one does not close.
    """
    for account in accounts:
        account.check(where)
    return {account.unit: account.to_json() for account in accounts}


def check_bytes(corpus: Corpus, survey: Survey, where: str) -> None:
    """Every byte of every file: marks, structure, changes, bad lines, or text of a document.

    Raises:
        LedgerError: one is unaccounted for.
    """
    for number, (name, notes) in enumerate(zip(corpus.names, corpus.notes, strict=True)):
        account = Account("bytes of files", notes.bytes_read)
        account.add("mark", notes.bom_bytes)
        account.add("transcoded", notes.transcoded_bytes)
        account.add("structure", notes.structure_bytes)
        account.add("bad", notes.bad_bytes)
        if corpus.sources[number].kind == "text":
            account.add("documents", survey.bytes_by_source.get(number, 0))
            account.add("normalised", notes.normalised_bytes)
            account.add("line ends", notes.crlf)
        else:
            account.add("records", notes.text_bytes)
        account.check(f"{where}: {name}")


def count(corpus: Corpus, keys: bool, tell: Callable[[float], None]) -> Survey:
    """Read everything once: how much there is, whether it can be read, keys of each document."""
    survey = Survey()
    digest = DocumentKeys()
    separator_bytes = len(corpus.config.separator.encode("utf-8"))
    for piece in corpus.pieces(survey=True, tell=tell):
        if piece.first:
            languages = survey.languages.setdefault(piece.source, LanguageSurvey())
        if piece.separator:
            survey.separators += 1
        size = digest.update(piece.text) if keys else len(piece.text.encode("utf-8"))
        between = separator_bytes if piece.separator else 0
        by_source = survey.bytes_by_source
        by_source[piece.source] = by_source.get(piece.source, 0) + size + between
        if piece.blank:
            survey.blank_documents += 1
            survey.blank_characters += len(piece.text)
            survey.blank_bytes += size
            digest = DocumentKeys()
            continue
        survey.characters += len(piece.text)
        survey.bytes += size
        languages.update(piece.text)
        if piece.record and len(piece.text) > LONG_RECORD:
            survey.long_records.append(piece.source << LINE_BITS | piece.line)
        if piece.last:
            survey.documents += 1
            survey.conversations += piece.rendered is not None
            by_source = survey.documents_by_source
            by_source[piece.source] = by_source.get(piece.source, 0) + 1
            if keys:
                survey.exact.append(digest.exact())
                survey.near.append(digest.near())
                survey.form.append(digest.form())
                survey.about_numbers.append(digest.about_numbers())
                survey.places.append(piece.source << LINE_BITS | piece.line)
                digest = DocumentKeys()
    return survey


@dataclass(frozen=True)
class Layout:
    """What stands in the token files besides the text's tokens."""

    separate: bool
    """A separator behind every document of plain text; before it what the tokenizer puts there."""
    apart: bool
    """The ends of the documents in a file of their own."""
    mask: bool
    """A loss mask, because not every token of a conversation is to be learnt."""


def write_tokens(
    stream: Iterable[Stretch],
    tokenizer: Tokenizer,
    layout: Layout,
    out: Path,
    tell: Callable[[int], None],
    place: Callable[[Block], str],
    added: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the tokenizer and the token files; return the facts that they alone give.

    Args:
        place: where a block comes from, for messages.
        added: control tokens that were asked for, which should occur in the training tokens.
    """
    # From here on an older preparation in `out` is gone, and until the end there is no new one.
    write_json(out / "data.json", {"kind": KIND, "format": FORMAT, "state": "building"})
    tokenizer.save(out)
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    writer = TokenWriter(tokenizer, layout, out, dtype, place, added)
    with writer:
        for blocks, found in encoded(cut_blocks(stream, tokenizer.cuts), tokenizer, place):
            if blocks[0].rendered is None:
                writer.write(blocks[0], found.ids)
            else:
                writer.write_conversations(blocks, found)
            tell(writer.characters)
    splits = {name: writer.counts[name] for name in SPLITS if name in writer.counts}
    dropped = writer.counts.get(DUPLICATE, dict.fromkeys(COUNTED, 0))
    text_bytes = sum(item["bytes"] for item in splits.values())
    text_tokens = sum(item["tokens"] - item["separators"] for item in splits.values())
    return {
        "splits": splits,
        "dropped": dropped,
        "tokens": {name: item["tokens"] for name, item in splits.items()},
        "dtype": dtype,
        "masked": layout.mask,
        "bytes_per_token": text_bytes / max(1, text_tokens),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_kind": tokenizer.kind,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "pad_is_end": tokenizer.pad_is_end,
        "end_ids": sorted({tokenizer.separator_id, *writer.end_ids}),
        "apart": layout.apart,
        "unknown_tokens": sum(item["unknown_tokens"] for item in splits.values()),
        "forced_cuts": writer.forced,
        "by_source": writer.by_source,
        "divided": writer.divided,
        "doubts": writer.doubts(),
        "examples": writer.examples(),
        "reused": False,
        "rebuilt_because": None,
    }


Group = tuple[list[Block], Encoded]
"""A block of plain text, or conversations of one split and source, one behind the other."""


def encoded(
    blocks: Iterable[Block], tokenizer: Tokenizer, place: Callable[[Block], str]
) -> Iterator[Group]:
    """The blocks with their ids and loss mask, in order, tokenized on all cores at once.

    Raises:
        InputError: a conversation cannot be encoded; `place` tells which.
    """
    threads = os.cpu_count() or 1
    group: list[Block] = []
    characters = 0

    def flush() -> Iterator[Group]:
        texts = [block.text for block in group if block.rendered is None]
        plain = iter(tokenizer.encode_blocks(texts, threads))
        for (spoken, *_), run in groupby(group, key=kind):
            if not spoken:
                for block in run:
                    ids = next(plain)
                    ones, end = np.ones(len(ids), np.uint8), np.array([len(ids)])
                    yield [block], Encoded(ids, ones, end)
                continue
            chats = list(run)
            rendered = [block.rendered for block in chats if block.rendered is not None]
            try:
                yield chats, encode_all(tokenizer, rendered)
            except InputError:
                for block, conversation in zip(chats, rendered, strict=True):
                    with placed(place(block)):
                        encode_rendered(tokenizer, conversation)
                raise

    for block in blocks:
        group.append(block)
        characters += len(block.text)
        full = len(group) >= GROUP * threads and characters >= GROUP_CHARACTERS // 8
        if full or characters >= GROUP_CHARACTERS * threads:
            yield from flush()
            group, characters = [], 0
    yield from flush()


def kind(block: Block) -> tuple[bool, str, int]:
    """What conversations share that are written at once."""
    return block.rendered is not None, block.split, block.source


COUNTED = ("documents", "characters", "bytes", "tokens", "separators", "unknown_tokens", "masked")


def total_of(*groups: Any) -> dict[str, int]:
    """Sums of the counts of several splits."""
    items = [item for group in groups for item in ([group] if isinstance(group, dict) else group)]
    return {name: sum(item[name] for item in items) for name in COUNTED}


class TokenWriter:
    """Writes the files of every split and counts what it writes, by split and by source."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        layout: Layout,
        out: Path,
        dtype: str,
        place: Callable[[Block], str],
        added: Sequence[str],
    ) -> None:
        self.tokenizer, self.layout, self.out, self.dtype = tokenizer, layout, out, dtype
        self.place = place
        self.counts: dict[str, dict[str, int]] = {}
        self.by_source: dict[int, dict[str, int]] = {}
        self.divided: dict[str, int] = {}  # "train_val" → documents that begin and end so
        self._began: str | None = None  # the split in which the present document began
        self.characters = self.forced = 0
        self.without_loss = self.end_with_loss = 0
        self._spoken: dict[int, int] = {}  # conversations of each source
        self._shown: list[tuple[int, dict[str, Any]]] = []  # place in its source, example
        self.end_ids: set[int] = set()
        self.overlap = LineOverlap()
        self.unmet = {tokenizer.controls[text]: text for text in added}
        self._faulty: list[str] = []
        self._separator = packed(np.array([tokenizer.separator_id]), dtype)
        self._begin = packed(np.array(tokenizer.begin_ids, dtype=np.int64), dtype)
        self._open = False  # a document goes on in the next block
        self._stack = contextlib.ExitStack()
        self._files: dict[str, IO[bytes]] = {}
        self._ends: dict[str, int] = {}  # of the last document written, by split
        self._inside = (0, 0)  # source and line of the document that goes on
        self._breaks = 0  # line ends in it so far

    def __enter__(self) -> TokenWriter:
        self._stack.__enter__()
        return self

    def __exit__(self, *fault: Any) -> None:
        if fault[0] is None and self.layout.apart:
            for split, end in self._ends.items():
                # A document that the split cuts ends here, too.
                if end < self.counts[split]["tokens"]:
                    self._end(split)
        self._stack.__exit__(*fault)
        if fault[0] is None:
            for name in (f"{split}{part}" for split in SPLITS for part in PARTS_OF_A_SPLIT):
                if name not in self._files:
                    remove_file(self.out / name)  # of an earlier preparation

    def write(self, block: Block, ids: Ids) -> None:
        """Append one block of plain text to the files of its split; a duplicate is only counted."""
        ends = block.ends and self.layout.separate
        if (block.source, block.line) != self._inside:
            self._inside, self._breaks = (block.source, block.line), 0
        breaks = self._breaks
        self._breaks = 0 if block.ends else breaks + block.text.count("\n")
        begins = 0
        if self.layout.separate and not self._open:
            begins = len(self.tokenizer.begin_ids)
        self._open = not block.ends
        first = self._count([block], ids, begins + ends, 0)
        tokens = begins + len(ids) + ends
        self.forced += block.forced
        self._began = self._began or block.split
        if block.ends:
            if self._began != block.split:
                over = f"{self._began}_{block.split}"
                self.divided[over] = self.divided.get(over, 0) + 1
            self._began = None
        if block.split == DUPLICATE:
            return
        if block.split == "train" and tokens:
            code = block.source << LINE_BITS | block.line
            self._file("train.origins.bin").write(origin_bytes(first, code, breaks))
        if begins:
            self._file(f"{block.split}.bin").write(self._begin)
        self._file(f"{block.split}.bin").write(packed(ids, self.dtype))
        if ends:
            self._file(f"{block.split}.bin").write(self._separator)
        if self.layout.mask:
            self._file(f"{block.split}.mask.bin").write(b"\1" * tokens)
        self._ends.setdefault(block.split, 0)
        if self.layout.apart and block.ends:
            self._end(block.split)
        self.overlap.add(block.split, block.text)

    def write_conversations(self, blocks: Sequence[Block], found: Encoded) -> None:
        """Append whole conversations of one split and source; duplicates are only counted."""
        split, source = blocks[0].split, blocks[0].source
        masked = len(found.mask) - int(found.mask.sum()) if self.layout.mask else 0
        first = self._count(blocks, found.ids, 0, masked)
        self._inside, self._breaks, self._open = (source, blocks[-1].line), 0, False
        if split == DUPLICATE:
            return
        starts = np.concatenate([[0], found.ends[:-1]])
        if split == "train":
            lines = [source << LINE_BITS | block.line for block in blocks]
            codes = np.array(lines, dtype=np.uint64)
            told = found.ends > starts
            table = np.zeros((int(told.sum()), 3), dtype="<u8")
            table[:, 0], table[:, 1] = first + starts[told], codes[told]
            self._file("train.origins.bin").write(table.tobytes())
        self._file(f"{split}.bin").write(packed(found.ids, self.dtype))
        if self.layout.mask:
            self._file(f"{split}.mask.bin").write(found.mask.tobytes())
        self._ends[split] = self.counts[split]["tokens"]
        if self.layout.apart:
            ends = (first + found.ends).astype("<u8")
            self._file(f"{split}.documents.bin").write(ends.tobytes())
        self._look_at(blocks, found, starts)

    def _count(self, blocks: Sequence[Block], ids: Ids, around: int, masked: int) -> int:
        """Book blocks of one split and source; returns the tokens of the split before them.

        Args:
            around: tokens that are written beside the text's own.
        """
        split, source = blocks[0].split, blocks[0].source
        counted = self.counts.setdefault(split, dict.fromkeys(COUNTED, 0))
        of_source = self.by_source.setdefault(source, {"tokens": 0, "with_loss": 0})
        texts = [block.text for block in blocks]
        first, tokens = counted["tokens"], len(ids) + around
        characters = sum(map(len, texts))
        counted["documents"] += sum(block.ends for block in blocks)
        counted["characters"] += characters
        counted["bytes"] += len("".join(texts).encode("utf-8"))
        counted["tokens"] += tokens
        counted["separators"] += around
        counted["masked"] += masked
        of_source["tokens"] += tokens
        if self.tokenizer.unknown_id is not None:
            counted["unknown_tokens"] += int((ids == self.tokenizer.unknown_id).sum())
        self.characters += characters
        if split == "train":
            of_source["with_loss"] += tokens - masked
            for id in [id for id in self.unmet if (ids == id).any()]:
                del self.unmet[id]
        return first

    def doubts(self) -> dict[str, Any]:
        """What the checks before step 1 make warnings of."""
        seen, lines = self.overlap.result()
        return {
            "without_loss": self.without_loss,
            "without_loss_at": self._faulty,
            "end_with_loss": self.end_with_loss,
            "unmet_tokens": list(self.unmet.values()),
            "val_lines": lines,
            "val_lines_in_train": seen,
        }

    def examples(self) -> list[dict[str, Any]]:
        """A few conversations: the first of each source, then more of them; one without loss."""
        chosen = sorted(self._shown, key=lambda item: (item[0], item[1]["source"]))[:EXAMPLES]
        return sorted(
            (example for _, example in chosen), key=lambda item: (item["source"], item["line"])
        )

    def _look_at(self, blocks: Sequence[Block], found: Encoded, starts: Ids) -> None:
        """What the checks need to know of conversations, and examples of them."""
        source = blocks[0].source
        before = self._spoken.get(source, 0)
        self._spoken[source] = before + len(blocks)
        learnt = np.flatnonzero(found.mask)
        # How many of these stand before the beginning and before the end of each conversation.
        since, until = np.searchsorted(learnt, starts), np.searchsorted(learnt, found.ends)
        without = np.flatnonzero(since == until)
        last = found.ids[learnt[until[until > since] - 1]]
        closing = last[np.isin(last, list(self.tokenizer.control_ids))]
        self.end_with_loss += len(closing)
        self.end_ids.update(np.unique(closing).tolist())
        places = {}
        if len(self._spoken) <= EXAMPLES:
            places = {at: before + at for at in range(min(len(blocks), EXAMPLES - before))}
        if len(without) and not self.without_loss:
            places[int(without[0])] = -1  # to be seen before all others
        self.without_loss += len(without)
        for at in without[: EXAMPLES - len(self._faulty)].tolist():
            self._faulty.append(self.place(blocks[at]))
        for at, place in places.items():
            part = slice(int(starts[at]), int(found.ends[at]))
            ids, mask = found.ids[part], found.mask[part]
            self._shown.append((place, self._example(blocks[at], ids, mask)))

    def _example(self, block: Block, ids: Ids, mask: Mask) -> dict[str, Any]:
        """A conversation token by token, and which of them carry loss."""
        carried = mask if self.layout.mask else np.ones(len(ids), np.uint8)
        shown: list[list[Any]] = []
        at = 0
        for run, text in self.tokenizer.whole_characters(ids[:EXAMPLE_TOKENS].tolist()):
            shown.append([text, int(carried[at : at + len(run)].any())])
            at += len(run)
        line, number = line_and_record(block.line)
        return {
            "source": block.source,
            "line": line,
            **({"record": number} if number else {}),
            "split": block.split,
            "tokens": shown,
            "left_out": max(0, len(ids) - EXAMPLE_TOKENS),
        }

    def _end(self, split: str) -> None:
        """Write where a document ends."""
        self._ends[split] = self.counts[split]["tokens"]
        end = np.array([self._ends[split]], dtype="<u8")
        self._file(f"{split}.documents.bin").write(end.tobytes())

    def _file(self, name: str) -> IO[bytes]:
        if name not in self._files:
            self._files[name] = self._stack.enter_context(staged_file(self.out / name))
        return self._files[name]


def between(text: str, controls: Sequence[str]) -> Iterator[str]:
    """The stretches between control tokens: what a tokenizer can be trained on."""
    texts = [text]
    for control in controls:
        texts = [part for item in texts for part in item.split(control)]
    return filter(None, texts)


def source_rows(
    corpus: Corpus, survey: Survey, by_source: dict[int, dict[str, int]]
) -> list[dict[str, Any]]:
    """The ledger's line of each source: how it was read and what became of it."""
    rows = []
    for number, name in enumerate(corpus.names):
        counts = by_source.get(number, {"tokens": 0, "with_loss": 0})
        rows.append(
            {
                "name": name,
                **corpus.notes_of(number),
                "documents": survey.documents_by_source.get(number, 0),
                "tokens": counts["tokens"],
                "with_loss": counts["with_loss"],
                "languages": survey.languages[number].mixed() if number in survey.languages else [],
            }
        )
    return rows


def doubts_of(corpus: Corpus, survey: Survey, codes: bytes, bad: dict[str, Any]) -> dict[str, Any]:
    """Copies, near copies across the split, and records that could not be read."""
    template = [[doubt.key, doubt.numbers] for doubt in corpus.template_doubts]
    template += [
        [f"data.{note}", {"count": count}]
        for note, count in corpus.render_notes.items()
        if note != "end_added"  # said once, of the template
    ]
    doubts: dict[str, Any] = {
        "template": template,
        "bad": bad,
        "copies": 0,
        "near_copies": 0,
        "near_copies_at": [],
        "number_copies": 0,
        "number_doubts": 0,
        "number_doubts_at": [],
        "digits_alone": 0,
        "digits_alone_forms": 0,
        "digits_alone_at": [],
    }
    doubts["long_records"] = len(survey.long_records)
    doubts["long_records_at"] = [corpus.place(place) for place in survey.long_records[:EXAMPLES]]
    if not survey.exact:
        return doubts
    doubts["copies"] = len(survey.exact) - len(np.unique(np.frombuffer(survey.exact, np.uint64)))
    near, form = np.frombuffer(survey.near, np.uint64), np.frombuffer(survey.form, np.uint64)
    # A form is a text without regard to its numbers; versions of it differ in nothing else.
    _, first = np.unique(near, return_index=True)
    forms, versions = np.unique(form[first], return_counts=True)
    varied = np.flatnonzero((versions > 1)[np.searchsorted(forms, form)])
    doubts["digits_alone"] = len(varied)
    doubts["digits_alone_forms"] = int((versions > 1).sum())
    if len(varied):
        pair = varied[form[varied] == form[varied[0]]]
        pair = [int(pair[0]), int(pair[near[pair] != near[pair[0]]][0])]
        doubts["digits_alone_at"] = [corpus.place(survey.places[at]) for at in pair]
    if not codes:
        return doubts
    split = np.frombuffer(codes, np.uint8)
    train, val = split == SPLITS.index("train"), split == SPLITS.index("val")

    def places(documents: npt.NDArray[np.int64], key: npt.NDArray[np.uint64]) -> list[list[str]]:
        """Where some of these documents and their twins in the training set stand."""
        pairs = []
        for document in documents[:EXAMPLES].tolist():
            twin = int(np.flatnonzero(train & (key == key[document]))[0])
            pairs.append([corpus.place(survey.places[at]) for at in (document, twin)])
        return pairs

    same = val & np.isin(near, near[train])
    numbers = val & np.isin(form, form[train]) & ~same
    crossing = np.flatnonzero(same)
    doubts["near_copies"] = len(crossing)
    doubts["near_copies_at"] = places(crossing, near)
    doubts["number_copies"] = int(numbers.sum())
    # Other numbers make another sum. They make a copy where the text is not about them, and where
    # it is no form that is filled in again and again: a copy comes once.
    copied = np.frombuffer(survey.about_numbers, np.uint8) == 0
    copied &= versions[np.searchsorted(forms, form)] <= COPY_VERSIONS
    doubtful = np.flatnonzero(numbers & copied)
    doubts["number_doubts"] = len(doubtful)
    doubts["number_doubts_at"] = places(doubtful, form)
    return doubts


def packed(ids: Ids, dtype: str) -> bytes:
    """Token ids as a token file holds them; `astype` alone would wrap what does not fit."""
    stored = np.dtype({"uint16": "<u2", "uint32": "<u4"}[dtype])
    highest, limit = int(ids.max(initial=0)), int(np.iinfo(stored).max)
    assert highest <= limit, f"token id {highest} does not fit in {dtype} (at most {limit})"
    return ids.astype(stored).tobytes()


def is_ours(folder: Path) -> bool:
    """Whether `folder` was made by `prepare`, whole or not."""
    try:
        record = read_json(folder / "data.json")
    except (InputError, StorageError):
        return False
    return isinstance(record, dict) and record.get("kind") == KIND


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds a whole, finished preparation of this format."""
    try:
        open_prepared(folder)
    except (InputError, StorageError):
        return False
    return True


def open_prepared(folder: Path) -> Prepared:
    """Open what `prepare` wrote.

    Raises:
        InputError: it is not there, unfinished, of another format, or its tokenizer was changed.
        StorageError: a token file is missing or has another length than was written.
    """
    record = read_json(folder / "data.json")
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise InputError(f"{folder / 'data.json'}: not written by yunque prepare.")
    if record.get("state") != "complete":
        raise InputError(f"{folder}: its preparation was interrupted; run yunque prepare again.")
    if record.get("format") != FORMAT:
        raise InputError(
            f"{folder}: format {record.get('format')}, this version reads {FORMAT}; "
            "run yunque prepare again."
        )
    tokenizer = load_tokenizer(folder)
    try:
        facts = record["facts"]
        if tokenizer.fingerprint != facts["tokenizer_fingerprint"]:
            raise InputError(
                f"{folder / 'tokenizer.json'}: not the tokenizer that the tokens were made with; "
                "run yunque prepare again."
            )
        return Prepared(folder, tokenizer, token_files(folder, facts), facts)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{folder / 'data.json'}: was changed since it was written ({error!r}); run yunque "
            "prepare again."
        ) from None


def token_files(folder: Path, facts: dict[str, Any]) -> dict[str, TokenFile]:
    """The token files that the facts tell of, opened."""
    found = {
        name: open_split(folder, name, facts["dtype"], length)
        for name, length in facts["tokens"].items()
    }
    for name, tokens in found.items():
        for part, wanted, there in (
            ("mask", facts["masked"], tokens.mask is not None),
            ("documents", facts["apart"], tokens.documents is not None),
        ):
            if wanted != there:
                raise StorageError(
                    f"{folder / f'{name}.{part}.bin'}: {'missing' if wanted else 'a stranger'}; "
                    "prepare the data again."
                )
    return found
