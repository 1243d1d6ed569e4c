"""What fitcheck-llm forecasts of our memory runs; started by `bench/plan.py table --peer PYTHON`.

Reads one job a line, `dataclasses.asdict(Workload)` with the number of its parameters, and prints a
line for each: MB that fitcheck adds up without its guess of a GPU's context, or null with why not.
It reads configurations from a hub only; its `estimate` is given the same fields here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from fitcheck import GPU_DB, ModelConfig, TrainingConfig, estimate
from fitcheck.overhead_db import get_overhead_profile

MIB = 2**20
OPTIMIZERS = {"adamw": "adamw", "adamw8bit": "adam8bit", "sgd": "sgd-momentum"}
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")


def forecast(job: dict[str, Any], parameters: int) -> float:
    """Bytes at the peak, without what is there before the first tensor."""
    shape, train, adapt = job["shape"], job["train"], job["adapt"]
    model = ModelConfig(
        name="ours",
        num_params=parameters,
        hidden_size=shape["hidden_size"],
        num_layers=shape["num_layers"],
        num_attention_heads=shape["num_heads"],
        num_kv_heads=shape["num_kv_heads"],
        intermediate_size=shape["intermediate_size"],
        vocab_size=shape["vocab_size"],
        head_dim=shape["head_dim"] or shape["hidden_size"] // shape["num_heads"],
        tie_word_embeddings=shape["tie_embeddings"],
    )
    gate = ("gate_proj",) if shape["mlp"] == "swiglu" else ()
    bits = {4: "nf4", 8: "int8"}[adapt["quantize_bits"]]
    training = TrainingConfig(
        precision=job["precision"],
        quantization=bits if job["method"] == "qlora" else "none",
        double_quant=job["method"] == "qlora" and bits == "nf4" and adapt["double_quantize"],
        optimizer=OPTIMIZERS[job["optim"]["optimizer"]],
        batch_size=train["micro_batch_size"] or train["batch_size"],
        seq_len=job["length"] or shape["context_length"],
        lora_rank=adapt["rank"] if job["method"] in ("lora", "qlora") else None,
        lora_targets=[*LAYERS, *gate],
        grad_checkpoint=train["gradient_checkpointing"],
        flash_attn=True,
    )
    card = "4090"
    profile = get_overhead_profile(card, training.flash_attn, training.quantization)
    total: float = estimate(model, training, GPU_DB[card]).total_mib
    return MIB * (total - profile.base_context_mib)


def main() -> None:
    """One answer a line."""
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"bytes": forecast(asked["job"], asked["parameters"])}
        except (KeyError, ValueError) as error:  # what fitcheck does not know of
            answer = {"why": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
