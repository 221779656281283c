"""Strips, tiles and JPEG streams that cannot be what the file says."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.readers.jpeg_header import JpegHeader, read_jpeg_header
from cycleisp_runtime.readers.limits import Limits
from cycleisp_runtime.readers.storage import check_dng_storage, check_extent, check_frame_size
from cycleisp_runtime.tiff import parse_tiff
from tests.helpers import RAW, RAW_BAD
from tests.runtime.dng_builder import DOUBLE, LONG, SHORT, Item, a_dng

SAMPLES = np.random.default_rng(3).integers(650, 15000, (32, 40), np.uint16)
FIRST = 8
"""Where ``a_dng`` puts the samples: behind the file header."""

HALF = SAMPLES.nbytes // 2
ROWS_16 = Item(Tag.RowsPerStrip, LONG, (16,))
HALVES = Item(Tag.StripByteCounts, LONG, (HALF, HALF))


def check(*items: Item, data: bytes | None = None) -> tuple[int, tuple[str, ...]]:
    tiff = parse_tiff(a_dng(SAMPLES, mosaic=items) if data is None else data)
    (directory,) = tiff.directories
    size = check_frame_size(tiff, directory, Limits())
    return check_dng_storage(tiff, directory, size, Limits())


def test_one_strip_of_16_bits() -> None:
    assert check() == (16, ())


def test_two_strips_one_behind_the_other() -> None:
    offsets = Item(Tag.StripOffsets, LONG, (FIRST, FIRST + HALF))
    assert check(ROWS_16, offsets, HALVES) == (16, ())


def test_a_short_last_strip() -> None:
    rows = 24 * 40 * 2
    assert check(
        Item(Tag.RowsPerStrip, LONG, (24,)),
        Item(Tag.StripOffsets, LONG, (FIRST, FIRST + rows)),
        Item(Tag.StripByteCounts, LONG, (rows, SAMPLES.nbytes - rows)),
    ) == (16, ())


@pytest.mark.parametrize("starts", [(FIRST + HALF, FIRST), (FIRST, FIRST + HALF + 2)])
def test_strips_in_another_order_or_with_a_gap_are_refused(starts: tuple[int, int]) -> None:
    # LibRaw follows the first offset and reads on: most samples wrong, no error.
    offsets = Item(Tag.StripOffsets, LONG, starts)
    with pytest.raises(InputError, match="not stored one behind the other"):
        check(ROWS_16, offsets, HALVES)


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ((ROWS_16,), "strips or tiles are missing.*met 1 offsets, 1 byte counts, wanted 2"),
        ((Item(Tag.RowsPerStrip, LONG, (0,)),), "impossible size"),
        ((Item(Tag.StripOffsets, LONG, (4,)),), "points into the file header"),
        ((Item(Tag.StripOffsets, LONG, (600,)),), "cut short"),
        ((Item(Tag.StripByteCounts, LONG, (2**32 - 1,)),), "cut short"),
        ((Item(Tag.StripOffsets, DOUBLE, (8.5,)),), "something else than whole numbers"),
        ((Item(Tag.TileOffsets, LONG, (8,)),), "as strips and as tiles"),
        ((Item(Tag.ImageWidth, LONG, (2**31,)),), "too large for a file of this size"),
        ((Item(Tag.ImageWidth, LONG, ()),), "ImageWidth is missing"),
        ((Item(Tag.BitsPerSample, SHORT, (32,)),), "met 32 bits"),
        ((Item(Tag.BitsPerSample, SHORT, (12,)),), "seem to be 16-bit words"),
        ((Item(Tag.FillOrder, SHORT, (2,)),), "FillOrder"),
    ],
)
def test_what_cannot_be_is_refused(items: tuple[Item, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check(*items)


def test_too_few_declared_bytes_are_said() -> None:
    bits, (warning,) = check(Item(Tag.StripByteCounts, LONG, (10,)))
    assert bits == 16
    assert "fewer bytes" in warning


def test_a_frame_beyond_the_limit_is_refused() -> None:
    tiff = parse_tiff(a_dng(SAMPLES))
    with pytest.raises(InputError, match="wanted at most 1279 samples"):
        check_frame_size(tiff, tiff.directories[0], Limits(max_samples=SAMPLES.size - 1))
    size = check_frame_size(tiff, tiff.directories[0], Limits(max_samples=SAMPLES.size))
    assert size == (32, 40)


def test_packed_samples_and_tiles_of_real_files() -> None:
    for name, bits in (
        ("d750_orient8_12b_multistrip.dng", 12),
        ("d750_bggr_tile_overhang.dng", 16),
        ("d750_orient6_ljpeg14.dng", 14),
        ("d750_gbrg_8b.dng", 8),
    ):
        assert check(data=(RAW / name).read_bytes()) == (bits, ())


def test_a_cut_is_seen_in_any_format() -> None:
    tiff = parse_tiff((RAW_BAD / "trunc_sony_a7r3.arw").read_bytes())
    mosaic = tiff.directories[1]
    with pytest.raises(InputError, match="cut short"):
        check_extent(tiff, mosaic)
    check_extent(tiff, tiff.directories[0])


# JPEG --------------------------------------------------------------------------------------------


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload


def frame_header(marker: int, lines: int, columns: int, components: int) -> bytes:
    return segment(marker, struct.pack(">BHHB", 14, lines, columns, components) + b"\1\x11\0")


SCAN = segment(0xDA, b"\1\0\0\1\0\0")
TABLE = segment(0xC4, bytes(17))


@pytest.mark.parametrize(
    ("stream", "header"),
    [
        (b"\xff\xd8" + frame_header(0xC3, 48, 64, 1) + TABLE + SCAN, JpegHeader(48, 64, True)),
        (b"\xff\xd8" + TABLE + frame_header(0xC3, 48, 32, 2) + SCAN, JpegHeader(48, 64, True)),
        (b"\xff\xd8" + frame_header(0xC1, 24, 128, 1) + SCAN, JpegHeader(24, 128, False)),
        (b"\xff\xd8" + frame_header(0xC0, 48, 64, 1) + SCAN, None),
        (b"\xff\xd8" + frame_header(0xC3, 48, 64, 1) * 2 + SCAN, None),
        (b"\xff\xd8" + frame_header(0xC3, 48, 64, 1), None),
        (b"\xff\xd8" + SCAN, None),
        (frame_header(0xC3, 48, 64, 1) + SCAN, None),
        (b"\xff\xd8\0\0" + frame_header(0xC3, 48, 64, 1) + SCAN, None),
        (b"\xff\xd8\xff\xc4\0\0" + frame_header(0xC3, 48, 64, 1) + SCAN, None),
    ],
)
def test_the_size_in_a_jpeg_stream(stream: bytes, header: JpegHeader | None) -> None:
    assert read_jpeg_header(b"??" + stream + b"??", 2, 2 + len(stream)) == header


@given(st.binary(max_size=60))
def test_no_stream_is_an_error_or_an_endless_one(tail: bytes) -> None:
    read_jpeg_header(b"\xff\xd8" + tail, 0, 2 + len(tail))


@pytest.mark.parametrize(
    ("lines", "columns", "fits"),
    [
        (288, 432, True),
        (432, 288, True),
        (287, 432, False),
        (289, 432, False),
        (65500, 65500, False),
    ],
)
def test_a_stream_may_have_another_shape_and_no_other_size(
    lines: int, columns: int, fits: bool
) -> None:
    data = bytearray((RAW / "d750_orient6_ljpeg14.dng").read_bytes())
    at = data.index(b"\xff\xc3") + 5
    data[at : at + 4] = struct.pack(">HH", lines, columns)
    if fits:
        assert check(data=bytes(data)) == (14, ())
    else:
        with pytest.raises(InputError, match=f"met {columns}x{lines} in .*, wanted 432x288"):
            check(data=bytes(data))


def test_more_samples_than_bits_is_refused() -> None:
    tile = segment(0xC3, struct.pack(">BHHB", 14, 32, 40, 1) + b"\1\x11\0") + SCAN
    data = bytearray(
        a_dng(SAMPLES, mosaic=[Item(Tag.Compression, SHORT, (7,)), Item(279, LONG, (120,))])
    )
    data[FIRST : FIRST + 2 + len(tile)] = b"\xff\xd8" + tile
    with pytest.raises(InputError, match="met 40x32 in 120 bytes"):
        check(data=bytes(data))
