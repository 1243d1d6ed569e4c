"""Our steps against TRL's SFTTrainer: the same weights, conversations, order and settings.

pip install trl        (a development extra that only this file uses)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_assemble_runs import rows

from yunque.assemble.runs import finetune
from yunque.config import ModelConfig
from yunque.data.chat_template import CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
from yunque.data.packing import PackedBatches
from yunque.data.prepare import open_prepared
from yunque.data.tokenizer import train_tokenizer
from yunque.model.decoder import Decoder
from yunque.weights.folder import save_folder

STEPS, BATCH, LENGTH = 8, 4, 64
RATE, DECAY, CLIP = 3e-3, 0.1, 1.0
LOSS_TOLERANCE = 1e-5
"""Absolute, nats per token, at every step: two programs' float32 roundings, carried on."""

SHAPES = {
    "llama": {"positions": "rotary", "norm": "rmsnorm", "mlp": "swiglu", "bias": False},
    "gpt2": {
        "positions": "learned",
        "norm": "layernorm",
        "mlp": "gelu",
        "bias": True,
        "qkv_bias": True,
    },
}


def talk(n: int, prompts: bool) -> dict[str, Any]:
    """A conversation of more than half a row, so that each row holds one."""
    asked, told = (
        f"¿Cuánto es {n} + {n}? {'por favor ' * (1 + n % 2)}",
        f"{2 * n}" + ", claro" * (n % 3),
    )
    user, assistant = {"role": "user", "content": asked}, {"role": "assistant", "content": told}
    if prompts:
        return {"prompt": [user], "completion": [assistant]}
    return {"messages": [user, assistant]}


def saved_base(folder: Path, family: str) -> Path:
    tokenizer = train_tokenizer(
        "byte", lambda: iter(()), "<|endoftext|>", CHAT_TOKENS, DEFAULT_CHAT_TEMPLATE
    )
    shape = ModelConfig(
        context_length=LENGTH,
        num_layers=2,
        num_heads=2,
        hidden_size=32,
        qk_norm=False,
        dropout=0.0,
        **SHAPES[family],  # type: ignore[arg-type]
    )
    assert shape.family == family
    model = Decoder(shape.resolved(tokenizer.vocab_size), seed=3)
    save_folder(model, folder, tokenizer.save, {"eos_token_id": tokenizer.separator_id})
    return folder


def trl_losses(
    base: Path, records: list[dict[str, Any]], out: Path, micro: int, prompts: bool
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The loss of each update by TRL, and its weights after the last."""
    import datasets
    import transformers
    import trl

    parts: list[float] = []

    class Recording(trl.SFTTrainer):  # type: ignore[name-defined,misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            parts.append(float(loss.detach()))
            return loss

    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    if not prompts:
        # TRL finds the assistant's words by marks in the template; ours has none.
        start, end = "<|assistant|>{{ message['content'] }}", "{{ eos_token }}\n{%- else"
        assert start in DEFAULT_CHAT_TEMPLATE
        assert end in DEFAULT_CHAT_TEMPLATE
        tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE.replace(
            start, "<|assistant|>{%- generation -%}{{ message['content'] }}"
        ).replace(end, "{{ eos_token }}{%- endgeneration -%}\n{%- else")
    settings = trl.SFTConfig(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=BATCH // micro,
        train_sampling_strategy="sequential",
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        adam_beta2=0.999,
        optim="adamw_torch",
        max_length=LENGTH,
        assistant_only_loss=not prompts,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    trainer = Recording(
        model=transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=settings,
        train_dataset=datasets.Dataset.from_list(records),
        processing_class=tokenizer,
    )
    trainer.train()
    # Trainer hands the number of targets of the whole update down, so that parts add up to it.
    each = BATCH // micro
    losses = [sum(parts[first : first + each]) for first in range(0, len(parts), each)]
    return losses, dict(trainer.model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(SHAPES))
@pytest.mark.parametrize("prompts", [False, True], ids=["messages", "prompt-completion"])
@pytest.mark.parametrize("micro", [4, 2, 1])
def test_every_step_has_the_loss_of_trl(
    family: str, prompts: bool, micro: int, tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="trl is not installed (pip install yunque[peers])")
    base = saved_base(tmp_path / "base", family)
    records = [talk(n, prompts) for n in range(10, 10 + STEPS * BATCH)]
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    done = finetune(
        base,
        str(chats),
        tmp_path / "run",
        method="full",
        val=0.0,
        steps=STEPS,
        epochs=0.0,
        batch_size=BATCH,
        micro_batch_size=micro,
        learning_rate=RATE,
        schedule="constant",
        warmup_steps=0,
        weight_decay=DECAY,
        clip_norm=CLIP,
        max_length=LENGTH,
        early_stopping=False,
        sample_tokens=0,
        device="cpu",
        precision="fp32",
    )
    ours = [row["train_loss"] for row in rows(done.run, "step")]

    # Each row holds one conversation: in which order, the tokens tell.
    train = open_prepared(done.run / "data").splits["train"]
    batches = PackedBatches(train, LENGTH, BATCH, seed=1)
    assert batches.windows == len(records)
    ends = train.documents
    assert ends is not None
    own = [
        train.read(int(a), int(b - a)).tolist() for a, b in zip([0, *ends[:-1]], ends, strict=True)
    ]
    order = []
    for step in range(STEPS):
        for inputs in batches.batch(step).inputs.tolist():
            order.append(next(i for i, ids in enumerate(own) if inputs[: len(ids) - 1] == ids[:-1]))
    assert sorted(order) == list(range(len(records)))
    targets = [int((batches.batch(0).targets[i] != -100).sum()) for i in range(BATCH)]
    assert len(set(targets)) > 1  # a mean of means would be another loss

    theirs, weights = trl_losses(
        base, [records[i] for i in order], tmp_path / "trl", micro, prompts
    )
    assert len(ours) == len(theirs) == STEPS
    assert ours[0] - ours[-1] > 0.5
    assert ours == pytest.approx(theirs, abs=LOSS_TOLERANCE)
    trained = load_file(done.run / "last" / "model.safetensors")
    prefix = "transformer." if family == "gpt2" and not next(iter(trained)).startswith("tr") else ""
    for name, tensor in trained.items():
        torch.testing.assert_close(weights[prefix + name], tensor, rtol=0, atol=2e-4)
