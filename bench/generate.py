"""Generation at the shape of GPT-2 124M: ours beside the peers, in turn, in one run.

    python bench/generate.py --threads 1 --rounds 3 --litgpt PYTHON

Random float32 weights on the CPU, greedy, a prompt of 16 tokens, 200 new ones, batch 1 and 16. Each
contender is a process of its own that is built once and then asked in turn, so that a slow moment
of the machine meets all of them. `loop` is what a beginner's book teaches: the whole text through
the model for every token. Its cost depends on the length alone, so it reads every tenth length
and each of them counts for ten. LitGPT runs where the Python named by `--litgpt` has it.

The limit is the time in which the weights can be read once a token, at the bandwidth of a plain sum
over memory that is measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

VOCABULARY, WIDTH, LAYERS, HEADS, CONTEXT = 50_257, 768, 12, 12, 1024
THIN = 10  # the loop without a cache is measured at every so many lengths
Ask = Callable[[list[list[int]], int], None]


def ours(weights: str) -> Ask:
    """Our own decoding; `weights` as in `load`."""
    from yunque.config import GenerateConfig
    from yunque.generate.decode import generate
    from yunque.model.decoder import Decoder
    from yunque.model.int8 import to_int8
    from yunque.model.presets import preset

    model = Decoder(preset("gpt2-124m"), seed=0).eval()
    if weights == "int8":
        to_int8(model)

    def ask(prompts: list[list[int]], new: int) -> None:
        settings = GenerateConfig(max_new_tokens=new, temperature=0.0)
        made = generate(model, prompts, settings, end_ids=())
        assert [len(ids) for ids in made.token_ids] == [new] * len(prompts)

    return ask


def transformers() -> Ask:
    """transformers' generate with its cache."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(eos_token_id=None, bos_token_id=None)).eval()

    def ask(prompts: list[list[int]], new: int) -> None:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new,
                pad_token_id=0,
            )
        assert made.shape[1] == ids.shape[1] + new

    return ask


def litgpt() -> Ask:
    """LitGPT's generate: it has no learned positions, so GPT-NeoX's with the sizes of GPT-2."""
    import torch
    from litgpt import GPT, Config
    from litgpt.generate import base

    config = Config(
        name="124m",
        block_size=CONTEXT,
        vocab_size=VOCABULARY,
        padded_vocab_size=VOCABULARY,
        n_layer=LAYERS,
        n_head=HEADS,
        n_embd=WIDTH,
        rotary_percentage=0.25,
        parallel_residual=False,
        bias=True,
    )
    model = GPT(config).eval()

    def ask(prompts: list[list[int]], new: int) -> None:
        ids = torch.tensor(prompts)
        total = ids.shape[1] + new
        with torch.inference_mode():
            model.max_seq_length = total
            model.set_kv_cache(batch_size=len(prompts))
            if len(prompts) == 1:
                made = base.generate(model, ids[0], total, temperature=0.0, top_p=0.0)
                assert len(made) == total
            else:
                told = {"temperature": 0.0, "top_p": 0.0}
                steps = base.batched_generate_fn(
                    model, ids, total, sample_args=told, include_prompt=False, include_eos=True
                )
                assert len(list(steps)) == new
            model.clear_kv_cache()

    return ask


