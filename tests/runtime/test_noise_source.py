from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cycleisp_runtime.errors import CalibrationError
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_estimate import estimate_noise
from cycleisp_runtime.noise_source import choose_noise
from tests.noisy_frames import gradient, noisy_frame

GIVEN = NoiseModel.uniform(1e-3, 1e-6)
PROFILE = NoiseModel((1e-4, 2e-4, 2e-4, 3e-4), (1e-7,) * 4)
FRAME = noisy_frame(gradient(256, 256, 0.5), 5e-4, 1e-6)


def test_what_is_given_comes_first() -> None:
    choice = choose_noise(replace(FRAME, noise_profile=PROFILE), GIVEN)
    assert (choice.model, choice.source, choice.confidence) == (GIVEN, "given", None)


def test_the_profile_of_the_file_comes_second() -> None:
    choice = choose_noise(replace(FRAME, noise_profile=PROFILE))
    assert (choice.model, choice.source, choice.confidence) == (PROFILE, "profile", None)


def test_the_estimate_comes_last_and_brings_its_doubts() -> None:
    flat = noisy_frame(np.full((256, 256), 0.2), 5e-4, 1e-6)
    estimate = estimate_noise(flat)
    choice = choose_noise(flat)
    assert (choice.model, choice.source) == (estimate.model, "estimate")
    assert (choice.confidence, choice.warnings) == (estimate.confidence, estimate.warnings)
    assert choice.warnings


def test_a_white_frame_needs_noise_from_elsewhere() -> None:
    white = FRAME.with_samples(np.full_like(FRAME.samples, 65535))
    with pytest.raises(CalibrationError, match="give --noise"):
        choose_noise(white)
    assert choose_noise(white, GIVEN).source == "given"
