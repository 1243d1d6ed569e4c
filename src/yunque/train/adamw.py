"""AdamW on PyTorch's own fused kernel, without what `torch.optim.AdamW` loads to call it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-8


def spare_compiler() -> None:
    """Keep PyTorch's optimizers from loading its compiler, seconds of every start for nothing.

    Some of their methods ask the compiler to pass them by, and load it for that, when they are
    first called. Here nothing is compiled: they are told that this was asked already.
    """
    for method in (torch.optim.Optimizer.add_param_group, torch.optim.Optimizer.zero_grad):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)


class AdamW(torch.optim.Optimizer):
    """The updates of `torch.optim.AdamW(fused=True)`, bit for bit, and its state by its names.

    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
    """

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float]):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every tensor that has a gradient."""
        for group in self.param_groups:
            taken = [parameter for parameter in group["params"] if parameter.grad is not None]
            # The kernel takes tensors of one kind on one device at a time.
            kinds: dict[tuple[Any, ...], list[Tensor]] = {}
            for parameter in taken:
                kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
            for parameters in kinds.values():
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        fused_adamw(
            parameters,
            [parameter.grad for parameter in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            steps,
            group,
        )


def fused_adamw(
    parameters: list[Tensor],
    gradients: list[Tensor],
    averages: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    group: Mapping[str, Any],
) -> None:
    """One update of tensors of one kind on one device, in place, by PyTorch's own kernel.

    Args:
        averages, squares: of the gradients and of their squares, in the type of the parameters.
        steps: the number of this update, for each.
        group: lr, betas and weight_decay.
    """
    beta1, beta2 = group["betas"]
    torch._fused_adamw_(
        parameters,
        gradients,
        averages,
        squares,
        [],
        steps,
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )
