"""The walker of TIFF structure: what it finds, and what it refuses to follow."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.tiff import Tiff, parse_tiff, shown
from tests.helpers import RAW, RAW_BAD
from tests.runtime.dng_builder import ASCII, DOUBLE, RATIONAL, SRATIONAL, Item, a_dng

SAMPLES = np.zeros((4, 6), np.uint16)


def one_entry(tag: int, kind: int, count: int, value: bytes, behind: bytes = b"") -> bytes:
    """A little-endian TIFF with one entry, whose value field and following bytes are given."""
    directory = struct.pack("<HHHI", 1, tag, kind, count) + value.ljust(4, b"\0") + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + behind


def numbers(data: bytes) -> tuple[float, ...]:
    tiff = parse_tiff(data)
    return tiff.numbers(tiff.directories[0].entries[0])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", ["first", "second SubIFD", "next"])
def test_directories_are_found_wherever_they_stand(order: str, place: str) -> None:
    tiff = parse_tiff(a_dng(SAMPLES, order=order, place=place))  # type: ignore[arg-type]
    paths = {"first": "IFD0", "second SubIFD": "IFD0.SubIFD1", "next": "IFD1"}
    (mosaic,) = (d for d in tiff.directories if d.get(Tag.CFAPattern) is not None)
    assert mosaic.path == paths[place]
    assert tiff.find(mosaic, Tag.ImageWidth) == (6,)
    assert tiff.find(mosaic, Tag.CFAPattern) == (0, 1, 1, 2)
    # The pointer leads to the directory: that is what a writer patches.
    pointer = tiff.data[mosaic.pointer_offset : mosaic.pointer_offset + 4]
    assert struct.unpack(order + "I", pointer) == (mosaic.offset,)


def test_a_real_file_with_preview_and_exif() -> None:
    tiff = parse_tiff((RAW_BAD / "trunc_sony_a7r3.arw").read_bytes())
    assert [d.path for d in tiff.directories] == ["IFD0", "IFD0.SubIFD0", "IFD0.Exif", "IFD1"]
    first, mosaic, exif, _ = tiff.directories
    model = first.get(Tag.Model)
    assert model is not None
    assert tiff.text(model) == "ILCE-7RM3"
    assert tiff.find(mosaic, Tag.Compression) == (32767,)
    assert tiff.find(exif, Tag.ExposureTime) == (1 / 640,)
    assert tiff.find(exif, Tag.ExposureBiasValue) == (-1.0,)


def test_values_of_every_kind() -> None:
    items = [
        Item(60001, RATIONAL, (1, 2, 0, 0, 5, 0)),
        Item(60002, SRATIONAL, (-1, 4)),
        Item(60003, DOUBLE, (0.1, -2.5e300)),
        Item(60004, ASCII, b"one\0two\0"),
    ]
    tiff = parse_tiff(a_dng(SAMPLES, main=items))
    (directory,) = tiff.directories
    half, *undefined = found(tiff, 60001)
    assert half == 0.5
    assert all(map(math.isnan, undefined))
    assert found(tiff, 60002) == (-0.25,)
    assert found(tiff, 60003) == (0.1, -2.5e300)
    text = directory.get(60004)
    assert text is not None
    assert tiff.text(text) == "one"


def found(tiff: Tiff, tag: int) -> tuple[float, ...]:
    values = tiff.find(tiff.directories[0], tag)
    assert values is not None
    return values


def test_an_absent_tag_is_none() -> None:
    tiff = parse_tiff(a_dng(SAMPLES))
    assert tiff.find(tiff.directories[0], Tag.NoiseProfile) is None


def test_a_tag_given_twice_keeps_its_first_value() -> None:
    twice = [Item(60001, 3, (7,)), Item(60001, 3, (8,))]
    tiff = parse_tiff(a_dng(SAMPLES, main=twice))
    assert found(tiff, 60001) == (7,)
    assert [e.tag for e in tiff.directories[0].entries].count(60001) == 2


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "only 0 bytes"),
        (b"II*\0\x08\0\0\0", "IFD0 lies outside"),
        (b"GIF89a\0\0\0\0", "no TIFF byte-order mark"),
        (b"II+\0\x08\0\0\0", "BigTIFF"),
        (b"II*\0\0\0\0\0", "no directory"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "declares 0 entries"),
        (b"II*\0\x08\0\0\0\xff\xff", "declares 65535 entries"),
        ((RAW_BAD / "ifd_loop.dng").read_bytes(), "leads back"),
        ((RAW_BAD / "subifd_loop.dng").read_bytes(), "leads back"),
    ],
)
def test_a_damaged_structure_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        parse_tiff(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (one_entry(256, 4, 2, struct.pack("<I", 26)), "outside the file"),
        (one_entry(256, 4, 1 << 30, struct.pack("<I", 26)), "declares 1073741824 values"),
        (one_entry(256, 99, 1, b"\1"), "unknown type 99"),
        (one_entry(256, 2, 3, b"abc"), "is text"),
    ],
)
def test_a_damaged_value_is_refused_when_it_is_read(data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        numbers(data)


def test_numbers_in_a_message_are_few() -> None:
    assert shown((2, 0.5, float("nan"))) == "2, 0.5, nan"
    assert shown(range(1 << 20)) == "0, 1, 2, 3, 4, 5, 6, 7, ..."


def test_a_file_may_end_behind_the_last_entry() -> None:
    assert parse_tiff(one_entry(256, 3, 1, b"\5")[:-4]).directories[0].next_offset == 0


def test_a_chain_of_more_than_64_directories_is_refused() -> None:
    directories = b"".join(
        struct.pack("<HHHIII", 1, 256, 3, 1, 0, 8 + 18 * (index + 1)) for index in range(100)
    )
    with pytest.raises(InputError, match="more than 64 directories"):
        parse_tiff(b"II*\0" + struct.pack("<I", 8) + directories)


@given(
    places=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=4),
    length=st.none() | st.integers(0, 700),
)
@example(places=[], length=None)
def test_no_change_of_bytes_leads_to_another_error(
    places: list[tuple[int, int]], length: int | None
) -> None:
    data = bytearray((RAW / "d750_orient8_12b_multistrip.dng").read_bytes())
    for position, value in places:
        data[position] = value
    try:
        tiff = parse_tiff(bytes(data[:length]))
        for directory in tiff.directories:
            for entry in directory.entries:
                if entry.kind != ASCII:
                    tiff.numbers(entry)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017  (most changes raise nothing)
