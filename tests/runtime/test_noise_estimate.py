from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import CalibrationError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import read_on_law
from cycleisp_runtime.noise_estimate import NoiseEstimate, estimate_noise
from cycleisp_runtime.readers import read_frame
from tests.helpers import DEMO, RAW, RAW_BAD, shared
from tests.noisy_frames import gradient, grainy, noisy_frame, smooth_scene
from tests.strategies import frames

SHOTS = (1e-4, 1.1e-3, 1.2e-2)


def variance(estimate: NoiseEstimate, signal: float) -> float:
    return estimate.shot * signal + estimate.read


@pytest.mark.parametrize("shot", SHOTS)
@pytest.mark.parametrize("signal", [0.05, 0.2, 0.5])
def test_the_variance_of_a_flat_patch_is_right(shot: float, signal: float) -> None:
    read = read_on_law(shot)
    estimate = estimate_noise(noisy_frame(np.full((512, 512), signal), shot, read))
    # 15,000 overlapping blocks: 1 % for one standard deviation.
    assert variance(estimate, signal) == pytest.approx(shot * signal + read, rel=0.025)
    assert estimate.mode == "single"
    assert estimate.flat > 0.95
    assert estimate.confidence == "good"


@pytest.mark.parametrize("shot", SHOTS)
@pytest.mark.parametrize("over_law", [0.1, 1, 20])
def test_a_gradient_gives_shot_and_read(shot: float, over_law: float) -> None:
    read = over_law * read_on_law(shot)
    estimate = estimate_noise(noisy_frame(gradient(128, 4096, 0.5), shot, read, black=16384))
    # Where read is large, shot is what little the line rises; shadows are a hundredth of the frame.
    assert estimate.shot == pytest.approx(shot, rel=0.05)
    assert variance(estimate, 0.18) == pytest.approx(0.18 * shot + read, rel=0.02)
    assert variance(estimate, 0.01) == pytest.approx(0.01 * shot + read, rel=0.08)
    assert estimate.mode == "line"
    assert estimate.confidence == "high"
    assert estimate.pulled_down == 1
    assert estimate.warnings == ()


def test_the_colours_of_a_grey_wall_give_a_line() -> None:
    clean = np.full((512, 512), 0.25)
    clean[0::2, 0::2], clean[1::2, 1::2] = 0.08, 0.1
    estimate = estimate_noise(noisy_frame(clean, 1.1e-3, 1.2e-6))
    assert estimate.shot == pytest.approx(1.1e-3, rel=0.03)
    assert estimate.mode == "line"


@pytest.mark.parametrize("shot", SHOTS)
def test_a_dark_frame_gives_read_and_says_so(shot: float) -> None:
    read = read_on_law(shot)
    estimate = estimate_noise(noisy_frame(np.zeros((512, 512)), shot, read))
    assert estimate.read == pytest.approx(read, rel=0.03)
    assert estimate.shot == pytest.approx(shot, rel=0.03)
    assert estimate.mode == "dark"
    assert estimate.confidence == "low"
    assert "no signal" in estimate.warnings[0]


def test_a_dark_sky_does_not_set_the_noise_of_the_town_below() -> None:
    clean = np.concatenate([np.zeros((700, 900)), smooth_scene(300, 900)])
    estimate = estimate_noise(noisy_frame(clean, 9.3e-5, 2.7e-7))
    # The law would say 5.6e-4 for this read noise.
    assert estimate.shot == pytest.approx(9.3e-5, rel=0.1)
    assert estimate.read == pytest.approx(2.7e-7, rel=0.05)


def test_a_town_without_flat_areas_bounds_the_shot_of_its_sky() -> None:
    rows, columns = np.mgrid[0:300, 0:900] // 2
    town = 0.1 + 0.01 * ((rows + columns) % 23)
    estimate = estimate_noise(
        noisy_frame(np.concatenate([np.zeros((700, 900)), town]), 9.3e-5, 2.7e-7)
    )
    assert estimate.mode == "dark"
    # Slopes hold no high frequencies, the jumps between them do; the law says 6 times the truth.
    assert 0.8 < estimate.shot / 9.3e-5 < 2


@pytest.mark.parametrize("shot", SHOTS)
def test_texture_and_edges_hardly_count(shot: float) -> None:
    read = read_on_law(shot)
    estimate = estimate_noise(noisy_frame(smooth_scene(900, 1200), shot, read))
    # What is taken off for texture was measured on photographs and is too much here.
    assert variance(estimate, 0.18) == pytest.approx(0.18 * shot + read, rel=0.15)
    assert 0.05 < estimate.flat < 0.9


