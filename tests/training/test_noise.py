"""The noise law and what is drawn with it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cycleisp.noise import LEVELS, UNPROCESSING, NoiseLaw, noisy_samples, variance_map
from cycleisp_runtime.noise import NoiseModel

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


def test_the_law_is_that_of_brooks_et_al() -> None:
    with np.load(GOLDEN / "noise_levels.npz") as golden:
        drawn = [
            UNPROCESSING.draw(_Quantiles(uniform, normal))
            for uniform, normal in zip(golden["u"], golden["n"], strict=True)
        ]
        expected = np.stack([golden["shot"], golden["read"]], axis=1)
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)


def test_draws_follow_the_law() -> None:
    rng = np.random.default_rng(0)
    law = NoiseLaw(low=2e-5, high=2e-2, spread=0.26)
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
