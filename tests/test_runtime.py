"""Device and precision by name, signals as a flag, seeds well mixed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch

from yunque.config import MachineConfig
from yunque.errors import InputError
from yunque.runtime import Interrupt, Runtime, mix, pick_device, pick_precision, start


def test_mix_is_a_function_that_tells_every_number_and_place_apart() -> None:
    seeds = {mix(a, b, c) for a in range(12) for b in range(12) for c in range(12)}
    assert len(seeds) == 12**3
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix(1, 2) == mix(1, 2) != mix(2, 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_told() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="sees no CUDA GPU"):
        pick_device("cuda")
    with pytest.raises(InputError, match="sees no CUDA GPU"):
        start(MachineConfig(device="cuda:1"))


def test_precision_by_name() -> None:
    cpu = torch.device("cpu")
    assert pick_precision("auto", cpu) in ("fp32", "bf16")
    assert pick_precision("bf16", cpu) == "bf16"
    with pytest.raises(InputError, match="fp16"):
        pick_precision("fp16", cpu)


def test_one_process_needs_no_group() -> None:
    runtime = Runtime(torch.device("cpu"), "fp32")
    assert runtime.main
    assert runtime.any(True)
    assert not runtime.any(False)
    assert torch.equal(runtime.total(torch.tensor([1.5])), torch.tensor([1.5]))
    assert (runtime.memory_bytes() or 0) > 10_000_000


def test_a_signal_is_a_flag_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert not interrupt.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.asked
        os.kill(os.getpid(), signal.SIGHUP)  # a service manager sends both
        os.kill(os.getpid(), signal.SIGINT)  # at once: still the same request
        assert interrupt.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_late_second_ctrl_c_ends_the_process_and_does_not_say_saved() -> None:
    code = (
        "import os, signal, time\n"
        "from yunque.runtime import Interrupt\n"
        "with Interrupt():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(1.1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(5)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_is_kept_for_the_next_allocation() -> None:
    """A large block that comes back costs no new pages from the system."""
    program = """
import resource, torch
from yunque.runtime import keep_freed_memory
kept = keep_freed_memory()
for _ in range(4):
    torch.ones(20_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(20_000_000)  # 20,000 pages each
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    known, faults = done.stdout.split()
    if known == "False":
        pytest.skip("another C library")
    assert int(faults) < 1000


def test_the_peak_is_that_of_this_process_and_not_of_the_one_that_started_it() -> None:
    held = bytearray(b"x") * 900_000_000  # Linux hands the peak of the starter on, over exec
    code = (
        "import torch; from yunque.runtime import Runtime; "
        "print(Runtime(torch.device('cpu'), 'fp32').memory_bytes())"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 10_000_000 < int(told.stdout) < len(held) - 100_000_000
