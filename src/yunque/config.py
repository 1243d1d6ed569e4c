"""Every setting of a run, typed and checked once, all faults reported together.

One frozen dataclass per room; `Recipe` holds them all. The command-line flags, the recipe
files and the Python functions are made from these classes: there is no second list of options.
A field's docstring gives its unit and its counting base and is the help that a user reads.
Only the standard library and the TOML library are imported here.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tomli_w

from yunque.errors import InputError, raise_all

SEPARATOR = "<|endoftext|>"
TUTOR = "yunque:tutor"
"""The embedded data as a source: `yunque pretrain yunque:tutor --out RUN`."""

Positions = Literal["learned", "rotary"]
RopeScaling = Literal["none", "linear", "dynamic", "llama3", "yarn"]
Norm = Literal["layernorm", "rmsnorm"]
Mlp = Literal["gelu", "swiglu"]
Schedule = Literal["cosine", "linear", "constant", "wsd"]
Optimizer = Literal["adamw", "muon", "sgd", "adamw16bit", "adamw8bit", "paged_adamw8bit"]
ADAMWS = ("adamw", "adamw16bit", "adamw8bit", "paged_adamw8bit")
"""AdamW, however its averages are kept: the same learning rates suit them."""
Precision = Literal["auto", "fp32", "bf16", "fp16"]
SplitBy = Literal["auto", "text", "documents"]
Encoding = Literal["auto", "utf-8", "utf-16", "latin-1", "windows-1252"]
Newlines = Literal["keep", "lf"]
Normalise = Literal["nfc", "none"]
Loss = Literal["auto", "all", "assistant"]
Duplicates = Literal["keep", "drop"]
Packing = Literal["auto", "on", "off"]
OverLong = Literal["split", "truncate"]
Header = Literal["auto", "yes", "no"]
Watch = Literal["loss", "exam"]
Method = Literal["full", "lora", "qlora"]
Variant = Literal["lora", "rslora", "dora"]
ComputeDtype = Literal["auto", "bf16", "fp16", "fp32"]
Weights = Literal["full", "int8"]
Exactness = Literal["reproducible", "exact"]


@dataclass(frozen=True)
class DataConfig:
    """Text to tokens."""

    tokenizer: str = "bpe:4096"
    """char, byte, word, word:SIZE, bpe:SIZE, bpe-gpt2:SIZE (text split as GPT-2 does, which GGUF
    files need), unigram:SIZE (trained on the training text); the path of a tokenizer.json, of a
    SentencePiece .model, or of a folder with one of them or with GPT-2's encoder.json and
    vocab.bpe; or a Hub id (owner/name)."""
    separator: str = SEPARATOR
    """Token between documents. Where it stands in a .txt file, a new document begins."""
    add_tokens: tuple[str, ...] = ()
    """Further control tokens: never split where a chat template writes them, plain text where
    somebody else does. A base gets rows for them (fine-tuning with --method full only), each the
    mean of its rows."""
    val: float = 0.1
    """Fraction of the text held out for validation (of the characters of a single text, of the
    documents of a folder), on the command line also as 10%. 0: none."""
    test: float = 0.0
    """Fraction held out a second time and never looked at in training. 0: none."""
    split_by: SplitBy = "auto"
    """text: the tail of the text is held out; documents: whole documents are; auto: documents
    where there are at least 20, else text."""
    stride: int = 0
    """Tokens between the starts of two training windows. 0: the context length. Without packing."""
    encoding: Encoding = "auto"
    """Encoding of the files. auto: by their byte-order mark, else UTF-8, else Latin-1 or
    Windows-1252 where that is clear; the ledger says which."""
    newlines: Newlines = "keep"
    """keep: line ends stay as they are; lf: CRLF and CR become LF."""
    normalise: Normalise = "nfc"
    """nfc: Unicode normalisation, so that an accented letter is written in one way; none: text as
    it is, for code."""
    header: Header = "auto"
    """Whether the first row of a csv or tsv file holds the names of the columns. auto: it does
    where it looks like names; without a header the columns are called 1, 2, 3…"""
    skip_bad: bool = False
    """Leave out lines and records that cannot be read, and list them, instead of stopping at the
    first one."""
    columns: str = ""
    """Names of a record's columns where they are not the usual ones: 'prompt=q, completion=a'."""
    loss: Loss = "auto"
    """Which tokens of a conversation are learnt: those of the assistant, its end of turn included
    (assistant, auto), or all. Every token of plain text is."""
    duplicates: Duplicates = "keep"
    """What becomes of a document that is equal to an earlier one: keep or drop."""
    packing: Packing = "auto"
    """on: whole documents side by side in a row, none seen by another; off: windows over the
    documents one after the other; auto: on for conversations, else off."""
    max_length: int = 0
    """Longest row of a training batch, in tokens. 0: the context length; in fine-tuning the
    shortest multiple of 64 that holds every conversation, and no more than the context."""
    over_long: OverLong = "split"
    """With packing, a document longer than the context: split (every token is trained) or
    truncate (its end is left out, and counted)."""


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the decoder. The defaults are the preset nano."""

    preset: str = "nano"
    """A named size (see `yunque pretrain --help`); the flags below change single values of it."""
    vocab_size: int = 0
    """Rows of the embedding. 0: as many as the tokenizer has tokens."""
    context_length: int = 256
    """Tokens that the model sees at once."""
    num_layers: int = 6
    """Number of blocks."""
    num_heads: int = 6
    """Attention heads of a block."""
    num_kv_heads: int = 0
    """Key/value heads of a block (grouped-query attention). 0: as many as num_heads."""
    hidden_size: int = 192
    """Width of the stream, C."""
    head_dim: int = 0
    """Width of an attention head, D. 0: hidden_size / num_heads."""
    intermediate_size: int = 0
    """Width of the feed-forward. 0: 4 x hidden_size for gelu, 8/3 for swiglu (multiple of 16)."""
    positions: Positions = "rotary"
    """learned: a table (GPT-2); rotary: rotation of queries and keys (Llama)."""
    norm: Norm = "rmsnorm"
    """layernorm (GPT-2) or rmsnorm (Llama)."""
    mlp: Mlp = "swiglu"
    """gelu (GPT-2, tanh form) or swiglu (Llama)."""
    bias: bool = False
    """Biases in the output projection and in the feed-forward."""
    qkv_bias: bool = False
    """Biases in the query, key and value projections."""
    qk_norm: bool = True
    """RMSNorm of queries and keys in each head (Qwen3)."""
    tie_embeddings: bool = True
    """Input embedding and output head share one matrix."""
    head_bias: bool = False
    """Bias in the output head (Phi)."""
    parallel_residual: bool = False
    """Attention and feed-forward read the same norm side by side (Phi), not one after the other."""
    dropout: float = 0.2
    """Probability of dropping an element after the embedding and after each branch."""
    attention_dropout: float = 0.0
    """Probability of dropping an attention weight. Slow on CPUs."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    rotary_fraction: float = 1.0
    """Part of each head that is rotated, from its beginning (Phi: 0.4 or 0.5)."""
    rope_scaling: RopeScaling = "none"
    """How a model was made to see a longer context. linear: all frequencies are divided by
    rope_factor; llama3, yarn: the slow ones are; dynamic: none is up to context_length, and the
    files say so to other programs."""
    rope_factor: float = 1.0
    """How many times slower rope_scaling makes a frequency."""
    rope_original_length: int = 0
    """llama3, yarn: tokens that the model saw at once before. 0: context_length."""
    rope_slow: float = 0.0
    """llama3, yarn: what turns fewer times than this in the original length is slowed in full.
    0: once."""
    rope_fast: float = 0.0
    """llama3, yarn: what turns more times than this in the original length is left as it is; in
    between it changes by degrees. 0: 4 times with llama3, 32 with yarn."""
    rope_amplitude: float = 0.0
    """yarn: factor of the cosines and sines. 0: 0.1 ln(rope_factor) + 1."""
    sliding_window: int = 0
    """Tokens that a token looks at, itself and those just before (Mistral). 0: all before it."""
    full_layers: int = 0
    """With sliding_window: the first blocks that look at all tokens nevertheless (Qwen)."""
    norm_eps: float = 1e-5
    """Added to the variance in the norms."""
    embedding_std: float = 0.02
    """Standard deviation of the embeddings before training. 1 with an untied head is PyTorch's own
    default: the first blocks then change the stream little, which is steadier at high rates."""

    @property
    def head_size(self) -> int:
        """Width of an attention head, D."""
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def rotary_size(self) -> int:
        """Elements of a head that are rotated."""
        return int(self.head_size * self.rotary_fraction)

    def resolved(self, vocab_size: int) -> ModelConfig:
        """The same shape with every 0 (automatic) replaced by its number."""
        wide = 4 * self.hidden_size if self.mlp == "gelu" else 8 * self.hidden_size // 48 * 16
        shape = self
        if self.rope_scaling in ("llama3", "yarn"):
            shape = dataclasses.replace(
                self,
                rope_original_length=self.rope_original_length or self.context_length,
                rope_slow=self.rope_slow or 1.0,
                rope_fast=self.rope_fast or (4.0 if self.rope_scaling == "llama3" else 32.0),
            )
        if self.rope_scaling == "yarn":
            amplitude = self.rope_amplitude or 0.1 * math.log(max(self.rope_factor, 1.0)) + 1.0
            shape = dataclasses.replace(shape, rope_amplitude=amplitude)
        return dataclasses.replace(
            shape,
            # One spelling of one shape: the quotient is always 0.
            head_dim=0 if self.head_dim * self.num_heads == self.hidden_size else self.head_dim,
            vocab_size=self.vocab_size or vocab_size,
            num_kv_heads=self.num_kv_heads or self.num_heads,
            intermediate_size=self.intermediate_size or max(16, wide),
        )

    @property
    def family(self) -> str:
        """The open format that holds this shape, by its model_type, or "" for none."""
        early = self.norm == "layernorm" and self.mlp == "gelu" and self.bias and not self.qk_norm
        if self.positions == "learned":
            # GPT-2 has no word for what is not its own.
            gpt2 = (
                early
                and self.num_kv_heads in (0, self.num_heads)
                and self.head_dim * self.num_heads in (0, self.hidden_size)
                and not (self.parallel_residual or self.head_bias or self.sliding_window)
            )
            return "gpt2" if gpt2 else ""
        if self.parallel_residual:
            phi = early and self.qkv_bias and self.head_bias and not self.sliding_window
            return "phi" if phi else ""
        if self.norm != "rmsnorm" or self.mlp != "swiglu" or self.bias or self.head_bias:
            return ""
        if self.rotary_fraction != 1 or (self.qk_norm and self.qkv_bias):
            return ""
        if self.qk_norm or self.qkv_bias:
            return "qwen3" if self.qk_norm else "qwen2"
        if self.sliding_window:
            return "" if self.full_layers else "mistral"
        return "llama"


