"""Rendered pictures as files, and ``cycleisp denoise`` on them."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from PIL import Image, ImageCms

from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import InputError, OutputError
from cycleisp_runtime.picture_files import PictureFile, read_picture, write_picture
from tests.helpers import DEMO, for_pictures, write_bundle
from tests.networks import picture_network

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TURNED = Image.Exif()
TURNED[274] = 6  # Orientation: turn by 90 degrees


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = picture_network().SerializeToString()
    return write_bundle(tmp_path / "net.bundle", network, **for_pictures())


def pixels(dtype: type = np.uint8) -> np.ndarray:
    picture = np.random.default_rng(0).random((41, 53, 3))
    if dtype is np.float32:
        return picture.astype(np.float32)
    return (picture * np.iinfo(dtype).max).astype(dtype)


def denoise(model: Path, *arguments: object) -> Result:
    words = ["denoise", "--model", model, "--backend", "onnxruntime", *arguments]
    return CliRunner().invoke(main, [str(word) for word in words])


def png(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG that ends where its pixels begin."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 9)))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("a.png", np.uint8),
        ("a.tif", np.uint8),
        ("a.tiff", np.uint16),
        ("a.TIF", np.float32),
    ],
)
def test_what_was_written_is_read_again(tmp_path: Path, name: str, dtype: type) -> None:
    path = tmp_path / name
    written = PictureFile(pixels(dtype), icc_profile=PROFILE)
    write_picture(written, path, source=None, force=False)
    found = read_picture(path)
    np.testing.assert_array_equal(found.pixels, written.pixels)
    assert found.pixels.dtype == dtype
    assert found.icc_profile == PROFILE


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_profile_and_turn_are_kept(tmp_path: Path, name: str) -> None:
    before = tmp_path / f"before-{name}"
    Image.fromarray(pixels()).save(before, exif=TURNED, icc_profile=PROFILE)
    write_picture(read_picture(before), tmp_path / name, source=before, force=False)
    with Image.open(tmp_path / name) as after:
        assert after.getexif()[274] == 6
        assert after.info["icc_profile"] == PROFILE


def test_a_big_endian_tiff_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(np.uint16), byteorder=">", photometric="rgb")
    found = read_picture(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(found, pixels(np.uint16))
    assert found.dtype.isnative


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.png", png(100, 100), "not a picture that can be read"),
        ("a.png", png(100_000, 100_000), "decompression bomb"),
        ("a.png", png(12_000, 12_000), r"too large \(met 12000x12000"),
        ("a.png", png(100, 100, depth=16), "PNGs of 16 bits are not read; convert it to a TIFF"),
        ("a.jpg", b"", "neither PNG nor JPEG nor TIFF"),
        ("a.tif", b"II*\0\x08\0\0\0", "not a picture that can be read"),
        ("a.nef", b"II*\0", "not a rendered picture .*needs a model for RAW"),
    ],
    ids=["ends", "a bomb", "too large", "16 bits", "empty", "no directory", "RAW"],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, line: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=line) as raised:
        read_picture(path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK"])
def test_other_pictures_than_rgb_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(pixels()).convert(mode).save(path)
    with pytest.raises(InputError, match=f"without transparency .*mode {mode}"):
        read_picture(path)


def test_a_dng_by_another_name_is_not_taken_for_its_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    shutil.copy(next(DEMO.glob("*.dng")), path)
    with pytest.raises(InputError, match=r"not a rendered picture .*a DNG"):
        read_picture(path)


def test_a_suffix_without_a_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no format of this suffix \(wanted \.jpeg, \.jpg"):
        write_picture(PictureFile(pixels()), tmp_path / "a.dng", source=None, force=False)


def test_pictures_become_pictures_of_the_same_kind(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(pixels()).save(folder / "a.png")
    Image.fromarray(pixels()).save(folder / "b.jpg", quality=95)
    tifffile.imwrite(folder / "c.tif", pixels(np.uint16), photometric="rgb")
    (folder / "readme.txt").write_text("not a picture")
    result = denoise(model, folder, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "b.jpg", "c.tif"}
    said = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["size"] for each in said] == [[53, 41]] * 3
    denoised = read_picture(tmp_path / "out" / "c.tif").pixels
    assert denoised.dtype == np.uint16
    assert np.any(denoised != pixels(np.uint16))


def test_a_bad_picture_does_not_stop_the_others(tmp_path: Path, model: Path) -> None:
    (tmp_path / "bad.png").write_bytes(png(10, 10))
    Image.fromarray(pixels()).save(tmp_path / "good.png")
    result = denoise(
        model, tmp_path / "bad.png", tmp_path / "good.png", "-o", tmp_path / "out", "--tile", 40
    )
    assert result.exit_code == 1
    assert result.stderr.startswith(f"cycleisp: error: {tmp_path / 'bad.png'}: not a picture")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]
    assert "53x41" in result.stdout


@pytest.mark.parametrize(
    "options", [["--noise", "1e-3,1e-5"], ["--strength", "0.5"], ["--keep-levels"]]
)
def test_options_of_raw_are_refused(tmp_path: Path, model: Path, options: list[str]) -> None:
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    result = denoise(model, tmp_path / "a.png", "-o", tmp_path / "b.png", *options)
    assert result.exit_code == 1
    assert result.stderr == (
        f"cycleisp: error: {options[0]}: only for RAW files; the model is for rendered pictures\n"
    )


def test_the_input_is_never_overwritten(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(pixels()).save(path)
    before = path.read_bytes()
    assert denoise(model, path, "-o", path, "--force").exit_code == 1
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.glob("*.part")] == []


def test_a_raw_file_is_told_which_model_it_needs(tmp_path: Path, model: Path) -> None:
    result = denoise(model, next(DEMO.glob("*.dng")), "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "a RAW file needs a model for RAW, such as edge" in result.stderr
