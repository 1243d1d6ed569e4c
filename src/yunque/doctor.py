"""What this machine has, layer by layer from Python to the GPU: there, missing, too old or broken.

`gather` looks, `judge` decides: the second is a pure function of the facts, so that a test can
show it a machine that nobody has. Torch and every other package are imported inside `gather`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from yunque.files import free_bytes
from yunque.words import LANGUAGES, both, say

Status = Literal["ok", "missing", "old", "unusable"]
Version = tuple[int, ...]
GIB = 2**30
MATMUL_SIZE = 512
MATMUL_SECONDS = 0.15  # for each of the two precisions


@dataclass(frozen=True)
class Needed:
    """A package, the versions of it that work, and whether Yunque runs without it."""

    name: str
    title: str
    minimum: str = ""
    below: str = ""
    required: bool = True

    @property
    def range(self) -> str:
        """The versions as pip writes them, "" for any."""
        low = f">={self.minimum}" if self.minimum else ""
        return f"{low},<{self.below}" if self.below else low

    @property
    def requirement(self) -> str:
        """The argument for pip."""
        return f'"{self.name}{self.range}"' if self.range else self.name


PYTHON = (3, 11)
TORCH = Needed("torch", "PyTorch", "2.11", "2.14")
# The versions repeat pyproject.toml, which an installed package cannot read; a test compares them.
PACKAGES = (
    Needed("numpy", "NumPy", "1.26"),
    TORCH,
    Needed("transformers", "transformers", "4.56"),
    Needed("tokenizers", "tokenizers", "0.21"),
    Needed("tiktoken", "tiktoken", "0.14"),
    Needed("sentencepiece", "SentencePiece", "0.2"),
    Needed("pyarrow", "PyArrow", "18.0"),
    Needed("zstandard", "zstandard", "0.23"),
    Needed("safetensors", "safetensors", "0.5"),
    Needed("accelerate", "accelerate", "1.10"),
    Needed("peft", "PEFT", "0.17"),
    Needed("plotly", "plotly", "6.0"),
    Needed("matplotlib", "matplotlib", "3.9"),
    Needed("bitsandbytes", "bitsandbytes", required=False),
    Needed("gguf", "gguf", required=False),
    Needed("datasets", "datasets", required=False),
)


@dataclass(frozen=True)
class Package:
    """An installed package; `error` says why it cannot be imported."""

    version: str
    error: str = ""


@dataclass(frozen=True)
class Gpu:
    """One GPU as PyTorch sees it."""

    name: str
    arch: str
    """sm_86, gfx90a, …"""
    capability: tuple[int, int]
    memory_bytes: int
    free_bytes: int = 0
    error: str = ""
    """Why a first small sum on it failed."""


@dataclass(frozen=True)
class Torch:
    """How this PyTorch was built and what it sees."""

    cuda: str = ""
    """CUDA version of the build, "" for none."""
    hip: str = ""
    cudnn: int = 0
    arch_list: tuple[str, ...] = ()
    """Architectures that the build holds code for."""
    gpus: tuple[Gpu, ...] = ()
    cuda_error: str = ""
    """Why a CUDA build finds no GPU."""
    mps: bool = False

    @property
    def build(self) -> str:
        if self.cuda:
            return f"CUDA {self.cuda}"
        if self.hip:
            return f"ROCm {self.hip}"
        return "MPS" if self.mps else "CPU"


@dataclass(frozen=True)
class Cpu:
    """The processor; rates are billions of operations a second in a matrix product."""

    name: str
    cores: int
    threads: int = 0
    """Threads that PyTorch uses. 0: unknown."""
    features: tuple[str, ...] = ()
    x86: bool = True
    fp32_rate: float = 0.0
    bf16_rate: float = 0.0

    @property
    def auto_precision(self) -> str:
        """What precision auto takes on this CPU: the same rule as in runtime.py."""
        return "bf16" if {"AVX-512 BF16", "AMX BF16"} & set(self.features) else "fp32"


@dataclass(frozen=True)
class Facts:
    """All that was found; a package that is not here is not installed."""

    python: Version
    cpu: Cpu
    packages: Mapping[str, Package] = field(default_factory=dict)
    torch: Torch | None = None
    driver: str = ""
    """Version of NVIDIA's driver, "" for none."""
    memory_bytes: int | None = None
    available_bytes: int | None = None
    disk_bytes: int = 0
    compiler: str = ""
    """Path of a C++ compiler, "" for none."""
    headers: bool = True
    """Python's own C headers are there."""


