"""Noise for training: which shot and read to expect, and samples drawn with them.

A sensor's variance is shot * x + read, x normalised. A law says how likely each pair is. Row noise
and defective pixels are what real sensors add to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.noise import LAW_INTERCEPT, LAW_SLOPE, LEVELS

__all__ = [
    "CYCLEISP_DND",
    "CYCLEISP_SIDD",
    "LEVELS",
    "NOISE_LAWS",
    "UNPROCESSING",
    "NoiseLaw",
    "noise_law",
    "noisy_samples",
    "variance_map",
    "with_defective_pixels",
    "with_row_noise",
]


@dataclass(frozen=True)
class NoiseLaw:
    """Shot log-uniform in [low, high], ln(read) normal about slope * ln(shot) + intercept.

    Attributes:
        low: smallest shot, in normalised units.
        high: largest shot, in normalised units.
        spread: standard deviation of ln(read) about the line.
        slope: of the line, natural logarithms on both sides.
        intercept: of the line, natural logarithm of a read in normalised units.
    """

    low: float
    high: float
    spread: float
    slope: float
    intercept: float

    @classmethod
    def base_10(
        cls, low: float, high: float, *, spread: float, slope: float, intercept: float
    ) -> NoiseLaw:
        """The law whose spread, slope and intercept are stated in base 10 logarithms.

        The change of base scales spread and intercept by ln(10) and leaves the slope.
        """
        return cls(low, high, spread * _LN_10, slope, intercept * _LN_10)

    def read(self, shot: float) -> float:
        """Read variance on the line at this shot, both in normalised units."""
        return math.exp(self.slope * math.log(shot) + self.intercept)

    def draw(self, rng: np.random.Generator) -> tuple[float, float]:
        """One random (shot, read), in normalised units."""
        shot = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return shot, self.read(shot) * math.exp(rng.normal(0.0, self.spread))


_LN_10 = math.log(10)

UNPROCESSING = NoiseLaw(
    low=1e-4, high=1.2e-2, spread=0.26, slope=LAW_SLOPE, intercept=LAW_INTERCEPT
)
"""T. Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, section 3.1; the
numbers of the authors' code (google-research/unprocessing, Apache-2.0)."""

CYCLEISP_DND = NoiseLaw.base_10(1e-4, 1.2e-2, spread=0.26, slope=2.18, intercept=1.20)
"""The law that S. W. Zamir et al., "CycleISP: Real Image Restoration via Improved Data Synthesis",
CVPR 2020, released for DND. It has the numbers of ``UNPROCESSING`` in base 10, so that the read
variance is (10 / e)^1.2 = 4.77 times larger at every shot, and its spread wider: a factor of 1.82
instead of 1.30."""

CYCLEISP_SIDD = NoiseLaw.base_10(0.00068674, 0.02194856, spread=0.20, slope=1.85, intercept=0.30)
"""The law that the same authors released for SIDD: a line through the noise levels of those SIDD
images whose read noise is not 0."""

NOISE_LAWS = {
    "unprocessing": UNPROCESSING,
    "cycleisp-dnd": CYCLEISP_DND,
    "cycleisp-sidd": CYCLEISP_SIDD,
}
"""Every published law, by the name that settings give it."""


def noise_law(name: str) -> NoiseLaw:
    """The law of this name.

    Raises:
        SettingsError: where there is none; the known ones are listed.
    """
    try:
        return NOISE_LAWS[name]
    except KeyError:
        raise SettingsError(
            "no such noise law", met=name, wanted=f"one of: {', '.join(NOISE_LAWS)}"
        ) from None


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


def with_row_noise(
    packed: npt.NDArray[np.float32], row: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """The packed normalised frame (4, h, w) with one random offset per row of the sensor, float32.

    R and Gr lie in one row of the sensor, Gb and B in the next: the two planes of a row share its
    offset. Normal, as K. Wei et al., "A Physics-based Noise Formation Model for Extreme Low-light
    Raw Denoising", CVPR 2020, model the banding of row read-out.

    Args:
        packed: planes R, Gr, Gb, B.
        row: variance of the offsets, at least 0, in squared normalised units.
        rng: where the offsets come from.
    """
    height = packed.shape[-2]
    offsets = np.float32(math.sqrt(row)) * rng.standard_normal((2, height, 1), dtype=np.float32)
    return packed + np.repeat(offsets, 2, axis=0)


def with_defective_pixels(
    packed: npt.NDArray[np.float32], hot: float, dead: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """The normalised frame, any shape, with some samples stuck at white or at black, float32.

    Args:
        packed: samples, noise included: a defect hides it.
        hot: share of the samples that are stuck at white, 1; in [0, 1].
        dead: share of the samples that are stuck at black, 0; at most 1 - ``hot``.
        rng: which samples.
    """
    chance = rng.random(packed.shape, dtype=np.float32)
    stuck = np.where(chance < hot, np.float32(1), np.float32(0))
    return np.where(chance < hot + dead, stuck, packed)
