"""Adapters: nothing changed at the start, PEFT's files both ways, merged, refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_models import FAMILIES, pair
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from yunque.adapt.lora import (
    CONFIG,
    WEIGHTS,
    adapter_names,
    adapter_parameters,
    add_lora,
    apply_method,
    drift,
    load_adapter,
    merge,
    read_adapter_config,
    save_adapter,
    use_adapters,
)
from yunque.adapt.quantize import parameter_count
from yunque.config import AdaptConfig
from yunque.errors import InputError
from yunque.model.decoder import Decoder
from yunque.weights.families import module_names

VARIANTS = ("lora", "rslora", "dora")
TOKENS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(5))


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.head(model(TOKENS)) if isinstance(model, Decoder) else model(TOKENS).logits


def twins(family: str) -> tuple[Decoder, nn.Module, dict[str, str]]:
    """Our Decoder, the transformers model, and the names between them."""
    model, reference = pair(family, std=0.1)
    return model, reference, module_names(model.config)


def settings(variant: str = "lora", **values: Any) -> AdaptConfig:
    return AdaptConfig(**{"variant": variant, "rank": 4, "alpha": 6.0, **values})  # type: ignore[arg-type]


def stir(model: nn.Module, seed: int = 3) -> None:
    """Give everything that is trained other values, so that the adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.empty_like(parameter).normal_(0.0, 0.1, generator=generator))


def peft_on(reference: nn.Module, targets: list[str], variant: str = "lora") -> Any:
    """PEFT's own adapter on the transformers model, with values drawn."""
    from peft import LoraConfig, get_peft_model

    made = get_peft_model(
        reference,
        LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=targets,
            use_rslora=variant == "rslora",
            use_dora=variant == "dora",
            fan_in_fan_out=targets[0].startswith("c_"),
            task_type="CAUSAL_LM",
        ),
    )
    stir(made)
    return made.eval()


