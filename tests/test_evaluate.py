"""Losses by hand, pooling, bits per byte, windows, and the view of single tokens."""

from __future__ import annotations

import dataclasses
import math
import weakref

import pytest
import torch
from reference_models import pair
from torch import Tensor, nn

from yunque import evaluate
from yunque.batch import Batch
from yunque.errors import InputError
from yunque.evaluate import TokenView, explain, score, text_windows, token_losses

# Probabilities of the next token by the token before it: rows sum to 1.
TABLE = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])


class Bigram(nn.Module):
    """A model whose prediction depends on the last token alone, as `TABLE` says."""

    def __init__(self) -> None:
        super().__init__()
        self.log_table = nn.Parameter(TABLE.log())
        self.seen: list[tuple[int, ...]] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.seen.append(tuple(tokens.shape))
        return nn.functional.one_hot(tokens, 3).float()

    def head(self, hidden: Tensor) -> Tensor:
        return hidden @ self.log_table


IDS = [0, 1, 2, 0, 0, 2, 1]
BY_HAND = [-math.log(p) for p in (0.25, 0.7, 0.6, 0.5, 0.25, 0.3)]


@pytest.mark.parametrize("context_length", [1, 2, 4, 6, 100])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_each_token_once_in_order(context_length: int, batch_size: int) -> None:
    losses = token_losses(Bigram(), IDS, context_length, batch_size)
    assert losses.tolist() == pytest.approx(BY_HAND, rel=1e-6)


def test_windows_do_not_overlap_and_the_last_may_be_short() -> None:
    windows = list(text_windows(list(range(12)), context_length=3, batch_size=2))
    assert [batch.inputs.tolist() for batch in windows] == [
        [[0, 1, 2], [3, 4, 5]],
        [[6, 7, 8]],
        [[9, 10]],
    ]
    assert [batch.targets.tolist() for batch in windows] == [
        [[1, 2, 3], [4, 5, 6]],
        [[7, 8, 9]],
        [[10, 11]],
    ]
    model = Bigram()
    token_losses(model, IDS, context_length=100)
    assert model.seen == [(1, 6)]  # shorter than the context: one window


def test_losses_of_a_decoder_in_its_windows() -> None:
    model, reference = pair("gpt2", context_length=8, std=0.2)
    ids = torch.randint(0, 61, (30,), generator=torch.Generator().manual_seed(2))
    losses = token_losses(model, ids, 8, batch_size=2)
    with torch.no_grad():
        for begin in range(0, 29, 8):
            window = ids[begin : begin + 9]
            logits = reference(window[None, :-1]).logits[0]
            expected = nn.functional.cross_entropy(logits, window[1:], reduction="none")
            torch.testing.assert_close(losses[begin : begin + 8], expected, rtol=1e-5, atol=1e-5)
    assert losses.shape == (29,)
    assert not losses.requires_grad


def test_score_by_hand_and_pooled() -> None:
    windows = list(text_windows(IDS, context_length=4))
    result = score(Bigram(), windows, num_bytes=9)
    total = sum(BY_HAND)
    assert result.tokens == 6
    assert result.bytes == 9
    assert result.loss == pytest.approx(total / 6, rel=1e-7)
    assert result.perplexity == pytest.approx(math.exp(total / 6), rel=1e-7)
    assert result.bits_per_byte == pytest.approx(total / math.log(2) / 9, rel=1e-7)
    # The last window holds two tokens: the mean of the windows' means is another number.
    mean_of_means = (sum(BY_HAND[:4]) / 4 + sum(BY_HAND[4:]) / 2) / 2
    assert abs(result.loss - mean_of_means) > 0.05
    assert score(Bigram(), windows).bits_per_byte is None


