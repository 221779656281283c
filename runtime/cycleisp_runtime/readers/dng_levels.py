"""Black and white levels of a DNG, as its own tags state them.

DNG 1.7.1, chapter 5 "Mapping Raw Values to Linear Reference Values": levels hold behind the
LinearizationTable, and the black pattern starts at the corner of ActiveArea. LibRaw counts it from
a corner rounded to even, averages the deltas away and turns what it cannot read into 0, so none of
this is taken from LibRaw.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import Area
from cycleisp_runtime.tiff import Directory, Tiff, shown

__all__ = ["Levels", "linearization_table", "read_active_area", "read_levels"]


class Levels(NamedTuple):
    """DN of zero light per cell position and of saturation, and DN that a row or column adds."""

    black: tuple[float, float, float, float]
    white: float
    black_rows: npt.NDArray[np.float64] | None
    black_columns: npt.NDArray[np.float64] | None
    warnings: tuple[str, ...]


def read_active_area(tiff: Tiff, directory: Directory, height: int, width: int) -> Area:
    """The part that holds the picture: ActiveArea, or the whole stored frame.

    Raises:
        InputError: where the tag names no rectangle inside the frame.
    """
    values = tiff.find(directory, Tag.ActiveArea)
    if values is None:
        return Area(0, 0, height, width)
    top, left, bottom, right = values if len(values) == 4 else (0, 0, 0, 0)
    is_whole = all(float(value).is_integer() for value in values)
    if not (is_whole and 0 <= top < bottom <= height and 0 <= left < right <= width):
        raise InputError(
            "ActiveArea is no rectangle inside the frame",
            subject=tiff.source,
            met=shown(values),
            wanted=f"top, left, bottom, right within {height} rows and {width} columns",
        )
    return Area(int(top), int(left), int(bottom - top), int(right - left))


def linearization_table(tiff: Tiff, directory: Directory) -> tuple[int, ...] | None:
    """Linear value of every code, or None; codes beyond its end have its last value.

    Raises:
        InputError: where it is empty or does not hold uint16.
    """
    table = tiff.find(directory, Tag.LinearizationTable)
    if table is None:
        return None
    if not table or not all(isinstance(value, int) and 0 <= value <= 65535 for value in table):
        raise InputError("the linearization table is damaged", subject=tiff.source)
    return tuple(map(int, table))


def read_levels(tiff: Tiff, directory: Directory, area: Area, bits: int) -> Levels:
    """Levels of a mosaic with ``bits`` bits per stored sample.

    Raises:
        InputError: where a level is no number, the pattern has the wrong number of values or
            another period than 2x2, or white is not above black.
    """
    black, black_warnings = _read_black(tiff, directory)
    white, white_warnings = _read_white(tiff, directory, bits)
    rows, row_warnings = _read_delta(tiff, directory, Tag.BlackLevelDeltaV, area.height)
    columns, column_warnings = _read_delta(tiff, directory, Tag.BlackLevelDeltaH, area.width)
    highest = max(black) + sum(delta.max() for delta in (rows, columns) if delta is not None)
    if white <= highest:
        raise InputError(
            "the white level is not above the black level",
            subject=tiff.source,
            met=f"black {highest:g}, white {white:g}",
        )
    warnings = black_warnings + white_warnings + row_warnings + column_warnings
    return Levels(black, white, rows, columns, warnings)


def _read_black(
    tiff: Tiff, directory: Directory
) -> tuple[tuple[float, float, float, float], tuple[str, ...]]:
    values = tiff.find(directory, Tag.BlackLevel)
    if values is None:
        return (0.0, 0.0, 0.0, 0.0), (
            "The file states no black level; 0 is used, the default of the DNG specification.",
        )
    repeat = tiff.find(directory, Tag.BlackLevelRepeatDim) or (1, 1)
    is_whole = all(isinstance(side, int) and side >= 1 for side in repeat)
    if len(repeat) != 2 or not is_whole or math.prod(repeat) != len(values):
        raise InputError(
            "the black level has the wrong number of values",
            subject=tiff.source,
            met=len(values),
            wanted=f"as many as BlackLevelRepeatDim says: {shown(repeat)}",
        )
    rows, columns = map(int, repeat)
    if not np.isfinite(values).all():
        raise InputError("the black level is not a number", subject=tiff.source, met=shown(values))
    pattern = np.array(values, np.float64).reshape(rows, columns)
    cell = pattern[np.ix_((0, 1 % rows), (0, 1 % columns))]
    repeated = cell[np.ix_(np.arange(rows) % 2, np.arange(columns) % 2)]
    odd_period = any(side > 2 and side % 2 for side in (rows, columns))
    if not np.array_equal(repeated, pattern) or (odd_period and np.ptp(pattern) > 0):
        raise InputError(
            "the black level repeats with another period than the colour filters",
            subject=tiff.source,
            met=f"{rows}x{columns}",
            wanted="1x1 to 2x2",
        )
    first, second, third, fourth = map(float, cell.ravel())
    return (first, second, third, fourth), ()


def _read_white(tiff: Tiff, directory: Directory, bits: int) -> tuple[float, tuple[str, ...]]:
    values = tiff.find(directory, Tag.WhiteLevel)
    if values is None:
        table = linearization_table(tiff, directory)
        # The default of the specification speaks of stored codes, the level of linear values.
        white = 2**bits - 1 if table is None else max(table)
        source = f"the largest value of {bits} bits" if table is None else "the top of its table"
        return float(white), (f"The file states no white level; {white}, {source}, is used.",)
    if len(values) != 1 or not 0 < values[0] <= 65535:
        raise InputError(
            "the white level is impossible",
            subject=tiff.source,
            met=shown(values),
            wanted="one number up to 65535",
        )
    return float(values[0]), ()


def _read_delta(
    tiff: Tiff, directory: Directory, tag: Tag, length: int
) -> tuple[npt.NDArray[np.float64] | None, tuple[str, ...]]:
    values = tiff.find(directory, tag)
    if values is None:
        return None, ()
    if len(values) != length or not np.isfinite(values).all():
        return None, (f"{tag.name} is ignored: it has {len(values)} values, not {length} numbers.",)
    return np.array(values, np.float64), ()
