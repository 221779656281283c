"""Crops, flips and transposes of a mosaic and its picture: golden values and laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp.data.augmentation import Augmentation, MosaicPair, random_rggb_patch
from cycleisp_runtime.bayer import Phase, pack
from cycleisp_runtime.errors import InputError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "packing.npz"

CHANNEL_OF_PLANE = (0, 1, 1, 2)

sides = st.integers(2, 12)
room = st.integers(1, 7)
"""Rows or columns beyond a patch; one lets every phase shift to RGGB."""
seeds = st.integers(0, 2**32 - 1)


def a_pair(height: int, width: int, phase: Phase) -> MosaicPair:
    """A picture without two equal values, and the mosaic that a sensor keeps of it."""
    rgb = np.arange(3 * height * width).reshape(height, width, 3)
    return MosaicPair(mosaic_of(rgb, phase), rgb, phase)


def mosaic_of(rgb: npt.NDArray[np.int64], phase: Phase) -> npt.NDArray[np.int64]:
    mosaic = np.empty(rgb.shape[:2], rgb.dtype)
    for channel, (row, column) in zip(CHANNEL_OF_PLANE, phase.plane_offsets, strict=True):
        mosaic[row::2, column::2] = rgb[row::2, column::2, channel]
    return mosaic


def assert_aligned(pair: MosaicPair) -> None:
    """Every sample is the channel of the picture, at its place, that the phase says."""
    np.testing.assert_array_equal(pair.mosaic, mosaic_of(pair.rgb, pair.phase))


@pytest.mark.parametrize("phase", Phase)
def test_unification_crops_as_the_published_loader(phase: Phase) -> None:
    with np.load(GOLDEN) as golden:
        unified = MosaicPair(golden["u_raw"], golden["u_rgb"], phase).unified()
        np.testing.assert_array_equal(unified.mosaic, golden[f"unify_crop_{phase.value}_raw"])
        np.testing.assert_array_equal(unified.rgb, golden[f"unify_crop_{phase.value}_rgb"])
    assert unified.phase is Phase.RGGB


@pytest.mark.parametrize("number", range(4))
def test_augmentations_are_those_of_the_published_loader(number: int) -> None:
    with np.load(GOLDEN) as golden:
        pair = MosaicPair(golden["u_raw"], golden["u_rgb"])
        augmented = pair.augmented(list(Augmentation)[number]).unified()
        np.testing.assert_array_equal(augmented.mosaic, golden[f"aug{number}_raw"][..., 0])
        np.testing.assert_array_equal(augmented.rgb, golden[f"aug{number}_rgb"])


def test_packing_is_that_of_the_published_loader() -> None:
    with np.load(GOLDEN) as golden:
        packed = pack(golden["bayer"], Phase.RGGB)
        np.testing.assert_array_equal(packed.transpose(1, 2, 0), golden["packed_hwc"])


@st.composite
def pairs_after_operations(draw: st.DrawFn) -> MosaicPair:
    """A pair after any sequence of crops, flips, transposes and unifications."""
    pair = a_pair(draw(sides), draw(sides), draw(st.sampled_from(Phase)))
    for _ in range(draw(st.integers(0, 6))):
        height, width = pair.mosaic.shape
        step = draw(st.sampled_from([*Augmentation, "unify", "crop"]))
        if isinstance(step, Augmentation):
            pair = pair.augmented(step)
        elif step == "unify":
            pair = pair.unified()
        else:
            top, left = draw(st.integers(0, height)), draw(st.integers(0, width))
            rows, columns = draw(st.integers(0, height - top)), draw(st.integers(0, width - left))
            pair = pair.window(top, left, rows, columns)
    return pair


@given(pairs_after_operations())
def test_no_sequence_of_operations_parts_raw_from_rgb_or_phase(pair: MosaicPair) -> None:
    assert_aligned(pair)
    unified = pair.unified()
    assert unified.phase is Phase.RGGB
    assert_aligned(unified)


@given(st.integers(1, 6), st.tuples(room, room), st.sampled_from(Phase), seeds)
def test_a_random_patch_is_rggb_aligned_and_of_its_side(
    cells: int, room: tuple[int, int], phase: Phase, seed: int
) -> None:
    side = 2 * cells
    pair = a_pair(side + room[0], side + room[1], phase)
    patch = random_rggb_patch(pair, side, np.random.default_rng(seed))
    assert patch.mosaic.shape == (side, side)
    assert patch.phase is Phase.RGGB
    assert_aligned(patch)


def corner_and_way(patch: MosaicPair, width: int) -> tuple[int, int, int, int]:
    """Where the patch was cut, and how far apart its neighbours down and right stood."""
    places = patch.rgb[..., 0] // 3
    return (
        *divmod(int(places.min()), width),
        int(places[1, 0] - places[0, 0]),
        int(places[0, 1] - places[0, 0]),
    )


def test_patches_are_cut_at_every_place_and_turned_all_four_ways() -> None:
    pair, rng = a_pair(9, 12, Phase.RGGB), np.random.default_rng(0)
    met = {corner_and_way(random_rggb_patch(pair, 4, rng), 12) for _ in range(2000)}
    rows, columns = (0, 2, 4), (0, 2, 4, 6, 8)
    odd_rows, odd_columns = (1, 3, 5), (1, 3, 5, 7)
    # The last row (5 + 4) and the last column (8 + 4) are reached.
    assert met == (
        {(row, column, 12, 1) for row in rows for column in columns}
        | {(row, column, -12, 1) for row in odd_rows for column in columns}
        | {(row, column, 12, -1) for row in rows for column in odd_columns}
        | {(row, column, 1, 12) for row in rows for column in columns}
    )


def test_a_frame_of_exactly_one_patch_is_not_flipped() -> None:
    pair, rng = a_pair(6, 6, Phase.RGGB), np.random.default_rng(0)
    met = {corner_and_way(random_rggb_patch(pair, 6, rng), 6) for _ in range(50)}
    assert met == {(0, 0, 6, 1), (0, 0, 1, 6)}


def test_a_frame_smaller_than_a_patch_is_refused() -> None:
    with pytest.raises(InputError, match=r"smaller than a patch \(met 12x5, wanted .* 6x6"):
        random_rggb_patch(a_pair(5, 12, Phase.RGGB), 6, np.random.default_rng(0))
