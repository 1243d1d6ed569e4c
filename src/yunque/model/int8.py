"""Linear layers in 8-bit integers, for writing on CPUs: a quarter of the memory read a token.

Each row of a weight has its scale (symmetric, -127 to 127), and so has each token of the input:
a row of a batch is computed as if it were alone. Products and sums are whole numbers; the result
is float32. The kernels are FBGEMM's, as PyTorch ships them.

Source: Dettmers et al. 2022, "LLM.int8()", section 2.1 (a scale for each row and each token).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from yunque.errors import InputError

SMALLEST = torch.finfo(torch.float32).tiny


class Int8Linear(nn.Module):
    """A frozen linear layer: whole-number weights and inputs, `(..., in)` → `(..., out)`."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        scales = weight.detach().abs().amax(dim=1).clamp(min=SMALLEST) / 127  # (out,)
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with warnings.catch_warnings():
            # PyTorch means to remove this type of tensor; `supported` then says no.
            warnings.filterwarnings("ignore", message=".*deprecated and will be removed")
            whole = torch.quantize_per_channel(weight.detach(), scales, zeros, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(whole, None)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()  # with mixed precision it comes in 16 bits
        largest = x.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST)  # (..., 1)
        y: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / largest, 1 / 127, 128, self.packed
        )
        return y * largest if self.bias is None else torch.addcmul(self.bias, y, largest)


def supported() -> bool:
    """Whether this CPU's 8-bit sums are right.

    Tried on the largest numbers: without the instructions for it (VNNI), FBGEMM adds two products
    in 16 bits, which overflow there.
    """
    weight = torch.ones(64, 64)
    try:
        found = Int8Linear(weight, None)(torch.ones(4, 64))
    except (AttributeError, RuntimeError):  # not built with FBGEMM, as on ARM, or without these
        return False
    return torch.allclose(found, torch.full((4, 64), 64.0))


def to_int8(model: nn.Module) -> None:
    """Put every linear layer of a model into 8 bits, in place, one after the other.

    An embedding that shares its weight with the head stays as it is: a token reads one row of it.

    Raises:
        InputError: not on a CPU, or this CPU cannot compute so.
    """
    device = next(model.parameters()).device
    if device.type != "cpu" or not supported():
        where = f"on {device.type}" if device.type != "cpu" else "on this CPU"
        raise InputError(
            f"weights is 'int8': not {where}. It needs an x86 CPU with VNNI (AVX-512 or AVX2). "
            "Leave it at 'full'."
        )
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                bias = None if layer.bias is None else layer.bias.detach()
                setattr(parent, name, Int8Linear(layer.weight, bias))