def targets_of(family: str) -> list[str]:
    return ["c_attn", "mlp.c_proj"] if family == "gpt2" else ["k_proj", "v_proj", "down_proj"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_start_the_adapted_model_is_the_base(family: str, variant: str) -> None:
    model, _, names = twins(family)
    base = logits(model)
    add_lora(model, settings(variant), 1, names)
    assert torch.equal(logits(model), base)
    loss = model.head(model(TOKENS)).square().mean()
    loss.backward()
    with_gradient = {name for name, it in model.named_parameters() if it.grad is not None}
    adapters = {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert with_gradient == adapters
    assert len(adapters) >= 2 * 2 * 4


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_our_file_in_peft_in_ours_and_merged(family: str, variant: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model, reference, names = twins(family)
    base = logits(model)
    add_lora(model, settings(variant), 1, names)
    stir(model)
    trained = logits(model)
    assert drift(base, trained) > 0.1  # the adapter does something
    folder = tmp_path / "best"
    save_adapter(model, folder, "the-base", names)
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]

    theirs = PeftModel.from_pretrained(reference, str(folder)).eval()
    assert drift(logits(theirs), trained) <= 1e-5

    again, _, _ = twins(family)
    load_adapter(again, folder, names)
    assert torch.equal(logits(again), trained)
    save_adapter(again, tmp_path / "again", "the-base", names)
    for file in (CONFIG, WEIGHTS):
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes()

    merge(again)
    assert drift(trained, logits(again)) <= 1e-5
    fresh, _, _ = twins(family)
    assert again.state_dict().keys() == fresh.state_dict().keys()
    assert adapter_names(again) == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_of_peft_in_ours(family: str, variant: str, tmp_path: Path) -> None:
    model, reference, names = twins(family)
    theirs = peft_on(reference, targets_of(family), variant)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    load_adapter(model, tmp_path / "theirs", names)
    assert drift(logits(theirs), logits(model)) <= 1e-5
    # Written again it holds the same tensors under the same names.
    save_adapter(model, tmp_path / "ours", "base", names)
    before = load_file(tmp_path / "theirs" / WEIGHTS)
    after = load_file(tmp_path / "ours" / WEIGHTS)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_training_goes_as_in_peft(family: str, tmp_path: Path) -> None:
    """Also GPT-2's, whose one layer c_attn is three of ours with one A."""
    model, reference, names = twins(family)
    theirs = peft_on(reference, targets_of(family))
    theirs.save_pretrained(str(tmp_path / "start"))
    load_adapter(model, tmp_path / "start", names, trainable=True)
    for one, output in (
        (model, lambda: model.head(model(TOKENS))),
        (theirs, lambda: theirs(TOKENS).logits),
    ):
        trained = [parameter for parameter in one.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.2)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                output()[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()
            ).backward()
            optimizer.step()
    save_adapter(model, tmp_path / "ours", "base", names)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    start = load_file(tmp_path / "start" / WEIGHTS)
    ours = load_file(tmp_path / "ours" / WEIGHTS)
    for name, value in load_file(tmp_path / "theirs" / WEIGHTS).items():
        assert (value - start[name]).abs().max() > 1e-4, name
        assert (value - ours[name]).abs().max() <= 1e-6, name


def test_counts_of_parameters() -> None:
    model, _, names = twins("gpt2")
    base = model.parameter_counts()["total"]
    assert parameter_count(model) == base
    add_lora(model, settings(targets=("c_attn", "c_fc")), 1, names)
    # c_attn: 4 x 32 for the one A, 96 x 4 for B; c_fc: 4 x 32 and 128 x 4; two blocks.
    trained = 2 * (4 * 32 + 96 * 4 + 4 * 32 + 128 * 4)
    assert parameter_count(model, trainable=True) == trained
    assert parameter_count(model) == base + trained


def test_targets_by_published_names() -> None:
    def adapted(family: str, *targets: str) -> set[str]:
        model, _, names = twins(family)
        add_lora(model, settings(targets=targets), 1, names)
        kept = (name for name, _ in model.named_parameters() if ".lora_B." in name)
        return {name.split(".lora_B")[0] for name in kept if name.startswith("blocks.0.")}

    first = "blocks.0."
    qkv = {f"{first}attention.{one}_proj" for one in "qkv"}
    assert adapted("gpt2", "c_attn") == qkv
    assert adapted("gpt2", "attn.c_proj") == {f"{first}attention.o_proj"}
    both = {f"{first}attention.o_proj", f"{first}mlp.down_proj"}
    assert adapted("gpt2", "c_proj") == both
    assert adapted("llama", "q_proj", "mlp.up_proj") == {
        f"{first}attention.q_proj",
        f"{first}mlp.up_proj",
    }
    with pytest.raises(InputError, match=r"targets: unknown layer 'q_porj'.*'q_proj'"):
        adapted("llama", "q_porj")
    with pytest.raises(InputError, match="targets: unknown layer 'q_proj'"):
        adapted("gpt2", "q_proj")


def test_targets_in_the_file_mean_the_layers_that_were_adapted(tmp_path: Path) -> None:
    for targets, written in (
        (("attn.c_proj",), [f"transformer.h.{block}.attn.c_proj" for block in (0, 1)]),
        (("c_attn", "mlp.c_proj", "attn.c_proj"), ["c_attn", "c_proj"]),
    ):
        model, _, names = twins("gpt2")
        add_lora(model, settings(targets=targets), 1, names)
        save_adapter(model, tmp_path / "a", "base", names)
        settings_written = json.loads((tmp_path / "a" / CONFIG).read_text())
        assert settings_written["target_modules"] == written
        assert settings_written["fan_in_fan_out"] is True


def test_the_seed_fixes_a_and_leaves_torchs_generator_alone() -> None:
    def values(seed: int) -> list[Tensor]:
        model, _, names = twins("llama")
        torch.manual_seed(77)
        add_lora(model, settings(), seed, names)
        assert torch.equal(torch.rand(3), expected)
        return list(adapter_parameters(model, "default"))

    torch.manual_seed(77)
    expected = torch.rand(3)
    one, again, other = values(1), values(1), values(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    # Kaiming's uniform with a = sqrt(5), as PEFT begins: within 1 / sqrt(inputs), and near it.
    assert 0.9 / 32**0.5 < one[0].abs().max() <= 1 / 32**0.5


def test_dropout_of_the_adapter_follows_torchs_seed() -> None:
    model, _, names = twins("llama")
    add_lora(model, settings(lora_dropout=0.5), 1, names)
    stir(model)
    still = logits(model)
    assert torch.equal(logits(model), still)
    model.train()

    def seeded(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return logits(model)

    assert torch.equal(seeded(1), seeded(1))
    assert drift(seeded(1), seeded(2)) > 0.01
    assert drift(seeded(1), still) > 0.01
    mean = torch.stack([seeded(seed) for seed in range(40)]).mean(0)
    assert drift(mean, still) < drift(seeded(1), still)


def test_several_adapters_on_one_base(tmp_path: Path) -> None:
    model, _, names = twins("qwen3")
    base = logits(model)
    alone = {}
    for seed, adapter in enumerate(("one", "two")):
        single, _, _ = twins("qwen3")
        add_lora(single, settings(targets=("o_proj",)), seed, names)
        stir(single, seed)
        alone[adapter] = logits(single)
        save_adapter(single, tmp_path / adapter, "base", names)
        load_adapter(model, tmp_path / adapter, names, adapter=adapter)
    assert adapter_names(model) == ["one", "two"]
    assert torch.equal(logits(model), alone["two"])
    use_adapters(model, ["one"], trainable=True)
    assert torch.equal(logits(model), alone["one"])
    trained = {name for name, it in model.named_parameters() if it.requires_grad}
    assert trained
    assert all(".one." in name for name in trained)
    use_adapters(model, [])
    assert torch.equal(logits(model), base)
    use_adapters(model, ["one", "two"])
    both = logits(model)
    save_adapter(model, tmp_path / "again", "base", names, adapter="one")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "one" / WEIGHTS).read_bytes()
    assert drift(both, logits(merge(model))) <= 1e-5
    with pytest.raises(InputError, match=r"unknown adapter 'tow'"):
        use_adapters(model, ["tow"])


def test_what_cannot_be_combined_is_refused() -> None:
    model, _, names = twins("llama")
    add_lora(model, settings("dora"), 1, names)
    with pytest.raises(InputError, match="an adapter 'default' already"):
        add_lora(model, settings(), 1, names)
    add_lora(model, settings(), 1, names, adapter="two")
    use_adapters(model, ["default", "two"])
    with pytest.raises(InputError, match="one of them is DoRA"):
        merge(model)
    assert adapter_names(model) == ["default", "two"]


def test_a_merged_weight_that_overflows_is_named() -> None:
    model, _, names = twins("llama")
    model.half()
    add_lora(model, settings(targets=("up_proj",)), 1, names)
    with torch.no_grad():
        for parameter in adapter_parameters(model, "default"):
            parameter.fill_(200.0)
    with pytest.raises(InputError, match=r"blocks\.0\.mlp\.up_proj: .*float16 can hold"):
        merge(model)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_published_model_without_a_map(family: str, tmp_path: Path) -> None:
    """Its layers bear their own names; GPT-2's are Conv1D."""
    from peft import PeftModel

    _, model, _ = twins(family)
    base = logits(model)
    add_lora(model, settings(), 1)
    assert torch.equal(logits(model), base)
    stir(model)
    trained = logits(model)
    save_adapter(model, tmp_path / "best", "base")
    _, other, _ = twins(family)
    names = other.state_dict().keys()
    theirs = PeftModel.from_pretrained(other, str(tmp_path / "best")).eval()
    # PEFT scales what the adapter gives, we add and scale at once.
    torch.testing.assert_close(logits(theirs), trained, rtol=0, atol=1e-6)
    merge(model)
    assert drift(trained, logits(model)) <= 1e-5
    assert model.state_dict().keys() == names
    ours, _, map_ = twins(family)
    load_adapter(ours, tmp_path / "best", map_)
    assert drift(trained, logits(ours)) <= 1e-5


def test_the_methods() -> None:
    trained = {}
    for method in ("full", "lora", "qlora"):
        model, _, names = twins("llama")
        apply_method(model, settings(method=method, quantize_bits=8), 1, names)
        trained[method] = parameter_count(model, trainable=True)
    model, _, _ = twins("llama")
    assert trained["full"] == parameter_count(model)
    assert trained["lora"] == trained["qlora"] == 3712


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "auto_mapping",
            {"base_model_class": "X", "parent_library": "evil.models"},
            "transformers",
        ),
        ("auto_mapping", {"code": "evil.py"}, "transformers"),
        ("target_modules", "(a+)+$", "no regular expression"),
        ("target_modules", ["(a+)+$"], "no regular expression"),
        ("target_modules", [], "no regular expression"),
        ("peft_type", "XLORA", "only LORA"),
        ("task_type", "SEQ_CLS", "only CAUSAL_LM"),
        ("r", 0, "whole number"),
        ("r", True, "whole number"),
        ("lora_alpha", "8", "number above 0"),
        ("lora_alpha", float("inf"), "number above 0"),
        ("lora_dropout", 1, "up to 1"),
        ("bias", "all", "trained biases"),
        ("init_lora_weights", "pissa", "changed the base"),
        ("init_lora_weights", "olora", "changed the base"),
        ("modules_to_save", ["lm_head"], "not supported"),
        ("layer_replication", [[0, 2], [1, 2]], "not supported"),
        ("rank_pattern", {"(a+)+$": 8}, "not supported"),
        ("target_parameters", ["experts"], "not supported"),
        ("a_key_of_tomorrow", 1, "not supported"),
    ],
)
def test_settings_that_are_not_understood_are_refused_by_name(
    key: str, value: object, words: str, tmp_path: Path
) -> None:
    sound = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (tmp_path / CONFIG).write_text(json.dumps(sound))
    assert read_adapter_config(tmp_path) == sound
    (tmp_path / CONFIG).write_text(json.dumps(sound | {key: value}))
    with pytest.raises(InputError, match=rf"(?s){CONFIG}: .*{key} is .*{words}"):
        read_adapter_config(tmp_path)


