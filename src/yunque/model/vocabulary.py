"""New tokens in a trained model: rows of the embedding and of the head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PART = 4096  # rows that are added up at once: a whole embedding in float64 can be gigabytes


def with_rows(weight: Tensor, rows: int, new: Sequence[int], known: Sequence[int]) -> Tensor:
    """`weight` with `rows` rows: those of `new` tokens are the mean of the `known` ones.

    The mean keeps the model what it is: a new logit is the mean of the old ones, so that each new
    token lowers the probabilities of V others by a factor of at most 1 + 1/V. All other rows are as
    they were, to the bit; rows that only pad the vocabulary are not counted, for nobody has trained
    them.

    Source: Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models".

    Args:
        weight: `(V, C)` or a bias `(V,)`.
        new, known: ids.
    """
    parts = torch.tensor(known).split(PART)
    total = torch.stack([weight[part].double().sum(dim=0) for part in parts]).sum(dim=0)
    mean = total / len(known)  # (C,) or ()
    larger = weight.new_empty(rows, *weight.shape[1:])
    larger[: len(weight)] = weight
    larger[torch.tensor(new)] = mean.to(weight.dtype)
    return larger


@torch.no_grad()
def add_rows(
    embedding: nn.Embedding,
    head: nn.Linear,
    rows: int,
    new: Sequence[int],
    known: Sequence[int],
) -> None:
    """Give embedding and head rows for new tokens, in place; tied weights stay tied.

    Args:
        rows, new, known: as for `with_rows`.
    """
    tied = head.weight is embedding.weight
    embedding.weight = nn.Parameter(with_rows(embedding.weight, rows, new, known))
    embedding.num_embeddings = head.out_features = rows
    head.weight = (
        embedding.weight if tied else nn.Parameter(with_rows(head.weight, rows, new, known))
    )
    if head.bias is not None:
        head.bias = nn.Parameter(with_rows(head.bias, rows, new, known))
