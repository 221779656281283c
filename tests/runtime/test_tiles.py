"""Laws of tiles: cores cover a frame once, a tile is the mirrored mosaic, stitching undoes it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.bayer import Phase, pack, packed_size
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiles import LEAST_NOISE_SCALE, MosaicTiles, TilePlan, plan_tiles
from tests.strategies import frames, noise_models


@st.composite
def plans(draw: st.DrawFn, rows: int, columns: int) -> TilePlan:
    multiple_of = draw(st.sampled_from([1, 2, 4]))
    halo = draw(st.integers(0, 9))
    side = 2 * (halo + multiple_of) + draw(st.integers(multiple_of, 40))
    return plan_tiles(rows, columns, side=side, halo=halo, multiple_of=multiple_of)


@given(
    rows=st.integers(1, 200),
    columns=st.integers(1, 200),
    halo=st.integers(0, 12),
    room=st.integers(0, 80),
    multiple_of=st.sampled_from([1, 2, 4]),
)
def test_cores_cover_the_frame_once_and_tiles_keep_the_rules(
    rows: int, columns: int, halo: int, room: int, multiple_of: int
) -> None:
    side = 2 * (halo + multiple_of) + multiple_of + room
    plan = plan_tiles(rows, columns, side=side, halo=halo, multiple_of=multiple_of)
    covered = np.zeros((rows, columns), int)
    for top, left, height, width in plan.cores:
        covered[top : top + height, left : left + width] += 1
        assert top % multiple_of == left % multiple_of == 0
        assert height <= plan.height - 2 * plan.halo
        assert width <= plan.width - 2 * plan.halo
    assert (covered == 1).all()
    assert halo <= plan.halo < halo + multiple_of
    assert plan.halo % multiple_of == plan.height % multiple_of == plan.width % multiple_of == 0
    assert max(plan.height, plan.width) <= side
    assert plan.height <= rows + 2 * plan.halo + multiple_of


def test_a_frame_that_fits_is_one_tile() -> None:
    plan = plan_tiles(100, 60, side=512, halo=20, multiple_of=2)
    assert plan.cores == ((0, 0, 100, 60),)
    assert (plan.height, plan.width) == (140, 100)


def test_tiles_are_no_more_than_needed_and_of_even_size() -> None:
    plan = plan_tiles(1000, 472, side=512, halo=20, multiple_of=2)
    assert [core.height for core in plan.cores] == [334, 334, 332]


def test_a_tile_without_room_for_a_core_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"met 41, wanted at least 42 packed samples"):
        plan_tiles(100, 100, side=41, halo=19, multiple_of=2)


def mirrored(frame: RawFrame, plan: TilePlan) -> np.ndarray:
    """The whole packed frame and a mirrored surrounding of 2 tiles, made with numpy's own padding.

    The mosaic is widened by an even number of rows and columns in float64 after normalising it
    sample by sample, so it shares nothing with the code under test but the definition.
    """
    height, width = frame.visible.shape
    rows, columns = np.indices((height, width))
    black = np.array(frame.black)[rows % 2 * 2 + columns % 2]
    span = frame.white - black
    if frame.black_rows is not None:
        black = black + frame.black_rows[:, None]
    if frame.black_columns is not None:
        black = black + frame.black_columns
    normalised = (frame.visible - black) / span
    margin_rows, margin_columns = 4 * plan.height, 4 * plan.width
    red = frame.cfa.red
    wide = np.pad(
        normalised,
        [
            (margin_rows + red.row, margin_rows + height + red.row),
            (margin_columns + red.column, margin_columns + width + red.column),
        ],
        mode="reflect",
    )
    return pack(wide[: wide.shape[0] // 2 * 2, : wide.shape[1] // 2 * 2], Phase.RGGB)


@given(data=st.data(), frame=frames(), noise=noise_models)
def test_every_tile_is_cut_from_the_mirrored_frame(
    data: st.DataObject, frame: RawFrame, noise: NoiseModel
) -> None:
    plan = data.draw(plans(*packed_size(frame.area.height, frame.area.width, frame.cfa)))
    expected = mirrored(frame, plan)
    noisy, variance = (np.empty((4, plan.height, plan.width), np.float32) for _ in range(2))
    tiles = MosaicTiles(frame, noise, plan)
    for core in plan.cores:
        tiles.cut(core, noisy, variance)
        top = 2 * plan.height + core.top - plan.halo
        left = 2 * plan.width + core.left - plan.halo
        truth = expected[:, top : top + plan.height, left : left + plan.width]
        # float32 of values up to 257 (a sample of 65535 above a white of 255)
        np.testing.assert_allclose(noisy, truth, rtol=1e-6, atol=1e-5)
        np.testing.assert_array_equal(variance, noise.variance(noisy))


@given(data=st.data(), frame=frames(), noise=noise_models)
def test_noise_scale_is_that_of_the_frame_for_every_plan(
    data: st.DataObject, frame: RawFrame, noise: NoiseModel
) -> None:
    rows, columns = packed_size(frame.area.height, frame.area.width, frame.cfa)
    scales = []
    for plan in (
        data.draw(plans(rows, columns)),
        plan_tiles(rows, columns, side=512, halo=0, multiple_of=1),
    ):
        noisy, variance = (np.empty((4, plan.height, plan.width), np.float32) for _ in range(2))
        tiles = MosaicTiles(frame, noise, plan)
        scales.append(tiles.noise_scale(noisy, variance))
    tiles.cut(plan.cores[0], noisy, variance)  # the last plan has one tile
    whole_frame = math.sqrt(variance[:, :rows, :columns].mean(dtype=np.float64))
    assert scales == pytest.approx([whole_frame, whole_frame], rel=1e-6)


def test_noise_scale_of_a_frame_without_noise_is_not_zero() -> None:
    frame = RawFrame(np.zeros((4, 4), np.uint16), Phase.RGGB, (8, 8, 8, 8), 255, Area(0, 0, 4, 4))
    plan = plan_tiles(2, 2, side=8, halo=0, multiple_of=2)
    tiles = MosaicTiles(frame, NoiseModel.uniform(1e-3, 0.0), plan)
    noisy, variance = np.empty((4, 2, 2), np.float32), np.empty((4, 2, 2), np.float32)
    assert tiles.noise_scale(noisy, variance) == LEAST_NOISE_SCALE
