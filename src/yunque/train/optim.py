"""Parameter groups, Muon, AdamW in 8 bits, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from yunque.config import OptimConfig
from yunque.errors import InputError, MissingPackageError
from yunque.train.adamw import AdamW, spare_compiler


def learning_rate_multiplier(step: int, steps: int, config: OptimConfig) -> float:
    """Factor on the peak learning rate in update `step` (0-based) of `steps`.

    Warm-up rises linearly and is above zero in the first update; then the schedule falls from 1
    to `final_learning_rate_fraction`, which the last update comes closest to.

    Sources: cosine: Loshchilov & Hutter 2017, "SGDR", equation 5; warm-up-stable-decay: Hu et
    al. 2024, "MiniCPM", section 4 (linear decay here).
    """
    warmup = min(config.warmup_steps, steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    floor = config.final_learning_rate_fraction
    if config.schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)  # 0 … just below 1
    if config.schedule == "wsd":
        stable = 1.0 - config.decay_fraction
        done = 0.0 if done < stable else (done - stable) / max(config.decay_fraction, 1e-12)
    fall = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1.0 - done
    return floor + (1.0 - floor) * fall


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The matrix with its singular values pushed towards 1 (about 0.7 to 1.2).

    Args:
        matrix: `(rows, columns)`; computed in float32 on CPUs, whose bf16 is often emulated, in
            bf16 on GPUs.

    Source: Newton-Schulz iteration of fifth order with the coefficients of Jordan et al. 2024,
    "Muon: An optimizer for hidden layers in neural networks".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.float() if matrix.device.type == "cpu" else matrix.bfloat16()
    wide = x.shape[0] <= x.shape[1]
    if not wide:
        x = x.T  # the shorter side first: its Gram matrix is the smaller one
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return (x if wide else x.T).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: for the matrices inside the blocks.

    Each update has the size `learning_rate * sqrt(max(1, rows / columns))` in spectral norm, so
    one learning rate serves matrices of every shape; weight decay is decoupled.

    Source: Jordan et al. 2024 (Nesterov momentum before the orthogonalisation).
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"]
                average.lerp_(gradient, 1 - group["momentum"])
                ahead = gradient.lerp(average, group["momentum"])
                rows, columns = parameter.shape
                scale = group["lr"] * math.sqrt(max(1.0, rows / columns))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(orthogonalise(ahead), alpha=-scale)


TABLES = ("qmap1", "qmap2")
"""What bitsandbytes keeps beside each state: the values of 8 bits, always the same."""


def adamw_8bit(
    groups: list[dict[str, Any]], config: OptimConfig, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW of bitsandbytes, whose two averages are kept in 8 bits with a scale for each 256.

    Tensors of fewer than 4,096 numbers keep theirs in float32. Paged ones lie in memory that the
    driver moves between GPU and computer as there is room.

    Raises:
        InputError: it does not work on this device, with what does.
        MissingPackageError: bitsandbytes is absent.

    Source: Dettmers et al. 2021, "8-bit Optimizers via Block-wise Quantization", section 2.
    """
    name, paged = config.optimizer, config.optimizer == "paged_adamw8bit"
    try:
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit
    except ImportError:
        raise MissingPackageError(
            f"optimizer is {name!r}, which needs the package bitsandbytes: "
            "pip install 'yunque[quant]'. Or use --optimizer adamw."
        ) from None
    if paged and device.type != "cuda":
        raise InputError(
            f"optimizer is {name!r}, which moves its state out of a CUDA GPU's memory, and the "
            f"device is {device.type}. Use --optimizer adamw8bit, or adamw."
        )
    kind: Any = PagedAdamW8bit if paged else AdamW8bit
    # What a device can do depends on its kernels: one small update is tried. The first moves every
    # weight by the learning rate.
    tried = nn.Parameter(torch.ones(64, 64, device=device))
    tried.grad = torch.full_like(tried, 2.0)
    try:
        kind([tried], lr=0.25, weight_decay=0.0).step()
        works, why = bool((tried - 0.75).abs().max() < 1e-3), "wrong numbers"
    except Exception as error:  # whatever a missing kernel raises
        works, why = False, str(error)
    if not works:
        raise InputError(
            f"optimizer is {name!r}: bitsandbytes cannot compute it on {device.type} here ({why}). "
            "Use --optimizer adamw."
        )
    made: torch.optim.Optimizer = kind(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2)
    )
    return made


