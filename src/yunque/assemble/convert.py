"""MODEL → an open format that other programs open, with a card and a certificate."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from torch import Tensor

from yunque import __version__, runlog
from yunque.adapt.lora import drift
from yunque.adapt.lora import merge as merge_adapters
from yunque.adapt.quantize import read_quantization
from yunque.assemble.models import (
    Model,
    adaptable,
    base_of,
    base_path,
    by_transformers,
    is_adapter,
    load,
    model_path,
    not_finite,
)
from yunque.assemble.sources import located
from yunque.config import GenerateConfig, Recipe, merge, raise_faults, read_tree, unknown_name
from yunque.data.chat_template import ChatTemplate, chat_template_of
from yunque.data.sandbox import StoppedTemplate
from yunque.data.template_manner import manner_of
from yunque.data.tokenizer import Tokenizer, load_tokenizer
from yunque.errors import InputError
from yunque.files import read_json, remove_folder, staged_folder, write_json
from yunque.generate.decode import generate
from yunque.hub import hub_id
from yunque.model.decoder import Decoder
from yunque.weights.certificate import (
    LOGITS_BOUND,
    Certificate,
    Check,
    Prompt,
    Speaker,
    answers_before,
    bounded,
)
from yunque.weights.export import (
    Card,
    Training,
    export_folder,
    finish,
    read_back,
    rounding_figures,
    rounds,
    settle_weights,
)
from yunque.weights.families import HEAD
from yunque.weights.folder import DTYPES, parse_size, stored_dtype
from yunque.weights.readback import shape_of, tensors_of
from yunque.weights.transformers_model import TransformersModel
from yunque.words import say
from yunque.words.writing import scientific, visible

FORMATS = ("hf", "gguf")
MergeOnto = Literal["full", "dequantised"]
GGUF_DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "q8_0": "q8_0"}
KEPT_SETTINGS = ("do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""What a source's generation_config.json may say of sampling; it goes into the export's."""
PROBES = 1000
"""Tokens whose own texts both tokenizers encode, and as many rows of tokens."""

TEXTS = (
    "Every effort moves you",
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme,",
    "  two spaces, a tab\tand\n\na blank line; 3.14159 and 47 + 38 = 85",
    "¿Cuánto cuesta? Ñandú, pingüino, œuvre, Straße, naïve, 東京, привет, 🙂👍🏽",
    'def f(x):\n    return {"a": [x, None]}  # code',
)
CHATS = (
    Prompt(messages=(("user", "¿Cuánto es 47 + 38?"),)),
    Prompt(messages=(("system", "Be brief."), ("user", "Name a river."))),
    Prompt(messages=(("user", "Hi"), ("assistant", "Hello!\nHow are you?"), ("user", "Fine."))),
    Prompt(messages=(("user", "Hi"), ("assistant", "Bye.")), asking=False),
)


@dataclass(frozen=True)
class Converted:
    """What was written."""

    folder: Path
    to: str
    dtype: str
    certificate: Certificate
    drifts: Mapping[str, float] | None = None
    """Of a merged adapter whose base was quantised in training: the base that it is merged onto
    (full, dequantised) → the largest change of a logit from the model that was trained."""

    def sentences(self, lang: str) -> list[str]:
        """What the certificate says: the same model only where nothing was rounded."""
        told = [self.certified(lang)]
        if self.certificate.template == "unusable":
            reason = visible(self.certificate.template_fault)
            told.append(say("cli.template_unusable", lang, reason=reason))
        return told

    def certified(self, lang: str) -> str:
        """The figures of the certificate, in a line."""
        found = self.certificate
        known = {"reader": found.reader, "folder": self.folder}
        if found.rounding is None:
            figures = {id: scientific(found.figure(id), lang) for id in ("logits", "kl")}
            return say("cli.certified", lang, **known, **figures)
        moved = rounding_figures(found.rounding, lang)
        return say("cli.certified_rounded", lang, dtype=self.dtype, **known, **moved)

    def to_json(self) -> dict[str, Any]:
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        return {
            "folder": str(self.folder),
            "to": self.to,
            "dtype": self.dtype,
            "files": [path.name for path in files],
            "bytes": sum(path.stat().st_size for path in files),
            "certificate": self.certificate.to_json(),
            "drifts": self.drifts,
        }


