"""MODEL on the command line or in Python → a model that writes, is measured and explained."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from yunque import evaluate, runtime
from yunque.adapt.lora import WEIGHTS as ADAPTER_WEIGHTS
from yunque.adapt.lora import load_adapter, read_adapter_config
from yunque.adapt.quantize import dequantize, parameter_count, quantize, read_quantization
from yunque.assemble.exams import ANSWER_TOKENS, ExamItem, sit_exam
from yunque.assemble.sources import listed
from yunque.config import (
    AdaptConfig,
    DataConfig,
    GenerateConfig,
    MachineConfig,
    Weights,
    raise_faults,
    typed,
    unknown_name,
)
from yunque.data.alignment import render_prompt
from yunque.data.chat_template import chat_template_of, conversing
from yunque.data.conversations import Message
from yunque.data.documents import Corpus
from yunque.data.rendered import encode_rendered
from yunque.data.tokenizer import Tokenizer, load_tokenizer, stated_ends
from yunque.errors import InputError, placed
from yunque.evaluate import Score, TokenView
from yunque.exam import ExamResult
from yunque.files import path_of, read_json
from yunque.generate.decode import Generation, generate
from yunque.hub import at_revision, fetch_model, hub_id
from yunque.model.decoder import Decoder
from yunque.model.int8 import to_int8
from yunque.model.protocol import Described
from yunque.runtime import Runtime
from yunque.weights.families import module_names
from yunque.weights.folder import (
    DTYPES,
    READABLE,
    load_folder,
    open_folder,
    read_blocks,
    read_header,
    stored_dtype,
    stream_folder,
    weight_files,
)
from yunque.weights.gguf import gguf_config, load_gguf
from yunque.weights.gguf_file import open_gguf, read_tensor
from yunque.weights.gguf_tokenizer import gguf_tokenizer
from yunque.weights.openai import is_openai, load_openai, openai_config
from yunque.weights.transformers_model import (
    TransformersModel,
    beyond_decoder,
    load_transformers,
    refuse_code,
    transformers_shape,
)


@dataclass(frozen=True)
class Text:
    """What a model wrote for one prompt: texts and ids hold the new tokens only."""

    prompt: str
    texts: list[str]
    generation: Generation

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "texts": self.texts,
            "token_ids": self.generation.token_ids,
            "tokens_per_second": self.generation.tokens_per_second,
        }


class Model:
    """A loaded model: `generate`, `evaluate`, `explain`; `module` is the torch.nn.Module."""

    def __init__(
        self,
        folder: Path,
        module: Decoder | TransformersModel,
        tokenizer: Tokenizer,
        end_ids: Collection[int],
        where: Runtime,
    ):
        self.folder, self.module, self.tokenizer, self.runtime = folder, module, tokenizer, where
        self.end_ids = frozenset({tokenizer.separator_id, *end_ids})
        """Tokens that end a text: the separator, and what the model's own files name."""

    def __repr__(self) -> str:
        shape = self.module.config
        total = parameter_count(adaptable(self.module)[0])
        return (
            f"yunque model {self.folder}: {shape.family}, {total:,} parameters, "
            f"context {shape.context_length}, {self.tokenizer.vocab_size} tokens"
            f"{', computed by transformers' if self.by_transformers else ''}"
        )

    @property
    def by_transformers(self) -> bool:
        """The Decoder does not hold this model: transformers computes it, more slowly."""
        return isinstance(self.module, TransformersModel)

    @property
    def decoder(self) -> Decoder:
        """The model as our own Decoder.

        Raises:
            InputError: transformers computes it.
        """
        if not isinstance(self.module, Decoder):
            raise InputError(
                f"{self.folder}: a model of the kind {self.module.config.family}, which is "
                "computed by transformers; this needs one that the Decoder holds (GPT-2, Llama, "
                "Mistral, Qwen2, Qwen3, Phi)."
            )
        return self.module

    def generate(
        self,
        prompt: str = "",
        *,
        chat: bool = False,
        on_text: Callable[[str], None] | None = None,
        settings: GenerateConfig | None = None,
        **options: Any,
    ) -> Text:
        """Continue `prompt`; an empty one begins a new document.

        Args:
            chat: put the prompt into the model's chat template as the user's message.
            on_text: called with each new piece of the first text as soon as it is certain.
            settings, options: fields of GenerateConfig.

        Raises:
            InputError: an option is unknown, of the wrong type or out of range, or there is no
                chat template.
        """
        chosen = chosen_settings(settings or GenerateConfig(), options)
        asked = [Message("user", prompt)]
        ids = self.chat_ids(asked) if chat else self.tokenizer.prompt_ids(prompt)
        made = self.continued(ids or [self.tokenizer.separator_id], chosen, on_text)
        return Text(prompt, made.texts or [], made)

    def continued(
        self,
        ids: Sequence[int],
        settings: GenerateConfig,
        on_text: Callable[[str], None] | None = None,
    ) -> Generation:
        """Write on from token ids; the result holds texts.

        Args:
            on_text: called with each new piece of the first text as soon as it is certain.

        Raises:
            InputError: a setting is out of range, or what the model computes is not finite.
        """
        stream = Stream(self.tokenizer, on_text) if on_text and settings.beams == 1 else None
        with self.runtime.autocast():
            made = generate(
                self.module,
                [ids],
                settings,
                self.end_ids,
                decode=self.tokenizer.continuation,
                on_token=stream.token if stream else None,
            )
        if not made.finite:
            raise not_finite(self.folder)
        texts = made.texts or []
        if stream:
            stream.finish(texts[0])
        elif on_text:
            on_text(texts[0])
        return made

    def chat_ids(self, messages: Sequence[Message]) -> list[int]:
        """Ids of messages in the model's chat template, ready for the assistant's answer.

        Raises:
            InputError: the model's tokenizer has no chat template.
        """
        if self.tokenizer.chat_template is None:
            raise InputError(
                f"{self.folder}: this model has no chat template, it continues plain text: "
                "`yunque generate` without --chat. To chat with it, train it on conversations "
                "first; the tokenizer then gets a template."
            )
        asked = render_prompt(messages, chat_template_of(self.tokenizer))
        return [int(id) for id in encode_rendered(self.tokenizer, asked)[0]]

    def evaluate(self, sources: Sequence[str] | str) -> Score:
        """Loss, perplexity and bits per byte over any sources, sums and counts pooled.

        Of conversations, the assistant's words and their ends count, as in training.

        Raises:
            InputError: no text there, a file cannot be read, or the loss is not finite.
        """
        context = self.module.config.context_length
        settings = DataConfig(separator=self.tokenizer.separator)
        corpus = Corpus(listed(sources), settings, conversing(self.tokenizer))
        loss, tokens, size = 0.0, 0, 0
        for text, rendered in corpus.documents():
            if rendered is None:
                begin = np.array(self.tokenizer.begin_ids, dtype=np.int64)
                ids = np.concatenate([begin, self.tokenizer.encode_array(text)])
                counted = np.ones(len(ids), dtype=bool)
                paid = len(text.encode("utf-8"))
                if not len(begin):
                    # The first token is given, not predicted: its bytes are not paid for.
                    paid -= self.tokenizer.first_token_bytes(text)
            else:
                ids, mask = encode_rendered(self.tokenizer, rendered)
                counted = mask.astype(bool)
                paid = sum(len(text[a:b].encode("utf-8")) for a, b in rendered.loss)
            if len(ids) < 2:
                continue
            with self.runtime.autocast():
                losses = evaluate.token_losses(self.module, torch.from_numpy(ids), context)
            kept = losses[torch.from_numpy(counted[1:])]
            loss += kept.double().sum().item()
            tokens += len(kept)
            size += paid
        if not math.isfinite(loss):
            raise not_finite(self.folder)
        if not tokens:
            raise InputError("nothing to evaluate: the sources hold fewer than two tokens.")
        return Score(
            loss=loss / tokens,
            perplexity=math.exp(min(loss / tokens, 700.0)),
            bits_per_byte=loss / math.log(2) / size if size else None,
            tokens=tokens,
            bytes=size,
        )

    def exam(
        self,
        items: Sequence[ExamItem],
        *,
        max_new_tokens: int = ANSWER_TOKENS,
        progress: Callable[[int, int], None] | None = None,
    ) -> ExamResult:
        """Ask every question greedily, in the chat template where there is one, and mark it.

        Args:
            items: as `assemble.exams.read_exam` gives them.
            progress: called with the number of questions answered and of all questions.

        Raises:
            InputError: a question does not fit into the model's context.
        """
        with self.runtime.autocast():
            return sit_exam(
                self.module,
                self.tokenizer,
                self.end_ids,
                items,
                max_new_tokens=max_new_tokens,
                progress=progress,
            )

    def explain(self, text: str, alternatives: int = 5) -> list[TokenView]:
        """For each token of `text`: id, probability, loss, rank and the best alternatives.

        Raises:
            InputError: the text is empty, or what the model computes is not finite.
        """
        ids = self.tokenizer.prompt_ids(text)
        if not text or not ids:
            raise InputError("nothing to explain: --text is empty.")
        context = self.module.config.context_length
        with self.runtime.autocast():
            views = evaluate.explain(
                self.module, ids, self.tokenizer.token_text, context, alternatives
            )
        if not all(math.isfinite(view.loss or 0.0) for view in views):
            raise not_finite(self.folder)
        return views


