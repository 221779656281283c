"""What the kernels of ``passes.cu`` are told about the tiles of a frame.

The numbers are rounded to float32 where ``tiles.py`` rounds them, so that a frame comes out the
same, bit for bit, wherever the passes are done.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import reflected_indices
from cycleisp_runtime.frame import FloatFrame, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiles import Core, TilePlan

__all__ = ["FramePasses", "TilePasses"]

RECORD = np.dtype(
    [
        *((name, np.int32) for name in ("rows", "columns", "top", "left", "halo")),
        *((name, np.int32) for name in ("core_rows", "core_columns", "height", "width")),
        *((name, np.int32) for name in ("red_row", "red_column")),
        *((name, np.int32) for name in ("patch_top", "patch_left", "patch_width")),
        *((name, np.int32) for name in ("result_top", "result_left", "result_width")),
        *((name, np.int32) for name in ("float_samples", "float_result")),
        *((name, np.int32) for name in ("row_levels", "column_levels", "reserved")),
        *((name, np.float32, 4) for name in ("black", "scale", "shot", "read", "gain", "offset")),
        ("kept", np.float32),
    ]
)
"""``Record`` of passes.cu."""


class TilePasses(NamedTuple):
    """One tile before and after the network.

    Attributes:
        record: for both kernels.
        patch: the part of the mosaic that the tile needs, uint16 or float32.
        row_levels: (2, rows of the patch) float32: what they add to black, and to the result.
        column_levels: (2, columns of the patch) float32, likewise.
        target: what the core covers of the new frame, uint16 or float32, to be written.
    """

    record: npt.NDArray[np.void]
    patch: npt.NDArray[np.uint16] | npt.NDArray[np.float32]
    row_levels: npt.NDArray[np.float32]
    column_levels: npt.NDArray[np.float32]
    target: npt.NDArray[Any]


class FramePasses:
    """The tiles of one frame, in the plan's order.

    Args:
        frame: as for ``MosaicTiles``, like ``noise`` and ``plan``.
        noise: in normalised units.
        plan: for the picture area.
        target: the picture area of the new frame, uint16 or float32.
        strength: as for ``MosaicTiles.stitch``.
        level_scale: likewise.
    """

    def __init__(
        self,
        frame: RawFrame | FloatFrame,
        noise: NoiseModel,
        plan: TilePlan,
        target: npt.NDArray[np.uint16] | npt.NDArray[np.float32],
        *,
        strength: float,
        level_scale: int,
    ) -> None:
        self.plan, self.target = plan, target
        self._mosaic, self._red = frame.visible, frame.cfa.red
        replaced = strength * level_scale
        self._row_levels = _levels(frame.black_rows, replaced, len(self._mosaic))
        self._column_levels = _levels(frame.black_columns, replaced, self._mosaic.shape[1])
        black = frame.cfa.by_plane(frame.black)
        extent = [frame.white - each for each in black]
        self._record = np.zeros((), RECORD)
        for name, value in {
            "rows": plan.height,
            "columns": plan.width,
            "halo": plan.halo,
            "height": self._mosaic.shape[0],
            "width": self._mosaic.shape[1],
            "red_row": self._red.row,
            "red_column": self._red.column,
            "float_samples": self._mosaic.dtype == np.float32,
            "float_result": target.dtype == np.float32,
            "row_levels": frame.black_rows is not None,
            "column_levels": frame.black_columns is not None,
            "reserved": -1 if frame.reserved_dn is None else frame.reserved_dn,
            "black": black,
            "scale": [1 / each for each in extent],
            "shot": noise.shot,
            "read": noise.read,
            "gain": [replaced * each for each in extent],
            "offset": [replaced * each for each in black],
            "kept": (1 - strength) * level_scale,
        }.items():
            self._record[name] = value

    def tile(self, core: Core) -> TilePasses:
        """The tile around a core of the plan."""
        halo, (height, width) = self.plan.halo, self._mosaic.shape
        top, left = core.top - halo, core.left - halo
        rows = _seen(2 * top - self._red.row, 2 * self.plan.height, height)
        columns = _seen(2 * left - self._red.column, 2 * self.plan.width, width)
        covered_rows = _inside(2 * core.top - self._red.row, 2 * core.height, height)
        covered_columns = _inside(2 * core.left - self._red.column, 2 * core.width, width)
        record = self._record.copy()
        for name, value in {
            "top": top,
            "left": left,
            "core_rows": core.height,
            "core_columns": core.width,
            "patch_top": rows.start,
            "patch_left": columns.start,
            "patch_width": columns.stop - columns.start,
            "result_top": covered_rows.start,
            "result_left": covered_columns.start,
            "result_width": covered_columns.stop - covered_columns.start,
        }.items():
            record[name] = value
        return TilePasses(
            record,
            self._mosaic[rows, columns],
            self._row_levels[:, rows],
            self._column_levels[:, columns],
            self.target[covered_rows, covered_columns],
        )


def _levels(
    added: npt.NDArray[np.float64] | None, replaced: float, length: int
) -> npt.NDArray[np.float32]:
    if added is None:
        return np.zeros((2, length), np.float32)
    return np.stack([added, replaced * added]).astype(np.float32)


def _seen(start: int, count: int, length: int) -> slice:
    """The places 0..length-1 that are seen from ``start`` on, in mirrors beyond either end."""
    places: npt.NDArray[Any] = reflected_indices(start, start + count, 1, length)
    return slice(int(places.min()), int(places.max()) + 1)


def _inside(start: int, count: int, length: int) -> slice:
    return slice(max(start, 0), min(start + count, length))
