"""Laws of the Bayer mosaic, for every phase and for odd sizes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.bayer import (
    PLANES,
    Phase,
    pack,
    packed_size,
    reflected_indices,
    unpack,
)

phases = st.sampled_from(Phase)
sides = st.integers(2, 33)


def color_numbers(height: int, width: int, phase: Phase) -> npt.NDArray[np.uint8]:
    """A mosaic whose samples are the index of their own plane in PLANES."""
    mosaic = np.empty((height, width), np.uint8)
    for plane, (row, column) in enumerate(phase.plane_offsets):
        mosaic[row::2, column::2] = plane
    return mosaic


@given(height=sides, width=sides, phase=phases, seed=st.integers(0, 99))
def test_unpack_is_the_inverse_of_pack(height: int, width: int, phase: Phase, seed: int) -> None:
    mosaic = np.random.default_rng(seed).integers(0, 65536, (height, width), np.uint16)
    packed = pack(mosaic, phase)
    assert packed.shape == (4, *packed_size(height, width, phase))
    np.testing.assert_array_equal(unpack(packed, phase, height, width), mosaic)


@given(height=sides, width=sides, phase=phases)
def test_every_plane_holds_its_own_color_even_where_it_is_reflected(
    height: int, width: int, phase: Phase
) -> None:
    packed = pack(color_numbers(height, width, phase), phase)
    for plane in range(4):
        assert (packed[plane] == plane).all()


@given(rows=st.integers(-3, 3), columns=st.integers(-3, 3), phase=phases)
def test_a_shifted_phase_is_that_of_the_mosaic_seen_from_there(
    rows: int, columns: int, phase: Phase
) -> None:
    seen = color_numbers(12, 12, phase)[4 + rows :, 4 + columns :]
    np.testing.assert_array_equal(
        seen, color_numbers(seen.shape[0], seen.shape[1], phase.shifted(rows, columns))
    )


@given(phase=phases)
def test_shifting_by_a_cell_changes_nothing_and_by_one_is_undone(phase: Phase) -> None:
    assert phase.shifted(2, -2) is phase
    assert phase.shifted(1, 1).shifted(1, 1) is phase
    assert len({phase.shifted(row, column) for row in (0, 1) for column in (0, 1)}) == 4


@given(phase=phases)
def test_values_by_plane_and_by_position_are_each_other_s_inverse(phase: Phase) -> None:
    cell = (1.0, 2.0, 3.0, 4.0)
    assert phase.by_position(phase.by_plane(cell)) == cell
    assert phase.by_plane(phase.by_position(cell)) == cell


@pytest.mark.parametrize(
    ("phase", "by_plane"),
    [
        (Phase.RGGB, (600, 608, 592, 620)),
        (Phase.GRBG, (608, 600, 620, 592)),
        (Phase.GBRG, (592, 620, 600, 608)),
        (Phase.BGGR, (620, 592, 608, 600)),
    ],
)
def test_gr_shares_its_row_with_red(phase: Phase, by_plane: tuple[float, ...]) -> None:
    assert PLANES == ("R", "Gr", "Gb", "B")
    assert phase.by_plane((600, 608, 592, 620)) == by_plane


@given(length=st.integers(2, 9), start=st.integers(-20, 20), count=st.integers(0, 30))
def test_reflection_keeps_parity_and_order(length: int, start: int, count: int) -> None:
    indices = reflected_indices(start, start + count, 1, length)
    wanted = np.arange(start, start + count)
    assert ((0 <= indices) & (indices < length)).all()
    assert (indices % 2 == wanted % 2).all()
    inside = (0 <= wanted) & (wanted < length)
    np.testing.assert_array_equal(indices[inside], wanted[inside])
    assert (np.abs(np.diff(indices)) == 1).all()


def test_the_edge_sample_is_not_repeated() -> None:
    assert reflected_indices(-3, 8, 1, 5).tolist() == [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]


def test_a_mosaic_of_another_phase_begins_with_a_reflected_column() -> None:
    mosaic = np.array([[10, 1, 12], [20, 11, 22]], np.uint16)  # G R G / B G B
    packed = pack(mosaic, Phase.GRBG)
    np.testing.assert_array_equal(packed[0], [[1, 1]])
    np.testing.assert_array_equal(packed[1], [[10, 12]])
    np.testing.assert_array_equal(packed[2], [[11, 11]])
    np.testing.assert_array_equal(packed[3], [[20, 22]])
