"""Noise for training: which shot and read to expect, and samples drawn with them.

A sensor's variance is shot * x + read, x normalised. A law says how likely each pair is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.noise import read_on_law

__all__ = ["LEVELS", "UNPROCESSING", "NoiseLaw", "noisy_samples", "variance_map"]


@dataclass(frozen=True)
class NoiseLaw:
    """Shot log-uniform in [low, high], ln(read) normally distributed about ``read_on_law``.

    Attributes:
        low: smallest shot, in normalised units.
        high: largest shot, in normalised units.
        spread: standard deviation of ln(read) about the line.
    """

    low: float
    high: float
    spread: float

    def draw(self, rng: np.random.Generator) -> tuple[float, float]:
        """One random (shot, read), in normalised units."""
        shot = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return shot, read_on_law(shot) * math.exp(rng.normal(0.0, self.spread))


UNPROCESSING = NoiseLaw(low=1e-4, high=1.2e-2, spread=0.26)
"""T. Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, section 3.1; the
numbers of the authors' code (google-research/unprocessing, Apache-2.0)."""

LEVELS = {
    "low": (1e-4, read_on_law(1e-4)),
    "middle": (1.1e-3, read_on_law(1.1e-3)),
    "high": (1.2e-2, read_on_law(1.2e-2)),
}
"""The three (shot, read) at which this project states quality."""


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
    normal = rng.standard_normal
    if poisson:
        electrons = rng.poisson(np.maximum(clean, 0) / shot)
        counted = electrons.astype(np.float32) * np.float32(shot)
        noise = np.float32(math.sqrt(read)) * normal(clean.shape, dtype=np.float32)
        return counted + noise
    noise = np.sqrt(variance_map(clean, shot, read)) * normal(clean.shape, dtype=np.float32)
    return clean + noise


def variance_map(
    noisy: npt.NDArray[np.float32], shot: float, read: float
) -> npt.NDArray[np.float32]:
    """Variance of noisy normalised samples as the networks are told it: shot * max(x, 0) + read."""
    return np.maximum(noisy, 0) * np.float32(shot) + np.float32(read)
