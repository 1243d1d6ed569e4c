"""Time to a loss: nanoGPT's job for CPUs, as a plain loop, against recipes/shakespeare-char.toml.

The job (A. Karpathy, nanoGPT, "I only have a macbook"): tinyshakespeare by characters, the last
tenth held out; 4 layers, 4 heads, 128 wide, context 64, batch 12, 2,000 updates, AdamW 1e-3 (betas
0.9 and 0.99, decay 0.1) with 100 updates of warm-up and a cosine to a tenth, clipping 1, no
dropout; every 250 updates 20 batches of each set are measured. `--rate` retunes it.

Both sides are processes, timed from the command to its end: imports, reading and encoding the text,
training with its evaluations; ours also writes its checkpoints, models and report in that time.
Then each predicts every held-out character once, in windows of its context of 64: not timed.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import plain
import torch
from measure import spread, worker, write_result

STEPS, BATCH, WARM_UP, EVERY, MEASURED = 2000, 12, 100, 250, 20
RATES = (1e-3, 3e-3)
RECIPE = Path(__file__).parents[1] / "recipes" / "shakespeare-char.toml"


def baseline(text: Path, seed: int, rate: float, device: torch.device) -> None:
    """The plain loop in this process; prints its JSON answer."""
    torch.manual_seed(seed)
    characters = text.read_text(encoding="utf-8")
    alphabet = {character: id for id, character in enumerate(sorted(set(characters)))}
    ids = torch.tensor([alphabet[character] for character in characters])
    border = int(0.9 * len(ids))
    train, val = ids[:border], ids[border:]
    shape = plain.Shape(len(alphabet), 64, 4, 4, 128, bias=False, tied=True, fused_attention=True)
    model = plain.GPT(shape).to(device)
    vectors = [p for p in model.parameters() if p.dim() < 2]
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))

    def batch(source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(len(source) - shape.context, (BATCH,)).tolist()
        rows = torch.stack([source[at : at + shape.context + 1] for at in starts]).to(device)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    for step in range(STEPS):
        if step % EVERY == 0:
            with torch.no_grad():
                for source in (train, val):
                    for _ in range(MEASURED):
                        plain.loss_of(model, *batch(source)).item()
        fall = (step - WARM_UP) / (STEPS - WARM_UP)
        warm = step < WARM_UP
        share = step / WARM_UP if warm else 0.1 + 0.45 * (1 + math.cos(math.pi * fall))
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        loss = plain.loss_of(model, *batch(train))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    ended = time.perf_counter()
    loss_at_end = held_out_loss(model, val, device)
    untimed = time.perf_counter() - ended
    print(json.dumps({"loss": loss_at_end, "untimed": untimed}))


@torch.no_grad()
def held_out_loss(model: plain.GPT, val: torch.Tensor, device: torch.device) -> float:
    """Nats per character, each of whole windows predicted once."""
    T = model.shape.context
    windows = (len(val) - 1) // T
    inputs = val[: windows * T].view(windows, T)
    targets = val[1 : windows * T + 1].view(windows, T)
    total = 0.0
    for start in range(0, windows, 128):
        part = slice(start, start + 128)
        loss = plain.loss_of(model, inputs[part].to(device), targets[part].to(device))
        total += loss.item() * len(inputs[part])
    return total / windows


def ours(text: Path, seed: int, device: torch.device) -> tuple[float, float]:
    """Whole seconds of `yunque pretrain` and the loss that it ends with."""
    from yunque.assemble.models import load

    with tempfile.TemporaryDirectory() as folder:
        run, held_out = Path(folder) / "run", Path(folder) / "val.txt"
        words = ["pretrain", str(text), "--recipe", str(RECIPE), "--seed", str(seed)]
        words += ["--device", str(device), "--out", str(run), "--quiet"]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "yunque.cli", *words], check=True, stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - began
        characters = text.read_text(encoding="utf-8")
        held_out.write_text(characters[int(0.9 * len(characters)) :], encoding="utf-8")
        return seconds, load(run).evaluate([str(held_out)]).loss


def race(text: Path, seeds: int, device: torch.device) -> None:
    """Each seed in turn: the baseline at each rate, then ours."""
    sides: dict[str, tuple[list[float], list[float]]] = {}
    for seed in range(1, seeds + 1):
        for rate in RATES:
            words = [
                "--baseline",
                "--seed",
                str(seed),
                "--rate",
                str(rate),
                "--device",
                str(device),
            ]
            answer = worker(__file__, [str(text), *words])
            seconds, losses = sides.setdefault(f"the plain loop, rate {rate:g}", ([], []))
            seconds.append(answer["seconds_whole"] - answer["untimed"])
            losses.append(answer["loss"])
            print(f"seed {seed}, rate {rate:g}: {seconds[-1]:.1f} s, {losses[-1]:.4f}", flush=True)
        whole, loss = ours(text, seed, device)
        seconds, losses = sides.setdefault("yunque, recipes/shakespeare-char.toml", ([], []))
        seconds.append(whole)
        losses.append(loss)
        print(f"seed {seed}, ours: {whole:.1f} s, {loss:.4f}", flush=True)
    base = next(iter(sides.values()))[0]
    lines = [
        f"{seeds} seeds, in turn. Seconds from the command to its end; loss in nats per character.",
        "",
        "| | seconds | share of the first | loss at the end |",
        "|---|---|---|---|",
    ]
    for name, (seconds, losses) in sides.items():
        shares = [one / other for one, other in zip(seconds, base, strict=True)]
        lines.append(f"| {name} | {spread(seconds, 1)} | {spread(shares)} | {spread(losses, 4)} |")
    write_result(
        f"train-shakespeare-{device.type}", "Tinyshakespeare: time to a loss", lines, device
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--baseline", action="store_true", help="the plain loop alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=RATES[0])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.baseline:
        baseline(options.text, options.seed, options.rate, device)
    else:
        race(options.text, options.seeds, device)


if __name__ == "__main__":
    main()
