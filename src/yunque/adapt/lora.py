"""LoRA, rsLoRA and DoRA through PEFT, saved so that PEFT opens them on the published model.

Our modules carry our names, files carry those of the published model: `names` maps the one to the
other, and is empty where the model is itself a published one.

GPT-2's format stacks queries, keys and values into one layer, c_attn. A LoRA of that layer has one
A, which all three read through, and a B of three parts. Ours are three layers; they share A as one
parameter, and each has its part of B. This is the same function of the same parameters as PEFT's
adapter of c_attn: files go both ways without a change, training moves both alike, and DoRA's
lengths, one a row of the weight, split as the rows do. (Three A of their own would have to be
written as one adapter of three times the rank, and could not be read back as what they were.) Only
the dropout of the adapter differs: ours draws a mask for each of the three.

Sources: Hu et al. 2021, "LoRA", section 4.1; Kalajdzievski 2023, "A Rank Stabilization Scaling
Factor for Fine-Tuning with LoRA"; Liu et al. 2024, "DoRA", section 4.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yunque.adapt.low_rank import compute_here
from yunque.adapt.quantize import (
    dequantize,
    dequantized,
    end_module,
    is_quantized,
    plain_linear,
    quantize,
    replace_module,
    stream_dtype,
)
from yunque.config import AdaptConfig, unknown_name
from yunque.errors import InputError, raise_all
from yunque.files import read_json, staged_folder, storage_error, write_bytes, write_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
DEFAULT = "default"


@dataclass(frozen=True)
class Shape:
    """An adapter apart from its numbers."""

    layers: tuple[str, ...]
    """Our names of the layers that it changes."""
    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False


def apply_method(
    model: nn.Module,
    settings: AdaptConfig,
    seed: int,
    names: Mapping[str, str] | None = None,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The model on `device`, ready to be trained as `settings.method` says, in place.

    What was quantised as it was read stays as it is.

    Args:
        seed, names: as for `add_lora`.

    Raises:
        InputError, MissingPackageError: as `quantize` and `add_lora`.
    """
    quantized = any(is_quantized(module) for module in model.modules())
    if settings.method == "qlora" and not quantized:
        quantize(model, settings, device)
    else:
        model.to(device)
    if settings.method == "full":
        return model.requires_grad_(True)
    return add_lora(model, settings, seed, names)


