"""Pairs of RAW and sRGB of one scene: what the camera pipeline's networks learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cycleisp.data.inverse_pipeline import CameraLaw, mosaic_planes, random_inverse_pipeline
from cycleisp.data.photographs import random_patch
from cycleisp_runtime.errors import SettingsError

__all__ = [
    "CAMERAS",
    "HELD_OUT_SIDE",
    "CameraPair",
    "MixedPairs",
    "PairSource",
    "SimulatedPairs",
    "camera_law",
]

HELD_OUT_SIDE = 160
"""Pixels; in the middle of a picture there are detail and flat places, and 24 of them take a
network of size ``small`` a few seconds."""


@dataclass(frozen=True)
class CameraPair:
    """One scene as the sensor saw it and as the camera rendered it, without noise.

    Attributes:
        raw: (4, h, w) float32, packed R, Gr, Gb, B, normalised, in [0, 1].
        rgb: (3, 2h, 2w) float32, sRGB in [0, 1].
    """

    raw: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.float32]


class PairSource(Protocol):
    """Where pairs come from."""

    def draw(self, rng: np.random.Generator) -> CameraPair:
        """A random training patch; its side is a matter of the source."""

    def held_out(self) -> Mapping[str, CameraPair]:
        """What is never trained on, by name; the same every time."""


CAMERAS = {
    "many": CameraLaw(
        red_gain=(1.4, 2.6),
        blue_gain=(1.3, 2.2),
        brightness_spread=0.05,
        tones=(0.5, 0.75, 1.0),
        matrices=(0, 1, 2),
    ),
    "one": CameraLaw(
        red_gain=(2.0, 2.0),
        blue_gain=(1.7, 1.7),
        brightness_spread=0.0,
        tones=(1.0,),
        matrices=(0,),
    ),
    "new": CameraLaw(
        red_gain=(1.4, 2.6),
        blue_gain=(1.3, 2.2),
        brightness_spread=0.05,
        tones=(0.5, 0.75, 1.0),
        matrices=(3,),
    ),
}
"""Simulated cameras by name: many, one and the same, and one kind that ``many`` does not hold."""


def camera_law(name: str) -> CameraLaw:
    """The law of this name.

    Raises:
        SettingsError: where there is none; the known ones are listed.
    """
    try:
        return CAMERAS[name]
    except KeyError:
        raise SettingsError(
            "no such cameras", met=name, wanted=f"one of: {', '.join(CAMERAS)}"
        ) from None


@dataclass(frozen=True)
class SimulatedPairs:
    """Photographs, and the RAW that random cameras would have made them of.

    Attributes:
        pictures: sRGB codes (H, W, 3) to train on, by name.
        validation: the same, never trained on.
        cameras: how likely each camera is.
        patch: side of the RAW in packed samples.
    """

    pictures: Mapping[str, npt.NDArray[np.uint8]]
    validation: Mapping[str, npt.NDArray[np.uint8]]
    cameras: CameraLaw
    patch: int

    def draw(self, rng: np.random.Generator) -> CameraPair:
        """A random patch of a random photograph, flipped and turned, by a random camera."""
        pictures = list(self.pictures.values())
        codes = random_patch(pictures[int(rng.integers(len(pictures)))], 2 * self.patch, rng)
        return self._pair(codes, rng)

    def held_out(self) -> dict[str, CameraPair]:
        """The middle of every validation picture, each by one camera of the law."""
        pairs = {}
        for index, (name, picture) in enumerate(self.validation.items()):
            side = min(HELD_OUT_SIDE, *(extent // 2 * 2 for extent in picture.shape[:2]))
            top, left = ((extent - side) // 2 for extent in picture.shape[:2])
            codes = picture[top : top + side, left : left + side]
            pairs[name] = self._pair(codes, np.random.default_rng(index))
        return pairs

    def _pair(self, codes: npt.NDArray[np.uint8], rng: np.random.Generator) -> CameraPair:
        camera = random_inverse_pipeline(rng, self.cameras)
        rgb = np.ascontiguousarray(codes.transpose(2, 0, 1), np.float32) / np.float32(255)
        return CameraPair(mosaic_planes(camera.camera_rgb(codes)), rgb)


@dataclass(frozen=True)
class MixedPairs:
    """Pairs of real cameras and simulated ones.

    Attributes:
        real: from RAW files.
        simulated: from photographs.
        real_share: how often a training patch is a real one, in [0, 1].
    """

    real: PairSource
    simulated: PairSource
    real_share: float

    def draw(self, rng: np.random.Generator) -> CameraPair:
        """A random training patch of one of the two."""
        source = self.real if rng.random() < self.real_share else self.simulated
        return source.draw(rng)

    def held_out(self) -> dict[str, CameraPair]:
        """What both hold out."""
        return {**self.simulated.held_out(), **self.real.held_out()}
