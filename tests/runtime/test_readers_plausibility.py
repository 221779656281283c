"""Samples that contradict what the file says about them, and samples that do not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.readers.plausibility import refuse_dark, refuse_frozen, signal_warnings

Samples = npt.NDArray[np.uint16]


def a_scene(*, black: float = 600, white: float = 15520, noise: float = 40) -> Samples:
    """A Bayer frame of a coloured gradient with shadows and a saturated corner."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[0:128, 0:160] / 160
    light = (rows + columns) ** 2
    light[::2, ::2] *= 0.5
    light[1::2, 1::2] *= 0.7
    dn = black + light * (white - black) + random.normal(0, noise, light.shape)
    clipped: Samples = np.clip(dn, 0, white).astype(np.uint16)
    return clipped


def said(samples: Samples, *, black: float = 600, white: float = 15520) -> str:
    return " ".join(signal_warnings(samples, black, white, black_is_known=True))


def test_a_scene_with_right_levels_raises_no_doubt() -> None:
    assert said(a_scene()) == ""
    assert signal_warnings(a_scene(black=0), 0, 15520, black_is_known=False) == ()


def test_a_dark_frame_and_a_very_noisy_one_raise_no_doubt() -> None:
    dark = np.random.default_rng(1).normal(60, 1, (128, 160)).round().astype(np.uint16)
    assert said(dark, black=60, white=1023) == ""
    assert said(a_scene(noise=250)) == ""


def test_an_unstated_black_level_of_zero_is_doubted_where_nothing_is_dark() -> None:
    bright = np.maximum(a_scene(), 654)
    (warning,) = signal_warnings(bright, 0, 15520, black_is_known=False)
    assert warning == "The black level 0 is doubtful: the darkest sample is 654."


@pytest.mark.parametrize(
    ("black", "white", "doubt"),
    [
        (2400, 15520, "black level 2400 seems too high"),
        (600, 3880, "white level 3880 seems too low"),
        (600, 65535, "white level 65535 seems too high: samples saturate at 15520"),
    ],
)
def test_wrong_levels_are_doubted(black: float, white: float, doubt: str) -> None:
    assert doubt in said(a_scene(), black=black, white=white)


def test_a_frame_of_one_value_holds_no_picture() -> None:
    assert said(np.full((32, 32), 700, np.uint16)).startswith("Every sample is 700")


@pytest.mark.parametrize("first_row", [0, 1])
def test_quad_bayer_data_are_recognised_however_they_are_aligned(first_row: int) -> None:
    quad = a_scene().repeat(2, 0).repeat(2, 1)[first_row:, first_row:]
    noise = np.random.default_rng(2).normal(0, 30, quad.shape)
    assert "quad-Bayer" in said((quad + 100 + noise).astype(np.uint16))


def test_stripes_in_one_direction_are_not_taken_for_quad_bayer() -> None:
    stripes = np.resize(np.repeat(np.arange(64) % 2 * 4000 + 1000, 2), (128, 128))
    noise = np.random.default_rng(2).normal(0, 30, stripes.shape)
    assert said((stripes + noise).astype(np.uint16)) == ""


def test_a_grey_scene_is_not_taken_for_quad_bayer() -> None:
    grey = np.random.default_rng(3).normal(3000, 50, (200, 200)).astype(np.uint16)
    assert said(grey) == ""


def test_a_frame_of_zeros_is_refused() -> None:
    with pytest.raises(InputError, match="no signal"):
        refuse_dark(np.zeros((4, 4), np.uint16), None)
    refuse_dark(np.eye(4, dtype=np.uint16), None)


@pytest.mark.parametrize("fill", ["zeros", "last row"])
def test_rows_that_a_decoder_filled_are_refused(fill: str) -> None:
    scene = a_scene()
    refuse_frozen(scene, 15520, None)
    scene[100:] = 0 if fill == "zeros" else np.resize(scene[98:100], (28, 160))
    with pytest.raises(InputError, match=r"last rows repeat \(met 2[678] of 128 rows"):
        refuse_frozen(scene, 15520, None)


def test_a_saturated_sky_at_the_bottom_is_no_lost_data() -> None:
    scene = a_scene()
    scene[60:] = 15520
    refuse_frozen(scene, 15520, None)
