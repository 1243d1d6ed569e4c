"""OpenAI's GPT-2 files: TensorFlow's own bit for bit, transformers' logits, faults named.

The fixture was written by TensorFlow 2.21.0 with openai_fixture/make_fixture.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_writer import write_bundle, write_sparse_bundle
from openai_files import SMALL, openai_shapes, openai_tensors, write_openai
from reference_models import pair, turned

from yunque.config import ModelConfig
from yunque.errors import InputError
from yunque.weights.families import OPENAI, join, match, places, split
from yunque.weights.folder import load_folder, save_folder
from yunque.weights.openai import is_openai, load_openai, openai_config

FIXTURE = Path(__file__).parent / "openai_fixture"
TOKENS = torch.tensor([[1, 5, 10, 0, 3], [9, 9, 8, 1, 0]])
PARTS = ("q", "k", "v")


def fixture(tmp_path: Path, name: str = "one") -> Path:
    return Path(shutil.copytree(FIXTURE / name, tmp_path / name))


def sha(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", ["one", "two"])
def test_the_numbers_are_those_that_tensorflow_wrote(name: str) -> None:
    model = load_openai(FIXTURE / name)
    assert openai_config(FIXTURE / name) == model.config
    expected = json.loads((FIXTURE / "sha256.json").read_text())["sha256"][name]
    state = model.state_dict()
    assert torch.equal(state.pop("head.weight"), state["token_embedding.weight"])
    assert model.head.weight is model.token_embedding.weight
    theirs = {
        "model/wte": state.pop("token_embedding.weight"),
        "model/wpe": state.pop("position_embedding.weight"),
        "model/ln_f/g": state.pop("final_norm.weight"),
        "model/ln_f/b": state.pop("final_norm.bias"),
    }
    for layer in range(2):
        ours, there = f"blocks.{layer}.", f"model/h{layer}/"
        for mine, name in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            theirs[f"{there}{name}/g"] = state.pop(f"{ours}{mine}.weight")
            theirs[f"{there}{name}/b"] = state.pop(f"{ours}{mine}.bias")
        for kind, end in (("weight", "w"), ("bias", "b")):
            joint = [state.pop(f"{ours}attention.{part}_proj.{kind}") for part in PARTS]
            theirs[f"{there}attn/c_attn/{end}"] = turned(torch.cat(joint))
            for mine, name in (
                ("attention.o_proj", "attn/c_proj"),
                ("mlp.up_proj", "mlp/c_fc"),
                ("mlp.down_proj", "mlp/c_proj"),
            ):
                theirs[f"{there}{name}/{end}"] = turned(state.pop(f"{ours}{mine}.{kind}"))
    assert state == {}
    assert {name: sha(tensor) for name, tensor in theirs.items()} == expected
    assert not model.training
    assert all(tensor.is_contiguous() for tensor in model.state_dict().values())


def test_logits_are_those_of_transformers(tmp_path: Path) -> None:
    ours, reference = pair("gpt2", vocab_size=11, context_length=6, std=0.5)
    for shards in (1, 3):
        write_openai(tmp_path / str(shards), reference, shards)
        model = load_openai(tmp_path / str(shards))
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, model.state_dict()[name]), name
        with torch.no_grad():
            expected = reference(TOKENS).logits
            torch.testing.assert_close(model.head(model(TOKENS)), expected, rtol=0, atol=1e-5)
        assert expected.std() > 1
        shape = model.config
        assert shape.family == "gpt2"
        assert (shape.num_heads, shape.norm_eps, shape.tie_embeddings) == (4, 1e-5, True)
    model.head(model(TOKENS)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types(dtype: torch.dtype) -> None:
    exact, cast = load_openai(FIXTURE / "one"), load_openai(FIXTURE / "one", dtype=dtype)
    for name, tensor in cast.state_dict().items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, exact.state_dict()[name].to(dtype))


def test_as_a_folder_of_transformers_it_is_the_same_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = load_openai(FIXTURE / "one")
    save_folder(model, tmp_path, None, {})
    back = load_folder(tmp_path)
    assert back.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name])
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path)(TOKENS).logits
        torch.testing.assert_close(model.head(model(TOKENS)), theirs, rtol=0, atol=1e-5)


# --- the published layout ----------------------------------------------------------------------


def shape_of(hparams: dict[str, int]) -> ModelConfig:
    return ModelConfig(
        vocab_size=hparams["n_vocab"],
        context_length=hparams["n_ctx"],
        num_layers=hparams["n_layer"],
        num_heads=hparams["n_head"],
        num_kv_heads=hparams["n_head"],
        hidden_size=hparams["n_embd"],
        intermediate_size=4 * hparams["n_embd"],
        positions="learned",
        norm="layernorm",
        mlp="gelu",
        bias=True,
        qkv_bias=True,
        qk_norm=False,
    )


@pytest.mark.parametrize(
    ("width", "heads", "layers", "count"),
    [
        (768, 12, 12, 148),
        pytest.param(1024, 16, 24, 292, marks=pytest.mark.slow),
        pytest.param(1280, 20, 36, 436, marks=pytest.mark.slow),
        pytest.param(1600, 25, 48, 580, marks=pytest.mark.slow),
    ],
)
def test_the_table_is_the_published_layout(width: int, heads: int, layers: int, count: int) -> None:
    hparams = {**SMALL, "n_embd": width, "n_head": heads, "n_layer": layers}
    expected = openai_shapes(hparams)
    assert len(expected) == count
    shape = shape_of(hparams)
    assert {place.foreign: place.shape for place in places(shape, OPENAI)} == expected
    names, faults = match(shape, expected, OPENAI)
    assert (names, faults) == ({name: name for name in expected}, [])


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_table_goes_both_ways_and_misses_nothing(qkv_bias: bool) -> None:
    ours, _ = pair("gpt2", num_layers=3)
    config = ModelConfig(**{**vars(ours.config), "qkv_bias": qkv_bias})
    state = {
        name: tensor
        for name, tensor in ours.state_dict().items()
        if name != "head.weight" and (qkv_bias or not name.endswith(("q_proj.bias", "k_proj.bias")))
    }
    if not qkv_bias:
        state = {name: value for name, value in state.items() if not name.endswith("v_proj.bias")}
    there = {place.foreign: (place, join(place, state)) for place in places(config, OPENAI)}
    assert len(there) == 4 + 12 * 3
    back: dict[str, torch.Tensor] = {}
    for place, tensor in there.values():
        assert tuple(tensor.shape) == place.shape
        back |= split(place, tensor)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def sparse_folder(folder: Path, hparams: dict[str, int]) -> dict[str, bytes]:
    """A whole checkpoint as a file with holes; the first bytes of each tensor."""
    heads = {
        name: np.array([place + 1, -place, place / 7], dtype=np.float32).tobytes()
        for place, name in enumerate(openai_shapes(hparams))
    }
    folder.mkdir(exist_ok=True)
    (folder / "hparams.json").write_text(json.dumps(hparams), encoding="utf-8")
    shapes = openai_shapes(hparams)
    write_sparse_bundle(
        folder / "model.ckpt", {name: (shapes[name], heads[name]) for name in heads}
    )
    return heads


def check_heads(model: torch.nn.Module, heads: dict[str, bytes]) -> None:
    """Each tensor begins with what was written, and is else nothing but zeros."""
    state = model.state_dict()
    for place in places(model.config, OPENAI):
        tensor = join(place, state).reshape(-1)
        expected = np.frombuffer(heads[place.foreign], dtype=np.float32)
        assert tensor[:3].tolist() == expected.tolist(), place.foreign
        assert tensor[3:].count_nonzero() == 0


def test_all_148_variables_of_a_narrow_124m(tmp_path: Path) -> None:
    hparams = {**SMALL, "n_embd": 24, "n_vocab": 503, "n_ctx": 64}
    heads = sparse_folder(tmp_path, hparams)
    assert len(heads) == 148
    check_heads(load_openai(tmp_path), heads)


MEASURE = """
import sys, time
from pathlib import Path
import torch
from yunque.weights.openai import load_openai
def memory(name):
    # Of this program alone; getrusage's peak is inherited from the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