def convert(
    model: str | Path,
    out: str | Path,
    *,
    to: str = "hf",
    merge: bool = False,
    merge_onto: MergeOnto = "full",
    dtype: str = "",
    shard_size: str = "",
    lang: str = "en",
) -> Converted:
    """Write MODEL in an open format, read it back from disk, and certify that it is the same.

    Args:
        out: a folder, new or empty.
        to: hf (a folder that transformers opens) or gguf (a file for llama.cpp).
        merge: MODEL is an adapter, and its changes go into a copy of its base.
        merge_onto: of an adapter that was trained on a quantised base: full (the base in the
            precision of its files) or dequantised (the weights that it was trained on).
        dtype: float32, bfloat16 or float16, for gguf also q8_0. Empty: as the source is stored.
        shard_size: largest size of a file of weights, as 2GB or 500MB (hf). Empty: one file.
        lang: language of the model card, "en" or "es".

    Raises:
        InputError: a setting is wrong, `out` is not empty, MODEL cannot be read or written in
            this format, or its weights are not finite.
        ExportError: what was read back is another model; nothing stands at `out`.
    """
    folder = Path(out)
    kinds = DTYPES if to == "hf" else GGUF_DTYPES
    faults = []
    if to not in FORMATS:
        faults.append(unknown_name(to, FORMATS, "format"))
    if dtype and dtype not in kinds:
        faults.append(f"dtype is {dtype!r}: for {to} use one of {', '.join(kinds)}.")
    if shard_size and to == "gguf":
        faults.append("shard_size is for hf folders; a GGUF file is one file.")
    raise_faults(faults + used_folder(folder))
    path = model_path(model)
    if merge and not is_adapter(path):
        raise InputError(f"{model}: not an adapter, so there is nothing to merge. Leave it out.")
    if is_adapter(path) and not merge:
        raise InputError(
            f"{model}: an adapter, which transformers opens with PEFT as it is. To write the whole "
            "model, give --merge."
        )
    largest = parse_size(shard_size) if shard_size else 0
    if merge_onto == "dequantised" and not (merge and read_quantization(path)):
        raise InputError(
            f"{model}: merge_onto is 'dequantised', which is for --merge of an adapter that was "
            "trained on a quantised base. Leave it out."
        )
    weights_at = base_path(path) if merge else path
    if to == "gguf" and by_transformers(weights_at):
        refuse_gguf(model, weights_at)
    trained: Tensor | None = None
    drifts: dict[str, float] | None = None
    if merge and read_quantization(path):
        trained = text_logits(load(path, device="cpu"))
        other: MergeOnto = "full" if merge_onto == "dequantised" else "dequantised"
        drifts = {other: merged_drift(load(path, device="cpu", onto=other), trained)}
    source = load(path, device="cpu", precision="fp32", onto=merge_onto)
    if not all(bool(weight.isfinite().all()) for weight in source.module.parameters()):
        raise not_finite(path)
    chosen = dtype or stored_dtype(weights_at)
    card = card_of(source, str(model), folder.name, chosen, to)
    before = [merged_check(source)] if merge else []
    if trained is not None and drifts is not None:
        drifts[merge_onto] = drift(trained, text_logits(source))
    if to == "hf":
        certificate = to_folder(source, folder, card, lang, largest, before)
    else:
        certificate = to_gguf(source, folder, card, lang, before)
    return Converted(folder, to, chosen, certificate, drifts)


def refuse_gguf(model: str | Path, weights_at: Path) -> NoReturn:
    """Say what to do with an architecture that is not the Decoder's.

    Raises:
        InputError: always.
    """
    family = read_json(weights_at / "config.json").get("model_type")
    raise InputError(
        f"{model}: model_type is {family!r}, which transformers computes; GGUF files are written "
        "here for GPT-2, Llama, Mistral, Qwen2, Qwen3 and Phi. Write a folder with --to hf, and "
        "give that to convert_hf_to_gguf.py of llama.cpp, which knows more architectures."
    )


@torch.no_grad()
def text_logits(source: Model) -> Tensor:
    """The logits of a model over our texts, `(N, V)`."""
    rows = [
        source.tokenizer.prompt_ids(text)[: source.module.config.context_length] for text in TEXTS
    ]
    found = [source.module(torch.tensor([row])) for row in rows if row]
    return torch.cat([source.module.head(hidden)[0] for hidden in found])


