"""A file and the views of it that tiles are cut from.

RAW frame    one view, with the noise that the file declares or shows
photograph   for RAW: one view per noise level, each what a sensor would have recorded of it
picture      for sRGB: one view as it is, or one per noise level
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from cycleisp_calibration.measures import GAMMA, Planes
from cycleisp_runtime.bayer import Phase, packed_size
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import LEVELS, NoiseModel
from cycleisp_runtime.noise_source import NoiseChoice, choose_noise
from cycleisp_runtime.readers import check_file, read_frame
from cycleisp_runtime.tiles import Core, MosaicTiles, TilePlan, plan_tiles

__all__ = ["Place", "Task", "Tile", "View", "is_picture", "open_views", "sensor_frame"]

Task = Literal["raw", "srgb"]

_PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"})
_PICTURE_MODES = frozenset({"L", "P", "RGB", "RGBA"})
_MAX_PIXELS = 1 << 26

_GAINS = (2.0, 1.0, 1.6)
"""White balance of R, G, B that photographs had, and RAW frames that name none are shown with:
daylight on most sensors (T. Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR
2019, section 3.4, draws red from 1.9..2.4 and blue from 1.5..1.9)."""

_BLACK, _WHITE = 4096.0, 65535.0
"""Of simulated frames. The pedestal keeps four deviations of the read noise of the high level."""

_LIGHT = np.linspace(0, 1, 256, dtype=np.float32) ** np.float32(GAMMA)
"""(256,) float32: a code of a picture to linear light."""

_SCALE_SIDE = 512
"""Packed samples of a frame that are normalised at a time to find its noise scale."""

Codes = npt.NDArray[np.uint8]


class Place(NamedTuple):
    """Corner of a tile: in packed samples of a RAW frame, in pixels of a picture."""

    top: int
    left: int


@dataclass(frozen=True)
class Tile:
    """A tile as a network and as a person sees it.

    Attributes:
        inputs: float32 by the name of the graph's input. RAW: ``noisy`` and ``variance``
            (4, s, s), R, Gr, Gb, B, normalised, and ``noise_scale`` (1, 1, 1) of the frame.
            sRGB: ``noisy`` (3, s, s), R, G, B in [0, 1].
        light: (3, s, s) float32, linear R, G, B, white at 1, not white-balanced, as noisy.
        balanced: the same with white balance, to look at.
    """

    inputs: dict[str, Planes]
    light: Planes
    balanced: Planes


class View(Protocol):
    """A frame or picture that tiles can be cut from."""

    @property
    def choice(self) -> NoiseChoice | None:
        """Its noise and where that is known from; None for a picture as it is."""

    def places(self) -> list[Place]:
        """A grid of tiles that do not overlap and lie wholly inside, row by row."""

    def cut(self, place: Place) -> Tile:
        """The tile at this place."""


def is_picture(path: Path) -> bool:
    """Whether a file is taken for a rendered picture, by its suffix; all others are RAW."""
    return path.suffix.lower() in _PICTURE_SUFFIXES


def open_views(
    path: Path, task: Task, levels: Sequence[NoiseModel], side: int, seed: Sequence[int]
) -> Iterator[View]:
    """The views of one file, one after the other, each with its own noise.

    Args:
        path: the file.
        task: which network the tiles are for.
        levels: noise to put on a photograph; empty for the low, middle and high level in RAW, and
            for pictures as they are in sRGB. RAW frames have their own.
        side: of a tile: in packed samples for RAW, in pixels for sRGB.
        seed: of the noise.

    Raises:
        InputError: where the file cannot be read, or is RAW where sRGB is wanted.
        CalibrationError: where the noise of a RAW frame is neither declared nor to be seen.
    """
    if not is_picture(path):
        if task == "srgb":
            raise InputError(
                "a RAW file has no sRGB tiles",
                subject=path,
                hint="render it first: cycleisp denoise --strength 0 --format png",
            )
        frame = read_frame(path)
        yield RawView(frame, choose_noise(frame), side)
        return
    codes = _load_codes(path)
    if task == "srgb" and not levels:
        yield PictureView(codes, None, side, seed)
        return
    models = levels or [NoiseModel.uniform(*level) for level in LEVELS.values()]
    for number, model in enumerate(models):
        choice = NoiseChoice(model, "given")
        if task == "srgb":
            yield PictureView(codes, choice, side, [*seed, number])
        else:
            rng = np.random.default_rng([*seed, number])
            yield RawView(sensor_frame(codes, model, rng), choice, side)


def _load_codes(path: Path) -> Codes:
    """Codes (H, W, 3) R, G, B of a picture of 8 bits."""
    try:
        check_file(path)
        with Image.open(path) as image:
            if image.mode not in _PICTURE_MODES or image.width * image.height > _MAX_PIXELS:
                raise InputError(
                    "not a picture of 8 bits, or too large",
                    subject=path,
                    met=f"{image.mode}, {image.width}x{image.height}",
                    wanted=f"RGB of at most {_MAX_PIXELS} pixels",
                )
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise InputError("the picture is too large", subject=path, hint="reduce it") from error
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken chunk of a PNG
        raise InputError("not a readable picture", subject=path) from error


def sensor_frame(photograph: Codes, noise: NoiseModel, rng: np.random.Generator) -> RawFrame:
    """What an RGGB sensor with this noise would have recorded of a clean photograph, 16 bits.

    Gamma 2.2 and white balance are undone, a mosaic is taken, and normal noise of variance
    shot * x + read added; samples clip at white. An odd last row or column is left out. Tone curve
    and colour matrix of the camera are not undone.

    Args:
        photograph: (H, W, 3) sRGB codes R, G, B.
        noise: of every pixel, in normalised units.
        rng: draws the noise.
    """
    height, width = (extent // 2 * 2 for extent in photograph.shape[:2])
    samples = np.empty((height, width), np.uint16)
    for plane, (row, column) in enumerate(Phase.RGGB.plane_offsets):
        channel = (0, 1, 1, 2)[plane]
        light = _LIGHT[photograph[row:height:2, column:width:2, channel]]
        light /= np.float32(_GAINS[channel])
        deviation = np.sqrt(light * np.float32(noise.shot[plane]) + np.float32(noise.read[plane]))
        light += deviation * rng.standard_normal(light.shape, dtype=np.float32)
        dn = np.rint(light * np.float32(_WHITE - _BLACK) + np.float32(_BLACK))
        samples[row::2, column::2] = np.clip(dn, 0, _WHITE)
    return RawFrame(
        samples,
        Phase.RGGB,
        (_BLACK,) * 4,
        _WHITE,
        Area(0, 0, height, width),
        white_balance=_GAINS,
    )


class RawView:
    """A RAW frame whose tiles are cut as the denoiser cuts them."""

    def __init__(self, frame: RawFrame, choice: NoiseChoice, side: int) -> None:
        self.frame = frame
        self.choice = choice
        self._side = side
        self._tiles = MosaicTiles(frame, choice.model, TilePlan((), 0, side, side))
        size = packed_size(frame.area.height, frame.area.width, frame.cfa)
        plan = plan_tiles(*size, side=_SCALE_SIDE, halo=0, multiple_of=1)
        noisy, variance = np.empty((2, 4, plan.height, plan.width), np.float32)
        scale = MosaicTiles(frame, choice.model, plan).noise_scale(noisy, variance)
        self._noise_scale = np.full((1, 1, 1), scale, np.float32)

    def places(self) -> list[Place]:
        """A grid of tiles that do not overlap, without the cells that the border cuts through."""
        red, area = self.frame.cfa.red, self.frame.area
        rows = (area.height + red.row) // 2 - red.row
        columns = (area.width + red.column) // 2 - red.column
        return [
            Place(red.row + top, red.column + left)
            for top, left in _grid(rows, columns, self._side)
        ]

    def cut(self, place: Place) -> Tile:
        """The tile at this place, with the noise scale of the whole frame."""
        noisy, variance = np.empty((2, 4, self._side, self._side), np.float32)
        self._tiles.cut(Core(*place, self._side, self._side), noisy, variance)
        light = noisy[[0, 1, 3]]
        gains = np.array(self.frame.white_balance or _GAINS, np.float32)[:, None, None]
        inputs = {"noisy": noisy, "variance": variance, "noise_scale": self._noise_scale}
        return Tile(inputs, light, light * gains)


class PictureView:
    """An sRGB picture as it is, or with a sensor's noise rendered into it.

    The noise is added in linear light to all three colours and rendered with the gamma and white
    balance that were undone, rounded to 8 bits: fine-grained, as before any demosaicking.
    """

    def __init__(
        self, codes: Codes, choice: NoiseChoice | None, side: int, seed: Sequence[int]
    ) -> None:
        self.choice = choice
        self._codes = codes
        self._side = side
        self._seed = seed

    def places(self) -> list[Place]:
        """A grid of tiles that do not overlap, in the middle of the picture."""
        height, width = self._codes.shape[:2]
        return _grid(height, width, self._side)

    def cut(self, place: Place) -> Tile:
        """The tile at this place; its noise is the same at every call."""
        top, left = place
        codes = self._codes[top : top + self._side, left : left + self._side].transpose(2, 0, 1)
        gains = np.array(_GAINS, np.float32)[:, None, None]
        if self.choice is not None:
            light = _LIGHT[codes] / gains
            variance = self.choice.model.variance(light[[0, 1, 1, 2]])[[0, 1, 3]]
            rng = np.random.default_rng([*self._seed, top, left])
            light += np.sqrt(variance) * rng.standard_normal(light.shape, dtype=np.float32)
            rendered = np.clip(light * gains, 0, 1) ** np.float32(1 / GAMMA)
            codes = np.rint(rendered * np.float32(255)).astype(np.uint8)
        noisy = codes.astype(np.float32) / np.float32(255)
        balanced = _LIGHT[codes]
        return Tile({"noisy": noisy}, balanced / gains, balanced)


def _grid(rows: int, columns: int, side: int) -> list[Place]:
    """Corners of the squares that fit, what is left over shared by both borders."""
    return [
        Place(top, left)
        for top in range(rows % side // 2, rows - side + 1, side)
        for left in range(columns % side // 2, columns - side + 1, side)
    ]