@dataclass(frozen=True)
class OptimConfig:
    """The update rule."""

    optimizer: Optimizer = "adamw"
    """adamw; sgd; muon (Muon for the matrices inside the blocks, AdamW for the rest); adamw16bit
    (AdamW with its averages in bf16, half the memory); adamw8bit (in 8 bits, through
    bitsandbytes); or paged_adamw8bit (the same, and they leave a GPU that is full)."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW or SGD."""
    muon_learning_rate: float = 0.02
    """Peak learning rate of the matrices that Muon updates."""
    schedule: Schedule = "cosine"
    """Form of the learning rate after warm-up; wsd is warm-up, stable, decay."""
    warmup_steps: int = 50
    """Updates until the peak is reached; the first update is already above zero. -1: a twentieth
    of the run."""
    decay_fraction: float = 0.2
    """Last fraction of the run in which wsd decays."""
    final_learning_rate_fraction: float = 0.1
    """Learning rate at the end, as a fraction of the peak."""
    weight_decay: float = 0.1
    """Decay of matrices and embeddings, decoupled from the gradient (sgd: added to it); norms
    and biases have none."""
    beta1: float = 0.9
    """AdamW: decay of the mean of gradients."""
    beta2: float = 0.95
    """AdamW: decay of the mean of squared gradients."""
    momentum: float = 0.95
    """Momentum of Muon and SGD."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm. 0: never."""
    spike_deviations: float = 0.0
    """Leave out an update whose loss or gradient norm is a spike: so many robust deviations above
    the median of the last 128 updates (30: no healthy run of ours came that far). 0: never."""
    average_decay: float = 0.0
    """Keep a running average of the weights with this decay (0.99 averages about the last 100
    updates); evaluation, samples, best/ and last/ then use the average. 0: off."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, how much at once, how often to look."""

    batch_size: int = 32
    """Sequences in one update."""
    micro_batch_size: int = 0
    """Sequences in one forward and backward pass; the update is the same. 0: batch_size."""
    steps: int = 0
    """Updates. 0: as epochs says."""
    epochs: float = 0.0
    """Passes over the training windows, used where steps is 0. Both 0: 2,000 updates."""
    gradient_checkpointing: bool = False
    """Keep only what enters each block and compute the rest once more on the way back: less memory,
    about a third more time."""
    update_in_backward: bool = False
    """Update each tensor on the way back, as soon as its gradient is there, and free the gradient:
    less memory, the same bits. Nothing is known of the whole gradient beforehand, so it goes with
    clip_norm 0 alone, a batch in one pass, one process, and neither fp16 nor exact. A gradient
    that is not finite ends in the last checkpoint."""
    eval_every: int = 100
    """Updates between two evaluations; one is made before the first update and one at the end. 0:
    two in an epoch, but at most twenty in a run."""
    eval_tokens: int = 262_144
    """At most so many tokens of each set are used in an evaluation, evenly spread. 0: all."""
    early_stopping: bool = True
    """Stop when the validation loss has not improved; needs a validation set."""
    watch: Watch = "loss"
    """What says which model is the best, and when to stop: the validation loss, or the share of
    right answers in the exam."""
    patience: int = 5
    """Evaluations without improvement after which training stops."""
    min_change: float = 1e-3
    """Smallest fall of the validation loss, in nats per token, that counts as improvement."""
    checkpoint_every: int = 0
    """Updates between two checkpoints. 0: by the clock alone."""
    checkpoint_minutes: float = 1.0
    """Minutes between two checkpoints. 0: only as checkpoint_every says and at the end."""
    keep_checkpoints: int = 2
    """Checkpoints kept beside the best and the last model."""
    sample_prompt: str = ""
    """Start of the text sample written at each evaluation. Empty: a new document."""
    sample_tokens: int = 120
    """Tokens in that sample. 0: no samples."""


