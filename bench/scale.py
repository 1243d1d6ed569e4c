"""How time and memory grow with the model, the context, the vocabulary and the corpus.

    python bench/scale.py [--axes parameters context vocabulary corpus] [--device cuda] [--steps 5]

One thing is varied at a time and every case is a process of its own. A training step counts
its arithmetic (matrix products and attention, forward and backward) and its bytes by the same
account as `yunque plan`; GFLOP/s that stay level mean that time grows as the arithmetic says.
The corpus is repeated prose of our own, prepared as bytes and as a small BPE vocabulary.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from measure import matrix_peak, peak_memory, wait, worker, write_result
from ours import our_step

from yunque import runtime
from yunque.config import DataConfig, MachineConfig, ModelConfig, OptimConfig, TrainConfig
from yunque.data.prepare import prepare
from yunque.forecast.memory import peak_memory as forecast_memory
from yunque.forecast.work import Workload, pass_work, update_work
from yunque.model.decoder import Decoder

WARM = 2
AXES: dict[str, list[tuple[int, ...]]] = {
    # layers, width, heads, vocabulary, context, batch
    "parameters": [
        (4, 128, 4, 2_000, 256, 8),
        (6, 256, 4, 4_000, 256, 8),
        (8, 512, 8, 8_000, 256, 4),
        (10, 640, 10, 12_000, 256, 4),
        (12, 768, 12, 50_257, 256, 2),
        (24, 1024, 16, 50_257, 256, 1),
    ],
    "context": [(6, 256, 4, 4_000, 64 * 4**k, 64 // 4**k) for k in range(4)],
    "vocabulary": [(6, 256, 4, size, 256, 8) for size in (70, 500, 4_000, 16_000, 32_000, 50_257)],
    "corpus": [(1,), (10,), (100,), (500,), (2_000,)],  # MB
}
SENTENCE = "En la fragua suena el yunque {n} veces, y nadie cuenta las chispas que se apagan.\n"


def step_of(case: tuple[int, ...], steps: int, device: str) -> dict[str, float]:
    """Seconds and memory of a step in this process, and what the account says of it."""
    layers, width, heads, vocabulary, context, batch = case
    shape = ModelConfig(
        preset="",
        vocab_size=vocabulary,
        context_length=context,
        num_layers=layers,
        hidden_size=width,
        num_heads=heads,
        dropout=0.0,
    )
    where = runtime.start(MachineConfig(device=device, precision="fp32"))
    base = peak_memory(where.device)
    decoder, optim = Decoder(shape, seed=1), OptimConfig()

    def drawn(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        dice = torch.Generator().manual_seed(number)
        both = torch.randint(0, vocabulary, (batch, context + 1), generator=dice)  # (B, T + 1)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    step = our_step(decoder, optim, where, drawn)
    seconds = []
    for number in range(WARM + steps):
        wait(where.device)
        began = time.perf_counter()
        step(number)
        wait(where.device)
        seconds.append(time.perf_counter() - began)
    job = Workload(decoder.config, TrainConfig(batch_size=batch), optim, device=where.device.type)
    work = pass_work(job, batch, backward=True) + update_work(job)
    return {
        "parameters": sum(weight.numel() for weight in decoder.parameters()),
        "tokens": batch * context,
        "seconds": statistics.median(seconds[WARM:]),
        "operations": work.matrix_operations + work.attention_operations,
        "attention": work.attention_operations,
        "memory": peak_memory(where.device),
        "forecast": forecast_memory(job, base).total,
    }


def preparation_of(megabytes: int, tokenizer: str) -> dict[str, float]:
    """Seconds and memory of preparing a corpus of that size."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "corpus.txt"
        with text.open("w", encoding="utf-8") as file:
            written = number = 0
            while written < megabytes * 1_000_000:
                lines = "".join(SENTENCE.format(n=number + k) for k in range(1_000))
                number += 1_000
                written += file.write(lines)  # ASCII: a character is a byte
        began = time.perf_counter()
        settings = DataConfig(tokenizer=tokenizer)
        facts = prepare([str(text)], settings, Path(folder) / "out").facts
        return {
            "seconds": time.perf_counter() - began,
            "tokens": sum(facts["tokens"].values()),
            "memory": peak_memory(torch.device("cpu")),
        }


def table_of_steps(axis: str, steps: int, device: torch.device) -> list[str]:
    """One line for each case of an axis."""
    lines = [
        f"## {axis}",
        "",
        "| layers × width | vocabulary | context × batch | parameters | GFLOP a step "
        "| of it attention | s/step | GFLOP/s | peak, GB | peak by the account |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in AXES[axis]:
        told = ["--one", json.dumps(case), "--steps", str(steps), "--device", str(device)]
        got = worker(__file__, told, ours=True)
        layers, width, _, vocabulary, context, batch = case
        lines.append(
            f"| {layers} × {width} | {vocabulary:,} | {context:,} × {batch} "
            f"| {got['parameters'] / 1e6:.1f} M | {got['operations'] / 1e9:.1f} "
            f"| {got['attention'] / got['operations']:.0%} | {got['seconds']:.3f} "
            f"| {got['operations'] / got['seconds'] / 1e9:.0f} | {got['memory'] / 1e9:.2f} "
            f"| {got['forecast'] / got['memory']:.2f} × |"
        )
        print(lines[-1], flush=True)
    return [*lines, ""]


def table_of_corpora() -> list[str]:
    """One line for each size and tokenizer."""
    lines = [
        "## corpus",
        "",
        "| MB | tokenizer | tokens | s | MB/s | peak, GB |",
        "|---|---|---|---|---|---|",
    ]
    for tokenizer in ("byte", "bpe:4096"):
        for (megabytes,) in AXES["corpus"]:
            got = worker(__file__, ["--one", json.dumps([megabytes, tokenizer])], ours=True)
            lines.append(
                f"| {megabytes:,} | {tokenizer} | {got['tokens'] / 1e6:.1f} M "
                f"| {got['seconds']:.1f} | {megabytes / got['seconds']:.1f} "
                f"| {got['memory'] / 1e9:.2f} |"
            )
            print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    """All cases of the axes, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case = json.loads(options.one)
        if len(case) == 2:
            print(json.dumps(preparation_of(*case)))
        else:
            print(json.dumps(step_of(tuple(case), options.steps, options.device)))
        return
    device = torch.device(options.device)
    lines = [f"Best matrix product: {matrix_peak(device, torch.float32) / 1e9:.0f} GFLOP/s.", ""]
    for axis in options.axes:
        steps = axis != "corpus"
        lines += table_of_steps(axis, options.steps, device) if steps else table_of_corpora()
    write_result(f"scale-{device.type}", "Cost against size", lines, device)


if __name__ == "__main__":
    main()
