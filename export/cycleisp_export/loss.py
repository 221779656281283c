"""What a lower precision costs in dB, on photographs that neither trained nor calibrated it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp.data.photographs import load_photograph
from cycleisp.evaluation.metrics import psnr
from cycleisp.evaluation.validation import validation_planes
from cycleisp.noise import LEVELS, noisy_samples, variance_map
from cycleisp_runtime.errors import InputError

__all__ = ["Graph", "JudgedTiles", "Losses", "read_clean_tiles"]

Graph = Callable[
    [npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]],
    npt.NDArray[np.float32],
]
"""Denoised (N, 4, h, w) from noisy, variance and noise scale, as ``OnnxGraph``."""

Losses = dict[str, float]
"""dB by noise level."""

_SIDE = 128
"""Packed samples; the receptive fields are smaller."""

MOST_PICTURES = 48


class JudgedTiles:
    """Tiles at the three noise levels, and how well a network of FP32 does on them.

    Attributes:
        pictures: how many tiles there are, one of each picture.

    Args:
        clean: packed planes (4, h, w) float32 each, normalised, h and w even.
        reference: the graph of FP32.
    """

    def __init__(self, clean: Sequence[npt.NDArray[np.float32]], reference: Graph) -> None:
        self._clean = clean
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
        shot, read = LEVELS[level]
        found = []
        for index, clean in enumerate(self._clean):
            noisy = noisy_samples(clean, shot, read, np.random.default_rng(index))[None]
            variance = variance_map(noisy, shot, read)
            scale = np.sqrt(variance.mean(keepdims=True))
            found.append(psnr(np.clip(graph(noisy, variance, scale)[0], 0, 1), clean))
        return np.array(found)


def read_clean_tiles(folder: Path, pattern: str = "*") -> list[npt.NDArray[np.float32]]:
    """A tile of each photograph of a folder as clean packed planes (4, h, w), normalised.

    At most MOST_PICTURES of those whose name matches, spread over the folder.

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
        _clean_tile(load_photograph(path)) for path in paths[:: -(-len(paths) // MOST_PICTURES)]
    ]


def _clean_tile(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The most detailed tile of a picture that is first reduced to about 512 on the shorter side.

    Dense texture under little noise has the largest activations, which INT8 clips.
    """
    reduction = max(1, min(codes.shape[:2]) // 512)
    height, width = (extent // reduction * reduction for extent in codes.shape[:2])
    blocks = codes[:height, :width].reshape(
        height // reduction, reduction, width // reduction, reduction, 3
    )
    planes = validation_planes(np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8))
    tiles = [
        planes[:, top : top + _SIDE, left : left + _SIDE]
        for top in range(0, max(1, planes.shape[1] - _SIDE + 1), _SIDE)
        for left in range(0, max(1, planes.shape[2] - _SIDE + 1), _SIDE)
    ]
    return max(tiles, key=lambda tile: float(np.abs(np.diff(tile)).mean()))
