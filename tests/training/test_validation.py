"""Validation of a denoiser on clean photographs."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from cycleisp.evaluation.validation import validate, validation_planes
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.noise import LEVELS


class _Identity(EdgeDenoiser):
    """Of that family because those see noisy samples as they are."""

    def forward(self, noisy: Tensor, variance: Tensor, noise_scale: Tensor) -> Tensor:  # noqa: ARG002
        return noisy


def test_validation_measures_the_noise() -> None:
    grey = np.full((4, 64, 64), 0.25, np.float32)
    quality = validate(_Identity(4, 1, 1), [grey, grey])
    for level, (shot, read) in LEVELS.items():
        assert quality[level] == quality[f"{level} noisy"]
        # The noise of 0.25, which no clipping reaches; 32768 samples know it to 0.03 dB.
        assert quality[level] == pytest.approx(-10 * np.log10(0.25 * shot + read), abs=0.15)


def test_validation_planes_are_linear_light() -> None:
    picture = np.full((30, 50, 3), 255, np.uint8)
    planes = validation_planes(picture)
    assert planes.dtype == np.float32
    assert planes.shape == (4, 14, 14)
    for plane, expected in zip(planes, (0.5, 1, 1, 0.625), strict=True):
        np.testing.assert_allclose(plane, expected, atol=1e-6)
    half = validation_planes(np.full((8, 8, 3), 128, np.uint8))
    np.testing.assert_allclose(half[1], (128 / 255) ** 2.2, rtol=1e-5)
