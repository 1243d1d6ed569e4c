"""THE WAY OUT: a model as a folder with its card and its certificate, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yunque.config import ModelConfig
from yunque.errors import ExportError
from yunque.files import staged_folder, write_json, write_text
from yunque.model.decoder import Decoder
from yunque.weights.certificate import (
    Answers,
    Certificate,
    Check,
    Prompt,
    Rounding,
    Speaker,
    answers_before,
    certify,
)
from yunque.weights.folder import DTYPES, cast, write_folder
from yunque.weights.readback import transformers_speaker
from yunque.weights.transformers_model import (
    TransformersModel,
    TransformersShape,
    save_transformers,
)
from yunque.words import say
from yunque.words.writing import duration, number, percent, scientific, visible

CERTIFICATE = "certificate.json"
CARD = "README.md"


@dataclass(frozen=True)
class Training:
    """What a run's own files say of the model that it kept."""

    sources: tuple[str, ...]
    """Names, without the folders that they lay in."""
    documents: int
    tokens: Mapping[str, int]
    """Split → tokens."""
    fingerprint: str
    """Of the data: SHA-256 of its sources and settings."""
    steps: int
    """Updates that the whole run made."""
    tokens_seen: int
    seconds: float
    seed: int
    step: int
    """The update whose model this is."""
    train_loss: float | None
    """Nats per token at `step`."""
    val_loss: float | None
    exam: tuple[int, int] | None
    """Right answers, questions, at `step`; None: there was no exam."""
    verdict: Mapping[str, str]
    """What the report says, by language; empty where there is none."""
    unknown: Sequence[Mapping[str, str]]
    """What the report says is not known, by language."""


@dataclass(frozen=True)
class Card:
    """What is known of a model; what is not is said in the card as well."""

    title: str
    config: ModelConfig | TransformersShape
    parameters: int
    dtype: str
    version: str
    """Of this program."""
    library: str = "transformers"
    """The program that opens the export: transformers or gguf."""
    base: str = ""
    """The model that it was made from. Empty: none."""
    license: str = ""
    """Empty: nobody stated one."""
    training: Training | None = None
    """None: it was not trained here."""


def export_folder(
    model: Decoder | TransformersModel,
    folder: Path,
    save_tokenizer: Callable[[Path], None],
    generation: Mapping[str, Any],
    *,
    source: Speaker,
    prompts: Sequence[Prompt],
    probes: Sequence[Prompt] = (),
    card: Card,
    lang: str,
    shard_bytes: int = 0,
    before: Sequence[Check] = (),
) -> Certificate:
    """Write a folder, read it back with transformers, and keep it only where it is the same model.

    Args:
        save_tokenizer, generation, shard_bytes: as in `write_folder`; the number format is the
            card's `dtype`.
        source: the model that it came from. Its weights, which are those of `model`, are rounded
            to that format: they stay so.
        prompts, probes: what both are asked, as in `certify`.
        lang: language of the card, "en" or "es".
        before: checks of what was done to the source; they join the certificate.

    Raises:
        ExportError: what was read back is another model; nothing stands at `folder`, and the
            certificate is beside it, as FOLDER.failed.json.
        InputError: as `write_folder`.
        StorageError: writing failed.
    """
    lossy = rounds(model, card.dtype)
    unrounded = answers_before(source, prompts) if lossy else None
    # What is compared with: from here on the source has the weights that the file will have.
    round_weights(model, card.dtype)
    with staged_folder(folder) as stage:
        if isinstance(model, Decoder):
            write_folder(model, stage, save_tokenizer, generation, card.dtype, shard_bytes)
        else:
            save_transformers(model, stage, generation, DTYPES[card.dtype][0], shard_bytes)
            save_tokenizer(stage)
        certificate = read_back(
            source,
            prompts,
            probes,
            "transformers",
            lambda: transformers_speaker(stage),
            before,
            unrounded,
        )
        finish(stage, folder, certificate, card, lang)
    return certificate


def read_back(
    source: Speaker,
    prompts: Sequence[Prompt],
    probes: Sequence[Prompt],
    reader: str,
    opened: Callable[[], Speaker],
    before: Sequence[Check] = (),
    unrounded: Answers | None = None,
) -> Certificate:
    """The certificate of an export; one that cannot even be opened fails as "reader".

    Args:
        before: checks of what was done to the source; they come first.
        unrounded: as in `certify`.
    """
    try:
        export = opened()
    except Exception as error:  # the reader is a foreign program: its errors have no common kind
        reason = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"
        check = Check("reader", False, None, 0.0, f"it cannot be opened ({reason})")
        return Certificate(source.name, reader, (*before, check))
    found = certify(source, export, prompts, probes, unrounded=unrounded)
    return dataclasses.replace(found, checks=(*before, *found.checks))


