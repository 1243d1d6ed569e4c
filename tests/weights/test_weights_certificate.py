"""The comparison by itself: sentences, bounds, ties; sizes and shards; Q8_0 against gguf's own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_models import shapes

from yunque.config import ModelConfig
from yunque.errors import InputError
from yunque.model.decoder import Decoder
from yunque.weights.certificate import Prompt, Speaker, certify, id_fault
from yunque.weights.export import q8_0, settle_weights
from yunque.weights.families import places
from yunque.weights.folder import INDEX, load_folder, parse_size, shards, size_of, write_folder

LOGITS = torch.tensor([[0.0, 1.0, 2.0, -1.0], [3.0, 0.5, 0.0, 1.0]])


def speaker(**changes: Any) -> Speaker:
    """A speaker with four tokens that always says the same."""
    base = Speaker(
        name="one",
        ids=lambda prompt: None if prompt.messages else [1, 2],
        text=lambda ids: " ".join(map(str, ids)),
        logits=lambda ids: LOGITS,
        write=lambda ids, tokens: [2, 0],
        stops_after=lambda script: list(script).index(0) + 1,
        tensors=lambda: iter([("a", torch.ones(2, 2)), ("b", torch.zeros(2, 2))]),
        vocabulary={"x": 0, "y": 1, "z": 2, "w": 3},
        end_ids=frozenset({0}),
        pad_ids=frozenset(),
        context=8,
        shape={"vocab_size": 4},
    )
    return dataclasses.replace(base, **changes)


def failed(**changes: Any) -> dict[str, str]:
    """The failed checks of an export with these changes, and what they say."""
    prompts = [Prompt("hello"), Prompt(messages=(("user", "hello"),))]
    found = certify(speaker(), speaker(**changes), prompts)
    assert found.passed == (not found.failed)
    return {check.id: check.detail for check in found.failed}


def test_equal_speakers_differ_in_nothing() -> None:
    found = certify(speaker(), speaker(), [Prompt("hello")])
    assert found.passed
    assert found.figure("logits") == found.figure("kl") == found.figure("tensors") == 0.0
    assert found.to_json()["checks"][0] == {
        "id": "reader",
        "passed": True,
        "figure": 0.0,
        "bound": 0.0,
        "detail": "",
    }


def test_logits_and_kl_are_those_of_a_hand_computation() -> None:
    moved = LOGITS.clone()
    moved[1, 0] += 0.25
    found = certify(speaker(), speaker(logits=lambda ids: moved), [Prompt("hello")])
    p = [math.exp(x) for x in (3.0, 0.5, 0.0, 1.0)]
    q = [math.exp(x) for x in (3.25, 0.5, 0.0, 1.0)]
    kl = sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    assert found.figure("logits") == 0.25
    assert found.figure("kl") == pytest.approx(kl, rel=1e-12)
    bounds = {check.id: check.bound for check in found.checks}
    assert bounds["logits"] == pytest.approx(3e-5)  # 1e-5 of the largest logit
    assert bounds["kl"] == pytest.approx(4.5e-10, rel=0.01)  # and half of its square
    assert {check.id for check in found.failed} == {"logits", "kl"}


def test_not_a_number_is_a_difference() -> None:
    broken = LOGITS.clone()
    broken[0, 0] = torch.nan
    assert failed(logits=lambda ids: broken).keys() == {"logits", "kl"}
    assert (
        failed(logits=lambda ids: LOGITS[:, :3])["logits"] == "logits are [2, 3], expected [2, 4]"
    )


def test_tensors_are_named() -> None:
    one = torch.ones(2, 2)
    big = torch.tensor([[1.0, torch.inf], [1.0, 1.0]])
    cases: list[tuple[list[tuple[str, torch.Tensor]], dict[str, str]]] = [
        ([("a", one)], {"tensors": "b is missing"}),
        ([("a", one), ("b", 0 * one), ("c", one)], {"tensors": "c is left over"}),
        ([("a", one), ("b", one[:1])], {"tensors": "b is [1, 2], expected [2, 2]"}),
        ([("a", one), ("b", one)], {"tensors": "b differs by 1 (it holds a)"}),
        (
            [("a", big), ("b", 0 * one)],
            {
                "finite": "a holds 1 infinite numbers or none",
                "tensors": "a differs by inf",
            },
        ),
    ]
    for tensors, faults in cases:
        assert failed(tensors=lambda tensors=tensors: iter(tensors)) == faults


def test_tokens_ends_and_padding_are_named() -> None:
    assert failed(vocabulary={"x": 0, "y": 1, "z": 3, "v": 4}) == {
        "vocabulary": "the token 'z' has the id 3, expected 2; the token 'w' (id 3) is missing; "
        "a token too many: 'v' (id 4); and 1 more"
    }
    assert failed(pad_ids=frozenset({0, 3})) == {"pad": "the token 0 is both padding and an end"}
    assert failed(stops_after=len) == {
        "ends": "with the token 0 in third place it stops after 5, expected 3"
    }
    assert failed(ids=lambda prompt: [1, 2]) == {
        "chat_ids": "'user: hello': refused by the source only"
    }
    assert failed(text=lambda ids: "?") == {
        "texts": "the ids of 'hello' are read as '?', expected '1 2'"
    }


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ([8, 9], "the beginning token 'a' (7) is missing"),
        ([7, 7, 8, 9], "the beginning token 'a' (7) stands twice"),
        ([5, 7, 8, 9], "the beginning token '?' (5) was added"),
        ([7, 8], "the last token '?' (9) is missing"),
        ([7, 8, 9, 7], "the token 'a' (7) was added at the end"),
        ([7, 5, 9], "token 1 is '?' (5), expected '?' (8)"),
        ([7], "it has 1 tokens, expected 3"),
        ([], "it has 0 tokens, expected 3"),
    ],
)
def test_what_is_wrong_with_ids_is_said(theirs: list[int], words: str) -> None:
    assert id_fault([7, 8, 9], theirs, {7: "a"}) == words


def test_a_tie_is_no_difference() -> None:
    def tied(gap: float) -> Speaker:
        logits = torch.tensor([[0.0, 1.0 + gap, 1.0, -1.0]])
        return speaker(logits=lambda ids: logits.expand(len(ids), 4), write=lambda ids, n: [1, 1])

    def parts(gap: float) -> list[str]:
        source = tied(gap)
        export = dataclasses.replace(source, write=lambda ids, n: [2, 1])
        return [check.id for check in certify(source, export, [Prompt("hello")]).failed]

    assert parts(1e-6) == []
    assert parts(1e-3) == ["greedy"]

    def ended(ids: Sequence[int], tokens: int) -> list[int]:
        return [2]

    assert failed(write=ended) == {"greedy": "it ends after 1 new tokens, expected 2"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("500 MB", 500 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("64kb", 64_000),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "2", "GB", "-1GB", "2XB", "0B", "1iB", "1e3MB", "nan"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="size is"):
        parse_size(text)


TINY = dataclasses.replace(
    shapes(vocab_size=61, context_length=16)[0], tie_embeddings=ModelConfig().tie_embeddings
)


def test_shards_hold_no_more_than_they_may() -> None:
    content = places(TINY)
    for most in (1, 4000, 8000, 10**9, 0):
        groups = shards(content, 4, most)
        assert [place for group in groups for place in group] == content
        for group in groups:
            assert group
            assert not most or len(group) == 1 or sum(map(size_of, group)) * 4 <= most
    assert len(shards(content, 4, 1)) == len(content)
    assert len(shards(content, 4, 10**9)) == len(shards(content, 4, 0)) == 1


def test_sharded_folders_are_those_of_transformers(tmp_path: Path) -> None:
    import json

    from transformers import AutoModelForCausalLM

    model = Decoder(TINY, seed=3)
    (tmp_path / "ours").mkdir()
    write_folder(model, tmp_path / "ours", None, {"eos_token_id": 0}, "float32", 20_000)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    ours, again = (json.loads((tmp_path / name / INDEX).read_text()) for name in ("ours", "theirs"))
    assert ours["metadata"] == again["metadata"]
    assert ours["weight_map"].keys() == again["weight_map"].keys()
    assert sorted(set(ours["weight_map"].values())) == sorted(set(again["weight_map"].values()))
    for path in (tmp_path / "ours").glob("*.safetensors"):
        assert path.stat().st_size < 20_000 + 2000  # the numbers and the header
    before, after = model.state_dict(), load_folder(tmp_path / "ours").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_q8_0_is_that_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.Q8_0
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-6, 0.02, 1.0, 300.0):
        tensor = torch.randn(24, 64, generator=generator) * scale
        tensor[3] = 0.0
        tensor[4] = torch.arange(64) - 31.5  # halves
        there = gguf.quants.dequantize(gguf.quants.quantize(tensor.numpy(), kind), kind)
        assert torch.equal(q8_0(tensor), torch.from_numpy(there))
    assert q8_0(torch.ones(3, 31)).equal(torch.ones(3, 31))


def test_weights_settle_only_where_they_were_rounded() -> None:
    config = dataclasses.replace(TINY, intermediate_size=40)
    source, back = Decoder(config, seed=3), Decoder(config, seed=3)
    with torch.no_grad():
        for name, parameter in back.named_parameters():
            if parameter.dim() == 2:
                rounded = q8_0(parameter) if parameter.shape[1] % 32 == 0 else parameter.half()
                parameter.copy_(rounded)
            if name == "blocks.1.attention.q_proj.weight":
                parameter[0, 0] += 1e-3
    first = Decoder(config, seed=3).state_dict()
    settle_weights(source, back, "q8_0")
    theirs = back.state_dict()
    for name, tensor in source.state_dict().items():
        wrong = name == "blocks.1.attention.q_proj.weight"
        assert torch.equal(tensor, first[name] if wrong else theirs[name]), name
    assert not torch.equal(
        first["blocks.0.mlp.up_proj.weight"], theirs["blocks.0.mlp.up_proj.weight"]
    )
