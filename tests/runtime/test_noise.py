from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel, read_on_law, shot_on_law
from tests.strategies import noise_models


@pytest.mark.parametrize(
    ("shot", "read"),
    [
        (0.0, 1e-6),
        (1.0, 1e-6),
        (-1e-3, 1e-6),
        (float("nan"), 1e-6),
        (1e-3, -1e-9),
        (1e-3, 1.0),
        (1e-3, float("nan")),
    ],
)
def test_coefficients_out_of_range_are_refused(shot: float, read: float) -> None:
    with pytest.raises(InputError, match="out of range"):
        NoiseModel.uniform(shot, read)


def test_read_noise_may_be_zero() -> None:
    assert NoiseModel.uniform(1e-3, 0.0).mean_read == 0


def test_variance_is_a_line_per_plane_and_flat_below_zero() -> None:
    model = NoiseModel((0.1, 0.2, 0.3, 0.4), (0.01, 0.02, 0.03, 0.04))
    packed = np.stack([np.array([[-1.0, 0.0, 0.5]], np.float32)] * 4)
    expected = [[[0.01, 0.01, 0.06]], [[0.02, 0.02, 0.12]], [[0.03, 0.03, 0.18]]]
    np.testing.assert_allclose(model.variance(packed)[:3], expected, rtol=1e-6)


@given(noise_models, st.floats(0.1, 2))
def test_scaled_noise_has_a_multiple_of_the_variance(model: NoiseModel, factor: float) -> None:
    signal = np.linspace(-0.1, 1, 5, dtype=np.float32) * np.ones((4, 1, 1), np.float32)
    np.testing.assert_allclose(
        model.scaled(factor).variance(signal), factor * model.variance(signal), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("shot", "read"), [(1e-4, 6.33e-9), (1.0954e-3, 1.17e-6), (0.012, 2.16e-4)]
)
def test_the_law_uses_natural_logarithms(shot: float, read: float) -> None:
    # From google-research/unprocessing; with log10 they would be 3.0e-8, 5.6e-6 and 1.0e-3.
    assert read_on_law(shot) == pytest.approx(read, rel=5e-3)


@given(st.floats(1e-12, 0.5))
def test_the_law_can_be_undone(shot: float) -> None:
    assert shot_on_law(read_on_law(shot)) == pytest.approx(shot, rel=1e-9)
