"""Tiles: which parts of a frame a backend sees, how they are cut out and how they are put back.

    plan    the packed frame falls into cores; a tile is a core and its halo on every side
    cut     mosaic -> normalised, packed, with its variance map: one pass per tile
    stitch  the core of a denoised tile -> unpacked, scaled, 16 bits: one pass per tile

At the frame's edge the halo is the mirror image of the mosaic itself, so every plane is reflected
about its true place. Every pass writes into arrays that the caller keeps, so that memory is that of
one tile, whatever the size of the frame, and nothing is allocated from frame to frame.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase, packed_size, reflected_indices
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.frame import FloatFrame, RawFrame
from cycleisp_runtime.noise import NoiseModel, light
from cycleisp_runtime.plane_threads import PlaneThreads

__all__ = ["Core", "MosaicTiles", "TilePlan", "plan_tiles"]

MOST_DN = 65535
"""What 16 bits hold."""

LEAST_NOISE_SCALE = 1e-6
"""Networks divide by the noise scale. This one is far below a 16-bit step (1.5e-5), so a frame that
is said to be free of noise passes unchanged."""

_Planes = npt.NDArray[np.float32]
_Samples = npt.NDArray[np.uint16] | npt.NDArray[np.float32]
_Index = slice | npt.NDArray[np.intp]


class Core(NamedTuple):
    """The part of a tile that is kept: a rectangle of the packed frame, in packed samples."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class TilePlan:
    """Cores that cover a packed frame once, and the one shape that all tiles have.

    Attributes:
        cores: row by row. Tops and lefts are multiples of the model's ``multiple_of``; the last
            core of a row or column may be smaller, its tile then reaches further past the edge.
        halo: packed samples around a core on every side.
        height: rows of every tile, halo included.
        width: columns of every tile, halo included.
    """

    cores: tuple[Core, ...]
    halo: int
    height: int
    width: int


def plan_tiles(rows: int, columns: int, *, side: int, halo: int, multiple_of: int) -> TilePlan:
    """The fewest equal tiles of at most ``side`` x ``side`` for a packed frame (rows, columns).

    All sizes are in packed samples. ``halo`` is rounded up to ``multiple_of``, or tiles would
    start at another phase of a network that unshuffles its input.

    Raises:
        SettingsError: where ``side`` leaves no core between two halos.
    """
    halo = _round_up(halo, multiple_of)
    longest_core = (side - 2 * halo) // multiple_of * multiple_of
    if longest_core < 1:
        raise SettingsError(
            "the tile is too small for the model's halo",
            subject="tile",
            met=side,
            wanted=f"at least {2 * halo + multiple_of} packed samples",
        )
    height = _core_length(rows, longest_core, multiple_of)
    width = _core_length(columns, longest_core, multiple_of)
    cores = tuple(
        Core(top, left, min(height, rows - top), min(width, columns - left))
        for top in range(0, rows, height)
        for left in range(0, columns, width)
    )
    return TilePlan(cores, halo, height + 2 * halo, width + 2 * halo)


def _core_length(length: int, longest: int, multiple_of: int) -> int:
    """The shortest core that covers ``length`` in as few steps as the longest would."""
    return _round_up(math.ceil(length / math.ceil(length / longest)), multiple_of)


