"""What may be changed between a stop and a resume, and what is then promised.

| rule | what is promised | what it takes |
|---|---|---|
| exact | every loss, weight and file that the run would have had | nothing |
| reproducible | the same data, order and schedule; sums differ in rounding | nothing, said |
| continued | another experiment from here on, from the same weights | `--set key=value` |
| forced | another experiment, which may no longer fit its own past | `--force` |
| fixed | nothing: checkpoint, prepared data or the exam of the base cannot follow | a new run |
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from yunque.config import PLAIN, Recipe, flat_names, merge, to_tree
from yunque.errors import InputError, raise_all

Rule = Literal["exact", "reproducible", "continued", "forced", "fixed"]
Level = Literal["exact", "reproducible", "continued"]
ORDER: tuple[Rule, ...] = ("exact", "reproducible", "continued", "forced", "fixed")

PREPARED = "the data are prepared already, and it would change nothing"
SHAPED = "the tensors of the checkpoint have the shape that it gave"
EXAMINED = (
    "what was right before the first update is known for the run's own exam alone, and two exams "
    "cannot be held against each other. Undo it; `yunque evaluate RUN --exam OTHER` asks this "
    "model another one"
)
RULES: dict[Rule, tuple[str, ...]] = {
    "exact": (
        *("base", "sources", "exam", "preset", "embedding_std", "gradient_checkpointing"),
        "update_in_backward",
        *("checkpoint_every", "checkpoint_minutes", "keep_checkpoints"),
        *("sample_prompt", "sample_tokens", "memory"),
    ),
    "reproducible": (
        *("micro_batch_size", "device", "precision", "threads"),
        *("compute_dtype", "cpu_embeddings"),
    ),
    "continued": (
        *("dropout", "attention_dropout", "lora_dropout"),
        *("learning_rate", "muon_learning_rate", "schedule", "warmup_steps", "decay_fraction"),
        *("final_learning_rate_fraction", "weight_decay", "beta1", "beta2", "momentum"),
        *(
            "clip_norm",
            "spike_deviations",
            "batch_size",
            "steps",
            "epochs",
            "eval_every",
            "eval_tokens",
        ),
        *("early_stopping", "watch", "patience", "min_change", "exactness"),
    ),
    "forced": (
        *("stride", "packing", "max_length", "over_long", "seed"),
        *("rope_theta", "rope_scaling", "rope_factor", "rope_original_length", "rope_slow"),
        *("rope_fast", "rope_amplitude", "rotary_fraction", "sliding_window", "full_layers"),
        *("norm_eps", "alpha"),
    ),
    "fixed": (
        *("tokenizer", "separator", "add_tokens", "val", "test", "split_by", "encoding"),
        *("newlines", "normalise", "header", "skip_bad", "columns", "loss", "duplicates"),
        *("vocab_size", "context_length", "num_layers", "num_heads", "num_kv_heads"),
        *("hidden_size", "head_dim", "intermediate_size", "positions", "norm", "mlp", "bias"),
        *("qkv_bias", "qk_norm", "tie_embeddings", "head_bias", "parallel_residual"),
        *("optimizer", "average_decay", "method", "variant", "rank", "targets"),
        *("quantize_bits", "double_quantize", "quantize_head"),
    ),
}
"""Every key of a recipe, once."""
RULE_OF: dict[str, Rule] = {name: rule for rule, names in RULES.items() for name in names}


@dataclass(frozen=True)
class Change:
    """One difference between a checkpoint and what is there now."""

    name: str
    """A key of the recipe, or what a fingerprint is of."""
    then: Any
    now: Any
    rule: Rule

    @property
    def text(self) -> str:
        return f"{self.name}: {self.then!r} → {self.now!r}"


def recipe_changes(then: Mapping[str, Any], now: Recipe) -> list[Change]:
    """Every key that differs from the recipe of a checkpoint.

    Args:
        then: the tables that the checkpoint keeps.

    Raises:
        InputError: these are no recipe of this version.
    """
    before = flat(merge(Recipe(), then, "the checkpoint's recipe"))
    after = flat(now)
    return [
        Change(name, before[name], after[name], RULE_OF[name])
        for name in after
        if before[name] != after[name]
    ]


def flat(recipe: Recipe) -> dict[str, Any]:
    """Flat name → value."""
    tree = to_tree(recipe)
    values = {name: tree[home][name] for name, home in flat_names().items()}
    return {**values, **{name: tree[name] for name in PLAIN}}


def refuse(changes: Sequence[Change], chosen: Iterable[str], force: bool, where: str) -> None:
    """Refuse what was changed without being asked for, or cannot be.

    Args:
        chosen: keys that were given by `--set`.

    Raises:
        InputError: each refused change with its values and what it takes.
    """
    named, faults = set(chosen), []
    for change in changes:
        if change.rule == "fixed":
            prepared = flat_names().get(change.name) == "data"
            why = EXAMINED if change.name == "exam" else PREPARED if prepared else SHAPED
            undo = "" if why == EXAMINED else " Undo it, or start a new run."
            faults.append(f"{change.text}: {why}.{undo}")
        elif change.rule == "forced" and not force:
            faults.append(
                f"{change.text}: the run would no longer fit its own past. Undo it, start a new "
                "run, or give --force."
            )
        elif change.rule == "continued" and not force and change.name not in named:
            faults.append(
                f"{change.text}: another experiment from here on. Undo it, or say so with "
                f"--set {change.name}={change.now}."
            )
    raise_all(f"{where}: changed since the checkpoint was saved", faults)


def level(changes: Sequence[Change], surroundings: Sequence[str]) -> Level:
    """What a resumed run promises.

    Args:
        surroundings: what of versions, hardware and threads is another than before.
    """
    worst = max((ORDER.index(change.rule) for change in changes), default=0)
    if worst >= ORDER.index("continued"):
        return "continued"
    return "reproducible" if surroundings or worst else "exact"


def settings(texts: Sequence[str]) -> dict[str, Any]:
    """`key=value` … → values by flat name; a value is TOML, and what is not is text.

    Raises:
        InputError: no equals sign.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"--set {text!r}: expected key=value, as --set learning_rate=1e-4.")
        try:
            found[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except (tomllib.TOMLDecodeError, ValueError, RecursionError):
            found[name.strip()] = value.strip()
    return found


def surroundings(first: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What the last session of a run had otherwise, as "name: then → now".

    Args:
        first: the run's environment.json.
    """
    then = {**first, **(first.get("resumed") or [{}])[-1]}
    names = [name for name in now if name not in ("commit", "packages") and name in then]
    found = [f"{name}: {then[name]} → {now[name]}" for name in names if then[name] != now[name]]
    packages = then.get("packages", {})
    found += [
        f"{name}: {packages.get(name)} → {version}"
        for name, version in now["packages"].items()
        if packages.get(name) != version
    ]
    return tuple(found)
