"""Laws of the statistics that a benchmark is judged by."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.bench.statistics import latency, ratio_of_medians, slope

SECONDS = st.lists(st.floats(1e-4, 10), min_size=1, max_size=60)


@given(SECONDS)
def test_percentiles_are_ordered_and_inside(seconds: list[float]) -> None:
    facts = latency(seconds)
    ordered = [facts.least, facts.p50, facts.p90, facts.p95, facts.p99, facts.most]
    # The line between two equal samples may round in the last bit.
    assert all(low <= high * (1 + 1e-12) for low, high in pairwise(ordered))
    assert facts.n == len(seconds)
    assert facts.least == min(seconds) * 1e3
    assert facts.most == max(seconds) * 1e3


def test_known_percentiles() -> None:
    facts = latency([0.001 * value for value in range(1, 12)])
    values = (facts.p50, facts.p90, facts.p95, facts.p99, facts.mean)
    assert values == pytest.approx((6, 10, 10.5, 10.9, 6))


@given(SECONDS, st.floats(0.1, 10))
def test_the_ratio_is_free_of_the_unit(seconds: list[float], factor: float) -> None:
    other = [factor * value for value in seconds]
    found = ratio_of_medians(seconds, other, limit=1.0, rng=np.random.default_rng(0))
    assert found.ratio == pytest.approx(factor)
    assert found.low <= found.high
    assert 0 <= found.confidence <= 1


@pytest.mark.parametrize("n", [15, 16])
def test_medians_follow_the_law_of_plain_resampling(n: int) -> None:
    rng = np.random.default_rng(3)
    before, after = rng.lognormal(0, 0.2, n), rng.lognormal(0.1, 0.2, n)
    found = ratio_of_medians(list(before), list(after), limit=1.1, rng=rng)
    plain = np.median(rng.choice(after, (10_000, n)), axis=1) / np.median(
        rng.choice(before, (10_000, n)), axis=1
    )
    # Four standard errors of a share of 10,000, and the steps between samples at the ends.
    assert found.confidence == pytest.approx(np.mean(plain > 1.1), abs=0.028)
    assert (found.low, found.high) == pytest.approx(np.percentile(plain, (2.5, 97.5)), rel=0.03)


def test_two_samples_have_three_medians() -> None:
    rng = np.random.default_rng(0)
    limits = (0.9, 1.5, 2.5, 3.0)
    found = [ratio_of_medians([1.0], [1.0, 3.0], limit=limit, rng=rng) for limit in limits]
    # 1, 2 and 3 with 1/4, 1/2 and 1/4: four standard errors of a share of 10,000.
    assert [each.confidence for each in found] == pytest.approx([1, 0.75, 0.25, 0], abs=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        found = ratio_of_medians(
            list(rng.lognormal(0, 0.1, 25)),
            list(rng.lognormal(np.log(1.2), 0.1, 25)),
            limit=1.0,
            rng=rng,
        )
        covered += found.low <= 1.2 <= found.high
    # The percentile bootstrap of a median is close to its 95 %, not at it; 400 trials err by 1.1 %.
    assert 0.91 <= covered / 400 <= 0.995


@given(st.floats(-100, 100), st.floats(-100, 100), st.integers(2, 50))
def test_slope_of_a_line(rise: float, start: float, count: int) -> None:
    x = np.arange(count, dtype=float)
    assert slope(list(x), list(start + rise * x)) == pytest.approx(rise, abs=1e-9)


def test_slope_of_one_place_is_none() -> None:
    assert slope([1, 1], [2, 3]) == 0
