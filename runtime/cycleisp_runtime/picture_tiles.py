"""The tiles of a rendered picture: how they are cut out, and how they are put back.

Beyond the picture's edge a tile holds its mirror image. Both passes write into arrays that the
caller keeps.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import reflected_indices
from cycleisp_runtime.tiles import Core, TilePlan

__all__ = ["HIGHEST", "Picture", "PictureTiles"]

HIGHEST: dict[np.dtype[Any], float] = {
    np.dtype(np.uint8): 255.0,
    np.dtype(np.uint16): 65535.0,
    np.dtype(np.float32): 1.0,
}
"""The code of 1.0 in every type that a picture may have."""

Picture: TypeAlias = npt.NDArray[Any]
"""(H, W, 3), R, G, B in sRGB: uint8, uint16, or float32 in [0, 1]."""

_Planes = npt.NDArray[np.float32]


class PictureTiles:
    """Cuts the tiles of one picture, and stitches what a backend made of them.

    Args:
        pixels: (H, W, 3), the picture.
        plan: made for its size.
    """

    def __init__(self, pixels: Picture, plan: TilePlan) -> None:
        self._pixels = pixels
        self._plan = plan

    def cut(self, core: Core, noisy: _Planes) -> None:
        """Fill (3, plan.height, plan.width) float32 with R, G, B in [0, 1] around ``core``."""
        height, width, _ = self._pixels.shape
        top, left = core.top - self._plan.halo, core.left - self._plan.halo
        rows = reflected_indices(top, top + self._plan.height, 1, height)
        columns = reflected_indices(left, left + self._plan.width, 1, width)
        down, across = _inside(top, len(rows), height), _inside(left, len(columns), width)
        tile = noisy.transpose(1, 2, 0)
        middle = self._pixels[rows[down][0] : rows[down][-1] + 1]
        tile[down, across] = middle[:, columns[across][0] : columns[across][-1] + 1]
        for column in (*range(across.start), *range(across.stop, len(columns))):
            tile[down, column] = middle[:, columns[column]]
        for row in (*range(down.start), *range(down.stop, len(rows))):
            tile[row] = self._pixels[rows[row]].take(columns, axis=0)
        noisy *= np.float32(1 / HIGHEST[self._pixels.dtype])

    def stitch(self, core: Core, denoised: _Planes, target: Picture, *, scratch: _Planes) -> None:
        """Write the core of a denoised tile into the new picture.

        Args:
            core: the core of the tile.
            denoised: (3, plan.height, plan.width) float32, in [0, 1], finite.
            target: (H, W, 3): uint8 or uint16 codes, rounded and clipped, or float32, neither.
            scratch: an array like ``denoised``, or itself, which is overwritten.
        """
        halo, highest = self._plan.halo, np.float32(HIGHEST[target.dtype])
        kept = np.s_[halo : halo + core.height, halo : halo + core.width]
        place = np.s_[core.top : core.top + core.height, core.left : core.left + core.width]
        for plane in range(3):
            codes = np.multiply(denoised[plane][kept], highest, out=scratch[plane][kept])
            if target.dtype != np.float32:
                np.rint(codes, out=codes)
                np.clip(codes, np.float32(0), highest, out=codes)
            target[place][..., plane] = codes


def _inside(start: int, length: int, limit: int) -> slice:
    """Which of the places ``start``, ``start`` + 1, ... along a tile lie in 0..limit-1."""
    return slice(max(0, -start), min(length, limit - start))
