"""Block energies of a RAW frame: what the noise estimate looks at, in bounded memory.

Every colour plane is cut into blocks of 8x8 samples, and each block gives its mean and its mean
squares in two bands of the orthonormal DCT. For white noise both bands have the noise variance as
their expected value and are independent of each other, so one can select blocks without texture and
the other can measure them: selection does not pull the measurement down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.frame import RawFrame

__all__ = ["HIGH_BAND", "LOW_BAND", "BlockEnergies", "code_step", "measure_blocks"]

SIDE = 8
LOW_BAND = 14
"""Coefficients with 1 <= u + v <= 4, where texture shows first."""
HIGH_BAND = 9
"""Coefficients with u, v >= 5, where texture is weakest; with u, v >= 4 5 to 15 % more leaks in."""

_MAX_BLOCKS_PER_PLANE = 24_000
_SMALL_PLANE_SAMPLES = 400_000
"""Below it blocks overlap by half: small planes have few flat blocks and need every one."""

_SATURATED = 0.98
_MAX_SAMPLES_AT_FLOOR = SIDE * SIDE // 50
_STEP_SAMPLES = 20_000


@dataclass(frozen=True)
class BlockEnergies:
    """The usable blocks of the four planes, pooled and sorted by mean.

    Attributes:
        mean: (n,) float64, block means in normalised units, not below 0.
        low: (n,) float64, mean square of the low band, in squared normalised units.
        high: (n,) float64, the same of the high band.
        kept: share of the blocks looked at that are neither clipped nor defective, 0..1.
    """

    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    kept: float

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, chosen: npt.NDArray[np.bool_]) -> BlockEnergies:
        """The blocks where ``chosen`` (n,) is true, in the same order."""
        return BlockEnergies(self.mean[chosen], self.low[chosen], self.high[chosen], self.kept)


def code_step(frame: RawFrame) -> float:
    """Smallest difference between two codes of the picture, normalised; 0 for a constant frame.

    A 10-bit file whose samples are all multiples of 4 has a step of 4 DN.
    """
    visible = frame.visible
    # Whole rows, spread over the frame, so that every colour and column is seen.
    rows = min(visible.shape[0], 1 + -(-_STEP_SAMPLES // visible.shape[1]))
    chosen = np.linspace(0, visible.shape[0] - 1, rows).astype(np.intp)
    codes = np.unique(visible[chosen]).astype(np.int32)
    if len(codes) < 2:
        return 0.0
    return float(np.diff(codes).min()) / (frame.white - min(frame.black))


def measure_blocks(frame: RawFrame) -> BlockEnergies:
    """Energies of at most 24,000 blocks of each plane; clipped and defective blocks are left out.

    A block is left out if one sample is at 0.98 of white or above, is marked as defective, or if
    more than 2 % of its samples hold the frame's lowest code and that code is not above black: a
    floor at which noise was cut off.
    """
    defective = frame.reserved_dn
    sound = True if defective is None else frame.visible != defective
    floor = int(frame.visible.min(where=sound, initial=np.iinfo(np.uint16).max))
    # In cell order whatever the phase is: one noise law holds for all planes, so the colours need
    # no names here, and the same samples under another phase give the same answer to the last bit.
    positions = [
        _measure_position(frame, row, column, floor) for row in (0, 1) for column in (0, 1)
    ]
    mean, low, high = np.concatenate([energies for energies, _ in positions], axis=1)
    looked_at = sum(count for _, count in positions)
    order = np.argsort(mean, kind="stable")
    return BlockEnergies(mean[order], low[order], high[order], len(mean) / max(looked_at, 1))


def _measure_position(
    frame: RawFrame, row: int, column: int, floor: int
) -> tuple[npt.NDArray[np.float64], int]:
    """Mean, low and high (3, n) of the usable blocks of one plane, and how many were looked at."""
    plane = frame.visible[row::2, column::2]
    if min(plane.shape) < SIDE:
        return np.empty((3, 0)), 0
    tops, lefts = _block_corners(*plane.shape)
    windows = np.lib.stride_tricks.sliding_window_view(plane, (SIDE, SIDE))
    codes = windows[tops, lefts]

    black = frame.black[2 * row + column]
    samples = codes.astype(np.float32)
    samples -= np.float32(black)
    inside = np.arange(SIDE)
    if frame.black_rows is not None:
        samples -= frame.black_rows[row::2][tops[:, None] + inside][:, :, None]
    if frame.black_columns is not None:
        samples -= frame.black_columns[column::2][lefts[:, None] + inside][:, None, :]
    samples /= np.float32(frame.white - black)

    at_floor = ((codes == floor) & (samples <= 0)).sum(axis=(1, 2))
    usable = (samples.max(axis=(1, 2)) < _SATURATED) & (at_floor <= _MAX_SAMPLES_AT_FLOOR)
    if frame.reserved_dn is not None:
        usable &= ~(codes == frame.reserved_dn).any(axis=(1, 2))

    flat = samples[usable].reshape(-1, SIDE * SIDE)
    mean = flat.mean(axis=1, keepdims=True)
    energies = np.square((flat - mean) @ _BANDS, dtype=np.float64)
    return (
        np.stack(
            [
                np.maximum(mean[:, 0], 0).astype(np.float64),
                energies[:, :LOW_BAND].mean(axis=1),
                energies[:, LOW_BAND:].mean(axis=1),
            ]
        ),
        len(codes),
    )


def _block_corners(height: int, width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Top rows and left columns of the blocks of a plane, thinned evenly to the limit."""
    stride = SIDE // 2 if height * width < _SMALL_PLANE_SAMPLES else SIDE
    rows = (height - SIDE) // stride + 1
    columns = (width - SIDE) // stride + 1
    count = rows * columns
    chosen = np.arange(count)
    if count > _MAX_BLOCKS_PER_PLANE:
        chosen = np.linspace(0, count - 1, _MAX_BLOCKS_PER_PLANE).astype(np.intp)
    tops, lefts = np.divmod(chosen, columns)
    return tops * stride, lefts * stride


def _dct_bands() -> npt.NDArray[np.float32]:
    """(64, 23) columns of the orthonormal 2-D DCT-II: the low band, then the high band."""
    frequency = np.arange(SIDE)
    basis = np.cos(np.pi / SIDE * np.outer(frequency, frequency + 0.5))
    basis *= np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    u, v = np.meshgrid(frequency, frequency, indexing="ij")
    planar = np.einsum("ui,vj->ijuv", basis, basis).reshape(SIDE * SIDE, SIDE, SIDE)
    low = planar[:, (u + v >= 1) & (u + v <= 4)]
    high = planar[:, (u >= 5) & (v >= 5)]
    return np.concatenate([low, high], axis=1).astype(np.float32)


_BANDS = _dct_bands()
