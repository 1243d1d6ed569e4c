"""Frozen weights in 4 or 8 bits through bitsandbytes, one layer after the other.

What works where. The CPU's column is measured with bitsandbytes 0.50 (forward and backward of a
1024 to 4096 layer, 256 rows, one thread with AVX-512 but without its bf16; times are those of a
plain float32 layer); the GPU's is bitsandbytes' own word.

| | CPU | CUDA |
|---|---|---|
| NF4, double quantisation, computing in fp32 | yes, 1.3 times | yes |
| NF4, computing in bf16 | yes, 4 times (bf16 alone: 3.5) | yes |
| NF4, computing in fp16 | yes, but 150 times | yes |
| NF4, inputs no multiple of 64 | no: scales of other blocks are taken; refused | yes |
| 8 bits, training | yes, 1.7 times; equals the dequantised weights | inputs rounded to 8 bits |
| 8 bits, evaluation | yes, 1.0 times; inputs rounded to 8 bits | the same |
| DoRA over 8 bits | no: PEFT fails; refused | refused |

Source: Dettmers et al. 2023, "QLoRA", section 3; Dettmers et al. 2022, "LLM.int8()", section 2.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from yunque.config import AdaptConfig, adapt_faults, raise_faults, typed, unknown_name
from yunque.errors import InputError, MissingPackageError
from yunque.files import read_json
from yunque.runtime import fast_half

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

PART = 1 << 16
"""Numbers that are rounded to 4 bits at once on CPUs; whole blocks of 64."""

QUANTIZATION = "quantization.json"
"""File beside an adapter: how the base was quantised that it was trained on."""
KEPT = ("quantize_bits", "double_quantize", "compute_dtype", "quantize_head")
"""What of the settings decides the numbers of a quantised base, and is kept beside its adapter."""


def quantization_record(settings: AdaptConfig, head: str, model: nn.Module) -> dict[str, Any]:
    """Content of `QUANTIZATION`: our settings, and the same in the words of transformers.

    `transformers` holds the arguments of `BitsAndBytesConfig`, so that who opens the adapter with
    PEFT can load its base as it was trained on.

    Args:
        head: the published name of the output head.
        model: quantised; its layers know the type that "auto" came to.
    """
    theirs: dict[str, Any] = {"load_in_8bit": True}
    if settings.quantize_bits == 4:
        layers = (module for module in model.modules() if hasattr(module, "compute_dtype"))
        kind = str(next(layers).compute_dtype).removeprefix("torch.")
        theirs = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": settings.double_quantize,
            "bnb_4bit_compute_dtype": kind,
        }
    theirs["llm_int8_skip_modules"] = [] if settings.quantize_head else [head]
    return {**{name: getattr(settings, name) for name in KEPT}, "transformers": theirs}


def read_quantization(folder: Path) -> AdaptConfig | None:
    """How the base of an adapter was quantised; None where nothing says that it was.

    Raises:
        InputError: the file cannot be read, or holds what is not known.
    """
    path = folder / QUANTIZATION
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    hints, faults, values = get_type_hints(AdaptConfig), [], {}
    for name, value in content.items():
        if name == "transformers":  # the same once more, for others
            continue
        if name not in KEPT:
            faults.append(f"{path}: {unknown_name(name, KEPT, 'key')}")
            continue
        fault, values[name] = typed(value, hints[name])
        faults += [f"{path}: {name}: {fault}"] if fault else []
    raise_faults(faults)
    settings = dataclasses.replace(AdaptConfig(method="qlora"), **values)
    raise_faults([f"{path}: {fault}" for fault in adapt_faults(settings)])
    return settings


class HostEmbedding(nn.Embedding):
    """An embedding that stays in the CPU's memory wherever the model goes.

    Its rows are looked up there and only they travel; the model's `to` does not move it.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.to("cpu")).to(tokens.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HostEmbedding:
        return self


def bitsandbytes() -> Any:
    """The package bitsandbytes.

    Raises:
        MissingPackageError: it is absent.
    """
    try:
        import bitsandbytes
    except ImportError:
        raise MissingPackageError(
            "weights in 4 or 8 bits need the package bitsandbytes: pip install 'yunque[quant]'."
        ) from None
    return bitsandbytes