@dataclass(frozen=True)
class MachineConfig:
    """Where and how exactly."""

    seed: int = 1
    """Fixes the initial weights, the order of the data, dropout and the samples."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    precision: Precision = "auto"
    """fp32, bf16, fp16 (with loss scaling); auto: bf16 where the hardware has it, fp16 on other
    NVIDIA GPUs, else fp32."""
    memory: str = ""
    """Memory that the run may take, as 4GB; auto, which --fit is short for: that of the GPU, else
    of the computer. What is needed is worked out before the first update, and micro-batch,
    checkpointing, quantised ends and the length of rows are chosen so that it fits; the batch stays
    as asked for. Empty: no bound."""
    threads: int = 0
    """CPU threads. 0: PyTorch's choice, one a core (or what OMP_NUM_THREADS says)."""
    exactness: Exactness = "reproducible"
    """reproducible: another micro-batch or number of processes changes the rounding of sums;
    exact: it changes no bit. Every row is computed by itself and the gradients are added in a
    fixed tree, which is several times slower; threads 0 is then one thread. Not with qlora or
    fp16."""


@dataclass(frozen=True)
class AdaptConfig:
    """What of a model is trained, and in how many bits the rest is kept."""

    method: Method = "lora"
    """full: every weight; lora: small matrices beside frozen weights; qlora: the same, with the
    frozen weights in 4 or 8 bits."""
    variant: Variant = "lora"
    """lora; rslora (scaled by alpha over the root of the rank, for high ranks); or dora (direction
    and length of the weights apart; slower)."""
    rank: int = 16
    """Rank of the small matrices, r."""
    alpha: float = 32.0
    """Strength of the small matrices: they are scaled by alpha / rank."""
    lora_dropout: float = 0.0
    """Probability of dropping an element of what the small matrices read."""
    targets: tuple[str, ...] = ()
    """Layers that get small matrices, by the names of the published model: q_proj, mlp.down_proj,
    c_attn. Empty: all linear layers of the blocks."""
    quantize_bits: int = 4
    """qlora: bits of a frozen weight, 4 (NF4) or 8."""
    double_quantize: bool = True
    """qlora in 4 bits: the scales are quantised too, which saves 0.4 bits a weight."""
    compute_dtype: ComputeDtype = "auto"
    """qlora: the type that the quantised layers compute in; auto: bf16 where the hardware has it,
    fp16 on other GPUs, fp32 on CPUs."""
    quantize_head: bool = False
    """qlora: quantise the output head too. Saves memory where the vocabulary is large."""
    cpu_embeddings: bool = False
    """qlora: keep the input embedding in the CPU's memory, off the GPU."""


