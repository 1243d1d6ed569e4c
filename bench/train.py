"""How fast a training step is: Yunque against the plain loop and the peers, on the same work.

    python bench/train.py --job book [--rounds 3] [--steps 5] [--device cuda] [--precision bf16]
                          [--contenders book:fp32 litgpt:fp32 litgpt:bf16 ours:bf16]
    python bench/train.py --job book-losses TEXT [--seeds 3] [--steps 90] [--only 1:fast]
    python bench/train.py --job shakespeare TEXT [--seeds 3]

`book` is the job of chapter 5 of S. Raschka's "Build a Large Language Model (From Scratch)": the
shape of GPT-2 124M, context 256, batch 2, dropout 0.1, AdamW. In every round each contender is a
process of its own, one after the other; two steps warm up, the median of the others counts. Seconds
a step are the median of the rounds, and so are the ratios within each round to the first contender.
Peers that are not installed are left out: pip install llms-from-scratch litgpt

`book-losses` holds the losses of that job against those of the path that takes the least memory
(bench/book_losses.py).

`shakespeare` is nanoGPT's job for CPUs (bench/shakespeare.py).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plain
import torch
from measure import matrix_peak, peak_memory, spread, wait, worker, write_result

BOOK = plain.Shape(50257, 256, 12, 12, 768, dropout=0.1)
BATCH, RATE, DECAY, WARM = 2, 4e-4, 0.1, 2

Step = Callable[[int], float]
"""Number of the step → its loss."""


def tokens(step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of a step, `(B, T)`: the same for every contender."""
    drawn = torch.Generator().manual_seed(step)
    both = torch.randint(0, BOOK.vocab_size, (BATCH, BOOK.context + 1), generator=drawn)
    return both[:, :-1].contiguous().to(device), both[:, 1:].contiguous().to(device)


def loop(model: torch.nn.Module, device: torch.device, precision: str) -> Step:
    """The loop of a tutorial around a model that gives logits."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)

    def step(number: int) -> float:
        inputs, targets = tokens(number, device)
        optimizer.zero_grad()
        with autocast(device, precision):
            loss = plain.loss_of(model, inputs, targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def plain_loop(device: torch.device, precision: str) -> Step:
    return loop(plain.GPT(BOOK), device, precision)


def plain_loop_our_memory(device: torch.device, precision: str) -> Step:
    from yunque import runtime

    runtime.keep_freed_memory()
    return plain_loop(device, precision)


def plain_compiled(device: torch.device, precision: str) -> Step:
    fused = dataclasses.replace(BOOK, fused_attention=True)
    return loop(torch.compile(plain.GPT(fused)), device, precision)  # type: ignore[arg-type]


def book_package(device: torch.device, precision: str) -> Step:
    from llms_from_scratch.ch04 import GPTModel

    shape = {
        "vocab_size": BOOK.vocab_size,
        "context_length": BOOK.context,
        "emb_dim": BOOK.width,
        "n_heads": BOOK.heads,
        "n_layers": BOOK.layers,
        "drop_rate": BOOK.dropout,
        "qkv_bias": False,
    }
    return loop(GPTModel(shape), device, precision)


def book_our_memory(device: torch.device, precision: str) -> Step:
    from yunque import runtime

    runtime.keep_freed_memory()
    return book_package(device, precision)


def litgpt(device: torch.device, precision: str) -> Step:
    """LitGPT has no dropout and no learned positions: its job is the lighter one."""
    from litgpt import GPT, Config

    shape = Config(
        n_layer=BOOK.layers,
        n_head=BOOK.heads,
        n_embd=BOOK.width,
        block_size=BOOK.context,
        vocab_size=BOOK.vocab_size,
        padded_vocab_size=BOOK.vocab_size,
    )
    return loop(GPT(shape), device, precision)


def ours(
    device: torch.device, precision: str, *, in_backward: bool = False, optimizer: str = "adamw"
) -> Step:
    """Yunque's update, with the model and the optimizer that recipes/the-verdict… asks for."""
    from ours import our_step

    from yunque import runtime
    from yunque.assemble.recipes import base_recipe
    from yunque.model.decoder import Decoder

    path = Path(__file__).parents[1] / "recipes" / "the-verdict-gpt2-124m.toml"
    recipe = base_recipe(str(path), "").replace(
        device=str(device), precision=precision, optimizer=optimizer
    )
    where = runtime.start(recipe.machine)
    shape = dataclasses.replace(recipe.model, vocab_size=BOOK.vocab_size)
    cpu = torch.device("cpu")
    return our_step(
        Decoder(shape, seed=1),
        recipe.optim,
        where,
        lambda number: tokens(number, cpu),
        in_backward=in_backward,
    )


