"""A RAW frame in memory: samples, what they mean, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import PLANES, Phase
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.noise import NoiseModel

__all__ = ["Area", "Camera", "Exposure", "FloatFrame", "LevelsSource", "RawFrame"]

LevelsSource = Literal["file", "default", "libraw", "layout", "memory"]
"""Where black and white are known from: tags of the file; the DNG specification, for a level that
the file does not state; LibRaw and its table of cameras; the layout given with a dump; the program
that made the frame."""


class Area(NamedTuple):
    """A rectangle of the stored frame, in samples."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices that cut this rectangle out of the stored frame."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


@dataclass(frozen=True)
class Camera:
    """Names as the file writes them; empty where it says nothing."""

    make: str = ""
    model: str = ""

    def __str__(self) -> str:
        brand = self.make.lower().partition(" ")[0]
        if self.model.lower().startswith(brand):
            return self.model
        return f"{self.make} {self.model}".strip()


@dataclass(frozen=True)
class Exposure:
    """How the frame was taken; None where the file says nothing or nothing usable."""

    iso: float | None = None
    shutter_s: float | None = None
    aperture: float | None = None
    focal_length_mm: float | None = None
    bias_ev: float | None = None
    taken: str | None = None
    """Date and time as EXIF writes it, "YYYY:MM:DD HH:MM:SS"."""


@dataclass(frozen=True)
class RawFrame:
    """A Bayer frame as the sensor delivered it.

    Attributes:
        samples: (H, W) uint16, the stored frame with any masked border, not turned, in DN.
        cfa: phase at the top left corner of ``area``.
        black: DN of zero light per cell position (row by row) at the corner of ``area``.
        white: DN of saturation; above every black level.
        levels_from: where black and white are known from.
        area: the part that holds the picture; the rest is masked and is never denoised.
        black_rows: (area.height,) float64, DN added to ``black`` per row of ``area``, or None.
        black_columns: (area.width,) float64, the same per column, or None.
        white_balance: gains of R, G, B with G = 1, or None where the file has no usable ones.
        color_matrix: (3, 3) float64, XYZ to camera R, G, B for D65, or None.
        orientation: EXIF 1..8, the turn that a viewer applies.
        noise_profile: noise that the file itself declares for this frame, or None.
        reserved_dn: a DN that marks samples as defective (DNG FixBadPixelsConstant); these samples
            pass through unchanged. None where there is no such mark.
        source: the file, or None for a frame from memory.
        warnings: what a reader had to guess or repair, one sentence each.

    Raises:
        InputError: where these facts contradict each other.
    """

    samples: npt.NDArray[np.uint16]
    cfa: Phase
    black: tuple[float, float, float, float]
    white: float
    area: Area
    black_rows: npt.NDArray[np.float64] | None = None
    black_columns: npt.NDArray[np.float64] | None = None
    white_balance: tuple[float, float, float] | None = None
    color_matrix: npt.NDArray[np.float64] | None = None
    orientation: int = 1
    exposure: Exposure = field(default_factory=Exposure)
    camera: Camera = field(default_factory=Camera)
    noise_profile: NoiseModel | None = None
    reserved_dn: int | None = None
    source: Path | None = None
    levels_from: LevelsSource = "memory"
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        area = self.area
        _check_samples(self.samples, np.dtype(np.uint16), self.source)
        height, width = self.samples.shape
        inside = (
            0 <= area.top
            and 0 <= area.left
            and area.top + area.height <= height
            and area.left + area.width <= width
        )
        if not inside or area.height < 2 or area.width < 2:
            raise InputError(
                "the picture area is smaller than one 2x2 cell or leaves the stored frame",
                subject=self.source,
                met=f"{area.width}x{area.height} at ({area.left}, {area.top})",
                wanted=f"at least 2x2, inside {width}x{height}",
            )
        _check_cell(self.cfa, self.black, self.white, self.source)

    @property
    def visible(self) -> npt.NDArray[np.uint16]:
        """(area.height, area.width) uint16 view of the picture, without masked samples, in DN."""
        return self.samples[self.area.slices]

    def with_samples(self, samples: npt.NDArray[np.uint16], *, scale: int = 1) -> RawFrame:
        """The same frame with other samples, its levels multiplied by ``scale``."""
        a, b, c, d = self.black
        return replace(
            self,
            samples=samples,
            black=(a * scale, b * scale, c * scale, d * scale),
            white=self.white * scale,
            black_rows=None if self.black_rows is None else self.black_rows * scale,
            black_columns=None if self.black_columns is None else self.black_columns * scale,
            reserved_dn=None if self.reserved_dn is None else self.reserved_dn * scale,
        )


@dataclass(frozen=True)
class FloatFrame:
    """A Bayer frame whose samples are float32: what a program has that computed on them before.

    Attributes:
        samples: (H, W) float32, in the units of the levels, all of it picture.
        cfa: phase at the top left corner.
        black: value of zero light per cell position, row by row.
        white: value of saturation; above every black level.

    Raises:
        InputError: where these facts contradict each other.
    """

    samples: npt.NDArray[np.float32]
    cfa: Phase
    black: tuple[float, float, float, float]
    white: float
    black_rows: ClassVar[None] = None
    black_columns: ClassVar[None] = None
    reserved_dn: ClassVar[None] = None

    def __post_init__(self) -> None:
        _check_samples(self.samples, np.dtype(np.float32))
        _check_cell(self.cfa, self.black, self.white)

    @property
    def area(self) -> Area:
        """All of it."""
        return Area(0, 0, *self.samples.shape)

    @property
    def visible(self) -> npt.NDArray[np.float32]:
        """The samples: none of them is masked."""
        return self.samples


def _check_samples(
    samples: npt.NDArray[np.generic], dtype: np.dtype[np.generic], source: Path | None = None
) -> None:
    if samples.ndim != 2 or samples.dtype != dtype or min(samples.shape) < 2:
        raise InputError(
            f"a RAW frame is a 2-D array of {dtype}",
            subject=source,
            met=f"{samples.dtype} {samples.shape}",
            wanted=f"{dtype} (H, W), at least 2x2",
        )


def _check_cell(
    cfa: Phase, black: tuple[float, ...], white: float, source: Path | None = None
) -> None:
    if not isinstance(cfa, Phase):
        raise InputError("not a phase", subject=source, met=cfa, wanted=" | ".join(map(str, Phase)))
    if len(black) != len(PLANES):
        raise InputError(
            "every position of the 2x2 cell has its black level",
            subject=source,
            met=f"black {black}",
            wanted="four, row by row",
        )
    if not np.isfinite([*black, white]).all() or white <= max(black):
        raise InputError(
            "the white level is not above the black level",
            subject=source,
            met=f"black {black}, white {white}",
            wanted="finite levels, white above every black",
        )