@dataclass(frozen=True)
class Check:
    """One layer. `fix` is a command, "" where there is nothing to mend or no command does it."""

    id: str
    name: Mapping[str, str]
    status: Status
    found: str
    needed: str
    text: Mapping[str, str]
    fix: str = ""
    required: bool = False
    """Yunque does not run without it."""


def diagnose() -> list[Check]:
    """Look at this machine and judge every layer."""
    return judge(gather())


# What is there


def gather() -> Facts:
    """The facts of this machine; takes some seconds, because every package is really imported."""
    packages = {}
    for needed in PACKAGES:
        package = look_at(needed.name)
        if package is not None:
            packages[needed.name] = package
    usable = "torch" in packages and not packages["torch"].error
    total, available = memory()
    include = Path(sysconfig.get_paths()["include"])
    return Facts(
        python=tuple(sys.version_info[:3]),
        packages=packages,
        torch=torch_facts() if usable else None,
        driver=nvidia_driver(),
        cpu=cpu_facts(usable),
        memory_bytes=total,
        available_bytes=available,
        disk_bytes=free_bytes(Path.cwd()),
        compiler=next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), ""),
        headers=(include / "Python.h").exists(),
    )


def look_at(name: str) -> Package | None:
    """Version by the package's metadata, and whether it can be imported; None: not installed."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    # Packages greet, warn and exit while they are imported; none of it may reach our output.
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet):
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            return Package(version, reason(error))
    return Package(version)


def reason(error: BaseException) -> str:
    """An exception as one short line."""
    first = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def torch_facts() -> Torch:
    """PyTorch's build and the GPUs that it sees, each tried with a small sum."""
    import torch

    cuda, hip = torch.version.cuda or "", torch.version.hip or ""
    cudnn = torch.backends.cudnn.version() if cuda else 0
    found = Torch(
        cuda=cuda,
        hip=hip,
        mps=torch.backends.mps.is_available(),
        cudnn=cudnn or 0,
    )
    if not cuda and not hip:
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not torch.cuda.is_available():
            try:
                torch.cuda.init()
            except Exception as error:
                return dataclasses.replace(found, cuda_error=reason(error))
            return found
        gpus = tuple(gpu_facts(index) for index in range(torch.cuda.device_count()))
        return dataclasses.replace(found, gpus=gpus, arch_list=tuple(torch.cuda.get_arch_list()))


def gpu_facts(index: int) -> Gpu:
    """One GPU, tried with a small sum."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    major, minor = properties.major, properties.minor
    arch = getattr(properties, "gcnArchName", "").partition(":")[0] or f"sm_{major}{minor}"
    gpu = Gpu(properties.name, arch, (major, minor), properties.total_memory)
    try:
        ones = torch.ones(8, device=f"cuda:{index}")
        (ones + ones).sum().item()
        return dataclasses.replace(gpu, free_bytes=torch.cuda.mem_get_info(index)[0])
    except Exception as error:
        return dataclasses.replace(gpu, error=reason(error))


def nvidia_driver() -> str:
    """Version of NVIDIA's driver, "" where there is none."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        if answer.stdout.strip():
            return answer.stdout.split()[0]
    with contextlib.suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        if number := re.search(r"\d+\.\d+(\.\d+)?", text):
            return number[0]
    return ""


# Our name → PyTorch's name, and the flag in Linux's /proc/cpuinfo.
FEATURES = {
    "AVX2": ("avx2", "avx2"),
    "AVX-512": ("avx512_f", "avx512f"),
    "AVX-512 BF16": ("avx512_bf16", "avx512_bf16"),
    "AMX BF16": ("amx_bf16", "amx_bf16"),
    "NEON": ("neon", "asimd"),
    "SVE": ("sve", "sve"),
}


