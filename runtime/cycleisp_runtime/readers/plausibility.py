"""Whether decoded samples look like what the file says about them.

Decoders fill what they could not read with zeros or with the last good row, and tables of levels
are guesses for cameras they do not know. Nothing here changes a sample.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import InputError

__all__ = ["refuse_dark", "refuse_frozen", "signal_warnings"]

Samples = npt.NDArray[np.uint16]

_FROZEN_SHARE = 1 / 32
"""Rows at the bottom, of all rows, that may repeat: scenes do not, lost data do."""

_DARK_SHARE = 1 / 512
"""An unstated black level is doubted where the darkest sample lies this far above 0, of white.
Real frames reach their black level: cameras that put it at 0 clip there."""

_FAR_BELOW, _FAR_BELOW_SHARE = 1 / 16, 1e-2
_FAR_ABOVE, _FAR_ABOVE_SHARE = 1 / 8, 1e-3
"""Of black..white: noise stays closer to black, and cameras saturate less far above white."""

_SPIKE = 16
"""Samples equal to the maximum, against all in the 8 values below it: saturation, not a scene."""

_QUAD_SMALLEST, _QUAD_WINDOW = 32, 1024
_QUAD_RATIO = 1.5
"""Neighbours inside 2x2 blocks against neighbours across their borders: 1.0 in any Bayer mosaic,
because both pairs have the same two colours; about 0.2 (or 5, by alignment) in quad-Bayer data."""


def refuse_dark(visible: Samples, source: Path | None) -> None:
    """Refuse a picture whose samples are all zero.

    Raises:
        InputError: where no sample is above 0.
    """
    if not visible.any():
        raise InputError(
            "the frame holds no signal: every sample is zero",
            subject=source,
            hint="the picture data are missing from this file",
        )


def refuse_frozen(visible: Samples, white: float, source: Path | None) -> None:
    """Refuse a picture whose last rows repeat, as a decoder leaves them that ran out of data.

    Raises:
        InputError: where more than 1/32 of the rows are equal to the rows two above them and are
            not saturated.
    """
    height = visible.shape[0]
    frozen = 0
    for row in range(height - 1, 1, -1):
        is_saturated = visible[row].min() >= white
        if is_saturated or not np.array_equal(visible[row], visible[row - 2]):
            break
        frozen += 1
    if frozen > max(4, _FROZEN_SHARE * height):
        raise InputError(
            "the picture data are incomplete: its last rows repeat",
            subject=source,
            met=f"{frozen} of {height} rows",
            hint="copy the file again from the camera",
        )


def signal_warnings(
    visible: Samples, black: float, white: float, *, black_is_known: bool
) -> tuple[str, ...]:
    """What in the picture (H, W), in DN, contradicts its levels or its 2x2 colour filters."""
    warnings = []
    darkest, brightest = int(visible.min()), int(visible.max())
    if darkest == brightest:
        warnings.append(f"Every sample is {darkest}: the frame holds no picture.")
        return tuple(warnings)
    if not black_is_known and darkest > _DARK_SHARE * white:
        warnings.append(f"The black level {black:g} is doubtful: the darkest sample is {darkest}.")
    span = white - black
    if np.mean(visible < black - _FAR_BELOW * span) > _FAR_BELOW_SHARE:
        warnings.append(f"The black level {black:g} seems too high: many samples are far below.")
    if np.mean(visible > white + _FAR_ABOVE * span) > _FAR_ABOVE_SHARE:
        warnings.append(f"The white level {white:g} seems too low: many samples are far above.")
    if brightest < black + span / 2 and _saturates(visible, brightest):
        warnings.append(
            f"The white level {white:g} seems too high: samples saturate at {brightest}."
        )
    if _looks_quad(visible):
        warnings.append(
            "The samples look like quad-Bayer data under 2x2 filters: "
            "equal colours stand in blocks of four."
        )
    return tuple(warnings)


def _saturates(visible: Samples, brightest: int) -> bool:
    top = np.count_nonzero(visible == brightest)
    below = np.count_nonzero(visible >= max(0, brightest - 8)) - top
    return bool(top > _SPIKE * (below + 1))


def _looks_quad(visible: Samples) -> bool:
    height, width = (min(side, _QUAD_WINDOW) // 4 * 4 for side in visible.shape)
    if height < _QUAD_SMALLEST or width < _QUAD_SMALLEST:
        return False
    top, left = (visible.shape[0] - height) // 2, (visible.shape[1] - width) // 2
    window = visible[top : top + height, left : left + width].astype(np.int32)
    ratios = []
    for axis in (0, 1):
        steps = np.abs(np.diff(window, axis=axis))
        steps = steps if axis == 0 else steps.T
        inside, across = float(steps[0::2].mean()), float(steps[1::2].mean())
        ratios.append((inside + 1e-9) / (across + 1e-9))
    return all(ratio < 1 / _QUAD_RATIO or ratio > _QUAD_RATIO for ratio in ratios)
