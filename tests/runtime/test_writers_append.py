"""DNG in, DNG out, in layouts and with tags that the corpus lacks."""

from __future__ import annotations

import hashlib
import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.tag_listing import Difference, tag_differences
from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.writers.ifd import nearest_rational
from tests.runtime.dng_builder import BYTE, DOUBLE, RATIONAL, SHORT, SRATIONAL, Item, Place
from tests.runtime.libraw_view import libraw_view
from tests.runtime.rewriting import (
    SAMPLES,
    SOURCE,
    assert_sound_structure,
    built,
    changed_old_bytes,
    mosaic_of,
    numbers,
    parsed,
    rewritten,
)

RESIDUAL = NoiseModel((1e-4, 2e-4, 4e-4, 8e-4), (1e-6, 2e-6, 4e-6, 8e-6))


# --- layouts that the corpus lacks ----------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", get_args(Place))
def test_the_mosaic_is_found_and_replaced_wherever_it_stands(
    tmp_path: Path, place: Place, order: str
) -> None:
    frame = built(tmp_path, SAMPLES, place=place, order=order)
    denoised = frame.with_samples(SAMPLES[::-1].copy())
    out = rewritten(denoised, tmp_path)
    assert np.array_equal(libraw_view(out).samples, SAMPLES[::-1])
    assert parsed(out).byte_order == order
    _, old_mosaic = mosaic_of(tmp_path / SOURCE)
    pointer = range(old_mosaic.pointer_offset, old_mosaic.pointer_offset + 4)
    assert set(changed_old_bytes(tmp_path / SOURCE, out)) <= set(pointer)
    assert_sound_structure(out)


def test_a_directory_that_ends_the_file_gets_no_follower(tmp_path: Path) -> None:
    frame = built(tmp_path, SAMPLES, place="second SubIFD", end_without_next=True)
    assert len(parsed(rewritten(frame, tmp_path)).directories) == len(
        parsed(tmp_path / SOURCE).directories
    )


@pytest.mark.parametrize("place", ["first", "next"])
def test_what_follows_the_mosaic_follows_it_still(tmp_path: Path, place: Place) -> None:
    frame = built(tmp_path, SAMPLES, place=place, follower=True)
    differences = tag_differences(tmp_path / SOURCE, rewritten(frame, tmp_path))
    assert {path.split(".")[1] for path in differences} == {"StripOffsets"}


def test_a_tag_that_stands_twice_is_kept_once_as_it_stood_first(tmp_path: Path) -> None:
    twice = [Item(Tag.WhiteLevel, SHORT, (15520,)), Item(Tag.WhiteLevel, SHORT, (100,))]
    frame = built(tmp_path, SAMPLES, mosaic=twice)
    out = rewritten(frame, tmp_path)
    assert tag_differences(tmp_path / SOURCE, out).keys() == {
        "IFD0.StripOffsets",
        "IFD0.WhiteLevel#2",
    }
    assert_sound_structure(out)


# --- levels ---------------------------------------------------------------------------------


def test_levels_grow_into_a_type_that_holds_them(tmp_path: Path) -> None:
    levels = [
        Item(Tag.BlackLevelRepeatDim, SHORT, (1, 2)),
        Item(Tag.BlackLevel, RATIONAL, (601, 3, 1200, 2)),
        Item(Tag.BlackLevelDeltaV, SRATIONAL, [-1, 3] * 48),
    ]
    frame = built(tmp_path, SAMPLES, mosaic=levels)
    out = rewritten(frame, tmp_path, scale=4)
    tiff, mosaic = mosaic_of(out)
    black, white = mosaic.get(Tag.BlackLevel), mosaic.get(Tag.WhiteLevel)
    assert black is not None
    assert white is not None
    assert tiff.value_bytes(black) == struct.pack("<4I", 2404, 3, 2400, 1)
    assert (white.kind, tiff.numbers(white)) == (SHORT, (62080,))
    assert numbers(out, Tag.BlackLevelDeltaV) == (-4 / 3,) * 48
    assert numbers(out, Tag.BlackLevelRepeatDim) == (1, 2)


def test_unusable_deltas_stay_as_they_are(tmp_path: Path) -> None:
    frame = built(tmp_path, SAMPLES, mosaic=[Item(Tag.BlackLevelDeltaH, SRATIONAL, (1, 0))])
    out = rewritten(frame, tmp_path, scale=4)
    assert "IFD0.BlackLevelDeltaH" not in tag_differences(tmp_path / SOURCE, out)


