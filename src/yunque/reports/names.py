"""What the columns of other tools are called → our names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

EXACT = {
    "step": ("step", "global_step", "trainer/global_step", "train/global_step", "current_steps")
    + ("num_updates", "update", "updates", "iteration", "iterations", "iter", "it", "s", "steps")
    + ("training_step", "train_step", "optimizer_step", "batch", "paso", "_step"),
    "epoch": ("epoch", "train/epoch", "epochs", "ep", "época", "epoca"),
    "tokens_seen": ("tokens_seen", "num_tokens", "num_input_tokens_seen", "tokens", "total_tokens")
    + ("train/num_input_tokens_seen", "consumed_tokens", "train/num_tokens"),
    "seconds": ("seconds", "elapsed_time", "_runtime", "elapsed", "total_time", "relative_time")
    + ("wall_seconds", "elapsed_seconds", "time_elapsed"),
    "wall_time": ("wall_time", "_timestamp", "timestamp", "wall time"),
    "learning_rate": ("learning_rate", "lr", "train/learning_rate", "train/lr", "learning rate"),
    "grad_norm": ("grad_norm", "gradient_norm", "gnorm", "norm", "total_norm", "grad norm")
    + ("train/grad_norm", "gradnorm", "global_grad_norm", "train/gradient_norm", "gradient norm"),
    "tokens_per_second": ("tokens_per_second", "tok/s", "tok/sec", "tokens/s", "tokens/sec", "tps")
    + ("train_tokens_per_second", "tokens_per_second_per_gpu", "tok_per_sec", "tokens_per_sec"),
    "train_loss": ("train_loss", "loss", "train/loss", "training_loss", "train_loss_step", "trl")
    + ("train/loss_step", "lm_loss", "train/lm_loss", "training/loss", "loss/train", "loss_train")
    + ("lm loss", "train loss", "training loss", "losses/train", "train/train_loss", "loss train")
    + ("train_loss_epoch", "train/loss_epoch", "trainer/loss", "lm loss value", "nll_loss")
    + ("pérdida", "perdida", "pérdida_entrenamiento", "perdida_entrenamiento"),
    "val_loss": ("val_loss", "eval_loss", "valid_loss", "validation_loss", "val/loss", "eval/loss")
    + ("valid/loss", "validation/loss", "test_loss", "test/loss", "dev_loss", "dev/loss", "tel")
    + ("loss/val", "loss/valid", "loss_val", "val loss", "validation loss", "eval loss", "vl_loss")
    + ("valid loss", "test loss", "loss/validation", "loss/eval", "losses/val", "val_loss_epoch")
    + ("eval/lm_loss", "val/lm_loss", "val/val_loss", "val/loss_epoch", "eval_lm_loss")
    + ("pérdida_validación", "perdida_validacion"),
}
"""Our name → the names that tools use, the surest first."""

HELD_OUT = ("val", "valid", "validation", "eval", "evaluation", "test", "dev", "heldout")
PARTS = re.compile(r"[/._\- ]+")
REINFORCEMENT = re.compile(
    r"(^|/)(reward|rewards?/mean|reward_mean|mean_reward|objective/(kl|rlhf_reward|scores)"
    r"|policy/\w+|approx_kl|clip_ratio\S*|completion_length|completions/mean_length|ppo/\S+"
    r"|episode_reward|ep_rew_mean)$"
)
PREFERENCE = re.compile(r"(^|/|_)(rewards/(chosen|rejected|margins|accuracies)|logps/chosen)$")


def bare(name: str) -> str:
    """A column name without the run that W&B's export puts before it, in lower case."""
    return name.strip().rpartition(" - ")[2].strip().lower()


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
                runs = [n for n in hits[1:] if short[n] == short[hits[0]]]
    found.update(dict(mapped or {}))
    taken = {*found.values(), *runs}
    sets: dict[str, str] = {}
    for name in columns:
        parts = [p for p in PARTS.split(short[name]) if p]
        if name in taken or "loss" not in parts[-1:] + parts[:1]:
            rate = "lr" in parts[:1] + parts[-1:] or parts[-2:] == ["learning", "rate"]
            if name not in taken and "learning_rate" not in found and rate:
                found["learning_rate"] = name
            continue
        if set(HELD_OUT) & set(parts):
            sets[name] = name
        elif "train_loss" not in found and (parts[-1] == "loss" or parts[0] == "loss"):
            found["train_loss"] = name
    if "val_loss" in found:
        # A validation loss with a name of its own beside the plain one may be a part of it.
        sets = {}
    for ours, word in (("step", "step"), ("step", "iter"), ("step", "iteration")):
        for name in columns:
            if ours not in found and word in PARTS.split(short[name]):
                found[ours] = name
    return found, sets, tuple(runs)


def objective(names: Iterable[str]) -> str:
    """What the loss of these columns is: a prediction, a preference, reinforcement."""
    names = [name.lower() for name in names]
    if any(PREFERENCE.search(name) for name in names):
        return "preference"
    return "reinforcement" if any(REINFORCEMENT.search(n) for n in names) else "prediction"
