"""Where the model of a run comes from, what of it is trained, and how it is kept.

From scratch, or from a base that is fine-tuned in full, by LoRA or by QLoRA: what differs stands
here, and the loop is one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from yunque.adapt.lora import apply_method, save_adapter
from yunque.adapt.quantize import (
    QUANTIZATION,
    end_module,
    parameter_count,
    quantization_record,
)
from yunque.assemble.models import (
    adaptable,
    model_path,
    open_model,
    open_quantized,
    shape_at,
    tokenizer_of,
    weight_dtype,
)
from yunque.config import ModelConfig, Recipe
from yunque.data.chat_template import CHAT_TOKENS, conversing
from yunque.data.prepare import Prepared
from yunque.data.tokenizer import Tokenizer, add_tokens
from yunque.errors import InputError, placed
from yunque.files import read_json, sha256, staged_folder, write_json
from yunque.forecast.shape import generic_shape
from yunque.hub import hub_id, pinned
from yunque.model.decoder import Decoder
from yunque.runtime import Runtime
from yunque.weights.folder import DTYPES, refuse_other_tokenizer, save_folder, stored_dtype
from yunque.weights.transformers_model import TransformersModel, save_transformers
from yunque.words import say

WEIGHTS = re.compile(r"\.(safetensors|gguf|index|data-\d+-of-\d+)$|^(config|hparams)\.json$")
STREAM = 1024  # tokens of a row of plain text, where the context allows it
BUCKET = 64
"""Rows of fine-tuning are as long as the longest conversation, rounded up to this."""


class Origin(Protocol):
    """What a run asks of its model's origin, in this order."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The one that the data must be prepared with; None: the recipe says which."""

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text by the model's own files."""

    @property
    def fingerprint(self) -> str:
        """Of the weights that the run begins with; "" where the seed gives them."""

    def settled(self, recipe: Recipe, data: Prepared) -> Recipe:
        """The recipe with the shape of the model and the length of its rows."""

    def build(self, recipe: Recipe, where: Runtime) -> Any:
        """The model on its device, ready to be trained; a `model.protocol.LanguageModel`."""

    def save(self, model: Any, folder: Path, tokenizer: Tokenizer, ends: list[int]) -> None:
        """Keep the model as it is as a model folder."""

    def parameters(self, model: Any) -> dict[str, int]:
        """Parameters by part, as they are: never packed bytes."""

    def remarks(self, where: Runtime, lang: str) -> list[str]:
        """What is said of how the model is kept, before the first update."""

    def weight_bytes(self, where: Runtime) -> int:
        """Bytes of a frozen number that is not quantised."""

    def counted(self, shape: ModelConfig) -> tuple[ModelConfig, bool]:
        """The shape that a forecast counts, and whether it is exact.

        Args:
            shape: that of the settled recipe, which holds only what the Decoder computes.
        """


class Scratch:
    """A decoder with random weights."""

    tokenizer = None
    end_ids: frozenset[int] = frozenset()
    fingerprint = ""

    def __init__(self, recipe: Recipe) -> None:
        if recipe.model.family == "qwen2":
            raise InputError(
                "rotary positions with qkv_bias is the Qwen2 shape, which transformers opens with "
                "Qwen2's own tokenizer only. Set qkv_bias to false: that is Llama, or with "
                "qk_norm Qwen3."
            )

    def settled(self, recipe: Recipe, data: Prepared) -> Recipe:
        """Every automatic size filled in.

        Raises:
            InputError: fewer rows than the tokenizer has tokens, or rows longer than the context.
        """
        vocab = data.tokenizer.vocab_size
        if 0 < recipe.model.vocab_size < vocab:
            raise InputError(
                f"vocab_size is {recipe.model.vocab_size}: the tokenizer has {vocab} tokens. "
                "Give 0 (automatic) or a larger number."
            )
        shape = recipe.model.resolved(vocab)
        return with_length(dataclasses.replace(recipe, model=shape), shape.context_length)

    def build(self, recipe: Recipe, where: Runtime) -> Decoder:
        model = Decoder(recipe.model, recipe.machine.seed)
        model.checkpointing = recipe.train.gradient_checkpointing
        return model.to(where.device)

    def save(self, model: Decoder, folder: Path, tokenizer: Tokenizer, ends: list[int]) -> None:
        save_folder(model, folder, tokenizer.save, generation_of(ends))

    def parameters(self, model: Decoder) -> dict[str, int]:
        return model.parameter_counts()

    def remarks(self, where: Runtime, lang: str) -> list[str]:
        return []

    def weight_bytes(self, where: Runtime) -> int:
        return 4

    def counted(self, shape: ModelConfig) -> tuple[ModelConfig, bool]:
        return shape, True