class Stream:
    """Turns token ids into text as they come, holding back bytes of unfinished characters."""

    def __init__(self, tokenizer: Tokenizer, on_text: Callable[[str], None]):
        self.tokenizer, self.on_text = tokenizer, on_text
        self.ids: list[int] = []
        self.shown = ""

    def token(self, row: int, token: int) -> None:
        if row != 0:
            return
        self.ids.append(token)
        text = self.tokenizer.continuation(self.ids)
        if not text.endswith("\ufffd") and text.startswith(self.shown):
            self.on_text(text[len(self.shown) :])
            self.shown = text

    def finish(self, text: str) -> None:
        """Show what is still missing of the final text."""
        if text.startswith(self.shown):
            self.on_text(text[len(self.shown) :])


def model_path(name: str | Path) -> Path:
    """Where MODEL lies: RUN/best, else RUN/last, else the folder or the .gguf file itself.

    What is no path, but could be a Hub id, is fetched from there.

    Raises:
        InputError: there is no such folder or repository, or no model in it.
        StorageError: the Hub's cache cannot be written.
    """
    path = path_of(name)
    if path.suffix == ".gguf" and path.is_file():
        return path
    if not path.is_dir():
        hub = None if path.exists() else hub_id(str(name))
        if hub:
            return fetch_model(hub)
        if path.exists():
            beside = (path.parent / "config.json").is_file()
            way = f" Give the folder that it lies in: {path.parent}" if beside else ""
            raise InputError(f"{name}: a file, expected a folder or a .gguf.{way}")
        kind = "file" if path.suffix == ".gguf" else "folder"
        raise InputError(
            f"{name}: no such {kind}. MODEL is a run folder, a model folder, a .gguf file or a Hub "
            "id (OWNER/NAME)."
        )
    for folder in (path / "best", path / "last", path):
        described = (folder / "config.json").is_file() or is_adapter(folder)
        if described or is_openai(folder):
            return folder
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    raise InputError(
        f"{name}: no model there (looked for best/, last/, config.json, OpenAI's hparams.json and "
        "one .gguf file). A run keeps its first model at its first evaluation."
    )