@dataclass(frozen=True)
class GenerateConfig:
    """How new tokens are chosen. A temperature of 0 is greedy; beams above 1 is beam search."""

    max_new_tokens: int = 200
    """Tokens to write at most."""
    temperature: float = 0.8
    """Divides the logits before sampling. 0: always the most probable token."""
    top_k: int = 0
    """Sample among the k most probable tokens. 0: all."""
    top_p: float = 1.0
    """Sample among the fewest tokens whose probabilities add up to p. 1: all."""
    min_p: float = 0.0
    """Leave out tokens below this fraction of the best token's probability. 0: none."""
    repetition_penalty: float = 1.0
    """Above 1: makes tokens that already occurred less likely. 1: off."""
    beams: int = 1
    """Beam search with so many beams (no sampling). 1: off."""
    length_penalty: float = 1.0
    """Beam search: scores are divided by length to this power."""
    samples: int = 1
    """Texts to write for the prompt."""
    seed: int = 1
    """Fixes the random choices."""
    stop: tuple[str, ...] = ()
    """Stop before the first of these texts; the model's end token always stops."""
    stop_tokens: tuple[int, ...] = ()
    """Ids of further tokens that end a text."""


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    base: str = ""
    """The model that is fine-tuned. Empty: one is trained from scratch."""
    exam: str = ""
    """A file of questions with checkable answers, asked at each evaluation. Empty: none."""
    sources: tuple[str, ...] = ()
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)

    def replace(self, **values: Any) -> Recipe:
        """A copy with single values changed by their flat names: `recipe.replace(seed=2)`.

        Raises:
            InputError: a name is unknown (the nearest known one is named), or it is `preset`.
        """
        if "preset" in values:
            raise InputError(
                f"preset {values['preset']!r} is a whole shape, and replace changes single values. "
                "Give preset to pretrain (or --preset), which takes the whole shape."
            )
        return merge(self, nest(values), "argument")


