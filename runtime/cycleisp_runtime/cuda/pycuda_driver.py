"""The CUDA driver through pycuda, whose objects free themselves when nothing refers to them."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pycuda
import pycuda.driver as cuda

from cycleisp_runtime.cuda import Address, Bytes, Event, Stream
from cycleisp_runtime.cuda.libcuda import LibCuda
from cycleisp_runtime.errors import BackendError, OutOfMemoryError

__all__ = ["Driver"]

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING of cuda.h; pycuda has no name for it."""

_Result = TypeVar("_Result")


class Driver(LibCuda):
    """The driver, called through pycuda.

    Raises:
        BackendError: where there is no GPU or the driver does not work.
    """

    def __init__(self) -> None:
        self.package = f"pycuda {pycuda.VERSION_TEXT}"
        _call(cuda.init)
        device = _call(cuda.Device, 0)
        attribute = cuda.device_attribute.INTEGRATED
        self.integrated = bool(_call(device.get_attribute, attribute))
        self._context = _call(device.retain_primary_context)
        self._memory: dict[Address, cuda.DeviceAllocation] = {}
        self._pinned: dict[int, cuda.PagelockedHostAllocation] = {}
        self._streams: dict[Stream, cuda.Stream] = {}
        self._events: dict[Event, cuda.Event] = {}

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes the GPU's primary context that of this thread, and then what it was before."""
        _call(self._context.push)
        try:
            yield
        finally:
            _call(self._context.pop)

    def close(self) -> None:
        """Release the primary context, in the thread that opened the driver; once."""
        _call(self._context.detach)
        # detach() makes the context current in order to release it. Contexts of pycuda's own are
        # gone with that; a primary one would stay the thread's current one.
        ctypes.CDLL("libcuda.so.1").cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def allocate(self, size: int) -> Address:
        """Memory of the GPU, ``size`` bytes of it."""
        allocation = _call(cuda.mem_alloc, size)
        address = Address(int(allocation))
        self._memory[address] = allocation
        return address

    def free(self, address: Address) -> None:
        """Give back what ``allocate`` gave."""
        _call(self._memory.pop(address).free)

    def allocate_pinned(self, size: int) -> Bytes:
        """Memory of the host that the GPU reaches while the host goes on; contents undefined."""
        mapped = cuda.host_alloc_flags.DEVICEMAP
        pinned: Bytes = _call(cuda.pagelocked_empty, size, np.uint8, mem_flags=mapped)
        self._pinned[pinned.ctypes.data] = pinned.base
        return pinned

    def device_address(self, pinned: Bytes) -> Address:
        """Where the GPU sees what ``allocate_pinned`` gave."""
        return Address(_call(self._pinned[pinned.ctypes.data].get_device_pointer))

    def free_pinned(self, pinned: Bytes) -> None:
        """Give back what ``allocate_pinned`` gave; no view of it may be used afterwards."""
        _call(self._pinned.pop(pinned.ctypes.data).free)

    def upload(self, target: Address, pinned: Bytes, stream: Stream) -> None:
        """Copy to the GPU once the stream comes to it; ``pinned`` must not change until then."""
        _call(cuda.memcpy_htod_async, target, pinned, self._streams[stream])

    def download(self, pinned: Bytes, source: Address, stream: Stream) -> None:
        """Copy from the GPU once the stream comes to it; ``pinned`` must not be read until then."""
        _call(cuda.memcpy_dtoh_async, pinned, source, self._streams[stream])

    def create_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""
        created = _call(cuda.Stream, NON_BLOCKING)
        stream = Stream(created.handle)
        self._streams[stream] = created
        return stream

    def destroy_stream(self, stream: Stream) -> None:
        """Give back what ``create_stream`` gave."""
        del self._streams[stream]

    def synchronize(self, stream: Stream) -> None:
        """Wait until everything that was asked of the stream has happened."""
        _call(self._streams[stream].synchronize)

    def create_event(self) -> Event:
        """An event that keeps the time."""
        created = _call(cuda.Event)
        event = Event(id(created))
        self._events[event] = created
        return event

    def destroy_event(self, event: Event) -> None:
        """Give back what ``create_event`` gave."""
        del self._events[event]

    def record(self, event: Event, stream: Stream) -> None:
        """Let the event be here, after all that was asked of the stream so far."""
        _call(self._events[event].record, self._streams[stream])

    def wait(self, stream: Stream, event: Event) -> None:
        """Let what is asked of the stream from now on wait for the event."""
        _call(self._streams[stream].wait_for_event, self._events[event])

    def seconds_between(self, start: Event, end: Event) -> float:
        """Time between two events that have happened."""
        milliseconds: float = _call(self._events[end].time_since, self._events[start])
        return milliseconds / 1e3


def _call(function: Callable[..., _Result], *arguments: object, **options: object) -> _Result:
    try:
        return function(*arguments, **options)
    except cuda.MemoryError as error:
        raise OutOfMemoryError(f"CUDA has not enough memory: {error}") from error
    except cuda.Error as error:
        raise BackendError(f"CUDA fails: {error}") from error
