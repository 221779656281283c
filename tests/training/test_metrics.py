"""PSNR and SSIM, against scikit-image and by their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cycleisp.evaluation.metrics import psnr, ssim
from tests.helpers import ROOT


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


@pytest.mark.parametrize(
    ("reference", "test", "suffix", "peak"),
    [
        ("rgb_ref", "rgb_test", "", 1),
        ("ref8", "test8", "8", 255),
        ("raw_ref", "raw_test", "_raw", 1),
    ],
)
def test_the_golden_values_are_met(reference: str, test: str, suffix: str, peak: float) -> None:
    with np.load(ROOT / "tests" / "golden" / "metrics.npz") as golden:
        pictures = golden[test], golden[reference]
        assert psnr(*pictures, peak) == pytest.approx(float(golden[f"psnr{suffix}"]), rel=1e-6)
        assert ssim(*pictures, peak) == pytest.approx(float(golden[f"ssim{suffix}"]), rel=1e-6)


def test_ssim_of_a_picture_with_itself_is_1_and_of_another_less() -> None:
    picture = np.random.default_rng(0).random((16, 20, 3), np.float32)
    assert ssim(picture, picture) == 1
    assert ssim(picture, picture[::-1]) < 0.5


def test_ssim_does_not_depend_on_the_unit() -> None:
    codes = np.random.default_rng(1).integers(0, 255, (2, 32, 24, 3), np.uint8)
    first, second = codes / 255
    # Single precision at the two scales.
    assert ssim(first, second, 1) == pytest.approx(ssim(codes[0], codes[1], 255), abs=1e-6)