def _round_up(value: int, multiple_of: int) -> int:
    return -(-value // multiple_of) * multiple_of


class MosaicTiles:
    """Cuts the tiles of one frame, and stitches what a backend made of them.

    Args:
        frame: its picture area is what the tiles cover; masked samples are never touched.
        noise: the model behind the variance map.
        plan: made for the packed size of the picture area.
        planes: what works on the planes; None for the caller's thread, one after the other.
    """

    def __init__(
        self,
        frame: RawFrame | FloatFrame,
        noise: NoiseModel,
        plan: TilePlan,
        planes: PlaneThreads | None = None,
    ) -> None:
        self._frame = frame
        self._mosaic: _Samples = frame.visible
        self._noise = noise
        self._plan = plan
        self._each_plane = planes or PlaneThreads()
        self._black = frame.cfa.by_plane(frame.black)
        self._range = tuple(frame.white - black for black in self._black)

    @property
    def black_end(self) -> tuple[float, ...]:
        """Normalised value of DN 0, below which no sample can be, per plane R, Gr, Gb, B."""
        return tuple(
            -black / extent for black, extent in zip(self._black, self._range, strict=True)
        )

    def cut(self, core: Core, noisy: _Planes, variance: _Planes) -> None:
        """Fill two buffers (4, plan.height, plan.width) float32 with the tile around ``core``.

        ``noisy`` becomes (DN - black) / (white - black), not clipped, R, Gr, Gb, B; ``variance``
        its variance map. Beyond the frame's edge both hold the frame's mirror image.
        """
        halo = self._plan.halo

        def cut_plane(plane: int) -> None:
            only = slice(plane, plane + 1)
            values, spare = noisy[plane], variance[plane]
            self._normalise(plane, core.top - halo, core.left - halo, values, spare=spare)
            self._noise.variance(noisy[only], out=variance[only], planes=only)

        self._each_plane(cut_plane)

    def noise_scale(self, noisy: _Planes, variance: _Planes) -> float:
        """sqrt of the mean of the frame's variance map; the buffers are those of ``cut``.

        Their size does not matter: the frame passes through them part by part, row by row as it
        lies in memory. Samples that ``cut`` mirrors into the outermost cells count as often as
        they stand there.
        """
        (height, width), red = self._mosaic.shape, self._frame.cfa.red
        rows_seen, columns_seen = _times_seen(height, red.row), _times_seen(width, red.column)
        black = np.tile(np.reshape(self._frame.black, (2, 2)), width // 2 + 1)[:, :width].astype(
            np.float32
        )
        totals = np.zeros((4, 2, 2))
        columns = min(width, noisy[0].size)
        rows = noisy[0].size // columns

        def add_share(share: int) -> None:
            """Every fourth strip, its even rows and then its odd ones."""
            for top, left, row in itertools.product(
                range(share * 2 * rows, height, 8 * rows), range(0, width, columns), (0, 1)
            ):
                down = slice(top + row, top + 2 * rows, 2)
                right = slice(left, left + columns)
                part = self._mosaic[down, right]
                above_black = noisy[share].reshape(-1)[: part.size].reshape(part.shape)
                np.subtract(part, black[row, right], out=above_black)
                self._shift(above_black, down, right, -1.0)
                seen = variance[share].reshape(-1)[: part.shape[1]]
                np.add.reduce(light(above_black, out=above_black), axis=0, out=seen)
                for mirrored in np.flatnonzero(rows_seen[down] > 1):
                    seen += above_black[mirrored]
                seen *= columns_seen[right]
                for column in (0, 1):
                    totals[share, row, (left + column) % 2] += seen[column::2].sum(dtype=np.float64)

        self._each_plane(add_share)
        cells = math.prod(packed_size(height, width, self._frame.cfa))
        sums = self._frame.cfa.by_plane(tuple(totals.sum(axis=0).ravel()))
        terms = zip(self._noise.shot, sums, self._range, strict=True)
        mean = sum(shot * total / extent for shot, total, extent in terms) / (4 * cells)
        return max(math.sqrt(mean + self._noise.mean_read), LEAST_NOISE_SCALE)

    def stitch(
        self,
        core: Core,
        denoised: _Planes,
        target: _Samples,
        *,
        strength: float,
        level_scale: int,
        scratch: tuple[_Planes, _Planes],
    ) -> None:
        """Write the core of a denoised tile into ``target``, the picture area of the new frame.

        Args:
            core: the core of the tile.
            denoised: (4, plan.height, plan.width) float32, normalised, finite.
            target: (area.height, area.width), in DN times ``level_scale``: uint16, rounded and
                clipped, or float32, neither.
            strength: 1 writes the denoised sample, less mixes it with the noisy one.
            level_scale: factor from the input's DN to the output's.
            scratch: two arrays like ``denoised``, which are overwritten.
        """
        red, halo = self._frame.cfa.red, self._plan.halo
        height, width = self._mosaic.shape
        kept, replaced = (1 - strength) * level_scale, strength * level_scale

        def stitch_plane(plane: int) -> None:
            row, column = Phase.RGGB.plane_offsets[plane]
            rows, tile_rows = _places(core.top, core.height, row - red.row, height, halo=halo)
            columns, tile_columns = _places(
                core.left, core.width, column - red.column, width, halo=halo
            )
            inner = (plane, tile_rows, tile_columns)
            before, after, share = self._mosaic[rows, columns], scratch[0][inner], scratch[1][inner]
            np.multiply(denoised[inner], np.float32(replaced * self._range[plane]), out=after)
            after += np.float32(replaced * self._black[plane])
            self._shift(after, rows, columns, replaced)
            if strength < 1:
                after += np.multiply(before, np.float32(kept), out=share)
            if target.dtype == np.uint16:
                np.rint(after, out=after)
                np.clip(after, np.float32(0), np.float32(MOST_DN), out=after)
            if self._frame.reserved_dn is not None:
                _keep_reserved(before, after, self._frame.reserved_dn)
            target[rows, columns] = after

        self._each_plane(stitch_plane)

    def _normalise(
        self, plane: int, top: int, left: int, values: _Planes, *, spare: _Planes
    ) -> None:
        """Fill (h, w) with normalised samples from packed place (top, left) on, mirrored.

        ``spare`` is as large as ``values`` or larger, and overwritten.
        """
        (height, width), red = self._mosaic.shape, self._frame.cfa.red
        row, column = Phase.RGGB.plane_offsets[plane]
        row, column = row - red.row, column - red.column
        rows, tile_rows = _places(top, values.shape[0], row, height)
        columns, tile_columns = _places(left, values.shape[1], column, width)
        all_rows = _mirrored(2 * top + row, values.shape[0], height)
        all_columns = _mirrored(2 * left + column, values.shape[1], width)
        patch = self._mosaic[rows, columns]
        if patch.shape != values.shape:
            flat = spare.reshape(-1).view(self._mosaic.dtype)[: values.size]
            patch = flat.reshape(values.shape)
            patch[tile_rows, tile_columns] = self._mosaic[rows, columns]
            for place in _outside(tile_columns, values.shape[1]):
                patch[tile_rows, place] = self._mosaic[rows, all_columns[place]]
            for place in _outside(tile_rows, values.shape[0]):
                # The indices are inside; only this mode writes into ``out`` without a buffer.
                self._mosaic[all_rows[place]].take(all_columns, out=patch[place], mode="clip")
        np.subtract(patch, np.float32(self._black[plane]), out=values)
        self._shift(values, all_rows, all_columns, -1.0)
        values *= np.float32(1 / self._range[plane])

    def _shift(self, values: _Planes, rows: _Index, columns: _Index, times: float) -> None:
        """Add so many times what rows and columns of the mosaic add to the black level."""
        if self._frame.black_rows is not None:
            values += (times * self._frame.black_rows[rows]).astype(np.float32)[:, None]
        if self._frame.black_columns is not None:
            values += (times * self._frame.black_columns[columns]).astype(np.float32)


@lru_cache(maxsize=512)
def _mirrored(start: int, count: int, length: int) -> npt.NDArray[np.intp]:
    """Every second index from start on, folded into 0..length-1; the same from frame to frame."""
    indices = reflected_indices(start, start + 2 * count, 2, length)
    indices.flags.writeable = False
    return indices


def _times_seen(length: int, red: int) -> npt.NDArray[np.float32]:
    """How often each place along the mosaic stands in whole cells: twice where it is mirrored."""
    cells = (length + red + 1) // 2
    places = reflected_indices(-red, 2 * cells - red, 1, length)
    return np.bincount(places, minlength=length).astype(np.float32)


def _places(
    start: int, length: int, shift: int, limit: int, *, halo: int = 0
) -> tuple[slice, slice]:
    """Where the packed samples from ``start`` on stand: along the mosaic, and along the tile.

    Packed sample i of a plane is sample 2 i + shift of the mosaic; those outside 0..limit-1 are
    left out. The tile starts a halo before.
    """
    first = 2 * start + shift
    outside = max(0, -(first // 2))
    inside = range(first + 2 * outside, min(first + 2 * length, limit), 2)
    begin = halo + outside
    return slice(inside.start, inside.stop, 2), slice(begin, begin + len(inside))


def _outside(inside: slice, length: int) -> Iterator[int]:
    """The places 0..length-1 before and after the inside ones."""
    return itertools.chain(range(inside.start), range(inside.stop, length))


def _keep_reserved(before: _Samples, after: npt.NDArray[np.float32], reserved_dn: int) -> None:
    """Let samples carry the reserved DN exactly where they carried it before."""
    after[after == reserved_dn] += 1 if reserved_dn < MOST_DN else -1
    after[before == reserved_dn] = reserved_dn
