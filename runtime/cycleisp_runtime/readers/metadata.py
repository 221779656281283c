"""Camera, exposure and orientation from TIFF and Exif tags, none of which a file must have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Camera, Exposure
from cycleisp_runtime.tiff import Directory, Tiff, shown

__all__ = ["optional_numbers", "read_camera", "read_exposure", "read_orientation"]

_LONGEST_NAME = 64
_DATE = re.compile(r"(?!0000)\d{4}:\d\d:\d\d \d\d:\d\d:\d\d")


def optional_numbers(
    tiff: Tiff, directories: Iterable[Directory], tag: Tag
) -> tuple[float, ...] | None:
    """The numbers of a tag in the first directory that has it; empty where they are unreadable.

    For tags that the frame can do without: None means absent.
    """
    for directory in directories:
        if directory.get(tag) is not None:
            try:
                return tiff.find(directory, tag)
            except InputError:
                return ()
    return None


def read_camera(tiff: Tiff) -> Camera:
    """Maker and model; a DNG's UniqueCameraModel where there is no model."""
    return Camera(
        make=_text(tiff, Tag.Make),
        model=_text(tiff, Tag.Model) or _text(tiff, Tag.UniqueCameraModel),
    )


def read_exposure(tiff: Tiff) -> Exposure:
    """Exposure data from the Exif directory, or from the main ones where writers put them too."""
    taken = _text(tiff, Tag.DateTimeOriginal) or _text(tiff, Tag.DateTime)
    bias_ev = _number(tiff, Tag.ExposureBiasValue)
    return Exposure(
        iso=_positive(tiff, Tag.PhotographicSensitivity),
        shutter_s=_positive(tiff, Tag.ExposureTime),
        aperture=_positive(tiff, Tag.FNumber),
        focal_length_mm=_positive(tiff, Tag.FocalLength),
        bias_ev=bias_ev if bias_ev is not None and math.isfinite(bias_ev) else None,
        taken=taken if _DATE.fullmatch(taken) else None,
    )


def read_orientation(tiff: Tiff) -> tuple[int, tuple[str, ...]]:
    """The turn a viewer applies (EXIF 1..8, 1 where none is stated), and warnings."""
    values = optional_numbers(tiff, tiff.directories[:1], Tag.Orientation)
    if values is None:
        return 1, ()
    if len(values) == 1 and values[0] in range(1, 9):
        return int(values[0]), ()
    met = shown(values) or "unreadable"
    return 1, (f"Orientation ({met}) does not exist; 1 (upright) is used.",)


def _exif_first(tiff: Tiff) -> list[Directory]:
    return sorted(tiff.directories, key=lambda directory: not directory.path.endswith("Exif"))


def _number(tiff: Tiff, tag: Tag) -> float | None:
    values = optional_numbers(tiff, _exif_first(tiff), tag)
    return values[0] if values else None


def _positive(tiff: Tiff, tag: Tag) -> float | None:
    """A number that makes sense only above zero; cameras write 0 or n/0 for "unknown"."""
    value = _number(tiff, tag)
    return value if value is not None and 0 < value < math.inf else None


def _text(tiff: Tiff, tag: Tag) -> str:
    """Text of a tag, bounded, without what a terminal would obey."""
    for directory in _exif_first(tiff):
        entry = directory.get(tag)
        if entry is not None:
            try:
                text = tiff.text(entry)
            except InputError:
                return ""
            return "".join(filter(str.isprintable, text)).strip()[:_LONGEST_NAME]
    return ""