def compute_dtype(settings: AdaptConfig, device: torch.device) -> torch.dtype:
    """The type that quantised layers compute in."""
    if settings.compute_dtype != "auto":
        return DTYPES[settings.compute_dtype]
    return fast_half(device) if device.type == "cuda" else torch.float32


def quantize(
    model: nn.Module,
    settings: AdaptConfig,
    device: str | torch.device = "cpu",
    tensors: Iterable[tuple[str, Tensor]] | None = None,
) -> nn.Module:
    """Put the model's linear layers into 4 or 8 bits, in place, and all of it on `device`.

    One weight after the other is taken, quantised and let go, so that on `device` there is never
    more than the final size and one layer. The output head stays as it is unless
    `settings.quantize_head`; norms and embeddings always do, in the type that they come in. Every
    parameter is frozen.

    Args:
        tensors: names and weights, each once, for a model on "meta" whose weights come from a
            file; then memory never holds the whole model. A tied head may be left out. None: the
            model's own weights.

    Raises:
        InputError: bitsandbytes does not work on this device, there is nothing to quantise, the
            embedding cannot stay on the CPU, or `tensors` lacks some or has others.
        MissingPackageError: bitsandbytes is absent.
    """
    device = torch.device(device)
    head, embedding = end_module(model, "output"), end_module(model, "input")
    tied = head is not None and head.weight is getattr(embedding, "weight", None)
    keep_head = not settings.quantize_head
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not (keep_head and module is head)
    }
    refuse_unfit(model, settings, embedding, tied, layers)
    check_works(settings, device)
    if settings.quantize_bits == 4:
        check_widths(layers, device)

    source = own_tensors(model) if tensors is None else tensors
    names = {module: name for name, module in model.named_modules()}
    for name, linear in layers.items():
        replace_module(model, name, empty_layer(linear, settings, device))
    if settings.cpu_embeddings and embedding is not None:
        rows, size = embedding.weight.shape
        host = HostEmbedding(rows, size, _weight=embedding.weight.data)
        replace_module(model, names[embedding], host)
    twins = {}
    if tied and head is not None and embedding is not None:
        twins[f"{names[embedding]}.weight"] = f"{names[head]}.weight"
    del layers, names, embedding, head, linear  # they would keep the full weights alive
    for name, tensor in source:
        put(model, name, tensor, device)
        if name in twins and not keep_head:
            put(model, twins[name], tensor, device)
        del tensor
    head, embedding = end_module(model, "output"), end_module(model, "input")
    if tied and head is not None and embedding is not None:
        if keep_head:
            head.weight = embedding.weight
        else:
            head.was_tied = True
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise InputError(f"the weights lack ({len(empty)}): {', '.join(empty)}.")
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    # By these marks PEFT knows which of its layers to take.
    setattr(model, f"is_loaded_in_{settings.quantize_bits}bit", True)
    return model.train(model.training)


def refuse_unfit(
    model: nn.Module,
    settings: AdaptConfig,
    embedding: nn.Module | None,
    tied: bool,
    layers: Mapping[str, nn.Module],
) -> None:
    """Refuse what cannot be quantised as asked.

    Raises:
        InputError: with the way out.
    """
    if not layers:
        raise InputError(f"{type(model).__name__} has no linear layers to quantise: use lora.")
    if any(is_quantized(layer) for layer in layers.values()):
        raise InputError("the model is quantised already.")
    if settings.cpu_embeddings and type(embedding) is not nn.Embedding:
        raise InputError(
            f"cpu_embeddings: {type(model).__name__} has no plain input embedding to keep on the "
            "CPU. Set cpu_embeddings to false."
        )
    if settings.cpu_embeddings and tied and not settings.quantize_head:
        raise InputError(
            "cpu_embeddings: this model's output head is its input embedding and would stay on "
            "the CPU with it. Set quantize_head to true: the head then gets a quantised copy."
        )


def end_module(model: nn.Module, end: str) -> Any:
    """The input embedding ("input") or the output head ("output"), None where there is none."""
    known = getattr(model, f"get_{end}_embeddings", None)
    if known is not None:
        return known()
    return getattr(model, {"input": "token_embedding", "output": "head"}[end], None)


