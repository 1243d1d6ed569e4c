"""Hub ids: told from paths, fetched in part, found in the cache, refused by name. No network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from yunque.errors import InputError, StorageError
from yunque.hub import HubId, at_revision, fetch, fetch_model, hub_id, model_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
WHOLE = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "tokenizer.json": "{}",
    "generation_config.json": "{}",
}


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no network, and an empty working folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache"


def snapshot(
    cache: Path, files: dict[str, str], name: str = "taller/yunque", commit: str = COMMIT
) -> Path:
    """A repository in the cache as huggingface_hub lays it out: blobs, links to them, a ref."""
    repository = cache / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    for part in (repository / "blobs", repository / "refs", folder):
        part.mkdir(parents=True, exist_ok=True)
    for number, (file, content) in enumerate(files.items()):
        blob = repository / "blobs" / f"{commit[:8]}{number}"
        blob.write_text(content, encoding="utf-8")
        (folder / file).symlink_to(Path("../../blobs") / blob.name)
    (repository / "refs" / "main").write_text(commit)
    return folder


def answering(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str, str | None], list[str]]
) -> None:
    """A Hub that answers the question for a repository's files."""

    def model_info(_: Any, repo_id: str, *, revision: str | None, timeout: float) -> Any:
        files = [SimpleNamespace(rfilename=name) for name in answer(repo_id, revision)]
        return SimpleNamespace(siblings=files)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


def failing(error: Exception) -> Callable[[str, str | None], list[str]]:
    def answer(name: str, revision: str | None) -> list[str]:
        raise error

    return answer


def http_error(kind: type[Exception], text: str = "404 Client Error.\n\nmore") -> Exception:
    """An error of the library without the response that it was made from."""
    error = kind.__new__(kind)
    error.args = (text,)
    OSError.__init__(error, text)
    return error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", HubId("owner/name")),
        ("owner/name.with-dots_1", HubId("owner/name.with-dots_1")),
        ("owner/name@v1.0", HubId("owner/name", "v1.0")),
        ("owner/name@refs/pr/3", HubId("owner/name", "refs/pr/3")),
        ("hf:gpt2", HubId("gpt2")),
        ("hf:owner/name@main", HubId("owner/name", "main")),
        ("name", None),
        ("a/b/c", None),
        ("./owner/name", None),
        ("/owner/name", None),
        ("../name", None),
        ("owner/../name", None),
        ("owner/", None),
        ("owner/name@", None),
        ("owner/na me", None),
        ("~/name", None),
        ("-owner/name", None),
    ],
)
def test_ids_and_paths(text: str, expected: HubId | None, hub_cache: Path) -> None:
    assert hub_id(text) == expected


def test_what_is_here_is_a_path(hub_cache: Path) -> None:
    assert hub_id("runs/first") == HubId("runs/first")
    Path("runs").mkdir()
    assert hub_id("runs/first") is None  # a mispelt run is not looked for on the Hub
    assert hub_id("hf:runs/first") == HubId("runs/first")
    with pytest.raises(InputError, match=r"hf:a b: expected hf:NAME"):
        hub_id("hf:a b")
    for revision in ("../c", "..", "x/../y", "v1..2", ".c", "a/.b"):
        assert hub_id(f"a/b@{revision}") is None
        with pytest.raises(InputError, match="expected hf:NAME"):
            hub_id(at_revision("a/b", revision))  # as an adapter's files name its base
    assert hub_id("hf:a/b@refs/pr/1.x") == HubId("a/b", "refs/pr/1.x")


