"""What the model sees while it writes: token rows, their windows, and the cache behind them.

Shapes: B rows, L tokens of the longest row so far, S positions of the window, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from yunque.model.protocol import LanguageModel, SlidingCache, device_of


def window_start(length: int, context_length: int) -> int:
    """First token that the model sees of a row of `length` tokens.

    A row that fits is seen whole. When the context is full, the last half of it is kept and
    grows again. So a cached row is read anew once per half context instead of once per token:
    all its positions change when the window moves, and what was cached for them with it.
    The start depends on the length alone, so that cached and uncached reading agree.
    """
    step = context_length - context_length // 2
    too_many = max(0, length - context_length)
    return -(-too_many // step) * step


class Contexts:
    """Growing rows of tokens and the model's view of them.

    Rows of different lengths end in the same column; the model is told by mask and positions
    which columns are a row's own. Columns to the left of a row repeat its first token, so that
    `history` holds no token that the row does not have.

    The columns of the cache are those of the widest window. A window that is full when one more
    token comes is cut to its last half, and that half is read anew for those rows only; where
    the cache cannot be cut, all rows are read anew.
    """

    def __init__(
        self, model: LanguageModel, prompts: Sequence[Sequence[int]], room: int, use_cache: bool
    ):
        """Place the prompts.

        Args:
            model: in evaluation mode.
            prompts: token ids, none empty.
            room: tokens that may be appended.
            use_cache: False reads each window whole at every token (slow, for comparison).
        """
        device = device_of(model)
        self.model = model
        self.limit = model.config.context_length
        self.slid = False
        self.finite = True
        """No logit so far was infinite or none: -inf, which forbids a token, is a logit."""
        self.end = max(map(len, prompts))
        rows = [[prompt[0]] * (self.end - len(prompt)) + list(prompt) for prompt in prompts]
        self.tokens = torch.zeros(len(rows), self.end + room, dtype=torch.int64, device=device)
        self.tokens[:, : self.end] = torch.tensor(rows, device=device)
        first = [self.end - len(prompt) for prompt in prompts]
        self.first = torch.tensor(first, device=device)  # (B,) column of a row's first token
        self.pads = torch.zeros_like(self.first)  # (B,) cache columns before a row's window
        self.ragged = False  # some pads are not 0
        self.cache = None
        if use_cache:
            self.cache = model.new_cache(len(rows), min(self.limit, self.end + room))

    @property
    def history(self) -> Tensor:
        """All tokens so far, `(B, L)`."""
        return self.tokens[:, : self.end]

    def append(self, ids: Tensor) -> None:
        """One more token for each row, `(B,)`."""
        self.tokens[:, self.end] = ids
        self.end += 1

    def select(self, rows: Tensor) -> None:
        """Make row i continue row `rows[i]`; rows may be repeated and dropped."""
        self.tokens, self.first, self.pads = self.tokens[rows], self.first[rows], self.pads[rows]
        if self.cache is not None:
            self.cache.reorder(rows)

    def next_logits(self) -> Tensor:
        """Read what has not been read; the logits of the next token, `(B, V)`, float32."""
        full = self.cache is not None and self.cache.used == self.limit
        if full and not isinstance(self.cache, SlidingCache):
            self.cache = self.model.new_cache(len(self.tokens), self.limit)
        unread = self.cache is None or self.cache.used == 0
        hidden = self._read_windows() if unread else self._read_last()  # (B, T, C)
        logits: Tensor = self.model.head(hidden[:, -1])
        logits = logits.float()
        self.finite = self.finite and math.isfinite(logits.max().item())  # NaN is the largest
        return logits

    def _read_windows(self) -> Tensor:
        """Every row's window, whole."""
        lengths = (self.end - self.first).tolist()
        widths = [length - window_start(length, self.limit) for length in lengths]
        self.slid = self.slid or max(lengths) > self.limit
        widest = max(widths)
        self.pads = torch.tensor([widest - width for width in widths], device=self.first.device)
        self.ragged = min(widths) < widest
        tokens = self.tokens[:, self.end - widest : self.end]  # (B, S)
        if not self.ragged:
            return self.model(tokens, self.cache)
        columns = torch.arange(widest, device=tokens.device)
        own = columns >= self.pads[:, None]  # (B, S)
        causal = columns <= columns[:, None]  # (S, S)
        # A pad sees itself: a softmax over nothing would be NaN, and NaN spreads through values.
        mask = causal & own[:, None, :] | torch.eye(widest, dtype=torch.bool, device=tokens.device)
        positions = (columns - self.pads[:, None]).clamp(min=0)  # (B, S)
        return self.model(tokens, self.cache, positions, mask[:, None])

    def _read_last(self) -> Tensor:
        """The newest token of every row, after what the cache holds."""
        assert self.cache is not None
        if self.cache.used == self.limit:
            self._slide()
        token = self.tokens[:, self.end - 1 : self.end]  # (B, 1)
        if not self.ragged:
            return self.model(token, self.cache)
        positions = (self.cache.used - self.pads)[:, None]  # (B, 1)
        columns = torch.arange(self.cache.used + 1, device=token.device)
        mask = columns >= self.pads[:, None]  # (B, S)
        return self.model(token, self.cache, positions, mask[:, None, None])

    def _slide(self) -> None:
        """Cut the full windows to their last half; then drop the columns that no row needs."""
        assert self.cache is not None
        half = self.limit // 2
        full = (self.pads == 0).nonzero().flatten()  # (R,) rows whose window is full
        if len(full):
            self.slid = True
            self.pads[full] = self.limit - half
        if len(full) and half:
            again = self.model.new_cache(len(full), half)
            self.model(self.tokens[full, self.end - 1 - half : self.end - 1], again)
            self.cache.replace_end(full, again)
        unused = int(self.pads.min())
        self.cache.forget(unused)
        self.pads -= unused
        self.ragged = bool(self.pads.any())
