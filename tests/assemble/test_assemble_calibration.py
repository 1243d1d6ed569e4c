"""Rates from timed updates: a machine of known rates is found again, disturbed rounds or not."""

from __future__ import annotations

import dataclasses

import pytest

from yunque.assemble.calibration import Timings, rates_of, small_jobs, steadiest
from yunque.config import ModelConfig, OptimConfig, TrainConfig
from yunque.forecast.machine import Rates
from yunque.forecast.work import Workload, update_work

TRUE = Rates(
    matrix_operations=6e-12,
    matrix_bytes=6e-11,
    attention_operations=1.2e-11,
    elementwise_bytes=6e-11,
    update_bytes=5e-11,
    unpacked_weights=9e-10,
    calls=2e-5,
    update=1e-3,
    attention_scores=1e-9,
    packed_states=2e-8,
)
DIRECT = {
    name: dataclasses.asdict(TRUE)[name]
    for name in (
        "matrix_operations",
        "matrix_bytes",
        "attention_operations",
        "elementwise_bytes",
        "update_bytes",
        "unpacked_weights",
        "packed_states",
    )
}


def timings(rates: Rates) -> list[float]:
    return [rates.seconds(update_work(job)) + rates.update for job in small_jobs()]


@pytest.mark.parametrize(("width", "layers", "length"), [(768, 12, 256), (128, 4, 64)])
def test_a_machine_is_found_again_from_its_lesser_rounds(
    width: int, layers: int, length: int
) -> None:
    seconds = timings(TRUE)
    # Other work held up the first half of one round and the second half of the other.
    half = len(seconds) // 2
    rounds = [
        [3 * t if i < half else t for i, t in enumerate(seconds)],
        [t if i < half else 3 * t for i, t in enumerate(seconds)],
    ]
    found = rates_of(Timings(rounds, DIRECT, 0.0), "fp32")
    assert (found.unpacked_weights, found.packed_states) == (9e-10, 2e-8)
    shape = ModelConfig(
        preset="", hidden_size=width, num_layers=layers, num_heads=4, context_length=length
    )
    job = update_work(Workload(shape.resolved(8000), TrainConfig(batch_size=4), OptimConfig()))
    true = TRUE.seconds(job) + TRUE.update
    assert found.seconds(job) + found.update == pytest.approx(true, rel=0.01)


def test_unsteadiness_is_that_of_the_lesser_round() -> None:
    assert steadiest([[1.0, 1.1, 1.2], [5.0, 5.0, 5.0]]) == pytest.approx(0.1)
    assert steadiest([[2.0, 2.0], [1.0, 3.0]]) == pytest.approx(1.0)