PLAIN = ("base", "exam", "sources")
"""Keys of a recipe that stand outside of its sections."""
SECTIONS: tuple[str, ...] = tuple(f.name for f in fields(Recipe) if f.name not in PLAIN)


def sections() -> dict[str, type]:
    """Section name → its dataclass."""
    hints = get_type_hints(Recipe)
    return {name: hints[name] for name in SECTIONS}


def flat_names() -> dict[str, str]:
    """Option name → the section that holds it. Names are unique over all sections."""
    return {f.name: name for name, kind in sections().items() for f in fields(kind)}


def unknown_name(name: str, known: Iterable[str], what: str) -> str:
    """One sentence: the name is not known, and which known one is nearest."""
    names = list(known)
    near = nearest(name, names)
    hint = f" Did you mean {near!r}?" if near else f" Known: {', '.join(sorted(names))}."
    return f"unknown {what} {name!r}.{hint}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """The known name that is spelt most like `name`; "" where none is much like it."""
    return next(iter(difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=cutoff)), "")


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat option names → a table by section.

    Raises:
        InputError: an option is unknown.
    """
    places = flat_names()
    tree: dict[str, Any] = {}
    faults = []
    for name, value in values.items():
        if name in PLAIN:
            tree[name] = value
        elif name in places:
            tree.setdefault(places[name], {})[name] = value
        else:
            faults.append(unknown_name(name, [*places, *PLAIN], "option"))
    raise_faults(faults)
    return tree


def merge(base: Recipe, tree: Mapping[str, Any], where: str) -> Recipe:
    """`base` with the values of a nested table laid over it, each checked for name and type.

    Args:
        where: what the table came from, for messages (a file name, "argument").

    Raises:
        InputError: every unknown section, unknown key and wrong type, all together.
    """
    faults: list[str] = []
    kinds = sections()
    changed: dict[str, Any] = {}
    for section, table in tree.items():
        if section in PLAIN:
            fault, value = typed(table, get_type_hints(Recipe)[section])
            if fault:
                faults.append(f"{where}: {section}: {fault}")
            changed[section] = value
        elif section not in kinds:
            names = [*kinds, *PLAIN]
            if section in flat_names():
                home = flat_names()[section]
                faults.append(f"{where}: {section!r} belongs under [{home}].")
            else:
                faults.append(f"{where}: {unknown_name(section, names, 'section')}")
        elif not isinstance(table, Mapping):
            faults.append(f"{where}: [{section}] must be a table of options, got {table!r}.")
        else:
            hints = get_type_hints(kinds[section])
            values = {}
            for key, value in table.items():
                if key not in hints:
                    faults.append(f"{where}: [{section}] {unknown_name(key, hints, 'key')}")
                    continue
                fault, value = typed(value, hints[key])
                if fault:
                    faults.append(f"{where}: [{section}] {key}: {fault}")
                values[key] = value
            if not faults:
                changed[section] = dataclasses.replace(getattr(base, section), **values)
    raise_faults(faults)
    return dataclasses.replace(base, **changed)


def typed(value: Any, kind: Any) -> tuple[str, Any]:
    """(fault or "", the value as `kind`).

    An int may stand for a float, a bool never for an int; one item may stand for a tuple of it.
    """
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        items = value if isinstance(value, (list, tuple)) else [value]
        found = [typed(one, item) for one in items]
        if any(fault for fault, _ in found):
            return f"expected a list of {item.__name__}, got {value!r}.", value
        return "", tuple(one for _, one in found)
    if get_origin(kind) is Literal:
        options = get_args(kind)
        if value in options:
            return "", value
        near = unknown_name(str(value), options, "value")
        return near, value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return "", float(value)
    if (kind in (int, float) and isinstance(value, bool)) or not isinstance(value, kind):
        got = type(value).__name__
        return f"expected {kind.__name__}, got {value!r} ({got}).", value
    if kind is float and not math.isfinite(value):
        return f"expected a finite number, got {value!r}.", value
    return "", value


