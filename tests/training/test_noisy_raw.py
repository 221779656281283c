"""Noisy and clean RAW from photographs: what the network is told is true."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cycleisp.data import noisy_raw
from cycleisp.data.inverse_pipeline import InversePipeline
from cycleisp.data.noisy_raw import NoisyPair, SimulatedNoise
from cycleisp.noise import UNPROCESSING, variance_map
from cycleisp.sensor_profile import read_sensor_profile
from tests.helpers import ROOT

PROFILE = ROOT / "tests" / "data" / "noise_profiles" / "pmrid_reno10x.json"

Picture = npt.NDArray[np.uint8]


def simulated(*pictures: Picture) -> SimulatedNoise:
    return SimulatedNoise(pictures, UNPROCESSING, patch=16)


def drawn(source: SimulatedNoise, count: int) -> list[NoisyPair]:
    return [source.draw(np.random.default_rng(seed)) for seed in range(count)]


@pytest.fixture(name="source")
def some_noise() -> SimulatedNoise:
    rng = np.random.default_rng(0)
    return simulated(*(rng.integers(0, 256, (70, 90, 3), np.uint8) for _ in range(3)))


@pytest.fixture(name="plain_camera")
def camera_that_sees_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every camera sees codes / 255, and no picture has grain."""
    camera = InversePipeline(
        np.linspace(0, 1, 256, dtype=np.float32),
        np.eye(3, dtype=np.float32),
        np.ones(3, np.float32),
    )
    monkeypatch.setattr(noisy_raw, "random_inverse_pipeline", lambda _rng: camera)
    monkeypatch.setattr(noisy_raw, "_GRAIN_SHARE", 0.0)


def test_a_pair_is_a_function_of_the_generator(source: SimulatedNoise) -> None:
    first, other = drawn(source, 2)
    again = source.draw(np.random.default_rng(0))
    for name in ("clean", "noisy", "variance"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_a_pair_is_what_the_network_is_told(source: SimulatedNoise) -> None:
    for pair in drawn(source, 16):
        for array in (pair.clean, pair.noisy, pair.variance):
            assert array.shape == (4, 16, 16)
            assert array.dtype == np.float32
        assert pair.clean.min() >= 0
        assert pair.clean.max() <= 1
        lit = np.maximum(pair.noisy, 0).ravel().astype(np.float64)
        shot, read = np.polyfit(lit, pair.variance.ravel(), 1)
        # One line for all samples, up to float32.
        told = variance_map(pair.noisy, shot, read)
        np.testing.assert_allclose(pair.variance, told, rtol=1e-4)
        assert 1e-4 * 0.99 < shot < 1.2e-2 * 1.01


def test_the_variance_is_that_of_the_noise(source: SimulatedNoise) -> None:
    ratios = [
        np.square(pair.noisy - pair.clean).mean() / pair.variance.mean()
        for pair in drawn(source, 128)
    ]
    # Of 128 patches. Clipping at black and white takes noise off some; a patch of 1024 samples
    # knows its own variance to 4 %.
    assert np.median(ratios) == pytest.approx(1, abs=0.03)
    assert np.max(ratios) < 1.3


@pytest.mark.usefixtures("plain_camera")
def test_flips_and_turns_keep_the_order_of_the_colours() -> None:
    picture = np.empty((40, 50, 3), np.uint8)
    picture[:] = (200, 100, 50)
    for pair in drawn(simulated(picture), 32):
        for plane, code in zip(pair.clean, (200, 100, 100, 50), strict=True):
            np.testing.assert_allclose(plane, code / 255, atol=1e-6)


@pytest.mark.usefixtures("plain_camera")
def test_patches_are_flipped_and_turned_all_eight_ways() -> None:
    rows, columns = np.mgrid[:40, :50]
    picture = np.repeat((4 * rows + columns)[..., None], 3, axis=2).astype(np.uint8)
    ways = set()
    for pair in drawn(simulated(picture), 64):
        down, right = (np.diff(pair.clean[0], axis=axis).mean() for axis in (0, 1))
        ways.add((round(255 * down), round(255 * right)))
    # Two picture samples per packed one, as no picture is large enough to be reduced.
    assert ways == {(a * 8, b * 2) for a in (1, -1) for b in (1, -1)} | {
        (a * 2, b * 8) for a in (1, -1) for b in (1, -1)
    }


@pytest.mark.usefixtures("plain_camera")
def test_large_pictures_are_sometimes_reduced() -> None:
    checks = np.indices((80, 80)).sum(axis=0) % 2
    picture = np.repeat(255 * checks[..., None], 3, axis=2).astype(np.uint8)
    means = {float(np.round(pair.clean[0], 3)[0, 0]) for pair in drawn(simulated(picture), 32)}
    # Whole, red sees one colour of the board; reduced, only their mean.
    assert means == {0.0, 0.5, 1.0}


def test_grain_belongs_to_the_clean_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = simulated(np.full((64, 64, 3), 128, np.uint8))
    monkeypatch.setattr(noisy_raw, "_GRAIN_SHARE", 0.0)
    assert all(np.ptp(pair.clean[0]) == 0 for pair in drawn(grey, 16))
    monkeypatch.setattr(noisy_raw, "_GRAIN_SHARE", 1.0)
    assert all(np.ptp(pair.clean[0]) > 0 for pair in drawn(grey, 16))


def test_a_sensor_s_own_noise_is_drawn_and_told() -> None:
    profile = read_sensor_profile(PROFILE)
    picture = np.full((70, 90, 3), 128, np.uint8)
    rng = np.random.default_rng(0)
    pairs = [SimulatedNoise([picture], profile, patch=16).draw(rng) for _ in range(64)]
    ratios = [np.square(each.noisy - each.clean).mean() / each.variance.mean() for each in pairs]
    # 64 patches of 1024 samples: 0.6 % of error; flat grey is never clipped, but sometimes stored
    # in 10 bits, which adds to the noise of low ISO values.
    assert 0.98 < np.median(ratios) < 1.05
    low, high = profile.levels[0].pixel.mean_shot, profile.levels[-1].pixel.mean_shot
    told = [each.variance.mean() / max(each.noisy.mean(), 1e-3) for each in pairs]
    assert max(told) < 1.5 * high
    assert max(told) > 4 * low
