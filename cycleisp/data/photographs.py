"""Clean photographs in memory, and training pairs cut from them.

A batch is a pure function of (seed, step): nothing about the stream of data needs to be saved for a
run to be resumed exactly where it stopped.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cycleisp.data.inverse_pipeline import mosaic_planes, random_inverse_pipeline
from cycleisp.noise import NoiseLaw, noisy_samples, variance_map
from cycleisp_runtime.errors import InputError

__all__ = ["Batch", "SampledPairs", "load_photographs"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}

_REDUCTION_SHARES = (0.4, 0.4, 0.2)
"""How often a patch is reduced by 1, 2 and 3: the more, the denser its texture and the less of what
a JPEG encoder left."""

_GRAIN_SHARE = 0.35

_DETAIL_SHARE = 0.5
"""How often the more detailed of two places is taken: photographs are mostly sky and wall, and a
network that mostly sees those takes dense foliage for noise."""


@dataclass(frozen=True)
class Batch:
    """Clean and noisy packed RAW of one training step.

    Attributes:
        clean: (N, 4, h, w) float32, normalised, in [0, 1].
        noisy: (N, 4, h, w) float32, normalised.
        variance: (N, 4, h, w) float32, the variance map of ``noisy``.
        noise_scale: (N, 1, 1, 1) float32, sqrt of the mean variance of each patch.
    """

    clean: npt.NDArray[np.float32]
    noisy: npt.NDArray[np.float32]
    variance: npt.NDArray[np.float32]
    noise_scale: npt.NDArray[np.float32]


def load_photographs(
    folder: Path, pattern: str, minimum_side: int
) -> dict[str, npt.NDArray[np.uint8]]:
    """sRGB codes (H, W, 3) of every picture of a folder whose name matches, by name.

    Pictures with a side below ``minimum_side`` are left out.

    Raises:
        InputError: where the folder or a picture cannot be read, or no picture is left.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            "the folder of photographs cannot be read", subject=folder, met=error.strerror
        ) from error
    pictures: dict[str, npt.NDArray[np.uint8]] = {}
    for path in paths:
        if path.suffix.lower() in _SUFFIXES and fnmatch.fnmatchcase(path.name, pattern):
            codes = _load_photograph(path)
            if min(codes.shape[:2]) >= minimum_side:
                pictures[path.name] = codes
    if not pictures:
        raise InputError(
            "no usable picture",
            subject=folder,
            wanted=f"pictures matching {pattern!r} with sides of {minimum_side} or more",
        )
    return pictures


def _load_photograph(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise InputError("the picture is too large", subject=path, hint="reduce it") from error
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken chunk of a PNG
        raise InputError("not a readable picture", subject=path) from error


@dataclass(frozen=True)
class SampledPairs:
    """Random noisy/clean pairs of packed RAW from clean photographs.

    Attributes:
        pictures: sRGB codes (H, W, 3) each.
        law: which noise to draw.
        batch: pairs per step.
        patch: side of a patch in packed samples.
        seed: of everything random.
    """

    pictures: Sequence[npt.NDArray[np.uint8]]
    law: NoiseLaw
    batch: int
    patch: int
    seed: int

    def at(self, step: int) -> Batch:
        """The batch of this step, the same however often it is asked for."""
        rng = np.random.default_rng([self.seed, step])
        clean = np.empty((self.batch, 4, self.patch, self.patch), np.float32)
        noisy = np.empty_like(clean)
        variance = np.empty_like(clean)
        scale = np.empty((self.batch, 1, 1, 1), np.float32)
        for index in range(self.batch):
            clean[index] = self._clean_patch(rng)
            shot, read = self._noise_level(rng)
            noisy[index] = _sensor_samples(clean[index], shot, read, rng)
            variance[index] = variance_map(noisy[index], shot, read)
            scale[index] = np.sqrt(variance[index].mean())
        return Batch(clean, noisy, variance, scale)

    def _noise_level(self, rng: np.random.Generator) -> tuple[float, float]:
        """The law's draw; for half of the patches the read noise strays further from the line.

        Measured sensors have 1 to 400 times the read variance of the line.
        """
        shot, read = self.law.draw(rng)
        if rng.random() < 0.5:
            read *= float(np.exp(rng.normal(0.7, 1.2)))
        return shot, read

    def _clean_patch(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        picture = self.pictures[int(rng.integers(len(self.pictures)))]
        side = 2 * self.patch
        wanted = int(rng.choice(len(_REDUCTION_SHARES), p=_REDUCTION_SHARES)) + 1
        reduction = min(wanted, min(picture.shape[:2]) // side)
        codes = _random_square(picture, side * reduction, rng)
        if rng.random() < _DETAIL_SHARE:
            other = _random_square(picture, side * reduction, rng)
            codes = max(codes, other, key=lambda square: _detail(square, reduction))
        if rng.random() < 0.5:
            codes = codes[:, ::-1]
        if rng.random() < 0.5:
            codes = codes[::-1]
        if rng.random() < 0.5:
            codes = codes.transpose(1, 0, 2)
        camera_rgb = random_inverse_pipeline(rng).camera_rgb(codes, reduction)
        if rng.random() < _GRAIN_SHARE:
            camera_rgb = _with_grain(camera_rgb, rng)
        return mosaic_planes(camera_rgb)


def _random_square(
    picture: npt.NDArray[np.uint8], side: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    top, left = (int(rng.integers(extent - side + 1)) for extent in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def _detail(codes: npt.NDArray[np.uint8], reduction: int) -> float:
    """Mean step between neighbours at the scale at which the patch will be seen."""
    green = codes[::reduction, ::reduction, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=1)).mean())


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


def _sensor_samples(
    clean: npt.NDArray[np.float32], shot: float, read: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Noise as a sensor adds it: sometimes counted, clipped at white, stored in 10 to 14 bits."""
    noisy = noisy_samples(clean, shot, read, rng, poisson=rng.random() < 0.3)
    if rng.random() < 0.3:
        steps = np.float32(2 ** rng.integers(10, 15))
        noisy = np.divide(np.round(noisy * steps), steps)
    low = 0.0 if rng.random() < 0.25 else -np.inf
    high = 1.0 if rng.random() < 0.75 else np.inf
    return np.clip(noisy, low, high).astype(np.float32)