def add_lora(
    model: nn.Module,
    settings: AdaptConfig,
    seed: int,
    names: Mapping[str, str] | None = None,
    adapter: str = DEFAULT,
) -> nn.Module:
    """Put a new adapter on the model, in place; it alone is active and gets gradients.

    Its matrices are float32 whatever the base is kept in. B is zero, so that the model computes
    what it did.

    Args:
        seed: fixes the values of A; the state of torch's generator stays as it was.
        names: our name → published name of the layers that may be adapted
            (`weights.families.module_names`); None for a published model.

    Raises:
        InputError: a target that no layer bears, an adapter of that name is there, or DoRA over
            8 bits.
    """
    linear = linear_names(model, names)
    layers = chosen_layers(linear, settings.targets)
    variant = settings.variant
    shape = Shape(
        layers,
        settings.rank,
        settings.alpha,
        settings.lora_dropout,
        rslora=variant == "rslora",
        dora=variant == "dora",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject(model, shape, linear, adapter)
    use_adapters(model, [adapter], trainable=True)
    return model


def linear_names(model: nn.Module, names: Mapping[str, str] | None) -> dict[str, str]:
    """The layers that may have an adapter: our name → published name.

    Without `names` every linear layer but the output head, under its own name.
    """
    if names is not None:
        return dict(names)
    head = end_module(model, "output")
    return {
        name: name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D" or adapted(module))
        and module is not head
        and not re.search(r"\.(base_layer|lora_[AB])\b", name)
    }


def suffixes(name: str) -> Iterator[str]:
    """The names by which PEFT finds a module: a.b.c, b.c and c."""
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def chosen_layers(linear: Mapping[str, str], targets: Collection[str]) -> tuple[str, ...]:
    """Our names of the layers that the targets mean; without targets, all.

    Raises:
        InputError: a target that no layer bears.
    """
    if not targets:
        return tuple(linear)
    known = {suffix for name in linear.values() for suffix in suffixes(name)}
    for target in targets:
        if target not in known:
            last = sorted({name.rpartition(".")[2] for name in linear.values()})
            raise InputError(f"targets: {unknown_name(target, last, 'layer')}")
    return matching(linear, targets)


def matching(linear: Mapping[str, str], targets: Collection[str]) -> tuple[str, ...]:
    """Our names of the layers that bear one of the targets, as PEFT reads `target_modules`."""
    wanted = set(targets)
    return tuple(ours for ours, theirs in linear.items() if not wanted.isdisjoint(suffixes(theirs)))


def inject(model: nn.Module, shape: Shape, linear: Mapping[str, str], adapter: str) -> None:
    """Give the layers of `shape` their matrices, in place.

    Raises:
        InputError: an adapter of that name is there, or DoRA over 8 bits.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if adapter in adapter_names(model):
        raise InputError(f"there is an adapter {adapter!r} already: give the new one another name.")
    modules = dict(model.named_modules())
    if shape.dora and any(type(modules[name]).__name__ == "Linear8bitLt" for name in shape.layers):
        # PEFT loses the scales of 8-bit weights when it takes the lengths of their rows.
        raise InputError("DoRA works over weights in 4 bits or full ones, not over 8 bits.")
    settings = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=list(shape.layers),
        use_rslora=shape.rslora,
        use_dora=shape.dora,
        fan_in_fan_out=all(type(modules[name]).__name__ == "Conv1D" for name in shape.layers),
        bias="none",
    )
    with warnings.catch_warnings():
        # That there is another adapter is known here, and meant.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(settings, model, adapter)
    model.train(model.training)  # new modules come in training mode
    for parameter in adapter_parameters(model, adapter):
        parameter.data = parameter.data.float()
    modules = dict(model.named_modules())
    for name in shape.layers:
        compute_here(modules[name])
    for stack in stacks(shape.layers, linear).values():
        first, *others = (modules[name].lora_A[adapter] for name in stack)
        for other in others:
            other.weight = first.weight


def stacks(layers: Sequence[str], linear: Mapping[str, str]) -> dict[str, list[str]]:
    """Published layer → our layers that it is made of, from the first row to the last."""
    groups: dict[str, list[str]] = {}
    for ours in layers:
        groups.setdefault(linear[ours], []).append(ours)
    return groups


def adapted(module: nn.Module) -> bool:
    """Whether a layer has adapters."""
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Name → layer, of those that have adapters."""
    return {name: module for name, module in model.named_modules() if adapted(module)}


def adapter_names(model: nn.Module) -> list[str]:
    """The adapters on the model, in the order in which they came."""
    return list(getattr(model, "peft_config", {}))


def adapter_parameters(model: nn.Module, adapter: str) -> Iterator[nn.Parameter]:
    """The parameters of one adapter; what layers share comes once for each of them."""
    for layer in adapted_layers(model).values():
        for parts in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
            if adapter in parts:
                yield from parts[adapter].parameters()


def use_adapters(model: nn.Module, adapters: Sequence[str], trainable: bool = False) -> None:
    """Make these adapters, and no others, change the model; their changes add up.

    Args:
        adapters: none for the base alone.
        trainable: whether they get gradients; nothing else of the model does.

    Raises:
        InputError: there is no such adapter.
    """
    for adapter in adapters:
        if adapter not in adapter_names(model):
            raise InputError(unknown_name(adapter, adapter_names(model), "adapter"))
    for layer in adapted_layers(model).values():
        layer.set_adapter(list(adapters))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for adapter in adapters:
        for parameter in adapter_parameters(model, adapter):
            parameter.requires_grad_(trainable)


def save_adapter(
    model: nn.Module,
    folder: Path,
    base_name: str,
    names: Mapping[str, str] | None = None,
    adapter: str = DEFAULT,
    save_tokenizer: Callable[[Path], None] | None = None,
    base_revision: str | None = None,
) -> None:
    """Write a folder that `PeftModel.from_pretrained` opens; it appears whole or not at all.

    Args:
        base_name: the model that the adapter was trained on, a folder or a Hub id.
        names: as for `add_lora`.
        save_tokenizer: writes the tokenizer's files into the folder that it is given.
        base_revision: the commit of a Hub id; PEFT asks for it too.

    Raises:
        InputError: there is no such adapter.
        StorageError: writing failed; an older folder of that name is still there.
    """
    from safetensors.torch import save

    if adapter not in adapter_names(model):
        raise InputError(unknown_name(adapter, adapter_names(model), "adapter"))
    linear = linear_names(model, names)
    layers = {
        name: layer for name, layer in adapted_layers(model).items() if adapter in layer.lora_A
    }
    held: Any = model.peft_config
    settings = held[adapter]
    with staged_folder(folder) as stage:
        write_json(
            stage / CONFIG,
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": base_name,
                **({"revision": base_revision} if base_revision else {}),
                "inference_mode": True,
                "r": settings.r,
                "lora_alpha": settings.lora_alpha,
                "lora_dropout": settings.lora_dropout,
                "target_modules": shortest_targets(list(layers), linear),
                "use_rslora": settings.use_rslora,
                "use_dora": settings.use_dora,
                "fan_in_fan_out": stores_transposed(layers, linear),
                "bias": "none",
                "init_lora_weights": True,
            },
        )
        tensors = {
            name: torch.cat([part.weight.detach() for part in parts]).cpu()
            for name, parts in places(layers, linear, adapter).items()
        }
        write_bytes(stage / WEIGHTS, save(tensors, metadata={"format": "pt"}))
        if save_tokenizer is not None:
            save_tokenizer(stage)


