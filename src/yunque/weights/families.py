"""Our parameter names ↔ the names and layouts of GPT-2, Phi, Llama, Mistral, Qwen2 and Qwen3.

GPT-2 has two tables: that of transformers, and that of the files which OpenAI published.

Each family is a table of rows. A row holds one tensor of the file and what it is made of: some
of our tensors stacked by rows, and transposed where the format stores `(in, out)`. Both
operations only move numbers, so that the way there and back changes no bit.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import torch
from torch import Tensor

from yunque.config import ModelConfig, Recipe, recipe_faults, typed, unknown_name
from yunque.errors import InputError, raise_all
from yunque.model.decoder import Decoder

Shape = tuple[int, ...]
HEAD, EMBEDDING = "head.weight", "token_embedding.weight"


@dataclass(frozen=True)
class Row:
    """One tensor of the file; `{}` stands for the number of the block."""

    foreign: str
    ours: tuple[str, ...]
    transposed: bool = False
    zeros: bool = False
    """The format always has it: where we have none, zeros are written and must be read."""
    width: bool = False
    """The shape in the file begins with a 1, as that of a convolution of width 1."""


@dataclass(frozen=True)
class Table:
    """All rows of a format."""

    prefix: str
    """Some programs leave it off; it may be missing when read."""
    head: str
    rows: tuple[Row, ...]
    buffers: str
    """Names (a pattern) of constants that old files carry and that are no weights."""


GPT2 = Table(
    prefix="transformer.",
    head="lm_head.weight",
    rows=(
        Row("transformer.wte.weight", (EMBEDDING,)),
        Row("transformer.wpe.weight", ("position_embedding.weight",)),
        Row("transformer.h.{}.ln_1.weight", ("blocks.{}.attention_norm.weight",)),
        Row("transformer.h.{}.ln_1.bias", ("blocks.{}.attention_norm.bias",)),
        Row(
            "transformer.h.{}.attn.c_attn.weight",
            (
                "blocks.{}.attention.q_proj.weight",
                "blocks.{}.attention.k_proj.weight",
                "blocks.{}.attention.v_proj.weight",
            ),
            transposed=True,
        ),
        Row(
            "transformer.h.{}.attn.c_attn.bias",
            (
                "blocks.{}.attention.q_proj.bias",
                "blocks.{}.attention.k_proj.bias",
                "blocks.{}.attention.v_proj.bias",
            ),
            zeros=True,
        ),
        Row(
            "transformer.h.{}.attn.c_proj.weight",
            ("blocks.{}.attention.o_proj.weight",),
            transposed=True,
        ),
        Row("transformer.h.{}.attn.c_proj.bias", ("blocks.{}.attention.o_proj.bias",)),
        Row("transformer.h.{}.ln_2.weight", ("blocks.{}.mlp_norm.weight",)),
        Row("transformer.h.{}.ln_2.bias", ("blocks.{}.mlp_norm.bias",)),
        Row("transformer.h.{}.mlp.c_fc.weight", ("blocks.{}.mlp.up_proj.weight",), transposed=True),
        Row("transformer.h.{}.mlp.c_fc.bias", ("blocks.{}.mlp.up_proj.bias",)),
        Row(
            "transformer.h.{}.mlp.c_proj.weight",
            ("blocks.{}.mlp.down_proj.weight",),
            transposed=True,
        ),
        Row("transformer.h.{}.mlp.c_proj.bias", ("blocks.{}.mlp.down_proj.bias",)),
        Row("transformer.ln_f.weight", ("final_norm.weight",)),
        Row("transformer.ln_f.bias", ("final_norm.bias",)),
        Row("lm_head.weight", (HEAD,)),
    ),
    # The causal mask, which GPT-2's first published files hold as a tensor.
    buffers=r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",
)

# Llama, Mistral (adds a window), Qwen2 (the biases of q, k, v) and Qwen3 (the norms of q and k)
# share the names; rows of parts that a model lacks are left out.
LLAMA = Table(
    prefix="model.",
    head="lm_head.weight",
    rows=(
        Row("model.embed_tokens.weight", (EMBEDDING,)),
        Row("model.layers.{}.input_layernorm.weight", ("blocks.{}.attention_norm.weight",)),
        *(
            Row(f"model.layers.{{}}.self_attn.{part}", (f"blocks.{{}}.attention.{part}",))
            for part in (
                "q_proj.weight",
                "q_proj.bias",
                "k_proj.weight",
                "k_proj.bias",
                "v_proj.weight",
                "v_proj.bias",
                "q_norm.weight",
                "k_norm.weight",
                "o_proj.weight",
            )
        ),
        Row("model.layers.{}.post_attention_layernorm.weight", ("blocks.{}.mlp_norm.weight",)),
        *(
            Row(f"model.layers.{{}}.mlp.{part}.weight", (f"blocks.{{}}.mlp.{part}.weight",))
            for part in ("gate_proj", "up_proj", "down_proj")
        ),
        Row("model.norm.weight", ("final_norm.weight",)),
        Row("lm_head.weight", (HEAD,)),
    ),
    buffers=r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)

# The checkpoints that OpenAI published; the head is always tied.
OPENAI = Table(
    prefix="",
    head="",
    rows=(
        Row("model/wte", (EMBEDDING,)),
        Row("model/wpe", ("position_embedding.weight",)),
        Row("model/h{}/ln_1/g", ("blocks.{}.attention_norm.weight",)),
        Row("model/h{}/ln_1/b", ("blocks.{}.attention_norm.bias",)),
        *(
            Row(
                f"model/h{{}}/{theirs}/{kind}",
                tuple(f"blocks.{{}}.{part}.{'weight' if kind == 'w' else 'bias'}" for part in ours),
                transposed=kind == "w",
                zeros=(theirs, kind) == ("attn/c_attn", "b"),
                width=kind == "w",
            )
            for theirs, ours in (
                ("attn/c_attn", [f"attention.{part}_proj" for part in "qkv"]),
                ("attn/c_proj", ["attention.o_proj"]),
                ("mlp/c_fc", ["mlp.up_proj"]),
                ("mlp/c_proj", ["mlp.down_proj"]),
            )
            for kind in "wb"
        ),
        Row("model/h{}/ln_2/g", ("blocks.{}.mlp_norm.weight",)),
        Row("model/h{}/ln_2/b", ("blocks.{}.mlp_norm.bias",)),
        Row("model/ln_f/g", ("final_norm.weight",)),
        Row("model/ln_f/b", ("final_norm.bias",)),
    ),
    buffers="",
)

PHI = Table(
    prefix="model.",
    head="lm_head.weight",
    rows=(
        Row("model.embed_tokens.weight", (EMBEDDING,)),
        *(
            Row(f"model.layers.{{}}.{theirs}.{kind}", (f"blocks.{{}}.{ours}.{kind}",))
            for theirs, ours in (
                ("input_layernorm", "attention_norm"),
                ("self_attn.q_proj", "attention.q_proj"),
                ("self_attn.k_proj", "attention.k_proj"),
                ("self_attn.v_proj", "attention.v_proj"),
                ("self_attn.dense", "attention.o_proj"),
                ("mlp.fc1", "mlp.up_proj"),
                ("mlp.fc2", "mlp.down_proj"),
            )
            for kind in ("weight", "bias")
        ),
        Row("model.final_layernorm.weight", ("final_norm.weight",)),
        Row("model.final_layernorm.bias", ("final_norm.bias",)),
        Row("lm_head.weight", (HEAD,)),
        Row("lm_head.bias", ("head.bias",)),
    ),
    buffers=r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)

TABLES = {
    "gpt2": GPT2,
    "phi": PHI,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
}
ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "phi": "PhiForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@dataclass(frozen=True)
class Place:
    """A row of one model: its block is numbered and its sizes are known."""

    foreign: str
    shape: Shape
    ours: tuple[str, ...]
    heights: tuple[int, ...]
    """Rows of each of `ours`."""
    transposed: bool
    zeros: bool
    """We have no such tensor; in the file it is all zeros."""
    width: bool
    """`shape` begins with a 1."""


def table(config: ModelConfig) -> Table:
    """The names of the config's family.

    Raises:
        InputError: no open format holds this shape.
    """
    if config.family not in TABLES:
        raise InputError(
            "no open format holds this model: "
            f"positions={config.positions}, norm={config.norm}, mlp={config.mlp}, "
            f"bias={config.bias}, qkv_bias={config.qkv_bias}, qk_norm={config.qk_norm}, "
            f"head_bias={config.head_bias}, parallel_residual={config.parallel_residual}, "
            f"rotary_fraction={config.rotary_fraction}, sliding_window={config.sliding_window}, "
            f"full_layers={config.full_layers}. "
            "Use a shape of the GPT-2, Phi, Llama, Mistral, Qwen2 or Qwen3 family."
        )
    return TABLES[config.family]


def our_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name → shape of every weight of the Decoder; a tied head is not listed."""
    state = Decoder.empty(config).state_dict()
    if config.tie_embeddings:
        del state[HEAD]
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def places(config: ModelConfig, layout: Table | None = None) -> list[Place]:
    """Every tensor that a file of this model holds, in file order.

    Args:
        layout: the format's table; that of the Hugging Face folders where it is not given.
    """
    ours = our_shapes(config)
    # The shapes of what we lack and the format has: GPT-2's biases of q, k and v.
    full = our_shapes(dataclasses.replace(config, qkv_bias=True))
    found = []
    for row in (layout or table(config)).rows:
        for block in range(config.num_layers) if "{}" in row.foreign else (0,):
            names = tuple(name.format(block) for name in row.ours)
            absent = not all(name in ours for name in names)
            if absent and not row.zeros:
                continue
            shapes = [full[name] if absent else ours[name] for name in names]
            heights = tuple(shape[0] for shape in shapes)
            shape = (sum(heights), *shapes[0][1:])
            shape = shape[::-1] if row.transposed else shape
            found.append(
                Place(
                    foreign=row.foreign.format(block),
                    shape=(1, *shape) if row.width else shape,
                    ours=names,
                    heights=heights,
                    transposed=row.transposed,
                    zeros=absent,
                    width=row.width,
                )
            )
    return found


