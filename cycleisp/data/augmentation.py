"""A mosaic and its rendered picture, cropped, flipped and transposed together, the phase kept true.

J. Liu et al., "Learning Raw Image Denoising with Bayer Pattern Unification and Bayer Preserving
Augmentation", CVPR Workshops 2019: frames of every phase are cropped to one, and a flip that moves
the colours inside the cell is followed by a shift of one row or column that moves them back.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError

__all__ = ["Augmentation", "MosaicPair", "random_rggb_patch"]


class Augmentation(enum.Enum):
    """The ways to turn a patch that training draws from."""

    IDENTITY = enum.auto()
    VERTICAL_FLIP = enum.auto()
    HORIZONTAL_FLIP = enum.auto()
    TRANSPOSE = enum.auto()


@dataclass(frozen=True)
class MosaicPair:
    """A RAW frame and its rendering, sample upon sample; what its methods give are views.

    Attributes:
        mosaic: (H, W), any dtype, one colour per sample.
        rgb: (H, W, 3), any dtype, R, G, B at the same places.
        phase: of the mosaic's top left corner.
    """

    mosaic: npt.NDArray[Any]
    rgb: npt.NDArray[Any]
    phase: Phase = Phase.RGGB

    def window(self, top: int, left: int, height: int, width: int) -> MosaicPair:
        """The part of ``height`` rows from ``top`` and ``width`` columns from ``left``."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        return MosaicPair(
            self.mosaic[rows, columns], self.rgb[rows, columns], self.phase.shifted(top, left)
        )

    def unified(self) -> MosaicPair:
        """The RGGB pair that is left when rows and columns are cropped on both sides alike.

        One row at the top and one at the bottom where red does not lead the first row, one column
        at the left and one at the right where it does not lead the first column.
        """
        row, column = self.phase.red
        height, width = self.mosaic.shape
        return self.window(row, column, max(0, height - 2 * row), max(0, width - 2 * column))

    def augmented(self, augmentation: Augmentation) -> MosaicPair:
        """The whole pair flipped or transposed, with the phase that it then has."""
        mosaic, rgb, phase = self.mosaic, self.rgb, self.phase
        if augmentation is Augmentation.VERTICAL_FLIP:
            return MosaicPair(mosaic[::-1], rgb[::-1], phase.shifted(mosaic.shape[0] - 1, 0))
        if augmentation is Augmentation.HORIZONTAL_FLIP:
            return MosaicPair(mosaic[:, ::-1], rgb[:, ::-1], phase.shifted(0, mosaic.shape[1] - 1))
        if augmentation is Augmentation.TRANSPOSE:
            row, column = phase.red
            return MosaicPair(mosaic.T, rgb.transpose(1, 0, 2), Phase.RGGB.shifted(column, row))
        return self


def random_rggb_patch(pair: MosaicPair, side: int, rng: np.random.Generator) -> MosaicPair:
    """A random RGGB square of an even ``side``, under one of the four augmentations.

    The window is cut where the augmentation leaves red in the corner: a flip starts it one row or
    column further, so no sample is cut to be dropped again and windows reach the last one. Where
    the frame has no room for that step, the flip is left out.

    Raises:
        InputError: where no such square fits.
    """
    red = pair.phase.red
    room = pair.mosaic.shape[0] - side, pair.mosaic.shape[1] - side
    first_places = {
        Augmentation.IDENTITY: (red.row, red.column),
        Augmentation.VERTICAL_FLIP: (1 - red.row, red.column),
        Augmentation.HORIZONTAL_FLIP: (red.row, 1 - red.column),
        Augmentation.TRANSPOSE: (red.row, red.column),
    }
    fitting = [
        (augmentation, first)
        for augmentation, first in first_places.items()
        if first[0] <= room[0] and first[1] <= room[1]
    ]
    if not fitting:
        raise InputError(
            "the frame is smaller than a patch",
            met="{1}x{0}".format(*pair.mosaic.shape),
            wanted=f"whole RGGB cells of {side}x{side} samples",
            hint="choose a smaller patch",
        )
    augmentation, first = fitting[int(rng.integers(len(fitting)))]
    top, left = (
        start + 2 * int(rng.integers((free - start) // 2 + 1))
        for start, free in zip(first, room, strict=True)
    )
    return pair.window(top, left, side, side).augmented(augmentation)
