"""Other RAW in, new DNG out: everything a frame knows stands in the file."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rawpy
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.dng import Tag, mosaic_directories
from cycleisp_runtime.errors import OutputError, SettingsError
from cycleisp_runtime.frame import Area, Camera, Exposure, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiff import Tiff, parse_tiff
from cycleisp_runtime.writers import write_frame
from tests.helpers import RAW, shared
from tests.runtime.libraw_view import corpus_frame, libraw_view
from tests.strategies import frames

SHIPPED = sorted(
    path for path in RAW.iterdir() if path.suffix in {".nef", ".pef", ".srw", ".3fr", ".tif"}
)
SHARED = ["kodak_dc50_grbg.kdc", "sony_a7r3_iso3200_crop.arw"]


@pytest.fixture(params=[path.name for path in SHIPPED] + SHARED)
def other_raw(request: pytest.FixtureRequest) -> Path:
    """Every container of the corpus that is no DNG."""
    shipped = {path.name: path for path in SHIPPED}
    return shipped.get(request.param) or shared("data", "raw", request.param)


def written(
    frame: RawFrame,
    folder: Path,
    *,
    noise_reduction: float = 0.0,
    residual: NoiseModel | None = None,
) -> Path:
    out = folder / "out.dng"
    write_frame(
        frame,
        out,
        level_scale=1,
        noise_reduction=noise_reduction,
        residual_noise=residual,
        force=True,
    )
    return out


def a_frame(size: tuple[int, int] = (48, 64), **facts: Any) -> RawFrame:  # noqa: ANN401
    samples = np.random.default_rng(5).integers(0, 4096, size, np.uint16)
    frame = RawFrame(samples, Phase.GBRG, (64.0,) * 4, 4095.0, Area(0, 0, *size))
    return replace(frame, **facts)


def parsed(path: Path) -> Tiff:
    return parse_tiff(path.read_bytes(), path)


def numbers(path: Path, tag: Tag) -> tuple[float, ...] | None:
    """A tag of the main directory or the Exif one."""
    tiff = parsed(path)
    found = [tiff.find(directory, tag) for directory in tiff.directories]
    return next((values for values in found if values is not None), None)


def words(path: Path, tag: Tag) -> str | None:
    tiff = parsed(path)
    entry = tiff.directories[0].get(tag)
    return None if entry is None else tiff.text(entry)


# --- real files -------------------------------------------------------------------------------


def test_samples_levels_and_geometry_come_back(other_raw: Path, tmp_path: Path) -> None:
    out = written(corpus_frame(other_raw), tmp_path)
    old, new = libraw_view(other_raw), libraw_view(out)
    assert np.array_equal(new.samples, old.samples)
    assert np.array_equal(tifffile.imread(out), old.samples)
    assert (new.black, new.white) == (old.black, old.white)
    assert (new.sizes, new.flip) == (old.sizes, old.flip)
    assert new.rgb_xyz_matrix == old.rgb_xyz_matrix, "make and model are known as before"
    # LibRaw numbers the greens alike in both.
    assert np.array_equal(new.colors, old.colors)
    red, green, blue = old.white_balance[:3]
    if red > 0:
        # AsShotNeutral has six decimals; gains here are below 3.
        assert new.white_balance[:3] == pytest.approx((red / green, 1.0, blue / green), abs=1e-5)


@pytest.mark.parametrize("name", ["rewrapped_d750.nef", "rewrapped_nx300.srw"])
def test_libraw_renders_the_new_file_like_the_old_one(tmp_path: Path, name: str) -> None:
    def rendered(path: Path) -> npt.NDArray[np.int64]:
        with rawpy.imread(str(path)) as raw:
            picture = raw.postprocess(
                user_wb=[2, 1, 1.5, 1], no_auto_bright=True, output_bps=16, gamma=(1, 1)
            )
            return np.asarray(picture, np.int64)

    difference = rendered(written(corpus_frame(RAW / name), tmp_path)) - rendered(RAW / name)
    # The matrix is written with four decimals, as LibRaw's own tables have it; the rest is
    # rounding in the last of 65535 steps.
    assert np.abs(difference).mean() < 0.05


# --- laws -------------------------------------------------------------------------------------


@given(frame=frames())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_frame_survives(frame: RawFrame, tmp_path: Path) -> None:
    frame = replace(frame, white=float(np.ceil(frame.white)))
    out = written(frame, tmp_path)
    tiff = parsed(out)
    assert mosaic_directories(tiff) == tiff.directories[:1]
    assert np.array_equal(tifffile.imread(out), frame.samples)
    pattern = numbers(out, Tag.CFAPattern)
    assert pattern is not None
    assert "".join("RGB"[int(code)] for code in pattern) == frame.cfa.value
    top, left, height, width = frame.area
    assert numbers(out, Tag.ActiveArea) == (top, left, top + height, left + width)
    black = numbers(out, Tag.BlackLevel)
    assert black is not None
    assert (black * 4 if len(black) == 1 else black) == frame.black
    assert numbers(out, Tag.WhiteLevel) == (frame.white,)
    for tag, deltas in (
        (Tag.BlackLevelDeltaV, frame.black_rows),
        (Tag.BlackLevelDeltaH, frame.black_columns),
    ):
        # Rationals of 32 bits; |delta| is below 3.
        expected = None if deltas is None else pytest.approx(deltas.tolist(), rel=0, abs=1e-8)
        assert numbers(out, tag) == expected
    for directory in tiff.directories:
        tags = [entry.tag for entry in directory.entries]
        assert tags == sorted(set(tags))
        assert directory.offset % 2 == 0
        for entry in directory.entries:
            assert entry.value_size <= 4 or entry.value_offset % 2 == 0
            assert entry.value_offset + entry.value_size <= len(tiff.data)


@given(
    phase=st.sampled_from(Phase),
    height=st.integers(24, 57),
    width=st.integers(24, 57),
    top=st.integers(0, 5),
    left=st.integers(0, 5),
)
@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_libraw_sees_the_phase_at_the_corner_of_the_area(
    phase: Phase, height: int, width: int, top: int, left: int, tmp_path: Path
) -> None:
    frame = replace(
        a_frame((height + top, width + left)), cfa=phase, area=Area(top, left, height, width)
    )
    view = libraw_view(written(frame, tmp_path))
    cell = view.colors[top : top + 2, left : left + 2].ravel()
    assert "".join("RGBG"[color] for color in cell) == phase.value
    assert np.array_equal(view.samples, frame.samples)
    if top % 2 == left % 2 == 0:
        assert view.sizes == (height + top, width + left, top, left, height, width)


# --- facts ------------------------------------------------------------------------------------


def test_levels_per_position_start_at_the_corner_of_the_area(tmp_path: Path) -> None:
    frame = a_frame(area=Area(2, 4, 44, 60), black=(61.0, 62.0, 63.0, 64.0))
    view = libraw_view(written(frame, tmp_path))
    cell = view.colors[2:4, 4:6].ravel()
    assert [view.black[color] for color in cell] == [61, 62, 63, 64]


def test_a_fractional_black_level_is_kept(tmp_path: Path) -> None:
    out = written(a_frame(black=(64.25, 60.0, 68.5, 64.0)), tmp_path)
    assert numbers(out, Tag.BlackLevel) == (64.25, 60.0, 68.5, 64.0)


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"white": 4095.5}, "fractional white"), ({"black": (-1.0,) * 4}, "negative level")],
)
def test_levels_that_a_dng_cannot_hold_are_refused(
    tmp_path: Path, facts: dict[str, Any], message: str
) -> None:
    with pytest.raises(OutputError, match=message):
        written(a_frame(**facts), tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_written_and_samples_are_not_turned(
    tmp_path: Path, orientation: int
) -> None:
    frame = a_frame(orientation=orientation)
    out = written(frame, tmp_path)
    assert numbers(out, Tag.Orientation) == (orientation,)
    assert np.array_equal(libraw_view(out).samples, frame.samples)


def test_colours_are_written(tmp_path: Path) -> None:
    matrix = np.array(
        [[0.9020, -0.2890, -0.0715], [-0.4535, 1.2436, 0.2348], [-0.0934, 0.1919, 0.7086]]
    )
    out = written(a_frame(color_matrix=matrix, white_balance=(2.0, 1.0, 1.6)), tmp_path)
    assert numbers(out, Tag.ColorMatrix1) == tuple(matrix.ravel())
    assert numbers(out, Tag.AsShotNeutral) == (0.5, 1.0, 0.625)
    assert numbers(out, Tag.CalibrationIlluminant1) == (21,)


def test_unknown_colours_are_those_of_srgb_and_no_white_balance_is_made_up(
    tmp_path: Path,
) -> None:
    out = written(a_frame(), tmp_path)
    assert numbers(out, Tag.AsShotNeutral) is None
    # LibRaw turns camera colours into sRGB's; its own matrices have four decimals.
    np.testing.assert_allclose(
        np.array(libraw_view(out).color_matrix)[:3, :3], np.eye(3), atol=5e-4
    )


def test_names_are_written(tmp_path: Path) -> None:
    source = tmp_path / "Höhe.raw"
    source.write_bytes(b"headerless")
    out = written(a_frame(camera=Camera("Acme", "One"), source=source), tmp_path)
    assert (words(out, Tag.Make), words(out, Tag.Model)) == ("Acme", "One")
    assert words(out, Tag.UniqueCameraModel) == "Acme One"
    assert words(out, Tag.OriginalRawFileName) == "Höhe.raw"
    assert str(words(out, Tag.Software)).startswith("cycleisp")


def test_a_frame_from_memory_has_a_name_all_the_same(tmp_path: Path) -> None:
    out = written(a_frame(), tmp_path)
    assert words(out, Tag.UniqueCameraModel) == "Unknown camera"
    assert words(out, Tag.Make) is None
    assert words(out, Tag.OriginalRawFileName) is None


EXPOSURE = Exposure(
    iso=3200,
    # As float32, which is what LibRaw has.
    shutter_s=float(np.float32(1 / 60)),
    aperture=float(np.float32(2.8)),
    focal_length_mm=55.0,
    bias_ev=-1 / 3,
    taken="2026:01:31 12:34:56",
)


def test_exposure_is_written(tmp_path: Path) -> None:
    out = written(a_frame(exposure=EXPOSURE), tmp_path)
    assert numbers(out, Tag.PhotographicSensitivity) == (3200,)
    assert numbers(out, Tag.ExposureTime) == (1 / 60,)
    assert numbers(out, Tag.FNumber) == (2.8,)
    assert numbers(out, Tag.FocalLength) == (55,)
    assert numbers(out, Tag.ExposureBiasValue) == (-1 / 3,)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_understands_the_exposure(tmp_path: Path) -> None:
    frame = a_frame(exposure=replace(EXPOSURE, iso=204800), camera=Camera("Acme", "One"))
    out = written(frame, tmp_path)
    done = subprocess.run(
        ["exiftool", "-j", "-validate", "-warning", "-error", "-all", out],
        capture_output=True,
        check=True,
    )
    (tags,) = json.loads(done.stdout)
    assert tags["Validate"] == "OK"
    assert (tags["ExposureTime"], tags["FNumber"]) == ("1/60", 2.8)
    assert (tags["ISO"], tags["RecommendedExposureIndex"]) == (65535, 204800)
    assert (tags["ExposureCompensation"], tags["FocalLength"]) == ("-1/3", "55.0 mm")
    assert tags["DateTimeOriginal"] == "2026:01:31 12:34:56"


def test_noise_that_is_left_is_declared(tmp_path: Path) -> None:
    uniform = NoiseModel.uniform(1e-4, 1e-6)
    out = written(a_frame(), tmp_path, noise_reduction=1.0, residual=uniform)
    assert numbers(out, Tag.NoiseProfile) == (1e-4, 1e-6)
    assert numbers(out, Tag.NoiseReductionApplied) == (1,)
    coloured = NoiseModel((1e-4, 2e-4, 4e-4, 8e-4), (1e-6, 2e-6, 4e-6, 8e-6))
    out = written(a_frame(), tmp_path, noise_reduction=1.0, residual=coloured)
    assert numbers(out, Tag.NoiseProfile) == pytest.approx((1e-4, 1e-6, 3e-4, 3e-6, 8e-4, 8e-6))


def test_noise_of_a_frame_that_was_not_denoised_is_its_own(tmp_path: Path) -> None:
    frame = a_frame(noise_profile=NoiseModel.uniform(1e-3, 1e-5))
    out = written(frame, tmp_path)
    assert numbers(out, Tag.NoiseProfile) == (1e-3, 1e-5)
    assert numbers(out, Tag.NoiseReductionApplied) is None
    out = written(frame, tmp_path, noise_reduction=1.0)
    assert numbers(out, Tag.NoiseProfile) is None


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"out\.jpg: .* \(wanted \.dng or \.tif or"):
        write_frame(
            a_frame(),
            tmp_path / "out.jpg",
            level_scale=1,
            noise_reduction=0,
            residual_noise=None,
        )
    assert list(tmp_path.iterdir()) == []
