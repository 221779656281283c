"""The passes before and after the network, run on the GPU where the network's tiles lie."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.cuda import Address, CudaDriver, Size, Stream
from cycleisp_runtime.cuda.compiler import compile_kernels
from cycleisp_runtime.cuda.passes import TilePasses
from cycleisp_runtime.cuda.slot import Slot

__all__ = ["RESULT", "PassKernels", "compile_passes", "pass_buffers"]

PATCH, ROWS, COLUMNS, RESULT = "<patch>", "<rows>", "<columns>", "<result>"
"""Memory beside that of the network's tensors, none of which is called so."""

BLOCK: Size = (32, 8)
"""Threads; 32 neighbours in a row read and write neighbours."""

HEAD_BYTES = 256
"""Before the result's samples stands, in the first four bytes, whether it is no picture."""

FLOAT_BYTES = 4


def compile_passes(capability: tuple[int, int]) -> bytes:
    """Machine code of ``passes.cu`` for GPUs of this compute capability.

    Raises:
        BackendError: where there is no compiler for them.
    """
    return compile_kernels(Path(__file__).with_name("passes.cu").read_text("utf-8"), capability)


def pass_buffers(rows: int, columns: int) -> dict[str, int]:
    """Bytes by name that a slot must have for tiles of at most so many packed samples."""
    mosaic = FLOAT_BYTES * 2 * rows * 2 * columns
    return {
        PATCH: mosaic,
        ROWS: FLOAT_BYTES * 2 * 2 * rows,
        COLUMNS: FLOAT_BYTES * 2 * 2 * columns,
        RESULT: HEAD_BYTES + mosaic,
    }


class PassKernels:
    """``cut`` and ``stitch`` of ``passes.cu``, on memory of slots that have ``pass_buffers``.

    Args:
        cuda: the driver, its context current.
        code: as ``compile_passes`` gives it.
        lifetime: unloads them when it is closed.
    """

    def __init__(self, cuda: CudaDriver, code: bytes, lifetime: ExitStack) -> None:
        self._cuda = cuda
        module = cuda.load_module(code)
        lifetime.callback(cuda.unload_module, module)
        self._cut, self._stitch = (cuda.find_kernel(module, name) for name in ("cut", "stitch"))

    def uploads(self, tile: TilePasses) -> dict[str, npt.NDArray[Any]]:
        """What the GPU must have of a tile, by name."""
        return {PATCH: tile.patch, ROWS: tile.row_levels, COLUMNS: tile.column_levels}

    def cut(
        self, tile: TilePasses, slot: Slot, noisy: Address, variance: Address, stream: Stream
    ) -> None:
        """Let the tile be cut from what was uploaded; 0 for a network that takes no variance."""
        patch, rows, columns, result = (
            slot.addresses[name] for name in (PATCH, ROWS, COLUMNS, RESULT)
        )
        size = int(tile.record["columns"]), int(tile.record["rows"])
        addresses = (patch, rows, columns, noisy, variance, result)
        self._cuda.launch_kernel(self._cut, _grid(size), BLOCK, tile.record, addresses, stream)

    def stitch(self, tile: TilePasses, slot: Slot, denoised: Address, stream: Stream) -> None:
        """Let the result be made of what ``cut`` cut and the network denoised."""
        patch, rows, columns, result = (
            slot.addresses[name] for name in (PATCH, ROWS, COLUMNS, RESULT)
        )
        size = int(tile.record["core_columns"]), int(tile.record["core_rows"])
        addresses = (
            patch,
            Address(rows + tile.row_levels[0].nbytes),
            Address(columns + tile.column_levels[0].nbytes),
            denoised,
            Address(result + HEAD_BYTES),
            result,
        )
        self._cuda.launch_kernel(self._stitch, _grid(size), BLOCK, tile.record, addresses, stream)

    def result_bytes(self, tile: TilePasses) -> int:
        """What must be downloaded."""
        return HEAD_BYTES + tile.target.nbytes

    def collect(self, tile: TilePasses, slot: Slot) -> bool:
        """Write what was downloaded into the frame; False where it is no picture."""
        held = slot.view(RESULT, (self.result_bytes(tile),), np.uint8)
        if held[:FLOAT_BYTES].any():
            return False
        tile.target[:] = held[HEAD_BYTES:].view(tile.target.dtype).reshape(tile.target.shape)
        return True


def _grid(threads: Size) -> Size:
    """Enough blocks for so many threads."""
    columns, rows = (math.ceil(size / block) for size, block in zip(threads, BLOCK, strict=True))
    return columns, rows
