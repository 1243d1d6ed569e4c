"""TEXT ↔ TOKEN IDS: one class around `tokenizers`, trained on the text or loaded from files.

Every tokenizer, the character one too, is a real `tokenizers` pipeline in one `tokenizer.json`,
so that other programs (`transformers`, vLLM) open it and give the same ids.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from yunque.config import SEPARATOR, raise_faults, typed
from yunque.data.blocks import SAFE_CUT, Cuts, Stretch, cut_blocks
from yunque.data.bulk import Bulk, bulk_of
from yunque.data.pipelines import cuts_of, kind_of
from yunque.data.sentencepiece import load_sentencepiece
from yunque.data.vocabularies import (
    BYTE_OF,
    CHARACTER_OF,
    KINDS,
    UNKNOWN,
    parse_spec,
    special,
    train_backend,
)
from yunque.errors import InputError
from yunque.files import (
    make_folder,
    path_of,
    read_json,
    refuse_strange_files,
    storage_error,
    write_json,
    write_text,
)
from yunque.hub import HubId, fetch, hub_id

__all__ = [
    "BYTE_OF",
    "UNKNOWN",
    "Ids",
    "Tokenizer",
    "add_tokens",
    "is_path",
    "load_tokenizer",
    "loaded_tokenizer",
    "parse_spec",
    "stated_ends",
    "tokenizer_for",
    "train_tokenizer",
]

KNOWN_CHARACTERS = 1 << 21  # in the cache of segments: about 50 MB
BULK_CHARACTERS = 16  # for each token: from here on it pays to open the vocabulary in tiktoken

MOST_BYTES = 4  # of one character in UTF-8

WORD = re.compile("▁[a-zA-Z]+")
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
ROLES = ("eos_token", "bos_token", "pad_token")
GENERIC_CLASS = "PreTrainedTokenizerFast"
OWN_CLASSES = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
"""Classes whose own rules transformers needs named; it goes by tokenizer.json for the others."""
HUB_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.bpe"]

Ids = npt.NDArray[np.int64]


class Tokenizer:
    """Text to ids and back; ids are those that `transformers.AutoTokenizer` gives.

    Args:
        backend: the pipeline; it is owned by this object from here on.
        separator: text of the token between documents; added where the vocabulary lacks it.
        named_tokens: further roles for tokenizer_config.json ("pad_token", "bos_token").
        tokenizer_class: the class that transformers opens it with.

    Attributes:
        kind: char, byte, word, bpe, unigram (ours), gpt2 (GPT-2's rules), sentencepiece (spaces
            are the sign ▁) or other.
        vocab_size: highest id + 1.
        separator_id: the token between documents, and the end of a text.
        unknown_id: the token for text that the vocabulary does not hold, where there is one.
        fingerprint: SHA-256 of the tokenizer.json that `save` writes.
        cuts: where a text may be cut so that the parts have the ids of the whole.
        begin_ids: the tokens that its own files put before a text: mostly one, mostly none.
        behind_ids: those that they put behind it.
        pad_is_end: the files name the separator as pad token too. Who masks the loss of padding
            by its id masks that of the end, and the model never stops: the role is left out of
            `named_tokens` and of what `save` writes.
    """

    def __init__(
        self,
        backend: Backend,
        separator: str,
        chat_template: str | None = None,
        named_tokens: Mapping[str, str] | None = None,
        tokenizer_class: str = GENERIC_CLASS,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        # Also where the vocabulary has it: a token keeps its id and becomes a control token.
        backend.add_special_tokens([special(separator)])
        vocabulary = backend.get_vocab(with_added_tokens=True)
        written = backend.to_str(pretty=True)
        self._json: str = settled(written)
        self.backend = backend if self._json == written else Backend.from_str(self._json)
        self.separator = separator
        self.separator_id: int = vocabulary[separator]
        self.chat_template = chat_template
        self.tokenizer_class = tokenizer_class
        self.named_tokens = {
            role: token
            for role, token in (named_tokens or {}).items()
            if token in vocabulary and (role != "pad_token" or token != separator)
        }
        self.pad_is_end = (named_tokens or {}).get("pad_token") == separator
        self.vocab_size: int = max(vocabulary.values()) + 1
        self.fingerprint: str = hashlib.sha256(self._json.encode("utf-8")).hexdigest()
        pipeline = json.loads(self._json)
        model = pipeline["model"]
        unknown = model.get("unk_token")  # Unigram models name it by its id instead
        self.unknown_id: int | None = (
            model.get("unk_id") if unknown is None else backend.token_to_id(unknown)
        )
        self.begin_ids, self.behind_ids = around(backend)
        self.kind: str = kind_of(pipeline)
        # A pipeline that puts a space before every text cannot encode the rest of a text that
        # was cut; `_following` can, so that within one text the cuts are still of use.
        self.cuts: Cuts
        self._following: Backend | None
        self.cuts, self._following = cuts_of(pipeline, self.kind, self._plain)
        self._known: dict[str, bytes] = {}
        self._known_characters = 0
        self._encoded = 0

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            special: texts of special tokens become their ids; otherwise they are plain text, so
                that nothing a user writes can end a document or open a turn.
        """
        backend = self.backend if special else self._plain
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    def prompt_ids(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text that a model is to read from its beginning: the begin token, the text.

        The begin token is that of the tokenizer's own files, as `transformers.AutoTokenizer` puts
        it; a text that begins with it already gets no second one.

        Args:
            special: as of `encode`.
        """
        begin, ids = list(self.begin_ids), self.encode(text, special)
        return ids if begin and ids[: len(begin)] == begin else begin + ids

    def encode_array(self, text: str) -> Ids:
        """The same ids as `encode(text)`, as int64, by a shorter way: for bulk text."""
        return self.encode_blocks([text])[0]

    def encode_blocks(self, texts: Sequence[str], threads: int = 1) -> list[Ids]:
        """The ids of each text, in order; the same as `encode` gives.

        Characters and bytes are looked up in a table. Byte-level BPE goes through tiktoken where
        that is proved to give equal ids. Other tokenizers meet each segment between two safe cuts
        (mostly a word) again and again, and encode it once.

        Args:
            threads: at work at the same time, on blocks and on the parts of long texts.
        """
        if self.kind in ("char", "byte"):
            return [self._looked_up(text) for text in texts]
        bulk = self.bulk(sum(map(len, texts)))
        parts = [self._parts(text) for text in texts]
        jobs = [(part, at > 0) for row in parts for at, part in enumerate(row)]

        def encode(job: tuple[str, bool]) -> Ids:
            part, follows = job
            ids = None if bulk is None else bulk.encode(part)
            return self._by_segments(part, follows) if ids is None else ids

        if threads == 1 or len(jobs) == 1:
            done = list(map(encode, jobs))
        else:
            done = list(workers(threads, os.getpid()).map(encode, jobs))
        found, start = [], 0
        for row in parts:
            rows = done[start : start + len(row)]
            found.append(rows[0] if len(rows) == 1 else np.concatenate(rows))
            start += len(row)
        return found

    def bulk(self, characters: int) -> Bulk | None:
        """The vocabulary in tiktoken for so much more text; None where it is not equal, or as long
        as opening it takes longer than it saves."""
        self._encoded += characters
        return self._bulk if self._encoded > BULK_CHARACTERS * self.vocab_size else None

    def _looked_up(self, text: str) -> Ids:
        """The ids of a text of the kinds that are nothing but a table.

        No index can be out of range; "clip" is numpy's fastest way of not checking that.
        """
        if self.kind == "byte":
            return self._table.take(np.frombuffer(text.encode("utf-8"), np.uint8), mode="clip")
        codes = np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))
        return self._table.take(codes, mode="clip")

    def _parts(self, text: str) -> list[str]:
        """A text in blocks that are encoded one by one; at least one."""
        if self.cuts != "safe" and self._following is None:
            return [text]
        return [block.text for block in cut_blocks([Stretch("", text, True)], "safe")] or [text]

    def _by_segments(self, text: str, follows: bool) -> Ids:
        """The ids of a text, or of what follows a cut in one, by the cache of segments."""
        if self.cuts != "safe" and self._following is None:
            return np.array(self.encode(text), dtype=np.int64)
        segments = SAFE_CUT.split(text)
        first: list[int] = []
        if self._following is not None and not follows:
            first = self.encode(segments.pop(0))
        known = self._known
        new = [segment for segment in dict.fromkeys(segments) if segment not in known]
        found = (self._following or self._plain).encode_batch_fast(new, add_special_tokens=False)
        for segment, encoding in zip(new, found, strict=True):
            known[segment] = np.array(encoding.ids, dtype=np.uint32).tobytes()
        raw = b"".join(map(known.__getitem__, segments))
        self._known_characters += sum(map(len, new))
        if self._known_characters > KNOWN_CHARACTERS:
            # Another thread may still be filling the old one, which it holds on to.
            self._known, self._known_characters = {}, 0
        ids = np.frombuffer(raw, np.uint32).astype(np.int64)
        return np.concatenate([np.array(first, dtype=np.int64), ids]) if first else ids

    @cached_property
    def controls(self) -> dict[str, int]:
        """Text → id of the control tokens, by id."""
        added = sorted(self.backend.get_added_tokens_decoder().items())
        return {token.content: id for id, token in added if token.special}

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids of the control tokens."""
        return frozenset(self.controls.values())

    def first_token_bytes(self, text: str) -> int:
        """UTF-8 bytes of `text` up to the end of its first token, an unknown one too; 0 for none.

        Taken from the text: decoding tells nothing of an unknown token or of half a character.
        """
        if self.cuts == "anywhere":
            return 1 if self.kind == "byte" and text else len(text[:1].encode("utf-8"))
        # Segments between safe cuts have the ids of the whole, so the first one is enough.
        known = self.cuts == "safe" or self._following is not None
        segment = SAFE_CUT.split(text, maxsplit=1)[0] if known else text
        encoding = self._plain.encode(segment, add_special_tokens=False)
        if not encoding.ids:
            return 0
        size = len(segment[: encoding.offsets[0][1]].encode("utf-8"))
        if self._byte_level and encoding.ids[0] not in self._added:
            # One character of such a token is one byte; offsets count whole characters.
            return min(size, len(encoding.tokens[0]))
        if encoding.tokens[0] == "▁" and not segment[0].isspace():
            return 0  # the space before a text
        if BYTE_TOKEN.fullmatch(encoding.tokens[0]) and encoding.ids[0] not in self._added:
            return min(size, 1)
        return size

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids."""
        text: str = self.backend.decode(
            [int(item) for item in ids], skip_special_tokens=skip_special
        )
        return text

    def continuation(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids that stand behind others.

        SentencePiece pipelines drop the space before the first token of what they decode; behind
        other text it belongs there.
        """
        if self._word is None:
            return self.decode(ids, skip_special)
        lead = self.decode([self._word])
        return self.decode([self._word, *ids], skip_special)[len(lead) :]

    def whole_characters(self, ids: Sequence[int]) -> Iterator[tuple[list[int], str]]:
        """Ids in runs that hold whole characters, mostly one by one, each with its printable form.

        What never becomes a character (bytes that are no UTF-8) comes token by token.
        """
        at = 0
        while at < len(ids):
            run = [int(ids[at])]
            while len(run) < MOST_BYTES and "\ufffd" in self.decode(run, skip_special=False):
                run = [int(id) for id in ids[at : at + len(run) + 1]]
                if at + len(run) == len(ids):
                    break
            text = self.decode(run, skip_special=False) if len(run) > 1 else ""
            if len(run) == 1 or "\ufffd" in text:
                run, text = run[:1], self.token_text(run[0])
            yield run, printable(text) if len(run) > 1 else text
            at += len(run)

    def token_text(self, id: int) -> str:
        """A printable form of one token: "\\n" for a newline, "\\xc3" for half a character."""
        token = self.backend.id_to_token(int(id))
        if token is None:
            return f"<id {id}>"
        if id not in self._added:
            if self._byte_level:
                raw = bytes(BYTE_OF[character] for character in token)
                token = raw.decode("utf-8", "backslashreplace")
            else:
                byte = BYTE_TOKEN.fullmatch(token)
                token = token.replace("▁", " ")
                if byte:
                    token = bytes.fromhex(byte[1]).decode("utf-8", "backslashreplace")
        return printable(token)

    def with_template(self, chat_template: str) -> Tokenizer:
        """The same tokenizer with another chat template."""
        return self.remade(chat_template=chat_template)

    def remade(
        self,
        backend: Backend | None = None,
        separator: str | None = None,
        chat_template: str | None = None,
    ) -> Tokenizer:
        """The same tokenizer with another pipeline, separator or chat template."""
        named = dict(self.named_tokens)
        if self.pad_is_end:
            named["pad_token"] = self.separator
        return Tokenizer(
            backend or self.backend,
            separator or self.separator,
            chat_template or self.chat_template,
            named,
            self.tokenizer_class,
        )

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as AutoTokenizer opens them.

        Raises:
            StorageError: the folder cannot be written.
        """
        make_folder(folder)
        # A class of its own has defaults for roles that are not named, as an end that is padding.
        unnamed = ("unk_token", "pad_token") if self.tokenizer_class in OWN_CLASSES else ()
        settings: dict[str, Any] = {
            "tokenizer_class": self.tokenizer_class,
            **dict.fromkeys(unnamed),
            "clean_up_tokenization_spaces": False,
            **self.named_tokens,
            "eos_token": self.separator,
        }
        if self.unknown_id is not None:
            settings["unk_token"] = self.backend.id_to_token(self.unknown_id)
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        write_text(folder / "tokenizer.json", self._json)
        write_json(folder / "tokenizer_config.json", settings)

    @cached_property
    def _plain(self) -> Backend:
        """A second pipeline, which reads the text of special tokens as plain text.

        It is a copy, because switching the first one back and forth would be seen by threads.
        """
        plain = Backend.from_str(self._json)
        plain.encode_special_tokens = True
        return plain

    @cached_property
    def _bulk(self) -> Bulk | None:
        """The vocabulary in tiktoken, where it gives equal ids."""
        return bulk_of(json.loads(self._json), self._plain)

    @cached_property
    def _word(self) -> int | None:
        """A word where the space before a first one is dropped in decoding; None where none is."""
        vocabulary = self.backend.get_vocab(with_added_tokens=False)
        word = min((id for token, id in vocabulary.items() if WORD.fullmatch(token)), default=None)
        if word is None or self.decode([word, word]) == 2 * self.decode([word]):
            return None
        return word

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self.backend.get_added_tokens_decoder())

    @cached_property
    def _byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self._json)["decoder"])

    @cached_property
    def _table(self) -> Ids:
        """Byte or code point → id, for the kinds that are nothing but a table."""
        if self.kind == "byte":
            return np.array([self.backend.token_to_id(CHARACTER_OF[b]) for b in range(256)])
        assert self.kind == "char"
        table = np.full(0x110000, self.unknown_id, dtype=np.int64)
        for token, id in self.backend.get_vocab(with_added_tokens=False).items():
            if len(token) == 1:
                table[ord(token)] = id
        return table


def around(backend: Backend) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a pipeline puts before and behind every text."""
    plain, whole = (backend.encode("a", add_special_tokens=flag).ids for flag in (False, True))
    for start in range(len(whole) - len(plain) + 1) if plain else ():
        end = start + len(plain)
        if whole[start:end] == plain:
            return tuple(whole[:start]), tuple(whole[end:])
    return (), ()


def printable(text: str) -> str:
    """A text in which line ends, control characters and the like are written out."""
    return "".join(
        character
        if character.isprintable() or character == " "
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


@cache
def workers(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay, because each keeps its own encoder; a fork has none of its parent's."""
    return ThreadPoolExecutor(threads)


def settled(pipeline: str) -> str:
    """The JSON of a pipeline as it is written again after it was read.

    Reading may change the last digit of a unigram model's scores; after a turn or two none does.
    """
    while '"type": "Unigram"' in pipeline:
        again = Backend.from_str(pipeline).to_str(pretty=True)
        if again == pipeline:
            break
        pipeline = again
    return pipeline


def train_tokenizer(
    spec: str,
    texts: Callable[[], Iterator[str]],
    separator: str,
    special_tokens: Sequence[str] = (),
    chat_template: str | None = None,
) -> Tokenizer:
    """Make a tokenizer from a text.

    Args:
        spec: char, byte, word, word:SIZE, bpe:SIZE, bpe-gpt2:SIZE or unigram:SIZE.
        texts: gives the training text, in stretches, each time it is called.
        separator: text of the token between documents.
        special_tokens: further control tokens, for example the marks of a conversation.

    Raises:
        InputError: the spec cannot be read, or SIZE is too small.
        MissingPackageError: unigram without the package sentencepiece.
    """
    controls = list(dict.fromkeys([separator, *special_tokens]))
    return Tokenizer(train_backend(spec, texts, controls), separator, chat_template)


def add_tokens(tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer with further control tokens, behind the others; known ones keep their id.

    A model for it needs `vocab_size` rows in its embedding.

    Raises:
        InputError: a text is an ordinary token already: as a control token it could no longer be
            written by anybody. Or the ids have gaps, and a new one would fall on an old one.
    """
    backend = Backend.from_str(tokenizer.backend.to_str())
    before = backend.get_vocab(with_added_tokens=True)
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    new = [text for text in dict.fromkeys(texts) if text not in added]
    ordinary = [text for text in new if text in before]
    if ordinary:
        raise InputError(
            f"add_tokens holds {ordinary[0]!r}, an ordinary token of this tokenizer (id "
            f"{before[ordinary[0]]}). Choose a text that nobody writes, as <|{ordinary[0]}|>."
        )
    backend.add_special_tokens([special(text) for text in texts])
    ids = set(before.values())
    for text in new:
        if backend.token_to_id(text) in ids:
            raise InputError(
                f"add_tokens: {text!r} would get the id {backend.token_to_id(text)}, which another "
                "token has: the ids of this tokenizer have gaps. Leave add_tokens out."
            )
    return tokenizer.remade(backend)


def load_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer from files, or from the Hub where `path` is a Hub id and not there.

    Files: a tokenizer.json, a SentencePiece `.model`, a folder with one of them, with GPT-2's own
    two files, or with anything that `transformers` opens as a fast tokenizer. The separator is
    the end token that the files name, else `<|endoftext|>`.

    Raises:
        InputError: nothing of that kind there, links out of the folder, or the files are broken.
        StorageError: they cannot be read.
    """
    hub = None if path.exists() else hub_id(str(path))
    if hub:
        path = from_hub(hub)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        refuse_strange_files(path)
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = read_json(folder / "tokenizer_config.json")
        if not isinstance(settings, dict):
            raise InputError(f"{folder / 'tokenizer_config.json'}: expected a JSON object.")
        if settings.get("auto_map"):
            raise InputError(
                f"{folder / 'tokenizer_config.json'}: auto_map: this tokenizer comes with a "
                "program of its own, and Yunque runs none. If tokenizer.json holds the whole "
                "tokenizer, as for most models, remove this key from the file."
            )
    template = default_template(settings, folder / "tokenizer_config.json")
    if (folder / "chat_template.jinja").is_file():
        try:
            template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{folder / 'chat_template.jinja'}: not UTF-8 text (byte {error.start}). Write it "
                "anew in UTF-8, or take it away."
            ) from None
    backend, named = load_backend(path, settings)
    for role in ROLES:
        value = settings.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and text:
            named[role] = text
    separator = named.pop("eos_token", None) or stated_end(folder, backend) or SEPARATOR
    stated = settings.get("tokenizer_class")
    return Tokenizer(
        backend,
        separator,
        template,
        named,
        stated if stated in OWN_CLASSES else GENERIC_CLASS,
    )


def default_template(settings: Mapping[str, Any], path: Path) -> str | None:
    """The chat template of a tokenizer_config.json: of several the one named "default".

    Raises:
        InputError: several and none of that name, or something else than text.
    """
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {
            str(item.get("name")): item.get("template")
            for item in template
            if isinstance(item, dict)
        }
        if "default" not in named:
            raise InputError(
                f"{path}: chat_template is a list of {', '.join(named) or 'nothing'}, and none is "
                "named 'default'. Keep one, as a text."
            )
        template = named["default"]
    if template is not None and not isinstance(template, str):
        raise InputError(
            f"{path}: chat_template is {type(template).__name__}, expected text, or a list of "
            '{"name": …, "template": …}.'
        )
    return template


def stated_ends(folder: Path) -> list[int]:
    """`eos_token_id` of generation_config.json, then of config.json; each may be a list.

    Chat models often end a turn with another token than a document.

    Raises:
        InputError: it is neither an id nor a list of ids.
    """
    found: list[int] = []
    for path in (folder / "generation_config.json", folder / "config.json"):
        content = read_json(path) if path.is_file() else {}
        stated = content.get("eos_token_id") if isinstance(content, dict) else None
        if stated is None:
            continue
        fault, ids = typed(stated, tuple[int, ...])
        raise_faults([f"{path}: eos_token_id: {fault}"] if fault else [])
        found += ids
    return list(dict.fromkeys(found))


def stated_end(folder: Path, backend: Backend) -> str | None:
    """The end token that the model's files name by its id, where the tokenizer's name none.

    Only an added token: an ordinary piece, as an id left from another model may be, would no
    longer be written in plain text.
    """
    added = backend.get_added_tokens_decoder()
    return next((added[id].content for id in stated_ends(folder) if id in added), None)


def from_hub(hub: HubId) -> Path:
    """The folder with the tokenizer's files of a Hub id, fetched or found in the cache.

    Raises:
        InputError: there is no such repository, or it can be neither reached nor found.
    """
    try:
        return fetch(hub, HUB_FILES)
    except InputError as error:
        raise InputError(
            f"tokenizer {error} Or give a folder with the tokenizer's files."
        ) from None


def load_backend(path: Path, settings: Mapping[str, Any]) -> tuple[Backend, dict[str, str]]:
    """The pipeline of `load_tokenizer`, and the roles of tokens that its own files tell.

    Args:
        settings: the content of tokenizer_config.json.
    """
    if path.is_file() and path.suffix == ".json":
        return backend_from_json(path), {}
    if (path / "tokenizer.json").is_file():
        return backend_from_json(path / "tokenizer.json"), {}
    for names in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        vocabulary, merges = path / names[0], path / names[1]
        if vocabulary.is_file() and merges.is_file():
            return gpt2(vocabulary, merges), {}
    found = sorted(path.glob("*.model")) if path.is_dir() else []
    if path.is_file() and path.suffix == ".model":
        found = [path]
    if len(found) == 1:
        backend, named = load_sentencepiece(found[0])
        add_named(backend, settings, found[0])
        return backend, named
    if not path.exists():
        raise InputError(f"{path}: no such tokenizer file or folder.")
    if path.is_dir() and settings:
        return by_transformers(path)
    raise InputError(
        f"{path}: no tokenizer here; expected a tokenizer.json or a SentencePiece .model, or a "
        "folder with one of them, with encoder.json and vocab.bpe, or with vocab.json and "
        "merges.txt. A model needs its own: copy the file from where the model is published."
    )


def add_named(backend: Backend, settings: Mapping[str, Any], path: Path) -> None:
    """Add the tokens that tokenizer_config.json gives an id, as T5's `<extra_id_0>`.

    Raises:
        InputError: the ids of the model are not those that tokenizer_config.json tells of.
    """
    listed = settings.get("added_tokens_decoder")
    for id, token in sorted((int(key), value) for key, value in dict(listed or {}).items()):
        flags = {name: value for name, value in token.items() if name != "__type"}
        backend.add_tokens([AddedToken(**flags)])
        if backend.token_to_id(token["content"]) != id:
            raise InputError(
                f"{path}: {token['content']!r} has the id {id} in tokenizer_config.json and "
                f"{backend.token_to_id(token['content'])} here: this model counts its tokens in "
                "its own way. Give its tokenizer.json instead."
            )


def by_transformers(folder: Path) -> tuple[Backend, dict[str, str]]:
    """The pipeline that `transformers` makes of a folder of a kind that we do not read.

    Raises:
        InputError: it makes none.
    """
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        backend = Backend.from_str(found.backend_tokenizer.to_str())
    except Exception as error:  # whatever a broken folder makes it raise
        raise InputError(f"{folder}: transformers opens no tokenizer here: {error}.") from None
    named = {role: getattr(found, role, None) for role in ROLES}
    return backend, {role: text for role, text in named.items() if isinstance(text, str)}


def backend_from_json(path: Path) -> Backend:
    """Read a tokenizer.json."""
    try:
        return Backend.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise storage_error(error, path, "read") from None
    except Exception as error:  # the library raises bare Exception for every broken file
        raise InputError(f"{path}: not a tokenizer.json: {error}.") from None


def gpt2(vocabulary: Path, merges: Path) -> Backend:
    """GPT-2's rules on a vocabulary and a list of merges (one "left right" a line).

    Source: Radford et al. 2019, section 2.2, and the files published with the model.
    """
    ids = read_json(vocabulary)
    if not isinstance(ids, dict) or not all(isinstance(id, int) for id in ids.values()):
        raise InputError(f"{vocabulary}: expected a JSON object of token → id.")
    missing = set(BYTE_OF) - set(ids)
    if missing:
        raise InputError(
            f"{vocabulary}: not a byte-level vocabulary: {len(missing)} of the 256 bytes have no "
            "token. Give the tokenizer.json of this model instead."
        )
    pairs = []
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{merges}: not UTF-8 text (byte {error.start}).") from None
    except OSError as error:
        raise storage_error(error, merges, "read") from None
    for number, line in enumerate(lines, 1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or any(token not in ids for token in (*pair, "".join(pair))):
            raise InputError(
                f"{merges}:{number}: expected two tokens of {vocabulary.name} whose union is "
                f"also one, got {line!r}."
            )
        pairs.append((pair[0], pair[1]))
    backend = Backend(models.BPE(vocab=ids, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def tokenizer_for(
    spec: str,
    loaded: Tokenizer | None,
    texts: Callable[[], Iterator[str]],
    separator: str,
    special_tokens: Sequence[str] = (),
    chat_template: str | None = None,
) -> Tokenizer:
    """The tokenizer of a preparation: trained by its spec, or the loaded one with what is asked.

    A loaded one gets the special tokens that it lacks and the template; it writes `separator`
    between documents where its vocabulary has that token, else its own end token.

    Args:
        loaded: what `load_tokenizer` opened; None where `spec` says that one is to be trained.

    Raises:
        InputError: as `train_tokenizer`.
    """
    if loaded is None:
        return train_tokenizer(spec, texts, separator, special_tokens, chat_template)
    backend = loaded.backend
    end = separator if backend.token_to_id(separator) is not None else loaded.separator
    template = chat_template or loaded.chat_template
    added = [token for token in special_tokens if token not in loaded.controls]
    if not added and end == loaded.separator and template == loaded.chat_template:
        return loaded
    if added:
        backend.add_special_tokens([special(token) for token in added])
    return loaded.remade(backend, end, template)


def loaded_tokenizer(spec: str) -> Tokenizer | None:
    """The tokenizer that a setting names; None where it says that one is to be trained.

    Raises:
        InputError: neither a spec nor an existing tokenizer (the nearest spec is named).
    """
    if is_path(spec):
        return load_tokenizer(path_of(spec))
    if spec.endswith((".json", ".model")) or spec.startswith((".", "/", "~")):
        raise InputError(f"tokenizer {spec!r}: no such file or folder.")
    parse_spec(spec)
    return None


def is_path(spec: str) -> bool:
    """Whether a tokenizer setting names an existing tokenizer rather than a training spec.

    That is a file, a folder or a Hub id ("owner/name", "hf:name").
    """
    if re.fullmatch(rf"({'|'.join(KINDS)})(:.*)?", spec):
        return False
    if path_of(spec).exists():
        return True
    return not spec.endswith((".json", ".model")) and hub_id(spec) is not None
