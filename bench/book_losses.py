"""The losses of the book's job: AdamW in float32 against the path that takes the least memory.

    python bench/train.py --job book-losses TEXT [--seeds 3] [--steps 90] [--only 1:fast]

Both paths train the same model from the same seed on the same windows of TEXT (any file in UTF-8,
its last tenth held out): `usual` is AdamW in float32 as recipes/the-verdict-gpt2-124m.toml asks for
it, `fast` is `update_in_backward` with `adamw16bit`, in bf16 where the processor has it. Each seed
and path is a process of its own, whose rows are appended to bench/results/book-losses.jsonl once it
has ended: what stands there for the same work is not done again, and `--only SEED:PATH` does one of
them. The table and the picture are made of all that is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import measure
import torch
from measure import peak_memory, worker, write_result

PATHS = {"usual": ("adamw", False, "fp32"), "fast": ("adamw16bit", True, "auto")}
"""Optimizer, whether updates are made on the way back, and precision."""
LAST = 10
"""Losses whose mean is compared: single ones depend on the batch."""
RECIPE = Path(__file__).parents[1] / "recipes" / "the-verdict-gpt2-124m.toml"


@dataclasses.dataclass(frozen=True)
class Work:
    """What is trained; two with equal names are the same work."""

    text: Path
    steps: int
    layers: int = 12
    width: int = 768
    vocabulary: int = 50257
    context: int = 256

    @property
    def name(self) -> str:
        content = hashlib.sha256(self.text.read_bytes()).hexdigest()[:12]
        sizes = (self.steps, self.layers, self.width, self.vocabulary, self.context)
        return "-".join(map(str, (content, *sizes)))


def windows(work: Work) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of training and of held-out tokens, `(windows, T + 1)`, side by side."""
    from yunque.data.vocabularies import train_backend

    text = work.text.read_text(encoding="utf-8")
    border = int(0.9 * len(text))
    backend = train_backend(f"bpe:{min(4096, work.vocabulary)}", lambda: iter([text[:border]]), [])

    def cut(part: str) -> torch.Tensor:
        ids = torch.tensor(backend.encode(part).ids)
        count = (len(ids) - 1) // work.context
        if not count:
            raise SystemExit(f"{work.text}: less than {work.context + 1} tokens in a part of it.")
        starts = (torch.arange(count) * work.context).unsqueeze(1)
        return ids[starts + torch.arange(work.context + 1)]

    return cut(text[:border]), cut(text[border:])


def precisions() -> dict[str, str]:
    """The precision in which each path is computed on this processor."""
    from yunque.runtime import pick_precision

    here = torch.device("cpu")
    return {path: pick_precision(precision, here) for path, (*_, precision) in PATHS.items()}


def train(work: Work, seed: int, path: str) -> dict[str, Any]:
    """One seed of one path in this process: the loss of every step, and the held-out one."""
    from ours import our_step

    from yunque import runtime
    from yunque.assemble.recipes import base_recipe
    from yunque.model.decoder import Decoder
    from yunque.train.loss import cross_entropy_sum

    optimizer, in_backward, precision = PATHS[path]
    recipe = base_recipe(str(RECIPE), "").replace(
        device="cpu", precision=precision, optimizer=optimizer
    )
    shape = dataclasses.replace(
        recipe.model,
        vocab_size=work.vocabulary,
        context_length=work.context,
        num_layers=work.layers,
        hidden_size=work.width,
        intermediate_size=4 * work.width,
    )
    learnt, held_out = windows(work)
    batch, losses = recipe.train.batch_size, []
    each = len(learnt) // batch  # updates in an epoch
    model = Decoder(shape, seed=seed)
    where = runtime.start(recipe.machine)

    def drawn(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, place = divmod(step, each)
        order = torch.randperm(
            len(learnt), generator=torch.Generator().manual_seed(1000 * seed + epoch)
        )
        both = learnt[order[place * batch : (place + 1) * batch]]  # (B, T + 1)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    step = our_step(
        model,
        recipe.optim,
        where,
        drawn,
        in_backward=in_backward,
        seed=seed,
    )
    began = time.perf_counter()
    for number in range(work.steps):
        losses.append(step(number))
        print(
            f"{path} seed {seed} step {number + 1}: {losses[-1]:.4f}", file=sys.stderr, flush=True
        )
    seconds = (time.perf_counter() - began) / work.steps
    model.eval()
    with torch.no_grad():
        sums = [
            cross_entropy_sum(model(row[:, :-1]), model.head, row[:, 1:]).item()
            for row in held_out.split(1)
        ]
    val = sum(sums) / (len(held_out) * work.context)
    memory = peak_memory(torch.device("cpu"))
    name = f"{path}, {where.precision}"
    answer = {"work": work.name, "seed": seed, "path": path, "name": name}
    answer |= {"losses": losses, "val": val}
    return {**answer, "seconds": seconds, "memory": memory}


