"""Photographs from files: every bit of them, upright, on white, or one clear refusal."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from cycleisp.synthesis.photograph import find_photographs, read_photograph
from cycleisp_runtime.errors import InputError

CODES = np.random.default_rng(0).integers(0, 65536, (16, 21, 4), dtype=np.uint16)


def write_png16(path: Path, codes: npt.NDArray[np.uint16]) -> None:
    """A PNG of 16 bits, which Pillow does not write."""
    height, width, channels = codes.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in codes)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def expected(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (codes.astype(np.float64) / 65535).transpose(2, 0, 1).astype(np.float32)


def test_all_16_bits_of_a_png_are_read(tmp_path: Path) -> None:
    write_png16(tmp_path / "a.png", CODES[..., :3])
    np.testing.assert_allclose(
        read_photograph(tmp_path / "a.png").rgb, expected(CODES[..., :3]), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_all_16_bits_of_a_tiff_are_read(
    tmp_path: Path, byteorder: Literal["<", ">"], compression: str | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, CODES[..., :3], photometric="rgb", byteorder=byteorder, compression=compression
    )
    np.testing.assert_allclose(
        read_photograph(path).rgb, expected(CODES[..., :3]), rtol=0, atol=1e-7
    )


def test_16_bits_of_grey_become_three_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", CODES[..., 0])
    rgb = read_photograph(tmp_path / "a.tif").rgb
    np.testing.assert_allclose(rgb, expected(CODES[..., [0, 0, 0]]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_transparent_shows_white(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.png"
    if bits == 16:
        write_png16(path, CODES)
        whole = expected(CODES)
    else:
        codes = (CODES >> 8).astype(np.uint8)
        Image.fromarray(codes).save(path)
        whole = codes.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    on_white = whole[:3] * whole[3] + (1 - whole[3])
    np.testing.assert_allclose(read_photograph(path).rgb, on_white, rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".tif", ".PNG"])
def test_formats_of_8_bits(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray((CODES[..., :3] >> 8).astype(np.uint8)).save(path)
    with Image.open(path) as image:
        codes = np.asarray(image.convert("RGB"))
    assert np.array_equal(
        read_photograph(path).rgb, codes.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    )
    assert [file.name for file in find_photographs([tmp_path])] == [path.name]


def test_a_turned_picture_is_put_upright(tmp_path: Path) -> None:
    codes = (CODES[..., :3] >> 8).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn anticlockwise
    Image.fromarray(codes).save(tmp_path / "a.png", exif=exif)
    rgb = read_photograph(tmp_path / "a.png").rgb
    upright = np.rot90(codes, -1).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    assert np.array_equal(rgb, upright)


def test_the_generator_follows_the_content_not_the_name(tmp_path: Path) -> None:
    for name, codes in (("a.png", CODES), ("b.png", CODES), ("c.png", CODES[::-1])):
        Image.fromarray((codes[..., :3] >> 8).astype(np.uint8)).save(tmp_path / name)
    a, b, c = (
        read_photograph(tmp_path / name).rng(7).random() for name in ("a.png", "b.png", "c.png")
    )
    assert a == b != c
    assert a != read_photograph(tmp_path / "a.png").rng(8).random()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable picture"),
        (b"text", "not a readable picture"),
        (None, "not a readable picture"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_photograph(path)


def test_damaged_and_unfit_pictures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray((CODES[..., :3] >> 8).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable picture"):
        read_photograph(path)
    write_png16(path, CODES[..., :3])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable picture"):
        read_photograph(path)
    Image.new("RGB", (11, 40)).save(path)
    with pytest.raises(InputError, match="met 11x40"):
        read_photograph(path)
    tifffile.imwrite(tmp_path / "f.tif", np.zeros((16, 16), np.float32))
    with pytest.raises(InputError, match="floating-point"):
        read_photograph(tmp_path / "f.tif")


def test_files_are_found_once_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("b.png", "below/a.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    both = find_photographs([tmp_path, tmp_path / "b.png"])
    assert [file.name for file in both] == ["b.png", "below/a.png"]
    assert both == find_photographs([tmp_path / "b.png", tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture is there"):
        find_photographs([tmp_path / "empty"])
