"""MODEL that the Decoder does not hold, from a folder or the Hub's cache, to the last verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from foreign_models import MODELS, VOCAB, saved_foreign
from huggingface_hub import constants

from yunque.assemble import models
from yunque.assemble.models import load, shape_at
from yunque.cli import main
from yunque.data.tokenizer import Tokenizer, train_tokenizer
from yunque.errors import InputError

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,;:"
GREEDY = {"temperature": 0.0, "max_new_tokens": 6}


def saved(folder: Path, name: str = "gpt_neox") -> Tokenizer:
    """A random model of transformers with a tokenizer of its size."""
    tokenizer = train_tokenizer("char", lambda: iter([ALPHABET]), "<|endoftext|>")
    assert tokenizer.vocab_size <= VOCAB
    saved_foreign(name, folder)
    tokenizer.save(folder)
    return tokenizer


def test_the_path_is_told_and_the_numbers_are_those_of_transformers(tmp_path: Path) -> None:
    import transformers

    tokenizer = saved(tmp_path)
    model = load(tmp_path, device="cpu")
    assert model.by_transformers
    told = f"context 24, {tokenizer.vocab_size} tokens, computed by transformers"
    assert repr(model).endswith(f"gpt_neox, 18,976 parameters, {told}")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([tokenizer.encode("el yunque")])
    expected = reference.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=6,
        eos_token_id=sorted(model.end_ids),
        pad_token_id=0,
    )[0, ids.shape[1] :].tolist()
    if expected[-1] in model.end_ids:
        expected.pop()
    assert model.generate("el yunque", **GREEDY).generation.token_ids == [expected]
    with torch.no_grad():
        log_probabilities = reference(ids).logits[0].log_softmax(-1)
    losses = -log_probabilities[:-1].gather(1, ids[0, 1:, None])[:, 0]
    views = model.explain("el yunque")
    assert [view.loss for view in views[1:]] == pytest.approx(losses.tolist(), abs=1e-5)
    (tmp_path / "a.txt").write_text("el yunque", encoding="utf-8")
    score = model.evaluate(str(tmp_path / "a.txt"))
    assert score.tokens == len(losses)
    assert score.loss == pytest.approx(losses.mean().item(), abs=1e-5)


def test_the_commands_say_who_computes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, "bloom")
    (tmp_path / "a.txt").write_text("el yunque", encoding="utf-8")
    line = (
        "Yunque does not compute models of the kind bloom itself: transformers does, more slowly."
    )
    for verb in (
        ["generate", str(tmp_path), "--prompt", "el", "--max-new-tokens", "2"],
        ["evaluate", str(tmp_path), str(tmp_path / "a.txt")],
        ["explain", str(tmp_path), "--text", "el yunque"],
    ):
        assert main([*verb, "--device", "cpu", "--lang", "en"]) == 0
        captured = capsys.readouterr()
        assert captured.err.count(line) == 1
        assert line not in captured.out
        assert main([*verb, "--device", "cpu", "--lang", "es", "--json"]) == 0
        captured = capsys.readouterr()
        assert "se encarga transformers" in captured.err
        json.loads(captured.out)
        assert main([*verb, "--device", "cpu", "--quiet"]) == 0
        assert "transformers" not in capsys.readouterr().err


def test_a_hub_id_opens_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--taller--yunque"
    saved(tmp_path / "made")
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted((tmp_path / "made").iterdir())):
        file.rename(repository / "blobs" / str(number))
        (folder / file.name).symlink_to(Path("../../blobs") / str(number))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    by_name = load("taller/yunque", device="cpu").generate("el", **GREEDY)
    by_path = load(folder, device="cpu").generate("el", **GREEDY)
    assert by_name.generation.token_ids == by_path.generation.token_ids
    with pytest.raises(InputError, match=r"taller/otro: it could not be fetched"):
        load("taller/otro", device="cpu")


def test_code_is_refused_whoever_would_compute(tmp_path: Path) -> None:
    for family in ("gpt_neox", "llama"):
        (tmp_path / "config.json").write_text(
            json.dumps({"model_type": family, "auto_map": {"AutoModel": "x.Y"}}), encoding="utf-8"
        )
        with pytest.raises(InputError, match=r"config\.json: auto_map: .*runs none"):
            load(tmp_path, device="cpu")


def test_what_is_no_model_that_writes_is_said_in_words(tmp_path: Path) -> None:
    import transformers

    shape = transformers.T5Config(
        d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=11
    )
    transformers.T5ForConditionalGeneration(shape).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"model_type is 't5': .*Give a causal language model"):
        load(tmp_path, device="cpu")
    weights = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match=r"expected a folder.* Give the folder that it lies in"):
        load(weights, device="cpu")


def test_a_refusal_of_gguf_names_the_source_and_no_file_of_ours(tmp_path: Path) -> None:
    import transformers

    from yunque.assemble.convert import convert

    tokenizer = train_tokenizer("bpe-gpt2:270", lambda: iter(["la la la"]), "<|endoftext|>")
    shape = transformers.MistralConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32, sliding_window=8,
    )  # fmt: skip
    source = tmp_path / "source"
    transformers.MistralForCausalLM(shape).save_pretrained(source)
    tokenizer.save(source)
    with pytest.raises(InputError, match="sliding_window is 8") as caught:
        convert(source, tmp_path / "out", to="gguf")
    assert str(caught.value).startswith(f"{source}: llama.cpp cannot hold this model")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_shape_is_read_without_opening_the_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_foreign(name, tmp_path)
    expected = models.open_model(tmp_path).config

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(models, "open_model", opened)
    assert shape_at(tmp_path) == expected
    assert expected.vocab_size == VOCAB