# A small model first: what is imported and kept beside the weights is not counted.
load_openai(Path(sys.argv[2]))
before, began = memory("VmRSS"), time.process_time()
model = load_openai(Path(sys.argv[1]), dtype=getattr(torch, sys.argv[3]))
seconds = time.process_time() - began
size = sum(p.numel() * p.element_size() for p in model.parameters())
print(seconds, (memory("VmHWM") - before) / size, size)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_124m_within_the_bound_of_memory(tmp_path: Path) -> None:
    heads = sparse_folder(tmp_path, SMALL)
    check_heads(load_openai(tmp_path), heads)
    for dtype, size in (("float32", 497_759_232), ("bfloat16", 248_879_616)):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(tmp_path), str(FIXTURE / "one"), dtype],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, ratio, total = map(float, done.stdout.split())
        print(
            f"124M as {dtype}: {seconds:.2f} s of the processor, peak {ratio:.3f} times the model"
        )
        assert total == size
        assert ratio < 1.15


# --- faults ------------------------------------------------------------------------------------


def test_which_folders_are_openais(tmp_path: Path) -> None:
    folder = fixture(tmp_path)
    assert is_openai(folder)
    (folder / "hparams.json").unlink()
    assert is_openai(folder)
    with pytest.raises(InputError, match=r"hparams\.json: no such file.*n_vocab, n_ctx"):
        load_openai(folder)
    (folder / "config.json").write_text("{}")
    assert not is_openai(folder)
    assert not is_openai(tmp_path)
    assert not is_openai(tmp_path / "absent")
    with pytest.raises(InputError, match="absent: no such model folder"):
        load_openai(tmp_path / "absent")


