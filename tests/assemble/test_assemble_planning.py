"""A forecast from a recipe: the story's job, doubts, changes, what past runs teach."""

from __future__ import annotations

import dataclasses
import json
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from yunque import cli
from yunque.assemble.planning import (
    Planned,
    forecast_run,
    learn,
    machine_key,
    plan,
    subword_tokens_a_byte,
    told,
)
from yunque.assemble.runs import pretrain
from yunque.config import MachineConfig, Recipe
from yunque.errors import InputError
from yunque.forecast import store
from yunque.forecast.history import MEMORY_SPREAD, SPARE, Correction, Outcome, correction
from yunque.forecast.machine import Machine, Rates
from yunque.forecast.memory import library_bytes
from yunque.forecast.plan import plan_run, ways
from yunque.forecast.work import Workload
from yunque.reports.report import report
from yunque.runlog import read
from yunque.runtime import start

CARD = "GTX 1050 Ti 4GB"
HERE = Machine(
    name="a CPU",
    kind="cpu",
    memory=8 * 10**9,
    rates={"fp32": Rates(1e-11, 1e-10, 2e-11, 1e-10, 1e-10, 5e-10, 1e-5, 1e-4)},
    base_memory=360_000_000,
    watts=30.0,
    measured=True,
    threads=1,
)
ON_CPU = MachineConfig(device="cpu", precision="fp32", threads=1)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own in which this machine is measured already."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(store, "folder", lambda: folder)
    store.keep_machine(machine_key(ON_CPU), HERE)
    return folder


def planned(**options: Any) -> Planned:
    """A forecast for the machine that is known."""
    return plan(Recipe(machine=ON_CPU), **options)


def ids(made: Planned) -> list[str]:
    return [doubt.key.removeprefix("plan.doubt_") for doubt in made.doubts]


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """53 examples of about 390 tokens, as by 0.28 tokens a byte."""
    path = tmp_path / "examples.jsonl"
    row = json.dumps({"instruction": "q" * 393, "output": "a" * 1000})
    path.write_text("".join(f"{row}\n" for _ in range(53)))
    return path


def test_the_storys_job_from_its_recipe(story: Path, tmp_path: Path) -> None:
    # Phi-2, as its config.json states it.
    base = tmp_path / "phi-2"
    base.mkdir()
    shape = {
        "model_type": "phi",
        "architectures": ["PhiForCausalLM"],
        "num_hidden_layers": 32,
        "hidden_size": 2560,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 10_240,
        "vocab_size": 51_200,
        "max_position_embeddings": 2048,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.4,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "qk_layernorm": False,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.0,
        "attention_dropout": 0.0,
    }
    (base / "config.json").write_text(json.dumps(shape))
    made = plan(
        base=base,
        sources=[str(story)],
        method="qlora",
        rank=8,
        batch_size=16,
        micro_batch_size=1,
        epochs=250.0,
        val=0.0,
        packing="off",
        on=CARD,
    )
    assert made.data.documents == 53
    assert made.plan.job.steps == 829  # 250 x 53 / 16
    hours = made.plan.seconds
    assert hours.low < 32.56 * 3600 < hours.high
    # Its peak was that of the allocator, which does not count the context of the card.
    context, peak = made.plan.machine.base_memory, made.plan.moments["training"]
    assert peak.low - context < 3087e6 < peak.high - context
    assert abs(peak.value - context - 3087e6) < 0.15 * 3087e6
    assert ids(made)[:2] == ["memorise", "no_validation"]
    english, spanish = "\n".join(made.lines("en")), "\n".join(made.lines("es"))
    assert "250 passes over 53 examples: that has been seen to learn the examples" in english
    assert "Nothing is held out" in english
    assert "250 pasadas sobre 53 ejemplos: se ha visto que así se aprenden" in spanish
    assert "guesses" in english