def validate(recipe: Recipe) -> None:
    """Hold a recipe against every rule that needs no data.

    Raises:
        InputError: all faults together, each with the field, the value got, the rule and a mend.
    """
    raise_faults(recipe_faults(recipe))


def recipe_faults(recipe: Recipe) -> list[str]:
    """Every broken rule as one sentence each; empty where the recipe is sound."""
    data, model, optim = recipe.data, recipe.model, recipe.optim
    train, machine = recipe.train, recipe.machine
    faults: list[str] = []

    def rule(holds: bool, name: str, value: object, expected: str) -> None:
        if not holds:
            faults.append(f"{name} is {value!r}: {expected}")

    rule(0 <= data.val < 1, "val", data.val, "a fraction from 0 up to, not including, 1.")
    rule(0 <= data.test < 1, "test", data.test, "a fraction from 0 up to, not including, 1.")
    if 0 <= data.val < 1 and 0 <= data.test < 1:
        both = data.val + data.test
        rule(both < 1, "val + test", both, "must leave text to train on; lower one of them.")
    rule(bool(data.separator), "separator", data.separator, "must not be empty.")
    rule(data.stride >= 0, "stride", data.stride, "0 (the context length) or more tokens.")
    rule(
        all(text and not text[0].isspace() and not text[-1].isspace() for text in data.add_tokens),
        "add_tokens",
        data.add_tokens,
        "texts without white space at their ends, none empty.",
    )

    for name in ("context_length", "num_layers", "num_heads", "hidden_size"):
        rule(getattr(model, name) >= 1, name, getattr(model, name), "1 or more.")
    for name in ("vocab_size", "num_kv_heads", "intermediate_size", "head_dim"):
        rule(getattr(model, name) >= 0, name, getattr(model, name), "0 (automatic) or more.")
    if model.num_heads >= 1 and model.hidden_size >= 1:
        rule(
            model.hidden_size % model.num_heads == 0,
            "hidden_size",
            model.hidden_size,
            f"must be a multiple of num_heads ({model.num_heads}).",
        )
        if model.positions == "rotary" and model.hidden_size % model.num_heads == 0:
            name = "head_dim" if model.head_dim else "hidden_size / num_heads"
            rule(
                model.head_size % 2 == 0,
                name,
                model.head_size,
                "must be even for rotary positions.",
            )
            rule(
                model.rotary_size % 2 == 0 and 0 < model.rotary_size <= model.head_size,
                "rotary_fraction",
                model.rotary_fraction,
                f"must take an even number of a head's {model.head_size} elements.",
            )
        if model.num_kv_heads >= 1:
            rule(
                model.num_heads % model.num_kv_heads == 0,
                "num_kv_heads",
                model.num_kv_heads,
                f"must divide num_heads ({model.num_heads}).",
            )
    if model.positions == "learned":
        for name, off in (("rope_scaling", "none"), ("rotary_fraction", 1.0)):
            rule(
                getattr(model, name) == off,
                name,
                getattr(model, name),
                f"positions are learned, so leave it at {off}.",
            )
    rope_scaling_rules(model, rule)
    rule(
        model.full_layers == 0 or 0 < model.full_layers < model.num_layers,
        "full_layers",
        model.full_layers,
        f"from 0 to {model.num_layers - 1}, so that some block has the window.",
    )
    rule(
        model.full_layers == 0 or model.sliding_window > 0,
        "full_layers",
        model.full_layers,
        "says nothing without a sliding_window; set both or none.",
    )
    rule(
        model.sliding_window >= 0,
        "sliding_window",
        model.sliding_window,
        "0 (none) or more tokens.",
    )
    for name in ("dropout", "attention_dropout"):
        rule(0 <= getattr(model, name) < 1, name, getattr(model, name), "from 0 up to 1.")
    rule(model.rope_theta > 0, "rope_theta", model.rope_theta, "above 0.")
    rule(model.norm_eps > 0, "norm_eps", model.norm_eps, "above 0.")
    rule(model.embedding_std > 0, "embedding_std", model.embedding_std, "above 0.")
    if not model.family:
        faults.append(
            "no open format holds this model: "
            f"positions={model.positions}, norm={model.norm}, mlp={model.mlp}, bias={model.bias}, "
            f"qkv_bias={model.qkv_bias}, qk_norm={model.qk_norm}, "
            f"num_kv_heads={model.num_kv_heads}, head_bias={model.head_bias}, "
            f"parallel_residual={model.parallel_residual}, "
            f"rotary_fraction={model.rotary_fraction}, sliding_window={model.sliding_window}, "
            f"full_layers={model.full_layers}. Use learned + layernorm + gelu + bias "
            "(GPT-2; qkv_bias as you like, no qk_norm, no grouped heads, no head_dim), rotary + "
            "rmsnorm + swiglu without bias (Llama; with sliding_window: Mistral; with qkv_bias: "
            "Qwen2; with qk_norm: Qwen3; the Qwens alone may have full_layers), or rotary + "
            "layernorm + gelu + bias + qkv_bias + head_bias + parallel_residual (Phi, which alone "
            "may have a rotary_fraction; no qk_norm, no sliding_window)."
        )

    rule(optim.learning_rate > 0, "learning_rate", optim.learning_rate, "above 0.")
    rule(optim.muon_learning_rate > 0, "muon_learning_rate", optim.muon_learning_rate, "above 0.")
    rule(optim.warmup_steps >= -1, "warmup_steps", optim.warmup_steps, "-1 (automatic) or more.")
    rule(optim.weight_decay >= 0, "weight_decay", optim.weight_decay, "0 or more.")
    for name in ("beta1", "beta2", "momentum", "average_decay"):
        value = getattr(optim, name)
        rule(0 <= value < 1, name, value, "from 0 up to, not including, 1.")
    for name in ("decay_fraction", "final_learning_rate_fraction"):
        rule(0 <= getattr(optim, name) <= 1, name, getattr(optim, name), "from 0 to 1.")
    rule(optim.clip_norm >= 0, "clip_norm", optim.clip_norm, "0 (never clip) or more.")
    rule(
        optim.spike_deviations == 0 or optim.spike_deviations >= 4,
        "spike_deviations",
        optim.spike_deviations,
        "0 (leave no finite update out) or 4 or more; 30 is far.",
    )

    rule(train.batch_size >= 1, "batch_size", train.batch_size, "1 or more sequences.")
    rule(train.micro_batch_size >= 0, "micro_batch_size", train.micro_batch_size, "0 or more.")
    if train.micro_batch_size >= 1 and train.batch_size >= 1:
        rule(
            train.batch_size % train.micro_batch_size == 0,
            "batch_size",
            train.batch_size,
            f"must be a multiple of micro_batch_size ({train.micro_batch_size}).",
        )
    if train.update_in_backward:
        faults += backward_faults(recipe)
    for name in ("steps", "eval_tokens", "checkpoint_every", "sample_tokens"):
        rule(getattr(train, name) >= 0, name, getattr(train, name), "0 or more.")
    for name in ("epochs", "checkpoint_minutes", "min_change"):
        rule(getattr(train, name) >= 0, name, getattr(train, name), "0 or more.")
    rule(train.eval_every >= 0, "eval_every", train.eval_every, "0 (automatic) or more updates.")
    rule(train.patience >= 1, "patience", train.patience, "1 or more evaluations.")
    rule(train.keep_checkpoints >= 1, "keep_checkpoints", train.keep_checkpoints, "1 or more.")
    rule(
        train.steps == 0 or train.epochs == 0,
        "steps and epochs",
        (train.steps, train.epochs),
        "give one of them, not both.",
    )
    faults += adapt_faults(recipe.adapt)
    rule(
        recipe.data.max_length == 0 or recipe.data.max_length >= 8,
        "max_length",
        recipe.data.max_length,
        "0 (automatic) or 8 tokens and more.",
    )
    rule(
        train.watch == "loss" or bool(recipe.exam) or recipe.sources == (TUTOR,),
        "watch",
        train.watch,
        "there is no exam to watch; give one with exam.",
    )
    rule(0 <= machine.seed < 2**31, "seed", machine.seed, "from 0 to 2147483647.")
    rule(machine.threads >= 0, "threads", machine.threads, "0 (automatic) or more.")
    if machine.exactness == "exact":
        rule(
            machine.precision != "fp16",
            "precision",
            machine.precision,
            "exactness is 'exact', and the scale of the loss that fp16 needs is found by overflow, "
            "which differs between splits: use fp32 or bf16.",
        )
        rule(
            not (recipe.base and recipe.adapt.method == "qlora"),
            "method",
            recipe.adapt.method,
            "exactness is 'exact', and the quantised kernels fix no order of sums: use lora or "
            "full.",
        )
    device = machine.device
    rule(
        device in ("auto", "cpu", "cuda", "mps")
        or (device.startswith("cuda:") and device[5:].isdigit()),
        "device",
        device,
        "auto, cpu, cuda, cuda:N or mps.",
    )
    return faults