def cpu_facts(torch_is_usable: bool) -> Cpu:
    """The processor by PyTorch and Linux's /proc; its rates by a short measurement."""
    lines: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            lines.setdefault(key.strip(), value.strip())
    flags = set((lines.get("flags") or lines.get("Features") or "").split())
    machine = platform.machine().lower()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = Cpu(
        name=lines.get("model name") or platform.processor() or machine,
        cores=usable or 1,
        features=tuple(name for name, (_, flag) in FEATURES.items() if flag in flags),
        x86=machine in ("x86_64", "amd64", "i386", "i686"),
    )
    if not torch_is_usable:
        return cpu
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        known = torch.cpu.get_capabilities()
        features = tuple(name for name, (key, _) in FEATURES.items() if known.get(key))
        cpu = dataclasses.replace(cpu, features=features)
    return dataclasses.replace(
        cpu,
        threads=torch.get_num_threads(),
        fp32_rate=matmul_rate(torch.float32),
        bf16_rate=matmul_rate(torch.bfloat16),
    )


def matmul_rate(dtype: Any) -> float:
    """Operations a second, in billions, of square matrix products on the CPU."""
    import torch

    square = torch.ones(MATMUL_SIZE, MATMUL_SIZE, dtype=dtype)
    torch.mm(square, square)  # the first call also prepares the kernel
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < MATMUL_SECONDS:
        torch.mm(square, square)
        count += 1
    return 2 * MATMUL_SIZE**3 * count / spent / 1e9


def memory() -> tuple[int | None, int | None]:
    """Bytes of main memory, all and available; None where the system does not say."""
    with contextlib.suppress(OSError, KeyError, ValueError):
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()}
        return kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None
    return None, None


# What it means


def judge(facts: Facts) -> list[Check]:
    """One check for each layer, from the bottom of the stack to the top."""
    checks = [judge_python(facts.python)]
    checks += [judge_package(needed, facts) for needed in PACKAGES if needed.name == "numpy"]
    checks += [judge_package(TORCH, facts)]
    if facts.torch is not None:
        checks += judge_accelerator(facts, facts.torch)
    others = [needed for needed in PACKAGES if needed.name not in ("numpy", "torch")]
    checks += [judge_package(needed, facts) for needed in others]
    return checks + judge_cpu(facts) + judge_machine(facts)


def parse(version: str) -> Version:
    """The release numbers of a version: 2.13.0+cpu → (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def same(name: str) -> dict[str, str]:
    """A name that is the same in every language."""
    return dict.fromkeys(LANGUAGES, name)


def judge_python(version: Version) -> Check:
    """Python against the oldest that works."""
    new = version >= PYTHON
    oldest = ".".join(map(str, PYTHON))
    return Check(
        id="python",
        name=same("Python"),
        status="ok" if new else "old",
        found=".".join(map(str, version)),
        needed=f">={oldest}",
        text=both("doctor.python_ok" if new else "doctor.python_old", oldest=oldest),
        required=True,
    )


def judge_package(needed: Needed, facts: Facts) -> Check:
    """One package: there, in a version that works, and importable."""
    package = facts.packages.get(needed.name)
    status: Status = "ok"
    key, fix, error = "package_ok", "", ""
    if package is None:
        status, key = "missing", "package_missing"
        fix = f"pip install {needed.requirement}"
    elif package.error:
        status, key, error = "unusable", "package_broken", package.error
        fix = f"pip install --force-reinstall {needed.requirement}"
    elif needed.minimum and parse(package.version) < parse(needed.minimum):
        status, key = "old", "package_old"
        fix = f"pip install --upgrade {needed.requirement}"
    elif needed.below and parse(package.version) >= parse(needed.below):
        status, key = "unusable", "package_new"
        fix = f"pip install {needed.requirement}"
    found = package.version if package else ""
    if needed is TORCH and facts.torch is not None:
        found += f" ({facts.torch.build})"
    text = {
        lang: say(
            f"doctor.{key}",
            lang,
            purpose=say(f"doctor.for_{needed.name}", lang),
            error=error,
            range=needed.range,
        )
        for lang in LANGUAGES
    }
    return Check(
        needed.name, same(needed.title), status, found, needed.range, text, fix, needed.required
    )


def torch_build(backend: str) -> str:
    """The command that installs another build of PyTorch; uv knows where each build lives."""
    return (
        "pip install uv && uv pip install --reinstall-package torch "
        f"--torch-backend={backend} {TORCH.requirement}"
    )


def judge_accelerator(facts: Facts, torch: Torch) -> list[Check]:
    """Driver, runtime, cuDNN and every GPU; without any GPU, what that means."""
    if torch.mps and not torch.cuda and not torch.hip:
        return [Check("gpu", same("GPU"), "ok", "Apple Metal", "", both("doctor.gpu_mps"))]
    checks = [] if torch.hip else judge_cuda(facts, torch)
    for index, gpu in enumerate(torch.gpus):
        checks += judge_gpu(index, gpu, torch)
    if not torch.gpus:
        hidden = bool(facts.driver)
        text = both("doctor.gpu_hidden" if hidden else "doctor.gpu_missing")
        checks.append(Check("gpu", same("GPU"), "unusable" if hidden else "missing", "", "", text))
    return checks


def judge_cuda(facts: Facts, torch: Torch) -> list[Check]:
    """NVIDIA's driver, and the CUDA and cuDNN that came with PyTorch."""
    driver: Status = "ok" if facts.driver else "missing"
    key, fix = ("driver_ok", "") if facts.driver else ("driver_missing", "")
    if facts.driver and torch.cuda_error:
        old = "too old" in torch.cuda_error
        driver, key = ("old", "driver_old") if old else ("unusable", "driver_broken")
        fix = torch_build("auto") if old else ""
    checks = [
        Check(
            "cuda_driver",
            both("doctor.name_cuda_driver"),
            driver,
            facts.driver,
            "",
            both(f"doctor.{key}", error=torch.cuda_error),
            fix,
        )
    ]
    for layer, found in (("cuda_runtime", torch.cuda), ("cudnn", cudnn_version(torch.cudnn))):
        # Only a machine with an NVIDIA GPU has a reason to change its PyTorch.
        lost = bool(facts.driver) and not found
        text = "ok" if found else "lost" if lost else "missing"
        checks.append(
            Check(
                layer,
                both(f"doctor.name_{layer}"),
                "ok" if found else "missing",
                found,
                "",
                both(f"doctor.{layer}_{text}"),
                torch_build("auto") if lost else "",
            )
        )
    return checks


