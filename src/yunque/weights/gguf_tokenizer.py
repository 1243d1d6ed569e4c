"""The tokenizer inside a GGUF file, both ways.

Two of llama.cpp's models are known: "gpt2", byte-level BPE, which is here, and "llama", BPE that
falls back on bytes (gguf_sentencepiece.py).

llama.cpp holds no regular expression: it knows ways of splitting text by name, and a name stands
here for exactly one pipeline. A tokenizer that splits in another way is refused, because the same
text would have other ids there. What llama.cpp does otherwise than `tokenizers`, whatever the
file says:

- It composes no characters. The "qwen2" pipelines do (NFC), so a text with separate accents has
  other ids there.
- It also stops at tokens whose text looks like an end of turn, such as `<|im_end|>`.

Source: llama-vocab.cpp of llama.cpp; the keys of the `gguf` package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from yunque.errors import InputError
from yunque.files import make_folder, read_json, write_json, write_text
from yunque.weights import gguf_sentencepiece
from yunque.weights.gguf_file import open_gguf
from yunque.weights.gguf_sentencepiece import CONTROL, NORMAL, UNUSED, USER_DEFINED

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Pre:
    """A pipeline before the merges, and how the merges are used."""

    pattern: str
    digits: bool = False
    """Each digit is first split off."""
    whole: bool = False
    """A piece that is a token is taken whole, without merges (`ignore_merges`)."""
    composed: bool = False
    """Characters are composed first (NFC)."""


PRES = {
    "gpt-2": Pre(GPT2),
    "smollm": Pre(GPT2, digits=True),
    "llama-bpe": Pre(LLAMA3, whole=True),
    "dbrx": Pre(LLAMA3),
    "qwen2": Pre(QWEN2, composed=True),
    "stablelm2": Pre(QWEN2),
}
"""tokenizer.ggml.pre → what it stands for."""
OTHER_NAMES = {
    "phi-2": "gpt-2",
    "starcoder": "smollm",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "smaug-bpe": "dbrx",
}
KINDS = (
    "byte-level BPE that splits text as GPT-2, SmolLM, Llama 3 or Qwen2 does, and SentencePiece "
    "BPE as Llama 2 has. Train with such a tokenizer (--tokenizer bpe-gpt2:4096, or the folder of "
    "a published one), or convert to a Hugging Face folder, which holds any"
)
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
MORE_ENDS = ("eot", "eom")  # the format's places for end tokens besides eos


@dataclass(frozen=True)
class Value:
    """A value of the metadata; `kind` is the format's name of its type."""

    kind: str
    content: Any


def tokenizer_metadata(folder: Path, vocab_size: int) -> dict[str, Value]:
    """The keys of a GGUF file for the tokenizer of a folder.

    Args:
        vocab_size: rows of the model's embedding; those behind the tokens are filled.

    Raises:
        InputError: files are missing or damaged, or llama.cpp cannot hold this tokenizer.
    """
    path = folder / "tokenizer.json"
    pipeline = read_json(path)
    settings = read_json(folder / "tokenizer_config.json")
    generation = read_json(folder / "generation_config.json")
    try:
        backend = Backend.from_str(json.dumps(pipeline))
    except Exception as error:  # the library raises bare Exception for every broken file
        raise InputError(f"{path}: not a tokenizer.json: {error}.") from None
    if pipeline["model"].get("byte_fallback"):
        found = sentencepiece_keys(path, pipeline, backend, vocab_size)
    else:
        found = byte_level_keys(path, pipeline, backend, vocab_size)
    ids = role_ids(backend, settings, generation, folder)
    found |= {f"{name}_token_id": Value("UINT32", id) for name, id in ids.items()}
    begins, ends = added_around(path, backend, ids)
    found |= {"add_bos_token": Value("BOOL", begins), "add_eos_token": Value("BOOL", ends)}
    keys = {f"tokenizer.ggml.{name}": value for name, value in found.items()}
    template = chat_template(folder, settings)
    if template:
        keys["tokenizer.chat_template"] = Value("STRING", template)
    return keys


