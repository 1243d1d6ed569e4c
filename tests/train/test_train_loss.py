"""The loss against PyTorch's own, with masks, chunks and mixed precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from yunque.batch import MASKED
from yunque.train import loss as room
from yunque.train.loss import count_tokens, cross_entropy_sum

TOLERANCE = 1e-5


def case(bias: bool) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(3, 11, 16, requires_grad=True)  # (B, T, C)
    head = nn.Linear(16, 50, bias=bias)
    targets = torch.randint(0, 50, (3, 11))
    targets[0, :4] = MASKED
    targets[2] = MASKED
    return hidden, head, targets


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("columns", [1, 13, 50, 4096])
def test_sum_and_gradients_equal_torch(
    bias: bool, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "HELD_BYTES", rows * 4 * (50 + min(50, columns)))
    monkeypatch.setattr(room, "COLUMNS", columns)
    hidden, head, targets = case(bias)
    ours = cross_entropy_sum(hidden, head, targets)
    (ours / 7).backward()
    got = [hidden.grad, *(p.grad for p in head.parameters())]
    hidden.grad = None
    head.zero_grad()
    reference = F.cross_entropy(
        head(hidden).flatten(0, 1), targets.flatten(), ignore_index=MASKED, reduction="sum"
    )
    (reference / 7).backward()
    want = [hidden.grad, *(p.grad for p in head.parameters())]
    torch.testing.assert_close(ours, reference, rtol=TOLERANCE, atol=TOLERANCE)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


class Capped(nn.Linear):
    """A head of which the weight is not all there is."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return 3 * torch.tanh(super().forward(hidden) / 3)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_any_head_has_the_sum_and_gradients_of_torch(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "HELD_BYTES", rows * 50 * 8)
    hidden, _, targets = case(bias=True)
    head, largest = Capped(16, 50), 0

    def watched(part: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, len(part))
        return head(part)

    for made in (head, watched):
        ours = cross_entropy_sum(hidden, made, targets)
        got = torch.autograd.grad(ours / 7, [hidden, *head.parameters()])
        reference = F.cross_entropy(
            head(hidden).flatten(0, 1), targets.flatten(), ignore_index=MASKED, reduction="sum"
        )
        want = torch.autograd.grad(reference / 7, [hidden, *head.parameters()])
        torch.testing.assert_close(ours, reference, rtol=TOLERANCE, atol=TOLERANCE)
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    # Of 33 rows 15 are masked and never computed; the others go in as few equal chunks as fit.
    assert largest == {1: 1, 7: 6, 1000: 18}[rows]


def test_double_precision_gradients_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    head = nn.Linear(3, 5, bias=False).double()
    targets = torch.tensor([[1, MASKED, 0, 4]])
    cross_entropy_sum(hidden, head, targets).backward()
    step = 1e-3
    for index in range(hidden.numel()):
        moved = []
        for sign in (1, -1):
            other = hidden.detach().clone()
            other.view(-1)[index] += sign * step
            with torch.no_grad():
                moved.append(cross_entropy_sum(other, head, targets).item())
        slope = (moved[0] - moved[1]) / (2 * step)
        assert hidden.grad is not None
        assert hidden.grad.view(-1)[index].item() == pytest.approx(slope, abs=1e-3)


def test_everything_masked_is_zero_with_zero_gradients() -> None:
    hidden, head, targets = case(False)
    targets[:] = MASKED
    total = cross_entropy_sum(hidden, head, targets)
    total.backward()
    assert total.item() == 0.0
    assert count_tokens(targets) == 0
    assert hidden.grad is not None
    assert head.weight.grad is not None
    assert hidden.grad.abs().max() == 0
    assert head.weight.grad.abs().max() == 0


@pytest.mark.parametrize("columns", [13, 4096])
def test_masked_rows_of_far_logits_get_no_gradient(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The normaliser of such a row is so low that e to the power of -normaliser overflows.
    monkeypatch.setattr(room, "COLUMNS", columns)
    hidden, head, targets = case(True)
    with torch.no_grad():
        head.bias -= 200
    apply: Any = room._ChunkedCrossEntropy.apply  # as a GPU does it: masked rows are computed
    rows, wanted = hidden.reshape(-1, 16), targets.flatten()
    total = apply(rows, head.weight, head.bias, wanted, 5)
    got = torch.autograd.grad(total, [hidden, *head.parameters()])
    reference = F.cross_entropy(head(rows), wanted, ignore_index=MASKED, reduction="sum")
    want = torch.autograd.grad(reference, [hidden, *head.parameters()])
    for one, other in zip(got, want, strict=True):
        # 1e-4: float32 of logits at -200 is exact to 1e-5.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert got[0][2].abs().max() == 0


@pytest.mark.parametrize("columns", [13, 4096])
def test_a_token_that_is_sure_keeps_its_small_gradient_in_bf16(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "COLUMNS", columns)
    torch.manual_seed(0)
    hidden = torch.zeros(1, 3, 16, requires_grad=True)
    head = nn.Linear(16, 50)
    targets = torch.tensor([[4, 30, 49]])
    with torch.no_grad():
        hidden[0, :, 0] = 1.0
        hidden[0, range(3), range(1, 4)] = 16.0
        head.weight.zero_()
        head.weight[targets[0], range(1, 4)] = 0.75  # 12 nats above all others

    def gradients(mixed: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            total = cross_entropy_sum(hidden, head, targets)
        return list(torch.autograd.grad(total, [hidden, *head.parameters()]))

    share = torch.autograd.grad(cross_entropy_sum(hidden, head, targets), head.bias)[0][4]
    assert -1e-3 < share.item() < -1e-5  # of the target - 1
    for one, other in zip(gradients(True), gradients(False), strict=True):
        assert (one - other).norm() <= 2**-7 * other.norm()  # bf16 keeps 8 bits


@pytest.mark.parametrize("columns", [13, 4096])
@pytest.mark.parametrize("bias", [False, True])
def test_mixed_precision_has_the_gradients_of_float32(
    columns: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "COLUMNS", columns)
    hidden, head, targets = case(bias)
    with torch.no_grad():
        for part in (hidden, *head.parameters()):
            part.copy_(part.bfloat16())  # so that only the computation is rounded
    got = []
    for mixed in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            total = cross_entropy_sum(hidden, head, targets)
        got.append(torch.autograd.grad(total, [hidden, *head.parameters()]))
    for one, other in zip(*got, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 2**-6 * other.norm()


def test_mixed_precision_stays_close_and_keeps_float32_gradients() -> None:
    hidden, head, targets = case(False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = cross_entropy_sum(hidden, head, targets)
    total.backward()
    with torch.no_grad():
        exact = cross_entropy_sum(hidden.detach(), head, targets)
    assert total.dtype == torch.float32
    assert head.weight.grad is not None
    assert head.weight.grad.dtype == torch.float32
    assert total.item() == pytest.approx(exact.item(), rel=2**-7)  # bf16 keeps 8 bits
