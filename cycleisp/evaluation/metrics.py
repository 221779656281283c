"""Image quality in dB."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["psnr"]


def psnr(
    image: npt.NDArray[np.floating], reference: npt.NDArray[np.floating], peak: float = 1.0
) -> float:
    """10 log10(peak^2 / MSE) in dB over all samples of two arrays of one shape; inf if equal."""
    error = image.astype(np.float64) - reference.astype(np.float64)
    mean_square = float(np.mean(np.square(error)))
    return math.inf if mean_square == 0 else 10 * math.log10(peak * peak / mean_square)
