"""Beam search: the k most probable continuations, kept side by side.

Shapes: P prompts, k beams of a prompt, K candidates of a prompt, V vocabulary, N new tokens.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from yunque.config import GenerateConfig
from yunque.generate.context import Contexts
from yunque.generate.sampling import LEFT_OUT, apply_repetition_penalty


def beam_search(
    contexts: Contexts, settings: GenerateConfig, end_ids: Collection[int]
) -> list[list[int]]:
    """The best `settings.samples` of `settings.beams` texts of each prompt, prompt by prompt.

    The score of a text is the sum of its log-probabilities, the end token's included, divided
    by its number of tokens to the power `length_penalty`. A text is finished by an end token
    that is among the k best candidates, or by `max_new_tokens`. A prompt is done when its k
    finished texts are all better than its best running beam would be if it ended now (a longer
    text might still win where the penalty favours length; the rule of transformers'
    `early_stopping=False`, whose results this gives).

    Args:
        contexts: the prompts, one row each, nothing read yet.
        settings: `beams`, `samples`, `max_new_tokens`, `length_penalty`, `repetition_penalty`.
        end_ids: tokens that end a text.

    Returns:
        New token ids, the end token included where there is one.

    Source: Wu et al. 2016, "Google's Neural Machine Translation System", section 7, for scores
    normalised by length; the power as such is transformers' form.
    """
    k, longest = settings.beams, settings.max_new_tokens
    logits = contexts.next_logits()  # (P, V)
    P, V = logits.shape
    device = logits.device
    logits = logits.repeat_interleave(k, dim=0)  # (P·k, V)
    contexts.select(torch.arange(P, device=device).repeat_interleave(k))
    prompt_end = contexts.end
    first_row = k * torch.arange(P, device=device)[:, None]  # (P, 1) row of a prompt's first beam
    ends = torch.tensor(sorted(end_ids), dtype=torch.int64, device=device)
    # Enough candidates that k of them go on even if every beam's best tokens are the end tokens.
    num_candidates = min(max(2, 1 + len(ends)) * k, k * V)

    scores = torch.full((P, k), LEFT_OUT, device=device)
    scores[:, 0] = 0.0  # the beams of a prompt are equal at first: one of them counts
    finished = torch.full((P, k), LEFT_OUT, device=device)  # scores by length, best first
    texts = torch.zeros((P, k, longest), dtype=torch.int64, device=device)
    lengths = torch.zeros((P, k), dtype=torch.int64, device=device)
    improving = torch.ones((P, 1), dtype=torch.bool, device=device)

    for length in range(1, longest + 1):
        log_probabilities = logits.log_softmax(dim=-1)
        if settings.repetition_penalty != 1:
            log_probabilities = apply_repetition_penalty(
                log_probabilities, contexts.history, settings.repetition_penalty
            )
        totals = scores[:, :, None] + log_probabilities.view(P, k, V)
        best, where = totals.view(P, k * V).topk(num_candidates)  # (P, K)
        rows, tokens = first_row + where // V, where % V
        over = torch.isin(tokens, ends) | (length == longest)

        # Only the k best candidates may finish; the others are there to run on.
        written = contexts.tokens[rows[:, :k], prompt_end : prompt_end + longest]  # (P, k, N)
        written[:, :, length - 1] = tokens[:, :k]
        ended = (best / length**settings.length_penalty)[:, :k]
        ended = ended.masked_fill(~(over[:, :k] & improving), LEFT_OUT)
        finished, kept = torch.cat((finished, ended), dim=1).topk(k)
        texts = _pick(torch.cat((texts, written), dim=1), kept)
        lengths = _pick(torch.cat((lengths, torch.full_like(lengths, length)), dim=1), kept)

        scores, kept = best.masked_fill(over, LEFT_OUT).topk(k)
        reach = scores[:, :1] / length**settings.length_penalty
        improving &= reach > finished[:, -1:]
        if not improving.any():
            break
        contexts.select(_pick(rows, kept).flatten())
        contexts.append(_pick(tokens, kept).flatten())
        logits = contexts.next_logits()

    chosen = zip(texts[:, : settings.samples], lengths[:, : settings.samples], strict=True)
    return [
        text[:length].tolist()
        for prompt_texts, prompt_lengths in chosen
        for text, length in zip(prompt_texts, prompt_lengths.tolist(), strict=True)
    ]


def _pick(values: Tensor, index: Tensor) -> Tensor:
    """For each prompt the entries that `index` `(P, n)` names, of `(P, m)` or `(P, m, N)`."""
    if values.dim() == 3:
        index = index[:, :, None].expand(-1, -1, values.shape[-1])
    return values.gather(1, index)