def join(place: Place, state: Mapping[str, Tensor]) -> Tensor:
    """Our tensors → the one of the file; a copy only where the layouts differ."""
    if place.zeros:
        like = next(iter(state.values()))
        return torch.zeros(place.shape, dtype=like.dtype, device=like.device)
    parts = [state[name] for name in place.ours]
    tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    tensor = tensor.T.contiguous() if place.transposed else tensor
    return tensor.unsqueeze(0) if place.width else tensor


def split(place: Place, tensor: Tensor) -> dict[str, Tensor]:
    """The tensor of the file → ours, as views of it.

    Raises:
        InputError: biases that our model does not have are not zero.
    """
    if place.zeros:
        if tensor.count_nonzero():
            raise InputError(
                f"{place.foreign} holds biases, but qkv_bias is false in the 'yunque' part of "
                "config.json. Set it to true there, or remove that part."
            )
        return {}
    rows = tensor.squeeze(0) if place.width else tensor
    rows = rows.T if place.transposed else rows
    return dict(zip(place.ours, torch.split(rows, list(place.heights)), strict=True))


def match(
    config: ModelConfig, found: Mapping[str, Shape], layout: Table | None = None
) -> tuple[dict[str, str], list[str]]:
    """Hold the names and shapes of a file against the table.

    Args:
        layout: the format's table; that of the Hugging Face folders where it is not given.

    Returns:
        The table's name → the file's name (they differ where a prefix is left off), and every
        fault as a sentence: missing, left over, wrongly shaped.
    """
    names = layout or table(config)
    wanted = {place.foreign: place.shape for place in places(config, names)}
    optional = {} if names.head in wanted else {names.head: (config.vocab_size, config.hidden_size)}
    matched: dict[str, str] = {}
    faults, extra = [], []
    for given, shape in found.items():
        bare = given in wanted or given in optional or given.startswith(names.prefix)
        name = given if bare else names.prefix + given
        if re.fullmatch(names.buffers, name):
            continue
        expected = wanted.get(name) or optional.get(name)
        if expected is None:
            extra.append(given)
        elif name in matched:
            faults.append(f"the same tensor twice: {matched[name]} and {given}.")
        elif tuple(shape) != expected:
            faults.append(f"wrong shape: {given} is {list(shape)}, expected {list(expected)}.")
        matched.setdefault(name, given)
    missing = [name for name in wanted if name not in matched]
    if missing:
        faults.append(f"missing ({len(missing)}): {', '.join(missing)}.")
    if extra:
        faults.append(f"left over ({len(extra)}): {', '.join(sorted(extra))}.")
    return matched, faults