Onto = Literal["trained", "full", "dequantised"]
"""The base that an adapter is put on: quantised where it was trained so; in the precision of its
files; or quantised and turned back into plain weights."""


def load(
    name: str | Path,
    *,
    device: str = "auto",
    precision: str = "fp32",
    onto: Onto = "trained",
    weights: Weights = "full",
) -> Model:
    """Open MODEL: a run folder, a folder of Hugging Face or OpenAI, a .gguf file, or a Hub id
    (OWNER/NAME[@REVISION]).

    Args:
        onto: the base of an adapter that was trained on a quantised one.
        weights: int8 computes the linear layers in 8-bit integers, for speed on CPUs; the results
            are then not exactly the model's.

    Raises:
        InputError: not a model, a damaged one, or an architecture that nobody here computes; its
            tokenizer has ids that the model does not; or int8 cannot be had here or for it.
        MissingPackageError: the base of an adapter was quantised, and bitsandbytes is absent.
    """
    where = runtime.start(MachineConfig(device=device, precision=precision))  # type: ignore[arg-type]
    path = model_path(name)
    module = open_model(path, where.device, onto=onto).to(where.device).eval()
    tokenizer, end_ids = tokenizer_of(path)
    check_fit(path, module.config.vocab_size, tokenizer)
    model = Model(path, module, tokenizer, end_ids, where)
    if weights == "int8":
        if is_adapter(path):
            raise InputError(
                f"{name}: weights is 'int8', which an adapter's layers cannot be. Merge it first: "
                f"yunque convert {name} OUT --merge."
            )
        to_int8(model.decoder)
    return model


