"""Frames with known noise, for tests of what is estimated from them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.frame import Area, RawFrame

__all__ = ["gradient", "grainy", "noisy_frame", "smooth_scene"]


def noisy_frame(
    clean: npt.ArrayLike,
    shot: float,
    read: float,
    *,
    black: float = 4096,
    white: float = 61440,
    seed: int = 0,
) -> RawFrame:
    """A frame of Gaussian noise of variance shot * x + read about clean samples x (H, W)."""
    signal = np.asarray(clean, np.float64)
    deviation = np.sqrt(np.maximum(signal, 0) * shot + read)
    noisy = signal + deviation * np.random.default_rng(seed).standard_normal(signal.shape)
    codes = np.rint(noisy * (white - black) + black)
    samples = np.clip(codes, 0, min(white, 65535)).astype(np.uint16)
    return RawFrame(samples, Phase.RGGB, (black,) * 4, white, Area(0, 0, *samples.shape))


def gradient(height: int, width: int, brightest: float) -> npt.NDArray[np.float64]:
    """Clean samples (height, width) that rise from 0 at the left to ``brightest``."""
    return np.tile(np.linspace(0, brightest, width), (height, 1))


def smooth_scene(height: int, width: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Clean samples (height, width) in 0.02..0.6: soft shapes, sharp edges, a third textured."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    scene = 0.15 + 0.1 * np.sin(rows / 97.0) + 0.1 * np.cos(columns / 131.0)
    for _ in range(40):
        top, left = rng.integers(height), rng.integers(width)
        scene[top : top + 60, left : left + 60] += rng.uniform(-0.05, 0.1)
    fine = rng.standard_normal((height, width // 3))
    scene[:, : width // 3] += 0.03 * (fine + np.roll(fine, 2, 0) + np.roll(fine, 2, 1))
    clipped: npt.NDArray[np.float64] = np.clip(scene, 0.02, 0.6)
    return clipped


def grainy(clean: npt.NDArray[np.float64], seed: int = 1) -> npt.NDArray[np.float64]:
    """The same with white grain of deviation 0.004, but only where samples lie in 0.1..0.3."""
    grain = 0.004 * np.random.default_rng(seed).standard_normal(clean.shape)
    return np.where((clean > 0.1) & (clean < 0.3), clean + grain, clean)
