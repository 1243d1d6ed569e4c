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
    recipe = base_recipe(path, str(options.get("preset", "")))
    return merge(recipe, nest(options), "argument")
