"""Models that transformers computes, through our protocol, against transformers itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import MODELS, VOCAB, saved_foreign
from torch import Tensor, nn

from yunque import evaluate
from yunque.batch import MASKED
from yunque.config import GenerateConfig
from yunque.errors import InputError
from yunque.generate.decode import generate
from yunque.generate.sampling import next_token_probabilities
from yunque.train import loss as loss_room
from yunque.train.loss import cross_entropy_sum
from yunque.weights.transformers_model import (
    TransformersModel,
    beyond_decoder,
    code_keys,
    load_transformers,
)

NAMES = tuple(MODELS)
OWN_HEAD = {"gemma2", "cohere"}
NO_PADDED_CACHE = {"mamba", "rwkv"}
NO_CACHE = {"rwkv"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("foreign")


@cache
def opened(name: str, folders: Path) -> tuple[TransformersModel, Any]:
    """(through our protocol, as transformers has it)."""
    reference = saved_foreign(name, folders / name)
    return load_transformers(folders / name), reference


@pytest.fixture(params=NAMES)
def both(request: pytest.FixtureRequest, folders: Path) -> tuple[TransformersModel, Any]:
    return opened(request.param, folders)


def tokens_of(rows: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def expected_logits(reference: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return reference(input_ids=tokens).logits


def test_logits_equal_transformers(both: tuple[TransformersModel, Any]) -> None:
    model, reference = both
    tokens = tokens_of(3, 20)
    with torch.no_grad():
        ours = model.head(model(tokens))
    torch.testing.assert_close(ours, expected_logits(reference, tokens), rtol=0, atol=1e-5)
    assert model.config.vocab_size == VOCAB
    # The head of soft-capped and scaled logits is more than a matrix; no other one is.
    assert isinstance(model.head, nn.Linear) == (model.config.family not in OWN_HEAD)


def test_the_way_of_each_cache(folders: Path) -> None:
    for name in NAMES:
        model, _ = opened(name, folders)
        generate(model, [[1, 2], [3]], GenerateConfig(max_new_tokens=1), [])
        assert model._cache_works == (name not in NO_CACHE), name
        if model._cache_works:
            assert model._padded_cache_works == (name not in NO_PADDED_CACHE), name


def test_cached_reading_equals_reading_at_once(both: tuple[TransformersModel, Any]) -> None:
    model, reference = both
    tokens, rows = tokens_of(2, 18), torch.tensor([1, 1, 0])
    with torch.no_grad():
        cache = model.new_cache(2, 18)
        parts = [model.head(model(tokens[:, :10], cache))[rows]]
        cache.reorder(rows)
        parts += [model.head(model(tokens[rows, i : i + 1], cache)) for i in range(10, 18)]
    expected = expected_logits(reference, tokens)[rows]
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=0, atol=1e-5)
    assert cache.used == 18


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_of_other_lengths_are_written_as_if_alone(
    both: tuple[TransformersModel, Any], use_cache: bool
) -> None:
    model, _ = both
    settings = GenerateConfig(max_new_tokens=8, temperature=0.0)
    prompts = [tokens_of(1, length, seed=length)[0].tolist() for length in (3, 11, 7, 1)]
    together = generate(model, prompts, settings, [], use_cache=use_cache)
    alone = [generate(model, [prompt], settings, []).token_ids[0] for prompt in prompts]
    assert together.token_ids == alone


def test_greedy_equals_transformers(both: tuple[TransformersModel, Any]) -> None:
    model, reference = both
    prompts = tokens_of(2, 6, seed=3)
    expected = reference.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=None,
        pad_token_id=0,
        # transformers 5.23 writes other tokens with RWKV's state than without it.
        use_cache=model.config.family != "rwkv",
    )[:, 6:]
    ours = generate(model, prompts.tolist(), GenerateConfig(max_new_tokens=12, temperature=0.0), [])
    assert ours.token_ids == expected.tolist()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "rwkv"])
def test_beams_equal_transformers(name: str, folders: Path) -> None:
    # RWKV's state goes wrong in transformers; ours equals the reading at once, see above.
    model, reference = opened(name, folders)
    prompts = tokens_of(2, 6, seed=4)
    expected = reference.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        num_beams=3,
        num_return_sequences=2,
        early_stopping=False,
        max_new_tokens=8,
        eos_token_id=None,
        pad_token_id=0,
    )[:, 6:]
    settings = GenerateConfig(max_new_tokens=8, beams=3, samples=2)
    assert generate(model, prompts.tolist(), settings, []).token_ids == expected.tolist()


def test_samples_are_drawn_from_the_distribution_of_transformers(
    both: tuple[TransformersModel, Any],
) -> None:
    model, reference = both
    tokens = tokens_of(1, 7, seed=5)
    settings = GenerateConfig(max_new_tokens=1, temperature=1.3, top_k=20, top_p=0.9, samples=400)
    expected = next_token_probabilities(
        expected_logits(reference, tokens)[:, -1], settings, tokens
    )[0]
    drawn = [row[0] for row in generate(model, tokens.tolist(), settings, []).token_ids]
    got = torch.bincount(torch.tensor(drawn), minlength=VOCAB) / len(drawn)
    assert not got[expected == 0].any()
    # Each share lies within 5 standard errors of 400 draws.
    bound = 5 * (expected * (1 - expected) / len(drawn)).sqrt() + 1e-6
    assert ((got - expected).abs() <= bound).all()


def test_the_window_slides_as_without_a_cache(folders: Path) -> None:
    for name in ("gemma2", "rwkv"):
        model, _ = opened(name, folders)
        prompts = [tokens_of(1, length, seed=length)[0].tolist() for length in (20, 26, 5)]
        settings = GenerateConfig(max_new_tokens=16, temperature=0.0)
        cached = generate(model, prompts, settings, [])
        assert cached.window_slid
        assert cached.token_ids == generate(model, prompts, settings, [], use_cache=False).token_ids


def test_evaluate_and_explain_equal_direct_computation(
    both: tuple[TransformersModel, Any],
) -> None:
    model, reference = both
    ids = tokens_of(1, 40, seed=6)[0]
    starts = (0, 16, 32)
    logits = torch.cat([expected_logits(reference, ids[None, s : s + 16])[0] for s in starts])
    log_probabilities = logits[:39].log_softmax(-1)
    expected = -log_probabilities.gather(1, ids[1:, None])[:, 0]
    ours = evaluate.token_losses(model, ids, 16)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    views = evaluate.explain(model, ids.tolist(), str, 16, 3)[1:]
    assert [view.loss for view in views] == pytest.approx(expected.tolist(), abs=1e-5)
    best = log_probabilities.topk(3).indices.tolist()
    assert [[other for other, _, _ in view.alternatives] for view in views] == best


def segments_of() -> tuple[Tensor, Tensor]:
    """(segments, positions), (2, 20): documents of many lengths, one of a single token."""
    lengths = [[5, 1, 9, 3, 2], [13, 4, 3]]
    segments = [[n for n, size in enumerate(row) for _ in range(size)] for row in lengths]
    positions = [[place for size in row for place in range(size)] for row in lengths]
    return torch.tensor(segments), torch.tensor(positions)


def test_segments_equal_separate_documents(both: tuple[TransformersModel, Any]) -> None:
    model, reference = both
    tokens = tokens_of(2, 20, seed=7)
    segments, positions = segments_of()
    with torch.no_grad():
        ours = model.head(model(tokens, positions=positions, segments=segments))
    for row in range(2):
        for number in range(int(segments[row].max()) + 1):
            own = segments[row] == number
            expected = expected_logits(reference, tokens[row, own][None])[0]
            # A share of the largest logit: sums of another length are taken in another order.
            bound = 1e-5 * max(1.0, expected.abs().max().item())
            torch.testing.assert_close(ours[row, own], expected, rtol=0, atol=bound)


@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients_equal_transformers(
    both: tuple[TransformersModel, Any], packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, reference = both
    monkeypatch.setattr(loss_room, "HELD_BYTES", 12 * 7 * VOCAB)  # several chunks
    tokens = tokens_of(2, 20, seed=8)
    segments, positions = segments_of()
    if not packed:
        segments = torch.zeros_like(segments)
    targets = torch.full_like(tokens, MASKED)
    follows = segments[:, 1:] == segments[:, :-1]
    targets[:, :-1] = tokens[:, 1:].masked_fill(~follows, MASKED)
    targets[0, 2] = MASKED

    layout = {"positions": positions, "segments": segments} if packed else {}
    model.zero_grad()
    total = cross_entropy_sum(model(tokens, **layout), model.head, targets)
    total.backward()

    reference.zero_grad()
    expected = torch.zeros(())
    for row in range(2):
        for number in range(int(segments[row].max()) + 1):
            own = segments[row] == number
            labels = targets[row, own].roll(1)[None]  # transformers shifts them itself
            count = int((labels[:, 1:] != MASKED).sum())
            if count:
                expected = (
                    expected
                    + count
                    * reference(
                        input_ids=tokens[row, own][None], labels=labels, use_cache=False
                    ).loss
                )
    expected.backward()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)
    theirs = dict(reference.named_parameters())
    for name, parameter in model.causal.named_parameters():
        got, wanted = parameter.grad, theirs[name].grad
        if wanted is None:
            assert got is None or not got.any(), name
            continue
        bound = 1e-5 * max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=bound, msg=lambda m, n=name: n + m)
    model.zero_grad()


def test_parameters_are_counted_once(folders: Path) -> None:
    model, reference = opened("gpt_neox", folders)
    counts = model.parameter_counts()
    assert counts["token_embedding"] == counts["head"] == VOCAB * 32
    assert counts["total"] == reference.num_parameters() == counts["layers"] + 2 * VOCAB * 32
    tied, reference = opened("bloom", folders)
    assert "head" not in tied.parameter_counts()
    assert tied.parameter_counts()["total"] == reference.num_parameters()


def test_a_model_that_sees_ahead_is_refused(tmp_path: Path) -> None:
    import transformers

    model = transformers.BertLMHeadModel(
        transformers.BertConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        )
    )
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"BertLMHeadModel.*tokens see later ones"):
        load_transformers(tmp_path)


def changed(folder: Path, source: Path, **keys: Any) -> Path:
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **keys}), encoding="utf-8")
    return folder


def test_planted_faults_are_named(folders: Path, tmp_path: Path) -> None:
    opened("gpt_neox", folders)
    source = folders / "gpt_neox"
    for keys, words in (
        (
            {"auto_map": {"AutoModelForCausalLM": "evil.Model"}},
            r"config\.json: auto_map: .*program",
        ),
        (
            {"text_config": {"auto_map": {}}, "attn_implementation": "somebody/kernel"},
            r"text_config\.auto_map, attn_implementation: ",
        ),
        ({"quantization_config": {"bits": 4}}, r"config\.json: quantization_config: .*quantised"),
        ({"model_type": "no_such_type"}, r"'no_such_type'.*transformers cannot open it"),
        ({"num_hidden_layers": 3}, r"1\. gpt_neox\.layers\.2\.\S+ is missing\.\n  2\. gpt_neox"),
        ({"num_hidden_layers": 1}, r"gpt_neox\.layers\.1\.attention\.dense\.bias is left over"),
        ({"vocab_size": 62}, r"lm_head\.weight has the shape \(61, 32\), expected \(62, 32\)"),
    ):
        folder = changed(tmp_path / str(len(list(tmp_path.iterdir()))), source, **keys)
        with pytest.raises(InputError, match=words):
            load_transformers(folder)


def test_pickles_and_damage_are_refused(folders: Path, tmp_path: Path) -> None:
    opened("gpt_neox", folders)
    pickled = changed(tmp_path / "pickled", folders / "gpt_neox")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, a pickle"):
        load_transformers(pickled)
    cut = changed(tmp_path / "cut", folders / "gpt_neox")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[:-8])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        load_transformers(cut)


def test_shards_equal_one_file(tmp_path: Path, folders: Path) -> None:
    model, reference = opened("mixtral", folders)
    reference.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    again = load_transformers(tmp_path).causal.state_dict()
    for name, value in model.causal.state_dict().items():
        assert torch.equal(again[name], value), name


def test_what_is_for_the_decoder() -> None:
    assert beyond_decoder({"model_type": "llama"}) == []  # its faults are named by its own reader
    assert beyond_decoder({"model_type": "opt"}) == ["model_type is 'opt'."]
    assert beyond_decoder({"model_type": "gpt2", "activation_function": "relu"})
    assert beyond_decoder({"model_type": "opt", "yunque": {}}) == []


def test_keys_of_code_are_found_wherever_they_are() -> None:
    nested = {"a": {"auto_map": 1, "b": {"experts_implementation": "x/y"}}, "custom_pipelines": {}}
    assert code_keys(nested) == ["a.auto_map", "a.b.experts_implementation", "custom_pipelines"]
    assert code_keys({"attn_implementation": "sdpa", "name": "a/b"}) == []
