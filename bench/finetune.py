"""LoRA and QLoRA on the CPU: memory and time of a step beside transformers + PEFT, in one run.

    python bench/finetune.py --family llama --length 512 --steps 2 [--precision bf16]

A random model of Llama's or Phi's shape (0.3 to 0.4 billion parameters by default) is trained on
random tokens, one row a step, of which the last half carries loss. Each case runs in a process of
its own; memory is the peak of the process above what it held after its imports. Peers are written
as their users write them: AutoModelForCausalLM, get_peft_model, labels, AdamW. The ratio is one of
processor time, which other programs on the machine do not lengthen.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from measure import with_our_heap

CASES = ("ours lora", "ours lora, checkpointing", "ours qlora", "peft lora", "peft qlora")


def memory(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} in /proc/self/status")


def shape(options: argparse.Namespace) -> dict[str, int]:
    return {
        "hidden_size": options.width,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.width // 64,
        "intermediate_size": 4 * options.width
        if options.family == "phi"
        else 11 * options.width // 4,
        "vocab_size": options.vocabulary,
        "max_position_embeddings": 2048,
    }


def autocast(options: argparse.Namespace) -> Any:
    """Mixed precision on both sides alike."""
    import torch

    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.precision == "bf16")


def ours(options: argparse.Namespace, case: str) -> Any:
    """A step of ours: tokens and targets → loss."""
    import dataclasses

    import torch

    from yunque import runtime
    from yunque.adapt.lora import apply_method
    from yunque.config import AdaptConfig, OptimConfig
    from yunque.model.decoder import Decoder
    from yunque.model.presets import preset
    from yunque.train.loss import cross_entropy_sum
    from yunque.train.optim import Optimizers
    from yunque.weights.families import module_names

    runtime.keep_freed_memory()  # as every run of ours does before its first update
    given = shape(options)
    phi = options.family == "phi"
    config = dataclasses.replace(
        preset("phi-2.8b" if phi else "llama-1.1b"),
        hidden_size=given["hidden_size"],
        num_layers=given["num_hidden_layers"],
        num_heads=given["num_attention_heads"],
        num_kv_heads=given["num_attention_heads"],
        intermediate_size=given["intermediate_size"],
        vocab_size=given["vocab_size"],
        context_length=2048,
        rotary_fraction=0.5 if phi else 1.0,
        dropout=0.0,
    )
    if options.precision == "bf16":
        torch.set_default_dtype(torch.bfloat16)  # a base that is stored so is kept so
    model = Decoder(config, seed=0)
    torch.set_default_dtype(torch.float32)
    method = "qlora" if "qlora" in case else "lora"
    settings = AdaptConfig(method=method, rank=options.rank, alpha=2.0 * options.rank)
    apply_method(model, settings, 0, module_names(config))
    model.checkpointing = "checkpointing" in case
    model.train()
    optimizers = Optimizers(model, OptimConfig(learning_rate=2e-4, weight_decay=0.0))

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> float:
        with autocast(options):
            hidden = model(tokens)
            loss = cross_entropy_sum(hidden, model.head, targets) / (targets != -100).sum()
        loss.backward()
        optimizers.step()
        optimizers.zero_grad()
        return float(loss)

    return step


def peers(options: argparse.Namespace, case: str) -> Any:
    """A step of transformers + PEFT: tokens and labels → loss."""
    import peft
    import torch
    import transformers

    config: Any
    kept = torch.bfloat16 if options.precision == "bf16" else torch.float32
    if options.family == "phi":
        config = transformers.PhiConfig(
            **shape(options), partial_rotary_factor=0.5, resid_pdrop=0.0
        )
    else:
        config = transformers.LlamaConfig(**shape(options), tie_word_embeddings=False)
    if "qlora" in case:
        import tempfile

        from transformers import BitsAndBytesConfig

        with tempfile.TemporaryDirectory() as folder:
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                quantization_config=BitsAndBytesConfig(
                    load_in_4bit=True,
                    bnb_4bit_quant_type="nf4",
                    bnb_4bit_use_double_quant=True,
                    bnb_4bit_compute_dtype=kept,
                ),
                dtype=kept,
            )
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=kept)
    lora = peft.LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear")
    model = peft.get_peft_model(model, lora).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)

    def step(tokens: torch.Tensor, targets: torch.Tensor) -> float:
        with autocast(options):
            loss = model(input_ids=tokens, labels=tokens.where(targets != -100, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return step


def run_case(options: argparse.Namespace) -> None:
    """One case, in this process; prints a JSON object."""
    import peft  # noqa: F401  (imports of both sides before the first measure)
    import torch
    import transformers  # noqa: F401

    torch.manual_seed(0)
    before = memory("VmRSS")
    step = (ours if options.case.startswith("ours") else peers)(options, options.case)
    built = memory("VmHWM") - before
    held = memory("VmRSS") - before
    seconds, busy = [], []
    for _ in range(options.steps + 1):
        tokens = torch.randint(0, options.vocabulary, (1, options.length))
        targets = tokens.roll(-1, 1)
        targets[:, : options.length // 2] = -100
        began, computed = time.perf_counter(), time.process_time()
        step(tokens, targets)
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - computed)
    peak = memory("VmHWM") - before
    found = {
        "built": built,
        "held": held,
        "peak": peak,
        "step": statistics.median(seconds[1:]),
        "processor": statistics.median(busy[1:]),
    }
    print(json.dumps(found))


def main() -> None:
    """Every case in a process of its own, twice in turn; a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=("llama", "phi"), default="llama")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--case", default="")
    options = parser.parse_args()
    if options.case:
        run_case(options)
        return
    results: dict[str, dict[str, float]] = {}
    for case in options.cases:
        words = [sys.executable, __file__, "--case", case]
        for name in (
            "family",
            "layers",
            "width",
            "vocabulary",
            "length",
            "rank",
            "steps",
            "precision",
        ):
            words += [f"--{name}", str(getattr(options, name))]
        environment = with_our_heap() if case.startswith("ours") else None
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        if done.returncode:
            print(f"{case}: failed: {done.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        results[case] = json.loads(done.stdout.splitlines()[-1])
    print(
        "| case | held after building, GB | peak, GB | s/step | processor s/step "
        "| peak ÷ peer | processor ÷ peer |"
    )
    print("|---|---|---|---|---|---|---|")
    for case, found in results.items():
        peer = results.get("peft qlora" if "qlora" in case else "peft lora", found)
        print(
            f"| {case} | {found['held'] / 1e9:.2f} | {found['peak'] / 1e9:.2f} "
            f"| {found['step']:.2f} | {found['processor']:.2f} "
            f"| {found['peak'] / peer['peak']:.2f} "
            f"| {found['processor'] / peer['processor']:.2f} |"
        )


if __name__ == "__main__":
    main()
