"""Photographs in memory and the pairs cut from them."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cycleisp.data import photographs
from cycleisp.data.inverse_pipeline import InversePipeline
from cycleisp.data.photographs import Batch, SampledPairs, load_photographs
from cycleisp.noise import UNPROCESSING
from cycleisp_runtime.errors import InputError
from tests.training.pictures import write_photographs

Picture = npt.NDArray[np.uint8]


def pairs_of(*pictures: Picture, batch: int = 4, seed: int = 0) -> SampledPairs:
    return SampledPairs(pictures, UNPROCESSING, batch=batch, patch=16, seed=seed)


@pytest.fixture(name="pairs")
def some_pairs() -> SampledPairs:
    rng = np.random.default_rng(0)
    return pairs_of(*(rng.integers(0, 256, (70, 90, 3), np.uint8) for _ in range(3)), batch=16)


@pytest.fixture(name="plain_camera")
def camera_that_sees_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every camera sees codes / 255, and no picture has grain."""
    camera = InversePipeline(
        np.linspace(0, 1, 256, dtype=np.float32),
        np.eye(3, dtype=np.float32),
        np.ones(3, np.float32),
    )
    monkeypatch.setattr(photographs, "random_inverse_pipeline", lambda _rng: camera)
    monkeypatch.setattr(photographs, "_GRAIN_SHARE", 0.0)


def arrays(batch: Batch) -> list[npt.NDArray[np.float32]]:
    return [getattr(batch, field.name) for field in dataclasses.fields(batch)]


def test_a_batch_is_a_function_of_seed_and_step(pairs: SampledPairs) -> None:
    batch = pairs.at(7)
    pairs.at(3)
    same = dataclasses.replace(pairs)
    for first, again in zip(arrays(batch), arrays(same.at(7)), strict=True):
        np.testing.assert_array_equal(first, again)
    for other in (pairs.at(8), dataclasses.replace(pairs, seed=1).at(7)):
        assert (other.clean != batch.clean).any()
        assert (other.noise_scale != batch.noise_scale).all()


def test_a_batch_is_what_the_network_is_told(pairs: SampledPairs) -> None:
    batch = pairs.at(0)
    assert batch.clean.shape == batch.noisy.shape == batch.variance.shape == (16, 4, 16, 16)
    assert batch.noise_scale.shape == (16, 1, 1, 1)
    assert {array.dtype for array in arrays(batch)} == {np.dtype(np.float32)}
    assert batch.clean.min() >= 0
    assert batch.clean.max() <= 1
    mean_variance = batch.variance.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(batch.noise_scale, np.sqrt(mean_variance), rtol=1e-6)
    for noisy, variance in zip(batch.noisy, batch.variance, strict=True):
        lit = np.maximum(noisy, 0).ravel().astype(np.float64)
        shot, read = np.polyfit(lit, variance.ravel(), 1)
        # One line for all samples, up to float32.
        np.testing.assert_allclose(variance.ravel(), shot * lit + read, rtol=1e-4)
        assert 1e-4 * 0.99 < shot < 1.2e-2 * 1.01


def test_the_variance_is_that_of_the_noise(pairs: SampledPairs) -> None:
    ratios = []
    for step in range(8):
        batch = pairs.at(step)
        noise = (batch.noisy - batch.clean) / batch.noise_scale
        ratios.append(np.square(noise).mean(axis=(1, 2, 3)))
    # Of 128 patches. Clipping at black and white takes noise off some; a patch of 1024 samples
    # knows its own variance to 4 %.
    assert np.median(ratios) == pytest.approx(1, abs=0.03)
    assert np.max(ratios) < 1.3


@pytest.mark.usefixtures("plain_camera")
def test_flips_and_turns_keep_the_order_of_the_colours() -> None:
    picture = np.empty((40, 50, 3), np.uint8)
    picture[:] = (200, 100, 50)
    batch = pairs_of(picture, batch=32).at(0)
    for plane, code in enumerate((200, 100, 100, 50)):
        np.testing.assert_allclose(batch.clean[:, plane], code / 255, atol=1e-6)


@pytest.mark.usefixtures("plain_camera")
def test_patches_are_flipped_and_turned_all_eight_ways() -> None:
    rows, columns = np.mgrid[:40, :50]
    picture = np.repeat((4 * rows + columns)[..., None], 3, axis=2).astype(np.uint8)
    clean = pairs_of(picture, batch=64).at(0).clean[:, 0]
    down = np.round(255 * np.diff(clean, axis=1).mean(axis=(1, 2)))
    right = np.round(255 * np.diff(clean, axis=2).mean(axis=(1, 2)))
    # Two picture samples per packed one, or four where the patch was reduced.
    ways = {(int(d), int(r)) for d, r in zip(down, right, strict=True)}
    assert ways == {(a * 8, b * 2) for a in (1, -1) for b in (1, -1)} | {
        (a * 2, b * 8) for a in (1, -1) for b in (1, -1)
    }


@pytest.mark.usefixtures("plain_camera")
def test_large_pictures_are_sometimes_reduced() -> None:
    checks = np.indices((80, 80)).sum(axis=0) % 2
    picture = np.repeat(255 * checks[..., None], 3, axis=2).astype(np.uint8)
    clean = pairs_of(picture, batch=32).at(0).clean
    means = {float(np.unique(np.round(patch[0], 3))[0]) for patch in clean}
    # Whole, red sees one colour of the board; reduced, only their mean.
    assert means == {0.0, 0.5, 1.0}


def test_a_folder_gives_its_pictures_by_name(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", 3, 64)
    Image.new("RGB", (100, 40)).save(folder / "picture_thin.png")
    Image.new("L", (64, 64), 7).save(folder / "other.JPG")
    (folder / "picture_notes.txt").write_text("no picture", encoding="utf-8")
    assert list(load_photographs(folder, "picture_*", 64)) == [
        f"picture_{index}.png" for index in range(3)
    ]
    grey = load_photographs(folder, "other*", 64)["other.JPG"]
    assert grey.shape == (64, 64, 3)
    assert np.abs(grey.astype(int) - 7).max() <= 1


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: the folder of photographs cannot be read"):
        load_photographs(tmp_path / "absent", "*", 64)


def test_a_folder_without_usable_pictures_is_refused(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", 1, 32)
    with pytest.raises(InputError, match=r"no usable picture .*'\*'.* 64 or more"):
        load_photographs(folder, "*", 64)


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
def test_a_bad_picture_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=f"bad.png: {problem}"):
        load_photographs(tmp_path, "*", 64)


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    folder = write_photographs(tmp_path / "photographs", 1, 64)
    picture = folder / "picture_0.png"
    picture.write_bytes(picture.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"picture_0.png: not a readable picture"):
        load_photographs(folder, "*", 64)
