"""How much memory loading takes: the model in its final precision, and little more."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from yunque.config import ModelConfig
from yunque.data.tokenizer import train_tokenizer
from yunque.files import staged_file, write_json
from yunque.model.decoder import Decoder
from yunque.model.presets import PRESETS
from yunque.weights.families import foreign_config, our_shapes, places
from yunque.weights.folder import WEIGHTS, write_tensors
from yunque.weights.gguf import save_gguf

BOUND = 1.15
MEASURE = """
import json, re, sys, time, torch

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

place, dtype, reader = sys.argv[1:]
if reader == "transformers_model.load_transformers":
    import transformers.models.gpt_neox.modeling_gpt_neox
module, function = reader.split(".")
module = __import__("yunque.weights." + module, fromlist=[function])
open("/proc/self/clear_refs", "w").write("5")  # the peak begins again from here
before, began = memory("VmRSS"), time.perf_counter()
model = getattr(module, function)(__import__("pathlib").Path(place), dtype=getattr(torch, dtype))
peak, seconds = memory("VmHWM") - before, time.perf_counter() - began
size = sum(p.numel() * p.element_size() for p in model.parameters())
print(json.dumps({"peak": peak, "size": size, "seconds": seconds}))
"""


class Drawn(Mapping[str, Tensor]):
    """Random weights, each made when it is asked for."""

    def __init__(self, config: ModelConfig):
        self.shapes = our_shapes(config)
        self.numbers = torch.randn(1 << 20, generator=torch.Generator().manual_seed(5))

    def __getitem__(self, name: str) -> Tensor:
        count = torch.Size(self.shapes[name]).numel()
        repeated = self.numbers.repeat(-(-count // len(self.numbers)))
        return repeated[:count].view(self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def write_folder(folder: Path, config: ModelConfig, dtype: str, repeat_head: bool = False) -> None:
    """A folder of random weights, written without holding them; a tied head may be in it too."""
    write_json(folder / "config.json", foreign_config(config, dtype, end_id=None))
    content = places(config)
    weights = Drawn(config)
    if repeat_head:
        content = places(dataclasses.replace(config, tie_embeddings=False))
        weights.shapes["head.weight"] = weights.shapes["token_embedding.weight"]
    with staged_file(folder / WEIGHTS) as handle:
        write_tensors(handle, content, weights, dtype)


def measured(folder: Path, dtype: str, reader: str = "folder.load_folder") -> float:
    """Peak while loading, as a multiple of the weights in `dtype`."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), dtype, reader], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    share = found["peak"] / found["size"]
    print(
        f"{folder.name} as {dtype}: {found['size'] / 1e9:.2f} GB, {share:.3f} times that at the "
        f"peak, {found['seconds']:.1f} s"
    )
    assert share > 0.95  # less would mean that the peak was not measured
    return share


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak is measured through Linux's /proc"
)


@needs_proc
def test_loading_holds_little_more_than_the_model(tmp_path: Path) -> None:
    # The head that the file repeats is a seventh of the model: holding it too would show.
    small = dataclasses.replace(
        PRESETS["gpt2-124m"], vocab_size=8192, num_layers=8, hidden_size=512, num_heads=8
    )
    write_folder(tmp_path, small.resolved(0), "float32", repeat_head=True)
    assert measured(tmp_path, "float32") < BOUND


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_a_gguf_file_loads_within_the_bound(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    file = tmp_path / f"{kind}.gguf"
    tokenizer = train_tokenizer("bpe-gpt2:270", lambda: iter(["la la la la"]), "<|endoftext|>")
    tokenizer.save(tmp_path / "tokenizer")
    write_json(tmp_path / "tokenizer" / "generation_config.json", {})
    save_gguf(Decoder(PRESETS["gpt2-124m"]), file, tmp_path / "tokenizer", kind, "m")
    assert measured(file, "float32", "gguf.load_gguf") < BOUND


@needs_proc
@pytest.mark.slow
def test_a_model_of_transformers_loads_within_the_bound(tmp_path: Path) -> None:
    import transformers

    shape = transformers.GPTNeoXConfig(
        hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
    )
    transformers.GPTNeoXForCausalLM(shape).save_pretrained(tmp_path)
    assert measured(tmp_path, "float32", "transformers_model.load_transformers") < BOUND


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(("name", "stored"), [("gpt2-774m", "float32"), ("llama-1.1b", "bfloat16")])
def test_large_models_load_within_the_bound(name: str, stored: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    write_folder(folder, PRESETS[name].resolved(0), stored)
    try:
        for dtype in ("bfloat16", "float32"):
            assert measured(folder, dtype) < BOUND
    finally:
        (folder / WEIGHTS).unlink()  # gigabytes
