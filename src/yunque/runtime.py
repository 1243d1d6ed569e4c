"""Device, precision, seed and process group; the only reader of environment variables.

One process or many: `torchrun` and `accelerate launch` set the variables that Accelerate's
`PartialState` reads, and the rest of Yunque sees only a `Runtime`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yunque.config import MachineConfig
from yunque.errors import InputError

_MASK = 2**64 - 1


def mix(*numbers: int) -> int:
    """One well-mixed 63-bit number from several: the seed of (seed, step, purpose).

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast Splittable
    Pseudorandom Number Generators", figure 16), folded over the numbers.
    """
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def pick_device(name: str) -> torch.device:
    """The device called `name`; auto takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        InputError: it was asked for by name and PyTorch does not see it.
    """
    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cuda" and not cuda:
        raise InputError(
            "device is 'cuda', but this PyTorch sees no CUDA GPU. `yunque doctor` says why; "
            "--device cpu works everywhere."
        )
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise InputError(f"device is {name!r}, but there are {torch.cuda.device_count()} GPUs.")
    if kind == "mps" and not mps:
        raise InputError("device is 'mps', but this PyTorch has no Metal support here.")
    return torch.device(name)


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bf16 products run in hardware: elsewhere they are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def fast_half(device: torch.device) -> torch.dtype:
    """The 16-bit type that a device computes well in, float32 where it has none.

    Every CUDA GPU multiplies in float16; those before compute capability 8.0 (GTX 10xx to RTX
    20xx, T4, V100) only imitate bf16, and PyTorch calls that supported.
    """
    if bf16_is_fast(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def kept_dtype(stored: torch.dtype, device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type in which frozen weights are kept: as they are stored, where the device computes so.

    Sixteen bits of the other kind stand for those that it imitates; a device without either keeps
    float32, as a CPU without bf16 instructions does, and so does a run that computes in fp32.
    """
    if stored == torch.float32 or precision == "fp32":
        return torch.float32
    half = fast_half(device)
    return stored if stored == torch.float16 and device.type == "cuda" else half


def pick_precision(name: str, device: torch.device) -> str:
    """fp32, bf16 or fp16; auto takes the 16 bits that the device computes well in, else fp32.

    Raises:
        InputError: fp16 was asked for on a CPU.
    """
    if name == "auto":
        names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
        return names[fast_half(device)]
    if name == "fp16" and device.type == "cpu":
        raise InputError("precision is 'fp16': CPUs train in fp32 or bf16; use one of these.")
    return name


@dataclass(frozen=True)
class Runtime:
    """Where this process computes, in which precision, and which of how many processes it is."""

    device: torch.device
    precision: str
    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision for a forward pass; float32 master weights stay as they are."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def spread(self, model: nn.Module) -> nn.Module:
        """The model on this device, wrapped for data parallelism where there are more processes."""
        model = model.to(self.device)
        if self.world == 1:
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def total(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes; with one process the value as it is."""
        if self.world > 1:
            value = value.to(self.device)
            torch.distributed.all_reduce(value)
        return value

    def in_order(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes, a power of two, in a fixed tree of pairs.

        The collectives of the libraries add in an order of their own choice; here every process
        gets all the parts and adds them itself.
        """
        parts = [value]
        if self.world > 1:
            parts = [torch.empty_like(value) for _ in range(self.world)]
            torch.distributed.all_gather(parts, value.contiguous())
        while len(parts) > 1:
            parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process (a signal may reach only one)."""
        if self.world == 1:
            return flag
        return bool(self.total(torch.tensor(float(flag))).item())

    def gather(self, text: str) -> list[str]:
        """The text of every process, in their order; nothing is pickled."""
        if self.world == 1:
            return [text]
        own = torch.tensor(list(text.encode("utf-8")), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.world)]
        torch.distributed.all_gather(sizes, torch.tensor([len(own)], device=self.device))
        longest = max(int(size.item()) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8, device=self.device)
        padded[: len(own)] = own.to(self.device)
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        torch.distributed.all_gather(parts, padded)
        pairs = zip(parts, sizes, strict=True)
        return [bytes(part[: int(n.item())].tolist()).decode("utf-8") for part, n in pairs]

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            torch.distributed.barrier()

    def memory_bytes(self) -> int | None:
        """Peak memory so far, of the GPU if there is one, else of this process; None: unknown."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
            return 1024 * int(status.partition("VmHWM:")[2].split(maxsplit=1)[0])
        except (OSError, IndexError, ValueError):
            pass  # no Linux
        try:
            import resource
        except ImportError:  # Windows has no such call
            return None
        # On Linux this would begin with the peak of whatever process started this one.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if os.uname().sysname == "Darwin" else peak * 1024

    def resident_bytes(self) -> int | None:
        """Memory that is taken now, of the GPU if there is one, else of this process."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError, ValueError):
            return self.memory_bytes()  # the peak so far, where the system says no more
        return pages * os.sysconf("SC_PAGE_SIZE")

    def free_memory(self) -> None:
        """Give back what nothing holds any more, after an allocation that failed."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def memory_size(self) -> int | None:
        """Memory that there is, of the GPU or of the computer; None: the system does not say."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):
            return None


def start(machine: MachineConfig) -> Runtime:
    """Choose device and precision, set the threads, join the process group where there is one.

    Raises:
        InputError: the device or precision cannot be had here.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if "WORLD_SIZE" in os.environ:
        end_with_the_launcher()
    if machine.threads or machine.exactness == "exact":
        # A launcher gives each of its processes one thread, a shell as many as there are cores.
        torch.set_num_threads(machine.threads or 1)
    if torch.cuda.is_available():
        # Equal runs give equal bytes only with kernels whose sums have a fixed order.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if world == 1:
        device = pick_device(machine.device)
        return Runtime(device, pick_precision(machine.precision, device))
    from accelerate import PartialState

    if machine.device.partition(":")[0] not in ("auto", "cpu", "cuda") or ":" in machine.device:
        raise InputError(
            f"device is {machine.device!r}: with several processes give auto, cpu or cuda; each "
            "process takes the GPU of its own number."
        )
    wants_cpu = pick_device(machine.device).type != "cuda"
    state = PartialState(cpu=wants_cpu)
    precision = pick_precision(machine.precision, state.device)
    return Runtime(state.device, precision, state.process_index, state.num_processes)


def end_with_the_launcher() -> None:
    """Be told by SIGTERM when the launcher dies, for nobody else would end its processes (Linux).

    A run without a launcher outlives its shell, as `nohup` promises.
    """
    if sys.platform != "linux":
        return
    set_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM, 0, 0, 0)