def test_a_level_beyond_every_type_is_an_error_of_ours(tmp_path: Path) -> None:
    delta = Item(Tag.BlackLevelDeltaH, SRATIONAL, (2**31 - 1, 1) * 64)
    frame = built(tmp_path, SAMPLES, mosaic=[delta])
    with pytest.raises(OutputError, match="50715 cannot hold its new value"):
        rewritten(frame, tmp_path, scale=4)


@given(
    st.fractions(-(2**31) + 1, 2**31 - 1),
    st.sampled_from([2**31 - 1, 2**32 - 1]),
)
def test_a_rational_that_fits_stays_exact_and_others_are_near(value: Fraction, limit: int) -> None:
    near = nearest_rational(value, limit)
    assert max(abs(near.numerator), near.denominator) <= limit
    denominators = limit // max(1, math.ceil(abs(value)))
    if value.denominator <= denominators:
        assert near == value
    # The best of all fractions with these denominators is no worse than the best of the largest.
    assert abs(near - value) <= Fraction(1, 2 * denominators)


# --- what the file says about noise -----------------------------------------------------------


def test_samples_that_were_not_denoised_keep_their_noise_tags(tmp_path: Path) -> None:
    profile = [Item(Tag.NoiseProfile, DOUBLE, (1e-3, 1e-5))]
    frame = built(tmp_path, SAMPLES, mosaic=profile)
    out = rewritten(frame, tmp_path, scale=4)
    assert tag_differences(tmp_path / SOURCE, out).keys() == {
        "IFD0.StripOffsets",
        "IFD0.BlackLevel",
        "IFD0.WhiteLevel",
    }


@pytest.mark.parametrize("where", ["main", "mosaic"])
def test_noise_profile_and_its_place_survive_with_new_values(tmp_path: Path, where: str) -> None:
    profile = [Item(Tag.NoiseProfile, DOUBLE, (1e-3, 1e-5))]
    frame = built(tmp_path, SAMPLES, place="second SubIFD", **{where: profile})
    out = rewritten(frame, tmp_path, noise_reduction=0.75, residual=RESIDUAL)
    path = {"main": "IFD0", "mosaic": "IFD0.SubIFD1"}[where]
    differences = tag_differences(tmp_path / SOURCE, out)
    assert differences[f"{path}.NoiseProfile"] == Difference(
        "0.001 1e-05", f"{RESIDUAL.mean_shot} {RESIDUAL.mean_read}"
    )
    assert differences["IFD0.SubIFD1.NoiseReductionApplied"] == Difference(None, "3 4")


def test_noise_of_three_colours_follows_the_order_of_the_planes(tmp_path: Path) -> None:
    tags = [
        Item(Tag.NoiseProfile, DOUBLE, (1e-3, 1e-5) * 3),
        Item(Tag.CFAPlaneColor, BYTE, (2, 1, 0)),
    ]
    frame = built(tmp_path, SAMPLES, mosaic=tags)
    out = rewritten(frame, tmp_path, noise_reduction=1.0, residual=RESIDUAL)
    blue, green, red = (8e-4, 8e-6), (3e-4, 3e-6), (1e-4, 1e-6)
    assert numbers(out, Tag.NoiseProfile) == pytest.approx((*blue, *green, *red), rel=1e-12)


@pytest.mark.parametrize("where", ["main", "mosaic"])
@pytest.mark.parametrize(
    ("profile", "residual"),
    [((1e-3, 1e-5), None), ((1e-3,) * 8, RESIDUAL)],
    ids=["residual unknown", "count that DNG does not know"],
)
@pytest.mark.parametrize("place", ["second SubIFD", "next"])
def test_a_noise_profile_that_cannot_be_renewed_is_taken_out(
    tmp_path: Path,
    where: str,
    profile: tuple[float, ...],
    residual: NoiseModel | None,
    place: Place,
) -> None:
    # Twice, and amid other tags, since every entry behind it has to move up.
    tags = [
        Item(Tag.NoiseProfile, DOUBLE, profile),
        Item(Tag.NoiseProfile, DOUBLE, (1e-2,) * 8),
        Item(51125, SHORT, (1, 2)),
    ]
    frame = built(tmp_path, SAMPLES, place=place, **{where: tags})
    out = rewritten(frame, tmp_path, noise_reduction=1.0, residual=residual)
    mosaic_path = {"second SubIFD": "IFD0.SubIFD1", "next": "IFD1"}[place]
    path = {"main": "IFD0", "mosaic": mosaic_path}[where]
    differences = tag_differences(tmp_path / SOURCE, out)
    assert {name for name, change in differences.items() if change.new is None} == {
        f"{path}.NoiseProfile",
        f"{path}.NoiseProfile#2",
    }
    assert differences.keys() - {f"{path}.NoiseProfile", f"{path}.NoiseProfile#2"} <= {
        "IFD0.SubIFDs",
        f"{mosaic_path}.StripOffsets",
        f"{mosaic_path}.NoiseReductionApplied",
    }
    assert np.array_equal(libraw_view(out).samples, SAMPLES)


