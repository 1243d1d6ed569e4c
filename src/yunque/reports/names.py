"""What the columns of other tools are called → our names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping

EXACT = {
    "step": ("step", "global_step", "trainer/global_step", "train/global_step", "current_steps")
    + ("num_updates", "update", "updates", "iteration", "iterations", "iter", "it", "s", "steps")
    + ("training_step", "train_step", "optimizer_step", "batch", "paso", "_step"),
    "epoch": ("epoch", "train/epoch", "epochs", "ep", "epoca", "epocas"),
    "tokens_seen": ("tokens_seen", "num_tokens", "num_input_tokens_seen", "tokens", "total_tokens")
    + ("train/num_input_tokens_seen", "consumed_tokens", "train/num_tokens"),
    "seconds": ("seconds", "elapsed_time", "_runtime", "elapsed", "total_time", "relative_time")
    + ("wall_seconds", "elapsed_seconds", "time_elapsed"),
    "wall_time": ("wall_time", "_timestamp", "timestamp", "wall time"),
    "learning_rate": ("learning_rate", "lr", "train/learning_rate", "train/lr")
    + ("tasa_de_aprendizaje",),
    "grad_norm": ("grad_norm", "gradient_norm", "gnorm", "norm", "total_norm")
    + ("train/grad_norm", "gradnorm", "global_grad_norm", "train/gradient_norm"),
    "tokens_per_second": ("tokens_per_second", "tok/s", "tok/sec", "tokens/s", "tokens/sec", "tps")
    + ("train_tokens_per_second", "tokens_per_second_per_gpu", "tok_per_sec", "tokens_per_sec"),
    "train_loss": ("train_loss", "loss", "train/loss", "training_loss", "train_loss_step", "trl")
    + ("train/loss_step", "lm_loss", "train/lm_loss", "training/loss", "loss/train", "loss_train")
    + ("losses/train", "train/train_loss", "train_loss_epoch", "train/loss_epoch", "trainer/loss")
    + ("lm_loss_value", "nll_loss", "perdida", "perdida_entrenamiento", "perdida_de_entrenamiento"),
    "val_loss": ("val_loss", "eval_loss", "valid_loss", "validation_loss", "val/loss", "eval/loss")
    + ("valid/loss", "validation/loss", "test_loss", "test/loss", "dev_loss", "dev/loss", "tel")
    + ("loss/val", "loss/valid", "loss_val", "vl_loss", "loss/validation", "loss/eval")
    + ("losses/val", "val_loss_epoch", "eval/lm_loss", "val/lm_loss", "val/val_loss")
    + ("val/loss_epoch", "eval_lm_loss", "perdida_validacion", "perdida_de_validacion")
    + ("perdida_val", "val_perdida"),
}
"""Our name → the names that tools use, the surest first; as `bare` writes them."""

HELD_OUT = (
    *("val", "valid", "validation", "eval", "evaluation", "test", "dev", "heldout"),
    *("validacion", "evaluacion", "prueba"),
)
LOSS = ("loss", "perdida")
PERPLEXITY = ("ppl", "perplexity", "perplejidad")
SHARES = ("acc", "accuracy", "precision", "recall", "f1", "exactitud", "aciertos")
"""Words for metrics that are no loss, and of which no loss can be worked out."""
HIGHER = re.compile(r"accurac(y|ies)|acc\d*|f1|rouge\w*|s?bleu\d*|exact|em|score|chrf\w*|meteor")
LOWER = ("wer", "cer", "error")
"""Words for measures that get better upwards, and downwards."""
PARTS = re.compile(r"[/._\- ]+")
REINFORCEMENT = re.compile(
    r"(^|/)(reward|rewards?/mean|reward_mean|mean_reward|objective/(kl|rlhf_reward|scores)"
    r"|policy/\w+|approx_kl|clip_ratio\S*|completion_length|completions/mean_length|ppo/\S+"
    r"|episode_reward|ep_rew_mean)$"
)
PREFERENCE = re.compile(r"(^|/|_)(rewards/(chosen|rejected|margins|accuracies)|logps/chosen)$")


def folded(text: str) -> str:
    """Lower case, without accents."""
    split = unicodedata.normalize("NFD", text.lower())
    return "".join(c for c in split if not unicodedata.combining(c))


def bare(name: str) -> str:
    """A column name in one spelling: lower case, no accents, words joined by `_`.

    Without the run that W&B's export puts before it, and a unit in parentheses after it.
    """
    own = re.sub(r"\s*\([^()]*\)$", "", name.strip().rpartition(" - ")[2].strip())
    return re.sub(r"[\s._\-]+", "_", folded(own))


def words_of(name: str) -> list[str]:
    """The words of a column name."""
    return [part for part in PARTS.split(bare(name)) if part]


def is_perplexity(name: str) -> bool:
    """Whether a column of this name holds perplexities."""
    words = words_of(name)
    return bool(set(PERPLEXITY) & set(words)) and not set(LOSS) & set(words)


def higher_is_better(name: str) -> bool | None:
    """Which way a measure of this name gets better; None where the name does not tell."""
    words = words_of(name)
    if any(HIGHER.fullmatch(word) for word in words):
        return True
    return False if set(words) & set(LOWER) else None


def meanings(
    names: Iterable[str], mapped: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """Which column holds what.

    Args:
        names: the columns of a log.
        mapped: our name → the column, as the user says; it goes before all else.

    Returns:
        our name → column; further held-out set → column of its loss; further columns of a training
        loss that belong to other runs.
    """
    columns = [n for n in names if not n.endswith(("__MIN", "__MAX"))]
    short = {name: bare(name) for name in columns}
    found: dict[str, str] = {}
    runs: list[str] = []
    for ours, known in EXACT.items():
        hits = [name for k in known for name in columns if short[name] == k]
        if hits:
            found[ours] = hits[0]
            if ours == "train_loss":
                same = [n for n in hits[1:] if short[n] == short[hits[0]]]
                runs = [n for n in same if " - " in n]
    found.update(dict(mapped or {}))
    taken = {*found.values(), *runs}
    sets: dict[str, str] = {}
    for name in columns:
        parts = words_of(name)
        # "loss of weight": what follows says what was lost.
        first = parts[:1] if parts[1:2] not in (["of"], ["de"]) else []
        if name in taken or not set(LOSS) & {*parts[-1:], *first}:
            rate = "lr" in parts[:1] + parts[-1:] or parts[-2:] == ["learning", "rate"]
            if name not in taken and "learning_rate" not in found and rate:
                found["learning_rate"] = name
            continue
        if set(HELD_OUT) & set(parts):
            sets[name] = name
        elif "train_loss" not in found:
            found["train_loss"] = name
    if "val_loss" in found:
        # A validation loss with a name of its own beside the plain one may be a part of it.
        sets = {}
    for name in columns:  # What has no loss may have its perplexity: e to the power of the loss.
        held = bool(set(HELD_OUT) & set(words_of(name)))
        if is_perplexity(name) and not (held and sets):
            found.setdefault("val_loss" if held else "train_loss", name)
    for ours, word in (("step", "step"), ("step", "iter"), ("step", "iteration")):
        for name in columns:
            if ours not in found and word in words_of(name):
                found[ours] = name
    return found, sets, tuple(runs)


def objective(names: Iterable[str]) -> str:
    """What the loss of these columns is: a prediction, a preference, reinforcement."""
    names = [name.lower() for name in names]
    if any(PREFERENCE.search(name) for name in names):
        return "preference"
    return "reinforcement" if any(REINFORCEMENT.search(n) for n in names) else "prediction"
