"""Tiles are the runtime's own, whole, apart from each other; simulated noise is what was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cycleisp_calibration.views import PictureView, Place, RawView, open_views, sensor_frame
from cycleisp_runtime.bayer import packed_size
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import LEVELS, NoiseModel
from cycleisp_runtime.noise_source import NoiseChoice
from cycleisp_runtime.tiles import MosaicTiles, plan_tiles
from tests.helpers import RAW
from tests.strategies import frames, noise_models


@given(frames(), noise_models, st.sampled_from([2, 4, 8]))
def test_every_tile_is_the_runtimes_own(frame: RawFrame, noise: NoiseModel, side: int) -> None:
    size = packed_size(frame.area.height, frame.area.width, frame.cfa)
    whole = plan_tiles(*size, side=64, halo=0, multiple_of=1)
    tiles = MosaicTiles(frame, noise, whole)
    noisy, variance = np.empty((2, 4, whole.height, whole.width), np.float32)
    scale = tiles.noise_scale(noisy, variance)
    tiles.cut(whole.cores[0], noisy, variance)
    view = RawView(frame, NoiseChoice(noise, "given"), side)
    for place in view.places():
        cut = view.cut(place).inputs
        window = np.s_[:, place.top : place.top + side, place.left : place.left + side]
        np.testing.assert_array_equal(cut["noisy"], noisy[window])
        np.testing.assert_array_equal(cut["variance"], variance[window])
        # The sum over the frame is the same but for its order.
        np.testing.assert_allclose(cut["noise_scale"], np.full((1, 1, 1), scale), rtol=1e-6)


@given(frames(), st.sampled_from([2, 4, 8]))
def test_tiles_are_whole_and_fill_the_frame_once(frame: RawFrame, side: int) -> None:
    noise = NoiseChoice(NoiseModel.uniform(1e-3, 1e-6), "given")
    size = packed_size(frame.area.height, frame.area.width, frame.cfa)
    taken = np.zeros(size, int)
    view = RawView(frame, noise, side)
    red = frame.cfa.red
    for top, left in view.places():
        taken[top : top + side, left : left + side] += 1
        assert 2 * top >= red.row
        assert 2 * left >= red.column
        assert 2 * (top + side) - red.row <= frame.area.height
        assert 2 * (left + side) - red.column <= frame.area.width
    assert taken.max(initial=0) <= 1
    whole = [
        (frame.area.height + red.row) // 2 - red.row,
        (frame.area.width + red.column) // 2 - red.column,
    ]
    assert taken.sum() == (whole[0] // side) * (whole[1] // side) * side**2


@pytest.mark.parametrize("level", LEVELS)
def test_a_simulated_sensor_has_the_noise_that_is_asked(level: str) -> None:
    noise = NoiseModel.uniform(*LEVELS[level])
    grey = np.full((257, 256, 3), 128, np.uint8)
    frame = sensor_frame(grey, noise, np.random.default_rng(0))
    assert (frame.area.height, frame.area.width) == (256, 256)
    tile = RawView(frame, NoiseChoice(noise, "given"), 128).cut(Place(0, 0))
    light = (128 / 255) ** 2.2
    for plane, gain in zip(tile.inputs["noisy"], (2, 1, 1, 1.6), strict=True):
        # 16384 samples know the mean to 0.008 and the variance to 1.1 % of it (one deviation).
        wanted = light / gain * noise.mean_shot + noise.mean_read
        assert plane.mean() == pytest.approx(light / gain, abs=0.04 * wanted**0.5)
        assert plane.var() == pytest.approx(wanted, rel=0.05)


def test_a_picture_as_it_is_keeps_its_codes() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
    view = PictureView(codes, None, 32, [0])
    assert view.places() == [(3, 2), (3, 34), (3, 66), (35, 2), (35, 34), (35, 66)]
    for top, left in view.places():
        tile = view.cut(Place(top, left)).inputs["noisy"]
        assert tile.dtype == np.float32
        expected = codes[top : top + 32, left : left + 32].transpose(2, 0, 1)
        np.testing.assert_array_equal(np.rint(tile * 255).astype(np.uint8), expected)


def test_noise_in_a_picture_is_that_of_its_light() -> None:
    noise = NoiseModel.uniform(*LEVELS["middle"])
    codes = np.full((256, 256, 3), 128, np.uint8)
    view = PictureView(codes, NoiseChoice(noise, "given"), 256, [0])
    first, second = (view.cut(view.places()[0]).inputs["noisy"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    light = (128 / 255) ** 2.2
    for plane, gain in zip(first.astype(np.float64), (2, 1, 1.6), strict=True):
        variance = (light / gain * noise.mean_shot + noise.mean_read) * gain**2
        # 65536 samples know it to 0.6 %; rounding to 8 bits adds a 12th of a step, under 1 %.
        assert (plane**2.2).var() == pytest.approx(variance, rel=0.04)


def test_a_raw_frame_brings_its_own_noise() -> None:
    path = RAW / "d750_subifd_preview_grbg_ljpeg.dng"
    (view,) = open_views(path, "raw", [], 32, [0])
    assert view.choice is not None
    assert view.choice.source == "profile"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("broken.jpg", b"\xff\xd8nothing", "not a readable picture"),
        ("empty.png", b"", "the file is empty"),
        ("frame.dng", b"II*\0", "a RAW file has no sRGB tiles"),
    ],
)
def test_files_without_tiles_are_refused(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        next(open_views(tmp_path / name, "srgb", [], 32, [0]))


def test_a_picture_of_16_bits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(path)
    with pytest.raises(InputError, match="not a picture of 8 bits"):
        next(open_views(path, "raw", [], 32, [0]))
