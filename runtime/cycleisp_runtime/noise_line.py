"""The line variance = shot * signal + read through measured points, kept within what sensors do.

Robust and repeated weighted least squares. Texture only ever adds variance, so points above the
line count less than points below it; where the points alone would give a read noise that no sensor
has, the read noise is held at the bound and the shot that then fits best is solved for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.noise import LAW_SLOPE, read_on_law, shot_on_law

__all__ = ["FittedLine", "Points", "VarianceLine", "fit_line", "shot_for_variance"]

FloatArray = npt.NDArray[np.float64]

_ROUNDS = 12
_MIN_SHOT = 1e-12
_LEAST_RESIDUAL_SCALE = 0.02
_WEIGHT_ABOVE = 1 / 1.5
_LAW_RANGE = (1 / 100, 1000)
"""Read noise over the law's. Sensors were measured at 1.4 to 400; 30 is too tight by 10 %."""


class VarianceLine(NamedTuple):
    """Variance over signal, both normalised."""

    shot: float
    read: float

    def variance(self, signal: FloatArray) -> FloatArray:
        """Variance at each signal (n,) float64, not below 0."""
        return self.shot * signal + self.read


@dataclass(frozen=True)
class Points:
    """Measured variances.

    Attributes:
        signal: (n,) float64, normalised, not below 0.
        variance: (n,) float64, above 0.
        weight: (n,) float64, how many blocks each point stands for.
    """

    signal: FloatArray
    variance: FloatArray
    weight: FloatArray


@dataclass(frozen=True)
class FittedLine:
    """A line and how well it fits.

    Attributes:
        line: within the bounds.
        unbounded: the same fit with no bound on either coefficient.
        residual: relative distance of the points from the line, root mean square over blocks.
    """

    line: VarianceLine
    unbounded: VarianceLine
    residual: float


def fit_line(points: Points, least_read: float) -> FittedLine:
    """The line of best fit that a sensor could have.

    Shot is above 0, read within 1/100 to 1000 times the law's and not below ``least_read``, a
    variance above 0. One point, or points of one signal, give all their variance to read as far
    as the bounds allow.
    """
    signal, variance = points.signal, points.variance
    predicted = variance
    for _ in range(_ROUNDS):
        weight = points.weight * _robust(variance / predicted - 1) / predicted**2
        unbounded = _least_squares(signal, variance, weight)
        line = _within_bounds(unbounded, signal, variance, weight, least_read)
        predicted = line.variance(signal)
    residual = np.average((variance / predicted - 1) ** 2, weights=points.weight) ** 0.5
    return FittedLine(line, unbounded, float(residual))


def shot_for_variance(signal: float, variance: float, law_factor: float) -> float:
    """The shot for which shot * signal + law_factor * read_on_law(shot) is this variance.

    Newton's method: the left side is convex and rises, so a start above the root stays above it.
    """
    shot = shot_on_law(variance / law_factor)
    for _ in range(12):
        read = law_factor * read_on_law(shot)
        slope = signal + LAW_SLOPE * read / shot
        shot -= (shot * signal + read - variance) / slope
    return shot


def _robust(residual: FloatArray) -> FloatArray:
    """Weights of relative residuals (n,): Cauchy, and less for points above the line."""
    spread = 1.48 * float(np.median(np.abs(residual - np.median(residual))))
    scale = 2 * max(_LEAST_RESIDUAL_SCALE, spread)
    return np.where(residual > 0, _WEIGHT_ABOVE, 1.0) / (1 + (residual / scale) ** 2)


def _least_squares(signal: FloatArray, variance: FloatArray, weight: FloatArray) -> VarianceLine:
    centre = np.average(signal, weights=weight)
    level = np.average(variance, weights=weight)
    spread = np.average((signal - centre) ** 2, weights=weight)
    if spread <= 1e-12 * centre**2:
        return VarianceLine(0.0, float(level))
    shot = np.average((signal - centre) * (variance - level), weights=weight) / spread
    return VarianceLine(float(shot), float(level - shot * centre))


def _within_bounds(
    line: VarianceLine,
    signal: FloatArray,
    variance: FloatArray,
    weight: FloatArray,
    least_read: float,
) -> VarianceLine:
    shot, read = line
    if read < 0:
        shot = float((weight * signal) @ variance / ((weight * signal) @ signal))
        read = 0.0
    shot = max(shot, _MIN_SHOT)
    law = read_on_law(shot)
    factor = min(max(read / law, _LAW_RANGE[0]), _LAW_RANGE[1])
    if factor * law != read:
        centre = float(np.average(signal, weights=weight))
        level = float(np.average(variance, weights=weight))
        shot = shot_for_variance(centre, level, factor)
        read = factor * read_on_law(shot)
    return VarianceLine(shot, max(read, least_read))
