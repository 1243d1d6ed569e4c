"""Recipes: merged, typed, validated with every fault together, written and read back."""

from __future__ import annotations

import ast
import dataclasses
import math
import tomllib
from pathlib import Path

import pytest

from yunque.config import (
    ModelConfig,
    Recipe,
    flat_names,
    merge,
    recipe_faults,
    sections,
    to_toml,
    validate,
)
from yunque.errors import InputError
from yunque.model.presets import PRESETS

SOURCES = Path(__file__).parents[1] / "src" / "yunque"


def test_the_default_recipe_is_sound() -> None:
    assert recipe_faults(Recipe()) == []


def test_toml_round_trip_is_complete_and_equal() -> None:
    recipe = Recipe(sources=("a.txt", "b c")).replace(learning_rate=0.00031, tie_embeddings=False)
    tree = tomllib.loads(to_toml(recipe))
    assert merge(Recipe(), tree, "test") == recipe
    for name, kind in sections().items():
        assert set(tree[name]) == {field.name for field in dataclasses.fields(kind)}


def test_option_names_are_unique_over_the_sections() -> None:
    count = sum(len(dataclasses.fields(kind)) for kind in sections().values())
    assert len(flat_names()) == count


def test_every_option_is_read_by_some_room() -> None:
    """A field that only config.py mentions is a flag that nothing reads."""
    read = set()
    for path in SOURCES.rglob("*.py"):
        if path.name == "config.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # Through properties and methods of ModelConfig itself.
    read |= {"preset"}
    assert sorted(set(flat_names()) - read) == []


def test_every_option_has_help() -> None:
    tree = ast.parse((SOURCES / "config.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name in ("Recipe",):
            continue
        body = list(zip(node.body, node.body[1:] + [None], strict=True))
        for item, following in body:
            if isinstance(item, ast.AnnAssign):
                text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert text, f"{node.name}.{ast.unparse(item.target)} has no docstring"


def test_unknown_keys_name_the_nearest_known_one() -> None:
    with pytest.raises(InputError, match=r"\[optim\] unknown key 'learning_rat'.*'learning_rate'"):
        merge(Recipe(), {"optim": {"learning_rat": 1}}, "r.toml")
    with pytest.raises(InputError, match=r"unknown section 'modell'.*'model'"):
        merge(Recipe(), {"modell": {}}, "r.toml")
    with pytest.raises(InputError, match="'dropout' belongs under"):
        merge(Recipe(), {"dropout": 0.1}, "r.toml")
    with pytest.raises(InputError, match=r"unknown option 'stepz'.*'steps'"):
        Recipe().replace(stepz=3)


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("train", "steps", True, "expected int, got True"),
        ("train", "steps", 2.5, "expected int, got 2.5"),
        ("train", "steps", "many", "expected int, got 'many'"),
        ("optim", "learning_rate", float("nan"), "finite"),
        ("optim", "schedule", "cosin", "'cosine'"),
        ("model", "bias", 1, "expected bool"),
    ],
)
def test_wrong_types_are_named(section: str, key: str, value: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        merge(Recipe(), {section: {key: value}}, "r.toml")


def test_a_preset_is_not_laid_over_as_a_single_value() -> None:
    with pytest.raises(InputError, match=r"preset 'gpt2-124m' is a whole shape.*--preset"):
        Recipe().replace(preset="gpt2-124m")


@pytest.mark.parametrize("sources", [5, None, ["a.txt", 3], {"a.txt": 1}])
def test_sources_that_are_no_paths_are_named(sources: object) -> None:
    with pytest.raises(InputError, match=r"r\.toml: sources: expected a list of str, got "):
        merge(Recipe(), {"sources": sources}, "r.toml")


def test_one_source_stands_for_a_list_of_it() -> None:
    assert merge(Recipe(), {"sources": "a.txt"}, "r.toml").sources == ("a.txt",)
    assert merge(Recipe(), {"sources": []}, "r.toml").sources == ()


def test_an_integer_may_stand_for_a_float() -> None:
    changed = merge(Recipe(), {"optim": {"weight_decay": 1}}, "r.toml")
    assert changed.optim.weight_decay == 1.0
    assert isinstance(changed.optim.weight_decay, float)


def test_all_faults_are_reported_together() -> None:
    recipe = Recipe().replace(dropout=1.5, batch_size=0, val=0.9, test=0.2, device="gpu", seed=-1)
    with pytest.raises(InputError) as caught:
        validate(recipe)
    text = str(caught.value)
    assert text.startswith("5 things to mend:")
    for name in ("dropout is 1.5", "batch_size is 0", "val + test", "device is 'gpu'", "seed"):
        assert name in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_size": 100, "num_heads": 3}, "multiple of num_heads"),
        ({"hidden_size": 9, "num_heads": 3}, "even for rotary"),
        ({"num_heads": 6, "num_kv_heads": 4}, "must divide num_heads"),
        ({"batch_size": 8, "micro_batch_size": 3}, "multiple of micro_batch_size"),
        ({"spike_deviations": 1.0}, "0 (leave no finite update out) or 4 or more"),
        ({"steps": 5, "epochs": 1.0}, "one of them"),
        ({"rank": 0}, "rank is 0: 1 or more"),
        ({"alpha": 0.0}, "alpha is 0.0: above 0"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"targets": ("q_proj", "")}, "names of layers, none empty"),
        ({"quantize_bits": 3}, "quantize_bits is 3: 4 or 8"),
        ({"positions": "learned"}, "no open format holds this model"),
        ({"qkv_bias": True}, "no open format holds this model"),
        ({"head_bias": True}, "no open format holds this model"),
        ({"parallel_residual": True}, "no open format holds this model"),
        ({"rotary_fraction": 0.5}, "no open format holds this model"),
        ({"full_layers": 2}, "says nothing without a sliding_window"),
        ({"sliding_window": 8, "full_layers": 6}, "from 0 to 5"),
        ({"sliding_window": -1}, "0 (none) or more tokens"),
        ({"sliding_window": 8, "qk_norm": False, "full_layers": 1}, "no open format holds"),
        ({"head_dim": 7}, "head_dim is 7: must be even"),
        ({"rope_factor": 2.0}, "says nothing with rope_scaling none; leave it at 1"),
        ({"rope_scaling": "linear", "rope_factor": 0.5}, "rope_factor is 0.5: 1 or more"),
        ({"rope_scaling": "linear", "rope_fast": 4.0}, "says nothing with rope_scaling linear"),
        (
            {"rope_scaling": "llama3", "rope_amplitude": 1.0},
            "says nothing with rope_scaling llama3",
        ),
        ({"rope_scaling": "llama3", "rope_slow": 5.0}, "must be above rope_slow (5.0)"),
        ({"rope_scaling": "yarn", "rope_theta": 1.0}, "above 1 for yarn"),
        ({"rotary_fraction": 0.1}, "an even number of a head's 32 elements"),
        ({"rotary_fraction": 1.5}, "an even number of a head's 32 elements"),
    ],
)
def test_rules_between_fields(values: dict[str, object], words: str) -> None:
    assert any(words in fault for fault in recipe_faults(Recipe().replace(**values)))


