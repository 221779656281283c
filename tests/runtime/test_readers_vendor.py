"""From what LibRaw says of a camera's own file to a frame: orders, signs and defaults."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area, Camera, Exposure, RawFrame
from cycleisp_runtime.readers import libraw
from cycleisp_runtime.readers.libraw import Decoded, LibRawFacts
from cycleisp_runtime.readers.limits import Limits
from cycleisp_runtime.readers.vendor import read_vendor
from cycleisp_runtime.tiff import Tiff, parse_tiff
from tests.runtime.dng_builder import BYTE, Item, a_dng

SAMPLES = np.random.default_rng(4).integers(600, 15000, (40, 48), np.uint16)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
FACTS = LibRawFacts(
    flat=True,
    height=40,
    width=48,
    area=(2, 4, 36, 40),
    colors="RGBG",
    color_count=3,
    pattern_sides=(2, 2),
    stored_colors=(0, 1, 3, 2),
    area_colors=(0, 1, 3, 2),
    black=(600.0, 608.0, 620.0, 592.0),
    white=15520.0,
    white_balance=(2528.0, 1024.0, 1564.0, 1024.0),
    xyz_to_camera=IDENTITY,
    camera_to_srgb=(0.0,) * 9,
    flip=0,
    iso=3200.0,
    shutter_s=0.0,
    aperture=None,
    focal_length_mm=35.0,
)


def frame_of(
    monkeypatch: pytest.MonkeyPatch, tags: Tiff | None = None, **changes: object
) -> RawFrame:
    facts = msgspec.structs.replace(FACTS, **changes)
    samples = SAMPLES if facts.flat else np.empty((0, 0), np.uint16)
    monkeypatch.setattr(libraw, "decode", lambda *_: Decoded(samples, facts))
    return read_vendor(tags, io.BytesIO(), Path("IMG.RAF"), Limits())


def test_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_of(monkeypatch)
    assert frame.area == Area(2, 4, 36, 40)
    assert frame.cfa is Phase.RGGB
    assert frame.white_balance == (2528 / 1024, 1.0, 1564 / 1024)
    assert frame.exposure == Exposure(iso=3200, focal_length_mm=35)
    assert frame.camera == Camera()
    assert frame.warnings == ()


@pytest.mark.parametrize(
    ("colors", "phase", "black"),
    [
        # LibRaw's black is in the order R, G, B, second green; the second shares blue's row.
        ((0, 1, 3, 2), Phase.RGGB, (600, 608, 592, 620)),
        ((1, 0, 2, 3), Phase.GRBG, (608, 600, 620, 592)),
        ((3, 2, 0, 1), Phase.GBRG, (592, 620, 600, 608)),
        ((2, 3, 1, 0), Phase.BGGR, (620, 592, 608, 600)),
    ],
)
def test_black_is_put_from_the_order_of_colors_into_that_of_positions(
    monkeypatch: pytest.MonkeyPatch,
    colors: tuple[int, ...],
    phase: Phase,
    black: tuple[float, ...],
) -> None:
    frame = frame_of(monkeypatch, area_colors=colors)
    assert frame.cfa is phase
    assert frame.black == black
    assert frame.cfa.by_plane(frame.black) == (600, 608, 592, 620)


@pytest.mark.parametrize("gains", [(0.0, 1.0, 0.0, 0.0), (2.0, 1.0, -1.0, 0.0)])
def test_an_unusable_white_balance_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, gains: tuple[float, ...]
) -> None:
    frame = frame_of(monkeypatch, white_balance=gains)
    assert frame.white_balance is None
    assert frame.warnings == ("The file states no usable white balance.",)


@pytest.mark.parametrize(
    ("flip", "orientation"), [(0, 1), (1, 2), (3, 3), (2, 4), (4, 5), (6, 6), (7, 7), (5, 8)]
)
def test_a_flip_is_an_orientation(
    monkeypatch: pytest.MonkeyPatch, flip: int, orientation: int
) -> None:
    assert frame_of(monkeypatch, flip=flip).orientation == orientation


def test_a_matrix_to_srgb_is_turned_into_one_from_xyz(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_of(monkeypatch, xyz_to_camera=(0.0,) * 9, camera_to_srgb=IDENTITY)
    assert frame.color_matrix is not None
    # The inverse of sRGB to XYZ: IEC 61966-2-1, amendment 1, has three digits of it.
    np.testing.assert_allclose(
        frame.color_matrix,
        [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]],
        atol=5e-4,
    )
    assert "does not know this camera" in frame.warnings[0]


def test_without_any_matrix_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_of(monkeypatch, xyz_to_camera=(0.0,) * 9)
    assert frame.color_matrix is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"flat": False, "height": 0, "width": 0}, "already demosaicked or no colour filter"),
        ({"color_count": 1, "pattern_sides": (1, 1), "colors": "GMCY"}, "monochrome sensor"),
        ({"pattern_sides": (6, 6)}, "X-Trans"),
        ({"pattern_sides": (4, 4)}, "array of 4 x 4"),
        ({"pattern_sides": (0, 0)}, "array of 0 x 0"),
        ({"colors": "GMCY", "color_count": 4}, "green, magenta, yellow, cyan"),
        ({"colors": "RGBE", "color_count": 4}, "red, green, emerald, blue"),
        ({"area_colors": (0, 0, 1, 1)}, "red, red, green, green"),
        ({"area_colors": (0, 1, 6, 2)}, "unknown colour filter array"),
        ({"area": (0, 0, 3552, 3551)}, "Super CCD"),
        ({"white": 600.0}, "white level is not above"),
    ],
)
def test_what_is_no_bayer_frame_is_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as refusal:
        frame_of(monkeypatch, None, **changes)
    assert str(refusal.value).startswith("IMG.RAF: ")


def test_filters_that_the_file_declares_otherwise_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tags(*items: Item) -> Tiff:
        return parse_tiff(a_dng(SAMPLES, mosaic=items))

    assert frame_of(monkeypatch, tags()).warnings == ()
    (warning,) = frame_of(monkeypatch, tags(Item(Tag.CFAPattern, BYTE, (2, 1, 1, 0)))).warnings
    assert warning == "The file declares BGGR filters, LibRaw RGGB, which is used."
    with pytest.raises(InputError, match="red, green, cyan, blue"):
        frame_of(monkeypatch, tags(Item(Tag.CFAPattern, BYTE, (0, 1, 3, 2))))