def not_finite(path: Path) -> InputError:
    """Why a model at a path computes no numbers: the weight that is to blame, or none is."""
    file, name = broken_weight(path)
    if name:
        return InputError(
            f"{file}: the tensor {name} holds numbers that are not finite (NaN or infinite), so "
            "the model cannot compute. The file is damaged, or the training that wrote it "
            "diverged: fetch it again, or take an earlier checkpoint."
        )
    return InputError(
        f"{path}: what the model computes is not finite (NaN or infinite), although all its "
        "weights are: they are too large for the precision. Try --precision fp32."
    )


def broken_weight(path: Path) -> tuple[Path, str]:
    """The file and the tensor of the first weight at a path that is not finite; "" where all are.

    Raises:
        InputError, StorageError: as the reader of the format.
    """
    if is_adapter(path):
        own = broken_tensor({path / ADAPTER_WEIGHTS})
        return own if own[1] else broken_weight(base_path(path))
    if path.suffix == ".gguf":
        content = open_gguf(path)
        named: Iterable[tuple[str, Tensor]] = (
            (name, read_tensor(content, name)) for name in content.tensors
        )
    elif is_openai(path):
        named = load_openai(path).state_dict().items()
    else:
        return broken_tensor(weight_files(path)[0])
    return path, next((name for name, tensor in named if not tensor.isfinite().all()), "")


def broken_tensor(files: Collection[Path]) -> tuple[Path, str]:
    """The same in files of safetensors, which are read block by block."""
    for file in sorted(files):
        for name, entry in read_header(file).items():
            if entry.dtype in READABLE and not all(
                bool(block.isfinite().all()) for block in read_blocks(entry)
            ):
                return file, name
    return Path(), ""


def check_fit(path: Path, rows: int, tokenizer: Tokenizer) -> None:
    """Hold the tokenizer's ids against the rows of the model's vocabulary.

    Raises:
        InputError: an id has no row.
    """
    if tokenizer.vocab_size > rows:
        raise InputError(
            f"{path}: its tokenizer has {tokenizer.vocab_size} ids and the model a vocabulary of "
            f"{rows}: they do not belong together. Put the tokenizer files that the model was "
            "trained with there."
        )


def open_model(
    path: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    onto: Onto = "trained",
) -> Decoder | TransformersModel:
    """The model at a path: our Decoder where it holds it, else transformers'.

    An adapter is put on its base, which is looked for where adapter_config.json says, and which is
    quantised as it was in training unless `onto` says otherwise.

    Raises:
        InputError: as the loader of the format says; or config.json names code to run.
        MissingPackageError: the base of an adapter was quantised, and bitsandbytes is absent.
    """
    if is_adapter(path):
        settings = read_quantization(path)
        if settings is None or onto == "full":
            base = open_model(base_path(path), device, dtype)
        else:
            # On a CPU in float32 like any other model; a small card may have no room for that.
            kept = dtype if torch.device(device).type == "cpu" else None
            base = open_quantized(base_path(path), settings, device, kept)
        inner, names = adaptable(base)
        if onto == "dequantised":
            dequantize(inner)
        load_adapter(inner, path, names)
        return base
    if path.suffix == ".gguf":
        return load_gguf(path, device, dtype)
    if is_openai(path):
        return load_openai(path, device, dtype)
    if by_transformers(path):
        return load_transformers(path, device, dtype)
    return load_folder(path, device, dtype)


def by_transformers(path: Path) -> bool:
    """Whether the model at a path is one that the Decoder does not hold.

    Raises:
        InputError: config.json names code to run.
    """
    if path.suffix == ".gguf" or is_openai(path):
        return False
    described = read_json(path / "config.json")
    if not isinstance(described, dict):  # its reader says so
        return False
    refuse_code(described, path / "config.json")
    return bool(beyond_decoder(described))


