"""Arrays of other libraries in the memory of a GPU, and copies of them on the host.

CuPy, Numba, PyCUDA, JAX and torch describe theirs by ``__cuda_array_interface__`` (its text stands
in Numba's documentation; streams came with version 3), others by DLPack. Work on the array that its
library asked for may be under way: the interface names the stream that it is in, or None where
there is none. Where nothing is said, as by torch, everything that the GPU does is waited for.
"""

from __future__ import annotations

import contextlib
import math
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.cuda import Address, Bytes, CudaDriver, Stream, open_driver
from cycleisp_runtime.cuda.dlpack import dlpack_interface, is_on_gpu
from cycleisp_runtime.errors import BackendError, InputError

__all__ = ["GpuArray", "HostCopies", "gpu_array"]


class GpuArray(NamedTuple):
    """Where an array lies on a GPU, and what it is.

    Attributes:
        address: of the first element.
        shape: (H, ...), each of the H rows C-contiguous.
        dtype: of the elements, a number.
        pitch: bytes from row to row.
        writeable: the library lets others write into it.
        streams: in which work on it may be under way; None for all there are.
        owner: keeps the memory as long as it lives.
    """

    address: Address
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pitch: int
    writeable: bool
    streams: tuple[Stream, ...] | None
    owner: object

    @property
    def nbytes(self) -> int:
        """Of a C-contiguous copy."""
        return math.prod(self.shape) * self.dtype.itemsize


def gpu_array(array: object) -> GpuArray | None:
    """What an array says of itself; None for one that does not lie on a GPU.

    Raises:
        InputError: where rows are not contiguous, elements are no numbers, some are masked, or its
            library does not share it.
    """
    facts: dict[str, Any] | None = getattr(array, "__cuda_array_interface__", None)
    if facts is None:
        if not is_on_gpu(array):
            return None
        try:
            facts = dlpack_interface(array)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"an array on a GPU that is not shared: {error}", met=type(array).__name__
            ) from error
    address, read_only = facts["data"]
    shape, dtype, masked = tuple(facts["shape"]), np.dtype(facts["typestr"]), facts.get("mask")
    if 0 in (len(shape), *shape) or dtype.kind not in "uif" or masked is not None:
        raise InputError(
            "not an array that can be read from a GPU",
            met=f"{dtype} {shape}{'' if masked is None else ', masked'}",
            wanted="numbers, at least one, none of them masked",
        )
    contiguous = _contiguous_strides(shape, dtype.itemsize)
    strides = tuple(facts.get("strides") or contiguous)
    pitch = strides[0] if shape[0] > 1 else contiguous[0]
    if strides[1:] != contiguous[1:] or pitch < contiguous[0]:
        raise InputError(
            "the rows of the array on the GPU are not contiguous",
            met=f"strides {strides}",
            wanted=f"{contiguous}, or more bytes from row to row",
            hint="make it contiguous first",
        )
    streams = None
    if "stream" in facts:
        streams = () if facts["stream"] is None else (Stream(facts["stream"]),)
    owner = facts.get("capsule", array)
    return GpuArray(Address(address), shape, dtype, pitch, not read_only, streams, owner)


class HostCopies:
    """Pinned copies of arrays on the first GPU that CUDA may use; their memory is kept.

    The driver is opened for the first such array. One thread at a time may use it; ``close``
    belongs to the thread that did so first.
    """

    def __init__(self) -> None:
        self._lifetime = ExitStack()
        self._cuda: CudaDriver | None = None
        self._stream = Stream(0)
        self._pinned: dict[str, Bytes] = {}

    def read(self, array: GpuArray) -> npt.NDArray[Any]:
        """What the array holds, until the next call.

        Raises:
            OutOfMemoryError: where the host has no memory for it that the GPU reaches.
            BackendError: where the array lies on another GPU, or CUDA does not work.
        """
        cuda = self._opened(array)
        with cuda.current():
            copy = self._memory(cuda, "read", array)
            _wait_for_its_library(cuda, array)
            cuda.download_rows(_rows(copy), array.address, array.pitch, self._stream)
            cuda.synchronize(self._stream)
        return copy

    def blank(self, array: GpuArray) -> npt.NDArray[Any]:
        """Memory like the array's, contents undefined, until the next call; for ``write``.

        Raises:
            OutOfMemoryError: as ``read``.
            BackendError: as ``read``.
        """
        cuda = self._opened(array)
        with cuda.current():
            return self._memory(cuda, "write", array)

    def write(self, array: GpuArray, copy: npt.NDArray[Any]) -> None:
        """Let the array hold what stands in the memory that ``blank`` gave.

        When this returns it does, for every stream.

        Raises:
            BackendError: as ``read``.
        """
        cuda = self._opened(array)
        with cuda.current():
            _wait_for_its_library(cuda, array)
            cuda.upload_rows(array.address, array.pitch, _rows(copy), self._stream)
            cuda.synchronize(self._stream)

    def close(self) -> None:
        """Give the memory back; may be called twice."""
        with contextlib.suppress(BackendError):  # after a fault of the GPU nothing can be freed
            self._lifetime.close()
        self._cuda = None

    def _opened(self, array: GpuArray) -> CudaDriver:
        if self._cuda is None:
            cuda = open_driver()
            self._lifetime.callback(cuda.close)
            with cuda.current():
                self._stream = cuda.create_stream()
            self._lifetime.callback(self._free, cuda)
            self._cuda = cuda
        with self._cuda.current():
            if not self._cuda.holds(array.address):
                raise BackendError(
                    "the array is not in the memory of the first GPU that CUDA may use",
                    hint="choose another one by CUDA_VISIBLE_DEVICES, or copy it to the host first",
                )
        return self._cuda

    def _free(self, cuda: CudaDriver) -> None:
        with cuda.current():
            while self._pinned:
                cuda.free_pinned(self._pinned.popitem()[1])
            cuda.destroy_stream(self._stream)

    def _memory(self, cuda: CudaDriver, use: str, array: GpuArray) -> npt.NDArray[Any]:
        """Pinned memory of the array's shape and type, larger than before only where it must."""
        if use in self._pinned and len(self._pinned[use]) < array.nbytes:
            cuda.free_pinned(self._pinned.pop(use))
        if use not in self._pinned:
            self._pinned[use] = cuda.allocate_pinned(array.nbytes)
        return self._pinned[use][: array.nbytes].view(array.dtype).reshape(array.shape)


def _contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _wait_for_its_library(cuda: CudaDriver, array: GpuArray) -> None:
    for stream in (None,) if array.streams is None else array.streams:
        cuda.wait_for_others(stream)


def _rows(copy: npt.NDArray[Any]) -> Bytes:
    return copy.reshape(len(copy), -1).view(np.uint8)
