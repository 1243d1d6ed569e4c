"""From a preset, a recipe file and single options to one complete recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yunque.config import Recipe, merge, nest, read_tree
from yunque.model.presets import preset


def base_recipe(path: str = "", preset_name: str = "") -> Recipe:
    """The defaults, then the preset, then the recipe file; not yet validated.

    Args:
        path: a recipe file, or "" for none.
        preset_name: overrides the preset that the file names; "" takes the file's or the default.

    Raises:
        InputError: the file cannot be read, or it holds unknown or wrongly typed keys.
    """
    tree = read_tree(Path(path)) if path else {}
    model = tree.get("model", {})
    named = model.get("preset") if isinstance(model, Mapping) else None
    name = preset_name or (named if isinstance(named, str) else "") or Recipe().model.preset
    recipe = dataclasses.replace(Recipe(), model=preset(name))
    recipe = merge(recipe, tree, path)
    if preset_name and named not in (None, preset_name):
        # Another preset than the file's: its shape counts, not the shape that the file spells out.
        recipe = dataclasses.replace(recipe, model=preset(preset_name))
    return recipe


def recipe_with(options: Mapping[str, Any], path: str = "") -> Recipe:
    """`base_recipe` with single options, by their flat names, laid over it.

    Raises:
        InputError: an option is unknown (the nearest is named) or of the wrong type.
    """
    return overlaid(base_recipe(path, str(options.get("preset", ""))), options)


def with_options(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """`recipe` with a preset's whole shape, where one is given, and then the other options.

    Raises:
        InputError: as `recipe_with`; or there is no such preset.
    """
    if "preset" in options:
        recipe = dataclasses.replace(recipe, model=preset(str(options["preset"])))
    return overlaid(recipe, options)


def overlaid(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """Single options over a recipe that already has the shape of their preset."""
    return later_length(recipe, merge(recipe, nest(options), "argument"))


def later_length(base: Recipe, changed: Recipe) -> Recipe:
    """`changed` with the length that was given later, where `base` gave the other one.

    Steps over a recipe with epochs, or epochs over one with steps, override it as every option
    does. Where both were given at once, both stay, and `validate` says so.
    """
    new, old = changed.train, base.train
    if new.steps > 0 and new.epochs > 0:
        if new.steps != old.steps and new.epochs == old.epochs:
            return dataclasses.replace(changed, train=dataclasses.replace(new, epochs=0.0))
        if new.epochs != old.epochs and new.steps == old.steps:
            return dataclasses.replace(changed, train=dataclasses.replace(new, steps=0))
    return changed


# LoRA: Hu et al. 2021 and Dettmers et al. 2023 ("QLoRA", section 4) train adapters at 2e-4; full
# fine-tuning moves every weight and is made at a tenth of that or less (Ouyang et al. 2022,
# appendix C). Two or three passes: Zhou et al. 2023 ("LIMA") and others see more passes memorise.
FINETUNE_RATES = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}
HIGHEST_RATES = {"full": 2e-4, "lora": 2e-3, "qlora": 2e-3}
"""Above ten times the published rate a warning is given."""


def finetune_recipe(path: str = "", method: str = "") -> Recipe:
    """The defaults of fine-tuning by a method, then the recipe file; not yet validated.

    Args:
        path: a recipe file, or "" for none.
        method: full, lora or qlora; overrides the one that the file names; "" takes the file's.

    Raises:
        InputError: the file cannot be read, or it holds unknown or wrongly typed keys.
    """
    tree = read_tree(Path(path)) if path else {}
    section = tree.get("adapt", {})
    named = section.get("method") if isinstance(section, Mapping) else None
    chosen = method or (named if isinstance(named, str) else "") or Recipe().adapt.method
    recipe = Recipe().replace(
        learning_rate=FINETUNE_RATES.get(chosen, FINETUNE_RATES["lora"]),
        weight_decay=0.01 if chosen == "full" else 0.0,
        warmup_steps=-1,
        beta2=0.999,
        batch_size=8,
        epochs=3.0,
        eval_every=0,
        patience=3,
        dropout=0.0,
    )
    recipe = later_length(recipe, merge(recipe, tree, path))
    if chosen in FINETUNE_RATES:
        recipe = recipe.replace(method=chosen)
    return recipe