def shape_at(path: Path) -> Described:
    """The shape of the model at a path as its files state it; opened only where they do not.

    Raises:
        InputError: as the loader of the format says.
    """
    if path.suffix == ".gguf":
        return gguf_config(path)
    if is_openai(path):
        return openai_config(path)
    if by_transformers(path):
        return transformers_shape(path) or open_model(path).config
    return open_folder(path).config


def streams(path: Path) -> bool:
    """Whether the weights at a path can be read one by one: a folder that the Decoder holds."""
    return path.suffix != ".gguf" and not is_openai(path) and not by_transformers(path)


def open_quantized(
    path: Path,
    settings: AdaptConfig,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Decoder | TransformersModel:
    """The model at a path with its linear layers in 4 or 8 bits, on `device`.

    Of a folder that the Decoder holds, one weight after the other is read and quantised; any other
    model is read whole first.

    Args:
        dtype: of what is not quantised. None: as `weight_dtype` says.

    Raises:
        InputError, MissingPackageError: as `open_model` and `quantize`.
    """
    dtype = dtype or weight_dtype(path, torch.device(device))
    if streams(path):
        with runtime.freed_memory_given_back():
            model, tensors = stream_folder(path, dtype)
            quantize(model, settings, device, tensors)
        return model
    whole = open_model(path, "cpu", dtype)
    quantize(adaptable(whole)[0], settings, device)
    return whole


def weight_dtype(path: Path, device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type in which the frozen weights of the model at a path are kept on a device."""
    return runtime.kept_dtype(DTYPES[stored_dtype(path)][0], device, precision)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def base_of(adapter: Path) -> str:
    """What an adapter says that it was trained on: a folder, or a Hub id at its revision.

    Raises:
        InputError: it says nothing.
    """
    settings = read_adapter_config(adapter)
    stated = settings.get("base_model_name_or_path")
    if not isinstance(stated, str) or not stated:
        raise InputError(
            f"{adapter / 'adapter_config.json'}: base_model_name_or_path is missing, so its base "
            "is not known. Write the base's folder or Hub id there."
        )
    return at_revision(stated, settings.get("revision"))


def base_path(adapter: Path) -> Path:
    """Where the model of an adapter lies.

    Raises:
        InputError: adapter_config.json cannot be used, or the model is not where it says.
    """
    stated = base_of(adapter)
    with placed(f"{adapter}: an adapter of {stated}"):
        found = model_path(stated)
    if is_adapter(found):
        raise InputError(f"{adapter}: its base {stated} is an adapter too. Merge that one first.")
    return found


def adaptable(model: Decoder | TransformersModel) -> tuple[nn.Module, dict[str, str] | None]:
    """The module that adapters are put on, and the published names of its layers."""
    if isinstance(model, Decoder):
        return model, module_names(model.config)
    return model.causal, None


def tokenizer_of(path: Path) -> tuple[Tokenizer, set[int]]:
    """The tokenizer of the model at a path, and the ids that its files say end a text.

    An adapter's folder need not hold a tokenizer; what ends a text by its base does so still.

    Raises:
        InputError: there is none, or it is broken.
    """
    if is_adapter(path):
        tokenizer, end_ids = tokenizer_of(base_path(path))
        own = load_tokenizer(path) if any(path.glob("tokenizer*")) else tokenizer
        return own, end_ids | set(stated_ends(path))
    if path.suffix != ".gguf":
        return load_tokenizer(path), set(stated_ends(path))
    with tempfile.TemporaryDirectory() as name:
        gguf_tokenizer(path, Path(name))
        return load_tokenizer(Path(name)), set(stated_ends(Path(name)))


def chosen_settings(base: GenerateConfig, options: Mapping[str, Any]) -> GenerateConfig:
    """`base` with single options, each checked for name and type.

    Raises:
        InputError: every unknown name and wrong type, all together.
    """
    hints = get_type_hints(GenerateConfig)
    faults, values = [], {}
    for name, value in options.items():
        if name not in hints:
            faults.append(unknown_name(name, hints, "option"))
            continue
        fault, values[name] = typed(value, hints[name])
        if fault:
            faults.append(f"{name}: {fault}")
    raise_faults(faults)
    return dataclasses.replace(base, **values)
