"""Noise for training: which shot and read to expect, and samples drawn with them.

A law says how likely each noise level is. It gives ln(read) as a line over ln(shot), with a spread,
and shot log-uniform between two ends. A sensor's variance is shot * x + read, x normalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LEVELS", "UNPROCESSING", "NoiseLaw", "noisy_samples"]


@dataclass(frozen=True)
class NoiseLaw:
    """ln(read) = slope * ln(shot) + intercept + Normal(0, spread), shot log-uniform in [low, high].

    Attributes:
        low: smallest shot, in normalised units.
        high: largest shot, in normalised units.
        slope: of the line, natural logarithms.
        intercept: of the line, natural logarithms.
        spread: standard deviation of ln(read) about the line.
    """

    low: float
    high: float
    slope: float
    intercept: float
    spread: float

    def read(self, shot: float) -> float:
        """Read variance on the law's line at this shot, in normalised units."""
        return math.exp(self.slope * math.log(shot) + self.intercept)

    def draw(self, rng: np.random.Generator) -> tuple[float, float]:
        """One random (shot, read), in normalised units."""
        shot = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return shot, self.read(shot) * math.exp(rng.normal(0.0, self.spread))


UNPROCESSING = NoiseLaw(low=1e-4, high=1.2e-2, slope=2.18, intercept=1.20, spread=0.26)
"""T. Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, section 3.1; the
authors' code (google-research/unprocessing, Apache-2.0) uses these numbers with natural logs."""

LEVELS = {
    "low": (1e-4, UNPROCESSING.read(1e-4)),
    "middle": (1.1e-3, UNPROCESSING.read(1.1e-3)),
    "high": (1.2e-2, UNPROCESSING.read(1.2e-2)),
}
"""The three (shot, read) at which this project states quality, on the line of UNPROCESSING."""


def noisy_samples(
    clean: npt.NDArray[np.float32],
    shot: float,
    read: float,
    rng: np.random.Generator,
    *,
    poisson: bool = False,
) -> npt.NDArray[np.float32]:
    """Noisy samples of a clean normalised frame, any shape, float32, not clipped.

    Gaussian with variance shot * max(clean, 0) + read; with ``poisson`` the shot part counts
    photo-electrons (1 / shot electrons at white) instead.
    """
    lit = np.maximum(clean, 0)
    if poisson:
        noisy = rng.poisson(lit / shot).astype(np.float32) * np.float32(shot)
        deviation: npt.NDArray[np.float32] | float = math.sqrt(read)
    else:
        noisy = clean
        deviation = np.sqrt(lit * np.float32(shot) + np.float32(read))
    return noisy + deviation * rng.standard_normal(clean.shape, dtype=np.float32)