def test_a_plan_imports_no_torch_and_is_there_at_once(known: Path) -> None:
    code = (
        "import pathlib, sys; from yunque.forecast import store; "
        f"store.folder = lambda: pathlib.Path({str(known)!r}); from yunque.cli import main; "
        "status = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    flags = ["plan", "--preset", "gpt2-124m", "--steps", "100", "--device", "cpu"]
    flags += ["--precision", "fp32", "--threads", "1"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], check=True, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Pretraining of 124,439,808 parameters" in done.stdout
    # The processor's own time: the clock also counts what else the machine does.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


def test_the_error_after_five_runs_is_smaller_than_at_first(known: Path) -> None:
    drawn = random.Random(3)
    errors: list[float] = []
    memory_errors: list[float] = []
    for _ in range(6):
        made = planned(num_layers=2, hidden_size=64, num_heads=2, batch_size=4, steps=100).plan
        alone = plan_run(made.job, HERE, Correction())
        # This machine is 1.4 times as slow as its rates say, give or take.
        seconds = 1.4 * alone.update_seconds.value * drawn.uniform(0.95, 1.05)
        peak = HERE.base_memory + 1.1 * (alone.peak.value - HERE.base_memory)
        errors.append(abs(made.update_seconds.value / seconds - 1))
        memory_errors.append(abs(made.peak.value / peak - 1))
        rows = [
            {
                "event": "step",
                "tokens_seen": step * 1024,
                "tokens_per_second": 1024 / seconds,
                "memory_bytes": peak,
            }
            for step in range(1, 11)
        ]
        learn(made, rows)
    assert made.outcomes == 5
    assert errors[0] == pytest.approx(1 - 1 / 1.4, abs=0.05)
    assert errors[5] < 0.5 * errors[0]
    assert memory_errors[5] < 0.5 * memory_errors[0]


@pytest.mark.usefixtures("known")
def test_changes_say_what_they_give_and_cost() -> None:
    made = planned(batch_size=16, steps=1000, num_layers=4, hidden_size=256, num_heads=4).plan
    names = [change.id for change in made.changes]
    assert names == [
        "micro_batch",
        "checkpointing",
        "length",
        "optimizer_16",
        "in_backward",
    ]  # what bitsandbytes itself takes is more than 8-bit averages spare here
    for change in made.changes:
        libraries = library_bytes(change.job)
        with_them = dataclasses.replace(HERE, base_memory=HERE.base_memory + libraries)
        alone = plan_run(change.job, with_them, Correction())
        assert change.memory == round(alone.peak.value)
        assert change.gain == round(made.peak.value - alone.peak.value) > 0
        assert change.times == pytest.approx(alone.seconds.value / made.seconds.value)
    checkpointing = made.changes[1]
    assert 1.1 < checkpointing.times < 1.5
    text = "\n".join(planned(batch_size=16, steps=1000).lines("es"))
    assert "--gradient-checkpointing" in text
    assert " menos (" in text


@pytest.mark.usefixtures("known")
def test_fine_tuning_may_be_changed_in_every_way_of_the_list() -> None:
    asked = {"batch_size": 4, "max_length": 256, "steps": 100}
    full = planned(base="phi-2.8b", method="full", **asked).plan
    tuned = planned(base="phi-2.8b", method="qlora", **asked).plan
    # Smaller passes would hold 11 GB of gradients from one to the next: no gain. Checkpointing
    # spares what the heap would not find again; all the gradients are more than activations.
    names = ["checkpointing", "length", "optimizer_16", "in_backward", "optimizer", "lora", "qlora"]
    assert [change.id for change in full.changes] == names
    large = plan(base="phi-2.8b", method="full", on="h200", **asked).plan
    by_name = {change.id: change for change in large.changes}
    # Two moments and the gradients of 2.78 billion parameters go; then of each two bytes 1.5.
    assert by_name["lora"].gain > 12 * 2.7e9
    assert by_name["qlora"].gain > by_name["lora"].gain + 1.4 * 2.5e9
    assert [change.id for change in tuned.changes][-2:] == ["optimizer", "quantize_head"]
    card = plan(base="phi-2.8b", method="qlora", on=CARD, **asked).plan
    assert "cpu_embeddings" in [change.id for change in card.changes]


@pytest.mark.usefixtures("known")
def test_everything_stands_in_an_interval_and_in_both_languages() -> None:
    made = planned(steps=500, batch_size=8)
    value = made.to_json()
    for name in ("memory_bytes", "seconds", "update_seconds", "kilowatt_hours"):
        assert value[name]["low"] < value[name]["value"] < value[name]["high"]
    assert list(value["memory_moments"]) == ["training", "evaluation", "generation", "saving"]
    for moment in value["memory_moments"].values():
        assert sum(moment["parts"].values()) == pytest.approx(moment["value"])
        assert moment["low"] < moment["value"] < moment["high"]
    assert value["seconds"]["value"] * 30 / 3.6e6 == pytest.approx(value["kilowatt_hours"]["value"])
    lines = {lang: made.lines(lang) for lang in ("en", "es")}
    assert len(lines["en"]) == len(lines["es"])
    assert any(line.startswith("The whole batch of 8 rows fits at once.") for line in lines["en"])
    assert any("Electricity: about" in line for line in lines["en"])
    json.dumps(value)


@pytest.mark.usefixtures("known")
def test_the_largest_that_fits_is_the_largest() -> None:
    sizes = {"num_layers": 8, "hidden_size": 512, "num_heads": 8, "context_length": 1024}
    small = dataclasses.replace(HERE, memory=3 * 10**9)
    store.keep_machine(machine_key(ON_CPU), small)
    made = planned(batch_size=64, steps=10, **sizes).plan
    assert not made.fits
    assert 0 < made.largest_micro_batch < 64
    assert planned(
        batch_size=64, micro_batch_size=made.largest_micro_batch, steps=10, **sizes
    ).plan.fits
    above = 2 * made.largest_micro_batch
    assert not planned(batch_size=64, micro_batch_size=above, steps=10, **sizes).plan.fits


@pytest.mark.usefixtures("known")
def test_memory_lets_the_plan_choose_the_micro_batch() -> None:
    sizes = {"num_layers": 8, "hidden_size": 512, "num_heads": 8, "context_length": 1024}
    made = planned(batch_size=16, steps=10, memory="2GB", **sizes)
    assert made.chosen is not None
    assert made.chosen.fits
    assert made.plan.job.train.batch_size == 16
    assert made.plan.job.micro_batch < 16
    assert made.plan.memory.total <= 2 * 10**9
    assert made.lines("en")[0].startswith("Memory: ")


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("options", "doubt"),
    [
        ({"learning_rate": 0.1}, "rate_high"),
        ({"learning_rate": 1e-6}, "rate_low"),
        ({"val": 0.0}, "no_validation"),
        ({"batch_size": 1, "context_length": 64}, "batch_small"),
        ({"tokenizer": "bpe:8000"}, "vocabulary_large"),
        ({"vocab_size": 50257}, "vocabulary_unused"),
        ({"steps": 200, "batch_size": 16, "context_length": 128}, "passes_many"),
        ({"steps": 5000, "batch_size": 16, "context_length": 128}, "passes_worthless"),
        ({"warmup_steps": 15}, "warmup_long"),
    ],
)
def test_a_second_opinion(options: dict[str, Any], doubt: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a few words " * 4000)  # 48,000 characters
    usual = {"tokenizer": "char", "steps": 20, "batch_size": 16, "context_length": 128}
    usual |= {"warmup_steps": 2, "num_layers": 2, "hidden_size": 64, "num_heads": 2}
    assert ids(planned(sources=[str(text)], **usual)) == []
    assert ids(planned(sources=[str(text)], **{**usual, **options})) == [doubt]


@pytest.mark.usefixtures("known")
def test_rows_longer_than_any_document(story: Path) -> None:
    made = plan(
        base="gpt2-124m", sources=[str(story)], method="lora", max_length=1024, on=CARD, epochs=3.0
    )
    assert "context_long" in ids(made)


@pytest.mark.usefixtures("known")
def test_what_repeated_text_is_worth(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a few words " * 10_000)
    made = planned(
        sources=[str(text)], tokenizer="char", context_length=128, batch_size=16, steps=400
    )
    said = "\n".join(made.lines("en"))
    assert "By Muennighoff et al. 2023 these" in said
    assert "That law was measured for 7 million" in said
    assert "Según Muennighoff et al. 2023" in "\n".join(made.lines("es"))


def test_a_run_says_its_forecast_compares_it_and_learns_from_it(
    known: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("el yunque suena y el martillo canta\n" * 200)
    small = {"tokenizer": "char", "context_length": 16, "num_layers": 2, "num_heads": 2}
    small |= {"hidden_size": 16, "batch_size": 4, "steps": 8, "eval_every": 4, "sample_tokens": 0}
    small |= {"warmup_steps": 2, "early_stopping": False}
    pretrain([str(text)], out=str(tmp_path / "run"), recipe=Recipe(machine=ON_CPU), **small)
    rows = [{"event": row.event, **row.values} for row in read(tmp_path / "run" / "log.jsonl")]
    forecast = next(row for row in rows if row["event"] == "start")["forecast"]
    assert forecast["seconds"] is not None
    assert forecast["update_seconds"] > 0
    assert forecast["low_seconds"] < forecast["seconds"] < forecast["high_seconds"]
    [outcome] = store.outcomes()
    assert (outcome.machine, outcome.method) == (HERE.name, "pretrain")
    assert 0 < outcome.seconds < 5
    found = report(tmp_path / "run", "en").json["findings"]
    assert "forecast" in [finding["id"] for finding in found]
    assert planned(**small).plan.outcomes == 1


def test_a_machine_that_was_not_measured_is_forecast_without_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "folder", lambda: tmp_path)
    recipe = Recipe()
    job = Workload(recipe.model.resolved(96), recipe.train, recipe.optim)
    made = forecast_run(job, ON_CPU, start(ON_CPU), 10**8)
    assert told(made)["seconds"] is None
    assert told(made)["memory_bytes"] > 10**8


@pytest.mark.usefixtures("known")
def test_sources_are_those_that_a_run_would_read(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("one", "two"):
        (texts / f"{name}.txt").write_text("a few words " * 4000)
    (texts / "README").write_text("not meant as text " * 4000)

    def tokens(source: str) -> int:
        return planned(sources=[source], tokenizer="byte", val=0.0, steps=10).data.train_tokens

    assert tokens(str(texts / "one.txt")) == 48_000
    assert tokens(str(texts / "*.txt")) == tokens(str(texts)) == 96_000
    with pytest.raises(InputError, match=r"three\.txt"):
        tokens(str(texts / "three.txt"))
    unknown = planned(sources=["hf:owner/name"], steps=10)
    assert unknown.data.train_tokens == 0
    assert any("is not known, nor how often" in line for line in unknown.lines("en"))


@pytest.mark.usefixtures("known")
def test_what_only_probably_does_not_fit_is_not_denied() -> None:
    peak = planned(steps=10).plan.peak
    said = {}
    for name, memory in [
        ("fits", SPARE * peak.high + 1),
        ("tight", peak.value + 1),
        ("unlikely", peak.low + 1),
        ("too_large", peak.low - 2),
    ]:
        store.keep_machine(machine_key(ON_CPU), dataclasses.replace(HERE, memory=round(memory)))
        said[name] = planned(steps=10).lines("en")[2]
    begins = (
        "It fits: ",
        "It may just fit: ",
        "It probably does not fit into ",
        "It does not fit into ",
    )
    assert [line[: len(begin)] for line, begin in zip(said.values(), begins, strict=True)] == [
        *begins
    ]


def test_steady_outcomes_leave_the_memory_as_uncertain_as_it_was() -> None:
    # 20 runs of one shape tell nothing of what the heap takes of another.
    same = [Outcome("here", "lora", 1.0, 1.0, 1e9, 1.1e9)] * 20
    past = correction(same, "here", "lora", 1.0, 1e9, 0.12)
    assert past.memory_spread == MEMORY_SPREAD
    assert past.time_spread < 0.12


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("options", "sooner"),
    [
        ({}, True),
        ({"val": 0.0}, False),
        ({"early_stopping": False}, False),
        # Evaluations at steps 0 to 600: the sixth without improvement is the last.
        ({"patience": 6}, False),
    ],
)
def test_early_stopping_is_promised_where_the_loop_stops(
    options: dict[str, Any], sooner: bool
) -> None:
    made = planned(steps=600, eval_every=100, **options)
    assert ("Early stopping" in "\n".join(made.lines("en"))) is sooner
    assert ("parada temprana" in "\n".join(made.lines("es"))) is sooner


LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """The configuration of a model of 8 billion parameters."""
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text(json.dumps(LLAMA_8B))
    return tmp_path / "llama"


@pytest.mark.usefixtures("known")
def test_what_does_not_fit_is_said_of_the_memory_that_was_asked_for(
    llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 96 GB of weights and optimizer: too many for 40 GB, not for the card's 141.
    made = plan(base=llama, method="full", memory="40GB", on="h200")
    assert made.chosen is not None
    assert not made.chosen.fits
    assert made.plan.budget == 40 * 10**9
    assert made.plan.job.row_length == 1024  # nothing is cut in vain
    english, spanish = "\n".join(made.lines("en")), "\n".join(made.lines("es"))
    assert "It does not fit into 40.0 GB: about 162.5 GB" in english
    assert "No cabe en 40,0 GB: unos 162,5 GB" in spanish
    assert "may just fit" not in english
    words = ["plan", "--base", str(llama), "--method", "full", "--on", "h200", "--json"]
    assert cli.main([*words, "--memory", "40GB"]) == 71
    value = json.loads(capsys.readouterr().out)
    assert (value["fits"], value["fit"]["fits"], value["budget_bytes"]) == (
        False,
        False,
        4 * 10**10,
    )
    assert cli.main([*words[:3], "--method", "qlora", "--on", "h200", "--memory", "40GB"]) == 0
    # More than the card has is not there either.
    assert plan(base=llama, memory="500GB", on=CARD).plan.budget == 4 * 2**30


@pytest.mark.usefixtures("known")
def test_what_makes_it_fit_is_named(llama: Path) -> None:
    asked = {"base": llama, "method": "qlora", "batch_size": 16, "max_length": 2048}
    made = plan(on="RTX 4090", **asked)
    assert made.plan.remedy is not None
    assert made.plan.remedy.ids == ("micro_batch",)
    said = "\n".join(made.lines("en"))
    assert "With --micro-batch-size 1 it fits: about 18.1 GB of 25.8 GB" in said
    assert plan(on="RTX 4090", micro_batch_size=1, **asked).plan.fits
    assert not plan(on="RTX 4090", micro_batch_size=2, **asked).plan.fits
    # On a smaller card two together; each without the other is not enough.
    budget = 14 * 10**9
    remedy = plan_run(
        made.plan.job, made.plan.machine, Correction(memory_spread=0.12), budget=budget
    ).remedy
    assert remedy is not None
    assert remedy.fits
    assert remedy.ids == ("micro_batch", "checkpointing")
    assert remedy.peak.high <= budget
    for name in remedy.ids:
        [furthest] = ways(made.plan.job, [name], whole=True)
        alone = plan_run(furthest, made.plan.machine, Correction(memory_spread=0.12), budget=budget)
        assert not alone.fits
    text = "\n".join(plan(on="RTX 4090", **{**asked, "method": "full"}).lines("es"))
    assert " y --method qlora cabe: " in text or "Con --method qlora cabe: " in text
    # 2.8 GB of packed weights go into no gigabyte.
    nothing = plan(base="phi-2.8b", method="qlora", on=CARD, memory="1GB")
    assert nothing.plan.remedy is not None
    assert not nothing.plan.remedy.fits
    assert any("None of this makes it fit" in line for line in nothing.lines("en"))


@pytest.mark.usefixtures("known")
def test_a_change_that_is_enough_alone_is_marked() -> None:
    sizes = {"num_layers": 8, "hidden_size": 512, "num_heads": 8, "context_length": 1024}
    store.keep_machine(machine_key(ON_CPU), dataclasses.replace(HERE, memory=2_200_000_000))
    made = planned(batch_size=4, steps=10, **sizes).plan
    marks = {change.id: change.enough for change in made.changes}
    assert not made.fits
    assert marks["length"]
    assert not marks["optimizer"]
    for change in made.changes:
        assert change.enough is plan_run(change.job, made.machine, Correction()).fits


@pytest.mark.usefixtures("known")
def test_a_micro_batch_that_is_advised_divides_the_batch() -> None:
    made = planned(batch_size=18, micro_batch_size=9, steps=10).plan
    [half] = [change for change in made.changes if change.id == "micro_batch"]
    assert half.job.micro_batch == 3


@pytest.mark.usefixtures("known")
def test_the_longest_row_is_looked_for_beyond_the_recipe() -> None:
    sizes = {"num_layers": 2, "hidden_size": 64, "num_heads": 2, "batch_size": 4, "steps": 10}
    made = planned(**sizes, context_length=128).plan
    longest = made.longest_row
    assert longest > 1024
    assert planned(**sizes, context_length=longest).plan.fits
    assert not planned(**sizes, context_length=longest + 16).plan.fits
    # A base takes no longer rows than its context.
    tuned = plan(base="gpt2-124m", method="lora", on="h200", batch_size=4, max_length=128)
    assert tuned.plan.longest_row == 1024
    said = "\n".join(tuned.lines("en"))
    assert "The whole batch of 4 rows fits at once." in said
    assert "rows of 1,024 tokens fit, all that the model can take" in said


@pytest.mark.usefixtures("known")
def test_what_may_just_fit_is_not_said_to_fit_nowhere() -> None:
    made = planned(batch_size=1, steps=10)
    tight = dataclasses.replace(HERE, memory=round(made.plan.peak.value) + 1)
    store.keep_machine(machine_key(ON_CPU), tight)
    said = "\n".join(planned(batch_size=1, steps=10).lines("en"))
    assert "It may just fit" in said
    assert "Not even one row of 256 tokens at a time is sure to fit." in said
    assert "fits: 0" not in said


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"tokenizer": "bpe:8000"}, "(--tokenizer bpe:1000, char)"),
        ({"tokenizer": "bpe:1000"}, "(--tokenizer char)"),
        ({"tokenizer": "char"}, "It takes more text."),
        ({"tokenizer": "char", "vocab_size": 50257}, "--vocab-size 0 makes as many"),
    ],
)
def test_advice_on_the_vocabulary_names_what_is_not_given_yet(
    options: dict[str, Any], advice: str, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("words " * 150)
    said = [doubt.text("en") for doubt in planned(sources=[str(text)], steps=10, **options).doubts]
    assert [line for line in said if "vocabulary" in line and advice in line]
    assert len([line for line in said if "vocabulary" in line]) == 1


@pytest.mark.usefixtures("known")
def test_runs_of_a_tiny_model_do_not_correct_a_large_one() -> None:
    tiny = {"num_layers": 1, "hidden_size": 16, "num_heads": 1, "context_length": 16}
    small = planned(**tiny, batch_size=4, steps=10).plan
    for _ in range(9):
        store.add_outcome(
            Outcome(
                HERE.name,
                "pretrain",
                small.update_seconds.value,
                2 * small.update_seconds.value,
                small.peak.value - HERE.base_memory,
                small.peak.value - HERE.base_memory,
            )
        )
    assert planned(**tiny, batch_size=4, steps=10).plan.outcomes == 9
    large = planned(steps=10).plan
    assert large.outcomes == 0
    alone = plan_run(large.job, HERE, Correction())
    assert large.update_seconds.value == alone.update_seconds.value


def test_a_text_in_the_place_of_a_recipe_is_told_where_it_goes(tmp_path: Path) -> None:
    text = tmp_path / "my.txt"
    text.write_text("un texto y nada más\n")
    for path in (text, tmp_path / "none.txt"):
        with pytest.raises(InputError, match=rf"--sources {path}$"):
            plan(path)
    broken = tmp_path / "my.toml"
    broken.write_text("un texto")
    with pytest.raises(InputError, match=r"not TOML: [^-]*$"):
        plan(broken)


def test_tokens_of_a_byte_are_those_of_vocabularies_that_were_trained() -> None:
    # Measured, byte-level BPE trained on the text itself: Don Quixote and tinyshakespeare.
    measured = {
        300: (0.664, 0.720),
        512: (0.459, 0.510),
        1000: (0.369, 0.409),
        4096: (0.278, 0.302),
    }
    for entries, shares in measured.items():
        for share in shares:
            assert subword_tokens_a_byte(entries) == pytest.approx(share, rel=0.09)
    assert subword_tokens_a_byte(100) == 1.0


@pytest.mark.usefixtures("known")
def test_the_plan_of_a_run_counts_what_the_run_was_trained_on(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("tres tristes tigres comen trigo\n" * 300, encoding="utf-8")
    sizes = {"num_layers": 1, "hidden_size": 16, "num_heads": 1, "context_length": 16}
    done = pretrain(str(text), tmp_path / "run", tokenizer="bpe:300", steps=1, **sizes)
    made = plan(done.run)
    facts = json.loads((done.run / "data" / "data.json").read_text(encoding="utf-8"))["facts"]
    assert made.data.train_tokens == facts["splits"]["train"]["tokens"]
    assert not made.data.guessed
