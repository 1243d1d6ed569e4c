"""The command's heap: when a process begins anew for it, and what a training step holds then."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from yunque import cli, heap

GNU = pytest.mark.skipif(not heap.glibc(), reason="settings of glibc")


@pytest.mark.parametrize(
    ("verb", "environ", "argv", "gnu", "expected"),
    [
        ("pretrain", {}, ["/usr/bin/yunque", "pretrain", "text"], True, True),
        ("demo", {}, [str(Path(heap.__file__).with_name("__main__.py")), "demo"], True, True),
        ("report", {}, ["/usr/bin/yunque", "report", "run"], True, False),
        ("pretrain", {}, ["/usr/bin/yunque", "pretrain", "--help"], True, False),
        ("pretrain", {}, ["-c"], True, False),  # a program that calls us
        ("pretrain", {}, ["/home/ana/train.py"], True, False),
        ("pretrain", {}, ["/home/ana/cli.py"], True, False),
        ("pretrain", {}, ["/home/ana/app/__main__.py"], True, False),
        ("pretrain", {heap.VARIABLE: "glibc.malloc.check=3"}, ["yunque"], True, False),
        ("pretrain", {}, ["yunque"], False, False),
    ],
)
def test_who_begins_anew(
    verb: str, environ: dict[str, str], argv: list[str], gnu: bool, expected: bool
) -> None:
    assert heap.wanted(verb, environ, argv, gnu) is expected


@GNU
def test_a_training_command_runs_with_the_settings_and_keeps_its_arguments(tmp_path: Path) -> None:
    """The second beginning sees what the first was given, and does not begin a third time."""
    text = tmp_path / "a text.txt"
    environ = {name: value for name, value in os.environ.items() if name != heap.VARIABLE}
    trace = (
        "import os, sys\n"
        "kept = os.execve\n"
        "def told(path, words, environ):\n"
        f"    print('anew', environ[{heap.VARIABLE!r}], file=sys.stderr)\n"
        "    kept(path, words, environ)\n"
        "os.execve = told\n"
    )
    (tmp_path / "sitecustomize.py").write_text(trace)
    done = subprocess.run(
        [sys.executable, "-m", "yunque", "pretrain", str(text), "--out", str(tmp_path / "run")],
        env={**environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]])},
        capture_output=True,
        text=True,
    )
    begun, fault = done.stderr.splitlines()
    assert begun == f"anew {heap.TUNABLES}"
    assert str(text) in fault
    assert done.returncode == 2


def test_a_program_that_calls_the_command_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("begun anew"))
    assert cli.main(["pretrain", "/no/such/text", "--out", str(tmp_path / "run")]) == 2
    assert "no/such/text" in capsys.readouterr().err


STEP = """
import dataclasses, json, torch
from yunque import runtime
from yunque.adapt.lora import apply_method
from yunque.config import AdaptConfig, ModelConfig, OptimConfig
from yunque.model.decoder import Decoder
from yunque.train.loss import cross_entropy_sum
from yunque.train.optim import Optimizers
from yunque.weights.families import module_names

torch.set_num_threads(1)
shape = ModelConfig(
    preset="", vocab_size=500, context_length=256, num_layers=8, num_heads=4, hidden_size=256
).resolved(0)
model = Decoder(shape, seed=0)
apply_method(model, AdaptConfig(method="lora", rank=8), 0, module_names(shape))
model.checkpointing = True
optimizers = Optimizers(model, OptimConfig())
before = runtime.Runtime(torch.device("cpu"), "fp32").memory_bytes()
runtime.keep_freed_memory()
for _ in range(3):
    tokens = torch.randint(0, 500, (8, 256))
    cross_entropy_sum(model(tokens), model.head, tokens).backward()
    optimizers.step()
    optimizers.zero_grad()
print(json.dumps(runtime.Runtime(torch.device("cpu"), "fp32").memory_bytes() - before))
"""


@GNU
def test_a_step_with_an_adapter_grows_the_process_by_far_less() -> None:
    """Checkpointed blocks are made and freed between small objects: the worst case of the lists."""
    grown = []
    for settings in ("glibc.malloc.perturb=0", heap.TUNABLES):
        done = subprocess.run(
            [sys.executable, "-c", STEP],
            env={**os.environ, heap.VARIABLE: settings},
            capture_output=True,
            text=True,
            check=True,
        )
        grown.append(json.loads(done.stdout))
    assert grown[1] < 0.75 * grown[0], grown