def merged_drift(source: Model, trained: Tensor) -> float:
    """How far the adapter's model, merged here and in place, is from the one that was trained."""
    merge_adapters(adaptable(source.module)[0])
    return drift(trained, text_logits(source))


def merged_check(source: Model) -> Check:
    """Merge the adapter of a model into its weights, in place: how far that moved the logits."""
    unmerged = text_logits(source)
    # The sum of base and adapter rounds every weight once more than reading a file does, and the
    # sums of a layer are then others: ten times the bound of two programs on equal weights.
    bound = 10 * LOGITS_BOUND * max(1.0, unmerged.abs().max().item())
    figure = merged_drift(source, unmerged)
    fault = f"merging the adapter moved a logit by {figure:.3g}, at most {bound:.3g}"
    return bounded("merge", figure, bound, fault)


def used_folder(folder: Path) -> list[str]:
    """Why nothing can be written there: an export overwrites nothing."""
    if folder.is_dir() and any(folder.iterdir()):
        return [f"{folder}: not empty. Choose a new folder."]
    if folder.exists() and not folder.is_dir():
        return [f"{folder}: a file stands there. Choose a new folder."]
    if folder.suffix == ".gguf":
        return [
            f"{folder}: OUT is a folder, which will hold the GGUF file, its card and its "
            "certificate. Leave the ending off."
        ]
    return []


def to_folder(
    source: Model,
    folder: Path,
    card: Card,
    lang: str,
    shard_bytes: int,
    before: Sequence[Check],
) -> Certificate:
    """The Hugging Face folder of a model."""
    module = source.module
    return export_folder(
        module,
        folder,
        source.tokenizer.save,
        generation_settings(source),
        source=speaker_of(source, lambda: tensors_of(module)),
        prompts=prompts_for(source),
        probes=probes(source.tokenizer),
        card=card,
        lang=lang,
        shard_bytes=shard_bytes,
        before=before,
    )


def to_gguf(
    source: Model, folder: Path, card: Card, lang: str, before: Sequence[Check]
) -> Certificate:
    """A folder with the GGUF file of a model."""
    from yunque.weights.gguf import gguf_tokenizer, load_gguf, save_gguf

    kind = GGUF_DTYPES[card.dtype]
    prompts = prompts_for(source)
    with staged_folder(folder) as stage:
        file, own, back = stage / f"model-{kind}.gguf", stage / "own", stage / "back"
        source.tokenizer.save(own)
        write_json(own / "generation_config.json", generation_settings(source))
        try:
            save_gguf(source.decoder, file, own, kind, card.title)
        except InputError as fault:  # the user knows the source's files, not our copy
            theirs = str(source.folder)
            told = str(fault).replace(str(own), theirs).replace(str(file), theirs)
            raise InputError(told) from None
        remove_folder(own)

        ours = speaker_of(source, lambda: weights(source.decoder))
        lossy = rounds(source.decoder, card.dtype, gguf=True)
        unrounded = answers_before(ours, prompts) if lossy else None

        def opened() -> Speaker:
            module = load_gguf(file, "cpu", torch.float32)
            settle_weights(source.decoder, module, card.dtype)
            gguf_tokenizer(file, back)
            tokenizer = load_tokenizer(back)
            ends = stated_ids(back, "eos_token_id") | {tokenizer.separator_id}
            return own_speaker("gguf", module, tokenizer, ends, lambda: weights(module))

        asked = probes(source.tokenizer)
        certificate = read_back(ours, prompts, asked, "gguf", opened, before, unrounded)
        remove_folder(back)
        finish(stage, folder, certificate, card, lang)
    return certificate