def test_added_noise_adds_its_variance() -> None:
    before = noisy_frame(smooth_scene(900, 1200), 1.1e-3, 1.2e-6)
    extra = np.random.default_rng(9).normal(
        0, 1e-2 * (before.white - before.black[0]), before.samples.shape
    )
    after = before.with_samples(
        np.clip(before.samples + np.rint(extra), 0, 65535).astype(np.uint16)
    )
    gained = variance(estimate_noise(after), 0.18) - variance(estimate_noise(before), 0.18)
    # Both estimates carry 1 to 2 % of about 3e-4, which is 5 % of the difference.
    assert gained == pytest.approx(1e-4, rel=0.08)


def test_the_order_of_the_planes_changes_nothing() -> None:
    rggb = noisy_frame(smooth_scene(400, 600), 1e-3, 1e-6)
    expected = estimate_noise(rggb)
    for rows, columns in ((0, 1), (1, 0), (1, 1)):
        swapped = rggb.samples.copy()
        for row in (0, 1):
            for column in (0, 1):
                plane = rggb.samples[row::2, column::2]
                swapped[(row + rows) % 2 :: 2, (column + columns) % 2 :: 2] = plane
        frame = replace(rggb, samples=swapped, cfa=Phase.RGGB.shifted(rows, columns))
        assert estimate_noise(frame) == expected


@pytest.mark.parametrize("bits", [1, 4])
def test_samples_shifted_left_with_their_levels_change_nothing(bits: int) -> None:
    frame = noisy_frame(smooth_scene(400, 600), 1e-3, 1e-6, black=64, white=1023)
    shifted = frame.with_samples(frame.samples << np.uint16(bits), scale=1 << bits)
    assert estimate_noise(shifted) == estimate_noise(frame)


def test_the_same_frame_gives_the_same_estimate() -> None:
    frame = noisy_frame(smooth_scene(400, 600), 1e-3, 1e-6)
    assert estimate_noise(frame) == estimate_noise(frame)


def test_clipped_samples_do_not_count() -> None:
    clean = gradient(128, 4096, 0.5)
    clean[:, 2048:] = 1.0
    estimate = estimate_noise(noisy_frame(clean, 1.1e-3, 1.2e-6))
    assert estimate.shot == pytest.approx(1.1e-3, rel=0.04)
    assert estimate.kept == pytest.approx(0.5, abs=0.02)


def test_a_floor_at_black_does_not_lower_the_noise_of_midtones() -> None:
    estimate = estimate_noise(noisy_frame(gradient(128, 4096, 0.5), 1.2e-2, 2e-4, black=0))
    assert variance(estimate, 0.18) == pytest.approx(0.18 * 1.2e-2 + 2e-4, rel=0.04)


@pytest.mark.parametrize(("white", "expected"), [(1023, 0.05), (4095, 0.03)])
def test_ten_bits_are_enough(white: float, expected: float) -> None:
    frame = noisy_frame(gradient(128, 4096, 0.5), 1e-4, 1e-6, black=64, white=white)
    rounding = 1 / (white - 64) ** 2 / 12
    assert variance(estimate_noise(frame), 0.18) == pytest.approx(
        0.18e-4 + 1e-6 + rounding, rel=expected
    )


def test_eight_bits_do_not_let_the_noise_vanish() -> None:
    estimate = estimate_noise(
        noisy_frame(gradient(128, 4096, 0.5), 1e-4, 1e-8, black=16, white=255)
    )
    # The deviation at x = 0.18 is one code step: more than a factor says nothing.
    assert 0.5 < variance(estimate, 0.18) / (0.18e-4 + 1 / 239**2 / 12) < 1.5
    assert estimate.read >= 1 / 239**2 / 12
    assert estimate.confidence != "high"
    assert any("codes" in warning for warning in estimate.warnings)


def test_read_noise_holds_that_of_rounding_whatever_is_taken_off() -> None:
    scene = smooth_scene(400, 600)
    for clean in (scene, grainy(scene)):
        estimate = estimate_noise(noisy_frame(clean, 1e-4, 1e-12, black=64, white=1023))
        assert estimate.read >= 1 / 959**2 / 12


def test_a_black_level_that_is_too_low_is_noticed() -> None:
    frame = noisy_frame(gradient(512, 1024, 0.01), 1e-4, 1e-8)
    estimate = estimate_noise(replace(frame, black=(4096 - 100,) * 4))
    (warning,) = (each for each in estimate.warnings if "black" in each)
    assert float(warning.split()[-2]) == pytest.approx(100, rel=0.3)


def test_low_noise_that_contradicts_itself_is_pulled_down() -> None:
    clean = grainy(gradient(256, 4096, 0.5))
    quiet = estimate_noise(noisy_frame(clean, 1e-4, 1e-8))
    assert quiet.residual > 0.2
    assert quiet.pulled_down == 0.5
    assert quiet.confidence != "high"
    assert any("50%" in warning for warning in quiet.warnings)


