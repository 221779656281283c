from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise_blocks import code_step, measure_blocks
from tests.noisy_frames import gradient, noisy_frame
from tests.strategies import frames


def test_both_bands_hold_the_variance_of_white_noise() -> None:
    blocks = measure_blocks(noisy_frame(np.full((256, 256), 0.2), 0.0, 1e-4))
    # 3,844 overlapping blocks: 1.5 % and 1.9 % at most for one standard deviation.
    assert blocks.low.mean() == pytest.approx(1e-4, rel=0.04)
    assert blocks.high.mean() == pytest.approx(1e-4, rel=0.05)
    assert blocks.mean.mean() == pytest.approx(0.2, rel=1e-3)
    assert blocks.kept == 1


def test_the_bands_of_white_noise_are_independent() -> None:
    blocks = measure_blocks(noisy_frame(np.full((512, 512), 0.2), 0.0, 1e-4))
    assert abs(np.corrcoef(blocks.low, blocks.high)[0, 1]) < 0.04


def test_a_slope_shows_in_the_low_band_only() -> None:
    blocks = measure_blocks(noisy_frame(gradient(128, 128, 0.5), 0.0, 1e-10))
    assert blocks.low.min() > 1e-6
    assert blocks.high.max() < 1e-8


def test_blocks_are_sorted_by_mean() -> None:
    blocks = measure_blocks(noisy_frame(gradient(128, 128, 0.5), 1e-3, 1e-6))
    assert (np.diff(blocks.mean) >= 0).all()
    assert len(blocks.mean) == len(blocks.low) == len(blocks.high) == len(blocks)


def test_saturated_blocks_are_left_out() -> None:
    clean = np.full((128, 128), 0.3)
    clean[:, 64:] = 1.0
    blocks = measure_blocks(noisy_frame(clean, 1e-4, 1e-7))
    assert blocks.kept < 0.5
    assert blocks.mean.max() < 0.35


def test_blocks_clipped_at_black_are_left_out() -> None:
    dark = noisy_frame(np.full((128, 128), 0.001), 0.0, 1e-5, black=0)
    assert len(measure_blocks(dark)) == 0


def test_the_lowest_code_above_black_is_no_floor() -> None:
    coarse = noisy_frame(np.full((128, 128), 0.4), 0.0, 1e-6, black=16, white=255)
    assert len(np.unique(coarse.samples)) < 4
    assert measure_blocks(coarse).kept == 1


def test_defective_samples_take_their_blocks_out() -> None:
    frame = noisy_frame(np.full((128, 128), 0.2), 1e-3, 1e-6)
    samples = frame.samples.copy()
    samples[::32, ::32] = 0
    marked = replace(frame, samples=samples, reserved_dn=0)
    assert measure_blocks(marked).kept < 1
    assert measure_blocks(marked).high.max() < 10 * 2e-4
    assert measure_blocks(replace(marked, reserved_dn=None)).high.max() > 10 * 2e-4


def test_masked_samples_are_not_looked_at() -> None:
    frame = noisy_frame(np.full((140, 150), 0.2), 1e-3, 1e-6)
    samples = frame.samples.copy()
    samples[:12] = 0
    samples[:, :22] = 0
    area = Area(12, 22, 128, 128)
    blocks = measure_blocks(replace(frame, samples=samples, area=area))
    assert blocks.kept == 1
    assert blocks.mean.min() > 0.15


def test_black_of_rows_and_columns_is_taken_off() -> None:
    flat = noisy_frame(np.full((128, 128), 0.2), 0.0, 1e-6)
    rows = np.random.default_rng(0).integers(-200, 200, 128).astype(float)
    columns = np.random.default_rng(1).integers(-200, 200, 128).astype(float)
    offset = flat.samples + rows[:, None] + columns
    striped = replace(
        flat, samples=offset.astype(np.uint16), black_rows=rows, black_columns=columns
    )
    plain, corrected = measure_blocks(flat), measure_blocks(striped)
    np.testing.assert_allclose(corrected.mean, plain.mean, rtol=1e-5)
    np.testing.assert_allclose(corrected.high.mean(), plain.high.mean(), rtol=1e-4)


def test_black_per_position_is_taken_off() -> None:
    black = (1000.0, 500.0, 800.0, 1400.0)
    frame = replace(noisy_frame(np.full((64, 64), 0.2), 0.0, 1e-8, black=0), black=black)
    by_plane = measure_blocks(frame).mean.reshape(4, -1).mean(axis=1)
    expected = sorted((0.2 * frame.white - level) / (frame.white - level) for level in black)
    np.testing.assert_allclose(by_plane, expected, rtol=1e-3)


@pytest.mark.parametrize("step", [1, 4, 16])
def test_the_step_is_the_smallest_between_codes(step: int) -> None:
    frame = noisy_frame(gradient(64, 64, 0.9), 1e-3, 1e-6, black=0, white=1023)
    coarse = replace(frame, samples=frame.samples // step * step)
    assert code_step(coarse) == pytest.approx(step / 1023)


def test_a_constant_frame_has_no_step() -> None:
    assert code_step(noisy_frame(np.full((64, 64), 0.5), 0.0, 0.0)) == 0


def test_memory_does_not_grow_with_the_frame() -> None:
    peaks = []
    for side in (3072, 6144):
        frame = noisy_frame(np.zeros((8, 8)), 0.0, 1e-6)
        samples = np.tile(frame.samples, (side // 8, side // 8))
        large = replace(frame, samples=samples, area=Area(0, 0, side, side))
        tracemalloc.start()
        measure_blocks(large)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 60e6


@given(frames())
def test_any_frame_can_be_measured(frame: RawFrame) -> None:
    blocks = measure_blocks(frame)
    assert np.isfinite(blocks.high).all()
    assert (blocks.mean >= 0).all()
    assert 0 <= blocks.kept <= 1
