"""Which data a run trains on: the user's text, a prepared folder, or the embedded tutor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yunque.assemble.recipes import recipe_with
from yunque.assemble.tutor import prepare_tutor
from yunque.config import TUTOR, DataConfig, Recipe, merge, raise_faults, validate
from yunque.data.checks import Check, check_data, notes_on
from yunque.data.packing import Packing
from yunque.data.prepare import Prepared, is_ours, open_prepared
from yunque.data.prepare import prepare as prepare_tokens
from yunque.data.tokenizer import Tokenizer
from yunque.errors import InputError
from yunque.files import read_json, write_text
from yunque.reports.ledger_page import ledger_html
from yunque.screen import Screen, SilentScreen
from yunque.words import say


def listed(sources: Sequence[str] | str) -> list[str]:
    """One path or many, as a list of strings."""
    return [str(sources)] if isinstance(sources, (str, Path)) else [str(s) for s in sources]


def prepare(
    sources: Sequence[str] | str,
    out: str | Path,
    *,
    screen: Screen | None = None,
    lang: str = "en",
    **options: Any,
) -> Prepared:
    """Turn text into token files under `out`; options are those of the recipe's [data].

    Raises:
        InputError: a source, an option or a tokenizer is not usable.
    """
    recipe = recipe_with({**options, "sources": listed(sources)})
    validate(recipe)
    return tokens_for(recipe, Path(out), screen or SilentScreen(), lang)


def doubts(made: Prepared, data: DataConfig | None = None) -> list[Check]:
    """What a preparation leaves to doubt, faults first.

    Args:
        data: settings of a training, whose length limit is tried where it truncates.
    """
    train = made.splits["train"]
    if (
        data is None
        or data.over_long != "truncate"
        or not data.max_length
        or not made.facts["apart"]
    ):
        errors, warnings = check_data(made.facts, 0)
        return errors + warnings
    packing = Packing(train, data.max_length, "truncate")
    counts = packing.counts()
    least = 0 if counts.trained else packing.least_length()
    errors, warnings = check_data(made.facts, counts.truncated if counts.trained else 0)
    if least:
        limit = {"length": data.max_length, "least": least}
        errors.append(Check("data.all_lost_to_length", limit))
    return errors + warnings


def remarks(made: Prepared) -> list[Check]:
    """What is worth knowing about a preparation and is no doubt."""
    return notes_on(made.facts)


def write_ledger(made: Prepared, lang: str, data: DataConfig | None = None) -> None:
    """The ledger as a page beside the token files: OUT/ledger.html."""
    facts = made.facts
    page = ledger_html(
        facts["ledger"],
        facts["sources"],
        facts["examples"],
        facts["left_aside"],
        [item.text(lang) for item in doubts(made, data) + remarks(made)],
        lang,
        ", ".join(str(source["name"]) for source in facts["sources"][:3]) or made.folder.name,
    )
    write_text(made.folder / "ledger.html", page)


def prepared_for(
    recipe: Recipe, run: Path, screen: Screen, lang: str, tokenizer: Tokenizer | None
) -> None:
    """Make the token files of a run in RUN/data, unless it trains on a prepared folder."""
    if not from_prepared(recipe):
        tokens_for(recipe, run / "data", screen, lang, tokenizer)


def from_prepared(recipe: Recipe) -> bool:
    """Whether the one source of a recipe is a folder made by `yunque prepare`."""
    return len(recipe.sources) == 1 and is_ours(Path(recipe.sources[0]))


def located(recipe: Recipe, run: Path) -> tuple[Recipe, Path]:
    """The recipe as it holds for its data, and the folder of its token files.

    A prepared folder brings its own [data] settings and is named by its whole path, so that the
    recipe that a run writes says what was trained on.

    Raises:
        InputError: the recipe asks a prepared folder for other settings than it was made with.
    """
    if not from_prepared(recipe):
        return recipe, run / "data"
    folder = Path(recipe.sources[0]).resolve()
    facts = open_prepared(folder).facts
    stated = read_json(folder / "data.json").get("settings")
    if not isinstance(stated, dict):
        raise InputError(
            f"{folder / 'data.json'}: settings is {stated!r}; it was changed since it was written. "
            "Run yunque prepare again."
        )
    own = {"tokenizer": facts["tokenizer"], "add_tokens": list(facts.get("add_tokens", ()))}
    settings = merge(Recipe(), {"data": {**stated, **own}}, str(folder / "data.json")).data
    made = {name: getattr(settings, name) for name in {**stated, **own}}
    default, faults = DataConfig(), []
    for name, value in made.items():
        asked = getattr(recipe.data, name)
        if asked not in (value, getattr(default, name)):
            faults.append(
                f"{name} is {asked!r}, but {folder} was prepared with {value!r}. Leave it out, or "
                "prepare the text anew."
            )
    raise_faults(faults)
    data = dataclasses.replace(recipe.data, **made)
    return dataclasses.replace(recipe, sources=(str(folder),), data=data), folder


def tokens_for(
    recipe: Recipe, out: Path, screen: Screen, lang: str, tokenizer: Tokenizer | None = None
) -> Prepared:
    """Prepare the sources of a recipe in `out`, or take what an equal preparation left there.

    Args:
        tokenizer: that of the base that is fine-tuned; None: the recipe's.
    """

    def progress(what: str, fraction: float) -> None:
        screen.progress(say(what, lang), fraction)

    if recipe.sources == (TUTOR,):
        made = prepare_tutor(recipe.data, out, progress, tokenizer)
    elif TUTOR in recipe.sources:
        raise InputError(f"sources: {TUTOR} is trained on alone, not together with other sources.")
    else:
        made = prepare_tokens(recipe.sources, recipe.data, out, progress, tokenizer)
    if not made.facts["reused"]:
        write_ledger(made, lang, recipe.data)
    return made
