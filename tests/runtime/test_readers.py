"""Real files through the reader: what they hold is found, and what they are not is refused."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area, Exposure, RawFrame
from cycleisp_runtime.readers import DumpLayout, Limits, read_frame
from tests.helpers import DEMO, RAW, RAW_BAD, shared

GOOD: dict[str, dict[str, Any]] = json.loads((RAW / "expected.json").read_text())
BAD: dict[str, dict[str, str]] = json.loads((RAW_BAD / "expected.json").read_text())


@functools.cache
def outcome(path: Path) -> RawFrame | InputError:
    """The frame or the refusal: several tests look at the same file, each read costs a process."""
    try:
        return read_frame(path)
    except InputError as error:
        return error


def good(path: Path) -> RawFrame:
    frame = outcome(path)
    assert isinstance(frame, RawFrame)
    return frame


def refusal(path: Path) -> str:
    error = outcome(path)
    assert isinstance(error, InputError)
    return str(error)


PACKING_OF_DTYPE = {
    "<u2": "u16le",
    ">u2": "u16be",
    "u1": "u8",
    "vendor (see format)": "huawei10",
}


def assert_one_line(error: InputError, path: Path) -> None:
    line = str(error)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 400


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_read_as_it_was_made(name: str) -> None:
    wanted = GOOD[name]
    layout = DumpLayout.parse(wanted["layout"]) if "layout" in wanted else None
    frame = good(RAW / name) if layout is None else read_frame(RAW / name, layout=layout)
    assert frame.samples.dtype == np.uint16
    assert list(frame.samples.shape) == wanted["size"]
    assert frame.cfa is Phase(wanted["cfa"])
    assert list(frame.black) == wanted["black"]
    assert frame.white == wanted["white"]
    assert frame.source == RAW / name
    if layout is not None:
        return
    stored = hashlib.sha256(frame.samples.astype("<u2").tobytes()).hexdigest()
    assert stored == wanted["sha256_of_samples_le16"]
    assert frame.area == Area(*wanted["area"])
    assert frame.orientation == wanted["orientation"]
    if wanted["white_balance"] is None:
        assert frame.white_balance is None
    else:  # LibRaw keeps gains as float32
        assert frame.white_balance == pytest.approx(wanted["white_balance"], rel=1e-6)
    assert (frame.noise_profile is not None) == wanted["noise_profile"]
    assert (frame.color_matrix is not None) or not wanted.get("color_matrix", False)
    if wanted.get("true_black", frame.black[0]) != frame.black[0]:
        assert any("black level" in warning for warning in frame.warnings)


def test_a_clean_dng_gives_no_warning() -> None:
    assert good(RAW / "d750_odd_active_per_channel_black.dng").warnings == ()


def test_black_of_rows_and_columns() -> None:
    frame = good(RAW / "d750_black_delta.dng")
    assert frame.black_rows is not None
    assert frame.black_columns is not None
    assert frame.black_rows[:4].tolist() == [-1, 0, 1, -1]
    assert frame.black_columns[:6].tolist() == [-2, -1, 0, 1, 2, -2]


def test_the_demo_frame() -> None:
    frame = read_frame(DEMO / "bmpcc_gbrg_12b_ljpeg_lintable.dng")
    assert str(frame.camera) == "Blackmagic Pocket Cinema Camera"
    assert frame.cfa is Phase.GBRG
    assert (frame.black[0], frame.white) == (256, 51080)
    assert int(frame.samples.max()) == 22473
    assert frame.color_matrix is not None
    # ColorMatrix2 is the one for D65 (illuminant 21); ColorMatrix1 is for tungsten.
    np.testing.assert_allclose(frame.color_matrix[0], [1.00885, -0.27351, -0.08258])


def test_the_noise_profile_stands_in_the_first_directory() -> None:
    profile = good(RAW / "d750_subifd_preview_grbg_ljpeg.dng").noise_profile
    assert profile is not None
    assert profile.shot == (0.00019,) * 4
    assert profile.read == (3e-7,) * 4


def test_what_libraw_guesses_is_said() -> None:
    frame = good(RAW / "rewrapped_tiffep_unknown_camera.tif")
    assert str(frame.camera) == "Foo Bar"
    said = " ".join(frame.warnings)
    for fragment in ("does not know this camera", "black level 0", "white level 65535"):
        assert fragment in said


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line_or_handled(name: str) -> None:
    assert_as_expected(RAW_BAD / name, BAD[name]["must"])


def assert_as_expected(path: Path, must: str) -> None:
    result = outcome(path)
    if isinstance(result, InputError):
        assert must != "handled", path.name
        assert_one_line(result, path)
    else:
        assert must != "refused", path.name
        for values in (result.black, result.white_balance, result.color_matrix):
            assert values is None or np.isfinite(values).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("xtrans_6x6.dng", "X-Trans colour filter array; only 2x2 red-green-blue Bayer"),
        ("quad_bayer_4x4.dng", "quad-Bayer colour filter array"),
        ("rgbe_code3_looks_like_rggb.dng", "red, green, cyan, blue"),
        ("rgbw_2x2.dng", "red, green, white, blue"),
        ("linear_rgb_34892.dng", "already demosaicked"),
        ("mono_34892_1spp.dng", "monochrome sensor"),
        ("mono_blackiszero.dng", "monochrome or already developed"),
        ("jpeg_renamed.nef", "a JPEG file: a developed picture"),
        ("zip_bomb.dng", "a ZIP archive"),
        ("text.cr2", "no known RAW format"),
        ("zeros_307200.raw", "cycleisp denoise and cycleisp stream read headerless .* --layout"),
        ("empty.dng", "the file is empty"),
        ("trunc_uncompressed_last_byte.dng", "cut short"),
        ("trunc_ljpeg_50.dng", "cut short"),
        ("trunc_sony_a7r3.arw", "cut short"),
        ("header_only_sony_a55.arw", "cut short"),
        ("header_only_canon_1ds3.cr2", "cut short"),
        ("strip_offset_zero.dng", "picture data are missing"),
        ("bomb_60000x60000.dng", r"too large for a file of this size \(met 60000x60000"),
        ("bomb_ljpeg_sof_65500.dng", r"cannot hold the samples of its tile \(met 65500x65500"),
        ("ljpeg_corrupt_bits.dng", "picture data are damaged"),
        ("comp_jpegxl.dng", "52546, JPEG XL"),
        ("float32_nan_pixels.dng", "floating-point"),
        ("bits_7.dng", "met 7 bits, wanted 8 to 16 bits"),
        ("tiny_1x1.dng", "smaller than one 2x2 cell"),
        ("all_zero_frame.dng", "holds no signal"),
        ("white_below_black.dng", "white level is not above"),
        ("black_nan_double.dng", "black level is not a number"),
        ("black_count_mismatch.dng", "met 2, wanted as many as BlackLevelRepeatDim says: 2, 2"),
        ("active_area_outside.dng", "ActiveArea"),
        ("bigtiff.dng", "BigTIFF"),
        ("ifd_loop.dng", "leads back"),
    ],
)
def test_the_reason_is_named(name: str, reason: str) -> None:
    assert re.search(reason, refusal(RAW_BAD / name))


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("neutral_zero.dng", "white balance .* unusable"),
        ("neutral_missing.dng", "no white balance"),
        ("matrix_singular.dng", "colour matrix is unusable"),
        ("noiseprofile_bad.dng", "NoiseProfile is ignored: it has 3 values"),
        ("noiseprofile_absurd.dng", "NoiseProfile is ignored: 50, 3 is implausible"),
        ("orientation_99.dng", r"Orientation \(99\)"),
        ("linearization_short.dng", "linearization table ends at code 255"),
        ("quad_bayer_says_2x2.dng", "quad-Bayer data under 2x2 filters"),
        ("strip_bytecount_too_small.dng", "fewer bytes"),
        ("all_white_frame.dng", "Every sample is 15520"),
    ],
)
def test_what_was_repaired_or_doubted_is_said(name: str, warning: str) -> None:
    (said,) = (text for text in good(RAW_BAD / name).warnings if re.search(warning, text))
    assert said.endswith(".")


def test_a_turn_that_exists_is_kept() -> None:
    assert good(RAW_BAD / "orientation_2_mirror.dng").orientation == 2


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "frame.dng"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputError, match=r"No such file|not a file"):
        read_frame(path)


def test_a_name_that_is_no_text_is_no_problem(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/ros\xe9 \xff.dng"))
    shutil.copy(RAW / "d750_gbrg_8b.dng", path)
    assert read_frame(path).cfa is Phase.GBRG


def test_a_file_larger_than_allowed_is_not_opened() -> None:
    with pytest.raises(InputError, match="too large"):
        read_frame(RAW / "d750_gbrg_8b.dng", limits=Limits(max_file_bytes=1000))


def test_a_frame_larger_than_allowed_is_not_decoded() -> None:
    with pytest.raises(InputError, match="wanted at most 1000 samples"):
        read_frame(RAW / "d750_gbrg_8b.dng", limits=Limits(max_samples=1000))


@pytest.mark.slow
def test_every_good_file_of_the_corpus() -> None:
    folder = shared("data", "raw")
    for name, wanted in json.loads((folder / "expected.json").read_text()).items():
        if wanted["headerless"]:
            stored = wanted.get("dtype") or wanted["pack"]
            layout = DumpLayout(
                wanted["w"],
                wanted["h"],
                Phase(wanted["phase"]),
                PACKING_OF_DTYPE.get(stored, stored),
                black=wanted["black"],
                white=wanted["white"],
                bits=wanted["bits"],
                stride=wanted.get("stride"),
            )
            frame = read_frame(folder / name, layout=layout)
            assert frame.samples.shape == (wanted["h"], wanted["w"]), name
            assert frame.samples.max() <= 2 ** wanted["bits"] - 1
            continue
        frame = read_frame(folder / name)
        libraw, true = wanted["libraw"], wanted.get("true", {})
        stored = hashlib.sha256(frame.samples.astype("<u2").tobytes()).hexdigest()
        assert stored == libraw["raw_sha256_le16"], name
        assert frame.white == libraw["white"], name
        assert frame.cfa.value == true.get("cfa_at_active_corner", libraw["cfa_visible"]), name
        r, gr, gb, b = frame.cfa.by_plane(frame.black)
        assert [r, gr, b, gb] == true.get("black_rgbg", libraw["black_rgbg"]), name
        if "black" in true and true["black"] != r:
            assert any("black level 0" in text for text in frame.warnings), name


def test_the_order_of_black_levels_is_that_of_positions() -> None:
    frame = good(RAW / "d750_per_channel_black.dng")
    assert frame.black == (600, 608, 592, 620)
    assert frame.cfa.by_plane(frame.black) == (600, 608, 592, 620)


@pytest.mark.slow
def test_a_camera_s_own_file() -> None:
    frame = read_frame(shared("data", "raw", "sony_a7r3_iso3200_crop.arw"))
    assert str(frame.camera) == "SONY ILCE-7RM3"
    assert frame.exposure == Exposure(3200, 1 / 640, 6.3, 129.0, -1.0, "2018:07:11 01:18:47")
    assert frame.white_balance == (2528 / 1024, 1.0, 1564 / 1024)
    assert frame.area == Area(0, 0, 480, 5184)
    assert frame.samples.shape == (480, 5216)
    assert frame.warnings == ()


@pytest.mark.slow
def test_every_bad_file_of_the_corpus() -> None:
    folder = shared("data", "raw_bad")
    for name, wanted in json.loads((folder / "expected.json").read_text()).items():
        assert_as_expected(folder / name, wanted["must"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("canon_g1_cmyg.crw", "green, magenta, yellow, cyan"),
        ("canon_6d_linear_lossy.dng", "already demosaicked"),
        ("iphone12_stub_opens_as_zeros.dng", "already demosaicked"),
        ("gopro_hero6_vc5.gpr", "VC-5"),
        ("stub_sigma_dp2_foveon.x3f", "Foveon"),
        ("stub_canon_350d.dng", "too large for a file of this size"),
        ("stub_panasonic.rw2", "cut short"),
    ],
)
def test_the_reason_is_named_for_files_of_the_corpus(name: str, reason: str) -> None:
    assert re.search(reason, refusal(shared("data", "raw_bad", name)))