def test_all_faults_of_the_settings_together(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"r": -1, "bias": "all", "x_lora_config": {"a": 1}}))
    with pytest.raises(InputError) as caught:
        read_adapter_config(tmp_path)
    for name in ("peft_type is missing", "r is -1", "bias is 'all'", "x_lora_config is"):
        assert name in str(caught.value)
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(InputError, match="expected a JSON object"):
        read_adapter_config(tmp_path)


def test_what_peft_writes_without_a_task_is_accepted(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model, reference, names = twins("llama")
    made = get_peft_model(reference, LoraConfig(r=2, target_modules=["q_proj"]))
    made.save_pretrained(str(tmp_path))
    assert read_adapter_config(tmp_path)["auto_mapping"]["base_model_class"] == "LlamaForCausalLM"
    load_adapter(model, tmp_path, names)
    assert adapter_names(model) == ["default"]


def test_tensors_that_do_not_fit_are_named_before_anything_changes(tmp_path: Path) -> None:
    model, _, names = twins("llama")
    add_lora(model, settings(targets=("q_proj",)), 1, names)
    save_adapter(model, tmp_path / "a", "base", names)
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    stem = "base_model.model.model.layers.{}.self_attn.{}_proj.lora_{}.weight"
    del tensors[stem.format(0, "q", "A")]
    tensors[stem.format(1, "k", "A")] = torch.zeros(4, 32)
    tensors[stem.format(1, "q", "B")] = torch.zeros(32, 5)
    save_file(tensors, tmp_path / "a" / WEIGHTS)
    fresh, _, _ = twins("llama")
    base = logits(fresh)
    with pytest.raises(InputError) as caught:
        load_adapter(fresh, tmp_path / "a", names)
    for words in (
        f"missing: {stem.format(0, 'q', 'A')}",
        f"left over: {stem.format(1, 'k', 'A')}",
        f"wrong shape: {stem.format(1, 'q', 'B')} is [32, 5], expected [32, 4]",
    ):
        assert words in str(caught.value)
    assert adapter_names(fresh) == []
    assert torch.equal(logits(fresh), base)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    model, _, names = twins("gpt2")
    add_lora(model, settings(), 1, names)
    save_adapter(model, tmp_path / "a", "base", names)
    other, _, other_names = twins("llama")
    with pytest.raises(InputError, match="an adapter of another model"):
        load_adapter(other, tmp_path / "a", other_names)


def test_damaged_files_and_pickles(tmp_path: Path) -> None:
    model, _, names = twins("llama")
    add_lora(model, settings(), 1, names)
    save_adapter(model, tmp_path / "a", "base", names)
    tensors = load_file(tmp_path / "a" / WEIGHTS)
    for value in tensors.values():
        value[0, 0] = float("nan")
        break
    fresh, _, _ = twins("llama")
    save_file(tensors, tmp_path / "a" / WEIGHTS)
    with pytest.raises(InputError, match=r"not finite: base_model"):
        load_adapter(fresh, tmp_path / "a", names)
    (tmp_path / "a" / WEIGHTS).write_bytes(b"\x80\x04 no tensors")
    with pytest.raises(InputError, match="damaged or not a safetensors file"):
        load_adapter(fresh, tmp_path / "a", names)
    (tmp_path / "a" / WEIGHTS).rename(tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model\.bin is no safetensors file"):
        load_adapter(fresh, tmp_path / "a", names)
    with pytest.raises(InputError, match="no such file"):
        load_adapter(fresh, tmp_path / "nowhere", names)
