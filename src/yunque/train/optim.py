"""Parameter groups, Muon, AdamW in 8 and 16 bits; the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from yunque.config import OptimConfig
from yunque.errors import InputError, MissingPackageError
from yunque.train.adamw import AdamW, fused_adamw, spare_compiler


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


BLOCK = 1 << 19
"""Numbers of a tensor that AdamW16bit updates at once: what it unpacks them into stays in a CPU's
cache."""
DRAWN = 1 << 12
"""Random numbers drawn for an update; so many neighbours in a tensor are rounded independently of
each other, and every one of them independently of what it was in other updates."""
FREEZES = 2.0**-4
"""An average that moves by a smaller part than this is rounded stochastically. To the nearest it
would stand still wherever the step is below half of bf16's spacing, 2^-8 to 2^-9 of the value."""
UPPER = -(1 << 16)
"""The bits of a float32 that bf16 has."""


class AdamW16bit(torch.optim.Optimizer):
    """AdamW whose two averages are kept in bf16: 4 bytes a weight, not 8.

    Block by block they become float32, go through PyTorch's own fused kernel and are rounded on
    their way back: to the nearest, or up with the probability of the part that is cut off, so that
    the expected value is kept (`FREEZES` says which). The random bits are a function of the
    update's number and of the place in the tensor: a resumed run draws the same ones.

    Sources: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization"; Gupta et al. 2015,
    "Deep Learning with Limited Numerical Precision", section 3.1 (stochastic rounding).
    """

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float]):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})
        for group in self.param_groups:
            for parameter in group["params"]:
                # At once, not between what the first update makes and frees.
                self.state[parameter] = {
                    "step": 0,
                    "exp_avg": torch.zeros_like(parameter, dtype=torch.bfloat16),
                    "exp_avg_sq": torch.zeros_like(parameter, dtype=torch.bfloat16),
                }
        self._drawn: tuple[int, Tensor] | None = None  # of which update, and its random bits
        self._blocks: list[Tensor] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every tensor that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        number = state["step"] = int(state["step"]) + 1
        count = torch.tensor(float(number), device=parameter.device)
        room, drawn = self._room(parameter.device), self._bits(number, parameter.device)
        flat = (parameter, gradient.reshape(-1), state["exp_avg"], state["exp_avg_sq"])
        for weights, slopes, *kept in zip(*(t.view(-1).split(BLOCK) for t in flat), strict=True):
            whole = len(weights) == BLOCK
            wide = room if whole else [tensor[: len(weights)] for tensor in room]
            torch._foreach_copy_(wide, kept)
            fused_adamw([weights], [slopes], wide[:1], wide[1:], [count], group)
            for block, beta in zip(wide, group["betas"], strict=True):
                if 1.0 - beta < FREEZES:
                    cut_at_random(block, drawn)
            torch._foreach_copy_(kept, wide)

    def _bits(self, number: int, device: torch.device) -> Tensor:
        """16 random bits each, `(DRAWN,)`, the same ones in every run."""
        if self._drawn is None or self._drawn[0] != number or self._drawn[1].device != device:
            generator = torch.Generator().manual_seed(number)
            drawn = torch.randint(1 << 16, (DRAWN,), generator=generator, dtype=torch.int32)
            self._drawn = number, drawn.to(device)
        return self._drawn[1]

    def _room(self, device: torch.device) -> list[Tensor]:
        """A block of both averages in float32."""
        if not self._blocks or self._blocks[0].device != device:
            self._blocks = [torch.empty(BLOCK, device=device) for _ in range(2)]
        return self._blocks


def cut_at_random(block: Tensor, drawn: Tensor) -> None:
    """Round float32 numbers, in place, to such as bf16 has: up with the probability of the part
    that is cut off. What bf16 has already, zero among it, stays as it is.

    Args:
        block: `(N,)`.
        drawn: 16 random bits each, `(DRAWN,)`, int32, of which every DRAWN numbers take one each.
    """
    bits = block.view(torch.int32)
    rows = len(bits) // len(drawn) * len(drawn)
    bits[:rows].view(-1, len(drawn)).add_(drawn)
    bits[rows:].add_(drawn[: len(bits) - rows])
    bits.bitwise_and_(UPPER)


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
        elif groups and config.optimizer == "adamw16bit":
            betas = (config.beta1, config.beta2)
            self.parts.append(AdamW16bit(groups, config.learning_rate, betas))
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
