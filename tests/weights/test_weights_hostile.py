"""Folders made to harm: each is refused by name, and nothing is read, written or run elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from yunque.config import ModelConfig
from yunque.errors import InputError
from yunque.model.decoder import Decoder
from yunque.weights.folder import INDEX, WEIGHTS, load_folder, save_folder

TINY = ModelConfig(
    vocab_size=31,
    context_length=8,
    num_layers=1,
    num_heads=2,
    num_kv_heads=2,
    hidden_size=8,
    intermediate_size=16,
    qk_norm=False,
    tie_embeddings=False,
    dropout=0.0,
)


def good(folder: Path) -> Path:
    save_folder(Decoder(TINY), folder, None, {"eos_token_id": 0})
    return folder


def header(folder: Path) -> tuple[dict[str, Any], bytes]:
    content = (folder / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def write(folder: Path, text: str | dict[str, Any], numbers: bytes) -> None:
    raw = (text if isinstance(text, str) else json.dumps(text)).encode()
    (folder / WEIGHTS).write_bytes(len(raw).to_bytes(8, "little") + raw + numbers)


def link_out(folder: Path) -> None:
    shutil.move(folder / WEIGHTS, folder.parent / "elsewhere.safetensors")
    (folder / WEIGHTS).symlink_to("../elsewhere.safetensors")


def link_config_out(folder: Path) -> None:
    shutil.move(folder / "config.json", folder.parent / "secret.json")
    (folder / "config.json").symlink_to(folder.parent / "secret.json")


def link_to_itself(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(WEIGHTS)


def pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")  # who opens it waits for ever


def index_outside(folder: Path) -> None:
    names = header(folder)[0].keys() - {"__metadata__"}
    shutil.move(folder / WEIGHTS, folder.parent / "outside.safetensors")
    weight_map = dict.fromkeys(names, "../outside.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def index_of_a_long_name(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    long = {"weight_map": {"lm_head.weight": "x" * 1_000_000 + ".safetensors"}}
    (folder / INDEX).write_text(json.dumps(long))


def header_beyond_the_file(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(len(content).to_bytes(8, "little") + content[8:])


def huge_header(folder: Path) -> None:
    with (folder / WEIGHTS).open("wb") as handle:
        handle.write((200_000_000).to_bytes(8, "little"))
        handle.truncate(300_000_000)  # a hole: nothing lies on the disk


def overlap(folder: Path) -> None:
    content, numbers = header(folder)
    content["lm_head.weight"]["data_offsets"] = content["model.embed_tokens.weight"]["data_offsets"]
    write(folder, content, numbers)


def behind_the_end(folder: Path) -> None:
    content, numbers = header(folder)
    write(folder, content, numbers[:-40])


def wrong_size(folder: Path) -> None:
    content, numbers = header(folder)
    content["model.norm.weight"]["shape"] = [2**61]
    write(folder, content, numbers)


def long_name(folder: Path) -> None:
    content, numbers = header(folder)
    write(folder, {"x" * 1_000_000: content.pop("lm_head.weight"), **content}, numbers)


def double_tensor(folder: Path) -> None:
    content, numbers = header(folder)
    text = json.dumps(content)
    again = json.dumps(content["lm_head.weight"])
    write(folder, f'{text[:-1]}, "lm_head.weight": {again}}}', numbers)


def deep_header(folder: Path) -> None:
    write(folder, "[" * 200_000, b"")


def double_key(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("{", '{"vocab_size": 7,', 1))


def deep_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 100_000)


def edited(**values: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        del content["yunque"]
        (folder / "config.json").write_text(json.dumps(content | values))

    return edit


def code(folder: Path) -> None:
    marker = folder.parent / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w')")
    edited(auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})(folder)


HOSTILE: list[tuple[str, Callable[[Path], None], str]] = [
    ("link-out", link_out, r"model\.safetensors is a link to .*elsewhere.*outside"),
    ("link-config-out", link_config_out, r"config\.json is a link to .*secret.*outside"),
    ("link-to-itself", link_to_itself, r"model\.safetensors is a link"),
    ("pipe", pipe, r"config\.json is not a file"),
    ("index-outside", index_outside, r"points to '\.\./outside\.safetensors', not to a file of"),
    ("index-long-name", index_of_a_long_name, r"lm_head\.weight points to 'x+', not to a file"),
    ("header-beyond", header_beyond_the_file, r"a header of \d+ bytes, the file has \d+"),
    ("huge-header", huge_header, r"a header of 200000000 bytes"),
    ("overlap", overlap, r"damaged or not a safetensors file \(.*offset"),
    ("behind-the-end", behind_the_end, r"damaged or not a safetensors file"),
    ("wrong-size", wrong_size, r"damaged or not a safetensors file"),
    ("long-name", long_name, r"name has 1000000 characters, 500 at most"),
    ("double-tensor", double_tensor, r"the key 'lm_head\.weight' stands twice"),
    ("deep-header", deep_header, r"damaged or not a safetensors file"),
    ("double-key", double_key, r"config\.json: .*the key 'vocab_size' stands twice"),
    ("deep-config", deep_config, r"config\.json: not JSON that can be read"),
    ("code", code, r"auto_map names code .*modeling_evil\.Evil.*never runs"),
    ("blocks", edited(num_hidden_layers=10**9), r"1000000000 blocks, and the files hold \d+"),
    ("rows", edited(vocab_size=10**12), r"wrong shape: lm_head\.weight"),
]


@pytest.mark.parametrize(
    ("plant", "words"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_folders_are_refused_by_name(
    plant: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    folder = good(tmp_path / "model")
    assert load_folder(folder).config == TINY
    plant(folder)
    before = {path: os.lstat(path).st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=words) as caught:
        load_folder(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 3000  # also where the folder holds endless names
    assert {path: os.lstat(path).st_mtime_ns for path in tmp_path.rglob("*")} == before


def snapshot(tmp_path: Path) -> Path:
    """A model as the Hub's cache holds it: links to files that are named by their hashes."""
    home = tmp_path / "models--somebody--tiny"
    folder = good(home / "snapshots" / "0123")
    (home / "blobs").mkdir()
    for path in list(folder.iterdir()):
        shutil.move(path, home / "blobs" / f"hash-of-{path.stem}")
        path.symlink_to(f"../../blobs/hash-of-{path.stem}")
    return folder


def test_snapshots_of_the_hub_cache_are_read(tmp_path: Path) -> None:
    model = load_folder(snapshot(tmp_path))
    assert torch.equal(model.head.weight, Decoder(TINY).head.weight)


def test_snapshots_must_not_lead_out_of_their_repository(tmp_path: Path) -> None:
    folder = snapshot(tmp_path)
    other = good(tmp_path / "models--somebody--else")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(other / WEIGHTS)
    with pytest.raises(InputError, match=r"model\.safetensors is a link to .*else.*outside"):
        load_folder(folder)


def test_links_inside_the_folder_and_to_the_folder_are_read(tmp_path: Path) -> None:
    folder = good(tmp_path / "model")
    (folder / WEIGHTS).rename(folder / "weights")
    (folder / WEIGHTS).symlink_to("weights")
    (tmp_path / "name").symlink_to(folder, target_is_directory=True)
    assert load_folder(tmp_path / "name").config == TINY