class NoDoubles(Tensor):
    """A tensor as on Apple's GPUs: no 64-bit numbers until it is on the CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        if func is Tensor.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return super().__torch_function__(func, types, args, kwargs or {})


def test_a_device_without_64_bit_numbers_gives_the_same_score() -> None:
    class OnDevice(Bigram):
        def head(self, hidden: Tensor) -> Tensor:
            return super().head(hidden).as_subclass(NoDoubles)

    windows = list(text_windows(IDS, context_length=4))
    assert score(OnDevice(), windows) == score(Bigram(), windows)


def test_masked_targets_carry_no_loss_and_no_count() -> None:
    inputs, targets = torch.tensor([IDS[:-1]]), torch.tensor([IDS[1:]])
    targets[0, [0, 3]] = -100
    result = score(Bigram(), [Batch(inputs, targets)])
    assert result.tokens == 4
    assert result.loss == pytest.approx(sum(BY_HAND[i] for i in (1, 2, 4, 5)) / 4, rel=1e-7)


def test_bits_per_byte_counts_bytes_not_characters() -> None:
    """A model that finds all 256 bytes equally likely needs 8 bits for each."""

    class Uniform(Bigram):
        def head(self, hidden: Tensor) -> Tensor:
            return torch.zeros(len(hidden), 256)

        def forward(self, tokens: Tensor) -> Tensor:
            return tokens[..., None].float()

    text = "¿Cuánto es 3 × 4? «doce» 日本"
    spelled = list(text.encode())
    assert len(spelled) > len(text)
    windows = text_windows([0, *spelled], context_length=5)
    result = score(Uniform(), windows, num_bytes=len(spelled))
    assert result.bits_per_byte == pytest.approx(8.0, rel=1e-7)
    assert result.perplexity == pytest.approx(256.0, rel=1e-6)


def test_many_small_losses_add_up_exactly() -> None:
    ids = torch.zeros(1, 200_001, dtype=torch.int64)
    result = score(Bigram(), [Batch(ids[:, :-1], ids[:, 1:])])
    assert result.loss == pytest.approx(math.log(2), rel=1e-7)


def test_explain_every_token() -> None:
    views = explain(Bigram(), IDS, "abc".__getitem__, context_length=4, num_alternatives=2)
    assert views[0] == TokenView(0, "a", None, None, None, ())
    assert [view.text for view in views] == list("abcaacb")
    assert [view.loss for view in views[1:]] == pytest.approx(BY_HAND, rel=1e-6)
    assert [view.probability for view in views[1:]] == pytest.approx(
        [0.25, 0.7, 0.6, 0.5, 0.25, 0.3], rel=1e-6
    )
    # Equal probabilities share the better rank: 0.25 of row a stands behind 0.5 alone.
    assert [view.rank for view in views[1:]] == [2, 1, 1, 1, 2, 2]
    after_b = views[2].alternatives
    assert [other[:2] for other in after_b] == [(2, "c"), (1, "b")]
    assert [other[2] for other in after_b] == pytest.approx([0.7, 0.2], rel=1e-6)


def test_alternatives_are_ordered_and_sum_to_one_over_the_vocabulary() -> None:
    model, _ = pair("llama", context_length=8, std=0.2)
    ids = torch.randint(0, 61, (20,), generator=torch.Generator().manual_seed(3)).tolist()
    views = explain(model, ids, str, context_length=8, num_alternatives=100)
    losses = token_losses(model, ids, 8)
    for view, loss in zip(views[1:], losses.tolist(), strict=True):
        probabilities = [probability for _, _, probability in view.alternatives]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1.0, abs=1e-5)
        assert view.alternatives[view.rank - 1][0] == view.id
        assert view.alternatives[view.rank - 1][2] == pytest.approx(view.probability, rel=1e-5)
        assert view.loss == pytest.approx(loss, rel=1e-5)


def test_one_token_has_no_prediction_and_none_is_an_error() -> None:
    assert explain(Bigram(), [2], "abc".__getitem__, 4) == [TokenView(2, "c", None, None, None, ())]
    with pytest.raises(InputError, match="has no tokens"):
        explain(Bigram(), [], "abc".__getitem__, 4)
    with pytest.raises(InputError, match="has 1 tokens: expected 2 or more"):
        token_losses(Bigram(), [1], 4)
    with pytest.raises(InputError, match="no token to predict"):
        score(Bigram(), [])
    masked = torch.full((1, 3), -100)
    with pytest.raises(InputError, match="no token to predict"):
        score(Bigram(), [Batch(torch.zeros(1, 3, dtype=torch.int64), masked)])


def test_the_logits_of_one_chunk_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "CHUNK_ELEMENTS", 4 * 3)
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    sizes: list[int] = []

    class Watched(Bigram):
        def head(self, hidden: Tensor) -> Tensor:
            assert not alive  # the logits of the chunk before are gone
            logits = super().head(hidden)
            alive.add(logits)
            sizes.append(len(logits))
            return logits

    ids = IDS * 3
    whole = token_losses(Bigram(), ids, 7, batch_size=1)
    assert torch.equal(token_losses(Watched(), ids, 7, batch_size=2), whole)
    # One row of each batch tells how many logits a row has.
    assert sizes == [1, 4, 4, 4, 2, 1, 4, 2]
    score(Watched(), text_windows(ids, 7))
    explain(Watched(), ids, "abc".__getitem__, 7)
    assert max(sizes) == 4
    assert sum(sizes) == 3 * 20 + 6


def test_the_mode_and_the_gradients_are_as_before() -> None:
    model, _ = pair("gpt2")
    model.dropout.p = 0.5
    model.train()
    first = token_losses(model, IDS, 4)
    assert model.training
    assert torch.is_grad_enabled()
    assert torch.equal(first, token_losses(model, IDS, 4))  # no dropout
    with pytest.raises(IndexError):
        token_losses(model, [0, 10**6, 3], 4)
    assert model.training
    assert torch.is_grad_enabled()


def test_scores_are_values() -> None:
    result = score(Bigram(), text_windows(IDS, 4), num_bytes=9)
    assert list(dataclasses.asdict(result)) == [
        "loss",
        "perplexity",
        "bits_per_byte",
        "tokens",
        "bytes",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.loss = 0.0  # type: ignore[misc]
