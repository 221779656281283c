"""The noise law and what is drawn with it."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cycleisp.noise import (
    CYCLEISP_DND,
    LEVELS,
    NOISE_LAWS,
    UNPROCESSING,
    noise_law,
    noisy_samples,
    variance_map,
    with_defective_pixels,
    with_row_noise,
)
from cycleisp_runtime.bayer import Phase, unpack
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.noise import NoiseModel, read_on_law

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

DRAWS = 200_000


class _Quantiles(np.random.Generator):
    """A generator whose uniform and normal numbers are known."""

    def __init__(self, uniform: float, normal: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._uniform = uniform
        self._normal = normal

    def uniform(self, low: float, high: float) -> float:  # type: ignore[override]
        return low + self._uniform * (high - low)

    def normal(self, mean: float, deviation: float) -> float:  # type: ignore[override]
        return mean + self._normal * deviation


@pytest.mark.parametrize(
    ("name", "golden_name"),
    [("unprocessing", "brooks"), ("cycleisp-dnd", "dnd"), ("cycleisp-sidd", "sidd")],
)
def test_named_laws_are_the_published_ones(name: str, golden_name: str) -> None:
    law = noise_law(name)
    with np.load(GOLDEN / "noise_levels.npz") as golden:
        drawn = [
            law.draw(_Quantiles(uniform, normal))
            for uniform, normal in zip(golden["u"], golden["n"], strict=True)
        ]
        expected = np.stack([golden[f"{golden_name}_shot"], golden[f"{golden_name}_read"]], axis=1)
    # Both sides are float64; the golden ones were computed in the law's own base.
    np.testing.assert_allclose(drawn, expected, rtol=1e-12)


def test_an_unknown_law_is_refused_with_the_known_ones() -> None:
    known = "unprocessing, cycleisp-dnd, cycleisp-sidd"
    with pytest.raises(SettingsError, match=re.escape(f"(met cycleisp, wanted one of: {known})")):
        noise_law("cycleisp")
    assert list(NOISE_LAWS) == known.split(", ")


def test_base_10_makes_the_read_noise_of_the_same_numbers_larger() -> None:
    for shot in (1e-4, 1.0954e-3, 1.2e-2):
        ratio = CYCLEISP_DND.read(shot) / UNPROCESSING.read(shot)
        assert ratio == pytest.approx((10 / math.e) ** 1.2, rel=1e-12)
    assert math.exp(CYCLEISP_DND.spread) == pytest.approx(10**0.26, rel=1e-12)


@pytest.mark.parametrize("shot", [1e-6, 1e-4, 1.1e-3, 0.3])
def test_training_and_runtime_draw_one_line(shot: float) -> None:
    assert UNPROCESSING.read(shot) == read_on_law(shot)


def test_a_seed_means_the_same_noise_in_every_release() -> None:
    """A run that is resumed years later sees the pairs that it would have seen."""
    rng = np.random.default_rng([7, 0])
    drawn = [UNPROCESSING.draw(rng) for _ in range(2)]
    # exp and log may differ in the last bit between machines; the generator's state may not.
    np.testing.assert_allclose(
        drawn,
        [
            (0.001993823778638874, 4.6580469261141795e-06),
            (0.004100068758965421, 1.6461730670429035e-05),
        ],
        rtol=1e-14,
    )
    clean = np.linspace(-0.1, 1, 6, dtype=np.float32)
    gaussian = [-0.09518711, 0.10695519, 0.36151755, 0.517392, 0.7583155, 1.0323894]
    counted = [0.00615645, 0.12465631, 0.35080153, 0.54428554, 0.8047845, 0.9797008]
    for poisson, expected, following in (
        (False, gaussian, 0.22520718999059186),
        (True, counted, 0.5534973520744925),
    ):
        rng = np.random.default_rng(7)
        noisy = noisy_samples(clean, 1e-3, 1e-5, rng, poisson=poisson)
        np.testing.assert_allclose(noisy, expected, rtol=1e-6)
        assert rng.random() == following


def test_draws_follow_the_law() -> None:
    rng = np.random.default_rng(0)
    law = dataclasses.replace(UNPROCESSING, low=2e-5, high=2e-2)
    shot, read = np.log([law.draw(rng) for _ in range(20_000)]).T
    low, high = math.log(law.low), math.log(law.high)
    assert low <= shot.min() <= shot.max() <= high
    # Four standard errors of 20,000 draws; the deviation of a uniform law is its width / sqrt(12).
    assert shot.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / 490)
    assert shot.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.02)
    strays = read - (2.18 * shot + 1.20)
    assert strays.mean() == pytest.approx(0, abs=4 * 0.26 / 141)
    assert strays.std() == pytest.approx(0.26, rel=0.02)
    assert np.corrcoef(strays, shot)[0, 1] == pytest.approx(0, abs=4 / 141)


def test_levels_are_on_the_law() -> None:
    shots, reads = np.transpose(list(LEVELS.values()))
    np.testing.assert_array_equal(shots, [1e-4, 1.1e-3, 1.2e-2])
    # Published with three digits, the middle one at the geometric mean of the ends, 1.0954e-3.
    middle = 1.17e-6 * (1.1e-3 / 1.0954e-3) ** 2.18
    np.testing.assert_allclose(reads, [6.33e-9, middle, 2.16e-4], rtol=5e-3)


@pytest.mark.parametrize("poisson", [False, True])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("signal", [0.0, 0.01, 0.18, 1.0])
def test_samples_have_the_mean_and_variance_of_the_model(
    level: str, signal: float, poisson: bool
) -> None:
    shot, read = LEVELS[level]
    clean = np.full(DRAWS, signal, np.float32)
    noisy = noisy_samples(clean, shot, read, np.random.default_rng(1), poisson=poisson)
    noise = noisy.astype(np.float64) - signal
    variance = shot * signal + read
    # Four standard errors. A count of photo-electrons has an excess kurtosis of 1 / count.
    kurtosis = shot / signal if poisson and signal else 0.0
    assert noise.mean() == pytest.approx(0, abs=4 * math.sqrt(variance / DRAWS))
    assert np.square(noise).mean() == pytest.approx(
        variance, rel=4 * math.sqrt((2 + kurtosis) / DRAWS)
    )


@pytest.mark.parametrize("poisson", [False, True])
def test_the_model_is_found_again_in_the_samples(poisson: bool) -> None:
    shot, read = LEVELS["high"]
    signals = np.linspace(0, 1, 9)
    clean = np.repeat(signals[:, None], DRAWS // 4, axis=1).astype(np.float32)
    noisy = noisy_samples(clean, shot, read, np.random.default_rng(2), poisson=poisson)
    variances = noisy.astype(np.float64).var(axis=1)
    fitted_shot, fitted_read = np.polyfit(signals, variances, 1, w=1 / variances)
    # 9 variances, each known to sqrt(2 / 50,000) = 0.6 %; at black nearly all of it is read noise.
    assert fitted_shot == pytest.approx(shot, rel=0.02)
    assert fitted_read == pytest.approx(read, rel=0.03)


def test_what_is_below_black_has_read_noise_only() -> None:
    shot, read = LEVELS["high"]
    noisy = noisy_samples(np.full(DRAWS, -0.1, np.float32), shot, read, np.random.default_rng(3))
    assert noisy.mean() == pytest.approx(-0.1, abs=4 * math.sqrt(read / DRAWS))
    assert noisy.astype(np.float64).var() == pytest.approx(read, rel=4 * math.sqrt(2 / DRAWS))


@pytest.mark.parametrize("poisson", [False, True])
def test_samples_depend_on_the_generator_alone(poisson: bool) -> None:
    clean = np.random.default_rng(0).random((4, 6, 8), np.float32)
    first, again, other = (
        noisy_samples(clean, 1e-3, 1e-6, np.random.default_rng(seed), poisson=poisson)
        for seed in (5, 5, 6)
    )
    assert first.dtype == np.float32
    assert first.shape == clean.shape
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_training_and_runtime_make_one_variance_map() -> None:
    noisy = np.random.default_rng(4).normal(0.1, 0.2, (4, 12, 10)).astype(np.float32)
    for shot, read in LEVELS.values():
        runtime = NoiseModel.uniform(shot, read).variance(noisy)
        np.testing.assert_array_equal(variance_map(noisy, shot, read), runtime)


def test_row_noise_is_one_offset_per_row_of_the_sensor() -> None:
    height, row = 20_000, 4e-4
    clean = np.random.default_rng(0).random((4, height, 3), np.float32)
    noise = with_row_noise(clean, row, np.random.default_rng(1)) - clean
    assert noise.dtype == np.float32
    mosaic = unpack(noise, Phase.RGGB, 2 * height, 6)
    # Adding to a sample in [0, 1] and taking it off again rounds at 2^-24 each time.
    np.testing.assert_allclose(mosaic, np.broadcast_to(mosaic[:, :1], mosaic.shape), atol=3e-7)
    offsets = mosaic[:, 0].astype(np.float64)
    # Four standard errors of the mean, the variance and the correlation of neighbours.
    assert offsets.mean() == pytest.approx(0, abs=4 * math.sqrt(row / offsets.size))
    assert offsets.var() == pytest.approx(row, rel=4 * math.sqrt(2 / offsets.size))
    neighbours = np.corrcoef(offsets[:-1], offsets[1:])[0, 1]
    assert neighbours == pytest.approx(0, abs=4 / math.sqrt(offsets.size))


def test_no_row_noise_changes_nothing() -> None:
    clean = np.random.default_rng(0).random((4, 6, 8), np.float32)
    noisy = with_row_noise(clean, 0.0, np.random.default_rng(1))
    np.testing.assert_array_equal(noisy, clean)


@settings(deadline=None, max_examples=25)
@given(hot=st.floats(0, 0.5), dead=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_defective_pixels_are_stuck_and_others_good(hot: float, dead: float, seed: int) -> None:
    good = np.full((4, 50, 50), 0.4, np.float32)
    stuck = with_defective_pixels(good, hot, dead, np.random.default_rng(seed))
    assert stuck.dtype == np.float32
    assert set(np.unique(stuck)) <= {np.float32(0), np.float32(0.4), np.float32(1)}
    # Five standard errors of a share of 10,000 samples: 3,000 checks in all pass but once in 500.
    for share, level in ((hot, 1), (dead, 0)):
        error = math.sqrt(share * (1 - share) / good.size)
        assert np.mean(stuck == level) == pytest.approx(share, abs=5 * error + 1e-4)


def test_augmentations_leave_their_input_and_depend_on_the_generator_alone() -> None:
    clean = np.random.default_rng(0).random((4, 6, 8), np.float32)
    before = clean.copy()
    first, again, other = (
        with_defective_pixels(with_row_noise(clean, 1e-4, rng), 0.1, 0.2, rng)
        for rng in map(np.random.default_rng, (5, 5, 6))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(clean, before)
