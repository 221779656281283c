"""White balance, colour matrix and noise profile of a DNG; an unusable one is left out, and said.

DNG 1.7.1, chapter 4: AsShotNeutral, ColorMatrix1..3, CalibrationIlluminant1..3, NoiseProfile.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.readers.metadata import optional_numbers
from cycleisp_runtime.tiff import Directory, Tiff, shown

__all__ = ["read_color_matrix", "read_noise_profile", "read_white_balance"]

_LARGEST_GAIN = 64.0
"""Six stops between two colours; real lights stay below three."""

_MATRIX_TAGS = (
    (Tag.ColorMatrix1, Tag.CalibrationIlluminant1),
    (Tag.ColorMatrix2, Tag.CalibrationIlluminant2),
    (Tag.ColorMatrix3, Tag.CalibrationIlluminant3),
)
_NEAREST_TO_D65 = (21, 10, 1, 20, 22, 23, 4, 11, 9)
"""EXIF LightSource codes of daylights: D65, cloudy, daylight, D55, D75, D50, flash, shade, fine."""

_PLAUSIBLE_SHOT = (1e-7, 0.1)
"""A full well of ten million electrons, and one of ten: no sensor lies outside."""

_PLAUSIBLE_READ = 0.05
"""A standard deviation of 22 % of full scale in the dark: nothing would be left of a picture."""


def read_white_balance(
    tiff: Tiff,
) -> tuple[tuple[float, float, float] | None, tuple[str, ...]]:
    """Gains of R, G, B with G = 1, from AsShotNeutral, and warnings."""
    neutral = optional_numbers(tiff, tiff.directories, Tag.AsShotNeutral)
    if neutral is None:
        return None, ("The file states no white balance.",)
    if len(neutral) == 3 and all(0 < value < np.inf for value in neutral):
        red, blue = neutral[1] / neutral[0], neutral[1] / neutral[2]
        if all(1 / _LARGEST_GAIN < gain < _LARGEST_GAIN for gain in (red, blue)):
            return (red, 1.0, blue), ()
    return None, ("The white balance (AsShotNeutral) is unusable and ignored.",)


def read_color_matrix(tiff: Tiff) -> tuple[npt.NDArray[np.float64] | None, tuple[str, ...]]:
    """XYZ to camera (3, 3) as the tag has it, for D65 or the light nearest to it; warnings."""

    def distance(illuminant_tag: Tag) -> int:
        codes = optional_numbers(tiff, tiff.directories, illuminant_tag) or (0,)
        return _NEAREST_TO_D65.index(int(codes[0])) if codes[0] in _NEAREST_TO_D65 else 99

    found = [
        (distance(illuminant_tag), values)
        for matrix_tag, illuminant_tag in _MATRIX_TAGS
        if (values := optional_numbers(tiff, tiff.directories, matrix_tag)) is not None
    ]
    if not found:
        return None, ("The file states no colour matrix: its colours are not calibrated.",)
    _, values = min(found, key=lambda item: item[0])
    if len(values) == 9 and np.isfinite(values).all():
        matrix = np.array(values, np.float64).reshape(3, 3)
        if np.linalg.matrix_rank(matrix) == 3:
            return matrix, ()
    return None, ("The colour matrix is unusable and ignored: colours are not calibrated.",)


def read_noise_profile(
    tiff: Tiff, directory: Directory, plane_colors: tuple[int, int, int]
) -> tuple[NoiseModel | None, tuple[str, ...]]:
    """The noise that NoiseProfile declares, from the mosaic's directory or any other; warnings.

    ``plane_colors`` are the codes of CFAPlaneColor (0 red, 1 green, 2 blue): the order of the
    tag's pairs of shot and read.
    """
    values = optional_numbers(tiff, (directory, *tiff.directories), Tag.NoiseProfile)
    if values is None:
        return None, ()
    if len(values) not in (2, 6):
        return None, (f"NoiseProfile is ignored: it has {len(values)} values, not 2 or 6.",)
    pairs = np.array(values, np.float64).reshape(-1, 2)
    low, high = _PLAUSIBLE_SHOT
    shot_fits = ((pairs[:, 0] > low) & (pairs[:, 0] < high)).all()
    read_fits = ((pairs[:, 1] >= 0) & (pairs[:, 1] < _PLAUSIBLE_READ)).all()
    if not (shot_fits and read_fits):
        return None, (f"NoiseProfile is ignored: {shown(values)} is implausible.",)
    by_color = dict(zip(plane_colors, np.broadcast_to(pairs, (3, 2)).tolist(), strict=True))
    red, green, blue = by_color[0], by_color[1], by_color[2]
    shot = (red[0], green[0], green[0], blue[0])
    read = (red[1], green[1], green[1], blue[1])
    return NoiseModel(shot, read), ()