def backward_faults(recipe: Recipe) -> list[str]:
    """What an update that is made on the way back cannot go with, and what to change."""
    optim, train, machine = recipe.optim, recipe.train, recipe.machine
    whole = "which needs the whole gradient before any weight is changed: set it to 0"
    asked = {
        f"clip_norm is {optim.clip_norm!r}": (optim.clip_norm != 0, whole),
        f"spike_deviations is {optim.spike_deviations!r}": (
            optim.spike_deviations != 0,
            whole,
        ),
        f"micro_batch_size is {train.micro_batch_size!r}": (
            train.micro_batch_size not in (0, train.batch_size),
            "and gradients are not added up: set it to 0, and batch_size to what one pass holds",
        ),
        f"precision is {machine.precision!r}": (
            machine.precision == "fp16",
            "whose loss scale is found by updates that are left out whole: set bf16 or fp32",
        ),
        f"exactness is {machine.exactness!r}": (
            machine.exactness == "exact",
            "which adds the gradients of single rows: set reproducible",
        ),
    }
    return [
        f"update_in_backward is True and {what}, {why}, or leave update_in_backward out."
        for what, (wrong, why) in asked.items()
        if wrong
    ]


def rope_scaling_rules(model: ModelConfig, rule: Callable[[bool, str, object, str], None]) -> None:
    """What must hold between rope_scaling and its numbers."""
    scaling = model.rope_scaling
    rule(model.rope_factor >= 1, "rope_factor", model.rope_factor, "1 or more.")
    for name in ("rope_original_length", "rope_slow", "rope_fast", "rope_amplitude"):
        rule(getattr(model, name) >= 0, name, getattr(model, name), "0 (automatic) or more.")
    silent = {
        "none": ("rope_factor", "rope_original_length", "rope_slow", "rope_fast", "rope_amplitude"),
        "llama3": ("rope_amplitude",),
        "yarn": (),
    }.get(scaling, ("rope_original_length", "rope_slow", "rope_fast", "rope_amplitude"))
    for name in silent:
        off = 1 if name == "rope_factor" else 0
        expected = f"says nothing with rope_scaling {scaling}; leave it at {off}."
        rule(getattr(model, name) == off, name, getattr(model, name), expected)
    if scaling in ("llama3", "yarn") and model.rope_factor >= 1:
        full = model.resolved(1)
        expected = f"must be above rope_slow ({full.rope_slow})."
        rule(full.rope_fast > full.rope_slow, "rope_fast", full.rope_fast, expected)
    if scaling == "yarn":
        rule(model.rope_theta > 1, "rope_theta", model.rope_theta, "above 1 for yarn.")