def loop() -> Ask:
    """The loop without a cache, over attention written out with its softmax and its mask."""
    import torch
    from torch import Tensor, nn

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
            self.gelu = nn.GELU(approximate="tanh")

        def forward(self, x: Tensor) -> Tensor:
            B, T, _ = x.shape
            normed = self.before(x)
            q, k, v = (
                made(normed).view(B, T, HEADS, WIDTH // HEADS).transpose(1, 2)
                for made in (self.query, self.key, self.value)
            )  # (B, H, T, D)
            later = torch.ones(T, T, dtype=torch.bool).triu(1)
            scores = (q @ k.transpose(2, 3)).masked_fill(later, float("-inf"))
            mixed = (scores / (WIDTH // HEADS) ** 0.5).softmax(dim=-1) @ v
            x = x + self.out(mixed.transpose(1, 2).reshape(B, T, WIDTH))
            return x + self.narrow(self.gelu(self.widen(self.between(x))))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, WIDTH)
            self.places = nn.Embedding(CONTEXT, WIDTH)
            self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
            self.last = nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
            return self.head(self.last(self.layers(x)))

    model = Plain().eval()

    def ask(prompts: list[list[int]], new: int) -> None:
        ids = torch.tensor(prompts)
        for _ in range(0, new, THIN):
            with torch.no_grad():
                logits = model(ids[:, -CONTEXT:])
            best = logits[:, -1].argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, best.expand(-1, THIN)], dim=1)

    return ask


CONTENDERS: dict[str, Callable[[], Ask]] = {
    "ours": lambda: ours("full"),
    "ours, int8": lambda: ours("int8"),
    "transformers, cache": transformers,
    "LitGPT": litgpt,
    "loop without cache": loop,
}


def memory(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} in /proc/self/status")


def work(name: str, threads: int) -> None:
    """One contender: a JSON line for each line of requests, until they end."""
    import torch

    torch.set_num_threads(threads)
    ask = CONTENDERS[name]()
    ask([[7] * 16], 2)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        batch, prompt, new = json.loads(line)
        draw = torch.Generator().manual_seed(batch)
        prompts = torch.randint(0, VOCABULARY, (batch, prompt), generator=draw).tolist()
        began = time.perf_counter()
        ask(prompts, new)
        seconds = (time.perf_counter() - began) * (THIN if name.startswith("loop") else 1)
        print(json.dumps({"seconds": seconds, "peak": memory("VmHWM")}), flush=True)


def bandwidth(threads: int) -> float:
    """Bytes a second that a sum over 256 MB reads, the median of nine."""
    import torch

    torch.set_num_threads(threads)
    numbers = torch.ones(64 * 2**20)
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - began)
    return numbers.nbytes / statistics.median(seconds)


def main() -> None:
    """Ask the contenders in turn; print a table for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--litgpt", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.threads)
        return

    workers: dict[str, subprocess.Popen[str]] = {}
    for name in options.only:
        python = options.litgpt if name == "LitGPT" else sys.executable
        words = [python, __file__, "--work", name, "--threads", str(options.threads)]
        worker = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stderr is not None
        if worker.stdout.readline():
            workers[name] = worker
        else:
            print(f"{name}: left out: {worker.stderr.read().strip().splitlines()[-1]}", flush=True)

    parameters = LAYERS * 12 * WIDTH**2 + VOCABULARY * WIDTH  # matrices; the rest is a thousandth
    for batch in options.batches:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        rates = []
        for _ in range(options.rounds):
            rates.append(bandwidth(options.threads))
            for name, worker in workers.items():
                assert worker.stdin is not None
                assert worker.stdout is not None
                print(json.dumps([batch, options.prompt, options.new]), file=worker.stdin)
                worker.stdin.flush()
                found[name].append(json.loads(worker.stdout.readline()))
        rate = statistics.median(rates)
        print(
            f"\nbatch {batch}, {options.threads} threads; memory is read at {rate / 1e9:.1f} GB/s"
        )
        print("| contender | tokens/s | time ÷ ours | peak, GB | share of the limit |")
        print("|---|---|---|---|---|")
        first = next(iter(found))
        for name, asked in found.items():
            seconds = statistics.median(entry["seconds"] for entry in asked)
            ratios = [
                entry["seconds"] / base["seconds"]
                for entry, base in zip(asked, found[first], strict=True)
            ]
            limit = options.new * 4 * parameters / rate
            print(
                f"| {name} | {batch * options.new / seconds:.1f} "
                f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
                f"| {asked[-1]['peak'] / 1e9:.2f} | {limit / seconds:.2f} |",
                flush=True,
            )
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()


if __name__ == "__main__":
    main()
