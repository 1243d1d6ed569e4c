"""An update of Yunque's, as the benchmarks of training steps take it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from yunque import runtime
from yunque.batch import Batch
from yunque.config import OptimConfig
from yunque.model.decoder import Decoder
from yunque.runtime import Runtime
from yunque.train.optim import Optimizers
from yunque.train.step import update


def our_step(
    decoder: Decoder,
    optim: OptimConfig,
    where: Runtime,
    drawn: Callable[[int], tuple[torch.Tensor, torch.Tensor]],
    *,
    in_backward: bool = False,
    seed: int = 1,
) -> Callable[[int], float]:
    """Number of the step → its loss, with the memory settings of a run.

    Args:
        drawn: number of the step → inputs and targets, `(B, T)`, on the CPU.
    """
    runtime.keep_freed_memory()
    model = where.spread(decoder).train()
    optimizers = Optimizers(model, optim)
    scaler = torch.amp.GradScaler(where.device.type, enabled=False)
    batch = len(drawn(0)[0])

    def rows(step: int, first: int, count: int) -> Batch:
        inputs, targets = drawn(step)
        return Batch(inputs[first : first + count], targets[first : first + count])

    def step(number: int) -> float:
        done = update(
            number,
            rows,
            model,
            model.head,  # type: ignore[arg-type]
            optimizers,
            scaler,
            where,
            batch_size=batch,
            micro_batch_size=batch,
            clip_norm=optim.clip_norm,
            seed=seed,
            in_backward=in_backward,
        )
        return done.loss

    return step
