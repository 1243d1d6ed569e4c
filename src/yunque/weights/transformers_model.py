"""Models that the Decoder does not hold: transformers computes them, behind the same protocol.

Nothing is known here of single architectures. What could differ between them is tried at the
model itself before it is relied upon, or made in a way that holds for every model whose
tokens do not see later ones, which is tried too:

- **Logits.** Where the output matrix times the hidden states is all there is, it is the head.
  Elsewhere (soft-capping, scaling) the head is the model's own forward pass with its lower part
  replaced by the given hidden states.
- **Segments and padded rows** are read apart: each in rows of their own that begin at column 0,
  longer rows beside them, no mask at all. Lengths in a call differ by less than a factor of two.
- **Caches** are transformers' own where reading in two steps with reordered rows, and with padded
  rows, gave the same as reading at once; elsewhere all tokens are read again at each step.

Shapes: B rows, T tokens of this call, S positions with what a cache holds, C hidden size,
V vocabulary.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yunque.errors import InputError
from yunque.files import read_json, refuse_strange_files, write_json
from yunque.model.protocol import device_of
from yunque.model.vocabulary import add_rows
from yunque.weights.families import TABLES, raise_misfit, refusals
from yunque.weights.folder import read_header, weight_files

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
NAMES_ALONE = (
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
"""Settings that do not change what a model computes."""
ONE_FILE = 1 << 50  # bytes: transformers knows no "all in one"
ENDLESS = 2048
"""Context of models whose positions have no end (recurrent ones, and those with ALiBi)."""


@dataclass(frozen=True)
class TransformersShape:
    """What is known of a model whose inside we do not know."""

    family: str
    context_length: int
    vocab_size: int


class TransformersCache:
    """Transformers' own cache, or, where it cannot be relied upon, the tokens themselves."""

    def __init__(self, states: Any):
        self.states = states
        """None: all tokens are read again at each step."""
        self.tokens: Tensor | None = None  # (B, used), where there are no states
        self.used = 0

    def reorder(self, rows: Tensor) -> None:
        """Make row i continue what row `rows[i]` held; `rows` may name more or fewer rows."""
        if self.states is not None:
            self.states.reorder_cache(rows)
        if self.tokens is not None:
            self.tokens = self.tokens[rows]


class Given(nn.Module):
    """Stands for the lower part of a model: its result is known already."""

    def __init__(self, output: Any):
        super().__init__()
        self.output = output

    def __getattr__(self, name: str) -> Given:
        return self  # some models call a part of it: OPT its model.decoder

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.output


class TransformersModel(nn.Module):
    """A causal language model of transformers with the protocol of `model.protocol`.

    Args:
        causal: what `AutoModelForCausalLM` opened.
        name: what messages call it.

    Raises:
        InputError: a token of it sees later ones, or its logits are no function of its hidden
            states.
    """

    def __init__(self, causal: Any, name: str):
        super().__init__()
        self.training = causal.training
        self.causal = causal
        self.name = name
        self.takes = frozenset(inspect.signature(self.base.forward).parameters)
        self._checkpointing = False
        self.output_kind: Any = None
        self.linear_head = False
        self.config = self._try_reading()
        # Tried when first needed: not everybody writes, and fewer write several rows at once.
        self._cache_works: bool | None = None
        self._padded_cache_works: bool | None = None

    @property
    def checkpointing(self) -> bool:
        """Whether training keeps only what enters each layer."""
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        if wanted and not self._checkpointing:
            self.causal.gradient_checkpointing_enable({"use_reentrant": False})
        elif self._checkpointing and not wanted:
            self.causal.gradient_checkpointing_disable()
        self._checkpointing = wanted

    @property
    def base(self) -> Any:
        """The lower part: tokens → hidden states."""
        return self.causal.base_model

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """Hidden states `(..., C)` → logits `(..., V)`; an nn.Linear where that is all there is."""
        return self.causal.get_output_embeddings() if self.linear_head else self._own_head

    def _own_head(self, hidden: Tensor) -> Tensor:
        """Logits by the model's own forward pass, its lower part replaced by `hidden`."""
        rows = hidden.reshape(1, -1, hidden.shape[-1])  # (1, N, C)
        upper = copy.copy(self.causal)  # shares every tensor
        given = Given(self.output_kind(last_hidden_state=rows))
        upper.__dict__["_modules"] = {
            name: given if part is self.base else part
            for name, part in self.causal._modules.items()
        }
        unread = torch.zeros(rows.shape[:2], dtype=torch.int64, device=rows.device)
        logits: Tensor = upper(input_ids=unread).logits
        return logits.view(*hidden.shape[:-1], -1)

    def add_rows(self, rows: int, new: Sequence[int], known: Sequence[int]) -> None:
        """Grow to a vocabulary of `rows` tokens; the rest as `model.vocabulary.with_rows`.

        Raises:
            InputError: this architecture has more that hangs on its vocabulary.
        """
        embedding, head = self.causal.get_input_embeddings(), self.causal.get_output_embeddings()
        kinds = isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear)
        if not kinds or {len(embedding.weight), len(head.weight)} != {self.config.vocab_size}:
            raise InputError(
                f"{self.name}: more than two matrices of this model "
                f"({type(self.causal).__name__}) hang on its vocabulary, so that no tokens can be "
                "added here. Leave add_tokens out."
            )
        add_rows(embedding, head, rows, new, known)
        self.causal.config.get_text_config(decoder=True).vocab_size = rows
        self.config = self._try_reading()

    def new_cache(self, batch: int, length: int) -> TransformersCache:
        """An empty cache; it grows as it is filled, whatever `batch` and `length` are."""
        if self._cache_works is None:
            self._cache_works = self._try_cache(padded=False)
        return TransformersCache(self._new_states() if self._cache_works else None)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part; a tied matrix is counted once, under `token_embedding`."""
        embedding = self.causal.get_input_embeddings()
        output = self.causal.get_output_embeddings()
        counts = {"token_embedding": sum(p.numel() for p in embedding.parameters())}
        known = {id(p) for p in embedding.parameters()}
        untied = sum(p.numel() for p in output.parameters() if id(p) not in known)
        if untied:
            counts["head"] = untied
        total = sum(p.numel() for p in self.parameters())  # yields a shared tensor once
        return {**counts, "layers": total - sum(counts.values()), "total": total}

    def forward(
        self,
        tokens: Tensor,
        cache: TransformersCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> Tensor:
        """Hidden states after the last norm; `self.head` makes logits of them.

        Args:
            tokens: ids `(B, T)`, int64.
            cache: holds the tokens before these; its `used` grows by T.
            positions: read with cache and mask only: they are counted from the beginning of a
                row, and of a segment.
            mask: bool `(B, 1, T, S)`, that of rows padded on their left: its last line tells
                the columns that are a row's own.
            segments: `(B, T)`, equal where neighbours belong together; without cache and mask.

        Returns:
            `(B, T, C)`; what stands in padded columns means nothing.
        """
        own = None if mask is None else mask[:, 0, -1]  # (B, S)
        if cache is None:
            segments = segments if own is None else own.long()
            return self._read(tokens) if segments is None else self._apart(tokens, segments)
        if own is not None and cache.used == 0 and cache.states is not None:
            if self._padded_cache_works is None:
                self._padded_cache_works = self._try_cache(padded=True)
            if not self._padded_cache_works:
                cache.states = None
        if cache.states is None:
            hidden = self._again(tokens, cache, own)
        else:
            hidden = self._read(tokens, cache.states, own, positions)
        cache.used += tokens.shape[1]
        return hidden

    def _read(
        self,
        tokens: Tensor,
        states: Any = None,
        own: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Hidden states as transformers gives them."""
        options: dict[str, Any] = {"use_cache": states is not None}
        if states is not None:
            options["past_key_values" if "past_key_values" in self.takes else "cache_params"] = (
                states
            )
        if own is not None:
            options |= {"attention_mask": own.long(), "position_ids": positions}
        output = self.base(
            input_ids=tokens,
            return_dict=True,
            **{name: value for name, value in options.items() if name in self.takes},
        )
        self.output_kind = type(output)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _apart(self, tokens: Tensor, segments: Tensor) -> Tensor:
        """Every segment in a row of its own; what follows it there cannot be seen by it."""
        B, T = tokens.shape
        begins = torch.ones_like(tokens, dtype=torch.bool)
        begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
        first = begins.flatten().nonzero().flatten()  # (R,) place of each segment's first token
        end = torch.cat((first[1:], first.new_tensor([B * T])))
        flat = tokens.flatten()
        places, parts = [], []
        sizes = [int(size - 1).bit_length() for size in (end - first).tolist()]
        for size in sorted(set(sizes)):
            rows = torch.tensor([own == size for own in sizes], device=tokens.device)
            begin, stop = first[rows, None], end[rows, None]  # (r, 1)
            columns = torch.arange(int((stop - begin).max()), device=tokens.device)
            place = begin + columns  # (r, t)
            inside = place < stop
            hidden = self._read(flat[place.minimum(stop - 1)])  # (r, t, C)
            places.append(place[inside])
            parts.append(hidden[inside])
        return torch.cat(parts)[torch.cat(places).argsort()].view(B, T, -1)

    def _again(self, tokens: Tensor, cache: TransformersCache, own: Tensor | None) -> Tensor:
        """The hidden states of `tokens`, all tokens of the cache read again with them."""
        read = tokens if cache.tokens is None else torch.cat((cache.tokens, tokens), dim=1)
        cache.tokens = read
        hidden = self._read(read) if own is None else self._apart(read, own.long())
        return hidden[:, -tokens.shape[1] :]

    def _new_states(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.causal.config)

    def _try_reading(self) -> TransformersShape:
        """Find out what the head is; the model's shape.

        Raises:
            InputError: see the class.
        """
        text = self.causal.config.get_text_config(decoder=True)
        tokens = probe_tokens(text.vocab_size, device_of(self.causal))
        with trying(self):
            if self.base is self.causal or self.base not in self.causal._modules.values():
                raise self._unusable("its parts cannot be told apart")
            expected = self.causal(input_ids=tokens).logits  # (2, T, V)
            hidden = self._read(tokens)
            self.linear_head = type(self.causal.get_output_embeddings()) is nn.Linear and all(
                # Far beyond the usual size too, where a soft cap shows.
                close(self.causal.get_output_embeddings()(wide), self._own_head(wide))
                for wide in (hidden, 30 * hidden, 1000 * hidden)
            )
            if not close(self.head(hidden), expected):
                raise self._unusable("its logits are not made from its last hidden states alone")
            # The two rows begin alike and go on differently.
            if not close(hidden[0, :SHARED], hidden[1, :SHARED]):
                raise self._unusable("its tokens see later ones, so it cannot write on")
        stated = stated_shape(self.causal.config)
        return dataclasses.replace(stated, vocab_size=expected.shape[-1])

    def _unusable(self, reason: str) -> InputError:
        return InputError(
            f"{self.name}: transformers opens this model ({type(self.causal).__name__}), but "
            f"{reason}. Give a causal language model."
        )

    def _try_cache(self, padded: bool) -> bool:
        """Whether reading in steps, its rows reordered in between, gives what reading at once does.

        Args:
            padded: the second row has fewer tokens, and others to its left.
        """
        tokens = probe_tokens(self.config.vocab_size, device_of(self.causal))
        T = tokens.shape[1]
        pads = torch.tensor([0, SHARED if padded else 0], device=tokens.device)
        rows = torch.tensor([1, 0, 1], device=tokens.device)
        columns = torch.arange(T, device=tokens.device)
        own = columns >= pads[:, None]  # (2, T)
        positions = (columns - pads[:, None]).clamp(min=0)
        with trying(self):
            alone = self._read(tokens[:1])[0], self._read(tokens[1:, int(pads[1]) :])[0]
            try:
                states = self._new_states()
                self._read(
                    tokens[:, :-2],
                    states,
                    own[:, :-2] if padded else None,
                    positions[:, :-2],
                )
                states.reorder_cache(rows)
                steps = [
                    self._read(
                        tokens[rows, place : place + 1],
                        states,
                        own[rows, : place + 1] if padded else None,
                        positions[rows, place : place + 1],
                    )
                    for place in (T - 2, T - 1)
                ]
            except Exception:  # an architecture that knows no such cache says so in many ways
                return False
            got = torch.cat(steps, dim=1)  # (3, 2, C)
            return all(
                close(line, alone[row][-2:]) for line, row in zip(got, rows.tolist(), strict=True)
            )