CONTENDERS: dict[str, tuple[str, Callable[[torch.device, str], Step] | None, str]] = {
    "plain": ("the plain loop", plain_loop, "torch"),
    "plain-memory": ("the plain loop, our memory settings", plain_loop_our_memory, "yunque"),
    "plain-compiled": ("the plain loop, fused attention, compiled", plain_compiled, "torch"),
    "book": ("llms-from-scratch", book_package, "llms_from_scratch"),
    "book-memory": ("llms-from-scratch, our memory settings", book_our_memory, "llms_from_scratch"),
    "trainer": ("transformers Trainer", None, "transformers"),
    "litgpt": ("LitGPT, without dropout", litgpt, "litgpt"),
    "ours": ("yunque", ours, "yunque"),
    "ours-backward": (
        "yunque, update_in_backward",
        functools.partial(ours, in_backward=True),
        "yunque",
    ),
    "ours-16bit": (
        "yunque, adamw16bit",
        functools.partial(ours, optimizer="adamw16bit"),
        "yunque",
    ),
    "ours-both": (
        "yunque, update_in_backward and adamw16bit",
        functools.partial(ours, in_backward=True, optimizer="adamw16bit"),
        "yunque",
    ),
}


def time_steps(step: Step, count: int, device: torch.device) -> tuple[list[float], float]:
    """Seconds of each step behind the warm-up, and the last loss."""
    seconds, loss = [], 0.0
    for number in range(WARM + count):
        wait(device)
        began = time.perf_counter()
        loss = step(number)
        wait(device)
        seconds.append(time.perf_counter() - began)
    return seconds[WARM:], loss


def time_trainer(count: int, device: torch.device, precision: str) -> tuple[list[float], float]:
    """The same for transformers' Trainer, which owns its loop and calls us back."""
    import tempfile

    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        logging,
    )

    logging.set_verbosity_error()
    drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), BOOK.dropout)
    shape = GPT2Config(n_positions=BOOK.context, tie_word_embeddings=False, **drop)
    rows = [tokens(step, torch.device("cpu"))[0] for step in range(WARM + count)]
    dataset = [{"input_ids": row, "labels": row} for both in rows for row in both]
    seconds: list[float] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            wait(device)
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wait(device)
            seconds.append(time.perf_counter() - self.began)

    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            max_steps=WARM + count,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            weight_decay=DECAY,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            use_cpu=device.type == "cpu",
            bf16=precision == "bf16",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        made = Trainer(GPT2LMHeadModel(shape), settings, train_dataset=dataset, callbacks=[Watch()])
        with contextlib.redirect_stdout(io.StringIO()):
            loss = made.train().training_loss
    return seconds[WARM:], loss


def one(name: str, steps: int, device: torch.device, precision: str) -> None:
    """A contender in this process: prints its JSON answer."""
    torch.manual_seed(0)
    if name == "peak":
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        print(json.dumps({"peak": matrix_peak(device, dtype)}))
        return
    make = CONTENDERS[name][1]
    if make is None:
        seconds, loss = time_trainer(steps, device, precision)
    else:
        seconds, loss = time_steps(make(device, precision), steps, device)
    print(json.dumps({"seconds": seconds, "loss": loss, "memory": peak_memory(device)}))


