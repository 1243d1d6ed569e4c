"""Weights in 4 and 8 bits: what is stored, what is computed from it, what is held meanwhile."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference_models import pair
from torch import Tensor, nn

from yunque.adapt import quantize as quantize_module
from yunque.adapt.lora import add_lora, apply_method, drift, load_adapter, merge, save_adapter
from yunque.adapt.quantize import (
    PART,
    HostEmbedding,
    dequantize,
    dequantized,
    four_bits,
    is_quantized,
    parameter_count,
    quantization_record,
    quantize,
)
from yunque.config import AdaptConfig
from yunque.errors import InputError, MissingPackageError
from yunque.model.decoder import Decoder
from yunque.weights.families import module_names

TOKENS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(5))

# The 16 values of NF4: Dettmers et al. 2023, "QLoRA", appendix E.
NF4 = torch.tensor(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
)


def settings(**values: Any) -> AdaptConfig:
    return AdaptConfig(**{"method": "qlora", "compute_dtype": "fp32", "rank": 4, **values})  # type: ignore[arg-type]


def model_of(family: str = "llama", **shape: Any) -> Decoder:
    wide = {"hidden_size": 64, "intermediate_size": 128}  # bitsandbytes' blocks on CPUs
    return pair(family, std=0.1, **wide | shape)[0]


def logits(model: Decoder) -> Tensor:
    with torch.no_grad():
        return model.head(model(TOKENS))


def one_layer(inputs: int, outputs: int, **values: Any) -> tuple[Tensor, nn.Module]:
    """A weight, and a layer that was quantised from it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, outputs))
    weight = model[0].weight.detach().clone()
    return weight, quantize(model, settings(**values))[0]


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 3), (192, 7), (128, 5)])
def test_four_bits_are_nf4_by_blocks_of_64(inputs: int, outputs: int) -> None:
    """Against the paper's values: the nearest of 16 times the largest number of the block."""
    weight, layer = one_layer(inputs, outputs, double_quantize=False)
    expected = []
    for block in weight.flatten().split(64):
        largest = block.abs().max()
        nearest = (block / largest).unsqueeze(1).sub(NF4).abs().argmin(1)
        expected.append(NF4[nearest] * largest)
    assert torch.equal(dequantized(layer), torch.cat(expected).view(outputs, inputs))
    assert layer.weight.numel() == (inputs * outputs + 1) // 2
    assert parameter_count(layer) == inputs * outputs + outputs


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_four_bits_in_parts_are_those_of_bitsandbytes(double: bool, dtype: torch.dtype) -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    weight = torch.randn(5 * 64, 3 * 512, generator=torch.Generator().manual_seed(2)).to(dtype)
    assert weight.numel() > 2 * PART
    packed, state = four_bits(weight, double)
    theirs, expected = functional.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=double
    )
    assert torch.equal(packed, theirs)
    assert (state.dtype, state.shape) == (dtype, weight.shape)
    ours, other = state.as_dict(packed=False), expected.as_dict(packed=False)
    assert ours.keys() == other.keys()
    for name, value in other.items():
        same = torch.equal(value, ours[name]) if torch.is_tensor(value) else value == ours[name]
        assert same, name


def test_eight_bits_are_rows_of_127_steps() -> None:
    weight, layer = one_layer(96, 5, quantize_bits=8)
    steps = weight.half().float().abs().amax(1, keepdim=True) / 127
    # Half a step, and the rounding of float16 that comes before it.
    assert ((dequantized(layer) - weight).abs() <= steps / 2 + weight.abs() * 2**-11 + 1e-7).all()
    assert layer.weight.dtype == torch.int8
    assert parameter_count(layer) == 96 * 5 + 5


def test_double_quantisation_changes_the_scales_a_little_and_takes_less() -> None:
    _, single = one_layer(256, 64, double_quantize=False)
    _, double = one_layer(256, 64, double_quantize=True)
    blocks = dequantized(single).view(-1, 64).abs().amax(1)
    changed = (dequantized(double).view(-1, 64).abs().amax(1) - blocks).abs()
    # Scales less their mean, in 256 values: a change of at most 1 / 64 of the widest.
    assert 0 < changed.max() <= (blocks - blocks.mean()).abs().max() / 64
    assert torch.equal(single.weight, double.weight)

    def size(layer: Any) -> int:
        state = layer.weight.quant_state
        return state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)

    assert (size(single), size(double)) == (4 * 256, 256 + 4)


