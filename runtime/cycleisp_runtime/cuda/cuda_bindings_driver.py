"""The CUDA driver through NVIDIA's cuda-bindings, whose functions give a status and values."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import cuda.bindings
import numpy as np
from cuda.bindings import driver as cuda_driver

from cycleisp_runtime.cuda import Address, Bytes, Event, Stream
from cycleisp_runtime.cuda.libcuda import LibCuda
from cycleisp_runtime.errors import BackendError, OutOfMemoryError

__all__ = ["Driver"]


class Driver(LibCuda):
    """The driver, called through cuda-bindings.

    Raises:
        BackendError: where there is no GPU or the driver does not work.
    """

    def __init__(self) -> None:
        self.package = f"cuda-bindings {cuda.bindings.__version__}"
        _call(cuda_driver.cuInit, 0)
        self._device = _call(cuda_driver.cuDeviceGet, 0)
        attribute = cuda_driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED
        self.integrated = bool(_call(cuda_driver.cuDeviceGetAttribute, attribute, self._device))
        self._context = _call(cuda_driver.cuDevicePrimaryCtxRetain, self._device)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes the GPU's primary context that of this thread, and then what it was before."""
        _call(cuda_driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            _call(cuda_driver.cuCtxPopCurrent)

    def close(self) -> None:
        """Release the primary context; once."""
        _call(cuda_driver.cuDevicePrimaryCtxRelease, self._device)

    def allocate(self, size: int) -> Address:
        """Memory of the GPU, ``size`` bytes of it."""
        return Address(int(_call(cuda_driver.cuMemAlloc, size)))

    def free(self, address: Address) -> None:
        """Give back what ``allocate`` gave."""
        _call(cuda_driver.cuMemFree, address)

    def allocate_pinned(self, size: int) -> Bytes:
        """Memory of the host that the GPU reaches while the host goes on; contents undefined."""
        address = _call(cuda_driver.cuMemHostAlloc, size, cuda_driver.CU_MEMHOSTALLOC_DEVICEMAP)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address)))

    def device_address(self, pinned: Bytes) -> Address:
        """Where the GPU sees what ``allocate_pinned`` gave."""
        return Address(int(_call(cuda_driver.cuMemHostGetDevicePointer, pinned.ctypes.data, 0)))

    def free_pinned(self, pinned: Bytes) -> None:
        """Give back what ``allocate_pinned`` gave; no view of it may be used afterwards."""
        _call(cuda_driver.cuMemFreeHost, pinned.ctypes.data)

    def upload(self, target: Address, pinned: Bytes, stream: Stream) -> None:
        """Copy to the GPU once the stream comes to it; ``pinned`` must not change until then."""
        source = pinned.ctypes.data
        _call(cuda_driver.cuMemcpyHtoDAsync, target, source, pinned.nbytes, stream)

    def download(self, pinned: Bytes, source: Address, stream: Stream) -> None:
        """Copy from the GPU once the stream comes to it; ``pinned`` must not be read until then."""
        target = pinned.ctypes.data
        _call(cuda_driver.cuMemcpyDtoHAsync, target, source, pinned.nbytes, stream)

    def create_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""
        flag = cuda_driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        return Stream(int(_call(cuda_driver.cuStreamCreate, flag)))

    def destroy_stream(self, stream: Stream) -> None:
        """Give back what ``create_stream`` gave."""
        _call(cuda_driver.cuStreamDestroy, stream)

    def synchronize(self, stream: Stream) -> None:
        """Wait until everything that was asked of the stream has happened."""
        _call(cuda_driver.cuStreamSynchronize, stream)

    def create_event(self) -> Event:
        """An event that keeps the time."""
        flag = cuda_driver.CUevent_flags.CU_EVENT_DEFAULT
        return Event(int(_call(cuda_driver.cuEventCreate, flag)))

    def destroy_event(self, event: Event) -> None:
        """Give back what ``create_event`` gave."""
        _call(cuda_driver.cuEventDestroy, event)

    def record(self, event: Event, stream: Stream) -> None:
        """Let the event be here, after all that was asked of the stream so far."""
        _call(cuda_driver.cuEventRecord, event, stream)

    def wait(self, stream: Stream, event: Event) -> None:
        """Let what is asked of the stream from now on wait for the event."""
        _call(cuda_driver.cuStreamWaitEvent, stream, event, 0)

    def seconds_between(self, start: Event, end: Event) -> float:
        """Time between two events that have happened."""
        return float(_call(cuda_driver.cuEventElapsedTime, start, end)) / 1e3


def _call(function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:  # noqa: ANN401
    """The value that the driver gives, of whatever type."""
    try:
        status, *values = function(*arguments)
    except RuntimeError as error:  # its way to say that libcuda is missing or too old
        raise BackendError(f"the CUDA driver cannot be called: {error}") from error
    if status != cuda_driver.CUresult.CUDA_SUCCESS:
        kind = BackendError
        if status == cuda_driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            kind = OutOfMemoryError
        raise kind(f"CUDA fails: {function.__name__} gives {status.name}")
    return values[0] if values else None