def own_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The model's weights, each let go once it is handed out."""
    held = deque((name, parameter.data) for name, parameter in model.named_parameters())
    return (held.popleft() for _ in range(len(held)))


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `name` stands in the model."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def empty_layer(linear: nn.Linear, settings: AdaptConfig, device: torch.device) -> nn.Linear:
    """A quantised layer of the same shape whose weights are still to come (device meta)."""
    bnb = bitsandbytes()
    sizes, bias = (linear.in_features, linear.out_features), linear.bias is not None
    if settings.quantize_bits == 8:
        # It says for every call that inputs are rounded in float16, which is the method.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        layer = bnb.nn.Linear8bitLt(*sizes, bias, has_fp16_weights=False, device="meta")
    else:
        layer = bnb.nn.Linear4bit(
            *sizes,
            bias,
            compute_dtype=compute_dtype(settings, device),
            compress_statistics=settings.double_quantize,
            quant_type="nf4",
            device="meta",
        )
        # On CPUs with AVX-512 an evaluation would repack the weights for good, and no gradient
        # passes through what it packs.
        layer.support_avx512bf16_for_cpu = False
    return layer.train(linear.training)


def put(model: nn.Module, name: str, tensor: Tensor, device: torch.device) -> None:
    """Give a parameter its value on `device`, quantised where its layer is.

    Raises:
        InputError: there is no such parameter, or it has another shape.
    """
    owner, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(owner)
        wanted: Any = module.get_parameter(leaf)
    except AttributeError:
        raise InputError(f"the weights hold {name}, which the model has not.") from None
    if wanted.shape != tensor.shape:
        got, expected = list(tensor.shape), list(wanted.shape)
        raise InputError(f"{name} is {got}, expected {expected}.")
    home = torch.device("cpu") if isinstance(module, HostEmbedding) else device
    if leaf == "weight" and is_quantized(module):
        bnb = bitsandbytes()
        if not hasattr(module, "compute_dtype"):
            kept = bnb.nn.Int8Params(tensor.to("cpu"), requires_grad=False, has_fp16_weights=False)
            parameter = kept.to(home)
        else:
            more = {"quant_type": "nf4", "compress_statistics": wanted.compress_statistics}
            if home.type == "cpu":
                packed, state = four_bits(tensor.to(home), wanted.compress_statistics)
                module.quant_state = state
                more |= {"quant_state": state, "bnb_quantized": True}
                tensor = packed
            # Elsewhere it is quantised on the way to `home`, from wherever it lies.
            parameter = bnb.nn.Params4bit(tensor, requires_grad=False, module=module, **more)
            parameter = parameter.to(home)
    else:
        value = tensor.to(home)
        parameter = nn.Parameter(value, requires_grad=wanted.requires_grad)
    setattr(module, leaf, parameter)