def finish(stage: Path, folder: Path, certificate: Certificate, card: Card, lang: str) -> None:
    """Put card and certificate into a folder that passed; refuse one that did not.

    Raises:
        ExportError: it did not; the certificate is at FOLDER.failed.json.
    """
    if not certificate.passed:
        beside = folder.with_name(f"{folder.name}.failed.json")
        write_json(beside, certificate.to_json())
        raise ExportError(
            f"{folder}: not written. Read back by {certificate.reader}, it is not the model that "
            f"it came from:\n{certificate.differences()}\nAll figures are in {beside}."
        )
    write_text(stage / CARD, model_card(card, certificate, lang))
    write_json(stage / CERTIFICATE, certificate.to_json())


@torch.no_grad()
def rounds(model: nn.Module, dtype: str, gguf: bool = False) -> bool:
    """Whether any weight has another value in an export of this number format.

    Args:
        gguf: a GGUF file, which keeps vectors and positions in float32.
    """
    if dtype == "float32":
        return False
    for name, parameter in model.named_parameters():
        if gguf and (parameter.dim() == 1 or name == "position_embedding.weight"):
            continue
        value = q8_0(parameter) if dtype == "q8_0" else None
        if value is None or value is parameter:  # no whole blocks
            value = parameter.to(torch.float16 if dtype == "q8_0" else DTYPES[dtype][0]).float()
        if not torch.equal(value, parameter):
            return True
    return False


@torch.no_grad()
def round_weights(model: nn.Module, dtype: str) -> None:
    """Give every weight the value that it has in `dtype`; the numbers stay float32.

    Raises:
        InputError: a weight is larger than that type can hold.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(cast(name, parameter, DTYPES[dtype][0]))


@torch.no_grad()
def settle_weights(model: Decoder, back: Decoder, dtype: str) -> None:
    """Round every weight of `model` as a file of `dtype` may hold it, and as `back` has it.

    A GGUF file keeps vectors in float32 and what has no whole blocks in float16, whatever the
    rest is. A weight that `back` has in none of these ways is left as it is: it is wrong there.
    """
    ways = {"float32": (), "q8_0": ("float16", "q8_0")}.get(dtype, (dtype,))
    theirs = dict(back.named_parameters())
    for name, parameter in model.named_parameters():
        for way in ways:
            value = q8_0(parameter) if way == "q8_0" else parameter.to(DTYPES[way][0]).float()
            if name in theirs and torch.equal(value, theirs[name]):
                parameter.copy_(value)
                break


def q8_0(tensor: Tensor) -> Tensor:
    """The values that Q8_0 keeps: 32 numbers of a row share a scale, max/127, as float16.

    Source: quantize_row_q8_0 of ggml.
    """
    if tensor.dim() < 2 or tensor.shape[-1] % 32:
        return tensor
    blocks = tensor.reshape(-1, 32)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    steps = blocks * torch.where(scale > 0, 1 / scale, 0.0)
    whole = steps.abs().add(0.5).floor() * steps.sign()  # halves go away from zero
    return (whole * scale.half().float()).view(tensor.shape)


def model_card(card: Card, certificate: Certificate, lang: str) -> str:
    """The card as Markdown with the Hub's front matter."""
    parts = [front_matter(card), f"# {card.title}", shape_sentence(card, lang)]
    parts += [heading("origin", lang), *origin(card, lang)]
    if card.training is not None:
        parts += [heading("data", lang), *data(card.training, lang)]
        parts += [heading("results", lang), *results(card.training, lang)]
    parts += [heading("unknown", lang), "\n".join(f"- {line}" for line in unknown(card, lang))]
    parts += [heading("certificate", lang), figures(certificate, lang)]
    if card.library == "transformers":
        parts += [heading("use", lang), USE]
    return "\n\n".join(parts) + "\n"


USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
```"""


def front_matter(card: Card) -> str:
    """The lines that the Hub reads; JSON strings are YAML strings."""
    lines = ["---", f"library_name: {card.library}", "pipeline_tag: text-generation"]
    if card.base:
        lines.append(f"base_model: {json.dumps(card.base, ensure_ascii=False)}")
    lines.append(f"license: {json.dumps(card.license or 'unknown', ensure_ascii=False)}")
    return "\n".join([*lines, "---"])


def heading(part: str, lang: str) -> str:
    return f"## {say(f'export.{part}', lang)}"


def shape_sentence(card: Card, lang: str) -> str:
    """What the model is."""
    config = card.config
    known = {
        "family": config.family,
        "parameters": number(card.parameters, lang),
        "context": number(config.context_length, lang),
        "vocab": number(config.vocab_size, lang),
        "dtype": card.dtype,
    }
    if not isinstance(config, ModelConfig):
        return say("export.what_computed", lang, **known)
    return say(
        "export.what",
        lang,
        **known,
        layers=config.num_layers,
        width=number(config.hidden_size, lang),
        heads=config.num_heads,
        kv_heads=config.num_kv_heads,
    )


def origin(card: Card, lang: str) -> list[str]:
    """Where the weights come from, and under which licence."""
    kind = "converted" if card.training is None else "tuned" if card.base else "scratch"
    named = {"license": card.license} if card.license else {}
    return [
        say(f"export.{kind}", lang, version=card.version, base=card.base),
        say("export.license" if named else "export.no_license", lang, **named),
    ]


def data(training: Training, lang: str) -> list[str]:
    """What it was trained on."""
    counts = {name: number(training.tokens.get(name, 0), lang) for name in ("train", "val")}
    return [
        say("export.sources", lang, names=", ".join(training.sources)),
        say("export.tokens", lang, documents=number(training.documents, lang), **counts),
        say("export.fingerprint", lang, fingerprint=training.fingerprint),
    ]


def results(training: Training, lang: str) -> list[str]:
    """How long it was trained, its losses, its exam, and what the report says."""
    lines = [
        say(
            "export.training",
            lang,
            steps=number(training.steps, lang),
            tokens=number(training.tokens_seen, lang),
            time=duration(training.seconds),
            seed=training.seed,
        )
    ]
    losses = {"train": number(training.train_loss, lang, 4), "step": number(training.step, lang)}
    if training.val_loss is not None:
        ppl = number(math.exp(min(training.val_loss, 700.0)), lang, 2)
        val = number(training.val_loss, lang, 4)
        lines.append(say("export.loss_val", lang, val=val, ppl=ppl, **losses))
    elif training.train_loss is not None:
        lines.append(say("export.loss_train", lang, **losses))
    if training.exam is not None:
        right, total = training.exam
        lines.append(say("export.exam", lang, right=right, total=total, step=losses["step"]))
    return [*lines, *([training.verdict[lang]] if training.verdict else [])]


def unknown(card: Card, lang: str) -> list[str]:
    """What nobody should take for granted."""
    lines = []
    training = card.training
    if training is None:
        lines += [say("export.unknown_data", lang), say("export.unknown_exam", lang)]
    else:
        if training.val_loss is None:
            lines.append(say("export.unknown_val", lang))
        if training.exam is None:
            lines.append(say("export.unknown_exam", lang))
        lines += [sentence[lang] for sentence in training.unknown]
    if not card.license:
        lines.append(say("export.unknown_license", lang))
    return lines


def figures(certificate: Certificate, lang: str) -> str:
    """What the certificate found, in a paragraph."""
    known = {
        "reader": certificate.reader,
        "logits": scientific(certificate.figure("logits"), lang),
        "kl": scientific(certificate.figure("kl"), lang),
        "asked": say(f"export.asked_{certificate.template}", lang),
    }
    rounded = certificate.rounding
    parts = [
        say("export.read_back" if rounded is None else "export.read_back_rounded", lang, **known)
    ]
    if rounded is not None:
        parts.append(say("export.rounding", lang, **rounding_figures(rounded, lang)))
    if certificate.template != "usable":
        # A reason may quote the template, which is foreign text: it is no Markdown here.
        reason = f"`{visible(certificate.template_fault).replace('`', chr(39))}`"
        parts.append(say(f"export.template_{certificate.template}", lang, reason=reason))
    return " ".join([*parts, say("export.figures", lang)])


def rounding_figures(rounding: Rounding, lang: str) -> dict[str, Any]:
    """What the sentences on the distance from the source are filled with."""
    share = rounding.same_positions / max(1, rounding.positions)
    return {
        "logits": scientific(rounding.logits, lang),
        "kl": scientific(rounding.kl, lang),
        "share": percent(share, lang, 1),
        "positions": number(rounding.positions, lang),
        "same_texts": rounding.same_texts,
        "texts": rounding.texts,
    }