class Finetuned:
    """A base that is trained further, in full or by adapters."""

    def __init__(self, recipe: Recipe) -> None:
        self.adapt, self.method = recipe.adapt, recipe.adapt.method
        self.add_tokens = recipe.data.add_tokens
        if self.add_tokens and self.method != "full":
            raise InputError(
                f"add_tokens with --method {self.method}: an adapter leaves the embedding as it "
                "is, and the rows of new tokens would never be learnt. Use --method full; or do "
                "that first and put the adapter on its best/, without add_tokens."
            )
        self.path = model_path(recipe.base)
        self.base = pinned(recipe.base, self.path)
        """The base by its name; of a Hub id with the commit that was fetched."""
        if (self.path / "adapter_config.json").is_file():
            raise InputError(
                f"{recipe.base}: an adapter. Merge it first (yunque convert {recipe.base} OUT "
                "--merge), and fine-tune the merged model."
            )

    @cached_property
    def own(self) -> tuple[Tokenizer, set[int]]:
        """The base's tokenizer as it is, and the tokens that end a text by the base's files."""
        return tokenizer_of(self.path)

    @cached_property
    def opened(self) -> tuple[Tokenizer, frozenset[int]]:
        tokenizer, ends = self.own
        if self.add_tokens:
            tokenizer = add_tokens(tokenizer, self.add_tokens)
        # New tokens only where they were asked for: no base has ever learnt their rows.
        tokenizer = conversing(tokenizer, set(CHAT_TOKENS) <= set(self.add_tokens))
        return tokenizer, frozenset({tokenizer.separator_id, *ends})

    @property
    def tokenizer(self) -> Tokenizer:
        return self.opened[0]

    @property
    def end_ids(self) -> frozenset[int]:
        return self.opened[1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the files that hold the base's weights and shape, by name."""
        inside = self.path.iterdir() if self.path.is_dir() else [self.path]
        held = sorted(path for path in inside if WEIGHTS.search(path.name))
        digests = "".join(f"{path.name} {sha256(path)}\n" for path in held)
        return hashlib.sha256(digests.encode("utf-8")).hexdigest()

    @cached_property
    def shape(self) -> Any:
        """The shape of the base, as its files state it."""
        return shape_at(self.path)

    def settled(self, recipe: Recipe, data: Prepared) -> Recipe:
        """The shape of the base; rows no longer than they need be.

        Raises:
            InputError: the data were prepared with another tokenizer, or what is kept would be
                opened with another one.
        """
        ours, theirs = data.tokenizer.backend, self.tokenizer.backend
        if ours.get_vocab() != theirs.get_vocab():
            raise InputError(
                f"{data.folder}: prepared with another tokenizer than that of {self.base}. Give "
                "the sources themselves."
            )
        described = self.shape
        before = self.own[0]
        if before.vocab_size > described.vocab_size:
            raise InputError(
                f"{self.base}: its tokenizer has {before.vocab_size} tokens, its embedding "
                f"only {described.vocab_size} rows."
            )
        # A vocabulary may be padded: new tokens first take the rows that no token has.
        rows = max(described.vocab_size, data.tokenizer.vocab_size)
        if isinstance(described, ModelConfig):
            if self.method == "full":  # best/ and last/ will be whole folders
                with placed(self.base):
                    refuse_other_tokenizer(described, data.tokenizer.tokenizer_class)
            # The base's own dropout belongs to how it was trained.
            shape = dataclasses.replace(
                described,
                vocab_size=rows,
                dropout=recipe.model.dropout,
                attention_dropout=recipe.model.attention_dropout,
            )
        else:
            shape = dataclasses.replace(
                recipe.model,
                preset="",
                context_length=described.context_length,
                vocab_size=rows,
            )
        shape = shape.resolved(shape.vocab_size)
        recipe = dataclasses.replace(recipe, base=self.base)
        longest = longest_document(data) or STREAM
        length = min(shape.context_length, -(-longest // BUCKET) * BUCKET)
        return with_length(dataclasses.replace(recipe, model=shape), length)

    def build(self, recipe: Recipe, where: Runtime) -> Any:
        """The base on the device, its adapters put on.

        Trained in full, its weights are float32; frozen, they are kept as they are stored, where
        the device computes so.
        """
        assert self.fingerprint  # of the weights as they are now read
        model: Decoder | TransformersModel
        if self.method == "qlora":
            kept = weight_dtype(self.path, where.device, where.precision)
            model = open_quantized(self.path, recipe.adapt, where.device, kept)
        elif self.method == "lora":
            kept = weight_dtype(self.path, where.device, where.precision)
            model = open_model(self.path, where.device, kept)
        else:
            model = open_model(self.path, where.device)
        known = set(self.own[0].backend.get_vocab().values())
        new = sorted(set(self.tokenizer.backend.get_vocab().values()) - known)
        if new:
            model.add_rows(recipe.model.vocab_size, new, sorted(known))
        if isinstance(model, Decoder):
            model.set_dropout(recipe.model.dropout, recipe.model.attention_dropout)
        inner, names = adaptable(model)
        apply_method(inner, recipe.adapt, recipe.machine.seed, names, where.device)
        model.checkpointing = recipe.train.gradient_checkpointing
        return model.train()

    def save(self, model: Any, folder: Path, tokenizer: Tokenizer, ends: list[int]) -> None:
        generation = generation_of(ends)

        def beside(stage: Path) -> None:
            tokenizer.save(stage)
            write_json(stage / "generation_config.json", generation)
            if self.method == "qlora":
                record = quantization_record(self.adapt, head, inner)
                write_json(stage / QUANTIZATION, record)

        inner, names = adaptable(model)
        output = None if isinstance(model, Decoder) else end_module(inner, "output")
        known = (name for name, module in inner.named_modules() if module is output)
        head = next(known, "lm_head")  # as all of the Decoder's families publish it
        if self.method != "full":
            hub = None if Path(self.base).exists() else hub_id(self.base)
            base = hub.name if hub else str(self.path.resolve())
            revision = hub.revision if hub else None
            save_adapter(inner, folder, base, names, save_tokenizer=beside, base_revision=revision)
        elif isinstance(model, Decoder):
            save_folder(model, folder, tokenizer.save, generation)
        else:
            with staged_folder(folder) as stage:
                save_transformers(model, stage, generation)
                beside(stage)

    def remarks(self, where: Runtime, lang: str) -> list[str]:
        """That the weights are kept in another type than their files', and new tokens."""
        said = []
        stored = stored_dtype(self.path)
        kept = torch.float32
        if self.method != "full":
            kept = weight_dtype(self.path, where.device, where.precision)
        if self.path.is_dir() and kept != DTYPES[stored][0]:
            names = {"stored": stored, "kept": str(kept).removeprefix("torch.")}
            why = "full" if self.method == "full" else "frozen"
            said.append(say(f"cli.kept_type_{why}", lang, device=where.device.type, **names))
        if self.add_tokens:
            added = ", ".join(self.add_tokens)
            said.append(say("cli.added_tokens", lang, count=len(self.add_tokens), names=added))
        return said

    def weight_bytes(self, where: Runtime) -> int:
        if self.method == "full":
            return 4
        return weight_dtype(self.path, where.device, where.precision).itemsize

    def counted(self, shape: ModelConfig) -> tuple[ModelConfig, bool]:
        if isinstance(self.shape, ModelConfig):
            return shape, True
        path = self.path / "config.json"
        return generic_shape(read_json(path), str(path)), False

    def parameters(self, model: Any) -> dict[str, int]:
        inner, _ = adaptable(model)
        trained = parameter_count(inner, trainable=True)
        total = parameter_count(inner)
        if self.method == "full":
            return {"trained": trained, "total": total}
        return {"base": total - trained, "adapter": trained, "total": total}


def origin_of(recipe: Recipe) -> Origin:
    """Where the model of a recipe comes from."""
    return Finetuned(recipe) if recipe.base else Scratch(recipe)


def generation_of(ends: list[int]) -> Mapping[str, Any]:
    """generation_config.json: transformers takes one end or a list of them."""
    return {"eos_token_id": ends if len(ends) > 1 else ends[0]}


def with_length(recipe: Recipe, automatic: int) -> Recipe:
    """The recipe with the length of its rows filled in.

    Raises:
        InputError: it asks for rows longer than the context.
    """
    asked, context = recipe.data.max_length, recipe.model.context_length
    if asked > context:
        raise InputError(f"max_length is {asked}: the model sees {context} tokens at once.")
    data = dataclasses.replace(recipe.data, max_length=asked or automatic)
    return dataclasses.replace(recipe, data=data)


def longest_document(data: Prepared) -> int:
    """Tokens of the longest document that is kept apart; 0 where the text is one stream."""
    longest = 0
    for name in ("train", "val"):
        split = data.splits.get(name)
        if split is not None and split.documents is None:
            return 0
        if split is not None and split.documents is not None:
            sizes = np.diff(split.documents.astype(np.int64), prepend=0)
            longest = max(longest, int(sizes.max(initial=0)))
    return longest


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter of what gets a gradient."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def put_back(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give the trained parameters the values of a checkpoint."""
    for name, parameter in trained(model).items():
        parameter.copy_(tensors[name])