class Optimizers:
    """One or two optimizers that together update each parameter once.

    `parameters` names every trainable tensor; a tensor that no group took is our own fault and
    fails here, not in the loss curve.
    """

    def __init__(self, model: nn.Module, config: OptimConfig):
        spare_compiler()
        self.config = config
        self.names = {p: n for n, p in model.named_parameters() if p.requires_grad}
        matrices = [p for p in self.names if p.dim() >= 2]
        vectors = [p for p in self.names if p.dim() < 2]
        hidden: list[nn.Parameter] = []
        if config.optimizer == "muon":
            hidden = [p for p in matrices if self.names[p].startswith("blocks.")]
        rest = [p for p in matrices if not any(p is h for h in hidden)]
        groups = [
            {"params": rest, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.parts: list[torch.optim.Optimizer] = []
        if config.optimizer == "sgd":
            self.parts.append(
                torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
            )
        elif groups and config.optimizer in ("adamw8bit", "paged_adamw8bit"):
            self.parts.append(adamw_8bit(groups, config, next(iter(self.names)).device))
        elif groups:
            betas = (config.beta1, config.beta2)
            self.parts.append(AdamW(groups, config.learning_rate, betas))
        if hidden:
            decay = config.weight_decay
            self.parts.append(Muon(hidden, config.muon_learning_rate, config.momentum, decay))
        for part in self.parts:
            for group in part.param_groups:
                group["peak_lr"] = group["lr"]
        taken = [p for part in self.parts for g in part.param_groups for p in g["params"]]
        assert len(taken) == len(self.names), f"{len(taken)} of {len(self.names)} parameters"

    def set_rate(self, multiplier: float) -> float:
        """Scale every peak learning rate; returns that of the first group, for the log."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["peak_lr"] * multiplier
        return float(self.parts[0].param_groups[0]["lr"])

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """All state as named tensors: `parameter name|quantity`."""
        tensors = {}
        for part in self.parts:
            for parameter, state in part.state.items():
                for key, value in state.items():
                    if key in TABLES:
                        continue
                    kept = value if isinstance(value, Tensor) else torch.tensor(value)
                    tensors[f"{self.names[parameter]}|{key}"] = kept  # type: ignore[index]
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave, bit for bit."""
        by_name = {name: parameter for parameter, name in self.names.items()}
        owner = {
            parameter: (part, group, number, place)
            for part in self.parts
            for number, group in enumerate(part.param_groups)
            for place, parameter in enumerate(group["params"])
        }
        for key, value in tensors.items():
            name, _, quantity = key.partition("|")
            parameter = by_name[name]
            part, group, number, place = owner[parameter]
            state: dict[str, Any] = part.state[parameter]
            if hasattr(part, "init_state"):  # bitsandbytes: paged memory, and tables, come of it
                if not state:
                    part.init_state(group, parameter, number, place)
                if isinstance(state[quantity], Tensor):
                    state[quantity].copy_(value)
                else:
                    state[quantity] = int(value.item())
            else:
                # AdamW counts its steps in a scalar that its fused kernel wants beside the weights.
                state[quantity] = value.to(parameter.device).clone()


class WeightAverage:
    """Exponential running average of the weights, corrected for its start.

    The decay of update n is min(decay, n / (n + 10)), so that early weights leave quickly.
    Source: Polyak & Juditsky 1992 (averaging); the ramp as in TensorFlow's moving averages.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` updates (from 1)."""
        decay = min(self.decay, step / (step + 10))
        averages = list(self.average.values())
        torch._foreach_lerp_(averages, [p.detach() for p in self.parameters.values()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights with the average; a second call undoes the first."""
        for name, parameter in self.parameters.items():
            kept = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(kept)
