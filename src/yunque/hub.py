"""The Hugging Face Hub: what is an id and what a path, and models fetched into its cache.

The one place that tells them apart, for models, tokenizers and data. Whether the Hub may be asked
(`HF_HUB_OFFLINE`), where its cache lies and who asks is read by huggingface_hub itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from yunque.errors import InputError
from yunque.files import path_of, storage_error

HUB = "hf:"
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"(?!.*\.\.)[\w-][\w.-]*(?:/[\w-][\w.-]*)*")  # no way out of a folder
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model.*\.safetensors")
_BESIDE = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|encoder|chat_template)\.json|merges\.txt|vocab\.(txt|bpe)|chat_template\.jinja|[\w.-]+\.model"
)
PATIENCE = 20.0
"""Seconds that the Hub has for an answer."""


@dataclass(frozen=True)
class HubId:
    """A repository on the Hub; `revision` is a branch, a tag or a commit, None its main branch."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def hub_id(text: str) -> HubId | None:
    """The repository that `text` names, or None where it means a path.

    `hf:NAME` always means the Hub. `owner/name` does where there is no such path, and no folder
    `owner` either: beside other runs, `runs/mispelt` is a path. `@revision` may follow both.

    Raises:
        InputError: `hf:` before what cannot be a name; a name too long for a path.
    """
    name, at, revision = text.removeprefix(HUB).partition("@")
    formed = _NAME.fullmatch(name) and (not at or _REVISION.fullmatch(revision))
    if text.startswith(HUB):
        if not formed:
            raise InputError(f"{text}: expected hf:NAME or hf:OWNER/NAME, and @REVISION if any.")
        return HubId(name, revision or None)
    owner, slash, _ = name.partition("/")
    if not formed or not slash or path_of(text).exists() or Path(owner).is_dir():
        return None
    return HubId(name, revision or None)


def pinned(text: str, folder: Path) -> str:
    """A Hub id at the commit that was fetched into `folder`, as `hf:`; anything else as it is."""
    hub = hub_id(text)
    fetched = folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name)
    return f"{HUB}{hub.name}@{folder.name}" if hub and fetched else text


def at_revision(name: str, revision: str | None) -> str:
    """What a file means that names a model and, where it is one of the Hub, its revision."""
    if not revision or Path(name).exists() or not _NAME.fullmatch(name):
        return name
    return f"{HUB}{name}@{revision}"


def fetch(hub: HubId, patterns: list[str]) -> Path:
    """The folder with the files of a repository that match, fetched or found in the cache.

    Raises:
        InputError: there is no such repository, it may not be read, or it can be neither reached
            nor found.
        StorageError: the cache cannot be written.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub.name, revision=hub.revision, allow_patterns=patterns))
    except Exception as error:  # the library's errors, and those of whoever speaks HTTP for it
        raise fault(hub, error) from None


def fetch_model(hub: HubId) -> Path:
    """The folder with a repository's model: configuration, safetensors and tokenizer, no more.

    What is in the cache is not fetched again, and an interrupted download goes on where it
    stopped. Without a connection the cache must hold the whole model.

    Raises:
        InputError: as `fetch`, or there are no safetensors in the repository.
        StorageError: the cache cannot be written.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        # One question, asked once: list_repo_files repeats its own for half a minute.
        found = HfApi().model_info(hub.name, revision=hub.revision, timeout=PATIENCE)
        names = [file.rfilename for file in found.siblings or []]
    except RevisionNotFoundError as error:
        raise fault(hub, error) from None
    except Exception as error:  # not reached, not known, not allowed; of many libraries
        held = cached(hub)
        if held is None:
            raise fault(hub, error) from None
        missing = missing_files(held)
        if missing:
            raise InputError(
                f"{hub}: the Hub cannot be asked ({first_line(error)}), and the cache holds only "
                f"{listed(path.name for path in held.iterdir())} of it; missing: "
                f"{listed(missing)}. Connect and run the same again: it goes on from there."
            ) from None
        return held
    return fetch(hub, model_files(hub, names))


def model_files(hub: HubId, names: Iterable[str]) -> list[str]:
    """Of all files of a repository those of its model, in its topmost folder.

    Raises:
        InputError: there is no safetensors file of a whole model among them.
    """
    top = sorted(name for name in names if "/" not in name)
    weights = [_WEIGHTS] if _WEIGHTS in top else []
    if not weights and _INDEX in top:
        weights = [_INDEX, *(name for name in top if _SHARD.fullmatch(name))]
    if not weights or "config.json" not in top:
        way = "An adapter? Give its base model." if "adapter_config.json" in top else ""
        raise InputError(
            f"{hub}: no model with safetensors on the Hub under this name; it holds {listed(top)}. "
            f"Other kinds of weights are not fetched: pickles may run any program. "
            f"{way or 'Look for a repository with model.safetensors.'}"
        )
    return weights + [name for name in top if _BESIDE.fullmatch(name)]


def cached(hub: HubId) -> Path | None:
    """The folder of the cache with what was fetched of a repository before, whole or not."""
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(hub.name, revision=hub.revision, local_files_only=True)
    except (OSError, ValueError):
        return None
    return Path(found)


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks of a whole model."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if (folder / _WEIGHTS).is_file():
        return missing
    if not (folder / _INDEX).is_file():
        return [*missing, _WEIGHTS]
    try:
        shards = set(
            json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        return missing  # the reader of the index says what is wrong with it
    return missing + sorted(str(name) for name in shards if not (folder / str(name)).is_file())


def fault(hub: HubId, error: Exception) -> Exception:
    """The message for anything that the library of the Hub raises."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    local = f"There is no folder {hub.name!r} here either."
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{hub}: its owner asks for consent before it can be read. Accept the terms on the "
            "page of the model, then log in here: hf auth login."
        )
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"{hub}: the Hub knows no such name, or it is private. {local} Check the spelling; "
            "for a private one log in: hf auth login."
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{hub}: the repository has no revision {hub.revision!r}.")
    if isinstance(error, HFValidationError):
        return InputError(f"{hub}: not a name of the Hub: {first_line(error)} {local}")
    of_network = isinstance(error, HfHubHTTPError | ConnectionError | TimeoutError)
    if isinstance(error, OSError) and error.errno is not None and not of_network:
        return storage_error(error, Path(error.filename or "the Hub's cache"), "write")
    held = cached(hub)
    inside = f"only {listed(path.name for path in held.iterdir())}" if held else "nothing"
    return InputError(
        f"{hub}: it could not be fetched from the Hub ({type(error).__name__}: "
        f"{first_line(error)}), and the cache holds {inside} of it. {local} Check the name and the "
        "connection; what was fetched is kept."
    )


def first_line(error: Exception) -> str:
    """The beginning of a long message."""
    return str(error).strip().split("\n")[0][:300]


def listed(names: Iterable[str]) -> str:
    """Some names, for a message."""
    some = sorted(names)
    return f"{', '.join(some[:8]) or 'nothing'}{', …' if len(some) > 8 else ''}"
