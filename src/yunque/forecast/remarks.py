"""A second opinion on a recipe, before a step is run: what is out of the usual, with its numbers.

Every threshold is a published figure or one of docs/lab-notes.md, named beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from yunque.config import ADAMWS
from yunque.forecast.shape import count_parameters
from yunque.forecast.work import Workload
from yunque.words import say

REPEATED, WORTHLESS = 4, 40
"""Passes up to which repeated text is nearly as good as new, and past which it gives nothing.
Source: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", sections 5 and 6."""
DECAY, REPEAT_SMALLEST, REPEAT_LARGEST = 15.39, 7e6, 9e9
"""Repetitions over which a token loses 1 - 1/e of its worth, and the sizes for which that was
measured. Source: the same, equation 5 and section 3."""
FINETUNE_PASSES, FEW_EXAMPLES = 20, 200
FEW_TOKENS_AN_UPDATE = 512
"""Below it the gradient is mostly noise at any size (McCandlish et al. 2018; the small recipes in
docs/lab-notes.md train on 2,000 and more)."""
TOKENS_A_ROW_OF_VOCABULARY = 10
SMALLER_VOCABULARIES = {"bpe:1000": 1000, "char": 120}
"""Tokenizers that can be advised, and the entries that they have on European text."""
HIGHEST = {"pretrain": 1e-2, "full": 2e-4, "lora": 2e-3, "qlora": 2e-3}
LOWEST = {"pretrain": 1e-5, "full": 1e-7, "lora": 1e-6, "qlora": 1e-6}
TOKENS_A_PARAMETER = 20
LAW_SMALLEST, LAW_LARGEST = 44e6, 16e9
"""Tokens for each parameter that the same computation is best spent on, and the sizes for which
that was measured. Source: Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models",
table 3 and section 3."""


@dataclass(frozen=True)
class Data:
    """What is known of the training data before it is prepared."""

    train_tokens: int = 0
    """0: not known."""
    val_tokens: int = 0
    documents: int = 0
    """0: not known, or one stream."""
    longest: int = 0
    """Tokens of the longest document; 0: not known."""
    guessed: bool = False
    """From the size of the files, not counted."""
    validation: bool = True
    entries: int = 0
    """Of the tokenizer's vocabulary, which may be fewer than the model has rows for; 0: not
    known."""


@dataclass(frozen=True)
class Remark:
    """A sentence of `words/plan.py` and its numbers."""

    key: str
    numbers: dict[str, Any]

    def text(self, lang: str) -> str:
        return say(self.key, lang, **self.numbers)


def remarks(job: Workload, data: Data) -> list[Remark]:
    """What a reader with experience would say of this recipe, gravest first."""
    found: list[Remark] = []

    def add(holds: bool, name: str, **numbers: Any) -> None:
        if holds:
            found.append(Remark(f"plan.doubt_{name}", numbers))

    tuning = job.method != "pretrain"
    tokens_an_update = job.train.batch_size * job.row_length
    passes = job.steps * job.train.batch_size / job.epoch_rows if job.epoch_rows else 0.0
    few = 0 < data.documents < FEW_EXAMPLES
    add(
        tuning and few and passes > FINETUNE_PASSES,
        "memorise",
        passes=passes,
        documents=data.documents,
    )
    add(not data.validation, "no_validation")
    rate, usual = job.optim.learning_rate, job.method
    if job.optim.optimizer in ADAMWS:
        add(rate > HIGHEST[usual], "rate_high", rate=rate, bound=HIGHEST[usual])
        add(0 < rate < LOWEST[usual], "rate_low", rate=rate, bound=LOWEST[usual])
    add(not tuning and passes > WORTHLESS, "passes_worthless", passes=passes)
    add(not tuning and REPEATED < passes <= WORTHLESS, "passes_many", passes=passes)
    add(0 < tokens_an_update < FEW_TOKENS_AN_UPDATE, "batch_small", tokens=tokens_an_update)
    add(
        0 < data.longest < job.row_length // 2 and data.documents > 1,
        "context_long",
        longest=data.longest,
        context=job.row_length,
    )
    vocabulary, tokens = job.shape.vocab_size, data.train_tokens
    unused = not tuning and 0 < 2 * data.entries < vocabulary
    add(unused, "vocabulary_unused", entries=data.entries, vocabulary=vocabulary)
    few_tokens = 0 < tokens < TOKENS_A_ROW_OF_VOCABULARY * vocabulary
    if not tuning and not unused and few_tokens:
        # Four times as small, lest a change that gives nothing is advised.
        smaller = [name for name, size in SMALLER_VOCABULARIES.items() if 4 * size <= vocabulary]
        name = "vocabulary_large" if smaller else "vocabulary_met"
        numbers = {"tokenizers": ", ".join(smaller)} if smaller else {}
        add(True, name, tokens=tokens, vocabulary=vocabulary, **numbers)
    add(
        0 < job.steps < 2 * job.optim.warmup_steps,
        "warmup_long",
        warmup=job.optim.warmup_steps,
        steps=job.steps,
    )
    return found


@dataclass(frozen=True)
class Better:
    """What the same computation buys by the scaling law."""

    parameters: int
    tokens: int
    now_parameters: int
    now_tokens: int
    """Tokens trained on, every pass counted."""
    in_range: bool
    """Whether the law was measured at such sizes."""


def same_computation(job: Workload) -> Better | None:
    """How many parameters and tokens the computation of this pretraining is best spent on.

    Computation is 6 x parameters x tokens (Kaplan et al. 2020), embeddings included. None where
    nothing is trained from scratch.
    """
    if job.method != "pretrain" or not job.steps:
        return None
    now = count_parameters(job.shape).total
    tokens = job.steps * job.train.batch_size * job.row_length
    best = (now * tokens / TOKENS_A_PARAMETER) ** 0.5
    return Better(
        parameters=round(best),
        tokens=round(TOKENS_A_PARAMETER * best),
        now_parameters=now,
        now_tokens=tokens,
        in_range=min(best, now) >= LAW_SMALLEST and max(best, now) <= LAW_LARGEST,
    )


@dataclass(frozen=True)
class Repeated:
    """What passes over the same text are worth, in tokens of new text."""

    passes: float
    seen: int
    """Tokens computed, every pass counted."""
    worth: int
    fewer: float
    """Passes of a quarter of the computation."""
    worth_fewer: int
    in_range: bool


def repeated(job: Workload) -> Repeated | None:
    """What the passes of this pretraining are worth; None where the text is hardly repeated."""
    if job.method != "pretrain" or not job.epoch_rows:
        return None
    unique = job.epoch_rows * job.row_length
    passes = job.steps * job.train.batch_size / job.epoch_rows
    if passes <= REPEATED:
        return None

    def worth(count: float) -> float:
        again = max(0.0, count - 1)
        return unique * (min(count, 1.0) + DECAY * (1 - math.exp(-again / DECAY)))

    return Repeated(
        passes=passes,
        seen=round(passes * unique),
        worth=round(worth(passes)),
        fewer=passes / 4,
        worth_fewer=round(worth(passes / 4)),
        in_range=REPEAT_SMALLEST <= count_parameters(job.shape).total <= REPEAT_LARGEST,
    )