def test_high_noise_is_never_pulled_down() -> None:
    clean = grainy(gradient(256, 4096, 0.5))
    assert estimate_noise(noisy_frame(clean, 1e-2, 1e-4)).pulled_down == 1


def test_a_frame_that_is_flat_is_never_pulled_down() -> None:
    estimate = estimate_noise(noisy_frame(gradient(256, 4096, 0.5), 3e-5, 1e-9))
    assert estimate.pulled_down == 1
    assert estimate.shot == pytest.approx(3e-5, rel=0.03)


def test_a_textured_frame_is_not_trusted() -> None:
    texture = np.random.default_rng(0).uniform(0.1, 0.4, (100, 150)).repeat(4, 0).repeat(4, 1)
    estimate = estimate_noise(noisy_frame(texture, 1e-4, 1e-8))
    assert estimate.flat < 0.03
    assert estimate.confidence == "poor"
    assert estimate.warnings


UNUSABLE = {
    "white all over": np.full((64, 64), 65535, np.uint16),
    "zero all over": np.zeros((64, 64), np.uint16),
    "of one value": np.full((64, 64), 9000, np.uint16),
    "clipped at both ends": np.tile(np.array([0, 65535], np.uint16), (64, 32)),
    "too small": np.arange(144, dtype=np.uint16).reshape(12, 12),
    "too thin": np.arange(40000, dtype=np.uint16).reshape(2, 20000),
}


@pytest.mark.parametrize("samples", UNUSABLE.values(), ids=UNUSABLE)
def test_a_frame_that_tells_nothing_has_no_estimate(samples: npt.NDArray[np.uint16]) -> None:
    frame = RawFrame(
        samples, Phase.GRBG, (1024,) * 4, 60000, Area(0, 0, *samples.shape), source=Path("a.dng")
    )
    with pytest.raises(CalibrationError, match=r"^a\.dng: .*; give --noise SHOT,READ$"):
        estimate_noise(frame)


def test_a_frame_of_defective_samples_has_no_estimate() -> None:
    frame = noisy_frame(np.full((64, 64), 0.2), 1e-3, 1e-6)
    samples = np.where(frame.samples % 2, frame.samples, 7).astype(np.uint16)
    with pytest.raises(CalibrationError, match="0 usable blocks"):
        estimate_noise(replace(frame, samples=samples, reserved_dn=7))


@given(frames())
def test_any_frame_has_a_plausible_estimate_or_none(frame: RawFrame) -> None:
    try:
        estimate = estimate_noise(frame)
    except CalibrationError:
        return
    assert 1e-6 <= estimate.shot <= 0.1
    assert 0 < estimate.read < 1
    assert 0 < estimate.flat <= 1
    assert 0.5 <= estimate.pulled_down <= 1


def test_the_demo_frame() -> None:
    estimate = estimate_noise(read_frame(DEMO / "bmpcc_gbrg_12b_ljpeg_lintable.dng"))
    # No truth is known; this is what the prototype of this method found, too.
    assert estimate.shot == pytest.approx(3.0e-5, rel=0.03)
    assert estimate.read == pytest.approx(5.5e-9, rel=0.1)
    assert estimate.confidence == "high"


@pytest.mark.parametrize("path", sorted(RAW.glob("d750_*.dng")), ids=lambda path: path.name)
def test_small_real_frames_say_that_they_are_small(path: Path) -> None:
    estimate = estimate_noise(read_frame(path))
    # 1.1e-5 to 2.2e-5 over all crops of this picture; only bytes hide the noise altogether.
    assert 5e-6 < estimate.shot < 4e-5
    assert estimate.confidence in ("low", "poor")


def test_a_white_frame_has_no_estimate() -> None:
    with pytest.raises(CalibrationError, match="give --noise"):
        estimate_noise(read_frame(RAW_BAD / "all_white_frame.dng"))


def test_a_real_burst_of_known_noise() -> None:
    with np.load(shared("data", "pairs", "rawburst_imx296_a.npz")) as burst:
        noisy = burst["noisy"]
    for samples in noisy:
        frame = RawFrame(samples, Phase.BGGR, (60,) * 4, 1023, Area(0, 0, *samples.shape))
        estimate = estimate_noise(frame)
        shot_dn, read_dn = 963 * estimate.shot, 963**2 * estimate.read
        # Photon transfer over the burst: 0.090 DN and 0.26 DN^2. Shot and read trade off.
        assert 0.082 < shot_dn < 0.098
        assert 0.15 < read_dn < 0.40
        for signal_dn, tolerance in ((5, 0.08), (20, 0.05), (50, 0.05)):
            true = 0.090 * signal_dn + 0.26
            assert shot_dn * signal_dn + read_dn == pytest.approx(true, rel=tolerance)
        assert estimate.confidence == "high"