def test_the_type_that_auto_came_to_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (torch.float32, torch.bfloat16):  # as on CPUs, as on GPUs
        monkeypatch.setattr(quantize_module, "compute_dtype", lambda *_, dtype=dtype: dtype)
        _, layer = one_layer(128, 64, compute_dtype="auto")
        record = quantization_record(settings(compute_dtype="auto"), "lm_head", layer)
        assert record["compute_dtype"] == "auto"
        assert record["transformers"]["bnb_4bit_compute_dtype"] == f"{dtype}"[len("torch.") :]


@pytest.mark.parametrize(("dtype", "unit"), [("fp32", 2**-24), ("bf16", 2**-8), ("fp16", 2**-11)])
def test_four_bits_compute_with_the_dequantised_weight(dtype: str, unit: float) -> None:
    """Bound: inputs, weights and the result are rounded to the type, sums are made in float32.

    Each element differs from the exact sum by at most 3 units of the type and n units of float32,
    times the sum of the absolute products; so does the gradient.
    """
    _, layer = one_layer(128, 40, compute_dtype=dtype)
    x = torch.randn(5, 128, requires_grad=True)
    y = layer(x)
    exact, bias = dequantized(layer).double(), layer.bias.double()
    reference = F.linear(x.detach().double(), exact, bias)
    products = F.linear(x.detach().double().abs(), exact.abs(), bias.abs())
    slack = 3 * unit + 128 * 2**-24
    assert ((y - reference).abs() <= slack * products).all()
    weights = torch.randn(5, 40)
    (gradient,) = torch.autograd.grad(y, x, weights)
    reference = weights.double() @ exact
    assert ((gradient - reference).abs() <= slack * (weights.double().abs() @ exact.abs())).all()


def test_eight_bits_compute_with_the_dequantised_weight() -> None:
    """Bound in training on CPUs: float32's; in evaluation inputs are rounded to 127 steps a row."""
    _, layer = one_layer(96, 40, quantize_bits=8)
    x = torch.randn(5, 96)
    exact, bias = dequantized(layer).double(), layer.bias.double()
    reference = F.linear(x.double(), exact, bias)
    trained = layer.train()(x)
    products = F.linear(x.double().abs(), exact.abs(), bias.abs())
    assert ((trained - reference).abs() <= 100 * 2**-24 * products).all()
    evaluated = layer.eval()(x)
    step = x.abs().amax(1, keepdim=True) / 127
    # Half a step for each input, and float16's rounding of inputs before.
    off = (step / 2 + x.abs() * 2**-11).double() @ exact.abs().mT
    assert ((evaluated - reference).abs() <= off + 100 * 2**-24 * products).all()
    assert drift(trained, evaluated) > 1e-4  # the two ways do differ


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_quantised_model_is_that_of_the_dequantised_weights(family: str) -> None:
    model = model_of(family)
    full, total = logits(model), parameter_count(model)
    quantize(model, settings())
    assert is_quantized(model.blocks[0].attention.q_proj)
    assert not is_quantized(model.head)
    assert model.head.weight is model.token_embedding.weight
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert parameter_count(model) == total
    small = logits(model)
    assert drift(full, small) > 0.05
    dequantize(model)
    assert drift(small, logits(model)) <= 1e-6
    assert model.state_dict().keys() == model_of(family).state_dict().keys()


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_qlora_is_lora_over_the_dequantised_weights(variant: str, tmp_path: Path) -> None:
    model = model_of()
    names = module_names(model.config)
    apply_method(model, settings(variant=variant), 1, names)
    plain = dequantize(quantize(model_of(), settings()))
    assert torch.equal(logits(model), logits(plain))  # at the start
    for seed, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
        with torch.no_grad():
            parameter += 0.05 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(seed)
            )
    save_adapter(model, tmp_path / "a", "base", names)
    load_adapter(plain, tmp_path / "a", names)
    trained = logits(model)
    assert drift(trained, logits(plain)) <= 1e-6

    # Onto the dequantised weights: what was trained. Onto the full ones: another model.
    onto_full = merge(load_adapter(model_of(), tmp_path / "a", names))
    assert drift(trained, logits(merge(model))) <= 1e-5
    assert drift(trained, logits(onto_full)) > 0.05
    model.head(model(TOKENS))
    assert {type(layer) for layer in model.blocks[0].mlp.children()} == {nn.Linear}


def test_gradients_of_qlora_are_those_over_the_dequantised_weights() -> None:
    gradients = []
    for keep in (True, False):
        model = quantize(model_of(), settings())
        if not keep:
            dequantize(model)
        add_lora(model, settings(), 1, module_names(model.config))
        (model.head(model(TOKENS)) ** 2).mean().backward()
        found = [p.grad for p in model.parameters() if p.requires_grad]
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    assert gradients[0].abs().max() > 1e-3
    assert drift(gradients[1], gradients[0]) <= 1e-6