def raise_misfit(where: str, faults: list[str]) -> None:
    """Raise one InputError that lists all faults; do nothing where there are none."""
    raise_all(f"{where}: the tensors do not fit the model that the configuration describes", faults)


def check_tied_head(where: str, head: Tensor, embedding: Tensor) -> None:
    """A file may repeat a tied head, but only the very same numbers.

    Raises:
        InputError: they differ, so that one of the two would be lost.
    """
    if not torch.equal(head, embedding):
        raise InputError(
            f"{where}: the output head differs from the embedding, but tie_word_embeddings is "
            "true in config.json. Set it (and tie_embeddings, where config.json has a 'yunque' "
            "part) to false to keep both."
        )


def module_names(config: ModelConfig) -> dict[str, str]:
    """Linear layer of a block → its name in the family's published model.

    Where the format stacks several of our layers into one (GPT-2's c_attn), they have the same
    name there and come in the order of the stack.

    Raises:
        InputError: no open format holds this shape.
    """
    matrices = [place for place in places(config) if len(place.shape) == 2]
    return {
        name.removesuffix(".weight"): place.foreign.removesuffix(".weight")
        for place in matrices
        for name in place.ours
        if name.startswith("blocks.")
    }


def to_foreign(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The Decoder's weights under the names and in the layout of its family.

    A tied head is not repeated.

    Raises:
        InputError: missing, left-over and wrongly shaped tensors, all together.
    """
    check_ours(config, state)
    return {place.foreign: join(place, state) for place in places(config)}


def check_ours(config: ModelConfig, state: Mapping[str, Tensor]) -> None:
    """Hold a state of the Decoder against its shape.

    Raises:
        InputError: missing, left-over and wrongly shaped tensors, all together.
    """
    wanted = our_shapes(config)
    faults = []
    for name in sorted(wanted.keys() - state.keys()):
        faults.append(f"missing: {name}.")
    for name, tensor in state.items():
        if name == HEAD and config.tie_embeddings:
            if EMBEDDING in state:
                check_tied_head("the model", tensor, state[EMBEDDING])
        elif name not in wanted:
            faults.append(f"left over: {name}.")
        elif tuple(tensor.shape) != wanted[name]:
            got, expected = list(tensor.shape), list(wanted[name])
            faults.append(f"wrong shape: {name} is {got}, expected {expected}.")
    raise_misfit("the model", faults)


def foreign_config(
    config: ModelConfig,
    dtype: str,
    end_id: int | None,
    begin_id: int | None = None,
    pad_id: int | None = None,
) -> dict[str, Any]:
    """config.json of the family, and our own shape under the key "yunque".

    Args:
        dtype: type of the stored weights: float32, bfloat16 or float16.
        end_id: the token that ends a text (eos); begin_id and pad_id are bos and pad.

    Raises:
        InputError: no open format holds this shape.
    """
    table(config)
    config = config.resolved(config.vocab_size)
    common = {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "torch_dtype": dtype,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": begin_id,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    if config.family == "gpt2":
        shape: dict[str, Any] = {
            "n_positions": config.context_length,
            "n_embd": config.hidden_size,
            "n_layer": config.num_layers,
            "n_head": config.num_heads,
            "n_inner": config.intermediate_size,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_eps,
            "embd_pdrop": config.dropout,
            "resid_pdrop": config.dropout,
            "attn_pdrop": config.attention_dropout,
        }
        return common | shape | {"yunque": dataclasses.asdict(config)}
    shape = {
        "max_position_embeddings": config.context_length,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "rope_theta": config.rope_theta,
        "attention_dropout": config.attention_dropout,
    }
    if config.family == "phi":
        shape |= {
            "hidden_act": "gelu_new",
            "layer_norm_eps": config.norm_eps,
            "partial_rotary_factor": config.rotary_fraction,
            "qk_layernorm": False,
            "embd_pdrop": config.dropout,
            "resid_pdrop": config.dropout,
        }
    else:
        shape |= {"hidden_act": "silu", "rms_norm_eps": config.norm_eps}
    # Written even where it is the quotient: Qwen3 takes 128 for a head size that is not there.
    if config.head_dim or config.family in ("llama", "mistral", "qwen3"):
        shape |= {"head_dim": config.head_size}
    if config.family in ("llama", "qwen3"):
        shape |= {"attention_bias": False}
    if config.family == "llama":
        shape |= {"mlp_bias": False}
    if config.family == "mistral":
        shape |= {"sliding_window": config.sliding_window}
    if config.family in ("qwen2", "qwen3"):
        windowed = config.sliding_window > 0
        shape |= {
            "use_sliding_window": windowed,
            "sliding_window": config.sliding_window if windowed else None,
            "max_window_layers": config.full_layers if windowed else config.num_layers,
        }
    if config.rope_scaling != "none":
        keys = {name: key for key, name in _ROPE_KEYS[config.rope_scaling].items()}
        shape |= {
            "rope_scaling": {
                "rope_type": config.rope_scaling,
                **{key: getattr(config, name) for name, key in keys.items()},
            }
        }
    return common | shape | {"yunque": dataclasses.asdict(config)}


# Our field → the family's key and, where the format may leave it out, what that means.
_REQUIRED = object()
_GPT2_KEYS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", _REQUIRED),
    "context_length": ("n_positions", _REQUIRED),
    "num_layers": ("n_layer", _REQUIRED),
    "num_heads": ("n_head", _REQUIRED),
    "hidden_size": ("n_embd", _REQUIRED),
    "intermediate_size": ("n_inner", 0),
    "tie_embeddings": ("tie_word_embeddings", True),
    # The embedding's own dropout (embd_pdrop) is the same number in every published GPT-2.
    "dropout": ("resid_pdrop", 0.1),
    "attention_dropout": ("attn_pdrop", 0.1),
    "norm_eps": ("layer_norm_epsilon", 1e-5),
}
_LLAMA_KEYS: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocab_size", _REQUIRED),
    "context_length": ("max_position_embeddings", _REQUIRED),
    "num_layers": ("num_hidden_layers", _REQUIRED),
    "num_heads": ("num_attention_heads", _REQUIRED),
    "num_kv_heads": ("num_key_value_heads", 0),
    "hidden_size": ("hidden_size", _REQUIRED),
    "intermediate_size": ("intermediate_size", _REQUIRED),
    "tie_embeddings": ("tie_word_embeddings", False),
    "attention_dropout": ("attention_dropout", 0.0),
    "norm_eps": ("rms_norm_eps", 1e-6),
    "rope_theta": ("rope_theta", 10_000.0),
}
_PHI_KEYS: dict[str, tuple[str, Any]] = {
    **_LLAMA_KEYS,
    "norm_eps": ("layer_norm_eps", 1e-5),
    # The published models drop no element of the embedding (embd_pdrop); ours does, while training.
    "dropout": ("resid_pdrop", 0.0),
    "rotary_fraction": ("partial_rotary_factor", 0.5),
}
# rope_type → the keys of its table and our fields. Only the first may not be missing.
_LONGER = {"factor": "rope_factor", "original_max_position_embeddings": "rope_original_length"}
_ROPE_KEYS: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "rope_factor"},
    "dynamic": {"factor": "rope_factor"},
    "llama3": _LONGER | {"low_freq_factor": "rope_slow", "high_freq_factor": "rope_fast"},
    "yarn": _LONGER
    | {"beta_slow": "rope_slow", "beta_fast": "rope_fast", "attention_factor": "rope_amplitude"},
}
_EARLY: dict[str, Any] = {"norm": "layernorm", "mlp": "gelu", "bias": True, "qkv_bias": True}
_FIXED: dict[str, dict[str, Any]] = {
    "gpt2": _EARLY | {"positions": "learned"},
    "phi": _EARLY | {"head_bias": True, "parallel_residual": True},
    "llama": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
}

# What the Decoder computes: key → the values it may have, absent included. Anything else would
# load without a complaint and give other logits.
_ANY_FAMILY: dict[str, tuple[Any, ...]] = {
    "auto_map": (None, {}),
    "custom_pipelines": (None, {}),
    "trust_remote_code": (None, False),
    "quantization_config": (None,),
    "use_parallel_residual": (None, False),
    "is_encoder_decoder": (None, False),
}
_GELU = (None, "gelu_new", "gelu_pytorch_tanh")
_SILU: dict[str, tuple[Any, ...]] = {"hidden_act": (None, "silu", "swish")}
_ALLOWED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": _GELU,
        "scale_attn_weights": (None, True),
        "scale_attn_by_inverse_layer_idx": (None, False),
        "add_cross_attention": (None, False),
    },
    "phi": {"hidden_act": _GELU, "qk_layernorm": (None, False)},
    "llama": _SILU
    | {
        "attention_bias": (None, False),
        "mlp_bias": (None, False),
        "use_sliding_window": (None, False),
    },
    "mistral": _SILU,
    "qwen2": _SILU,
    "qwen3": _SILU | {"attention_bias": (None, False)},
}


def model_config(config_json: Mapping[str, Any], where: str) -> ModelConfig:
    """The Decoder's shape from a config.json: our own part where there is one, else derived.

    Args:
        where: the file, for messages.

    Raises:
        InputError: keys that are missing, wrong, or ask for what the Decoder does not compute,
            all together; or our own part contradicts the rest of the file.
    """
    family = config_json.get("model_type")
    if not isinstance(family, str) or family not in TABLES:
        raise InputError(
            f"{where}: model_type is {family!r}; this reader knows {', '.join(TABLES)}."
        )
    faults = refusals(config_json, family)
    derived = derive(config_json, family, faults)
    raise_config_faults(where, faults)
    if "yunque" not in config_json:
        return checked(derived, where)
    own = own_config(config_json["yunque"], where)
    # What the family's keys cannot say; the rest must agree, or another program changed the file.
    silent = {"preset", "dropout", "attention_dropout", "embedding_std"} | (
        {"qkv_bias"} if family == "gpt2" else set()
    )
    differ = [
        f"{name} is {getattr(own, name)!r} in its 'yunque' part and {value!r} elsewhere"
        for name, value in dataclasses.asdict(derived).items()
        if name not in silent and getattr(own, name) != value
    ]
    if differ:
        raise InputError(
            f"{where}: {'; '.join(differ)}. Another program changed this file: remove the "
            "'yunque' part if the rest is right."
        )
    return own


def raise_config_faults(where: str, faults: list[str]) -> None:
    """Raise one InputError for a config.json; do nothing where there are no faults."""
    raise_all(f"{where}: the Decoder cannot hold this model", faults)


def refusals(config_json: Mapping[str, Any], family: str) -> list[str]:
    """Every key that asks for something the Decoder does not compute."""
    faults = []
    for key, allowed in (_ANY_FAMILY | _ALLOWED[family]).items():
        value = config_json.get(key)
        if value not in allowed:
            faults.append(f"{key} is {value!r}, and {describe(allowed)} is supported.")
    if family == "gpt2":
        return faults
    _, rope, _ = rope_numbers(config_json, faults)
    turned = rope.get("partial_rotary_factor", config_json.get("partial_rotary_factor"))
    if family != "phi" and turned not in (None, 1):
        faults.append(f"partial_rotary_factor is {turned!r}, and only 1 is supported in {family}.")
    window(config_json, family, faults)
    return faults


def describe(allowed: tuple[Any, ...]) -> str:
    """The supported values of a key, for a message."""
    values = [repr(value) for value in allowed if value is not None]
    return f"only {' or '.join(values)}" if values else "only its absence"


def derive(config_json: Mapping[str, Any], family: str, faults: list[str]) -> ModelConfig:
    """The shape that the family's own keys describe; what is missing or no number, to `faults`."""
    keys = {"gpt2": _GPT2_KEYS, "phi": _PHI_KEYS}.get(family, _LLAMA_KEYS)
    # ModelConfig's own defaults are those of nano, not of these formats.
    values: dict[str, Any] = {"preset": "", "qk_norm": False, "dropout": 0.0, **_FIXED[family]}
    given: dict[str, tuple[str, Any]] = {}
    stated = dict(config_json)
    if family != "gpt2":
        # `refusals` has said what is wrong with these.
        values["rope_scaling"], rope, numbers = rope_numbers(config_json, [])
        values |= window(config_json, family, [])
        given |= numbers
        stated |= {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    for name, (key, default) in keys.items():
        value = stated.get(key)
        if value is None:
            # Qwen's and Mistral's formats take 32 and 8 for a missing number; nobody means that.
            if default is _REQUIRED or (
                key == "num_key_value_heads" and family not in ("llama", "phi")
            ):
                faults.append(f"{key} is missing.")
                continue
            value = default
        given[name] = (key, value)
    if family != "gpt2":
        head_dim = config_json.get("head_dim", 128 if family == "qwen3" else None)
        given["head_dim"] = ("head_dim", 0 if head_dim is None else head_dim)
    kinds = get_type_hints(ModelConfig)
    for name, (key, value) in given.items():
        fault, value = typed(value, kinds[name])
        if fault:
            faults.append(f"{key}: {fault}")
        else:
            values[name] = value
    config = ModelConfig(**values)
    return config if faults else config.resolved(config.vocab_size)


def rope_numbers(
    config_json: Mapping[str, Any], faults: list[str]
) -> tuple[str, Mapping[str, Any], dict[str, tuple[str, Any]]]:
    """(our rope_scaling, the file's table, our field → the file's key and value).

    The table is called rope_scaling by older programs, rope_parameters by newer ones.
    """
    key = "rope_scaling" if config_json.get("rope_scaling") else "rope_parameters"
    rope = config_json.get(key) or {}
    if not isinstance(rope, dict):
        faults.append(f"{key}: expected an object, got {rope!r}.")
        return "none", {}, {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        faults.append(
            f"{key}: rope_type is {kind!r}, and {describe(tuple(_ROPE_KEYS))} is supported."
        )
        return "none", {}, {}
    fields_of = _ROPE_KEYS[kind]
    found = {
        name: (f"{key}.{part}", rope[part])
        for part, name in fields_of.items()
        if rope.get(part) is not None
    }
    length = config_json.get("original_max_position_embeddings")
    if length is not None and "rope_original_length" in fields_of.values():
        found["rope_original_length"] = ("original_max_position_embeddings", length)
    faults += [
        f"{key}.{part} is missing." for part in list(fields_of)[:1] if rope.get(part) is None
    ]
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *fields_of}
    if kind == "yarn":
        known |= {"mscale", "mscale_all_dim", "truncate"}
        if rope.get("truncate") not in (None, True):
            faults.append(f"{key}.truncate is {rope['truncate']!r}, and only True is supported.")
        over, under = rope.get("mscale"), rope.get("mscale_all_dim")
        if "rope_amplitude" not in found and over and under:
            found["rope_amplitude"] = (f"{key}.mscale", amplitude(rope.get("factor"), over, under))
    faults += [
        f"{key}.{part} is {value!r}, and only its absence is supported with rope_type {kind!r}."
        for part, value in rope.items()
        if part not in known and value is not None
    ]
    return "none" if kind == "default" else kind, rope, found


def amplitude(factor: Any, over: Any, under: Any) -> Any:
    """YaRN's factor of cosines and sines from its mscale and mscale_all_dim."""
    if any(typed(value, float)[0] for value in (factor, over, under)) or factor < 1:
        return f"factor {factor!r}, mscale {over!r}, mscale_all_dim {under!r}"
    tops = (0.1 * scale * math.log(factor) + 1.0 for scale in (over, under))
    return next(tops) / next(tops)


def window(config_json: Mapping[str, Any], family: str, faults: list[str]) -> dict[str, int]:
    """Our sliding_window and full_layers; none where no block has a window."""
    layers: Any = config_json.get("num_hidden_layers")
    if typed(layers, int)[0]:  # which is said elsewhere
        return {}
    size: Any = None
    first: Any = 0
    if family == "mistral":
        size = config_json.get("sliding_window", 4096)
    elif family.startswith("qwen") and config_json.get("use_sliding_window"):
        size = config_json.get("sliding_window", 4096)
        first = config_json.get("max_window_layers", 28)
    kinds = config_json.get("layer_types") or []
    full, windowed = "full_attention", "sliding_attention"
    listed = isinstance(kinds, list) and all(kind in (full, windowed) for kind in kinds)
    if listed and kinds and size is not None and family != "mistral":
        first = kinds.index(windowed) if windowed in kinds else layers
    for key, value in (("sliding_window", size or 0), ("max_window_layers", first)):
        fault, _ = typed(value, int)
        if fault:
            faults.append(f"{key}: {fault}")
            return {}
    if not size or first >= layers:
        size, first = 0, 0
    # full_attention up to `first` and sliding_attention from there on, or full_attention alone.
    seen = [kind == windowed for kind in kinds] if listed else [True]
    if kinds and (
        len(seen) != layers or seen != [bool(size) and i >= first for i in range(layers)]
    ):
        faults.append(
            f"layer_types is {kinds!r}, and only {full} in the first blocks and {windowed} in all "
            "others is supported, where the other keys say that there is a window."
        )
    return {"sliding_window": size, "full_layers": first}


def own_config(part: Any, where: str) -> ModelConfig:
    """Our own part of a config.json.

    Raises:
        InputError: unknown keys, wrong types and broken rules, all together.
    """
    if not isinstance(part, Mapping):
        raise InputError(f"{where}: 'yunque' must be a table of model settings, got {part!r}.")
    kinds = get_type_hints(ModelConfig)
    faults, values = [], {}
    for name, value in part.items():
        if name not in kinds:
            faults.append(unknown_name(name, (f.name for f in fields(ModelConfig)), "key"))
            continue
        fault, values[name] = typed(value, kinds[name])
        if fault:
            faults.append(f"yunque.{name}: {fault}")
    raise_config_faults(where, faults)
    return checked(ModelConfig(**values), where)


def checked(config: ModelConfig, where: str) -> ModelConfig:
    """The config, its rules held and its automatic sizes filled in.

    Raises:
        InputError: every broken rule.
    """
    faults = recipe_faults(Recipe(model=config))
    if config.vocab_size < 1:
        faults.append(f"vocab_size is {config.vocab_size}: 1 or more.")
    raise_config_faults(where, faults)
    return config.resolved(config.vocab_size)
