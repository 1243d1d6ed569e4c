"""How well a model predicts a text: loss, perplexity, bits per byte, and token by token.

Conventions. Losses are nats per token; sums and counts are pooled over all windows, never
averaged twice. Perplexity is exp(loss). Bits per byte is the sum of the losses in bits by the
number of bytes of the text in UTF-8: the one measure that compares models with different
tokenizers. A text is read in non-overlapping windows of the context, so that each token but the
first is predicted once; a text shorter than the context is one window.

Shapes: B windows, T tokens of a window, C hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yunque.batch import MASKED, Batch
from yunque.errors import InputError
from yunque.model.protocol import device_of

Result = TypeVar("Result")

CHUNK_ELEMENTS = 1 << 23
"""Logits held at once: 32 MiB in float32, whatever the vocabulary."""


class LanguageModel(Protocol):
    """What is asked of a model here: tokens `(B, T)` → hidden `(B, T, C)`, head → logits.

    A batch with more than one segment in a row also gives `positions` and `segments`."""

    training: bool

    @property
    def head(self) -> Callable[[Tensor], Tensor]: ...
    @property
    def __call__(self) -> Callable[..., Tensor]: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True)
class Score:
    """The loss over a set of windows."""

    loss: float
    """Nats per token."""
    perplexity: float
    bits_per_byte: float | None
    """None where the number of bytes is not known."""
    tokens: int
    """Tokens predicted."""
    bytes: int
    """UTF-8 bytes of the tokens predicted; 0 where not known. A text's first token is given, not
    predicted, so its bytes are not counted."""


@dataclass(frozen=True)
class TokenView:
    """One token and what the model expected in its place.

    The first token of a text is not predicted: probability, loss and rank are None, and there
    are no alternatives.
    """

    id: int
    text: str
    probability: float | None
    loss: float | None
    """Nats."""
    rank: int | None
    """1 for the token that the model held most likely."""
    alternatives: tuple[tuple[int, str, float], ...]
    """The most likely tokens, best first: id, text, probability."""


def text_windows(
    ids: Sequence[int] | Tensor, context_length: int, batch_size: int = 8
) -> Iterator[Batch]:
    """A text as batches `(B, T)`, in order: full windows, then the shorter last.

    Raises:
        InputError: fewer than two tokens: there is nothing to predict.
    """
    tokens = torch.as_tensor(ids, dtype=torch.int64)
    predicted = len(tokens) - 1
    if predicted < 1:
        raise InputError(
            f"the text has {len(tokens)} tokens: expected 2 or more; "
            "begin it with the separator token or give a longer text."
        )
    whole = predicted // context_length * context_length
    for begin in range(0, whole, batch_size * context_length):
        stop = min(begin + batch_size * context_length, whole)
        yield Batch(
            tokens[begin:stop].view(-1, context_length),
            tokens[begin + 1 : stop + 1].view(-1, context_length),
        )
    if whole < predicted:
        yield Batch(tokens[None, whole:-1], tokens[None, whole + 1 :])


def token_losses(
    model: LanguageModel, ids: Sequence[int] | Tensor, context_length: int, batch_size: int = 8
) -> Tensor:
    """The loss of every token but the first, `(N-1,)`, nats, float32, on the CPU.

    Args:
        model: hidden states by call, logits by `head`; its mode is as before afterwards.
        ids: N tokens of one text.
        context_length: tokens of a window.
        batch_size: windows read at once.

    Raises:
        InputError: fewer than two tokens.
    """
    windows = text_windows(ids, context_length, batch_size)
    with _evaluating(model):
        return torch.cat(list(_chunks(model, windows, _losses))).cpu()


def score(model: LanguageModel, windows: Iterable[Batch], num_bytes: int = 0) -> Score:
    """The pooled loss over batches of windows; masked targets are not counted.

    Args:
        num_bytes: UTF-8 bytes of the text that the targets spell; 0: not known.

    Raises:
        InputError: every target is masked, or there is no window.
    """
    total, count = 0.0, 0

    def add(logits: Tensor, targets: Tensor) -> tuple[float, int]:
        # Summed in 64 bits: the mean over millions of tokens keeps all its digits.
        # On the CPU, because Apple's GPUs have no 64-bit numbers.
        losses = _losses(logits, targets).cpu().double()
        return losses.sum().item(), int((targets != MASKED).sum())

    with _evaluating(model):
        for losses, tokens in _chunks(model, windows, add):
            total += losses
            count += tokens
    if count == 0:
        raise InputError("no token to predict: expected windows with at least one target.")
    loss = total / count
    return Score(
        loss=loss,
        perplexity=math.exp(loss) if loss < 700 else math.inf,
        bits_per_byte=total / math.log(2) / num_bytes if num_bytes else None,
        tokens=count,
        bytes=num_bytes,
    )


def explain(
    model: LanguageModel,
    ids: Sequence[int],
    token_text: Callable[[int], str],
    context_length: int,
    num_alternatives: int = 5,
) -> list[TokenView]:
    """Every token of a text with its probability, loss, rank and the likeliest alternatives.

    The windows are those of `token_losses`, so the mean of these losses is the evaluated loss;
    the first tokens of a window are predicted from few tokens before them.

    Raises:
        InputError: no token.
    """
    if len(ids) == 0:
        raise InputError("the text has no tokens: expected one or more.")
    views = [TokenView(ids[0], token_text(ids[0]), None, None, None, ())]
    if len(ids) == 1:
        return views

    def view(logits: Tensor, targets: Tensor) -> list[TokenView]:
        log_probabilities = logits.log_softmax(dim=-1)  # (rows, V)
        chosen = log_probabilities.gather(1, targets[:, None])  # (rows, 1)
        ranks = 1 + (log_probabilities > chosen).sum(dim=1)
        best = log_probabilities.topk(min(num_alternatives, logits.shape[-1]))
        return [
            TokenView(
                id=token,
                text=token_text(token),
                probability=math.exp(log_probability),
                loss=-log_probability,
                rank=rank,
                alternatives=tuple(
                    (other, token_text(other), probability)
                    for other, probability in zip(others, probabilities, strict=True)
                ),
            )
            for token, log_probability, rank, others, probabilities in zip(
                targets.tolist(),
                chosen.flatten().tolist(),
                ranks.tolist(),
                best.indices.tolist(),
                best.values.exp().tolist(),
                strict=True,
            )
        ]

    with _evaluating(model):
        for chunk in _chunks(model, text_windows(ids, context_length), view):
            views += chunk
    return views


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats for each target `(rows,)`; 0 where masked."""
    return F.cross_entropy(logits, targets, ignore_index=MASKED, reduction="none")


def _chunks(
    model: LanguageModel,
    windows: Iterable[Batch],
    read: Callable[[Tensor, Tensor], Result],
) -> Iterator[Result]:
    """`read(logits (rows, V) in float32, targets (rows,))` for some positions at once.

    The logits go to a function, not to a loop, so that none outlive their chunk.
    """
    device = device_of(model)
    for batch in windows:
        batch = batch.to(device)
        hidden = model(batch.inputs, **batch.layout).flatten(0, 1)  # (B·T, C)
        flat = batch.targets.flatten()  # (B·T,)
        step = max(1, CHUNK_ELEMENTS // model.head(hidden[:1]).shape[-1])
        for begin in range(0, len(flat), step):
            rows = slice(begin, begin + step)
            yield read(model.head(hidden[rows]).float(), flat[rows])


@contextmanager
def _evaluating(model: LanguageModel) -> Iterator[None]:
    """No dropout and no gradients; the model's mode is put back afterwards."""
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
