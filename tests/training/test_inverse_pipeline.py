"""The inverse camera pipeline: a plausible camera, linear light, an RGGB mosaic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cycleisp.data.inverse_pipeline import InversePipeline, mosaic_planes, random_inverse_pipeline
from cycleisp_runtime.bayer import Phase, pack

CAMERAS = [random_inverse_pipeline(np.random.default_rng(seed)) for seed in range(40)]

LINEAR = InversePipeline(
    table=np.linspace(0, 1, 256, dtype=np.float32),
    matrix=np.eye(3, dtype=np.float32),
    gains=np.ones(3, np.float32),
)
"""A camera that sees codes / 255."""


def codes(height: int, width: int, highest: int = 255) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(
        0, highest, (height, width, 3), np.uint8, endpoint=True
    )


def test_a_camera_keeps_grey_grey() -> None:
    for camera in CAMERAS:
        # Nine digits of float32 matrices, summed.
        np.testing.assert_allclose(camera.matrix.sum(axis=1), 1, atol=1e-6)


def test_a_tone_curve_goes_from_black_to_white_and_never_back() -> None:
    for camera in CAMERAS:
        assert camera.table.shape == (256,)
        assert camera.table[0] == pytest.approx(0, abs=1e-6)
        assert camera.table[-1] == pytest.approx(1, abs=1e-6)
        assert (np.diff(camera.table) >= 0).all()


def test_cameras_differ_as_much_as_real_ones_do() -> None:
    red, green, blue = np.transpose([camera.gains for camera in CAMERAS])
    # White balance: red and blue were amplified by 1.2 to 2.8 and 1.2 to 2.6 against green.
    assert (green / red).min() >= 1.2 - 1e-4
    assert (green / red).max() <= 2.8 + 1e-4
    assert (green / blue).min() >= 1.2 - 1e-4
    assert (green / blue).max() <= 2.6 + 1e-4
    assert (green / red).max() > 2.4
    # Brightness: about 0.8, in some pictures up to four stops less.
    assert green.max() < 1.2
    assert green.min() < 0.2
    # Colours: from filters that overlap to channels further apart than sRGB's.
    green_in_red = [camera.matrix[0, 1] for camera in CAMERAS]
    assert min(green_in_red) < 0
    assert max(green_in_red) > 0.2
    # A smoothstep darkens what is below the middle; its inverse brightens it.
    toned = [camera.table[64] > 1.1 * (64 / 255) ** 2.2 for camera in CAMERAS]
    assert {True, False} == set(map(bool, toned))


@pytest.mark.parametrize("reduction", [1, 2])
def test_camera_light_is_linear_rgb_within_range(reduction: int) -> None:
    photograph = codes(16, 24)
    for camera in CAMERAS:
        light = camera.camera_rgb(photograph, reduction)
        assert light.dtype == np.float32
        assert light.shape == (16 // reduction, 24 // reduction, 3)
        assert light.min() >= 0
        assert light.max() <= 1


def test_white_stays_white_and_black_black() -> None:
    for camera in CAMERAS:
        white = camera.camera_rgb(np.full((2, 2, 3), 255, np.uint8))
        np.testing.assert_allclose(white, 1, atol=1e-6)
        black = camera.camera_rgb(np.zeros((2, 2, 3), np.uint8))
        np.testing.assert_allclose(black, 0, atol=1e-6)


def test_below_the_highlights_every_step_is_undone() -> None:
    camera = CAMERAS[0]
    photograph = codes(8, 8, highest=120)
    linear = camera.table[photograph].astype(np.float64)
    expected = np.einsum("cd,hwd->hwc", camera.matrix, linear) * camera.gains
    np.testing.assert_allclose(camera.camera_rgb(photograph), np.clip(expected, 0, 1), atol=1e-6)


@pytest.mark.parametrize("reduction", [2, 3])
def test_reduction_is_the_area_mean_of_light(reduction: int) -> None:
    photograph = codes(12, 18)
    light = photograph.astype(np.float64) / 255
    expected = [
        [
            light[row : row + reduction, column : column + reduction].mean(axis=(0, 1))
            for column in range(0, 18, reduction)
        ]
        for row in range(0, 12, reduction)
    ]
    np.testing.assert_allclose(LINEAR.camera_rgb(photograph, reduction), expected, atol=1e-6)


def test_a_pipeline_depends_on_the_generator_alone() -> None:
    first, again, other = (
        random_inverse_pipeline(np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.table, again.table)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    np.testing.assert_array_equal(first.gains, again.gains)
    assert (first.matrix != other.matrix).any()


def test_the_mosaic_is_what_an_rggb_sensor_keeps() -> None:
    light = np.random.default_rng(1).random((6, 8, 3), np.float32)
    planes = mosaic_planes(light)
    assert planes.shape == (4, 3, 4)
    for row in range(3):
        for column in range(4):
            red, green_by_red, green_by_blue, blue = planes[:, row, column]
            assert red == light[2 * row, 2 * column, 0]
            assert green_by_red == light[2 * row, 2 * column + 1, 1]
            assert green_by_blue == light[2 * row + 1, 2 * column, 1]
            assert blue == light[2 * row + 1, 2 * column + 1, 2]


def test_the_mosaic_is_what_the_runtime_packs() -> None:
    light = np.random.default_rng(2).random((10, 14, 3), np.float32)
    channel = np.tile([[0, 1], [1, 2]], (5, 7))
    mosaic = np.take_along_axis(light, channel[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_array_equal(mosaic_planes(light), pack(mosaic, Phase.RGGB))
