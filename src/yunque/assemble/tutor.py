"""The embedded tutor's conversations as token files, and the recipe of `yunque demo`.

Without PyTorch: the demo prepares them in a process of its own while it loads that.
"""

from __future__ import annotations

import gc
from pathlib import Path

from yunque.config import TUTOR, DataConfig, ModelConfig, OptimConfig, Recipe, TrainConfig
from yunque.data import tutor
from yunque.data.alignment import Rendered, render
from yunque.data.chat_template import DEFAULT_CHAT_TEMPLATE, ChatTemplate, chat_template_of
from yunque.data.conversations import Message
from yunque.data.prepare import Prepared, Progress, prepare_conversations
from yunque.data.tokenizer import Tokenizer

CONVERSATIONS = {"train": 40_000, "val": 600}

# Measured in docs/lab-notes.md: what each choice gave.
RECIPE = Recipe(
    sources=(TUTOR,),
    data=DataConfig(tokenizer="bpe:512", packing="off", loss="all"),
    model=ModelConfig(
        context_length=128,
        num_layers=4,
        num_heads=4,
        hidden_size=128,
        qk_norm=True,
        dropout=0.0,
    ),
    optim=OptimConfig(
        optimizer="muon",
        learning_rate=3e-3,
        muon_learning_rate=0.02,
        schedule="linear",
        warmup_steps=50,
        final_learning_rate_fraction=0.0,
    ),
    train=TrainConfig(
        batch_size=16,
        steps=1250,
        eval_every=250,
        eval_tokens=32_768,
        patience=5,
        sample_prompt="<|user|>¿Cuánto es 47 + 38?<|assistant|>",
        sample_tokens=100,
    ),
)


def talk(problem: tutor.Problem) -> list[Message]:
    """A problem of the tutor as a conversation."""
    return [Message(**message) for message in tutor.messages(problem)]  # type: ignore[arg-type]


def prepare_tutor(
    config: DataConfig,
    out: Path,
    progress: Progress | None = None,
    tokenizer: Tokenizer | None = None,
) -> Prepared:
    """Token files of the tutor's conversations.

    Args:
        tokenizer: that of the base that is taught, in whose chat template they are written; None:
            the one that `config` says, with the default template.
    """
    chat = ChatTemplate(end_token=config.separator)
    if tokenizer is not None:
        chat = chat_template_of(tokenizer)

    def splits() -> dict[str, list[Rendered]]:
        return {
            split: [
                render(talk(problem), chat)
                for problem in tutor.make(split, count, seed=1)  # type: ignore[arg-type]
            ]
            for split, count in CONVERSATIONS.items()
        }

    name = f"{TUTOR} 1 {sorted(CONVERSATIONS.items())}"
    template = DEFAULT_CHAT_TEMPLATE
    if tokenizer is not None and tokenizer.chat_template is not None:
        template = tokenizer.chat_template
    # Hundreds of thousands of objects that all stay: looking for garbage among them takes longer
    # than rendering them.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return prepare_conversations(splits, name, config, out, template, progress, tokenizer)
    finally:
        if collecting:
            gc.enable()