def test_only_the_files_of_a_model_are_fetched() -> None:
    names = [
        *WHOLE,
        "pytorch_model.bin",
        "modeling_own.py",
        "model.fp16.safetensors",
        "onnx/model.safetensors",
        "original/consolidated.safetensors",
        "tokenizer.model",
        "tokenizer_config.json",
        "chat_template.jinja",
        "merges.txt",
        "vocab.json",
        "README.md",
        "training_args.bin",
    ]
    assert sorted(model_files(HubId("a/b"), names)) == sorted(
        [
            *WHOLE,
            "tokenizer.model",
            "tokenizer_config.json",
            "chat_template.jinja",
            "merges.txt",
            "vocab.json",
        ]
    )
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    sharded = ["config.json", *shards, index, "consolidated.safetensors", "pytorch_model.bin"]
    assert sorted(model_files(HubId("a/b"), sharded)) == ["config.json", *shards, index]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["config.json", "pytorch_model.bin"],
            r"a/b: no model with safetensors.*pytorch_model\.bin",
        ),
        (["adapter_config.json", "adapter_model.safetensors"], r"An adapter\? Give its base model"),
        (["model.safetensors"], r"no model with safetensors"),
        ([], r"it holds nothing"),
    ],
)
def test_a_repository_without_safetensors_is_refused(names: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        model_files(HubId("a/b"), names)


def test_the_hub_is_asked_for_those_files_only(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(snapshot(hub_cache, WHOLE, name))

    answering(monkeypatch, lambda name, revision: [*WHOLE, "pytorch_model.bin", "code.py"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    folder = fetch_model(HubId("taller/yunque", "v1"))
    assert (folder / "model.safetensors").read_text(encoding="utf-8") == "weights"
    assert (asked["name"], asked["revision"]) == ("taller/yunque", "v1")
    assert sorted(asked["allow_patterns"]) == sorted(WHOLE)


def test_offline_the_cache_is_enough(hub_cache: Path) -> None:
    folder = snapshot(hub_cache, WHOLE)
    assert fetch_model(HubId("taller/yunque")).resolve() == folder.resolve()
    assert fetch_model(HubId("taller/yunque", COMMIT)).resolve() == folder.resolve()
    newer = snapshot(hub_cache, WHOLE, commit=OTHER)
    assert fetch_model(HubId("taller/yunque")).resolve() == newer.resolve()
    assert fetch_model(HubId("taller/yunque", COMMIT)).resolve() == folder.resolve()


def test_offline_half_a_model_is_not_one(hub_cache: Path) -> None:
    snapshot(hub_cache, {"tokenizer.json": "{}", "config.json": "{}"})
    with pytest.raises(
        InputError,
        match=r"offline.*the cache holds only config\.json, tokenizer\.json of it; missing: "
        r"model\.safetensors\. Connect",
    ):
        fetch_model(HubId("taller/yunque"))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    held = {"config.json": "{}", "model.safetensors.index.json": json.dumps(index)}
    snapshot(hub_cache, {**held, "model-1.safetensors": ""}, commit=OTHER)
    with pytest.raises(InputError, match=r"missing: model-2\.safetensors\. Connect"):
        fetch_model(HubId("taller/yunque"))


def test_offline_and_not_in_the_cache(hub_cache: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"taller/nada: it could not be fetched.*offline.*cache holds nothing of it",
    ):
        fetch_model(HubId("taller/nada"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (errors.GatedRepoError, r"taller/yunque@v9: its owner asks for consent.*hf auth login"),
        (
            errors.RepositoryNotFoundError,
            r"knows no such name, or it is private.*no folder 'taller/yunque' here",
        ),
        (errors.RevisionNotFoundError, r"taller/yunque@v9: the repository has no revision 'v9'"),
        (errors.HfHubHTTPError, r"could not be fetched.*HfHubHTTPError: 404 Client Error\.\)"),
    ],
)
def test_what_the_hub_answers_is_told(
    kind: type[Exception], words: str, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, failing(http_error(kind)))
    with pytest.raises(InputError, match=words):
        fetch_model(HubId("taller/yunque", "v9"))


def test_no_network_at_all(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, failing(ConnectionError("no route to host")))
    with pytest.raises(InputError, match=r"ConnectionError: no route to host.*holds nothing of it"):
        fetch_model(HubId("taller/yunque"))
    folder = snapshot(hub_cache, WHOLE)
    assert fetch_model(HubId("taller/yunque")).resolve() == folder.resolve()


def test_a_network_that_is_really_not_there(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's own errors, which are no OSError: the cache is used, or its lack is told."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(InputError, match=r"it could not be fetched .*the cache holds nothing"):
        fetch_model(HubId("taller/yunque"))
    folder = snapshot(hub_cache, dict.fromkeys(("config.json", "model.safetensors"), "{}"))
    assert fetch_model(HubId("taller/yunque")) == folder


def test_a_download_that_breaks_off(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda name, revision: list(WHOLE))
    snapshot(hub_cache, {"config.json": "{}"})
    real = huggingface_hub.snapshot_download

    def download(name: str, **options: Any) -> str:
        if options.get("local_files_only"):
            return real(name, **options)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    error: OSError = ConnectionError("reset by peer")
    with pytest.raises(InputError, match=r"reset by peer.*only config\.json of it.*kept"):
        fetch_model(HubId("taller/yunque"))
    error = OSError(28, "No space left on device", "blob")
    with pytest.raises(StorageError, match=r"blob: cannot write: No space left on device"):
        fetch_model(HubId("taller/yunque"))


def test_a_name_that_the_hub_cannot_have(hub_cache: Path) -> None:
    with pytest.raises(InputError, match=r"a/b--c: not a name of the Hub"):
        fetch(HubId("a/b--c"), ["*.json"])
