"""Preset, recipe file and options to one recipe: what is given later wins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from yunque.assemble.recipes import later_length, recipe_with, with_options
from yunque.config import Recipe, recipe_faults
from yunque.errors import InputError
from yunque.model.presets import preset


def test_a_preset_option_is_its_whole_shape() -> None:
    base = Recipe().replace(num_layers=3, seed=4)
    made = with_options(base, {"preset": "gpt2-124m", "dropout": 0.3, "steps": 9})
    assert made.model == dataclasses.replace(preset("gpt2-124m"), dropout=0.3)
    assert (made.machine.seed, made.train.steps) == (4, 9)
    assert with_options(base, {"preset": "nano"}).model == preset("nano")
    assert with_options(base, {"dropout": 0.3}) == base.replace(dropout=0.3)


def test_options_of_a_recipe_are_checked() -> None:
    with pytest.raises(InputError, match=r"unknown preset 'gpt2-124'.*'gpt2-124m'"):
        with_options(Recipe(), {"preset": "gpt2-124"})
    with pytest.raises(InputError, match="unknown preset '5'"):
        with_options(Recipe(), {"preset": 5})
    with pytest.raises(InputError, match=r"unknown option 'stepz'.*'steps'"):
        with_options(Recipe(), {"stepz": 3})


EPOCHS = Recipe().replace(epochs=2.0)
STEPS = Recipe().replace(steps=7)


@pytest.mark.parametrize(
    ("base", "options", "length"),
    [
        (EPOCHS, {"steps": 5}, (5, 0.0)),
        (STEPS, {"epochs": 3.0}, (0, 3.0)),
        (STEPS, {"steps": 5}, (5, 0.0)),
        (EPOCHS, {"epochs": 3.0}, (0, 3.0)),
        (EPOCHS, {"steps": 0}, (0, 2.0)),
        (EPOCHS, {"seed": 5}, (0, 2.0)),
        (Recipe(), {"steps": 5}, (5, 0.0)),
    ],
)
def test_the_length_given_later_wins(
    base: Recipe, options: dict[str, object], length: tuple[int, float]
) -> None:
    made = with_options(base, options)
    assert (made.train.steps, made.train.epochs) == length
    assert recipe_faults(made) == []
    parsed = base.replace(**options)  # as flags give it
    assert later_length(base, parsed) == made


def test_both_lengths_at_once_stay_a_fault() -> None:
    made = with_options(Recipe(), {"steps": 5, "epochs": 3.0})
    assert any("give one of them" in fault for fault in recipe_faults(made))
    made = with_options(EPOCHS, {"steps": 5, "epochs": 3.0})
    assert any("give one of them" in fault for fault in recipe_faults(made))


def test_options_win_over_the_length_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[train]\nepochs = 10.0\n", encoding="utf-8")
    made = recipe_with({"steps": 5}, str(path))
    assert (made.train.steps, made.train.epochs) == (5, 0.0)