def weights(module: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Name and weight, a tied head left out."""
    for name, tensor in module.state_dict().items():
        if not (name == HEAD and module.config.tie_embeddings):
            yield name, tensor


def probes(tokenizer: Tokenizer) -> list[Prompt]:
    """The texts of single tokens, evenly spread over the vocabulary, and of random rows of them.

    Rows show what single tokens do not: which of two merges that compete comes first.
    """
    step = max(1, tokenizer.vocab_size // PROBES)
    singles = [[id] for id in range(0, tokenizer.vocab_size, step)]
    draw = random.Random(0)
    rows = [[draw.randrange(tokenizer.vocab_size) for _ in range(16)] for _ in singles]
    texts = (tokenizer.decode(ids) for ids in singles + rows)
    return [Prompt(text) for text in dict.fromkeys(texts) if text]


def prompts_for(source: Model) -> tuple[Prompt, ...]:
    """Texts and conversations; the latter not where our limits stop the template.

    The reader of the export has no such limits: it would be asked to run a loop without end.
    """
    return (*map(Prompt, TEXTS), *(() if stopped(source.tokenizer) else CHATS))


def stopped(tokenizer: Tokenizer) -> str:
    """Why our limits stop the chat template on one of the conversations; "" where they do not."""
    if tokenizer.chat_template is None:
        return ""
    template = chat_template_of(tokenizer)
    for prompt in CHATS:
        try:
            rendered(template, prompt)
        except StoppedTemplate as fault:
            return str(fault)
        except InputError:  # refused, and so it must be by the export
            continue
    return ""


def rendered(template: ChatTemplate, prompt: Prompt) -> str:
    """The text of a conversation.

    Raises:
        InputError: the template refuses it, fails or is stopped.
    """
    messages = [{"role": role, "content": content} for role, content in prompt.messages]
    return template.run(messages, add_generation_prompt=prompt.asking)


def template_fault(tokenizer: Tokenizer) -> str:
    """Why the chat template of a tokenizer cannot be used; "" where it can, or there is none."""
    if tokenizer.chat_template is None:
        return ""
    try:
        manner_of(chat_template_of(tokenizer))
    except InputError as fault:
        return str(fault).removeprefix("chat template: ")
    return stopped(tokenizer).removeprefix("chat template: ")


def speaker_of(source: Model, tensors: Callable[[], Iterator[tuple[str, Tensor]]]) -> Speaker:
    """The source of an export as the certificate questions it."""
    name = f"yunque {__version__}"
    speaker = own_speaker(name, source.module, source.tokenizer, source.end_ids, tensors)
    return replace(speaker, template_fault=template_fault(source.tokenizer))


def own_speaker(
    name: str,
    module: Decoder | TransformersModel,
    tokenizer: Tokenizer,
    end_ids: Collection[int],
    tensors: Callable[[], Iterator[tuple[str, Tensor]]],
) -> Speaker:
    """A model that we opened and its tokenizer, as the certificate questions them."""
    template = chat_template_of(tokenizer) if tokenizer.chat_template else None
    vocabulary: dict[str, int] = tokenizer.backend.get_vocab(with_added_tokens=True)
    pad = tokenizer.named_tokens.get("pad_token")
    ends = frozenset(end_ids)

    def ids(prompt: Prompt) -> list[int] | None:
        if not prompt.messages:
            return [*tokenizer.prompt_ids(prompt.text, special=True), *tokenizer.behind_ids]
        if template is None:
            return None
        try:
            text = rendered(template, prompt)
        except InputError:  # the template refuses such a conversation
            return None
        return tokenizer.encode(text, special=True)

    def text(ids: Sequence[int]) -> str:
        return tokenizer.decode(ids, skip_special=False)

    def logits(ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            found: Tensor = module.head(module(torch.tensor([list(ids)])))[0]
        return found.float()

    def write(ids: Sequence[int], tokens: int) -> list[int]:
        settings = GenerateConfig(max_new_tokens=tokens, temperature=0.0)
        made = generate(module, [ids], settings, ends)
        new = made.token_ids[0]
        if made.stopped[0] == "end":  # it is cut off there, and compared here
            new = [*new, int(logits([*ids, *new])[-1].argmax())]
        return new

    def stops_after(script: Sequence[int]) -> int:
        return next((n for n, id in enumerate(script, 1) if id in ends), len(script))

    return Speaker(
        name=name,
        ids=ids,
        text=text,
        logits=logits,
        write=write,
        stops_after=stops_after,
        tensors=tensors,
        vocabulary=vocabulary,
        end_ids=ends,
        pad_ids=frozenset() if pad is None else frozenset({vocabulary[pad]}),
        context=module.config.context_length,
        shape=shape_of(module),
        template=tokenizer.chat_template,
    )


def stated_ids(folder: Path, key: str) -> set[int]:
    """One id, several or none under a key of generation_config.json."""
    path = folder / "generation_config.json"
    value = read_json(path).get(key) if path.is_file() else None
    return set() if value is None else set(value) if isinstance(value, list) else {value}


def generation_settings(source: Model) -> dict[str, Any]:
    """generation_config.json of the export: begin, end and padding, and how the source samples."""
    path = source.folder / "generation_config.json"
    stated = read_json(path) if path.is_file() else {}
    settings = {key: stated[key] for key in KEPT_SETTINGS if stated.get(key) is not None}
    ends = sorted(source.end_ids)
    settings["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    for role in ("bos", "pad"):
        token = source.tokenizer.named_tokens.get(f"{role}_token")
        if token is not None:
            settings[f"{role}_token_id"] = source.tokenizer.backend.token_to_id(token)
    return settings


def card_of(source: Model, name: str, title: str, dtype: str, to: str) -> Card:
    """What the source's own files say of it."""
    run = source.folder.parent
    trained = source.folder.name in ("best", "last") and (run / "recipe.toml").is_file()
    front = stated_front(source.folder / "README.md")
    base = front.get("base_model", "") if trained else Path(name).name
    if trained or is_adapter(source.folder):
        base = named_base(run, source.folder) or base
    if not trained and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists():
        base = name  # a Hub id is named whole
    return Card(
        title=title,
        config=source.module.config,
        parameters=source.module.parameter_counts()["total"],
        dtype=dtype,
        version=__version__,
        library="transformers" if to == "hf" else "gguf",
        base=base,
        license=front.get("license", ""),
        training=training_of(run, source.folder.name) if trained else None,
    )


def named_base(run: Path, folder: Path) -> str:
    """What a fine-tuned model was made from, by the name that it is known by; "" for nothing."""
    if is_adapter(folder):
        stated = base_of(folder)
    else:
        stated = str(read_tree(run / "recipe.toml").get("base", ""))
    path = Path(stated)
    if not stated or not path.exists():
        hub = hub_id(stated) if stated else None
        return hub.name if hub else stated
    return path.parent.name if path.name in ("best", "last") else path.name


def stated_front(path: Path) -> dict[str, str]:
    """The plain keys of a card's front matter; none where there is no card."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.findall(r"^(\w+): *(.+)$", head[1] if head else "", re.MULTILINE)
    values = {key: value.strip().strip("\"'") for key, value in found}
    return {key: value for key, value in values.items() if value != "unknown"}


def training_of(run: Path, kept: str) -> Training:
    """What a run's files say of the model that it kept as best/ or last/."""
    recipe = merge(Recipe(), read_tree(run / "recipe.toml"), str(run / "recipe.toml"))
    rows = list(runlog.read(run / runlog.NAME))
    evals = [row.values for row in rows if row.event == "eval"]
    last = rows[-1].values
    step, measured = last["step"], evals[-1] if evals else {}
    if kept == "best" and evals:
        by_exam = recipe.train.watch == "exam"
        watched = [row.values for row in rows if row.event == ("exam" if by_exam else "eval")]
        chosen = runlog.chosen_step(watched, by_exam)
        step = step if chosen is None else chosen
        measured = next((row for row in evals if row["step"] == step), measured)
    exams = [row.values for row in rows if row.event == "exam" and row.values["step"] == step]
    report = read_json(run / "report.json") if (run / "report.json").is_file() else {}
    recipe, tokens = located(recipe, run)
    record = read_json(tokens / "data.json") if (tokens / "data.json").is_file() else {}
    facts = record.get("facts", {})
    return Training(
        sources=tuple(str(source["name"]) for source in record.get("sources", [])),
        documents=int(facts.get("documents", 0)),
        tokens=facts.get("tokens", {}),
        fingerprint=str(record.get("fingerprint", "")),
        steps=last["step"],
        tokens_seen=last["tokens_seen"],
        seconds=last["seconds"],
        seed=recipe.machine.seed,
        step=step,
        train_loss=measured.get("train_loss"),
        val_loss=measured.get("val_loss"),
        exam=(exams[-1]["right"], exams[-1]["total"]) if exams else None,
        verdict=report.get("verdict", {}).get("text", {}),
        unknown=[item["text"] for item in report.get("unknown", [])],
    )
