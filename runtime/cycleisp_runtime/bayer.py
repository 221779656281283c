"""The Bayer mosaic: the only place that knows what a CFA phase is.

A mosaic (H, W) whose phase is not RGGB, or whose sides are odd, is brought to whole RGGB cells by
reflecting at the border, never by cropping. Reflection without repeating the edge sample keeps the
colour of every row and column: index -1 becomes 1, index H becomes H - 2, both of the same parity.

    GRBG, 3 columns          G R G            the left column is the
    reflected one column     R G R G          mirror image of column 1,
    to the left         ->   ^ R              so R leads every cell
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "PLANES",
    "Phase",
    "PlaneOffset",
    "pack",
    "packed_size",
    "reflected_indices",
    "unpack",
]

PLANES = ("R", "Gr", "Gb", "B")
"""Order of packed planes. Gr shares its row with R, Gb shares its row with B."""

_Scalar = TypeVar("_Scalar", bound=np.generic)


class PlaneOffset(NamedTuple):
    """Where a colour stands inside the 2x2 cell at the mosaic's top left corner."""

    row: int
    column: int


class Phase(enum.Enum):
    """The colours of the mosaic's top left 2x2 cell, row by row."""

    RGGB = "RGGB"
    GRBG = "GRBG"
    GBRG = "GBRG"
    BGGR = "BGGR"

    @property
    def red(self) -> PlaneOffset:
        """Row and column, 0 or 1, of the red sample in the cell."""
        return PlaneOffset(*divmod(self.value.index("R"), 2))

    @property
    def plane_offsets(self) -> tuple[PlaneOffset, PlaneOffset, PlaneOffset, PlaneOffset]:
        """Row and column in the cell of R, Gr, Gb and B, in this order."""
        row, column = self.red
        return (
            PlaneOffset(row, column),
            PlaneOffset(row, 1 - column),
            PlaneOffset(1 - row, column),
            PlaneOffset(1 - row, 1 - column),
        )

    def shifted(self, rows: int, columns: int) -> Phase:
        """The phase of the same mosaic seen from ``rows`` down and ``columns`` to the right."""
        row, column = self.red
        target = ((row + rows) % 2, (column + columns) % 2)
        return next(phase for phase in Phase if phase.red == target)

    def by_plane(self, by_position: tuple[float, ...]) -> tuple[float, float, float, float]:
        """Four values in cell positions (row by row) put into the order R, Gr, Gb, B."""
        r, gr, gb, b = (by_position[2 * row + column] for row, column in self.plane_offsets)
        return r, gr, gb, b

    def by_position(self, by_plane: tuple[float, ...]) -> tuple[float, float, float, float]:
        """Four values in the order R, Gr, Gb, B put into cell positions (row by row)."""
        cell = [0.0] * 4
        for value, (row, column) in zip(by_plane, self.plane_offsets, strict=True):
            cell[2 * row + column] = value
        return cell[0], cell[1], cell[2], cell[3]


def packed_size(height: int, width: int, phase: Phase) -> tuple[int, int]:
    """Rows and columns of the packed planes that hold a (height, width) mosaic of this phase."""
    row, column = phase.red
    return (height + row + 1) // 2, (width + column + 1) // 2


def reflected_indices(start: int, stop: int, step: int, length: int) -> npt.NDArray[np.intp]:
    """Indices start, start+step, ... below stop, each folded into 0..length-1 by reflection.

    The edge sample is not repeated, so an index keeps its parity and with it its colour.
    ``length`` must be at least 2.
    """
    period = 2 * (length - 1)
    folded = np.arange(start, stop, step, dtype=np.intp) % period
    return np.minimum(folded, period - folded)


def pack(mosaic: npt.NDArray[_Scalar], phase: Phase) -> npt.NDArray[_Scalar]:
    """Packed planes (4, h, w) in the order R, Gr, Gb, B of a mosaic (H, W), any dtype.

    h and w are ``packed_size``; rows and columns that complete the outer cells are reflected.
    H and W must be at least 2.
    """
    height, width = mosaic.shape
    rows, columns = packed_size(height, width, phase)
    red = phase.red
    packed = np.empty((4, rows, columns), dtype=mosaic.dtype)
    for plane in range(4):
        first_row, first_column = plane // 2 - red.row, plane % 2 - red.column
        row_index = reflected_indices(first_row, first_row + 2 * rows, 2, height)
        column_index = reflected_indices(first_column, first_column + 2 * columns, 2, width)
        packed[plane] = mosaic[row_index[:, None], column_index]
    return packed


def unpack(
    packed: npt.NDArray[_Scalar], phase: Phase, height: int, width: int
) -> npt.NDArray[_Scalar]:
    """The mosaic (height, width) of a packed frame (4, h, w): the inverse of ``pack``.

    Reflected samples are left out.
    """
    red = phase.red
    cells = packed.reshape(2, 2, *packed.shape[1:])
    whole = cells.transpose(2, 0, 3, 1).reshape(2 * packed.shape[1], 2 * packed.shape[2])
    return np.ascontiguousarray(whole[red.row : red.row + height, red.column : red.column + width])