def places(
    layers: Mapping[str, Any], linear: Mapping[str, str], adapter: str
) -> dict[str, list[Any]]:
    """Tensor of the file → our modules whose weights, one below the other, it holds.

    Of layers that are one in the published model, A is shared and comes from the first.
    """
    found: dict[str, list[Any]] = {}
    for theirs, stack in stacks(list(layers), linear).items():
        members = [layers[name] for name in stack]
        found[f"{PREFIX}{theirs}.lora_A.weight"] = [members[0].lora_A[adapter]]
        found[f"{PREFIX}{theirs}.lora_B.weight"] = [layer.lora_B[adapter] for layer in members]
        if adapter in members[0].lora_magnitude_vector:
            found[f"{PREFIX}{theirs}.lora_magnitude_vector"] = [
                layer.lora_magnitude_vector[adapter] for layer in members
            ]
    return found


def shortest_targets(layers: Collection[str], linear: Mapping[str, str]) -> list[str]:
    """`target_modules` that mean exactly these layers: last names where they do."""
    short = sorted({linear[name].rpartition(".")[2] for name in layers})
    if set(matching(linear, short)) == set(layers):
        return short
    return sorted({linear[name] for name in layers})


def stores_transposed(layers: Mapping[str, Any], linear: Mapping[str, str]) -> bool:
    """Whether the published layers are Conv1D, `(in, out)`: those of the format that stacks.

    PEFT finds out by itself too, and says so in a warning.
    """
    stacked = len(set(linear.values())) < len(linear)
    return stacked or all(layer.fan_in_fan_out for layer in layers.values())


def load_adapter(
    model: nn.Module,
    folder: Path,
    names: Mapping[str, str] | None = None,
    adapter: str = DEFAULT,
    trainable: bool = False,
) -> nn.Module:
    """Put an adapter of PEFT's format on the model, in place; it alone is then active.

    The base's weights are not looked at: that the adapter was trained on this base is for the
    caller to see to (`read_adapter_config` gives its name).

    Args:
        names: as for `add_lora`.

    Raises:
        InputError: no adapter there, a pickle, settings that are not supported, or tensors that
            are missing, left over, wrongly shaped or not finite, all together.
        StorageError: reading failed.
    """
    settings = read_adapter_config(folder)
    linear = linear_names(model, names)
    shape = Shape(
        matching(linear, settings["target_modules"]),
        settings["r"],
        settings["lora_alpha"],
        settings.get("lora_dropout", 0.0),
        settings.get("use_rslora", False),
        settings.get("use_dora", False),
    )
    if not shape.layers:
        raise InputError(
            f"{folder / CONFIG}: target_modules is {settings['target_modules']!r}, and no linear "
            "layer of this model's blocks has such a name. Is it an adapter of another model?"
        )
    tensors = read_tensors(folder / WEIGHTS, expected_shapes(model, shape, linear))
    inject(model, shape, linear, adapter)
    layers = {name: layer for name, layer in adapted_layers(model).items() if name in shape.layers}
    with torch.no_grad():
        for name, parts in places(layers, linear, adapter).items():
            heights = [part.weight.shape[0] for part in parts]
            for part, piece in zip(parts, tensors[name].split(heights), strict=True):
                part.weight.copy_(piece)
    use_adapters(model, [adapter], trainable)
    return model


