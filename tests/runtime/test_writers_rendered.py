"""Pictures for looking at: right size, right way up, right colours, no surprises in brightness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import tifffile

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.writers import rendered, write_frame
from tests.helpers import RAW
from tests.runtime.libraw_view import corpus_frame

BLACK, WHITE = 64.0, 4064.0
WHITE_BALANCE = (2.0, 1.0, 1.6)


def rendered_picture(frame: RawFrame, path: Path) -> npt.NDArray[Any]:
    write_frame(frame, path, level_scale=1, noise_reduction=0, residual_noise=None)
    if path.suffix.lower() == ".png":
        return np.asarray(PIL.Image.open(path))
    return np.asarray(tifffile.imread(path))


def a_grey_frame(grey: npt.NDArray[np.float64], **facts: Any) -> RawFrame:  # noqa: ANN401
    """A frame of neutral light (H, W), 0..1 after white balance, in all four phases alike."""
    frame = RawFrame(
        samples=np.zeros(grey.shape, np.uint16),
        cfa=Phase.RGGB,
        black=(BLACK,) * 4,
        white=WHITE,
        area=Area(0, 0, *grey.shape),
        white_balance=WHITE_BALANCE,
    )
    frame = replace(frame, **facts)
    red, green, blue = WHITE_BALANCE
    gains = frame.cfa.by_position((red, green, green, blue))
    samples = np.zeros(grey.shape)
    for position, (row, column) in enumerate(np.ndindex(2, 2)):
        rows = slice((row + frame.area.top) % 2, None, 2)
        columns = slice((column + frame.area.left) % 2, None, 2)
        light = grey[rows, columns] / gains[position]
        # LibRaw has one range for all colours, from the lowest black level.
        samples[rows, columns] = frame.black[position] + light * (WHITE - min(frame.black))
    return replace(frame, samples=np.round(samples).astype(np.uint16))


def srgb_curve(light: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1, 0..1 to 0..1."""
    linear = np.asarray(light, np.float64)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png", ".PNG"])
def test_depth_and_way_up_follow_format_and_orientation(tmp_path: Path, suffix: str) -> None:
    frame = corpus_frame(RAW / "d750_orient6_ljpeg14.dng")
    picture = rendered_picture(frame, tmp_path / f"out{suffix}")
    assert picture.shape == (432, 288, 3)
    assert picture.dtype == (np.uint8 if suffix.lower() == ".png" else np.uint16)


@pytest.mark.parametrize("cfa", Phase)
@pytest.mark.parametrize("area", [Area(0, 0, 64, 64), Area(5, 3, 51, 53)])
def test_grey_is_grey_at_any_phase_margin_and_black_level(
    tmp_path: Path, cfa: Phase, area: Area
) -> None:
    light = np.full((64, 64), 0.18)
    frame = a_grey_frame(light, cfa=cfa, area=area, black=(40.0, 90.0, 140.0, 190.0))
    picture = rendered_picture(frame, tmp_path / "out.tif")
    assert picture.shape == (area.height, area.width, 3)
    # One DN of 3900 is 2.6e-4 of the range, up to three times that behind the gain and the
    # slope of the curve at 0.18; a black level in the wrong place would shift a plane by 0.01.
    np.testing.assert_allclose(picture / 65535, srgb_curve(0.18), atol=1.5e-3)


def test_brightness_is_that_of_the_frame_whatever_else_is_in_it(tmp_path: Path) -> None:
    light = np.repeat([0.02, 0.05, 0.2, 0.85], 24)[:, None] * np.ones((1, 64))
    for name, brightest in (("dark", 1), ("middle", 3), ("bright", 4)):
        frame = a_grey_frame(light[: 24 * brightest])
        picture = rendered_picture(frame, tmp_path / f"{name}.tif")
        for band in range(brightest):
            middle = picture[24 * band + 12, 32] / 65535
            # Dark greys: two DN of 4000 times a slope of up to 6.
            np.testing.assert_allclose(middle, srgb_curve(light[24 * band, 0]), atol=3e-3)


def test_a_frame_without_white_balance_or_matrix_is_rendered_as_it_is(tmp_path: Path) -> None:
    frame = a_grey_frame(np.full((64, 64), 0.3), white_balance=None)
    red, green, blue = (rendered_picture(frame, tmp_path / "out.tif") / 65535).mean((0, 1))
    # The matrix of sRGB has four decimals and rows that add up to one within 1e-4.
    assert (red, green, blue) == pytest.approx(
        tuple(srgb_curve(0.3 / np.array(WHITE_BALANCE))), abs=2e-3
    )


def test_masked_samples_are_not_in_the_picture(tmp_path: Path) -> None:
    frame = corpus_frame(RAW / "d750_odd_active_area.dng")
    assert rendered_picture(frame, tmp_path / "out.png").shape == (200, 300, 3)


def test_a_failure_of_libraw_is_told_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("raise MemoryError('too large')")
    monkeypatch.setattr(rendered, "_CHILD", child)
    with pytest.raises(OutputError, match=r"could not render .*MemoryError: too large"):
        rendered_picture(a_grey_frame(np.ones((32, 32))), tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["child.py"]


def test_a_libraw_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child.py"
    child.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(rendered, "_CHILD", child)
    monkeypatch.setattr(rendered, "_SECONDS", 0.2)
    with pytest.raises(OutputError, match="no result in 0 s"):
        rendered_picture(a_grey_frame(np.ones((32, 32))), tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["child.py"]
