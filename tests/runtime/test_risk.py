"""Laws of the risk that is estimated without the truth, against arithmetic that knows it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.risk import CROP, LEAST_SHARE, CropMemory, Risk, measure_risk, plan_crops

Planes = npt.NDArray[np.float32]

NOISE = NoiseModel.uniform(1e-3, 1e-5)

WHOLE = (slice(None), slice(None))

FAR_BELOW = (-1.0,) * 4
"""A black end that no sample comes near."""


def noisy_planes(clean: Planes, noise: NoiseModel = NOISE, seed: int = 0) -> Planes:
    random = np.random.default_rng(seed).standard_normal(clean.shape, dtype=np.float32)
    return clean + random * np.sqrt(noise.variance(clean))


def random_signs(shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    return np.random.default_rng(1).choice(np.array([-1, 1], np.int8), shape)


def risk_of(denoise: Callable[[Planes], Planes], noisy: Planes, noise: NoiseModel = NOISE) -> Risk:
    return measure_risk(
        lambda planes, _variance: denoise(planes),
        noisy,
        noise,
        inner=WHOLE,
        black_end=FAR_BELOW,
        signs=random_signs(noisy.shape),
        memory=CropMemory(noisy.shape),
    )


def a_texture(contrast: float, side: int = 128) -> Planes:
    """(1, 4, side, side), stripes of two samples around mid-grey."""
    stripes = np.where(np.arange(side) % 4 < 2, 1, -1) * np.float32(contrast)
    return np.full((1, 4, side, side), 0.4, np.float32) + stripes.astype(np.float32)


def neighbours_mean(planes: Planes) -> Planes:
    """A denoiser that takes texture of two samples for noise: the mean of three along a row."""
    left, right = np.roll(planes, 1, axis=-1), np.roll(planes, -1, axis=-1)
    mean: Planes = (left + planes + right) * np.float32(1 / 3)
    return mean


def truth(denoise: Callable[[Planes], Planes], noisy: Planes, clean: Planes) -> Risk:
    """The same sums, of one noise that is known."""
    noise = (noisy - clean).astype(np.float64)
    correction = denoise(noisy) - noisy
    return Risk(
        noisy.size,
        float(np.square(noise).sum()),
        float((noise * correction).sum()),
        float(np.square(correction, dtype=np.float64).sum()),
    )


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 1.0])
def test_the_derivative_of_a_shrinkage_is_exact(kept: float) -> None:
    """f(y) = kept * y + (1 - kept) * constant: df/dy is ``kept`` everywhere, by one probe."""
    noisy = noisy_planes(a_texture(0.0))
    risk = risk_of(lambda y: np.float32(kept) * y + np.float32((1 - kept) * 0.4), noisy)
    # float32 holds the shaken samples, 1e-3 apart, to 3e-8; rounding averages out over 65,536
    assert risk.agreement == pytest.approx((kept - 1) * risk.noise, abs=1e-3 * risk.noise)
    assert risk.samples == noisy.size


@pytest.mark.parametrize("contrast", [0.0, 0.005, 0.01, 0.02, 0.1])
def test_the_strength_is_the_one_that_the_truth_would_choose(contrast: float) -> None:
    clean = a_texture(contrast)
    noisy = noisy_planes(clean)
    found, true = risk_of(neighbours_mean, noisy), truth(neighbours_mean, noisy, clean)
    # 65,536 samples and a filter of three leave about 0.01 of chance
    assert found.safe_strength == pytest.approx(true.safe_strength, abs=0.03)
    share = found.safe_strength
    assert true.remaining(share) <= 1
    assert found.remaining(share) == pytest.approx(true.remaining(share), abs=0.02)


def test_a_bent_response_is_measured_where_the_samples_are() -> None:
    """Derivatives of a network hold over a small part of the noise only."""

    def bent(planes: Planes) -> Planes:
        width = np.float32(0.02)  # one deviation of the noise
        curve: Planes = 0.4 + width * np.tanh((planes - np.float32(0.4)) / width)
        return curve

    clean = a_texture(0.01)
    noisy = noisy_planes(clean)
    found, true = risk_of(bent, noisy), truth(bent, noisy, clean)
    assert found.agreement == pytest.approx(true.agreement, rel=0.04)  # 65,536 samples


def test_strong_texture_is_left_alone_and_flat_grey_is_not() -> None:
    textured = risk_of(neighbours_mean, noisy_planes(a_texture(0.1))).safe_strength
    flat = risk_of(neighbours_mean, noisy_planes(a_texture(0.0))).safe_strength
    assert textured < 0.1
    assert flat > 0.97


@given(agreement=st.floats(-10, 10), correction=st.floats(0, 10), strength=st.floats(0, 1))
def test_the_safe_share_never_expects_harm_and_no_other_share_is_better(
    agreement: float, correction: float, strength: float
) -> None:
    risk = Risk(10_000, 1.0, agreement, correction)
    trust = risk.safe_strength
    assert 0 <= trust <= 1
    if correction > 0:
        assert risk.remaining(trust * strength) <= 1 + 1e-12
        assert risk.remaining(trust) <= risk.remaining(strength) + 1e-9
    gain = risk.expected_gain_db(strength)
    assert gain is not None
    assert gain <= -10 * math.log10(LEAST_SHARE) + 1e-9


def test_a_network_that_changes_nothing_is_trusted_and_gains_nothing() -> None:
    risk = risk_of(lambda planes: planes, noisy_planes(a_texture(0.1)))
    assert risk.correction == 0
    assert risk.safe_strength == 1
    assert risk.expected_gain_db(1.0) == pytest.approx(0, abs=0.01)  # rounding of the probe


@pytest.mark.parametrize(("level", "black_end"), [(0.99, -1.0), (0.002, 0.0)])
def test_clipped_samples_say_nothing(level: float, black_end: float) -> None:
    """Half of the planes at an end where the sensor cuts the noise off, half in mid-grey."""
    clean = a_texture(0.0)
    clean[..., : clean.shape[-1] // 2] = level
    noisy = noisy_planes(clean).clip(black_end, 1)
    risk = measure_risk(
        lambda planes, _variance: neighbours_mean(planes),
        noisy,
        NOISE,
        inner=WHOLE,
        black_end=(black_end,) * 4,
        signs=random_signs(noisy.shape),
        memory=CropMemory(noisy.shape),
    )
    assert risk.samples == pytest.approx(noisy.size / 2, rel=0.06)
    assert risk.noise / risk.samples == pytest.approx(1e-3 * 0.4 + 1e-5, rel=0.06)


def test_few_samples_are_not_listened_to() -> None:
    risk = risk_of(np.zeros_like, noisy_planes(a_texture(0.1, side=31)))
    assert not risk.is_known
    assert risk.safe_strength == 1
    assert risk.expected_gain_db(1.0) is None


def test_only_the_inner_part_counts() -> None:
    noisy = noisy_planes(a_texture(0.0))
    risk = measure_risk(
        lambda planes, _variance: np.where(planes > 9, planes, np.float32(0.4)),
        noisy,
        NOISE,
        inner=(slice(10, 20), slice(30, 70)),
        black_end=FAR_BELOW,
        signs=random_signs(noisy.shape),
        memory=CropMemory(noisy.shape),
    )
    assert risk.samples == 4 * 10 * 40
    inside = noisy[..., 10:20, 30:70].astype(np.float64)
    assert risk.correction == pytest.approx(np.square(inside - 0.4).sum(), rel=1e-4)


@given(
    rows=st.integers(1, 3000),
    columns=st.integers(1, 3000),
    multiple_of=st.sampled_from([1, 2, 4, 8]),
    halo=st.integers(0, 40),
)
def test_crops_lie_inside_apart_and_in_phase(
    rows: int, columns: int, multiple_of: int, halo: int
) -> None:
    plan = plan_crops(rows, columns, halo=halo, multiple_of=multiple_of)
    assert len(plan.cores) <= 16
    assert plan.halo >= halo
    assert plan.height % multiple_of == plan.width % multiple_of == 0
    for core in plan.cores:
        assert core.top % multiple_of == core.left % multiple_of == 0
        assert 1 <= core.top
        assert core.top + core.height <= rows - 1
        assert 1 <= core.left
        assert core.left + core.width <= columns - 1
        assert core.height <= plan.height - 2 * plan.halo
        assert core.width <= plan.width - 2 * plan.halo
    for first, second in zip(plan.cores, plan.cores[1:], strict=False):
        if first.top == second.top:
            assert first.left + first.width <= second.left
        else:
            assert first.top + first.height <= second.top


def test_a_small_frame_is_covered_and_a_large_one_sampled_everywhere() -> None:
    rows, columns = 2 * CROP + 14, 4 * CROP
    small = plan_crops(rows, columns, halo=14, multiple_of=2)
    area = sum(core.height * core.width for core in small.cores)
    assert area == (rows - 3) * (columns - 3)
    large = plan_crops(1500, 2000, halo=14, multiple_of=2)
    assert len(large.cores) == 16
    assert {(core.height, core.width) for core in large.cores} == {(CROP, CROP)}
    for quarter in range(4):
        middles = {core.left + CROP / 2 for core in large.cores}
        assert any(500 * quarter < middle < 500 * (quarter + 1) for middle in middles)
