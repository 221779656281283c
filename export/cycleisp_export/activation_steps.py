"""How far apart the 255 values are that INT8 has for a tensor, from a calibration set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cycleisp_export.graph import INT8_MOST, NOISY
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.watch import Watch, nobody
from cycleisp_runtime.errors import CalibrationError

__all__ = [
    "PERCENTILE",
    "CalibrationMethod",
    "activation_steps",
    "entropy_bins",
    "percentile_bins",
]

CalibrationMethod = Literal["minmax", "entropy", "percentile"]

PERCENTILE = 99.95
"""Of a tensor's magnitudes on one tile, zeros included, those that are not clipped; the tile that
reaches furthest decides. Over all tiles together, the largest values of a few would be outliers: at
99.99 of these, one of 21 photographs lost 3.5 dB to the tiny sRGB network's INT8, 0.6 dB so. Wider
ranges make steps coarse, which costs where values are small: under low noise in sRGB, under high
noise in RAW, whose values are in units of the noise."""

_BINS = 2048
"""Of the histogram of magnitudes; of Migacz' method, too."""

_Counts = npt.NDArray[np.float64]
_Arrays = Mapping[str, npt.NDArray[np.float32]]


def activation_steps(
    graph: TypedGraph,
    tensors: Collection[str],
    tiles: _Arrays,
    method: CalibrationMethod,
    watch: Watch = nobody,
) -> dict[str, float]:
    """The quantisation step of every tensor, by its name.

    Two passes over the tiles, one after the other, so that memory does not grow with their number:
    one for the largest magnitude of each tensor, one for the histogram below it.

    Args:
        graph: of FP32.
        tensors: names of those that are to be rounded.
        tiles: the graph's inputs by name, float32, N tiles in each.
        method: how far the range goes: to the largest magnitude, to PERCENTILE of the tile where
            that is largest, or to where least information is lost.
        watch: called after every tile.

    Raises:
        CalibrationError: where a tensor is 0 on all tiles.
    """
    largest = dict.fromkeys(tensors, 0.0)
    counts = {name: np.zeros(_BINS) for name in tensors}
    furthest = dict.fromkeys(tensors, 0)

    def widen(name: str, tensor: Tensor) -> None:
        if name in largest:
            largest[name] = max(largest[name], float(tensor.abs().max()))

    def count(name: str, tensor: Tensor) -> None:
        if name in counts:
            of_tile = torch.histc(tensor.abs(), _BINS, 0, largest[name]).numpy()
            counts[name] += of_tile
            furthest[name] = max(furthest[name], percentile_bins(of_tile))

    _over(tiles, graph, widen, watch)
    dead = [name for name, magnitude in largest.items() if magnitude == 0]
    if dead:
        raise CalibrationError("what a layer takes or gives is 0 on every tile", subject=dead[0])
    if method == "minmax":
        return {name: magnitude / INT8_MOST for name, magnitude in largest.items()}
    _over(tiles, graph, count, watch)
    bins = (
        furthest
        if method == "percentile"
        else {name: entropy_bins(each) for name, each in counts.items()}
    )
    return {name: largest[name] * bins[name] / _BINS / INT8_MOST for name in largest}


def _over(
    tiles: _Arrays, graph: TypedGraph, observe: Callable[[str, Tensor], None], watch: Watch
) -> None:
    count = len(tiles[NOISY])
    for index in range(count):
        tile = {name: array[index : index + 1] for name, array in tiles.items()}
        for name, array in tile.items():
            observe(name, torch.tensor(array))
        graph(tile, observe=observe)
        watch("calibration", index + 1, count)


def percentile_bins(counts: _Counts) -> int:
    """How many of the bins hold PERCENTILE of all values."""
    share = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(share, PERCENTILE / 100)) + 1


def entropy_bins(counts: _Counts) -> int:
    """The number of bins at which values lose least when they are rounded to INT8.

    S. Migacz, "8-bit Inference with TensorRT", GTC 2017: the Kullback-Leibler divergence of the
    clipped histogram from its rounded self.
    """
    levels = INT8_MOST + 1
    candidates = range(levels, _BINS + 1, levels // 8)
    return min(candidates, key=lambda bins: _divergence(counts, bins, levels))


def _divergence(counts: _Counts, bins: int, levels: int) -> float:
    inside = counts[:bins]
    clipped = inside.copy()
    clipped[-1] += counts[bins:].sum()
    level = np.arange(bins) * levels // bins
    filled = inside > 0
    of_level = np.bincount(level, inside, levels) / np.maximum(
        np.bincount(level, filled, levels), 1
    )
    rounded = np.where(filled, of_level[level], 0)
    seen = clipped > 0
    p = clipped[seen] / clipped.sum()
    # What only clipping puts into a bin has no rounded counterpart; Migacz leaves it open.
    q = np.maximum(rounded[seen] / rounded.sum(), 1e-12)
    return float(np.sum(p * np.log(p / q)))