def cudnn_version(number: int) -> str:
    """91002 → 9.10.2; before version 9 the thousands count: 8902 → 8.9.2."""
    if not number:
        return ""
    unit = 10_000 if number >= 90_000 else 1_000
    return f"{number // unit}.{number % unit // 100}.{number % 100}"


def runs(gpu: Gpu, arch_list: tuple[str, ...]) -> bool:
    """Whether a build with code for `arch_list` runs on the GPU.

    Machine code runs on its own major version from its minor version up; PTX (compute_XY) is
    translated by the driver for anything newer. AMD's code runs on its own architecture only.
    Source: NVIDIA, "CUDA C++ Programming Guide", section "Application Compatibility".
    """
    if gpu.arch in arch_list or not arch_list:
        return True
    major, minor = gpu.capability
    for arch in arch_list:
        if found := re.fullmatch(r"(sm|compute)_(\d+)(\d)", arch):
            built = int(found[2]), int(found[3])
            if found[1] == "sm" and built[0] == major and built[1] <= minor:
                return True
            if found[1] == "compute" and built <= (major, minor):
                return True
    return False


def judge_gpu(index: int, gpu: Gpu, torch: Torch) -> list[Check]:
    """One GPU: does the build run on it, how much memory, which precision."""
    codes = " ".join(torch.arch_list)
    found = f"{gpu.name}, {gpu.arch}"
    name = same(f"GPU {index}")
    if not runs(gpu, torch.arch_list):
        # The CUDA 12.6 builds are the last with code for 5.0 to 7.0 (PyTorch's release notes
        # for 2.11 to 2.14); 4.x and older has none.
        old_build = (5, 0) <= gpu.capability < (7, 5) and not torch.hip
        newer = gpu.capability >= (7, 5) and not torch.hip
        fix = torch_build("cu126") if old_build else torch_build("auto") if newer else ""
        text = both("doctor.gpu_arch", arch=gpu.arch, codes=codes)
        return [Check(f"gpu.{index}", name, "unusable", found, codes, text, fix)]
    if gpu.error:
        text = both("doctor.gpu_broken", error=gpu.error)
        return [Check(f"gpu.{index}", name, "unusable", found, codes, text)]
    major = gpu.capability[0]
    precision = "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"
    total, free = gpu.memory_bytes / GIB, gpu.free_bytes / GIB
    return [
        Check(f"gpu.{index}", name, "ok", found, codes, both("doctor.gpu_ok")),
        Check(
            f"gpu.{index}.memory",
            both("doctor.name_gpu_memory", index=index),
            "ok",
            f"{total:.1f} GiB",
            "",
            both("doctor.gpu_memory", free=f"{free:.1f}"),
        ),
        Check(
            f"gpu.{index}.precision",
            both("doctor.name_gpu_precision", index=index),
            "ok",
            precision,
            "",
            both(f"doctor.gpu_{precision}"),
        ),
    ]


