"""What the benchmarks share: the machine and its limits, contenders as processes, the results."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from yunque import heap

RESULTS = Path(__file__).parent / "results"


def matrix_peak(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations a second in the best of several square matrix products."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        wait(device)
        began = time.perf_counter()
        torch.mm(a, b)
        wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def wait(device: torch.device) -> None:
    """Until the device has done what it was given: only then does a clock tell the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(device: torch.device) -> str:
    """The machine in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    has = [name for name, there in torch.cpu.get_capabilities().items() if there is True]
    wanted = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")
    return f"{os.cpu_count()} cores, {platform.machine()}, " + ", ".join(
        name for name in wanted if name in has
    )


def commit() -> str:
    """The commit that is measured, with + where the tree has changes."""
    run = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    return subprocess.run(run, capture_output=True, text=True, check=False).stdout.strip()


def with_our_heap() -> dict[str, str]:
    """The environment that a training command of ours runs in."""
    return {heap.VARIABLE: heap.TUNABLES, **os.environ} if heap.glibc() else dict(os.environ)


def worker(script: str, arguments: Sequence[str], *, ours: bool = False) -> dict[str, Any]:
    """Run `script` as a process of its own; the last line that it prints is its JSON answer.

    `seconds_whole` is added: wall time with start-up and imports.

    Args:
        ours: with the heap that the command gives itself.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=with_our_heap() if ours else None,
    )
    whole = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {**answer, "seconds_whole": whole}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median (lowest to highest)."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def write_result(name: str, title: str, lines: Sequence[str], device: torch.device) -> None:
    """Print the lines and keep them in bench/results/NAME.md with the command and the machine."""
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    # Names of files without the folders that they lie in here.
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = f"python bench/{Path(sys.argv[0]).name} {' '.join(words)}".strip()
    head = [
        f"# {title}",
        "",
        f"`{command}`, {now}, commit {commit()}, PyTorch {torch.__version__}; "
        f"{machine(device)}{load}.",
        "",
    ]
    text = "\n".join([*head, *lines, ""])
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
