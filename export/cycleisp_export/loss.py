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
from cycleisp.evaluation.metrics import SSIM_WINDOW, psnr
from cycleisp.evaluation.validation import validation_planes
from cycleisp.noise import LEVELS, noisy_samples, variance_map
from cycleisp_export.exportable import Exportable
from cycleisp_export.watch import Watch, nobody
from cycleisp_runtime.errors import InputError

__all__ = [
    "Graph",
    "JudgedTiles",
    "Losses",
    "judging_tiles",
    "noisy_frame",
    "noisy_tile",
    "read_clean_tiles",
]

Graph = Callable[[Mapping[str, npt.NDArray[np.float32]]], npt.NDArray[np.float32]]
"""Denoised (N, C, h, w) from a graph's inputs by name, as ``OnnxGraph``."""

Losses = dict[str, float]
"""dB by noise level."""

_SIDE = 128
"""Packed samples, or pixels of sRGB; the receptive fields are smaller."""

_LEAST_SIDE = 4 * -(-SSIM_WINDOW // 2)
"""Of a photograph, in pixels: whole cells of four, as packed samples more than SSIM's window."""

_GAMMA = np.float32(2.2)
"""The power law of ``validation_planes``, which stands for sRGB's curve."""

MOST_PICTURES = 48

MOST_MACS = 3e11
"""Of one pass over the tiles that judge a network, in multiply-adds. 48 tiles of an edge network
take 6e10. Of a full one a single tile takes 5e10, a second or two; it is judged on 6."""


class JudgedTiles:
    """Tiles at the three noise levels, and how well a network of FP32 does on them.

    Attributes:
        clean: the tiles, one of each picture.
        inputs: of the network, for every tile, by noise level. Noise depends on the place only.

    Args:
        network: says what its inputs are.
        clean: (C, h, w) float32 each, h and w even: packed planes, normalised, or sRGB in [0, 1].
        reference: the graph of FP32.
        watch: called after every tile.
    """

    def __init__(
        self,
        network: Exportable,
        clean: Sequence[npt.NDArray[np.float32]],
        reference: Graph,
        watch: Watch = nobody,
    ) -> None:
        self.clean, self._watch = clean, watch
        # Made once: the gates of a network that pools take as long as the network.
        self.inputs = {
            level: [
                noisy_tile(network, tile, level, np.random.default_rng(index))
                for index, tile in enumerate(clean)
            ]
            for level in LEVELS
        }
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
        """PSNR in dB of every tile, clipped to [0, 1]."""
        found = []
        for clean, inputs in zip(self.clean, self.inputs[level], strict=True):
            found.append(psnr(np.clip(graph(inputs)[0], 0, 1), clean))
            self._watch(f"{level} noise", len(found), len(self.clean))
        return np.array(found)


def noisy_tile(
    network: Exportable, clean: npt.NDArray[np.float32], level: str, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.float32]]:
    """A network's inputs for one clean tile (C, h, w) with the noise of a level on it."""
    return network.with_gates(noisy_frame(network, clean, level, rng))


def noisy_frame(
    network: Exportable, clean: npt.NDArray[np.float32], level: str, rng: np.random.Generator
) -> dict[str, npt.NDArray[np.float32]]:
    """The same without gates: what the network takes in torch."""
    shot, read = LEVELS[level]
    if network.task == "raw":
        noisy = noisy_samples(clean, shot, read, rng)[None]
        return network.frame(noisy, variance_map(noisy, shot, read))
    linear = noisy_samples(np.power(clean, _GAMMA), shot, read, rng)[None]
    return network.frame(np.power(np.clip(linear, 0, 1), 1 / _GAMMA))


def judging_tiles(
    network: Exportable, folder: Path, pattern: str = "*"
) -> list[npt.NDArray[np.float32]]:
    """The clean tiles of a folder that judge a network, as ``read_clean_tiles`` gives them.

    As many as one pass over them takes no more than MOST_MACS, but at least 2.
    """
    samples = _SIDE * _SIDE * (4 if network.task == "raw" else 1)
    affordable = MOST_MACS / (1000 * network.kmac_per_sample * samples)
    most = max(2, min(MOST_PICTURES, int(affordable)))
    return read_clean_tiles(folder, network.task, pattern, most)


def read_clean_tiles(
    folder: Path,
    task: Literal["raw", "srgb"] = "raw",
    pattern: str = "*",
    most: int = MOST_PICTURES,
) -> list[npt.NDArray[np.float32]]:
    """A clean tile of each photograph of a folder, float32.

    (4, h, w) packed planes, normalised, for RAW, (3, h, w) in [0, 1] for sRGB; h and w even. At
    most ``most`` of those whose name matches, spread over the folder.

    Raises:
        InputError: where the folder holds fewer than two pictures, or one cannot be read or is
            smaller than SSIM's window.
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
    return [_clean_tile(path, task) for path in paths[:: -(-len(paths) // most)]]


def _clean_tile(path: Path, task: Literal["raw", "srgb"]) -> npt.NDArray[np.float32]:
    """The most detailed tile of a picture that is first reduced to about 512 on the shorter side.

    Dense texture under little noise has the largest activations, which INT8 clips.
    """
    codes = load_photograph(path)
    if min(codes.shape[:2]) < _LEAST_SIDE:
        raise InputError(
            "too small a photograph to measure a loss on",
            subject=path,
            met=f"{codes.shape[1]}x{codes.shape[0]} pixels",
            wanted=f"at least {_LEAST_SIDE} on each side",
        )
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