def four_bits(weight: Tensor, double: bool) -> tuple[Tensor, Any]:
    """A weight on the CPU in NF4 with its state, bit for bit as bitsandbytes does it.

    Its blocks are rounded some at a time: bitsandbytes takes several times the weight for all of
    them together, and the heap of a process keeps what it once was.
    """
    functional = bitsandbytes().functional
    flat = weight.reshape(-1)
    packed = torch.empty(((len(flat) + 1) // 2, 1), dtype=torch.uint8)
    scales = torch.empty((len(flat) + 63) // 64)
    for start in range(0, len(flat), PART):
        part = flat[start : start + PART]
        data, state = functional.quantize_4bit(part, blocksize=64, quant_type="nf4")
        packed[start // 2 : start // 2 + len(data)] = data
        scales[start // 64 : start // 64 + len(state.absmax)] = state.absmax
    state.absmax, state.shape = scales, weight.shape
    if double:
        state.offset = scales.mean()
        state.absmax, state.state2 = functional.quantize_blockwise(
            scales - state.offset, blocksize=256
        )
        state.nested = True
    return packed, state


def check_works(settings: AdaptConfig, device: torch.device) -> None:
    """Try one small layer, forward and backward: what a device can do depends on its kernels.

    Raises:
        InputError: bitsandbytes does not work on this device.
        MissingPackageError: it is absent.
    """
    bitsandbytes()
    if device.type == "meta":
        raise InputError("a model on the device meta has no weights to quantise.")
    trial = nn.Sequential(empty_layer(nn.Linear(64, 64), settings, device))
    try:
        x = torch.ones(1, 64, device=device, requires_grad=True)
        put(trial, "0.weight", torch.eye(64), device)
        put(trial, "0.bias", torch.zeros(64), device)
        (gradient,) = torch.autograd.grad(trial(x).sum(), x)
        works, why = bool(gradient.isclose(torch.ones_like(x)).all()), "wrong numbers"
    except Exception as error:  # whatever a missing kernel raises
        works, why = False, str(error)
    if not works:
        raise InputError(
            f"bitsandbytes cannot keep weights in {settings.quantize_bits} bits on {device.type} "
            f"here ({why}). Use lora without quantisation, or another device."
        )


def check_widths(layers: Mapping[str, nn.Linear], device: torch.device) -> None:
    """Try small weights as wide as the layers are: a block of 64 may reach over the end of a row.

    bitsandbytes 0.50 gives such blocks the scale of another one on CPUs, without a word.

    Raises:
        InputError: some layers would be dequantised wrongly here.
    """
    functional = bitsandbytes().functional
    wrong = set()
    for rest in {layer.in_features % 64 for layer in layers.values()}:
        width = 64 + rest
        # Each block one number, so that NF4 holds it exactly.
        weight = (torch.arange(4 * width) // 64 + 1.0).view(4, width).to(device)
        if not torch.equal(
            functional.dequantize_4bit(
                *functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
            ),
            weight,
        ):
            wrong.add(rest)
    named = [name for name, layer in layers.items() if layer.in_features % 64 in wrong]
    if named:
        shown = ", ".join(named[:3]) + (", …" if len(named) > 3 else "")
        raise InputError(
            f"{len(named)} layers ({shown}) read a number of inputs that is no multiple of 64, and "
            f"bitsandbytes gets their 4-bit weights wrong on {device.type}. Use 8 bits, lora, or "
            "a GPU."
        )


def is_quantized(module: nn.Module) -> bool:
    """Whether the module's weight is kept in 4 or 8 bits by bitsandbytes."""
    return type(getattr(module, "weight", None)).__name__ in ("Params4bit", "Int8Params")


def dequantized(module: nn.Module) -> Tensor:
    """The weight that a linear layer multiplies by, `(out, in)`; of a plain layer its own.

    Of transformers' Conv1D, which stores `(in, out)`, the transpose.
    """
    weight: Any = module.weight
    if not is_quantized(module):
        return weight.detach().mT if type(module).__name__ == "Conv1D" else weight.detach()
    functional = bitsandbytes().functional
    if type(weight).__name__ == "Params4bit":
        return functional.dequantize_4bit(weight.data, weight.quant_state)
    # The scales move from the weight to the layer's state at its first forward pass.
    state: Any = module.state
    scales = weight.SCB if weight.SCB is not None else state.SCB
    return functional.int8_vectorwise_dequant(weight.data, scales)


def dequantize(model: nn.Module) -> nn.Module:
    """Plain layers with the dequantised weights in place of all quantised ones, in place.

    They are of the type of the input embedding, as what flows through the model is. A head that
    was the input embedding before is it again.
    """
    kind = stream_dtype(model)
    for name, layer in list(model.named_modules()):
        if not is_quantized(layer):
            continue
        bias: Any = layer.bias
        plain = plain_linear(dequantized(layer).to(kind), bias)
        replace_module(model, name, plain.train(layer.training))
        if getattr(layer, "was_tied", False):
            plain.weight = end_module(model, "input").weight
    for bits in (4, 8):
        if hasattr(model, f"is_loaded_in_{bits}bit"):
            delattr(model, f"is_loaded_in_{bits}bit")
    return model


def stream_dtype(model: nn.Module) -> torch.dtype:
    """The type of what flows from block to block: that of the input embedding."""
    embedding = end_module(model, "input")
    found = next(model.parameters()) if embedding is None else embedding.weight
    return found.dtype


def plain_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen nn.Linear that holds this weight `(out, in)` and bias."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)
    return linear


def parameter_count(module: nn.Module, trainable: bool = False) -> int:
    """Parameters as the model has them: a weight in 4 bits counts as what it stands for.

    A matrix that two layers share is counted once, also where the head has a quantised copy.

    Args:
        trainable: count only those that get a gradient.
    """
    copies = {id(part.weight) for part in module.modules() if getattr(part, "was_tied", False)}
    total = 0
    for parameter in module.parameters():
        if id(parameter) in copies or (trainable and not parameter.requires_grad):
            continue
        state = getattr(parameter, "quant_state", None)
        total += parameter.numel() if state is None else state.shape.numel()
    return total
