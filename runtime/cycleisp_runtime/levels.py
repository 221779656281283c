"""The output's levels: a denoised value is finer than the sensor's step, and 16 bits hold it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import FloatFrame, RawFrame
from cycleisp_runtime.tiles import MOST_DN

__all__ = ["choose_level_scale", "copy_scaled"]

_Samples = npt.NDArray[np.uint16] | npt.NDArray[np.float32]


def choose_level_scale(frame: RawFrame | FloatFrame) -> tuple[int, list[str]]:
    """Factor from the frame's levels to those of 16 bits, and what is to be said about it.

    The largest power of two with which white and every sample still fit; 1 for a frame that
    reserves a DN for defects.

    Raises:
        InputError: where 16 bits do not even hold white as it is.
    """
    if frame.reserved_dn is not None:
        marks = f"the file marks defective samples by the value {frame.reserved_dn}"
        return 1, [f"{marks}: levels were kept"]
    highest = max(frame.white, float(frame.samples.max()))
    if not 0 < frame.white <= MOST_DN:
        raise InputError(
            "16 bits do not hold the white level",
            met=frame.white,
            wanted=f"more than 0, at most {MOST_DN}",
            hint="denoise into float32",
        )
    scale = 1
    while highest * scale * 2 <= MOST_DN:
        scale *= 2
    return scale, []


def copy_scaled(samples: _Samples, scale: int, target: _Samples) -> None:
    """Write ``samples`` times ``scale`` into ``target`` of the same shape, rounded and clipped.

    Only float32 into uint16 needs either. It goes row by row, as it needs memory of a copy.
    """
    if target.dtype in (samples.dtype, np.float32):
        np.multiply(samples, target.dtype.type(scale), out=target)
        return
    for row, source in zip(target, samples, strict=True):
        row[...] = np.clip(np.rint(source * np.float32(scale)), 0, MOST_DN)
