"""SIDD's blocks for validation and benchmark, from the files that its authors publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cycleisp.data.matlab import read_array
from cycleisp_runtime.errors import InputError

__all__ = ["BLOCK_PHONES", "read_raw_blocks", "read_srgb_blocks", "unit_samples"]

BLOCK_PHONES = tuple(
    "S6 GP N6 G4 IP GP IP G4 N6 S6".split() + "N6 G4 S6 GP IP".split() * 6  # noqa: SIM905
)
"""The phone of each of the 40 images that the blocks are cut from, in order: the list of the same
loaders, made for the benchmark and used for the validation set too."""


def read_raw_blocks(folder: Path, name: str) -> npt.NDArray[np.float32]:
    """The blocks of NAME.mat: (N, M, H, W) float32 mosaics in [0, 1], clipped; 40, 32, 256, 256.

    Raises:
        InputError: where the file does not hold such blocks.
    """
    path = folder / f"{name}.mat"
    blocks = read_array(path, name)
    if blocks.ndim != 4 or blocks.dtype.kind != "f" or not _has_whole_blocks(blocks):
        raise _no_blocks(path, blocks, "single (40, 32, 256, 256)")
    return unit_samples(path, blocks)


def read_srgb_blocks(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    """The blocks of NAME.mat: (N, M, H, W, 3) uint8 sRGB; 40, 32, 256, 256, 3.

    Raises:
        InputError: where the file does not hold such blocks.
    """
    path = folder / f"{name}.mat"
    blocks = read_array(path, name)
    fit = blocks.ndim == 5 and blocks.shape[4] == 3 and blocks.dtype == np.uint8
    if not fit or not _has_whole_blocks(blocks):
        raise _no_blocks(path, blocks, "uint8 (40, 32, 256, 256, 3)")
    return blocks.astype(np.uint8, copy=False)


def _has_whole_blocks(blocks: npt.NDArray[Any]) -> bool:
    """Whether SSIM's window and the cells of the smallest networks fit into the sides."""
    return 0 not in blocks.shape and all(side >= 12 and side % 4 == 0 for side in blocks.shape[2:4])


def _no_blocks(path: Path, met: npt.NDArray[Any], wanted: str) -> InputError:
    return InputError(
        "not SIDD's blocks", subject=path, met=f"{met.dtype} {met.shape}", wanted=wanted
    )


def unit_samples(path: Path, samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The same as float32, clipped to [0, 1] as the networks expect.

    Raises:
        InputError: where some are not finite, or they are no normalised samples at all.
    """
    single = samples.astype(np.float32)
    if not np.isfinite(single).all() or single.mean() > 1:
        raise InputError("not normalised samples", subject=path, wanted="finite, in [0, 1]")
    return np.clip(single, 0, 1, out=single)
