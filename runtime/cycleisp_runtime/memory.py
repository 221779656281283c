"""How much memory tiles take, and which tile fits a budget.

A run of tiles takes, per packed sample of all its tiles,

    48 bytes    of the denoiser: noisy and variance, and the backend's output
    114 bytes   of the network: inputs and outputs in the shapes that its first layers take
    8 maps      of C float32 features at the network's own resolution, alive at a time

Measured with ONNX Runtime 1.32 as the growth of a process's peak on tiles of 256, 512 and 1024:
513 bytes for the edge model (48 features), 385 for tiny (32), their outputs of 16 bytes included,
linear in the tile's area to 2 %; the last two lines are the straight line through both.

A bundle states no C, but parameters P and multiply-adds per sample. Nearly all of both are in 3x3
convolutions C -> C, so P = 9 C^2 L for L of them. No network of the family has fewer than 8, hence
C <= sqrt(P / 72): 66 for edge, 38 for tiny, which errs to the safe side by a quarter and a tenth.
P over multiply-adds is the number of samples per feature position, 16 for networks that unshuffle
the packed frame once more, 4 for those that do not.
"""

from __future__ import annotations

import math
import re

from cycleisp_runtime.bundle import BundleRecord
from cycleisp_runtime.errors import SettingsError

__all__ = [
    "budget_for",
    "bytes_per_packed_sample",
    "largest_side",
    "next_smaller_side",
    "parse_memory",
    "share_of",
    "tiles_within",
]

SIDES = (2048, 1536, 1280, 1024, 896, 768, 640, 512, 448, 384, 256, 192, 128, 96, 64)
"""Of tiles, in packed samples. Above the first halos cost less than 5 % of the work."""

PROCESS_BYTES = 128 << 20
"""What a budget leaves to everything else: Python, NumPy, ONNX Runtime and a session take 76 MiB,
readers and writers another 20."""

_OWN_BYTES, _EDGE_BYTES, _MAPS, _FEWEST_CONVOLUTIONS = 48, 114, 8, 8

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def parse_memory(text: str) -> int:
    """Bytes from a size such as "512MiB", "2GiB", "300M" or "268435456"; units are powers of 1024.

    Raises:
        SettingsError: where it is no such size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]?)(?:iB|B)?", text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise SettingsError(f"{text!r} is not a size such as 512MiB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def bytes_per_packed_sample(record: BundleRecord) -> float:
    """Memory that denoising takes per packed sample of a tile, halo included, from above."""
    features = math.sqrt(record.parameters / (9 * _FEWEST_CONVOLUTIONS))
    samples_per_position = record.parameters / (1000 * record.kmac_per_sample)
    positions = (4 if record.task == "raw" else 1) / samples_per_position
    return _OWN_BYTES + _EDGE_BYTES + 4 * _MAPS * features * positions


def largest_side(memory: int, record: BundleRecord, *, least: int) -> int:
    """Side of the largest square tile whose run stays within ``memory`` bytes, process included.

    Args:
        memory: for everything but the frames themselves.
        record: of the network.
        least: the smallest tile that leaves a core, in packed samples.

    Raises:
        SettingsError: where not even the smallest tile fits.
    """
    sides = [side for side in SIDES if side >= least] or [least]
    for side in sides:
        if tiles_within(memory, record, side * side) > 0:
            return side
    smallest = budget_for(bytes_per_packed_sample(record) * sides[-1] ** 2, record)
    raise SettingsError(
        f"too little memory for any tile of the model {record.name}",
        subject="memory",
        met=f"{memory / 2**20:.0f} MiB",
        wanted=f"at least {math.ceil(smallest / 2**20)} MiB",
    )


def tiles_within(memory: int, record: BundleRecord, packed_samples: int) -> int:
    """How many tiles of so many packed samples each one run may take within ``memory`` bytes."""
    return int(share_of(memory, record) / (bytes_per_packed_sample(record) * packed_samples))


def share_of(memory: int, record: BundleRecord) -> int:
    """Bytes of a budget that tiles may take.

    Of a network that pools over the frame, the graph of its statistics may take as much again.
    """
    return max(memory - PROCESS_BYTES, 0) // _shares(record)


def budget_for(share: float, record: BundleRecord) -> float:
    """The budget of which tiles, and the graph of statistics, may each take ``share`` bytes."""
    return PROCESS_BYTES + share * _shares(record)


def _shares(record: BundleRecord) -> int:
    return 1 if record.pooling is None else 2


def next_smaller_side(side: int, *, least: int) -> int | None:
    """The side to try where tiles of ``side`` were too large; None where there is none."""
    return next((smaller for smaller in SIDES if least <= smaller < side), None)
