"""Which data a run trains on: the user's text, a prepared folder, or the embedded tutor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yunque.assemble.demo import TUTOR, marks_of, prepare_tutor
from yunque.assemble.recipes import recipe_with
from yunque.config import Recipe, validate
from yunque.data.prepare import Prepared, is_prepared, open_prepared
from yunque.data.prepare import prepare as prepare_tokens
from yunque.data.tokenizer import Tokenizer
from yunque.errors import InputError
from yunque.model.decoder import Decoder
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


def prepared_for(recipe: Recipe, run: Path, screen: Screen, lang: str) -> Prepared:
    """The token files of a run: a prepared folder as it is, else made in RUN/data."""
    folder = prepared_folder(recipe, run)
    if folder == run / "data":
        return tokens_for(recipe, folder, screen, lang)
    return open_prepared(folder)


def prepared_folder(recipe: Recipe, run: Path) -> Path:
    """Where the token files of a run stand: the prepared folder that it names, else RUN/data."""
    if len(recipe.sources) == 1 and is_prepared(Path(recipe.sources[0])):
        return Path(recipe.sources[0])
    return run / "data"


def tokens_for(recipe: Recipe, out: Path, screen: Screen, lang: str) -> Prepared:
    """Prepare the sources of a recipe in `out`, or take what an equal preparation left there."""

    def progress(what: str, fraction: float) -> None:
        screen.progress(say(what, lang), fraction)

    if recipe.sources == (TUTOR,):
        return prepare_tutor(recipe.data, out, progress)
    if TUTOR in recipe.sources:
        raise InputError(f"sources: {TUTOR} is trained on alone, not together with other sources.")
    return prepare_tokens(recipe.sources, recipe.data, out, progress)


def exam_for(
    recipe: Recipe, model: Decoder, tokenizer: Tokenizer
) -> Callable[[], Mapping[str, Any]] | None:
    """The exam that belongs to the data: the tutor has one, plain text has none."""
    if recipe.sources == (TUTOR,):
        return lambda: marks_of(model, tokenizer)
    return None
