"""RAW files other than DNG to RawFrame: samples and facts from LibRaw, checked against the file.

Levels, phase, colours and margins of these formats stand in maker notes and in LibRaw's tables, by
camera; where the tables do not know the camera, the frame says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.color import SRGB_TO_XYZ
from cycleisp_runtime.dng import Tag, mosaic_directories
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area, Camera, Exposure, RawFrame
from cycleisp_runtime.readers import libraw
from cycleisp_runtime.readers.cfa import phase_from_libraw, phase_from_tags
from cycleisp_runtime.readers.libraw import LibRawFacts
from cycleisp_runtime.readers.limits import Limits
from cycleisp_runtime.readers.metadata import read_camera, read_exposure
from cycleisp_runtime.readers.plausibility import refuse_dark, refuse_frozen, signal_warnings
from cycleisp_runtime.readers.storage import check_extent
from cycleisp_runtime.tiff import Directory, Tiff

__all__ = ["read_vendor"]

_ORIENTATIONS = {0: 1, 1: 2, 3: 3, 2: 4, 4: 5, 6: 6, 7: 7, 5: 8}
"""LibRaw's flip -> EXIF orientation: the inverse of "50132467"[orientation % 8] in identify.cpp."""


def read_vendor(tags: Tiff | None, file: IO[bytes], source: Path, limits: Limits) -> RawFrame:
    """The Bayer frame of a camera's own RAW file, whose TIFF structure is ``tags`` if it has one.

    Raises:
        InputError: where it holds no Bayer mosaic, is cut short, or cannot be decoded within the
            limits.
    """
    mosaic = None if tags is None else _check_tags(tags)
    samples, facts = libraw.decode(file, source, limits)
    phase = phase_from_libraw(facts, facts.area_colors, source)
    area = _area(facts, source)
    visible = samples[area.slices]
    refuse_dark(visible, source)
    refuse_frozen(visible, facts.white, source)

    black = _by_position(facts)
    white_balance = _white_balance(facts)
    color_matrix = _color_matrix(facts)
    warnings = list(
        signal_warnings(visible, max(black), facts.white, black_is_known=max(black) > 0)
    )
    if tags is not None and mosaic is not None:
        warnings += _phase_warnings(tags, mosaic, facts, source)
    if not any(facts.xyz_to_camera):
        levels = f"black {max(black):g}, white {facts.white:g}"
        warnings.append(f"LibRaw does not know this camera: {levels} and its colours are guesses.")
    if white_balance is None:
        warnings.append("The file states no usable white balance.")
    return RawFrame(
        samples=samples,
        cfa=phase,
        black=black,
        white=facts.white,
        levels_from="libraw",
        area=area,
        white_balance=white_balance,
        color_matrix=color_matrix,
        orientation=_ORIENTATIONS.get(facts.flip, 1),
        exposure=_exposure(tags, facts),
        camera=Camera() if tags is None else read_camera(tags),
        source=source,
        warnings=tuple(warnings),
    )


def _check_tags(tags: Tiff) -> Directory | None:
    """The mosaic's directory where the tags show one, after refusing what they rule out."""
    found = mosaic_directories(tags)
    for directory in found:
        check_extent(tags, directory)
    if tags.data[8:10] == b"CR":  # Canon CR2: the mosaic is the fourth directory, without a mark
        for directory in tags.directories:
            if directory.path == "IFD3":
                check_extent(tags, directory)
    return found[0] if len(found) == 1 else None


def _area(facts: LibRawFacts, source: Path) -> Area:
    area = Area(*facts.area)
    bottom, right = area.top + area.height, area.left + area.width
    if min(area.height, area.width) < 2 or bottom > facts.height or right > facts.width:
        raise InputError(
            "the picture does not lie on the rows and columns of the sensor (Super CCD)",
            subject=source,
            hint="only 2x2 red-green-blue Bayer is supported",
        )
    return area


def _phase_warnings(
    tags: Tiff, directory: Directory, facts: LibRawFacts, source: Path
) -> tuple[str, ...]:
    if directory.get(Tag.CFARepeatPatternDim) is None or directory.get(Tag.CFAPattern) is None:
        return ()
    stored = phase_from_libraw(facts, facts.stored_colors, source)
    declared = phase_from_tags(tags, directory)
    if declared is stored:
        return ()
    return (f"The file declares {declared.value} filters, LibRaw {stored.value}, which is used.",)


def _by_position(facts: LibRawFacts) -> tuple[float, float, float, float]:
    """Black of each cell position of the area: LibRaw's are by colour index."""
    a, b, c, d = (facts.black[color] for color in facts.area_colors)
    return a, b, c, d


def _white_balance(facts: LibRawFacts) -> tuple[float, float, float] | None:
    red, green, blue, _ = facts.white_balance
    if min(red, green, blue) <= 0:
        return None
    return red / green, 1.0, blue / green


def _color_matrix(facts: LibRawFacts) -> npt.NDArray[np.float64] | None:
    """XYZ to camera for D65: LibRaw's own, or through sRGB from the one it found in the file."""
    own = np.array(facts.xyz_to_camera).reshape(3, 3)
    if np.linalg.matrix_rank(own) == 3:
        return own
    through_srgb = SRGB_TO_XYZ @ np.array(facts.camera_to_srgb).reshape(3, 3)
    if np.linalg.matrix_rank(through_srgb) < 3:
        return None
    inverse: npt.NDArray[np.float64] = np.linalg.inv(through_srgb)
    return inverse


def _exposure(tags: Tiff | None, facts: LibRawFacts) -> Exposure:
    """From the tags, completed by what LibRaw found in maker notes."""
    stated = Exposure() if tags is None else read_exposure(tags)

    def positive(value: float | None) -> float | None:
        return value if value is not None and value > 0 else None

    return Exposure(
        iso=stated.iso or positive(facts.iso),
        shutter_s=stated.shutter_s or positive(facts.shutter_s),
        aperture=stated.aperture or positive(facts.aperture),
        focal_length_mm=stated.focal_length_mm or positive(facts.focal_length_mm),
        bias_ev=stated.bias_ev,
        taken=stated.taken,
    )
