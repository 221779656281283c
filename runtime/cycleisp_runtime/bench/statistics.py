"""Statistics of samples that no figure may embellish."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bench.record import Latency

__all__ = ["LEAST_SAMPLES", "MedianRatio", "latency", "ratio_of_medians", "slope"]

RESAMPLES = 10_000
"""Of the bootstrap; the ends of its 95 % interval then vary by a few percent of its width."""

LEAST_SAMPLES = 5
"""The median's interval of fewer reaches from the least to the most of them."""


class MedianRatio(NamedTuple):
    """How the median changed.

    Attributes:
        ratio: median after over median before.
        low: lower end of the 95 % interval.
        high: upper end.
        confidence: share of resamples in which the ratio is above the limit asked about.
    """

    ratio: float
    low: float
    high: float
    confidence: float


def latency(seconds: Sequence[float]) -> Latency:
    """Mean and percentiles in milliseconds.

    Percentile p of n sorted samples lies at position (n - 1) p / 100, between two samples on the
    line through them: NumPy's "linear", number 7 of Hyndman and Fan, Sample Quantiles in
    Statistical Packages, The American Statistician 50 (1996). With few samples the high ones are
    little more than the largest sample, which is why n is always with them.
    """
    ms = np.asarray(seconds, np.float64) * 1e3
    p50, p90, p95, p99 = (float(each) for each in np.percentile(ms, (50, 90, 95, 99)))
    return Latency(len(ms), float(ms.mean()), p50, p90, p95, p99, float(ms.min()), float(ms.max()))


def ratio_of_medians(
    before: Sequence[float], after: Sequence[float], *, limit: float, rng: np.random.Generator
) -> MedianRatio:
    """The median of ``after`` over that of ``before``, with its percentile bootstrap interval.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: both are drawn anew
    with replacement, and the interval holds the middle 95 % of the ratios. Samples are taken to be
    independent; what disturbs a machine for many frames in a row makes the interval too narrow.

    Args:
        before: samples, all above 0.
        after: samples in the same unit.
        limit: the ratio whose ``confidence`` is told.
        rng: where resamples come from.
    """
    ratios = _resampled_medians(after, rng) / _resampled_medians(before, rng)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return MedianRatio(
        float(np.median(after) / np.median(before)),
        float(low),
        float(high),
        float(np.mean(ratios > limit)),
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Rise of y per unit of x along the line of least squares; 0 where x does not vary."""
    away = np.asarray(x, np.float64) - np.mean(x)
    spread = float(away @ away)
    return float(away @ np.asarray(y, np.float64)) / spread if spread > 0 else 0.0


def _resampled_medians(
    samples: Sequence[float], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Medians of as many samples, drawn anew with replacement, without drawing them all.

    Of n uniform numbers the m-th smallest is Beta(m, n - m + 1), and of those above it the next
    lies a share Beta(1, n - m) of the way to 1 (David and Nagaraja, Order Statistics, 3rd edition
    (2003), sections 2.1 and 2.5). So this is the bootstrap's own law, whatever n is.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    n = len(ordered)
    middle = (n + 1) // 2
    lower = rng.beta(middle, n - middle + 1, RESAMPLES)
    below = ordered[np.minimum((lower * n).astype(np.intp), n - 1)]
    if n % 2 == 1:
        return below
    upper = lower + (1 - lower) * rng.beta(1, n - middle, RESAMPLES)
    above = ordered[np.minimum((upper * n).astype(np.intp), n - 1)]
    return np.asarray((below + above) / 2)