def byte_level_keys(
    path: Path, pipeline: Mapping[str, Any], backend: Backend, vocab_size: int
) -> dict[str, Value]:
    """The keys of a byte-level BPE.

    Raises:
        InputError: llama.cpp would give other ids.
    """
    pre = next((name for name, pre in PRES.items() if pre == pre_of(pipeline)), None)
    fault = unsupported(pipeline)
    if fault is None and pre is None:
        fault = "it splits text in a way that llama.cpp does not know"
    if fault is not None:
        raise InputError(f"{path}: {fault}. A GGUF file holds {KINDS}.")
    tokens, types = token_list(path, pipeline, backend, vocab_size)
    merges = [
        merge if isinstance(merge, str) else " ".join(merge)
        for merge in pipeline["model"]["merges"]
    ]
    return {
        "model": Value("STRING", "gpt2"),
        "pre": Value("STRING", pre),
        "tokens": Value("ARRAY STRING", tokens),
        "token_type": Value("ARRAY INT32", types),
        "merges": Value("ARRAY STRING", merges),
    }


def sentencepiece_keys(
    path: Path, pipeline: Mapping[str, Any], backend: Backend, vocab_size: int
) -> dict[str, Value]:
    """The keys of a BPE that falls back on bytes.

    Raises:
        InputError: llama.cpp would give other ids.
    """
    model, added = pipeline["model"], pipeline.get("added_tokens", [])
    normalizer = steps(pipeline.get("normalizer"))
    fault = own_way(model, added) or gguf_sentencepiece.unsupported(
        model,
        normalizer,
        steps(pipeline.get("pre_tokenizer")),
        {token["content"] for token in added},
    )
    if fault is not None:
        raise InputError(f"{path}: {fault}. A GGUF file holds {KINDS}.")
    tokens, types = token_list(path, pipeline, backend, vocab_size)
    types = gguf_sentencepiece.token_types(tokens, types, model["unk_token"])
    scores = gguf_sentencepiece.scores(tokens, model["merges"])
    return {
        "model": Value("STRING", "llama"),
        "pre": Value("STRING", "default"),
        "tokens": Value("ARRAY STRING", tokens),
        "scores": Value("ARRAY FLOAT32", scores),
        "token_type": Value("ARRAY INT32", types),
        "add_space_prefix": Value("BOOL", gguf_sentencepiece.PREFIX in normalizer),
    }


def unsupported(pipeline: Mapping[str, Any]) -> str | None:
    """Why llama.cpp's BPE cannot give the ids of this pipeline, its way of splitting apart."""
    model = pipeline["model"]
    kind = model.get("type", "BPE")
    if kind != "BPE":
        return f"its tokens are of the kind {kind}"
    if (pipeline.get("decoder") or {}).get("type") != "ByteLevel":
        return "its BPE does not work on bytes (decoder ByteLevel)"
    missing = set(pre_tokenizers.ByteLevel.alphabet()) - set(model["vocab"])
    if missing:
        return f"{len(missing)} of the 256 bytes have no token"
    if not model["merges"]:
        return "it has no merges, and llama.cpp opens no file without any"
    return own_way(model, pipeline.get("added_tokens", []))


def own_way(model: Mapping[str, Any], added: list[Mapping[str, Any]]) -> str | None:
    """A setting of a BPE or of its added tokens that llama.cpp does not know."""
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            return f"its model sets {key} to {model[key]!r}"
    for token in added:
        for flag in ("single_word", "lstrip", "rstrip"):
            if token[flag]:
                return f"its token {token['content']!r} is matched in a way of its own ({flag})"
    return None


def pre_of(pipeline: Mapping[str, Any]) -> Pre | None:
    """The steps of a pipeline up to the merges, where they are of the kinds that `Pre` holds."""
    normalizer, splits = steps(pipeline.get("normalizer")), steps(pipeline.get("pre_tokenizer"))
    if not splits or any(step != {"type": "NFC"} for step in normalizer):
        return None
    *before, last = splits
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    digits = {"type": "Digits", "individual_digits": True} in before
    patterns = [step["pattern"].get("Regex") for step in before if isolates(step)]
    if len(patterns) + digits != len(before):
        return None
    patterns += [GPT2] if last.get("use_regex", True) else []
    if len(patterns) != 1:
        return None
    return Pre(
        patterns[0],
        digits,
        whole=bool(pipeline["model"].get("ignore_merges")),
        composed=bool(normalizer),
    )


def steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer as a flat list."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    inner = part.get("normalizers") or part.get("pretokenizers") or []
    return [step for one in inner for step in steps(one)]


