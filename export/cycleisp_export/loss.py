"""What a lower precision costs in dB, on photographs that neither trained nor calibrated it.

RAW is judged as validation does: packed samples with the noise of a level. sRGB is the same level's
noise on linear light, clipped and brought to sRGB's gamma: every pixel by itself, as of a frame
that was binned instead of demosaicked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cycleisp.data.photographs import load_photograph
from cycleisp.evaluation.metrics import psnr
from cycleisp.evaluation.validation import validation_planes
from cycleisp.noise import LEVELS, noisy_samples, variance_map
from cycleisp_export.exportable import Exportable
from cycleisp_runtime.errors import InputError

__all__ = ["Graph", "JudgedTiles", "Losses", "noisy_tile", "read_clean_tiles"]

Graph = Callable[[Mapping[str, npt.NDArray[np.float32]]], npt.NDArray[np.float32]]
"""Denoised (N, C, h, w) from a graph's inputs by name, as ``OnnxGraph``."""

Losses = dict[str, float]
"""dB by noise level."""

_SIDE = 128
"""Packed samples, or pixels of sRGB; the receptive fields are smaller."""

_GAMMA = np.float32(2.2)
"""The power law of ``validation_planes``, which stands for sRGB's curve."""

MOST_PICTURES = 48


class JudgedTiles:
    """Tiles at the three noise levels, and how well a network of FP32 does on them.

    Attributes:
        pictures: how many tiles there are, one of each picture.

    Args:
        network: says what its inputs are.
        clean: (C, h, w) float32 each, h and w even: packed planes, normalised, or sRGB in [0, 1].
        reference: the graph of FP32.
    """

    def __init__(
        self,
        network: Exportable,
        clean: Sequence[npt.NDArray[np.float32]],
        reference: Graph,
    ) -> None:
        self._network, self._clean = network, clean
        self.pictures = len(clean)
        self._reference = {level: self._quality(reference, level) for level in LEVELS}

    def losses(self, graph: Graph) -> tuple[Losses, Losses]:
        """Mean loss of PSNR against FP32 per level, and that of the tile that loses most."""
        lost = {
            level: reference - self._quality(graph, level)
            for level, reference in self._reference.items()
        }
        return (
            {level: float(each.mean()) for level, each in lost.items()},
            {level: float(each.max()) for level, each in lost.items()},
        )

    def _quality(self, graph: Graph, level: str) -> npt.NDArray[np.float64]:
        """PSNR in dB of every tile, clipped to [0, 1]; its noise depends on its place only."""
        found = []
        for index, clean in enumerate(self._clean):
            inputs = noisy_tile(self._network, clean, level, np.random.default_rng(index))
            found.append(psnr(np.clip(graph(inputs)[0], 0, 1), clean))
        return np.array(found)


def noisy_tile(
    network: Exportable, clean: npt.NDArray[np.float32], level: str, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.float32]]:
    """A network's inputs for one clean tile (C, h, w) with the noise of a level on it."""
    shot, read = LEVELS[level]
    if network.task == "raw":
        noisy = noisy_samples(clean, shot, read, rng)[None]
        return network.inputs(noisy, variance_map(noisy, shot, read))
    linear = noisy_samples(np.power(clean, _GAMMA), shot, read, rng)[None]
    return network.inputs(np.power(np.clip(linear, 0, 1), 1 / _GAMMA))


def read_clean_tiles(
    folder: Path, task: Literal["raw", "srgb"] = "raw", pattern: str = "*"
) -> list[npt.NDArray[np.float32]]:
    """A clean tile of each photograph of a folder, float32.

    (4, h, w) packed planes, normalised, for RAW, (3, h, w) in [0, 1] for sRGB; h and w even. At
    most MOST_PICTURES of those whose name matches, spread over the folder.

    Raises:
        InputError: where the folder holds fewer than two pictures, or one cannot be read.
    """
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    paths = sorted(path for path in folder.glob(pattern) if path.suffix.lower() in suffixes)
    if len(paths) < 2:
        raise InputError(
            "too few photographs to measure a loss on",
            subject=folder,
            met=len(paths),
            wanted="at least 2",
        )
    return [
        _clean_tile(load_photograph(path), task)
        for path in paths[:: -(-len(paths) // MOST_PICTURES)]
    ]


def _clean_tile(
    codes: npt.NDArray[np.uint8], task: Literal["raw", "srgb"]
) -> npt.NDArray[np.float32]:
    """The most detailed tile of a picture that is first reduced to about 512 on the shorter side.

    Dense texture under little noise has the largest activations, which INT8 clips.
    """
    reduction = max(1, min(codes.shape[:2]) // 512)
    height, width = (extent // reduction * reduction for extent in codes.shape[:2])
    blocks = codes[:height, :width].reshape(
        height // reduction, reduction, width // reduction, reduction, 3
    )
    reduced = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    planes = validation_planes(reduced) if task == "raw" else _even(reduced)
    tiles = [
        planes[:, top : top + _SIDE, left : left + _SIDE]
        for top in range(0, max(1, planes.shape[1] - _SIDE + 1), _SIDE)
        for left in range(0, max(1, planes.shape[2] - _SIDE + 1), _SIDE)
    ]
    return max(tiles, key=lambda tile: float(np.abs(np.diff(tile)).mean()))


def _even(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """sRGB codes (H, W, 3) as (3, h, w) in [0, 1], h and w even."""
    height, width = (extent // 2 * 2 for extent in codes.shape[:2])
    return codes[:height, :width].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