KEPT_BYTES = 2**31 - 1
LARGE_BLOCK, LARGEST_HEAP_BLOCK = 1 << 20, 1 << 25
"""Blocks from the system while weights are read; afterwards what glibc itself goes up to."""
MALLOC_TRIM_THRESHOLD, MALLOC_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next allocation.

    glibc gives every large block back to the system and asks for it anew; the system fills it with
    zeros, page by page. The tensors of a training step are such blocks, the same ones in each step.

    Returns:
        Whether the C library knows the setting: glibc does, others are left alone.
    """
    return set_malloc(KEPT_BYTES, KEPT_BYTES)


@contextlib.contextmanager
def freed_memory_given_back() -> Iterator[None]:
    """Let every large block that is freed inside go back to the system at once.

    glibc would take ever larger blocks from its heap, where what is kept of a weight stands between
    the pieces of it that are not: half as much again, when a model is quantised as it is read.
    """
    set_malloc(LARGE_BLOCK, LARGE_BLOCK)
    try:
        yield
    finally:
        set_malloc(2 * LARGEST_HEAP_BLOCK, LARGEST_HEAP_BLOCK)


def set_malloc(trim: int, mmap: int) -> bool:
    """Free memory that stays at the heap's end, and the size from which a block is the system's.

    Returns:
        Whether the C library knows the settings: glibc does, others are left alone.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return False
    options = {MALLOC_TRIM_THRESHOLD: trim, MALLOC_MMAP_THRESHOLD: mmap}
    done = [set_option(option, size) == 1 for option, size in options.items()]  # both, always
    return all(done)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, on a GPU or on the CPU.

    PyTorch's allocator for CPUs raises a RuntimeError like any other; only its text tells.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    told = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in told)


def lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the group no longer answers.

    Gloo raises a RuntimeError like any other; only its text tells.
    """
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo/" in str(error)


class Interrupt:
    """Ctrl-C, SIGTERM and SIGHUP as a flag that the loop reads between two updates.

    A second Ctrl-C, a second or more after the first, ends the process at once; other repeats
    change nothing, for a service manager may send several signals to ask for one stop. Use as a
    context manager in the main thread; elsewhere (a notebook's worker thread) signals keep their
    usual meaning.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, by the shell's custom of 128 + signal."""
        return 128 + self.signal

    def _note(self, number: int, frame: Any) -> None:
        if not self.asked:
            self.signal, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since >= 1.0:
            os._exit(1)  # not 130: the state is not saved

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()


def usable_cores() -> list[int]:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