def adapt_faults(adapt: AdaptConfig) -> list[str]:
    """Every broken rule of the adapter and quantisation settings."""
    faults: list[str] = []

    def rule(holds: bool, name: str, expected: str) -> None:
        if not holds:
            faults.append(f"{name} is {getattr(adapt, name)!r}: {expected}")

    rule(adapt.rank >= 1, "rank", "1 or more.")
    rule(adapt.alpha > 0, "alpha", "above 0.")
    rule(0 <= adapt.lora_dropout < 1, "lora_dropout", "from 0 up to 1.")
    rule(all(adapt.targets), "targets", "names of layers, none empty.")
    rule(adapt.quantize_bits in (4, 8), "quantize_bits", "4 or 8.")
    return faults


def raise_faults(faults: list[str]) -> None:
    """Raise one InputError that lists all faults; do nothing where there are none."""
    if len(faults) == 1:
        raise InputError(faults[0])
    raise_all(f"{len(faults)} things to mend", faults)


def read_tree(path: Path) -> dict[str, Any]:
    """The table of a recipe file, not yet checked.

    Raises:
        InputError: no such file, not UTF-8, or not TOML (with the line).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such recipe file.") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, expected a recipe file (TOML).") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise InputError(f"{path}: not TOML: {error}.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from None


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain tables, complete: every field of every section."""
    tree = dataclasses.asdict(recipe)
    tree["sources"] = list(recipe.sources)
    return tree


def to_toml(recipe: Recipe) -> str:
    """The complete recipe as TOML text; reading it back gives an equal recipe."""
    return tomli_w.dumps(to_tree(recipe))
