"""Photographs in memory, which of them are used, and the patches cut from them."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cycleisp.data.photographs import (
    Photographs,
    load_photograph,
    load_photographs,
    random_patch,
    random_place,
    random_reduction,
)
from cycleisp_runtime.errors import InputError, SettingsError
from tests.training.pictures import write_photographs


def load(folder: Path, pattern: str = "*", held_out: int = 2) -> Photographs:
    return load_photographs(folder, pattern=pattern, minimum_side=64, held_out=held_out)


def test_a_folder_gives_its_pictures_by_name(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", 3, 64)
    Image.new("L", (64, 64), 7).save(folder / "other.JPG")
    (folder / "picture_notes.txt").write_text("no picture", encoding="utf-8")
    photographs = load(folder, "picture_*")
    assert list(photographs.training) == ["picture_0.png", "picture_2.png"]
    assert list(photographs.held_out) == ["picture_1.png"]
    assert not photographs.skipped
    grey = load(folder).training["other.JPG"]
    assert grey.shape == (64, 64, 3)
    assert np.abs(grey.astype(int) - 7).max() <= 1


@pytest.mark.parametrize("held_out", [2, 3, 5])
def test_every_nth_picture_is_held_out_and_no_other(tmp_path: Path, held_out: int) -> None:
    folder = write_photographs(tmp_path / "photographs", 7, 64)
    photographs = load(folder, held_out=held_out)
    assert len(photographs.held_out) == len(range(held_out // 2, 7, held_out))
    assert not photographs.training.keys() & photographs.held_out.keys()
    assert len(photographs.training) + len(photographs.held_out) == 7


def test_the_manifest_tells_every_picture_apart(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", 3, 64)
    Image.new("RGB", (100, 40)).save(folder / "thin.png")
    photographs = load(folder)
    manifest = photographs.manifest()
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest == {
        "trained_on": {
            name: hashlib.sha256(picture.tobytes()).hexdigest()
            for name, picture in photographs.training.items()
        },
        "held_out": ["picture_1.png"],
        "skipped": {"thin.png": "a side of less than 64 pixels"},
    }


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: the folder of photographs cannot be read"):
        load(tmp_path / "absent")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"too few usable pictures .*met 0, and 0 that cannot"):
        load(tmp_path)


def test_small_pictures_are_skipped_and_too_few_large_ones_refused(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", 3, 32)
    with pytest.raises(SettingsError, match=r"met 0, and 3 that cannot .* at least 2 .* 64"):
        load(folder)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def _png(side: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"", "not a readable picture", id="empty"),
        pytest.param(b"text", "not a readable picture", id="no picture"),
        pytest.param(
            _png(2, _chunk(b"IDAT", zlib.compress(bytes(14))[:5]), _chunk(b"\1\2\3\4", b"")),
            "not a readable picture",
            id="broken chunk",
        ),
        pytest.param(_png(60_000, _chunk(b"IDAT", b"")), "the picture is too large", id="giant"),
    ],
)
def test_a_bad_picture_is_skipped_and_named(tmp_path: Path, content: bytes, problem: str) -> None:
    folder = write_photographs(tmp_path / "photographs", 3, 64)
    bad = folder / "picture_1_bad.png"
    bad.write_bytes(content)
    with pytest.raises(InputError, match=f"picture_1_bad.png: {problem}"):
        load_photograph(bad)
    photographs = load(folder)
    assert photographs.skipped.keys() == {bad.name}
    assert photographs.skipped[bad.name].startswith(problem)
    assert len(photographs.training) + len(photographs.held_out) == 3


def test_a_truncated_picture_is_skipped(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", 3, 64)
    picture = folder / "picture_0.png"
    picture.write_bytes(picture.read_bytes()[:-300])
    assert load(folder).skipped == {"picture_0.png": "not a readable picture"}


def test_pictures_that_are_all_bad_are_refused(tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / f"{index}.png").write_bytes(b"no picture")
    with pytest.raises(SettingsError, match=r"met 0, and 4 that cannot be used"):
        load(tmp_path)


RANDOM_SIDES = st.integers(40, 90)


@given(st.integers(0, 2**32), RANDOM_SIDES, RANDOM_SIDES)
def test_a_patch_fits_its_picture(seed: int, height: int, width: int) -> None:
    picture = np.zeros((height, width, 3), np.uint8)
    rng = np.random.default_rng(seed)
    reduction = random_reduction(picture, 20, rng)
    assert 1 <= reduction <= min(3, min(height, width) // 20)
    assert random_place(picture, 20, reduction, rng).shape == (20 * reduction, 20 * reduction, 3)
    patch = random_patch(picture, 20, rng)
    assert patch.shape == (20, 20, 3)
    assert patch.dtype == np.uint8


def test_a_patch_is_a_function_of_the_generator() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    first, again, other = (
        random_patch(picture, 32, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_reduced_patch_is_the_mean_of_squares() -> None:
    checks = np.indices((80, 80)).sum(axis=0) % 2
    picture = np.repeat(200 * checks[..., None], 3, axis=2).astype(np.uint8)
    codes = set()
    for seed in range(32):
        codes |= set(np.unique(random_patch(picture, 20, np.random.default_rng(seed))))
    # As they are; of 2x2; of 3x3, where one colour has five of nine.
    assert codes == {0, 200, 100, round(200 * 4 / 9), round(200 * 5 / 9)}