def context_length(config: Any) -> int:
    """How many tokens a model of transformers sees at once, by its settings."""
    text = config.get_text_config(decoder=True)
    lengths = (getattr(text, key, None) for key in CONTEXT_KEYS)
    return next((n for n in lengths if isinstance(n, int) and n > 0), ENDLESS)


def settings_facts(described: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's settings says what it computes: all but names, versions and token ids."""
    return {
        key: settings_facts(value) if isinstance(value, Mapping) else value
        for key, value in described.items()
        if key not in NAMES_ALONE and not str(key).endswith("_token_id")
    }


def unshared(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor; of names for the same tensor (a tied head) the first one."""
    seen = set()
    for name, tensor in state.items():
        place = tensor.data_ptr(), tensor.shape
        if not tensor.numel() or place not in seen:
            yield name, tensor
        seen.add(place)


def save_transformers(
    model: TransformersModel,
    folder: Path,
    generation: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = 0,
) -> None:
    """Write a model as transformers does into a folder that is there.

    Args:
        generation: content of generation_config.json; its ends and its begin go into config.json.
        dtype: of the parameters in the file. The model's own have this type while it is written,
            and their own again afterwards, with the values that the file has.
        shard_bytes: size of one file of weights at most; 0: one file.
    """
    from transformers import GenerationConfig

    causal = model.causal
    kinds = [parameter.dtype for parameter in causal.parameters()]
    # Ours is written below; transformers would not save at all what it finds inconsistent.
    causal.generation_config = GenerationConfig()
    try:
        for parameter in causal.parameters():  # not .to(): tables of rotary angles stay exact
            parameter.data = parameter.data.to(dtype)
        with quietly():
            causal.save_pretrained(folder, max_shard_size=shard_bytes or ONE_FILE)
    finally:
        for parameter, kind in zip(causal.parameters(), kinds, strict=True):
            parameter.data = parameter.data.to(kind)
    described = read_json(folder / "config.json")
    for role in ("eos", "bos"):
        if f"{role}_token_id" in generation:
            described[f"{role}_token_id"] = generation[f"{role}_token_id"]
    ends = generation.get("eos_token_id")
    if described.get("pad_token_id") in (ends if isinstance(ends, list) else [ends]):
        described["pad_token_id"] = None  # padding that is an end would never be learnt as an end
    write_json(folder / "config.json", described)
    write_json(folder / "generation_config.json", dict(generation))


SHARED = 5
"""Tokens that the two rows of a probe have in common, at their beginning."""


def probe_tokens(vocab_size: int, device: torch.device) -> Tensor:
    """Two rows of tokens `(2, T)`, equal at first."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(vocab_size, (2, SHARED + 4), generator=generator)
    tokens[1, :SHARED] = tokens[0, :SHARED]
    tokens[1, SHARED] = (tokens[0, SHARED] + 1) % vocab_size
    return tokens.to(device)


def close(got: Tensor, expected: Tensor) -> bool:
    """Whether two results differ by rounding alone.

    The bound is 1e-4 of the largest value in 32 bits and 8 units of rounding in 16. A mask or a
    position gone wrong moves values by their own size.
    """
    if got.shape != expected.shape:
        return False
    bound = max(1e-4, 8 * torch.finfo(expected.dtype).eps) * expected.abs().max()
    return bool(((got - expected).abs() <= bound).all())


@contextmanager
def trying(model: nn.Module) -> Iterator[None]:
    """No dropout, no gradients and full precision; the model's mode is put back afterwards."""
    was_training = model.training
    model.train(False)
    device = device_of(model).type
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False), quietly():
            yield
    finally:
        model.train(was_training)


def beyond_decoder(described: Mapping[str, Any]) -> list[str]:
    """Why a config.json is not for the Decoder; nothing where it is, even if it is faulty."""
    if "yunque" in described:
        return []
    family = described.get("model_type")
    if not isinstance(family, str) or family not in TABLES:
        return [f"model_type is {family!r}."]
    return refusals(described, family)


def code_keys(described: Any, where: str = "") -> list[str]:
    """Keys of a config.json that make transformers fetch or run code from outside, nested too."""
    if not isinstance(described, Mapping):
        return []
    found = []
    for key, value in described.items():
        fetched = str(key).endswith("_implementation") and "/" in str(value)
        if key in ("auto_map", "custom_pipelines") or fetched:
            found.append(f"{where}{key}")
        found += code_keys(value, f"{where}{key}.")
    return found


def refuse_code(described: Mapping[str, Any], path: Path) -> None:
    """Refuse a config.json that names code.

    Raises:
        InputError: with every such key; or its kind of model is no name.
    """
    family = described.get("model_type")
    if family is not None and not isinstance(family, str):
        raise InputError(f"{path}: model_type is {family!r}, expected a text, as 'llama'.")
    keys = code_keys(described)
    if keys:
        raise InputError(
            f"{path}: {', '.join(keys)}: this model comes with a program of its own, and Yunque "
            f"runs none. If transformers has {described.get('model_type')!r} itself, as for most "
            "models, remove these keys from the file."
        )


def stated_shape(config: Any) -> TransformersShape:
    """The shape that a configuration of transformers states."""
    vocab_size = config.get_text_config(decoder=True).vocab_size
    return TransformersShape(config.model_type, context_length(config), vocab_size)


def transformers_shape(folder: Path) -> TransformersShape | None:
    """The shape that config.json states; None where transformers makes nothing of it.

    The model itself may have more rows than that: who needs to be certain opens it.
    """
    from transformers import AutoConfig

    try:
        with quietly():
            config = AutoConfig.from_pretrained(
                str(folder.resolve()), local_files_only=True, trust_remote_code=False
            )
        return stated_shape(config)
    except Exception:  # the library raises what its many layers raise; opening says why
        return None


def load_transformers(
    folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> TransformersModel:
    """The model of a Hugging Face folder as transformers computes it, in evaluation mode.

    Safetensors only; no code from the folder, nothing from elsewhere.

    Raises:
        InputError: links out of the folder, no weights, a damaged file, code, an architecture that
            transformers does not know, tensors that are missing, left over or wrongly shaped (all
            together), or a model that does not write from left to right.
        StorageError: reading failed.
    """
    refuse_strange_files(folder)
    files, faults = weight_files(folder)
    path = folder / "config.json"
    described = read_json(path)
    if not isinstance(described, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(described).__name__}.")
    refuse_code(described, path)
    if "quantization_config" in described:
        raise InputError(
            f"{path}: quantization_config: the weights are quantised, and only float64, float32, "
            "float16 and bfloat16 are read. Take the model from which it was made."
        )
    for file, expected in files.items():
        missing = expected - read_header(file).keys()
        faults += [f"{name} is not in {file.name}." for name in missing]
    raise_misfit(str(folder), faults)

    from transformers import AutoModelForCausalLM

    try:
        with quietly():
            causal, found = AutoModelForCausalLM.from_pretrained(
                str(folder.resolve()),
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # so that all are named together
                output_loading_info=True,
            )
    except Exception as error:  # the library raises what its many layers raise
        if isinstance(error, ValueError) and "Unrecognized configuration class" in str(error):
            raise InputError(
                f"{folder}: model_type is {described.get('model_type')!r}: transformers knows it, "
                "but not as a model that continues text (it may translate, classify or fill "
                "gaps). Give a causal language model."
            ) from None
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"{folder}: model_type is {described.get('model_type')!r}, which the Decoder does not "
            f"hold, and transformers cannot open it: {type(error).__name__}: {reason}"
        ) from None
    faults = [f"{name} is missing." for name in sorted(found["missing_keys"])]
    faults += [f"{name} is left over." for name in sorted(found["unexpected_keys"])]
    faults += [
        f"{name} has the shape {tuple(got)}, expected {tuple(wanted)}."
        for name, got, wanted in sorted(found["mismatched_keys"])
    ]
    raise_misfit(str(folder), faults)
    return TransformersModel(causal.to(device).eval(), str(folder))


@contextmanager
def quietly() -> Iterator[None]:
    """Transformers without progress bars and warnings: what is wrong is said by us."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
