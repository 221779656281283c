from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.noise import read_on_law
from cycleisp_runtime.noise_line import Points, VarianceLine, fit_line, shot_for_variance

SIGNAL = np.linspace(0.01, 0.6, 12)
TINY = 1e-15


def points(line: VarianceLine) -> Points:
    return Points(SIGNAL, line.variance(SIGNAL), np.full(12, 100.0))


@given(st.floats(1e-5, 2e-2), st.floats(0.05, 500))
def test_a_line_that_a_sensor_could_have_is_found(shot: float, over_law: float) -> None:
    line = VarianceLine(shot, over_law * read_on_law(shot))
    fitted = fit_line(points(line), TINY)
    # Read is a difference of numbers up to 1e7 times larger.
    assert fitted.line.shot == pytest.approx(line.shot, rel=1e-6)
    assert fitted.line.variance(SIGNAL) == pytest.approx(line.variance(SIGNAL), rel=1e-6)
    assert fitted.residual < 1e-6


def test_textured_points_hardly_move_the_line() -> None:
    true = points(VarianceLine(1e-3, 1e-5))
    variance = true.variance.copy()
    variance[[3, 8]] *= 4
    fitted = fit_line(Points(true.signal, variance, true.weight), TINY)
    assert fitted.line.shot == pytest.approx(1e-3, rel=0.03)
    assert fitted.line.read == pytest.approx(1e-5, rel=0.1)
    assert fitted.residual > 0.2


def test_points_above_count_less_than_points_below() -> None:
    true = points(VarianceLine(1e-3, 1e-5))
    sign = np.where(np.arange(12) % 2, 0.1, -0.1)
    fitted = fit_line(Points(true.signal, true.variance * (1 + sign), true.weight), TINY)
    assert (fitted.line.variance(SIGNAL) < true.variance).all()


@pytest.mark.parametrize(("read", "factor"), [(0.0, 0.01), (-5e-6, 0.01), (3e-2, 1000)])
def test_read_noise_stays_within_what_sensors_have(read: float, factor: float) -> None:
    line = VarianceLine(1e-3, read)
    fitted = fit_line(points(line), TINY)
    assert fitted.line.read == pytest.approx(factor * read_on_law(fitted.line.shot), rel=1e-6)
    assert fitted.unbounded.read == pytest.approx(read, abs=1e-7)
    assert fitted.line.shot > 0


def test_read_noise_is_not_below_that_of_the_code_step() -> None:
    assert fit_line(points(VarianceLine(1e-4, 1e-9)), 1e-6).line.read == 1e-6


def test_one_point_leaves_the_level_right() -> None:
    single = Points(np.array([0.2]), np.array([2e-4]), np.array([50.0]))
    line = fit_line(single, TINY).line
    assert line.shot * 0.2 + line.read == pytest.approx(2e-4, rel=1e-6)


def test_no_signal_leaves_the_level_right() -> None:
    dark = Points(np.zeros(3), np.full(3, 2e-6), np.full(3, 50.0))
    assert fit_line(dark, TINY).line.read == pytest.approx(2e-6, rel=1e-6)


@given(st.floats(0, 1), st.floats(1e-9, 0.1), st.sampled_from([0.01, 1.0, 1000.0]))
def test_shot_for_variance_solves_its_equation(
    signal: float, variance: float, factor: float
) -> None:
    shot = shot_for_variance(signal, variance, factor)
    assert shot * signal + factor * read_on_law(shot) == pytest.approx(variance, rel=1e-6)