def done(work: Work) -> list[dict[str, Any]]:
    """The rows of this work that are there."""
    file = measure.RESULTS / "book-losses.jsonl"
    rows = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    here = {f"{path}, {kind}" for path, kind in precisions().items()}
    found = [row for row in map(json.loads, rows) if row["work"] == work.name]
    return [row for row in found if row.get("name") in here]


def compare(work: Work, seeds: int, only: str) -> None:
    """Do what is missing; the table and the picture of what is there."""
    wanted = [(seed, path) for seed in range(1, seeds + 1) for path in PATHS]
    if only:
        seed, _, path = only.partition(":")
        wanted = [(int(seed), path)]
    there = {(row["seed"], row["path"]) for row in done(work)}
    measure.RESULTS.mkdir(exist_ok=True)
    for seed, path in wanted:
        if (seed, path) not in there:
            shape = [f"--{name}={value}" for name, value in dataclasses.asdict(work).items()]
            answer = worker(__file__, [*shape, f"--seed={seed}", f"--path={path}"], ours=True)
            with (measure.RESULTS / "book-losses.jsonl").open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(answer) + "\n")
    rows = done(work)
    lines = [
        f"{work.steps} updates of {work.layers} layers x {work.width}; mean of the last {LAST} "
        "training losses, and the loss of what was held out, in nats per token.",
        "",
        "| path | seed | training | held out | s/step | peak memory, GB |",
        "|---|---|---|---|---|---|",
    ]
    ends: dict[str, dict[int, tuple[float, float]]] = {path: {} for path in PATHS}
    for row in sorted(rows, key=lambda row: (row["path"], row["seed"])):
        end = statistics.mean(row["losses"][-LAST:])
        ends[row["path"]][row["seed"]] = (end, row["val"])
        lines.append(
            f"| {row['name']} | {row['seed']} | {end:.4f} | {row['val']:.4f} "
            f"| {row['seconds']:.2f} | {row['memory'] / 1e9:.2f} |"
        )
    both = sorted(ends["usual"].keys() & ends["fast"].keys())
    if len(both) > 1:
        for place, what in enumerate(("training", "held out")):
            usual = [ends["usual"][seed][place] for seed in both]
            apart = [ends["fast"][seed][place] - ends["usual"][seed][place] for seed in both]
            lines += [
                "",
                f"{what}: fast - usual {statistics.mean(apart):+.4f} (each seed "
                f"{', '.join(f'{one:+.4f}' for one in apart)}); between the seeds of usual "
                f"{max(usual) - min(usual):.4f}.",
            ]
    write_result("book-losses", "The losses of the book's job", lines, torch.device("cpu"))
    draw(rows)


def draw(rows: list[dict[str, Any]]) -> None:
    """bench/results/book-losses.png: every curve, a colour for each path."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(PATHS, ("tab:blue", "tab:orange"), strict=True))
    for row in rows:
        label = f"{row['name']}, seed {row['seed']}"
        style = ("-", "--", ":")[(row["seed"] - 1) % 3]
        steps = range(1, len(row["losses"]) + 1)
        axes.plot(steps, row["losses"], style, color=colours[row["path"]], label=label, lw=1)
    axes.set_xlabel("update")
    axes.set_ylabel("training loss, nats per token")
    axes.legend()
    figure.savefig(measure.RESULTS / "book-losses.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path, required=True)
    for name in ("steps", "layers", "width", "vocabulary", "context", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--path", choices=PATHS, required=True)
    options = vars(parser.parse_args())
    seed, path = options.pop("seed"), options.pop("path")
    print(json.dumps(train(Work(**options), seed, path)))


if __name__ == "__main__":
    main()
