"""Our AdamW against PyTorch's own, and what neither may load."""

import subprocess
import sys

import torch
from torch import nn

from yunque.train.adamw import AdamW


def weights(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (33,), (64, 64)]
    made = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    return [*made, nn.Parameter(torch.randn(9, generator=generator).bfloat16())]


def test_updates_are_those_of_torch_bit_for_bit() -> None:
    ours, theirs = weights(1), weights(1)
    mine = AdamW([{"params": ours, "weight_decay": 0.1}], 0.01, (0.9, 0.95))
    other = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    for step in range(5):
        for group in (*mine.param_groups, *other.param_groups):
            group["lr"] = 0.01 / (step + 1)
        for place, pair in enumerate(zip(ours, theirs, strict=True)):
            generator = torch.Generator().manual_seed(100 * step + place)
            gradient = torch.randn(pair[0].shape, generator=generator).to(pair[0].dtype)
            for parameter in pair:
                # A tensor without a gradient is left as it is.
                parameter.grad = None if (step, place) == (1, 1) else gradient.clone()
        mine.step()
        other.step()
    for parameter, its in zip(ours, theirs, strict=True):
        assert torch.equal(parameter, its)
        assert mine.state[parameter].keys() == other.state[its].keys()
        for key, value in mine.state[parameter].items():
            assert torch.equal(value, other.state[its][key]), key
            assert value.dtype == other.state[its][key].dtype, key


UPDATE = """
import sys, torch
from torch import nn
from yunque.config import OptimConfig
from yunque.train.optim import Optimizers
model = nn.ModuleDict({"blocks": nn.Linear(4, 4), "head": nn.Linear(4, 4)})
optimizers = Optimizers(model, OptimConfig(optimizer="muon"))
model["head"](model["blocks"](torch.ones(2, 4))).sum().backward()
scaler = torch.amp.GradScaler("cpu", enabled=False)
for part in optimizers.parts:
    scaler.unscale_(part)
    scaler.step(part)
optimizers.zero_grad()
assert len(optimizers.parts) == 2
print("torch._dynamo" in sys.modules)
"""


def test_an_update_loads_no_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UPDATE], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.split() == ["False"]