def judge_cpu(facts: Facts) -> list[Check]:
    """Cores and threads, instruction sets, and what the measured rates mean."""
    cpu = facts.cpu
    slow = cpu.x86 and "AVX2" not in cpu.features
    checks = [
        Check(
            "cpu",
            same("CPU"),
            "ok",
            cpu.name,
            "",
            both("doctor.cpu", cores=cpu.cores, threads=cpu.threads or "?"),
            required=True,
        ),
        Check(
            "cpu_features",
            both("doctor.name_cpu_features"),
            "old" if slow else "ok",
            ", ".join(cpu.features),
            "AVX2" if cpu.x86 else "",
            both("doctor.cpu_slow" if slow else "doctor.cpu_features"),
        ),
    ]
    if not cpu.fp32_rate or not cpu.bf16_rate:
        return checks
    faster = "bf16" if cpu.bf16_rate > cpu.fp32_rate else "fp32"
    agrees = faster == cpu.auto_precision
    checks.append(
        Check(
            "matmul",
            both("doctor.name_matmul"),
            "ok",
            f"fp32 {cpu.fp32_rate:.0f}, bf16 {cpu.bf16_rate:.0f} GFLOP/s",
            "",
            both(
                f"doctor.{faster}_faster" if agrees else "doctor.auto_is_slower",
                faster=faster,
                auto=cpu.auto_precision,
            ),
            "" if agrees else f"yunque pretrain … --precision {faster}",
        )
    )
    return checks


def judge_machine(facts: Facts) -> list[Check]:
    """Main memory, disk, and the compiler that torch.compile calls."""
    known = facts.memory_bytes is not None
    total = f"{(facts.memory_bytes or 0) / GIB:.1f} GiB" if known else ""
    if facts.available_bytes is not None:
        memory_text = both("doctor.memory", free=f"{facts.available_bytes / GIB:.1f}")
    else:
        memory_text = both("doctor.memory_total" if known else "doctor.memory_unknown")
    full = facts.disk_bytes < GIB
    status: Status = "ok"
    key = "compiler_ok"
    if not facts.compiler:
        status, key = "missing", "compiler_missing"
    elif not facts.headers:
        status, key = "unusable", "compiler_headers"
    return [
        Check("memory", both("doctor.name_memory"), "ok", total, "", memory_text),
        Check(
            "disk",
            both("doctor.name_disk"),
            "missing" if full else "ok",
            f"{facts.disk_bytes / GIB:.1f} GiB",
            ">= 1 GiB",
            both("doctor.disk_full" if full else "doctor.disk_ok"),
        ),
        Check(
            "compiler",
            both("doctor.name_compiler"),
            status,
            facts.compiler,
            "",
            both(f"doctor.{key}"),
            "" if status == "ok" else compiler_fix(status),
        ),
    ]


def compiler_fix(status: Status) -> str:
    """The command that brings a C++ compiler or Python's headers, where the system has one."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    if sys.platform.startswith("linux") and shutil.which("apt-get"):
        return "sudo apt-get install " + ("g++" if status == "missing" else "python3-dev")
    return ""


# How it is shown


def render(checks: list[Check], lang: str) -> str:
    """Plain lines: status, layer, what was found; below it the sentence and the command."""
    words: dict[str, str] = {
        status: say(f"doctor.status_{status}", lang)
        for status in ("ok", "missing", "old", "unusable")
    }
    status_width = max(len(word) for word in words.values())
    name_width = max((len(check.name[lang]) for check in checks), default=0)
    indent = " " * (status_width + name_width + 4)
    lines = []
    for check in checks:
        status = words[check.status]
        head = f"{status:<{status_width}}  {check.name[lang]:<{name_width}}  {check.found}"
        lines.append(head.rstrip())
        lines.append(indent + check.text[lang])
        if check.fix:
            lines.append(f"{indent}→ {check.fix}")
    return "\n".join(lines) + "\n"


def to_json(checks: list[Check]) -> dict[str, Any]:
    """The checks as plain JSON values."""
    return {"checks": [dataclasses.asdict(check) for check in checks]}