@pytest.mark.parametrize(
    "named",
    ["other-355", "/home/somebody/gpt2/other-355", "C:\\\\gpt2\\\\other-355", "../../other-355"],
)
def test_the_prefix_is_the_one_that_checkpoint_names(named: str, tmp_path: Path) -> None:
    folder = fixture(tmp_path)
    for path in list(folder.glob("model.ckpt.*")):
        path.rename(folder / path.name.replace("model.ckpt", "other-355"))
    (folder / "model.ckpt.index").write_bytes(b"an older one")
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    expected = load_openai(FIXTURE / "one").state_dict()
    for name, tensor in load_openai(folder).state_dict().items():
        assert torch.equal(tensor, expected[name])
    (folder / "checkpoint").unlink()
    with pytest.raises(InputError, match=r"2 checkpoints \(model\.ckpt\.index, other-355\.index\)"):
        load_openai(folder)
    (folder / "model.ckpt.index").unlink()
    load_openai(folder)
    (folder / "other-355.index").unlink()
    with pytest.raises(InputError, match="no checkpoint, expected one"):
        load_openai(folder)


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (
            b'model_checkpoint_path: "gone"',
            r"it names 'gone', but gone\.index is not in the folder",
        ),
        (b"", r"expected a line like model_checkpoint_path"),
        (b'all_model_checkpoint_paths: "model.ckpt"', "expected a line like"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_broken_note_is_named(note: bytes, words: str, tmp_path: Path) -> None:
    folder = fixture(tmp_path)
    (folder / "checkpoint").write_bytes(note)
    with pytest.raises(InputError, match=rf"checkpoint: {words}"):
        load_openai(folder)


def test_misfits_come_together(tmp_path: Path) -> None:
    _, reference = pair("gpt2", vocab_size=11, context_length=6)
    write_openai(tmp_path, reference)
    tensors = openai_tensors(reference)
    del tensors["model/h1/ln_2/g"]
    tensors["model/h0/attn/c_attn/w"] = tensors["model/h0/attn/c_attn/w"][0]
    tensors["model/h0/attn/c_proj/w"] = tensors["model/h0/attn/c_proj/w"][:, 1:]
    tensors["model/wte/Adam"] = tensors["model/wte"]
    write_bundle(tmp_path / "model.ckpt", tensors)
    with pytest.raises(InputError) as caught:
        load_openai(tmp_path)
    text = str(caught.value)
    assert "missing (1): model/h1/ln_2/g." in text
    assert "left over (1): model/wte/Adam." in text
    assert "model/h0/attn/c_attn/w is [32, 96], expected [1, 32, 96]." in text
    assert "model/h0/attn/c_proj/w is [1, 31, 32], expected [1, 32, 32]." in text


def test_damage_of_a_tensor_is_named(tmp_path: Path) -> None:
    folder = fixture(tmp_path, "two")
    path = folder / "model.ckpt.data-00001-of-00002"
    content = bytearray(path.read_bytes())
    content[-1] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"00001-of-00002: damaged: the checksum of model/"):
        load_openai(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_ctx": None, "n_head": None}, r"1\. n_ctx is missing\.\n  2\. n_head is missing\."),
        ({"n_vocab": 11.0}, r"n_vocab is 11\.0, expected a whole number"),
        ({"n_vocab": True}, "n_vocab is True, expected a whole number"),
        ({"n_embd": 0}, "n_embd is 0, expected"),
        ({"n_embd": 10**15}, "n_embd is 1000000000000000, expected a whole number"),
        ({"n_layer": 29}, "n_layer is 29, but the checkpoint has 28 tensors"),
        ({"dropout": 0.1}, "dropout is unknown; expected are n_vocab"),
        ({"n_head": 3}, "num_heads"),
        ({"n_embd": 16}, r"wrong shape: model/wte is \[11, 8\], expected \[11, 16\]"),
        ({"n_layer": 1}, r"left over \(12\): model/h1"),
        ({"n_layer": 3}, r"missing \(12\): model/h2"),
    ],
)
def test_faults_of_hparams_are_named(change: dict[str, object], words: str, tmp_path: Path) -> None:
    folder = fixture(tmp_path)
    path = folder / "hparams.json"
    stated = json.loads(path.read_text()) | change
    kept = {key: value for key, value in stated.items() if value is not None}
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match=words):
        load_openai(folder)


def test_hparams_that_are_no_object(tmp_path: Path) -> None:
    folder = fixture(tmp_path)
    (folder / "hparams.json").write_text("[1]")
    with pytest.raises(InputError, match=r"hparams\.json: expected a JSON object, got list"):
        load_openai(folder)
    (folder / "hparams.json").write_text("{")
    with pytest.raises(InputError, match=r"hparams\.json:1:2: not JSON"):
        load_openai(folder)
