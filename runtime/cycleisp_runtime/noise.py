"""Noise of a sensor: variance(x) = shot * x + read in units of the normalised signal.

The heteroscedastic Gaussian model of A. Foi et al., "Practical Poissonian-Gaussian noise modeling
and fitting for single-image raw-data", IEEE TIP 17(10), 2008, eq. 3; the same two numbers as DNG
tag NoiseProfile (DNG 1.7.1, "NoiseProfile": sigma(x) = sqrt(S x + O)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import InputError, SettingsError

__all__ = [
    "LAW_INTERCEPT",
    "LAW_SLOPE",
    "LEVELS",
    "NoiseModel",
    "light",
    "read_on_law",
    "shot_on_law",
]

LAW_SLOPE, LAW_INTERCEPT = 2.18, 1.20
"""ln(read) = 2.18 ln(shot) + 1.20, both in normalised units: T. Brooks et al., "Unprocessing Images
for Learned Raw Denoising", CVPR 2019, section 3.1, with natural logarithms as in the authors' code
(google-research/unprocessing)."""


@dataclass(frozen=True)
class NoiseModel:
    """Shot and read coefficients of the variance, per plane R, Gr, Gb, B, in normalised units.

    Raises:
        InputError: where a shot is not in (0, 1) or a read is not in [0, 1).
    """

    shot: tuple[float, float, float, float]
    read: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        usable = all(0 < shot < 1 for shot in self.shot) and all(
            0 <= read < 1 for read in self.read
        )
        if not usable:
            raise InputError(
                "noise coefficients are out of range",
                met=f"shot {self.shot}, read {self.read}",
                wanted="0 < shot < 1 and 0 <= read < 1, in normalised units",
            )

    @classmethod
    def uniform(cls, shot: float, read: float) -> NoiseModel:
        """One line for all four planes."""
        return cls((shot,) * 4, (read,) * 4)

    @classmethod
    def parse(cls, text: str) -> NoiseModel:
        """One line for all four planes from "SHOT,READ", such as "1.1e-3,2e-6".

        Raises:
            SettingsError: where it is not two numbers.
            InputError: where they are out of range.
        """
        try:
            shot, read = map(float, text.split(","))
        except ValueError as error:
            raise SettingsError(f"{text!r} is not two numbers such as 1.1e-3,2e-6") from error
        return cls.uniform(shot, read)

    @property
    def mean_shot(self) -> float:
        """Mean of the four shot coefficients."""
        return math.fsum(self.shot) / 4

    @property
    def mean_read(self) -> float:
        """Mean of the four read coefficients."""
        return math.fsum(self.read) / 4

    def scaled(self, factor: float) -> NoiseModel:
        """The model of noise with ``factor`` times this variance.

        Raises:
            InputError: where the factor takes a coefficient out of its range.
        """
        a, b, c, d = (factor * shot for shot in self.shot)
        e, f, g, h = (factor * read for read in self.read)
        return NoiseModel((a, b, c, d), (e, f, g, h))

    def variance(
        self,
        packed: npt.NDArray[np.float32],
        out: npt.NDArray[np.float32] | None = None,
        planes: slice = slice(None),
    ) -> npt.NDArray[np.float32]:
        """Variance map (4, h, w) float32 of a packed normalised frame (4, h, w).

        shot * max(x, 0) + read: computed from the noisy data, the only data there is. Written into
        ``out`` where one is given, so that tiles need no new memory. ``planes`` are those of the
        four that ``packed`` holds.
        """
        shot = np.asarray(self.shot, np.float32)[planes, None, None]
        read = np.asarray(self.read, np.float32)[planes, None, None]
        variance = light(packed, out)
        variance *= shot
        variance += read
        return variance


def light(
    values: npt.NDArray[np.float32], out: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    """max(x, 0) of normalised samples float32: what shot noise grows with."""
    return np.clip(values, np.float32(0), np.float32(np.inf), out=out)  # np.maximum: thrice as slow


def read_on_law(shot: float) -> float:
    """Read variance on the law of Brooks et al. at this shot, both in normalised units.

    Measured sensors lie 1 to 400 times above it.
    """
    return math.exp(LAW_SLOPE * math.log(shot) + LAW_INTERCEPT)


def shot_on_law(read: float) -> float:
    """Shot on the same law at this read variance: undoes ``read_on_law``."""
    return math.exp((math.log(read) - LAW_INTERCEPT) / LAW_SLOPE)


LEVELS = {
    "low": (1e-4, read_on_law(1e-4)),
    "middle": (1.1e-3, read_on_law(1.1e-3)),
    "high": (1.2e-2, read_on_law(1.2e-2)),
}
"""The three (shot, read) at which this project states quality."""
