"""PSNR."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cycleisp.evaluation.metrics import psnr


def test_a_known_error_has_a_known_psnr() -> None:
    reference = np.zeros((4, 8, 8), np.float32)
    assert psnr(reference + np.float32(0.1), reference) == pytest.approx(20, abs=1e-6)
    assert psnr(reference + np.float32(0.1), reference, peak=10) == pytest.approx(40, abs=1e-6)


def test_the_error_counts_not_its_sign_or_place() -> None:
    reference = np.random.default_rng(0).random((4, 8, 8), np.float32)
    error = np.zeros_like(reference)
    error[0, 0, 0] = 0.5
    assert psnr(reference + error, reference) == pytest.approx(
        psnr(reference - error[:, ::-1], reference), abs=1e-4
    )


def test_no_error_is_infinite() -> None:
    picture = np.ones((2, 2), np.float32)
    assert psnr(picture, picture) == math.inf


def test_small_errors_of_large_frames_are_not_lost() -> None:
    reference = np.ones((1, 1000, 1000), np.float64)
    assert psnr(reference + 1e-9, reference) == pytest.approx(180, abs=1e-3)
