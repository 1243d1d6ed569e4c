"""What is asked of a model by everything that uses one, whoever computes it.

`Decoder` fulfils it for the families that we compute ourselves, `weights.transformers_model` for
all others. Shapes: B rows, T tokens of this call, S positions with what a cache holds, C hidden
size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class Described(Protocol):
    """The numbers of a model that its users need."""

    @property
    def family(self) -> str: ...
    @property
    def context_length(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


class Cache(Protocol):
    """What a model keeps of the tokens that it has read."""

    used: int
    """Positions held."""

    def reorder(self, rows: Tensor) -> None:
        """Make row i continue what row `rows[i]` held; `rows` may name more or fewer rows."""


@runtime_checkable
class SlidingCache(Cache, Protocol):
    """A cache that can be cut; any other is thrown away when the window moves, and read anew."""

    def replace_end(self, rows: Tensor, other: Any) -> None:
        """Let all that `other` holds stand for the last positions of `rows`, in their order."""

    def forget(self, positions: int) -> None:
        """Drop the first `positions` of every row."""


class LanguageModel(Protocol):
    """Tokens → hidden states → logits, in two steps: nobody need hold the logits of a whole batch.

    `model(tokens, cache, positions, mask, segments)` gives hidden states `(B, T, C)`:

    | argument | meaning |
    |---|---|
    | `tokens` | ids `(B, T)`, int64 |
    | `cache` | what `new_cache` gave; holds the tokens before these, and these afterwards |
    | `positions` | `(B, T)`; by default they follow what the cache holds |
    | `mask` | bool `(B, 1, T, S)`, True where a token may look: rows padded on their left |
    | `segments` | `(B, T)`, equal where tokens belong together; without cache and mask, with \
`positions` that restart at each segment |

    `head` makes logits `(..., V)` of hidden states `(..., C)`. A token never sees a later one.
    """

    training: bool

    @property
    def config(self) -> Described: ...
    @property
    def head(self) -> Callable[[Tensor], Tensor]: ...
    @property
    def __call__(self) -> Callable[..., Tensor]: ...
    def new_cache(self, batch: int, length: int) -> Any: ...
    def parameter_counts(self) -> dict[str, int]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...


class Parametrised(Protocol):
    """Anything with parameters: a `LanguageModel`, an `nn.Module`."""

    def parameters(self) -> Iterator[nn.Parameter]: ...


def device_of(model: Parametrised) -> torch.device:
    """Where a model computes and wants its tokens.

    Not simply where its first parameter lies: an input embedding may stay in the CPU's memory
    while everything else is on a GPU.
    """
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))