# --- digests ------------------------------------------------------------------------------------


def block_digest(samples: npt.NDArray[np.uint16]) -> bytes:
    """NewRawImageDigest as DNG 1.7.1 describes it, written down independently."""
    blocks = [
        samples[top : top + 256, left : left + 256].astype("<u2").tobytes()
        for top in range(0, samples.shape[0], 256)
        for left in range(0, samples.shape[1], 256)
    ]
    return hashlib.md5(b"".join(hashlib.md5(block).digest() for block in blocks)).digest()  # noqa: S324


DIGESTS = [
    Item(Tag.RawDataUniqueID, BYTE, range(16)),
    Item(Tag.RawImageDigest, BYTE, bytes(16)),
    Item(Tag.NewRawImageDigest, BYTE, bytes(16)),
]


def stored_bytes(path: Path, tag: Tag) -> bytes | None:
    tiff = parsed(path)
    entry = tiff.directories[0].get(tag)
    return None if entry is None else tiff.value_bytes(entry)


@pytest.mark.parametrize("place", get_args(Place))
@pytest.mark.parametrize("order", ["<", ">"])
def test_digests_are_those_of_the_new_samples(tmp_path: Path, place: Place, order: str) -> None:
    samples = np.random.default_rng(3).integers(600, 9000, (300, 521), np.uint16)
    frame = built(tmp_path, samples, place=place, order=order, main=DIGESTS)
    out = rewritten(frame, tmp_path)
    whole = hashlib.md5(samples.astype("<u2").tobytes()).digest()  # noqa: S324
    assert stored_bytes(out, Tag.RawImageDigest) == whole
    assert stored_bytes(out, Tag.NewRawImageDigest) == block_digest(samples)
    assert stored_bytes(out, Tag.RawDataUniqueID) == bytes(range(16)), "the same raw data"


def test_other_raw_data_get_another_id(tmp_path: Path) -> None:
    frame = built(tmp_path, SAMPLES, main=DIGESTS)
    first = stored_bytes(rewritten(frame, tmp_path, noise_reduction=1.0), Tag.RawDataUniqueID)
    again = stored_bytes(rewritten(frame, tmp_path, noise_reduction=1.0), Tag.RawDataUniqueID)
    changed = frame.with_samples(SAMPLES + np.uint16(1))
    other = stored_bytes(rewritten(changed, tmp_path, noise_reduction=1.0), Tag.RawDataUniqueID)
    assert first == again
    assert len({first, other, bytes(range(16))}) == 3


def test_a_digest_over_a_mask_is_taken_out(tmp_path: Path) -> None:
    frame = built(tmp_path, SAMPLES, place="second SubIFD", main=DIGESTS, image_types=[4])
    out = rewritten(frame, tmp_path)
    assert stored_bytes(out, Tag.NewRawImageDigest) is None
    assert stored_bytes(out, Tag.RawImageDigest) is not None
    assert np.array_equal(libraw_view(out).samples, SAMPLES)


@pytest.mark.parametrize("tag", [item.tag for item in DIGESTS] + [Tag.NoiseProfile])
def test_a_value_outside_the_file_is_written_nowhere(tmp_path: Path, tag: Tag) -> None:
    kind = DOUBLE if tag == Tag.NoiseProfile else BYTE
    frame = built(tmp_path, SAMPLES, main=[Item(tag, kind, (1,) * (2 if kind == DOUBLE else 16))])
    source = tmp_path / SOURCE
    entry = parsed(source).directories[0].get(tag)
    assert entry is not None
    damaged = bytearray(source.read_bytes())
    # Where the new samples will stand.
    struct.pack_into("<I", damaged, entry.entry_offset + 8, len(damaged) + 100)
    source.write_bytes(damaged)
    out = rewritten(frame, tmp_path, noise_reduction=1.0, residual=RESIDUAL)
    assert np.array_equal(libraw_view(out).samples, SAMPLES)
