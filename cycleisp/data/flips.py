"""Packing by flipping: another phase becomes RGGB by mirroring, and every sample is kept.

Packing by shifting would keep the picture but move the planes against each other, as no training
data does. A mirrored mosaic of even sides is a true RGGB mosaic of the mirrored scene.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase, pack, unpack

__all__ = ["flipped", "pack_flipped", "unpack_flipped"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


def flipped(picture: npt.NDArray[_Scalar], phase: Phase) -> npt.NDArray[_Scalar]:
    """The picture (H, W, ...) mirrored as a mosaic of this phase and of even sides must be.

    Rows are reversed where R stands in the second row, columns where it stands in the second
    column, so that the result is RGGB. Twice gives the picture back.
    """
    row, column = phase.red
    return picture[:: -1 if row else 1, :: -1 if column else 1]


def pack_flipped(mosaic: npt.NDArray[_Scalar], phase: Phase) -> npt.NDArray[_Scalar]:
    """Packed planes (4, H/2, W/2), R, Gr, Gb, B, of the flipped mosaic (H, W); H and W even."""
    return pack(flipped(mosaic, phase), Phase.RGGB)


def unpack_flipped(packed: npt.NDArray[_Scalar], phase: Phase) -> npt.NDArray[_Scalar]:
    """The mosaic (2h, 2w) of packed planes (4, h, w): the inverse of ``pack_flipped``."""
    _, rows, columns = packed.shape
    return flipped(unpack(packed, Phase.RGGB, 2 * rows, 2 * columns), phase)
