"""Pairs of RAW and sRGB: the same scene, cell by cell, by the camera that was asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from cycleisp.data import camera_pairs
from cycleisp.data.camera_pairs import (
    CAMERAS,
    HELD_OUT_SIDE,
    CameraPair,
    MixedPairs,
    SimulatedPairs,
    camera_law,
)
from cycleisp.data.inverse_pipeline import CameraLaw, InversePipeline
from cycleisp_runtime.errors import SettingsError

PICTURES = {
    name: np.random.default_rng(index).integers(0, 256, (sides[0], sides[1], 3), np.uint8)
    for index, (name, sides) in enumerate({"a": (90, 70), "b": (200, 51), "c": (301, 181)}.items())
}


def simulated(cameras: str = "many", patch: int = 16) -> SimulatedPairs:
    return SimulatedPairs(PICTURES, PICTURES, camera_law(cameras), patch)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(name="plain_camera")
def camera_that_sees_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = InversePipeline(
        np.linspace(0, 1, 256, dtype=np.float32),
        np.eye(3, dtype=np.float32),
        np.ones(3, np.float32),
    )
    monkeypatch.setattr(camera_pairs, "random_inverse_pipeline", lambda _rng, _law: camera)


def assert_same_scene(pair: CameraPair) -> None:
    """For a camera that sees codes / 255: RAW is what an RGGB sensor keeps of the sRGB."""
    red, green, blue = pair.rgb
    for plane, channel, (row, column) in zip(
        pair.raw, (red, green, green, blue), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True
    ):
        # A table of float32 and a division by 255 differ in the last place.
        np.testing.assert_allclose(plane, channel[row::2, column::2], atol=1e-6)


@pytest.mark.usefixtures("plain_camera")
def test_raw_and_srgb_are_of_the_same_cells() -> None:
    source = simulated()
    for seed in range(32):
        assert_same_scene(source.draw(rng(seed)))
    for pair in source.held_out().values():
        assert_same_scene(pair)


@pytest.mark.parametrize("cameras", CAMERAS)
def test_a_pair_is_normalised(cameras: str) -> None:
    for seed in range(8):
        pair = simulated(cameras, patch=18).draw(rng(seed))
        assert (pair.raw.shape, pair.rgb.shape) == ((4, 18, 18), (3, 36, 36))
        for array in (pair.raw, pair.rgb):
            assert array.dtype == np.float32
            assert array.min() >= 0
            assert array.max() <= 1


def test_a_pair_is_a_function_of_the_generator() -> None:
    source = simulated()
    first, again, other = (source.draw(rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.raw, again.raw)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert (first.rgb != other.rgb).any()


def test_what_is_held_out_is_the_same_every_time_and_the_middle_of_each() -> None:
    first, again = simulated().held_out(), simulated().held_out()
    assert list(first) == list(again) == list(PICTURES)
    for name, pair in first.items():
        np.testing.assert_array_equal(pair.raw, again[name].raw)
        picture = PICTURES[name]
        side = pair.rgb.shape[1]
        assert pair.rgb.shape == (3, side, side)
        assert side == min(HELD_OUT_SIDE, *(extent // 2 * 2 for extent in picture.shape[:2]))
        top, left = ((extent - side) // 2 for extent in picture.shape[:2])
        codes = np.round(255 * pair.rgb).transpose(1, 2, 0)
        np.testing.assert_array_equal(codes, picture[top : top + side, left : left + side])


def law_of(pair: CameraPair) -> npt.NDArray[np.float32]:
    """RAW of mid grey: one camera's, for they keep grey grey up to gains."""
    return pair.raw[:, 0, 0]


def greys(cameras: CameraLaw) -> npt.NDArray[np.float32]:
    grey = {"grey": np.full((40, 40, 3), 128, np.uint8)}
    source = SimulatedPairs(grey, grey, cameras, 16)
    return np.stack([law_of(source.draw(rng(seed))) for seed in range(24)])


def test_one_camera_is_always_the_same() -> None:
    one = greys(camera_law("one"))
    np.testing.assert_array_equal(one, np.broadcast_to(one[0], one.shape))


def test_many_cameras_differ_within_their_law() -> None:
    many = camera_law("many")
    red, green, _, blue = greys(many).T
    for gains, (low, high) in ((green / red, many.red_gain), (green / blue, many.blue_gain)):
        # Grey is below the highlights, where gains hold as they are, up to float32.
        assert gains.min() >= low - 1e-3
        assert gains.max() <= high + 1e-3
        assert np.ptp(gains) > 0.5 * (high - low)


def test_new_cameras_are_none_of_the_many() -> None:
    new, many = camera_law("new"), camera_law("many")
    assert not set(new.matrices) & set(many.matrices)
    assert replace(new, matrices=many.matrices) == many


def test_unknown_cameras_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"met several, wanted one of: many, one, new"):
        camera_law("several")


@dataclass(frozen=True)
class Constant:
    """A source whose every sample is one number."""

    name: str
    value: float

    def draw(self, rng: np.random.Generator) -> CameraPair:
        value = np.float32(self.value + 0 * rng.random())
        return CameraPair(np.full((4, 2, 2), value), np.full((3, 4, 4), value))

    def held_out(self) -> dict[str, CameraPair]:
        return {self.name: self.draw(rng())}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_real_and_simulated_pairs_mix_by_their_share(share: float) -> None:
    mixed = MixedPairs(Constant("real", 1.0), Constant("simulated", 0.0), share)
    values = [float(mixed.draw(rng(seed)).raw.mean()) for seed in range(400)]
    # Three deviations of 400 draws at a quarter; none at the ends.
    assert np.mean(values) == pytest.approx(share, abs=0.065 if 0 < share < 1 else 0)
    assert set(mixed.held_out()) == {"real", "simulated"}
