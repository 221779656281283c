"""Fingerprints of raw samples, as DNG files carry them.

DNG 1.7.1, tags RawImageDigest and NewRawImageDigest; MD5 is the algorithm that they prescribe.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["new_raw_image_digest", "raw_image_digest"]

_BLOCK = 256


def raw_image_digest(samples: npt.NDArray[np.uint16]) -> bytes:
    """MD5 (16 bytes) of stored samples (H, W), row by row, little-endian."""
    digest = hashlib.md5(usedforsecurity=False)
    for top in range(0, samples.shape[0], _BLOCK):
        digest.update(samples[top : top + _BLOCK].astype("<u2").tobytes())
    return digest.digest()


def new_raw_image_digest(samples: npt.NDArray[np.uint16]) -> bytes:
    """MD5 (16 bytes) of the MD5s of the 256x256 blocks of stored samples (H, W), row by row."""
    height, width = samples.shape
    blocks = b"".join(
        raw_image_digest(samples[top : top + _BLOCK, left : left + _BLOCK])
        for top in range(0, height, _BLOCK)
        for left in range(0, width, _BLOCK)
    )
    return hashlib.md5(blocks, usedforsecurity=False).digest()
