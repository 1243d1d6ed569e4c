"""TEXT ↔ TOKEN IDS: one class around `tokenizers`, trained on the text or loaded from files.

Every tokenizer, the character one too, is a real `tokenizers` pipeline in one `tokenizer.json`,
so that other programs (`transformers`, vLLM) open it and give the same ids.

| spec      | a token is                       | unknown text                          |
|-----------|----------------------------------|---------------------------------------|
| char      | a character of the training text | `<|unk|>`                             |
| byte      | a byte of UTF-8, id = its value  | cannot be                             |
| word:SIZE | a word with the space before it, | `<|unk|>`                             |
|           | a digit, a punctuation mark      |                                       |
| bpe:SIZE  | a frequent sequence of bytes     | cannot be                             |

SIZE is the whole vocabulary, special tokens included.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from yunque.config import SEPARATOR, unknown_name
from yunque.data.blocks import SAFE_CUT, Cuts
from yunque.errors import InputError
from yunque.files import make_folder, read_json, storage_error, write_json, write_text

UNKNOWN = "<|unk|>"
SPECS = ("char", "byte", "word", "word:8000", "bpe:4096")

CHAR_PATTERN = r"[\s\S]"
WORD_PATTERN = r" ?[\p{L}\p{M}]+|\p{N}|[^\s\p{L}\p{M}\p{N}]|\s"
# Like GPT-4's in spirit: words with the space before them, contractions, every digit alone (so
# that numbers of any length are read digit by digit), runs of punctuation, line ends, white space.
BPE_PATTERN = (
    r"['’]\p{L}{1,2}(?![\p{L}\p{M}])"
    r"| ?[\p{L}\p{M}]+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

KNOWN_CHARACTERS = 1 << 21  # in the cache of segments: about 50 MB

Ids = npt.NDArray[np.int64]


class Tokenizer:
    """Text to ids and back; ids are those that `transformers.AutoTokenizer` gives.

    Args:
        backend: the pipeline; it is owned by this object from here on.
        separator: text of the token between documents; added where the vocabulary lacks it.
        named_tokens: further roles for tokenizer_config.json ("pad_token", "bos_token").

    Attributes:
        kind: char, byte, word, bpe (ours), gpt2 (GPT-2's rules) or other.
        vocab_size: highest id + 1.
        separator_id: the token between documents, and the end of a text.
        unknown_id: the token for text that the vocabulary does not hold, where there is one.
        fingerprint: SHA-256 of the tokenizer.json that `save` writes.
        cuts: where a text may be cut so that the parts have the ids of the whole.
    """

    def __init__(
        self,
        backend: Backend,
        separator: str,
        chat_template: str | None = None,
        named_tokens: Mapping[str, str] | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        # Also where the vocabulary has it: a token keeps its id and becomes a control token.
        backend.add_special_tokens([special(separator)])
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.backend = backend
        self.separator = separator
        self.separator_id: int = vocabulary[separator]
        self.chat_template = chat_template
        self.named_tokens = dict(named_tokens or {})
        self.vocab_size: int = max(vocabulary.values()) + 1
        self._json: str = backend.to_str(pretty=True)
        self.fingerprint: str = hashlib.sha256(self._json.encode("utf-8")).hexdigest()
        pipeline = json.loads(self._json)
        model = pipeline["model"]
        unknown = model.get("unk_token")  # Unigram models name it by its id instead
        self.unknown_id: int | None = (
            model.get("unk_id") if unknown is None else backend.token_to_id(unknown)
        )
        self.kind: str = kind_of(pipeline)
        self.cuts: Cuts = "anywhere" if self.kind in ("char", "byte") else "safe"
        if self.kind == "other" and not cuts_safely(pipeline, self._plain):
            self.cuts = "never"
        self._known: dict[str, bytes] = {}
        self._known_characters = 0

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            special: texts of special tokens become their ids; otherwise they are plain text, so
                that nothing a user writes can end a document or open a turn.
        """
        backend = self.backend if special else self._plain
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_array(self, text: str) -> Ids:
        """The same ids as `encode(text)`, as int64, by a shorter way: for bulk text.

        Characters and bytes are looked up in a table. Other tokenizers meet each segment between
        two safe cuts (mostly a word) again and again, and encode it once.
        """
        if self.kind == "byte":
            return self._table.take(np.frombuffer(text.encode("utf-8"), np.uint8))
        if self.kind == "char":
            return self._table.take(np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4")))
        if self.cuts == "never":
            return np.array(self.encode(text), dtype=np.int64)
        segments = SAFE_CUT.split(text)
        known = self._known
        new = [segment for segment in dict.fromkeys(segments) if segment not in known]
        found = self._plain.encode_batch_fast(new, add_special_tokens=False)
        for segment, encoding in zip(new, found, strict=True):
            known[segment] = np.array(encoding.ids, dtype=np.uint32).tobytes()
        raw = b"".join(map(known.__getitem__, segments))
        self._known_characters += sum(map(len, new))
        if self._known_characters > KNOWN_CHARACTERS:
            self._known, self._known_characters = {}, 0
        return np.frombuffer(raw, np.uint32).astype(np.int64)

    def encode_blocks(self, texts: Sequence[str], threads: int) -> list[Ids]:
        """The ids of many texts."""
        return [self.encode_array(text) for text in texts]

    def encode_with_offsets(
        self, texts: Sequence[str]
    ) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """(ids, the first and behind-last character of each token) of plain texts.

        The tokens of one character that is split into bytes all have its offsets.
        """
        found = self._plain.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in found]

    @cached_property
    def controls(self) -> dict[str, int]:
        """Text → id of the control tokens."""
        added = self.backend.get_added_tokens_decoder()
        return {token.content: id for id, token in added.items() if token.special}

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
        segment = SAFE_CUT.split(text, maxsplit=1)[0] if self.cuts == "safe" else text
        encoding = self._plain.encode(segment, add_special_tokens=False)
        if not encoding.ids:
            return 0
        size = len(segment[: encoding.offsets[0][1]].encode("utf-8"))
        if self._byte_level and encoding.ids[0] not in self._added:
            # One character of such a token is one byte; offsets count whole characters.
            return min(size, len(encoding.tokens[0]))
        return size

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids."""
        text: str = self.backend.decode(
            [int(item) for item in ids], skip_special_tokens=skip_special
        )
        return text

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
                token = token.replace("▁", " ")
        return "".join(
            character
            if character.isprintable() or character == " "
            else character.encode("unicode_escape").decode("ascii")
            for character in token
        )

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as AutoTokenizer opens them.

        Raises:
            StorageError: the folder cannot be written.
        """
        make_folder(folder)
        settings: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
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


def byte_characters() -> dict[int, str]:
    """Byte → the character that stands for it in byte-level vocabularies.

    Visible Latin-1 characters stand for themselves; the other 68 bytes take the code points from
    256 on, in order, so that no token holds a space or control character. Source: GPT-2's files.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    table = {byte: chr(byte) for byte in visible}
    return table | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


CHARACTER_OF = byte_characters()
BYTE_OF = {character: byte for byte, character in CHARACTER_OF.items()}


def special(text: str) -> AddedToken:
    """A control token: matched as it stands, never trimmed."""
    return AddedToken(text, special=True, normalized=False)


def kind_of(pipeline: Mapping[str, Any]) -> str:
    """Recognise our own pipelines and GPT-2's by their rules, whoever wrote the file."""
    model, before = pipeline["model"], pipeline["pre_tokenizer"]
    if pipeline["normalizer"] is not None or before is None:
        return "other"
    if any(not token["special"] for token in pipeline["added_tokens"]):
        return "other"
    steps = before["pretokenizers"] if before["type"] == "Sequence" else [before]
    patterns = [step.get("pattern", {}).get("Regex") for step in steps]
    byte_level = steps[-1]["type"] == "ByteLevel" and not steps[-1]["add_prefix_space"]
    own_rules = byte_level and not steps[-1]["use_regex"]
    if model["type"] == "WordLevel" and model["unk_token"] in model["vocab"]:
        return {CHAR_PATTERN: "char", WORD_PATTERN: "word"}.get(patterns[0], "other")
    if model["type"] != "BPE" or not set(BYTE_OF) <= set(model["vocab"]):
        return "other"
    if own_rules and len(steps) == 1 and not model["merges"]:
        return "byte"
    if own_rules and patterns == [BPE_PATTERN, None]:
        return "bpe"
    return "gpt2" if byte_level and steps[-1]["use_regex"] and len(steps) == 1 else "other"


def cuts_safely(pipeline: Mapping[str, Any], backend: Backend) -> bool:
    """Whether a pipeline that we did not write gives equal ids on both sides of our cuts.

    Trusted are the families whose rules we know (a regular expression, then bytes), and only
    after a trial: a space put before every text, as SentencePiece does, fails it.
    """
    rules = json.dumps(pipeline["pre_tokenizer"])
    normalizer = pipeline["normalizer"]
    if '"ByteLevel"' not in rules or ('"Split"' not in rules and '"use_regex": true' not in rules):
        return False
    if normalizer is not None and normalizer["type"] not in ("NFC", "NFKC"):
        return False
    left = ["uno\n", "end.\n", "x)\n", "a b\n", "12\n", "día", "the  cat", "\n\nword", "It's"]
    right = ["dos tres", "Élan", "s x", " cat", " s", " a\n"]
    for first in left:
        for second in right:
            if first.endswith("\n") == second.startswith(" "):
                continue
            parts = [
                backend.encode(text, add_special_tokens=False).ids
                for text in (first + second, first, second)
            ]
            if parts[0] != parts[1] + parts[2]:
                return False
    return True


def train_tokenizer(
    spec: str,
    texts: Callable[[], Iterator[str]],
    separator: str,
    special_tokens: Sequence[str] = (),
    chat_template: str | None = None,
) -> Tokenizer:
    """Make a tokenizer from a text.

    Args:
        spec: char, byte, word, word:SIZE or bpe:SIZE.
        texts: gives the training text, in stretches, each time it is called.
        separator: text of the token between documents.
        special_tokens: further control tokens, for example the marks of a conversation.

    Raises:
        InputError: the spec cannot be read, or SIZE is too small.
    """
    name, size = parse_spec(spec)
    controls = list(dict.fromkeys([separator, *special_tokens]))
    if name in ("char", "word"):
        controls.insert(1, UNKNOWN)
    least = len(controls) + (256 if name == "bpe" else 1)
    if name in ("bpe", "word") and size is not None and size < least:
        parts = "256 bytes + " if name == "bpe" else "1 word + "
        raise InputError(
            f"tokenizer {spec!r}: a vocabulary of {size} is too small; at least {least} "
            f"({parts}{len(controls)} special tokens: {', '.join(controls)})."
        )
    backend = {"char": char, "byte": byte, "word": word, "bpe": bpe}[name](texts, controls, size)
    return Tokenizer(backend, separator, chat_template)


def parse_spec(spec: str) -> tuple[str, int | None]:
    """("bpe", 4096) of "bpe:4096".

    Raises:
        InputError: no such kind, or a size where none belongs, or none where one does.
    """
    name, colon, size = spec.partition(":")
    if name not in ("char", "byte", "word", "bpe"):
        raise InputError(
            unknown_name(spec, SPECS, "tokenizer")
            + " Or give the path of an existing tokenizer.json or of a folder with one."
        )
    if name in ("char", "byte") and colon:
        raise InputError(f"tokenizer {spec!r}: {name} takes no size; write {name!r}.")
    if not colon and name != "bpe":
        return name, None
    if not re.fullmatch(r"[0-9]{1,9}", size):
        raise InputError(
            f"tokenizer {spec!r}: expected the size of the vocabulary as a whole number, "
            f"for example '{name}:4096'."
        )
    return name, int(size)


def char(texts: Callable[[], Iterator[str]], controls: list[str], size: int | None) -> Backend:
    """One token a character: specials first, then the characters by code point."""
    characters: set[str] = set()
    for text in texts():
        characters.update(text)
    tokens = [*controls, *sorted(characters.difference(controls))]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    backend = Backend(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(CHAR_PATTERN), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([special(token) for token in controls])
    return backend


def byte(texts: Callable[[], Iterator[str]], controls: list[str], size: int | None) -> Backend:
    """One token a byte: ids 0 to 255 are the bytes, then the specials."""
    vocabulary = {character: value for value, character in CHARACTER_OF.items()}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([special(token) for token in controls])
    return backend


def word(texts: Callable[[], Iterator[str]], controls: list[str], size: int | None) -> Backend:
    """One token a word, the most frequent ones; all that occur where `size` is None."""
    backend = Backend(models.WordLevel({}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    backend.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(
        vocab_size=2**31 if size is None else size,
        min_frequency=0,
        show_progress=False,
        special_tokens=[special(token) for token in controls],
    )
    backend.train_from_iterator(texts(), trainer)
    return backend


def bpe(texts: Callable[[], Iterator[str]], controls: list[str], size: int | None) -> Backend:
    """Byte-level byte-pair encoding; a merge must occur at least twice in the text.

    Source: Sennrich et al. 2016 (arXiv:1508.07909), on bytes as in GPT-2.
    """
    assert size is not None  # parse_spec demands it
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(BPE_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[special(token) for token in controls],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(texts(), trainer)
    return backend


def load_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer.json, a folder with one, or a folder with GPT-2's own two files.

    The separator is the end token that tokenizer_config.json names, else `<|endoftext|>`.

    Raises:
        InputError: nothing of that kind there, or the files are broken.
    """
    folder = path if path.is_dir() else path.parent
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = read_json(folder / "tokenizer_config.json")
    template = settings.get("chat_template")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    named = {}
    for role in ("eos_token", "bos_token", "pad_token"):
        value = settings.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            named[role] = text
    separator = named.pop("eos_token", SEPARATOR)
    return Tokenizer(
        load_backend(path), separator, template if isinstance(template, str) else None, named
    )


def load_backend(path: Path) -> Backend:
    """The pipeline of `load_tokenizer`."""
    if path.is_file() and path.suffix == ".json":
        return backend_from_json(path)
    if (path / "tokenizer.json").is_file():
        return backend_from_json(path / "tokenizer.json")
    for names in (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        vocabulary, merges = path / names[0], path / names[1]
        if vocabulary.is_file() and merges.is_file():
            return gpt2(vocabulary, merges)
    if not path.exists():
        raise InputError(f"{path}: no such tokenizer file or folder.")
    raise InputError(
        f"{path}: no tokenizer here; expected a tokenizer.json, or a folder with tokenizer.json, "
        "with encoder.json and vocab.bpe, or with vocab.json and merges.txt."
    )


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
    texts: Callable[[], Iterator[str]],
    separator: str,
    special_tokens: Sequence[str] = (),
    chat_template: str | None = None,
) -> Tokenizer:
    """Train a tokenizer by its spec, or load it where the spec is a path.

    A loaded one writes `separator` between documents where its vocabulary has that token, else
    its own end token; a chat template or special tokens given here are laid over it.

    Raises:
        InputError: neither a spec nor an existing path (the nearest spec is named).
    """
    if not is_path(spec):
        return train_tokenizer(spec, texts, separator, special_tokens, chat_template)
    loaded = load_tokenizer(Path(spec).expanduser())
    backend = loaded.backend
    if special_tokens:
        backend.add_special_tokens([special(token) for token in special_tokens])
    known = backend.token_to_id(separator) is not None
    return Tokenizer(
        backend,
        separator if known else loaded.separator,
        chat_template or loaded.chat_template,
        loaded.named_tokens,
    )


def is_path(spec: str) -> bool:
    """Whether a tokenizer setting names an existing file or folder rather than a training spec."""
    trained = re.fullmatch(r"(char|byte|word|bpe)(:.*)?", spec) is not None
    return not trained and Path(spec).expanduser().exists()