def test_an_evaluation_leaves_the_weights_as_they_are() -> None:
    """bitsandbytes repacks weights in evaluation on some CPUs; no gradient comes through then."""
    model = quantize(model_of(), settings())
    layer: Any = model.blocks[0].mlp.up_proj
    assert layer.support_avx512bf16_for_cpu is False
    before = layer.weight.data.clone()
    logits(model.eval())
    assert torch.equal(layer.weight.data, before)


def test_the_head_and_the_embedding_of_a_small_card() -> None:
    model = model_of()
    total, embedding = parameter_count(model), model.token_embedding.weight.detach().clone()
    full = logits(model)
    quantize(model, settings(quantize_head=True, cpu_embeddings=True))
    assert is_quantized(model.head)
    assert isinstance(model.token_embedding, HostEmbedding)
    assert torch.equal(model.token_embedding.weight, embedding)
    assert parameter_count(model) == total  # the head's copy is no new matrix
    assert 0 < drift(full, logits(model)) < 3
    assert model.token_embedding.to("meta").weight.device.type == "cpu"
    merge(model)
    assert model.head.weight is model.token_embedding.weight

    untied = model_of(tie=False)
    quantize(untied, settings(cpu_embeddings=True))
    assert not is_quantized(untied.head)
    with pytest.raises(InputError, match="Set quantize_head to true"):
        quantize(model_of(), settings(cpu_embeddings=True))


def test_a_model_from_a_file_is_never_whole_in_memory() -> None:
    """Each weight is let go before the next is asked for."""
    whole = model_of(num_layers=3)
    state = {name: parameter.detach() for name, parameter in whole.named_parameters()}
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def tensors() -> Iterator[tuple[str, Tensor]]:
        nonlocal most
        for name, value in state.items():
            given = value.clone()
            if value.dim() == 2 and name.startswith("blocks."):
                alive.append(weakref.ref(given))
            yield name, given
            del given
            most = max(most, sum(one() is not None for one in alive))

    model = quantize(Decoder.empty(whole.config), settings(), tensors=tensors())
    assert len(alive) == 3 * 7
    assert most == 0
    assert torch.equal(logits(model), logits(quantize(whole, settings())))


def test_a_models_own_weights_are_let_go_one_by_one() -> None:
    model = model_of()
    full = [
        weakref.ref(layer.weight)
        for layer in model.blocks.modules()
        if isinstance(layer, nn.Linear)
    ]
    assert len(full) == 14
    quantize(model, settings())
    assert [one() for one in full] == [None] * 14


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head.weight": None, "final_norm.weight": None}, r"lack \(1\): final_norm\.weight"),
        ({"blocks.0.mlp.up_proj.weight": torch.zeros(3, 3)}, r"up_proj\.weight is \[3, 3\]"),
        ({"blocks.9.mlp.up_proj.weight": torch.zeros(3, 3)}, "which the model has not"),
    ],
)
def test_weights_that_do_not_fit(change: dict[str, Any], words: str) -> None:
    whole = model_of()
    state = {name: parameter.detach() for name, parameter in whole.named_parameters()} | change
    given = [(name, value) for name, value in state.items() if value is not None]
    with pytest.raises(InputError, match=words):
        quantize(Decoder.empty(whole.config), settings(), tensors=given)


def test_widths_that_bitsandbytes_gets_wrong_are_refused() -> None:
    """On CPUs a block that reaches over a row's end got another block's scale, silently."""
    with pytest.raises(InputError, match=r"^1 layers \(0\) read .* no multiple of 64.*8 bits"):
        one_layer(96, 5)
    with pytest.raises(InputError, match=r"2 layers \(blocks\.0\.mlp\.down_proj, "):
        quantize(model_of(intermediate_size=48), settings())
    one_layer(96, 5, quantize_bits=8)


def test_where_it_does_not_work_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no linear layers to quantise"):
        quantize(nn.Sequential(nn.LayerNorm(4)), settings())
    model = quantize(model_of(), settings())
    with pytest.raises(InputError, match="quantised already"):
        quantize(model, settings())
    with pytest.raises(InputError, match=r"cannot keep weights in 4 bits on mps"):
        quantize(model_of(), settings(), "mps")
    eight = quantize(model_of(), settings(quantize_bits=8))
    with pytest.raises(InputError, match="DoRA works over weights in 4 bits"):
        add_lora(eight, settings(variant="dora"), 1, module_names(eight.config))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingPackageError, match=r"yunque\[quant\]"):
        quantize(model_of(), settings())
