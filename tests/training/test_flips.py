"""Packing by flipping: exact, and true to every colour and to the order of the samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp.data.flips import flipped, pack_flipped, unpack_flipped
from cycleisp_runtime.bayer import PLANES, Phase

even = st.integers(1, 8).map(lambda half: 2 * half)


@given(st.sampled_from(Phase), even, even)
def test_unpacking_undoes_packing(phase: Phase, height: int, width: int) -> None:
    mosaic = np.arange(height * width).reshape(height, width)
    packed = pack_flipped(mosaic, phase)
    assert packed.shape == (4, height // 2, width // 2)
    assert np.array_equal(unpack_flipped(packed, phase), mosaic)


@given(st.sampled_from(Phase), even, even)
def test_every_plane_holds_its_colour_only(phase: Phase, height: int, width: int) -> None:
    colours = np.empty((height, width), np.int64)
    for plane, (row, column) in enumerate(phase.plane_offsets):
        colours[row::2, column::2] = plane
    packed = pack_flipped(colours, phase)
    for plane, _ in enumerate(PLANES):
        assert (packed[plane] == plane).all()


@given(st.sampled_from(Phase))
def test_flipping_twice_changes_nothing(phase: Phase) -> None:
    picture = np.random.default_rng(0).random((6, 4, 3))
    assert np.array_equal(flipped(flipped(picture, phase), phase), picture)


@pytest.mark.parametrize(
    ("phase", "rows", "columns"),
    [
        (Phase.RGGB, False, False),
        (Phase.GRBG, False, True),
        (Phase.GBRG, True, False),
        (Phase.BGGR, True, True),
    ],
)
def test_each_phase_has_its_flip(phase: Phase, rows: bool, columns: bool) -> None:
    picture = np.arange(24).reshape(4, 6)
    axes = tuple(axis for axis, flip in enumerate((rows, columns)) if flip)
    expected = np.flip(picture, axes)
    assert np.array_equal(flipped(picture, phase), expected)
