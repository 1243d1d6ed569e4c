"""One update from k micro-batches: forward → loss → backward → clip → update, or both at once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from yunque.batch import Batch
from yunque.errors import OutOfMemory
from yunque.runtime import Runtime, lacks_memory, mix
from yunque.train.loss import count_tokens, cross_entropy_sum
from yunque.train.optim import Optimizers

DROPOUT = 1
"""Purpose number in the seed of (seed, purpose, step, process, micro-batch)."""
ROW_DROPOUT = 2
"""Purpose number in the seed of (seed, purpose, step, row), in exact mode."""

Rows = Callable[[int, int, int], Batch]
"""(step, first, count) → rows of the batch of an update, `(count, T)`."""


@dataclass(frozen=True)
class Update:
    """What one update did."""

    loss: float
    """Nats per token over the whole batch, before the update."""
    grad_norm: float
    """Global norm of the gradient before clipping."""
    tokens: int
    """Tokens that carried loss, all processes together."""
    applied: bool
    """False where loss or gradient were not finite or a spike, or where no token carried loss: the
    weights are then unchanged."""
    rescaled: bool = False
    """fp16 only: the gradient overflowed at the present loss scale, which was halved. That is
    how the scale is found, no fault of the run."""
    spike: bool = False
    """Loss and gradient were finite, and one of them was above its limit."""
    torn: bool = False
    """Made on the way back alone: a gradient was not finite when other tensors had been updated
    already. Every weight is finite, but they are those of no update."""


def update(
    step: int,
    rows: Rows,
    model: nn.Module,
    head: Callable[[torch.Tensor], torch.Tensor],
    optimizers: Optimizers,
    scaler: torch.amp.GradScaler,
    runtime: Runtime,
    *,
    batch_size: int,
    micro_batch_size: int,
    clip_norm: float,
    seed: int,
    exact: bool = False,
    in_backward: bool = False,
    limits: tuple[float, float] = (math.inf, math.inf),
) -> Update:
    """Make update `step` (0-based) on its batch.

    The loss is the sum over the unmasked tokens of the whole batch divided by their number, so
    that splitting a batch into micro-batches or over processes changes nothing but rounding.
    Dropout is a function of (seed, step, process, micro-batch).

    Args:
        exact: not even rounding changes: see `exact_gradients`.
        in_backward: each tensor is updated as soon as its gradient is there, see
            `updated_in_backward`: one micro-batch and process, without scaling, limits or `exact`.
        limits: loss and gradient norm above which the update is left out.

    Raises:
        OutOfMemory: in the optimizer; before it, the allocator's own error leaves weights and
            optimizer as they were, but for an update that is made on the way back.
    """
    share = batch_size // runtime.world
    begin = runtime.rank * share
    size = 1 if exact else micro_batch_size
    micro_batches = [
        rows(step, begin + first, min(size, share - first)) for first in range(0, share, size)
    ]
    counted = torch.tensor(sum(count_tokens(batch.targets) for batch in micro_batches))
    tokens = int(runtime.total(counted).item())
    if tokens == 0:
        # Weight decay and momentum would go on without a gradient, and a loss of 0 would be untrue.
        return Update(math.nan, math.nan, 0, applied=False)
    parameters = list(optimizers.names)
    if in_backward:
        gathered = exact or clip_norm or scaler.is_enabled()
        assert not gathered, "these need the whole gradient before a weight changes"
        assert len(micro_batches) == runtime.world == 1, "gradients are not added up"
        (batch,) = micro_batches
        return updated_in_backward(step, batch, model, head, optimizers, runtime, tokens, seed)
    total = torch.zeros((), device=runtime.device)
    if exact:
        whole = exact_gradients(
            step, begin, micro_batches, model, head, parameters, runtime, tokens, seed
        )
        micro_batches = []
    for index, batch in enumerate(micro_batches):
        last = index == len(micro_batches) - 1
        batch = batch.to(runtime.device)
        torch.manual_seed(mix(seed, DROPOUT, step, runtime.rank, index))
        with runtime.autocast(), contextlib.nullcontext() if last else unsynchronised(model):
            hidden = model(batch.inputs, **batch.layout)
            loss_sum = cross_entropy_sum(hidden, head, batch.targets)
            # Data parallelism averages the gradients of its processes; the factor undoes that.
            scaler.scale(loss_sum * (runtime.world / tokens)).backward()
        total += loss_sum.detach()
    loss = (whole if exact else float(runtime.total(total).item())) / tokens

    for part in optimizers.parts:
        scaler.unscale_(part)
    norm = clip(parameters, clip_norm or math.inf)
    finite = math.isfinite(loss) and math.isfinite(norm)
    spike = finite and (loss > limits[0] or norm > limits[1])
    if max(limits) < math.inf:  # one process must not leave out what another applies
        spike = runtime.any(spike)
    applied = finite and not spike
    if applied:
        try:
            for part in optimizers.parts:
                scaler.step(part)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            raise OutOfMemory(
                f"step {step + 1}: the memory ran out in the optimizer, when some weights were "
                "changed and others not, so that the update cannot be made again from its start. "
                "--optimizer sgd, --method lora or a smaller model need less."
            ) from None
    scale = scaler.get_scale()
    scaler.update()
    optimizers.zero_grad()
    rescaled = math.isfinite(loss) and not finite and 1.0 <= scaler.get_scale() < scale
    return Update(loss, norm, tokens, applied, rescaled, spike)


def updated_in_backward(
    step: int,
    batch: Batch,
    model: nn.Module,
    head: Callable[[torch.Tensor], torch.Tensor],
    optimizers: Optimizers,
    runtime: Runtime,
    tokens: int,
    seed: int,
) -> Update:
    """The same update, each tensor's made as soon as its gradient is there, which is freed then.

    Nothing on the way back reads a weight whose gradient is whole. The loss is known to be finite
    before the first weight changes. At the first gradient that is not, the rest is left as it is.

    Source: Lv et al. 2023, "Full Parameter Fine-tuning for Large Language Models with Limited
    Resources", section 3 (LOMO: the update fused with the gradient's computation).
    """
    batch = batch.to(runtime.device)
    torch.manual_seed(mix(seed, DROPOUT, step, 0, 0))
    with runtime.autocast():
        hidden = model(batch.inputs, **batch.layout)
        loss_sum = cross_entropy_sum(hidden, head, batch.targets)
        mean = loss_sum * (1 / tokens)
    loss = float(loss_sum.item()) / tokens
    if not math.isfinite(loss):
        return Update(loss, math.nan, tokens, applied=False)
    norms: dict[torch.Tensor, torch.Tensor] = {}
    broken = False

    def take(parameter: torch.Tensor) -> None:
        nonlocal broken
        assert parameter.grad is not None
        norms[parameter] = torch.linalg.vector_norm(parameter.grad)
        broken = broken or not math.isfinite(norms[parameter].item())
        if not broken:
            optimizers.step()  # of all tensors this one alone has a gradient now
        parameter.grad = None

    with called_with_gradients(optimizers, take):
        mean.backward()
    found = [norms[p] for p in optimizers.names if p in norms]
    norm = float(torch.linalg.vector_norm(torch.stack(found)).item())
    applied = not broken
    torn = broken and math.isfinite(next(iter(norms.values())).item())
    return Update(loss, norm, tokens, applied, torn=torn)


@contextlib.contextmanager
def called_with_gradients(
    optimizers: Optimizers, take: Callable[[torch.Tensor], None]
) -> Iterator[None]:
    """Let `take` be called with each trained tensor once its gradient is whole."""
    hooks = [p.register_post_accumulate_grad_hook(take) for p in optimizers.names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def exact_gradients(
    step: int,
    begin: int,
    batches: list[Batch],
    model: nn.Module,
    head: Callable[[torch.Tensor], torch.Tensor],
    parameters: list[nn.Parameter],
    runtime: Runtime,
    tokens: int,
    seed: int,
) -> float:
    """Give each parameter its gradient, summed in one order whatever the split; returns the loss.

    Each row is computed by itself, so that no kernel sees another shape, with the dropout of
    (seed, step, row). The gradients of n rows are those of the first n // 2 plus those of the
    rest, by the same rule; the processes, a power of two, hold whole branches of this tree. About
    log2(n) gradients are held at once.

    Args:
        begin: the batch's row that `batches[0]` is.
        batches: one row each.
        tokens: that carry loss, in the whole batch.

    Returns:
        The sum of the losses of all rows, in nats.

    Source: pairwise summation, as in Higham 2002, "Accuracy and Stability of Numerical
    Algorithms", section 4.1.
    """

    def branch(first: int, count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        if count > 1:
            half = count // 2
            ours, loss = branch(first, half)
            others, other_loss = branch(first + half, count - half)
            torch._foreach_add_(ours, others)
            return ours, loss + other_loss
        batch = batches[first].to(runtime.device)
        torch.manual_seed(mix(seed, ROW_DROPOUT, step, begin + first))
        with runtime.autocast(), unsynchronised(model):
            hidden = model(batch.inputs, **batch.layout)
            loss_sum = cross_entropy_sum(hidden, head, batch.targets)
            (loss_sum / tokens).backward()
        found = []
        for parameter in parameters:
            gradient = parameter.grad
            found.append(torch.zeros_like(parameter) if gradient is None else gradient)
            parameter.grad = None
        return found, loss_sum.detach().double()

    gradients, loss = branch(0, len(batches))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = runtime.in_order(gradient)
    return float(runtime.in_order(loss).item())


def clip(parameters: list[nn.Parameter], most: float) -> float:
    """Scale the gradients down to the global norm `most`; returns the norm that they had.

    As PyTorch's clip_grad_norm_, which writes every gradient anew even where it scales nothing.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    value = float(norm.item())
    if value + 1e-6 > most:
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return value


def unsynchronised(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """No gradient exchange between processes: only the last micro-batch needs one."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()
