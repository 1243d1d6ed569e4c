"""What a run ran on: versions, hardware, commit, seed. No environment variable, no secret."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import yunque
from yunque.config import Recipe
from yunque.runtime import Runtime, usable_cores

PACKAGES = ("numpy", "torch", "transformers", "tokenizers", "safetensors", "accelerate")


def environment(runtime: Runtime, recipe: Recipe) -> dict[str, Any]:
    """The facts that somebody needs to repeat a run."""
    gpu = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else None
    return {
        "yunque": yunque.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": processor(),
        "cores": len(usable_cores()),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "device": str(runtime.device),
        "precision": runtime.precision,
        "processes": runtime.world,
        "seed": recipe.machine.seed,
    }


def version(package: str) -> str | None:
    """Installed version of a package, None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Commit of the checkout that this package runs from, None for an installed package."""
    here = Path(__file__).resolve().parent
    if not (here.parents[2] / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