def isolates(step: Mapping[str, Any]) -> bool:
    """Whether a step makes each match of a regular expression a piece of its own."""
    return (step["type"], step.get("behavior"), step.get("invert")) == ("Split", "Isolated", False)


def token_list(
    path: Path, pipeline: Mapping[str, Any], backend: Backend, vocab_size: int
) -> tuple[list[str], list[int]]:
    """The text and the type of every id; ids without a token are unused.

    Raises:
        InputError: there are more tokens than rows, or two ids have the same text.
    """
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    most = max(vocabulary.values()) + 1
    if most > vocab_size:
        raise InputError(
            f"{path}: it has {most} tokens and the model {vocab_size} rows: not this model's "
            "tokenizer."
        )
    tokens = [f"[PAD{id}]" for id in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for token, id in vocabulary.items():
        tokens[id], types[id] = token, NORMAL
    for id, added in backend.get_added_tokens_decoder().items():
        types[id] = CONTROL if added.special else USER_DEFINED
    if len(set(tokens)) < len(tokens):
        raise InputError(f"{path}: two ids have the same text, which llama.cpp does not open.")
    return tokens, types


def role_ids(
    backend: Backend, settings: Mapping[str, Any], generation: Mapping[str, Any], folder: Path
) -> dict[str, int]:
    """The format's name of a role → its id; end tokens besides the first are eot and eom."""
    ids: dict[str, int] = {}
    for role, name in ROLES.items():
        token = settings.get(role)
        text = token.get("content") if isinstance(token, dict) else token
        stated = generation.get(f"{role}_id")
        first = stated[0] if isinstance(stated, list) and stated else stated
        known = None if text is None else backend.token_to_id(text)
        id = first if known is None else known
        if isinstance(id, int):
            ids[name] = id
    ends = generation.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    others = [id for id in ends if id != ids.get("eos")]
    if len(others) > len(MORE_ENDS):
        raise InputError(
            f"{folder / 'generation_config.json'}: {len(others) + 1} end tokens, and a GGUF file "
            "holds 3. Leave out those that the model never writes."
        )
    return ids | dict(zip(MORE_ENDS, others, strict=False))


def added_around(path: Path, backend: Backend, ids: Mapping[str, int]) -> tuple[bool, bool]:
    """Whether encoding puts the begin token before a text and the end token behind it.

    Raises:
        InputError: it adds something else.
    """
    plain, full = (backend.encode("a", add_special_tokens=flag).ids for flag in (False, True))
    for begins in (False, True):
        for ends in (False, True):
            before = [ids.get("bos")] if begins else []
            behind = [ids.get("eos")] if ends else []
            if full == [*before, *plain, *behind]:
                return begins, ends
    raise InputError(
        f"{path}: it puts other tokens around a text than the begin and end token that "
        f"tokenizer_config.json names ({full} for {plain}); a GGUF file cannot hold that."
    )


def chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The folder's chat template.

    Raises:
        InputError: there are several.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if template is not None and not isinstance(template, str):
        raise InputError(
            f"{folder / 'tokenizer_config.json'}: chat_template is a list of several; keep one, "
            "as a text."
        )
    return template


def gguf_tokenizer(file: Path, folder: Path) -> None:
    """Write the tokenizer of a GGUF file as tokenizer.json and its two configurations.

    Raises:
        InputError: the file is damaged, or its tokenizer is of a kind that is not read.
        StorageError: the folder cannot be written.
    """
    metadata = open_gguf(file).metadata
    found = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in metadata.items()
        if key.startswith("tokenizer.ggml.")
    }
    kind, name = found.get("model"), found.get("pre")
    pre = PRES.get(OTHER_NAMES.get(str(name), str(name)))
    if kind == "llama":
        backend = gguf_sentencepiece.to_backend(file, found)
    elif kind != "gpt2":
        raise InputError(
            f"{file}: tokenizer.ggml.model is {kind!r}, and only 'gpt2' (byte-level BPE) and "
            "'llama' (SentencePiece BPE) are read. Take the tokenizer from the model's Hugging "
            "Face folder."
        )
    elif pre is None:
        raise InputError(
            f"{file}: tokenizer.ggml.pre is {name!r}, a way of splitting text that is not read; "
            f"known are {', '.join([*PRES, *OTHER_NAMES])}. Take the tokenizer from the model's "
            "Hugging Face folder."
        )
    else:
        backend = to_backend(file, found, pre)
    tokens = found["tokens"]
    ids = {
        name: found[f"{name}_token_id"]
        for name in (*ROLES.values(), *MORE_ENDS)
        if f"{name}_token_id" in found
    }
    for name, id in ids.items():
        if not isinstance(id, int) or not 0 <= id < len(tokens):
            raise InputError(
                f"{file}: {name}_token_id is {id!r}, and there are {len(tokens)} tokens."
            )
    # What llama.cpp does where the file says nothing.
    begins = kind == "llama" or (pre is not None and pre.whole)
    add_around(backend, {"add_bos_token": begins} | found, ids)
    settings: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer" if pre == PRES["qwen2"] else "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    settings |= {role: tokens[ids[name]] for role, name in ROLES.items() if name in ids}
    if "tokenizer.chat_template" in metadata:
        settings["chat_template"] = metadata["tokenizer.chat_template"]
    ends = list(dict.fromkeys(ids[name] for name in ("eos", *MORE_ENDS) if name in ids))
    generation: dict[str, Any] = {
        f"{role}_id": ids[name]
        for role, name in ROLES.items()
        if role in ("bos_token", "pad_token") and name in ids
    }
    if ends:
        generation["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    make_folder(folder)
    write_text(folder / "tokenizer.json", backend.to_str(pretty=True))
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "generation_config.json", generation)


