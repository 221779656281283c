"""Networks applied to pictures of any size, tile by tile, in memory that has a bound.

A tile is a core, which is kept, and a halo of its neighbourhood. Convolutions see no farther than
a halo; channel attention takes its mean over all that it is given, so a tile's differs a little
from the whole picture's. Measured as PSNR against the whole picture, 2 MP patched together from
nine unlike photographs, trained networks of size ``small``:

    side of a tile       128     256     512    1024 pixels
    RAW by RGB2RAW      53.8    57.1    62.7    72.2 dB
    sRGB by all three   56.4    58.4    62.4    70.6 dB
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["HALO", "TILE", "in_tiles"]

TILE = 1024
"""Pixels: what most photographs for training fit in, and 10 dB less of seams than half of it."""

HALO = 16
"""Cells, so 32 pixels, on every side of a core."""


class _Span(NamedTuple):
    """Cells along one axis: of the core, and of the tile around it, which ends at the picture."""

    core: range
    tile: range

    @property
    def core_in_tile(self) -> range:
        """The core's cells, counted from where the tile begins."""
        return range(self.core.start - self.tile.start, self.core.stop - self.tile.start)


def in_tiles(
    network: Callable[..., Tensor], inputs: tuple[Tensor, ...], cells: tuple[int, int], side: int
) -> Tensor:
    """What ``network(*inputs)`` gives, put together from tiles where the picture is larger.

    Inputs and output are (N, C, k * rows, k * columns), each with its own k: 1 for packed RAW, 2
    for sRGB.

    Args:
        network: from inputs to output, for any size.
        inputs: of one picture.
        cells: rows and columns of the picture in packed samples.
        side: longest side of a tile, its halo included, in pixels.
    """
    rows, columns = cells
    down, across = list(_spans(rows, side // 2)), list(_spans(columns, side // 2))
    if len(down) == len(across) == 1:
        return network(*inputs)

    def core(row: _Span, column: _Span) -> Tensor:
        tile = network(
            *(_cut(each, each.shape[-2] // rows, row.tile, column.tile) for each in inputs)
        )
        return _cut(tile, tile.shape[-2] // len(row.tile), row.core_in_tile, column.core_in_tile)

    return torch.cat(
        [torch.cat([core(row, column) for column in across], dim=-1) for row in down], dim=-2
    )


def _spans(length: int, side: int) -> Iterator[_Span]:
    """The fewest equal cores, in tiles of at most ``side``; one where all of it fits."""
    count = 1 if length <= side else math.ceil(length / max(1, side - 2 * HALO))
    core = math.ceil(length / count)
    for start in range(0, length, core):
        stop = min(start + core, length)
        yield _Span(range(start, stop), range(max(0, start - HALO), min(length, stop + HALO)))


def _cut(picture: Tensor, scale: int, rows: range, columns: range) -> Tensor:
    """A view of these cells."""
    return picture[
        ..., scale * rows.start : scale * rows.stop, scale * columns.start : scale * columns.stop
    ]