def test_positions_that_are_learned_are_not_rotated() -> None:
    gpt2 = dataclasses.replace(Recipe(), model=PRESETS["gpt2-124m"])
    for name, value in {"rope_scaling": "linear", "rotary_fraction": 0.5}.items():
        (fault,) = recipe_faults(gpt2.replace(**{name: value}))
        assert fault.startswith(f"{name} is {value!r}: positions are learned")
    for name in ("sliding_window", "head_dim"):
        (fault,) = recipe_faults(gpt2.replace(**{name: 8}))
        assert "no open format holds this model" in fault


def test_presets_are_sound_and_of_their_family() -> None:
    for name, shape in PRESETS.items():
        assert shape.preset == name
        assert recipe_faults(dataclasses.replace(Recipe(), model=shape)) == []
    assert PRESETS["gpt2-124m"].family == "gpt2"
    assert PRESETS["llama-1.1b"].family == "llama"
    assert PRESETS["phi-2.8b"].family == "phi"
    assert PRESETS["phi-2.8b"].rotary_size == 32  # of 80
    assert PRESETS["nano"].family == "qwen3"
    assert PRESETS["nano"] == ModelConfig()
    assert ModelConfig(qkv_bias=True, qk_norm=False).family == "qwen2"
    assert ModelConfig(sliding_window=8, qk_norm=False).family == "mistral"
    assert ModelConfig(sliding_window=8, full_layers=1).family == "qwen3"


def test_resolved_fills_every_automatic_number() -> None:
    shape = ModelConfig(hidden_size=192, num_heads=6).resolved(70)
    assert (shape.vocab_size, shape.num_kv_heads, shape.intermediate_size) == (70, 6, 512)
    # The quotient has one spelling, so that equal shapes are equal.
    assert ModelConfig(hidden_size=192, num_heads=6, head_dim=32).resolved(70) == shape
    yarn = ModelConfig(rope_scaling="yarn", rope_factor=math.e, context_length=99).resolved(70)
    assert (yarn.rope_original_length, yarn.rope_slow, yarn.rope_fast) == (99, 1.0, 32.0)
    assert yarn.rope_amplitude == pytest.approx(1.1)
    gpt2 = PRESETS["gpt2-124m"].resolved(10)
    assert (gpt2.vocab_size, gpt2.intermediate_size) == (50_257, 3072)
