"""Noisy and clean packed RAW, simulated from photographs without any network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp.data.inverse_pipeline import mosaic_planes, random_inverse_pipeline
from cycleisp.data.photographs import random_place, random_reduction
from cycleisp.noise import NoiseLaw, noisy_samples, variance_map
from cycleisp.sensor_profile import SensorProfile

__all__ = ["NoisyPair", "SimulatedNoise"]

_GRAIN_SHARE = 0.35


@dataclass(frozen=True)
class NoisyPair:
    """Clean and noisy packed RAW of one patch.

    Attributes:
        clean: (4, h, w) float32, R, Gr, Gb, B, normalised, in [0, 1].
        noisy: (4, h, w) float32, normalised.
        variance: (4, h, w) float32, the variance map of ``noisy``.
    """

    clean: npt.NDArray[np.float32]
    noisy: npt.NDArray[np.float32]
    variance: npt.NDArray[np.float32]


@dataclass(frozen=True)
class SimulatedNoise:
    """Random noisy/clean pairs of packed RAW from clean photographs.

    Attributes:
        pictures: sRGB codes (H, W, 3) each.
        law: which noise to draw; of a measured sensor, that of a random ISO.
        patch: side of a patch in packed samples.
    """

    pictures: Sequence[npt.NDArray[np.uint8]]
    law: NoiseLaw | SensorProfile
    patch: int

    def draw(self, rng: np.random.Generator) -> NoisyPair:
        """A random patch by a random camera, with noise as a sensor adds it."""
        clean = self._clean_patch(rng)
        if isinstance(self.law, SensorProfile):
            measured = self.law.draw(rng)
            noisy = _stored(measured.samples(clean, rng), rng)
            return NoisyPair(clean, noisy, measured.variance(noisy))
        shot, read = _level_of_any_sensor(self.law, rng)
        # A sensor counts photo-electrons; a Gaussian stands for it where there are many.
        noisy = _stored(noisy_samples(clean, shot, read, rng, poisson=rng.random() < 0.3), rng)
        return NoisyPair(clean, noisy, variance_map(noisy, shot, read))

    def _clean_patch(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        picture = self.pictures[int(rng.integers(len(self.pictures)))]
        reduction = random_reduction(picture, 2 * self.patch, rng)
        codes = random_place(picture, 2 * self.patch, reduction, rng)
        camera_rgb = random_inverse_pipeline(rng).camera_rgb(codes, reduction)
        if rng.random() < _GRAIN_SHARE:
            camera_rgb = _with_grain(camera_rgb, rng)
        return mosaic_planes(camera_rgb)


def _with_grain(
    camera_rgb: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """The picture with fine texture that belongs to it, as film grain, sand or cloth do.

    The network is told the noise exactly, so it can learn that what exceeds it is signal: without
    such pictures it wipes grain off and a nearly clean picture comes out worse than it went in.
    """
    strength = np.exp(rng.uniform(np.log(0.002), np.log(0.05)))
    channels = 1 if rng.random() < 0.5 else 3
    grain = rng.standard_normal((*camera_rgb.shape[:2], channels), dtype=np.float32)
    if rng.random() < 0.5:
        # The mean of 2x2 has half of the deviation; such grain looks less like noise.
        grain = grain + np.roll(grain, 1, axis=0)
        grain = (grain + np.roll(grain, 1, axis=1)) / np.float32(2)
    deviation = np.float32(strength) * np.sqrt(np.maximum(camera_rgb, 0) + np.float32(1e-3))
    grainy: npt.NDArray[np.float32] = camera_rgb + deviation * grain
    return np.clip(grainy, np.float32(0), np.float32(1))


def _level_of_any_sensor(law: NoiseLaw, rng: np.random.Generator) -> tuple[float, float]:
    """The law's draw; for half of the patches the read noise strays further from the line.

    Measured sensors have 1 to 400 times the read variance of the line.
    """
    shot, read = law.draw(rng)
    if rng.random() < 0.5:
        read *= float(np.exp(rng.normal(0.7, 1.2)))
    return shot, read


def _stored(noisy: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Samples as files hold them: sometimes in 10 to 14 bits, mostly clipped at white."""
    if rng.random() < 0.3:
        steps = np.float32(2 ** rng.integers(10, 15))
        noisy = np.divide(np.round(noisy * steps), steps)
    low = 0.0 if rng.random() < 0.25 else -np.inf
    high = 1.0 if rng.random() < 0.75 else np.inf
    return np.clip(noisy, low, high).astype(np.float32)
