"""The noise of one synthesised picture: which level, and the samples drawn with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp.noise import NoiseLaw, noisy_samples, with_defective_pixels, with_row_noise
from cycleisp.sensor_profile import SensorProfile
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.noise import NoiseModel

__all__ = ["NoiseLevel", "RawNoise"]


@dataclass(frozen=True)
class NoiseLevel:
    """How much noise one picture has, in normalised units.

    Attributes:
        pixel: shot and read per plane R, Gr, Gb, B, of what every sample has for itself.
        row: variance of what all samples of a sensor row share.
    """

    pixel: NoiseModel
    row: float = 0.0

    def variance(self, noisy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Variance map (4, h, w) float32 of a packed frame, as denoisers are told it."""
        return self.pixel.variance(noisy) + np.float32(self.row)


@dataclass(frozen=True)
class RawNoise:
    """Which noise synthesised pictures get.

    Attributes:
        levels: how likely each level is: a published law, or a measured sensor at a random ISO.
        poisson: count photo-electrons instead of drawing shot noise from a Gaussian.
        row: variance of row noise, as a multiple of the mean read variance; comes on top of what a
            sensor profile has measured.
        hot: share of samples stuck at white.
        dead: share of samples stuck at black.

    Raises:
        SettingsError: where a number is out of its range.
    """

    levels: NoiseLaw | SensorProfile
    poisson: bool = False
    row: float = 0.0
    hot: float = 0.0
    dead: float = 0.0

    def __post_init__(self) -> None:
        for name, value, most in (
            ("row noise", self.row, 100.0),
            ("share of hot pixels", self.hot, 1.0),
            ("share of dead pixels", self.dead, 1.0 - self.hot),
        ):
            if not 0 <= value <= most:
                raise SettingsError(
                    "out of range", subject=name, met=value, wanted=f"0 to {most:g}"
                )

    def level(self, rng: np.random.Generator) -> NoiseLevel:
        """A random level."""
        if isinstance(self.levels, NoiseLaw):
            level = NoiseLevel(NoiseModel.uniform(*self.levels.draw(rng)))
        else:
            measured = self.levels.draw(rng)
            level = NoiseLevel(measured.pixel, measured.row)
        return NoiseLevel(level.pixel, level.row + self.row * level.pixel.mean_read)

    def samples(
        self, clean: npt.NDArray[np.float32], level: NoiseLevel, rng: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Noisy packed RAW (4, h, w) float32, clipped to [0, 1], of a clean one in [0, 1]."""
        noisy = np.stack(
            [
                noisy_samples(plane, shot, read, rng, poisson=self.poisson)
                for plane, shot, read in zip(clean, level.pixel.shot, level.pixel.read, strict=True)
            ]
        )
        if level.row > 0:
            noisy = with_row_noise(noisy, level.row, rng)
        if self.hot > 0 or self.dead > 0:
            noisy = with_defective_pixels(noisy, self.hot, self.dead, rng)
        return np.clip(noisy, 0, 1, out=noisy)