def to_backend(file: Path, found: Mapping[str, Any], pre: Pre) -> Backend:
    """The pipeline that the keys under tokenizer.ggml describe.

    Raises:
        InputError: keys are missing, of the wrong kind or contradict each other.
    """
    tokens, types, merges = (found.get(key) for key in ("tokens", "token_type", "merges"))
    if not (isinstance(tokens, list) and isinstance(merges, list) and isinstance(types, list)):
        raise InputError(f"{file}: tokens, token_type or merges is missing under tokenizer.ggml.")
    if not all(isinstance(token, str) for token in tokens):
        raise InputError(f"{file}: tokenizer.ggml.tokens is no list of texts.")
    if len(types) != len(tokens):
        raise InputError(f"{file}: {len(tokens)} tokens and {len(types)} types of tokens.")
    used = {id: token for id, token in enumerate(tokens) if types[id] != UNUSED}
    normal = [id for id in used if types[id] == NORMAL]
    last = max(normal, default=0)
    # Behind the vocabulary the library counts on by itself; elsewhere ids must be given.
    inside = {token: id for id, token in used.items() if types[id] == NORMAL or id < last}
    if len(inside) != last + 1 or max(used, default=0) != len(used) - 1:
        inside = {token: id for id, token in used.items()}
    try:
        pairs = [tuple(merge.split(" ")) for merge in merges]
        backend = Backend(models.BPE(vocab=inside, merges=pairs, ignore_merges=pre.whole))
    except Exception as error:  # the library raises bare Exception for what it cannot use
        raise InputError(f"{file}: its tokens and merges do not fit together: {error}.") from None
    if pre.composed:
        backend.normalizer = normalizers.NFC()
    cuts: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if pre.digits else []
    if pre.pattern != GPT2:
        cuts.append(pre_tokenizers.Split(Regex(pre.pattern), "isolated"))
    cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre.pattern == GPT2))
    backend.pre_tokenizer = cuts[0] if len(cuts) == 1 else pre_tokenizers.Sequence(cuts)
    backend.decoder = decoders.ByteLevel()
    for id, token in used.items():
        if types[id] != NORMAL:
            added = AddedToken(token, special=types[id] != USER_DEFINED, normalized=False)
            backend.add_tokens([added])
            if backend.token_to_id(token) != id:
                raise InputError(f"{file}: the text of token {id}, {token!r}, is not its own.")
    return backend


def add_around(backend: Backend, found: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    """Have the pipeline put the begin and end tokens around a text, where the file says so."""
    flags = {"bos": found["add_bos_token"], "eos": found.get("add_eos_token")}
    tokens = found["tokens"]
    begin, end = ([tokens[ids[n]]] if flags[n] and n in ids else [] for n in ("bos", "eos"))
    if begin or end:
        backend.post_processor = processors.TemplateProcessing(
            single=[*begin, "$A", *end],
            pair=[*begin, "$A", *end, *begin, "$B", *end],
            special_tokens=[(token, backend.token_to_id(token)) for token in {*begin, *end}],
        )
