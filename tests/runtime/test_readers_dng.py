"""What the tags of a DNG mean, on files built for one question each."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.dng import OpcodeId, Tag
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area, Camera, Exposure, RawFrame
from cycleisp_runtime.readers import read_frame
from cycleisp_runtime.readers.cfa import phase_from_tags
from cycleisp_runtime.readers.dng_color import (
    read_color_matrix,
    read_noise_profile,
    read_white_balance,
)
from cycleisp_runtime.readers.dng_levels import Levels, read_active_area, read_levels
from cycleisp_runtime.readers.metadata import read_camera, read_exposure, read_orientation
from cycleisp_runtime.tiff import Tiff, parse_tiff
from tests.runtime.dng_builder import (
    ASCII,
    BYTE,
    DOUBLE,
    LONG,
    RATIONAL,
    SHORT,
    SRATIONAL,
    Item,
    a_dng,
    an_opcode_list,
)

SAMPLES = np.random.default_rng(9).integers(650, 15000, (36, 40), np.uint16)
AREA = Area(0, 0, 36, 40)


def tiff_with(*items: Item, without: Sequence[int] = ()) -> Tiff:
    """A DNG with these tags in its only directory, and some of the usual ones under a dead tag."""
    data = bytearray(a_dng(SAMPLES, mosaic=items))
    for tag in without:
        (entry,) = (e for e in parse_tiff(bytes(data)).directories[0].entries if e.tag == tag)
        data[entry.entry_offset : entry.entry_offset + 2] = struct.pack("<H", 60999)
    return parse_tiff(bytes(data))


def levels_of(tiff: Tiff, area: Area = AREA, bits: int = 16) -> Levels:
    return read_levels(tiff, tiff.directories[0], area, bits)


def read_with(folder: Path, *items: Item) -> RawFrame:
    path = folder / "frame.dng"
    path.write_bytes(a_dng(SAMPLES, mosaic=items))
    return read_frame(path)


# Levels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeat", "values", "black"),
    [
        ((1, 1), (600,), (600, 600, 600, 600)),
        ((2, 2), (1, 2, 3, 4), (1, 2, 3, 4)),
        ((1, 2), (1, 2), (1, 2, 1, 2)),
        ((2, 1), (1, 2), (1, 1, 2, 2)),
        ((4, 2), (1, 2, 3, 4, 1, 2, 3, 4), (1, 2, 3, 4)),
        ((3, 1), (7, 7, 7), (7, 7, 7, 7)),
    ],
)
def test_black_levels_by_position(
    repeat: tuple[int, int], values: tuple[int, ...], black: tuple[float, ...]
) -> None:
    tiff = tiff_with(Item(Tag.BlackLevelRepeatDim, SHORT, repeat), Item(50714, SHORT, values))
    assert levels_of(tiff).black == black


@pytest.mark.parametrize(
    ("repeat", "values", "problem"),
    [
        ((4, 1), (1, 2, 3, 4), "another period"),
        ((3, 1), (1, 2, 1), "another period"),
        ((2, 2), (600, 601), "wrong number of values"),
        ((0, 1), (), "wrong number of values"),
        ((2,), (1, 2), "wrong number of values"),
    ],
)
def test_black_levels_that_have_no_2x2_meaning(
    repeat: tuple[int, ...], values: tuple[int, ...], problem: str
) -> None:
    tiff = tiff_with(Item(Tag.BlackLevelRepeatDim, SHORT, repeat), Item(50714, SHORT, values))
    with pytest.raises(InputError, match=problem):
        levels_of(tiff)


def test_fractions_of_a_black_level_are_kept() -> None:
    tiff = tiff_with(Item(Tag.BlackLevel, RATIONAL, (2401, 4)))
    assert levels_of(tiff).black == (600.25,) * 4


def test_absent_levels_are_the_defaults_of_the_specification_and_said() -> None:
    tiff = tiff_with(without=(Tag.BlackLevel, Tag.WhiteLevel))
    levels = levels_of(tiff, bits=12)
    assert levels.black == (0, 0, 0, 0)
    assert levels.white == 4095
    assert [text.split(";")[0] for text in levels.warnings] == [
        "The file states no black level",
        "The file states no white level",
    ]


def test_an_absent_white_level_behind_a_table_is_the_top_of_the_table() -> None:
    table = Item(Tag.LinearizationTable, SHORT, (0, 100, 51080))
    levels = levels_of(tiff_with(table, without=(Tag.WhiteLevel,)), bits=12)
    assert levels.white == 51080


@pytest.mark.parametrize("white", [(0,), (65536,), (15520, 15520)])
def test_an_impossible_white_level_is_refused(white: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="white level is impossible"):
        levels_of(tiff_with(Item(Tag.WhiteLevel, LONG, white)))


def test_white_must_be_above_black_where_rows_and_columns_add_to_it() -> None:
    rows = Item(Tag.BlackLevelDeltaV, SRATIONAL, (0, 1) * 35 + (14920, 1))
    with pytest.raises(InputError, match="not above the black level"):
        levels_of(tiff_with(rows))


@pytest.mark.parametrize("values", [(1, 1) * 35, (1, 0) * 36])
def test_a_damaged_delta_is_ignored_and_said(values: tuple[int, ...]) -> None:
    levels = levels_of(tiff_with(Item(Tag.BlackLevelDeltaV, SRATIONAL, values)))
    assert levels.black_rows is None
    assert "BlackLevelDeltaV is ignored" in levels.warnings[0]


@pytest.mark.parametrize(
    "corners",
    [(0, 0, 37, 40), (5, 5, 5, 40), (0, 40, 36, 0), (0, 0, 36), (0, 0, 2**32 - 1, 2)],
)
def test_an_active_area_that_is_no_rectangle_of_the_frame(corners: tuple[int, ...]) -> None:
    tiff = tiff_with(Item(Tag.ActiveArea, LONG, corners))
    with pytest.raises(InputError, match="ActiveArea"):
        read_active_area(tiff, tiff.directories[0], 36, 40)


def test_phase_and_black_start_at_the_corner_of_an_odd_active_area(tmp_path: Path) -> None:
    frame = read_with(
        tmp_path,
        Item(Tag.ActiveArea, LONG, (1, 3, 34, 38)),
        Item(Tag.CFAPattern, BYTE, (1, 2, 0, 1)),
        Item(Tag.BlackLevelRepeatDim, SHORT, (2, 2)),
        Item(Tag.BlackLevel, SHORT, (1, 2, 3, 4)),
    )
    assert frame.area == Area(1, 3, 33, 35)
    assert frame.cfa is Phase.GBRG
    assert frame.black == (1, 2, 3, 4)
    np.testing.assert_array_equal(frame.samples, SAMPLES)


# Colour filters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ((Item(33422, BYTE, (0, 2, 1, 1)),), "red, blue, green, green"),
        ((Item(33422, BYTE, (1, 1, 0, 2)),), "green, green, red, blue"),
        ((Item(33422, BYTE, (0, 1, 9, 2)),), "red, green, code 9, blue"),
        ((Item(33421, SHORT, (2, 4)), Item(33422, BYTE, (0, 1, 1, 2) * 2)), "array of 2 x 4"),
        ((Item(33421, SHORT, (2,)),), "array of 2;"),
        ((Item(33421, RATIONAL, (1, 0, 2, 1)),), "array of nan x 2"),
    ],
)
def test_other_filters_are_refused_by_their_name(items: tuple[Item, ...], problem: str) -> None:
    tiff = tiff_with(*items)
    with pytest.raises(InputError, match=problem):
        phase_from_tags(tiff, tiff.directories[0])


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (Item(Tag.CFALayout, SHORT, (2,)), "met CFALayout 2, wanted 1"),
        (Item(Tag.CFAPlaneColor, BYTE, (3, 4, 5)), "not red, green and blue"),
        (Item(Tag.SamplesPerPixel, SHORT, (3,)), "more than one sample per pixel"),
        (Item(Tag.SampleFormat, SHORT, (3,)), "floating-point"),
        (Item(Tag.RowInterleaveFactor, LONG, (2,)), "RowInterleaveFactor"),
        (Item(Tag.Compression, SHORT, (34892,)), "34892, lossy JPEG"),
    ],
)
def test_what_libraw_would_misread_is_refused(tmp_path: Path, item: Item, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_with(tmp_path, item)


# Colours and noise -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("neutral", "gains"),
    [
        ((1, 2, 1, 1, 2, 3), (2, 1, 1.5)),
        ((1, 1, 5, 2, 5, 4), (2.5, 1, 2)),
        ((0, 1, 1, 1, 1, 1), None),
        ((1, 0, 1, 1, 1, 1), None),
        ((1, 1, 1, 1), None),
        ((1, 1000, 1, 1, 1, 1), None),
    ],
)
def test_white_balance(neutral: tuple[int, ...], gains: tuple[float, ...] | None) -> None:
    met, warnings = read_white_balance(tiff_with(Item(Tag.AsShotNeutral, RATIONAL, neutral)))
    assert (met is None) is (gains is None) is bool(warnings)
    if gains is not None:
        assert met == pytest.approx(gains, rel=1e-15)


def matrix_item(tag: int, diagonal: int) -> Item:
    values = (diagonal, 1, 0, 1, 0, 1, 0, 1, diagonal, 1, 0, 1, 0, 1, 0, 1, diagonal, 1)
    return Item(tag, SRATIONAL, values)


@pytest.mark.parametrize(("first", "second", "diagonal"), [(17, 21, 2), (21, 17, 1), (17, 23, 2)])
def test_the_matrix_nearest_to_daylight_is_taken(first: int, second: int, diagonal: int) -> None:
    tiff = tiff_with(
        matrix_item(Tag.ColorMatrix1, 1),
        matrix_item(Tag.ColorMatrix2, 2),
        Item(Tag.CalibrationIlluminant1, SHORT, (first,)),
        Item(Tag.CalibrationIlluminant2, SHORT, (second,)),
    )
    matrix, warnings = read_color_matrix(tiff)
    np.testing.assert_array_equal(matrix, diagonal * np.eye(3))
    assert warnings == ()


@pytest.mark.parametrize("diagonal", [0, 2**31 - 1])
def test_a_singular_or_undefined_matrix_is_ignored_and_said(diagonal: int) -> None:
    values = matrix_item(Tag.ColorMatrix1, diagonal).values
    item = Item(Tag.ColorMatrix1, SRATIONAL, (*values[:-1], 0 if diagonal else 1))
    matrix, (warning,) = read_color_matrix(tiff_with(item))
    assert matrix is None
    assert "unusable" in warning


def test_pairs_of_a_noise_profile_follow_the_plane_colors() -> None:
    tiff = tiff_with(Item(Tag.NoiseProfile, DOUBLE, (3e-3, 3e-6, 1e-3, 1e-6, 2e-3, 2e-6)))
    profile, warnings = read_noise_profile(tiff, tiff.directories[0], (2, 0, 1))
    assert profile is not None
    assert profile.shot == (1e-3, 2e-3, 2e-3, 3e-3)
    assert profile.read == (1e-6, 2e-6, 2e-6, 3e-6)
    assert warnings == ()


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 1e-6),
        (-1e-4, 1e-6),
        (0.2, 1e-6),
        (1e-4, -1e-9),
        (1e-4, 0.2),
        (math.nan, 1e-6),
        (1e-4, math.inf),
        (1e-4,),
        (1e-4, 1e-6) * 4,
    ],
)
def test_an_implausible_noise_profile_is_ignored_and_said(values: tuple[float, ...]) -> None:
    tiff = tiff_with(Item(Tag.NoiseProfile, DOUBLE, values))
    profile, (warning,) = read_noise_profile(tiff, tiff.directories[0], (0, 1, 2))
    assert profile is None
    assert warning.startswith("NoiseProfile is ignored")


# Opcodes and tables ------------------------------------------------------------------------------


def bad_pixels_constant(value: int) -> Item:
    listed = an_opcode_list((OpcodeId.FixBadPixelsConstant, struct.pack(">II", value, 1)))
    return Item(Tag.OpcodeList1, BYTE, listed)


@pytest.mark.parametrize("constant", [0, 65535])
def test_the_mark_of_bad_pixels_is_reserved(tmp_path: Path, constant: int) -> None:
    frame = read_with(tmp_path, bad_pixels_constant(constant))
    assert frame.reserved_dn == constant
    assert frame.warnings == ()


def test_the_mark_of_bad_pixels_goes_through_the_table(tmp_path: Path) -> None:
    table = Item(Tag.LinearizationTable, SHORT, tuple(range(5, 16005)))
    assert read_with(tmp_path, bad_pixels_constant(3), table).reserved_dn == 8


def test_a_list_that_maps_values_is_said_and_refused_ahead_of_a_table(tmp_path: Path) -> None:
    gains = Item(Tag.OpcodeList1, BYTE, an_opcode_list((OpcodeId.GainMap, bytes(80))))
    (warning,) = read_with(tmp_path, gains).warnings
    assert "not applied" in warning
    with pytest.raises(InputError, match="ahead of a linearization table"):
        read_with(tmp_path, gains, Item(Tag.LinearizationTable, SHORT, tuple(range(16000))))


def test_a_damaged_opcode_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="OpcodeList1 ends early"):
        read_with(tmp_path, Item(Tag.OpcodeList1, BYTE, struct.pack(">I", 3)))


def test_samples_are_linear_behind_the_table(tmp_path: Path) -> None:
    table = Item(Tag.LinearizationTable, SHORT, tuple(min(65535, 3 * n) for n in range(16384)))
    frame = read_with(tmp_path, table, Item(Tag.WhiteLevel, LONG, (46560,)))
    np.testing.assert_array_equal(frame.samples, 3 * SAMPLES)


# Structure ---------------------------------------------------------------------------------------


def test_several_mosaics_are_refused(tmp_path: Path) -> None:
    also_a_mosaic = [Item(Tag.NewSubFileType, LONG, (0,)), Item(262, SHORT, (32803,))]
    path = tmp_path / "burst.dng"
    path.write_bytes(a_dng(SAMPLES, place="next", main=also_a_mosaic))
    with pytest.raises(InputError, match=r"several RAW frames \(met 2"):
        read_frame(path)


def test_a_frame_denoised_before_is_said(tmp_path: Path) -> None:
    (warning,) = read_with(tmp_path, Item(Tag.NoiseReductionApplied, RATIONAL, (1, 2))).warnings
    assert "Noise reduction was applied" in warning
    assert read_with(tmp_path, Item(Tag.NoiseReductionApplied, RATIONAL, (0, 0))).warnings == ()


def test_camera_exposure_and_orientation_from_tags() -> None:
    tiff = tiff_with(
        Item(Tag.Make, ASCII, b"Acme\x1b[31m\0"),
        Item(Tag.Model, ASCII, b"One\nTwo\0"),
        Item(Tag.PhotographicSensitivity, SHORT, (800,)),
        Item(Tag.ExposureTime, RATIONAL, (0, 1000000)),
        Item(Tag.FNumber, RATIONAL, (28, 10)),
        Item(Tag.FocalLength, RATIONAL, (1, 0)),
        Item(Tag.ExposureBiasValue, SRATIONAL, (-1, 3)),
        Item(Tag.DateTimeOriginal, ASCII, b"2018:07:11 01:18:47\0"),
        Item(Tag.Orientation, SHORT, (8,)),
    )
    assert read_camera(tiff) == Camera("Acme[31m", "OneTwo")
    assert read_exposure(tiff) == Exposure(
        iso=800, aperture=2.8, bias_ev=-1 / 3, taken="2018:07:11 01:18:47"
    )
    assert read_orientation(tiff) == (8, ())


def test_an_unreadable_optional_tag_does_not_cost_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "frame.dng"
    data = bytearray(a_dng(SAMPLES, mosaic=[Item(Tag.NoiseProfile, DOUBLE, (1e-4, 1e-7))]))
    entry = parse_tiff(bytes(data)).directories[0].get(Tag.NoiseProfile)
    assert entry is not None
    data[entry.entry_offset + 8 : entry.entry_offset + 12] = b"\xf0\xff\xff\xff"
    path.write_bytes(data)
    frame = read_frame(path)
    assert frame.noise_profile is None
    assert "NoiseProfile is ignored" in frame.warnings[0]
