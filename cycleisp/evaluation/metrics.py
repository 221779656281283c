"""Image quality: PSNR in dB and SSIM."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import InputError

__all__ = ["SSIM_WINDOW", "psnr", "ssim"]

SSIM_WINDOW = 11
"""Samples on each side, to which scikit-image cuts a Gaussian of 1.5."""


def psnr(
    image: npt.NDArray[np.integer | np.floating],
    reference: npt.NDArray[np.integer | np.floating],
    peak: float = 1.0,
) -> float:
    """10 log10(peak^2 / MSE) in dB over all samples of two arrays of one shape; inf if equal."""
    error = image.astype(np.float64) - reference.astype(np.float64)
    mean_square = float(np.mean(np.square(error)))
    return math.inf if mean_square == 0 else 10 * math.log10(peak * peak / mean_square)


def ssim(
    image: npt.NDArray[np.integer | np.floating],
    reference: npt.NDArray[np.integer | np.floating],
    peak: float = 1.0,
) -> float:
    """Structural similarity, at most 1: Z. Wang et al., IEEE TIP 13(4), 2004, eq. 13.

    As in section III.C there: a Gaussian window of 11x11 with sigma 1.5, population covariance, K1
    = 0.01, K2 = 0.03. The mean is over the places where the window lies inside the picture, then
    over the channels.

    Args:
        image: (H, W) or (H, W, C), H and W at least 11.
        reference: the same shape.
        peak: the range of the samples, 1 or 255.

    Raises:
        InputError: where the picture is smaller than the window.
    """
    if min(image.shape[:2]) < SSIM_WINDOW:
        raise InputError(
            "a picture is too small for SSIM",
            met="x".join(map(str, image.shape[:2])),
            wanted=f"at least {SSIM_WINDOW}x{SSIM_WINDOW}",
        )
    from skimage.metrics import structural_similarity

    # Single precision errs by less than 1e-6 and takes half the time.
    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        image.astype(np.float32),
        reference.astype(np.float32),
        data_range=peak,
        channel_axis=-1 if image.ndim == 3 else None,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(similarity)