def expected_shapes(
    model: nn.Module, shape: Shape, linear: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Tensor of the file → its shape, from the layers that it is for."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    found: dict[str, tuple[int, ...]] = {}
    for theirs, stack in stacks(shape.layers, linear).items():
        sizes = [layer_sizes(modules[name]) for name in stack]
        outputs = sum(size[1] for size in sizes)
        found[f"{PREFIX}{theirs}.lora_A.weight"] = (shape.rank, sizes[0][0])
        found[f"{PREFIX}{theirs}.lora_B.weight"] = (outputs, shape.rank)
        if shape.dora:
            found[f"{PREFIX}{theirs}.lora_magnitude_vector"] = (outputs,)
    return found


def layer_sizes(module: Any) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer."""
    if type(module).__name__ == "Conv1D":
        return module.weight.shape[0], module.weight.shape[1]
    return module.in_features, module.out_features


def read_tensors(file: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of an adapter, held against what they must be before any is read.

    Raises:
        InputError: no such file, damaged, or tensors that do not fit, all together.
        StorageError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        pickled = [path.name for path in file.parent.glob("adapter_model*") if path != file]
        more = f" {', '.join(sorted(pickled))} is no safetensors file." if pickled else ""
        raise InputError(
            f"{file}: no such file.{more} Yunque opens adapters as safetensors only, because a "
            "pickle may run any program; PEFT's save_pretrained writes them."
        )
    try:
        with safe_open(file, framework="pt") as content:
            shapes = {
                name: tuple(content.get_slice(name).get_shape())
                for name in content.keys()  # noqa: SIM118
            }
            faults = [f"missing: {name}." for name in expected if name not in shapes]
            for name, got in shapes.items():
                if name not in expected:
                    faults.append(f"left over: {name}.")
                elif got != expected[name]:
                    wanted = list(expected[name])
                    faults.append(f"wrong shape: {name} is {list(got)}, expected {wanted}.")
            if not faults:
                tensors = {name: content.get_tensor(name) for name in expected}
                faults = [
                    f"not finite: {name}."
                    for name, it in tensors.items()
                    if not it.isfinite().all()
                ]
    except SafetensorError as error:
        raise InputError(f"{file}: damaged or not a safetensors file ({error}).") from None
    except OSError as error:
        raise storage_error(error, file, "read") from None
    raise_all(f"{file}: the adapter does not fit this model", faults)
    return tensors


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def number(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and math.isfinite(value)


def name_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def plain_names(value: Any) -> bool:
    """A list of module names; a text would be a regular expression."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, str) and re.fullmatch(r"[\w.-]+", one) for one in value)
    )


def published_class(value: Any) -> bool:
    """What PEFT notes of a model of transformers. It is not read here, nor could it do harm."""
    return value is None or (
        isinstance(value, dict)
        and value.keys() <= {"base_model_class", "parent_library"}
        and all(isinstance(one, str) and re.fullmatch(r"[\w.]+", one) for one in value.values())
        and value.get("parent_library", "transformers").split(".")[0] == "transformers"
    )


SUPPORTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (lambda value: value == "LORA", "only LORA is supported"),
    "task_type": (lambda value: value in (None, "CAUSAL_LM"), "only CAUSAL_LM is supported"),
    "r": (count, "expected a whole number from 1"),
    "lora_alpha": (lambda value: number(value) and value > 0, "expected a number above 0"),
    "lora_dropout": (lambda value: number(value) and 0 <= value < 1, "expected from 0 up to 1"),
    "target_modules": (plain_names, "expected a list of plain names, no regular expression"),
    "bias": (lambda value: value == "none", "trained biases are not supported"),
    "use_rslora": (flag, "expected true or false"),
    "use_dora": (flag, "expected true or false"),
    "fan_in_fan_out": (flag, "expected true or false"),
    "inference_mode": (flag, "expected true or false"),
    # Other ways to begin (PiSSA, OLoRA, LoftQ…) change the base, which the file does not hold.
    "init_lora_weights": (
        lambda value: value in (True, False, "gaussian", "eva", "orthogonal"),
        "adapters whose beginning changed the base are not supported",
    ),
    "auto_mapping": (published_class, "only a class of transformers is accepted"),
    "base_model_name_or_path": (name_or_none, "expected a name"),
    "revision": (name_or_none, "expected a name"),
    "peft_version": (name_or_none, "expected a name"),
    # These two say something only beside settings that are refused.
    "megatron_core": (name_or_none, "expected a name"),
    "qalora_group_size": (count, "expected a whole number from 1"),
}
"""Key of adapter_config.json → whether its value is supported, and what is said where it is not.
Any other key must be off: null, false or empty."""


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The settings of an adapter, every key of which is understood or off.

    Raises:
        InputError: no adapter there, or keys that are missing, unknown and on, or not supported,
            all together.
    """
    path = folder / CONFIG
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(settings).__name__}.")
    faults = [
        f"{key} is missing."
        for key in ("peft_type", "r", "lora_alpha", "target_modules")
        if key not in settings
    ]
    for key, value in settings.items():
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}…"
        if key in SUPPORTED:
            holds, expected = SUPPORTED[key]
            if not holds(value):
                faults.append(f"{key} is {shown}: {expected}.")
        elif value:
            faults.append(f"{key} is {shown}: this setting is not supported.")
    raise_all(f"{path}: this adapter cannot be opened", faults)
    return settings


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """Add the active adapters to the weights, in place, and take all adapters off.

    Over 4 or 8 bits the sum is that with the dequantised weights, and every quantised layer
    becomes a plain one, of the type of the embedding. To merge onto the full weights, put the
    adapter on a model that was loaded without quantisation; `drift` says what either way changes.

    Raises:
        InputError: two adapters are active and one is DoRA, whose lengths are those of one sum; or
            a sum is more than its type can hold. The model is then as it was.
    """
    layers = adapted_layers(model)
    merged = {}
    for name, layer in layers.items():
        base = layer.base_layer
        kind = stream_dtype(model) if is_quantized(base) else base.weight.dtype
        merged[name] = merged_weight(name, layer).to(kind)
        if not merged[name].isfinite().all():
            raise InputError(f"{name}: the merged weight is more than {kind} can hold.")
    for name, weight in merged.items():
        base = layers[name].base_layer
        if is_quantized(base):
            base = plain_linear(weight, base.bias).train(base.training)
        else:
            base.weight.data = weight.mT.contiguous() if type(base).__name__ == "Conv1D" else weight
        replace_module(model, name, base)
    if hasattr(model, "peft_config"):
        del model.peft_config
    return dequantize(model)


def merged_weight(name: str, layer: Any) -> Tensor:
    """The weight `(out, in)`, float32, that computes what the layer and its active adapters do.

    Raises:
        InputError: two adapters are active and one is DoRA.
    """
    active = [adapter for adapter in layer.active_adapters if adapter in layer.lora_A]
    if len(active) > 1 and any(adapter in layer.lora_magnitude_vector for adapter in active):
        raise InputError(
            f"{name}: {', '.join(active)} are active and one of them is DoRA, which can be merged "
            "only alone. Choose one with use_adapters."
        )
    weight = dequantized(layer.base_layer).float().clone()
    for adapter in active:
        b, a = layer.lora_B[adapter].weight, layer.lora_A[adapter].weight
        weight += layer.scaling[adapter] * (b.float() @ a.float())
        if adapter in layer.lora_magnitude_vector:
            length = layer.lora_magnitude_vector[adapter].weight.float()
            weight *= (length / weight.norm(dim=1)).unsqueeze(1)
    return weight


def drift(before: Tensor, after: Tensor) -> float:
    """The largest change of a logit from `before` to `after` merging."""
    return (after.float() - before.float()).abs().max().item()