def book(options: argparse.Namespace, device: torch.device) -> None:
    """The book's job: every contender in every round, and the table."""
    told = [
        f"{name}:{options.precision}" if ":" not in name else name for name in options.contenders
    ]
    asked = [tuple(name.split(":")) for name in told]
    names = [(name, kind) for name, kind in asked if importlib.util.find_spec(CONTENDERS[name][2])]
    for name, _ in sorted(set(asked) - set(names)):
        print(f"{CONTENDERS[name][0]} is not installed and left out")
    peaks = {precision: 0.0 for _, precision in names}
    times: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    every: dict[tuple[str, str], list[float]] = {name: [] for name in names}
    memory: dict[tuple[str, str], int] = dict.fromkeys(names, 0)

    def measured(name: str, precision: str, *more: str, ours: bool = False) -> dict[str, Any]:
        words = ["--one", name, "--device", str(device), "--precision", precision, *more]
        return worker(__file__, words, ours=ours)

    for _ in range(options.rounds):
        for precision in peaks:
            peaks[precision] = max(peaks[precision], measured("peak", precision)["peak"])
        for name, precision in names:
            ours = name.startswith("ours") or name.endswith("-memory")
            answer = measured(name, precision, "--steps", str(options.steps), ours=ours)
            who = name, precision
            times[who].append(statistics.median(answer["seconds"]))
            every[who] += answer["seconds"]
            memory[who] = max(memory[who], answer["memory"])
            print(f"{name:16} {precision} {times[who][-1]:.3f} s/step", flush=True)
    flops = BOOK.flops_per_token * BATCH * BOOK.context
    bounds = ", ".join(
        f"{precision} {peak / 1e9:.0f} GFLOP/s, so at best {flops / peak:.2f} s"
        for precision, peak in peaks.items()
    )
    lines = [
        f"{options.rounds} rounds, {options.steps} steps each. A step: {flops / 1e9:.0f} GFLOP; "
        f"best matrix product here: {bounds}. MFU is against the peak of the precision. Base of "
        f"the ratios: {names[0][0]}, {names[0][1]}.",
        "",
        "| | precision | s/step, rounds | s/step, all steps | times the base | peak memory, GB "
        "| MFU |",
        "|---|---|---|---|---|---|---|",
    ]
    for who in names:
        ratios = [a / b for a, b in zip(times[names[0]], times[who], strict=True)]
        share = flops / peaks[who[1]] / statistics.median(times[who])
        lines.append(
            f"| {CONTENDERS[who[0]][0]} | {who[1]} | {spread(times[who])} | {spread(every[who])} "
            f"| {spread(ratios)} | {memory[who] / 1e9:.2f} | {share:.0%} |"
        )
    kinds = "-".join(peaks)
    write_result(f"train-book-{device.type}-{kinds}", "The book's job", lines, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("text", nargs="?", type=Path, help="book-losses, shakespeare: the text")
    parser.add_argument("--job", choices=("book", "book-losses", "shakespeare"), default="book")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="0: 5, of book-losses 90")
    parser.add_argument("--only", default="", help="book-losses: SEED:PATH, as 1:fast or 2:usual")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    left_out = ("plain-compiled", "book-memory", "ours-backward", "ours-16bit")
    usual = [name for name in CONTENDERS if name not in left_out]
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=usual,
        metavar="NAME[:PRECISION]",
        help=f"of {', '.join(CONTENDERS)}",
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = {name.partition(":")[0] for name in options.contenders}.difference(CONTENDERS)
    if unknown:
        parser.error(
            f"no contender {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}"
        )
    device = torch.device(options.device)
    if options.one:
        one(options.one, options.steps or 5, device, options.precision)
    elif options.job == "book":
        options.steps = options.steps or 5
        book(options, device)
    elif options.job == "book-losses":
        import book_losses

        book_losses.compare(
            book_losses.Work(options.text, options.steps or 90), options.seeds, options.only
        )
    else:
        import shakespeare

        shakespeare.race(options.text, options.seeds, device)


if __name__ == "__main__":
    main()
