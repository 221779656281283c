"""A CUDA driver that does what is asked of it as late as CUDA allows, and checks every call.

Whatever a stream holds happens only when somebody waits for it, or when ``hurry`` says so. A wait
that was forgotten thus gives wrong numbers or an error, not a right result by luck. What would be
silent corruption with a real driver is a ``MisuseError``.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.cuda import (
    Address,
    Bytes,
    CudaDriver,
    Event,
    Graph,
    Kernel,
    Module,
    Size,
    Stream,
)
from cycleisp_runtime.errors import BackendError, OutOfMemoryError
from tests.runtime.host_kernels import HostKernels

__all__ = ["GARBAGE", "FakeCuda", "MisuseError"]

_Key = TypeVar("_Key")
_Thing = TypeVar("_Thing")

GARBAGE = 0xFF
"""In every byte of memory that holds nothing yet: as float32 it is NaN."""


class MisuseError(AssertionError):
    """A call that CUDA's rules forbid."""


@dataclass(eq=False)
class _Mark:
    """Where an event was recorded; the tick at which the stream came to it."""

    stream: Stream
    tick: int | None = None


@dataclass(eq=False)
class _Wait:
    """Where another stream must have come to first."""

    mark: _Mark


@dataclass(eq=False)
class _Work:
    """Something that a stream will do, and the memory that it touches."""

    do: Callable[[], None]
    blocks: tuple[Bytes, ...]
    code: HostKernels | None = None


_Step = _Work | _Mark | _Wait


@dataclass(eq=False)
class FakeCuda(CudaDriver):
    """The driver of a GPU with a little memory.

    Args:
        integrated: it shares its memory with the host.
        memory: of the GPU, in bytes.
        fault_at: the call, counted from 0, at which the GPU fails, and from which on everything is
            refused; None for a GPU that does not.
        moved_bytes: that were copied between host and GPU.
        hurry: whether a stream goes on by one step now; asked again and again.
    """

    integrated: bool = False
    memory: int = 1 << 24
    fault_at: int | None = None
    hurry: Callable[[], bool] = lambda: False
    package: str = "fake 1.0"
    calls: list[str] = field(default_factory=list)
    moved_bytes: int = 0

    def __post_init__(self) -> None:
        self._current = threading.local()
        self._released = False
        self._ticks = itertools.count()
        self._numbers = itertools.count(0x1000, 0x1000)
        self._next_address = 1 << 40
        self._device: dict[Address, Bytes] = {}
        self._pinned: dict[int, Bytes] = {}
        self._mapped: dict[int, Address] = {}
        self._streams: dict[Stream, deque[_Step]] = {}
        self._events: dict[Event, _Mark | None] = {}
        self._modules: dict[Module, HostKernels] = {}
        self._graphs: dict[Graph, list[_Step]] = {}
        self._captured = Stream(0)
        self._noted: list[_Step] | None = None
        self._kernels: dict[Kernel, tuple[Module, str]] = {}
        self._users: weakref.WeakSet[object] = weakref.WeakSet()

    def check_nothing_is_left(self) -> None:
        """Everything was given back and nobody holds the context."""
        if self._users:
            gc.collect()
        code = (self._modules, self._graphs)
        held = itertools.chain(self._device, self._pinned, self._streams, self._events, *code)
        left = [*held, *self._users]
        if left or not self._released or self._depth():
            raise MisuseError(f"left behind: {len(left)} things, released {self._released}")

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes the context current."""
        if self._released:
            raise MisuseError("current() after close()")
        self._current.depth = self._depth() + 1
        try:
            yield
        finally:
            self._current.depth -= 1

    def close(self) -> None:
        """Release the context."""
        if self._released:
            raise MisuseError("close() twice")
        if self._depth():
            raise MisuseError("close() inside current()")
        # An exception on its way may hold frames of the fakes, which real ones do not have.
        if self._users and sys.exc_info() == (None, None, None):
            raise MisuseError("close() while something of TensorRT stands on it")
        self._released = True
        self._refuse_after_fault("close")

    def allocate(self, size: int) -> Address:
        """Memory of the GPU."""
        self.check_call("allocate")
        if size <= 0:
            raise MisuseError(f"{size} bytes")
        if sum(len(block) for block in self._device.values()) + size > self.memory:
            raise OutOfMemoryError("CUDA has not enough memory: the fake GPU is small")
        address = self._new_address(size)
        self._device[address] = np.full(size, GARBAGE, np.uint8)
        return address

    def free(self, address: Address) -> None:
        """Give memory back."""
        self._give_back("free", self._device, address)

    def allocate_pinned(self, size: int) -> Bytes:
        """Memory of the host."""
        self.check_call("allocate_pinned")
        pinned = np.full(size, GARBAGE, np.uint8)
        self._pinned[pinned.ctypes.data] = pinned
        self._mapped[pinned.ctypes.data] = self._new_address(size)
        return pinned

    def device_address(self, pinned: Bytes) -> Address:
        """Where the GPU sees it."""
        self.check_call("device_address")
        return self._mapped[pinned.ctypes.data]

    def free_pinned(self, pinned: Bytes) -> None:
        """Give memory back."""
        self._give_back("free_pinned", self._pinned, pinned.ctypes.data)[:] = GARBAGE

    def upload(self, target: Address, pinned: Bytes, stream: Stream) -> None:
        """Copy later, what must be the same then."""
        self.check_call("upload")
        self._copy_to_gpu(target, len(pinned), pinned[None], stream)

    def download(self, pinned: Bytes, source: Address, stream: Stream) -> None:
        """Copy later; until then there is garbage."""
        self.check_call("download")
        self._copy_to_host(pinned[None], source, len(pinned), stream)

    def upload_rows(self, target: Address, pitch: int, pinned: Bytes, stream: Stream) -> None:
        """Copy rows later, which must be the same then."""
        self.check_call("upload_rows")
        self._copy_to_gpu(target, pitch, pinned, stream)

    def download_rows(self, pinned: Bytes, source: Address, pitch: int, stream: Stream) -> None:
        """Copy rows later; until then there is garbage."""
        self.check_call("download_rows")
        self._copy_to_host(pinned, source, pitch, stream)

    def holds(self, address: Address) -> bool:
        """Whether something was allocated there."""
        self.check_call("holds")
        return self._find(address) is not None

    def serve(self, user: object) -> None:
        """Take note of something that needs the context as long as it lives."""
        self._users.add(user)

    def launch(self, stream: Stream, kernel: Callable[[], None], *blocks: Bytes) -> None:
        """Run something that works on these blocks later; what TensorRT does by itself."""
        self.check_call("launch")
        self._ask(stream, _Work(kernel, blocks))

    def block(self, address: int, size: int) -> Bytes:
        """The memory that the GPU sees there."""
        found = self._find(address)
        if found is None:
            raise MisuseError(f"no memory at {address:#x}")
        block, offset = found
        if offset + size > len(block):
            raise MisuseError(f"{size} bytes at {address:#x}, where {len(block) - offset} are left")
        return block[offset:]

    def create_stream(self) -> Stream:
        """A stream."""
        self.check_call("create_stream")
        stream = Stream(next(self._numbers))
        self._streams[stream] = deque()
        return stream

    def destroy_stream(self, stream: Stream) -> None:
        """Give it back; nothing may be in it."""
        self._give_back("destroy_stream", self._streams, stream)

    def synchronize(self, stream: Stream) -> None:
        """Now everything happens."""
        self.check_call("synchronize")
        while self._queue(stream):
            self._step(stream)

    def wait_for_others(self, stream: Stream | None) -> None:
        """Now everything happens that was asked of this stream, or of all."""
        self.check_call("wait_for_others")
        for each in [*self._streams] if stream is None else [stream]:
            while self._queue(each):
                self._step(each)

    def create_event(self) -> Event:
        """An event that never happened."""
        self.check_call("create_event")
        event = Event(next(self._numbers))
        self._events[event] = None
        return event

    def destroy_event(self, event: Event) -> None:
        """Give it back."""
        self._give_back("destroy_event", self._events, event)

    def record(self, event: Event, stream: Stream) -> None:
        """Move the event here."""
        self.check_call("record")
        if event not in self._events:
            raise MisuseError("no such event")
        mark = self._events[event] = _Mark(stream)
        self._ask(stream, mark)

    def wait(self, stream: Stream, event: Event) -> None:
        """Wait for where the event is now; not at all if it was never recorded."""
        self.check_call("wait")
        mark = self._events[event]
        if mark is not None:
            self._ask(stream, _Wait(mark))

    def seconds_between(self, start: Event, end: Event) -> float:
        """One millisecond for everything that happened anywhere."""
        self.check_call("seconds_between")
        ticks = [mark.tick if mark else None for mark in (self._events[start], self._events[end])]
        if ticks[0] is None or ticks[1] is None:
            raise MisuseError("the events have not happened")
        return (ticks[1] - ticks[0]) / 1e3

    def load_module(self, code: bytes) -> Module:
        """Kernels for the host."""
        self.check_call("load_module")
        module = Module(next(self._numbers))
        self._modules[module] = HostKernels(code)
        return module

    def unload_module(self, module: Module) -> None:
        """Give them back; none may be at work."""
        self._give_back("unload_module", self._modules, module)

    def find_kernel(self, module: Module, name: str) -> Kernel:
        """The function of this name."""
        self.check_call("find_kernel")
        kernel = Kernel(next(self._numbers))
        self._kernels[kernel] = (module, name)
        return kernel

    def launch_kernel(
        self,
        kernel: Kernel,
        grid: Size,
        block: Size,
        record: npt.NDArray[np.void],
        addresses: Sequence[Address],
        stream: Stream,
    ) -> None:
        """Run it later, on the host."""
        self.check_call("launch_kernel")
        module, name = self._kernels[kernel]
        library = self._modules[module]
        arrays = [None if address == 0 else self.block(address, 1) for address in addresses]
        held = record.copy()
        blocks = [array for array in arrays if array is not None]
        self._ask(
            stream,
            _Work(lambda: library.launch(name, grid, block, held, arrays), (*blocks,), library),
        )

    def begin_capture(self, stream: Stream) -> None:
        """From now on only what can be noted may be asked."""
        self.check_call("begin_capture")
        if self._noted is not None:
            raise MisuseError("begin_capture() twice")
        self._queue(stream)
        self._captured, self._noted = stream, []

    def end_capture(self, stream: Stream) -> Graph:
        """What was noted."""
        if self._noted is None or stream != self._captured:
            raise MisuseError("end_capture() without begin_capture()")
        noted, self._noted = self._noted, None
        self.check_call("end_capture")
        graph = Graph(next(self._numbers))
        self._graphs[graph] = noted
        return graph

    def launch_graph(self, graph: Graph, stream: Stream) -> None:
        """All of it later."""
        self.check_call("launch_graph")
        if graph not in self._graphs:
            raise MisuseError("no such graph")
        for work in self._graphs[graph]:
            self._ask(stream, work)

    def destroy_graph(self, graph: Graph) -> None:
        """Give it back."""
        self._give_back("destroy_graph", self._graphs, graph)

    @property
    def capturing(self) -> bool:
        """Whether something is noted and not done."""
        return self._noted is not None

    def check_call(self, name: str) -> None:
        """Count the call; it must be made inside ``current``, and be allowed now."""
        if self._released:
            raise MisuseError(f"{name}() after close()")
        if not self._depth():
            raise MisuseError(f"{name}() outside current()")
        if self.capturing and name not in {"launch", "launch_kernel"}:
            raise MisuseError(f"{name}() while a graph is captured")
        self.calls.append(name)
        self._refuse_after_fault(name)
        streams = [stream for stream, queue in self._streams.items() if queue]
        while streams and self.hurry():
            self._step(streams[next(self._ticks) % len(streams)])
            streams = [stream for stream, queue in self._streams.items() if queue]

    @property
    def _failed(self) -> bool:
        return self.fault_at is not None and len(self.calls) > self.fault_at

    def _refuse_after_fault(self, name: str) -> None:
        if self._failed:
            raise BackendError(f"CUDA fails: {name} gives CUDA_ERROR_ILLEGAL_ADDRESS")

    def _depth(self) -> int:
        return getattr(self._current, "depth", 0)

    def _queue(self, stream: Stream) -> deque[_Step]:
        if stream not in self._streams:
            raise MisuseError(f"no stream {stream}")
        return self._streams[stream]

    def _ask(self, stream: Stream, what: _Step) -> None:
        queue = self._queue(stream)
        if self._noted is None:
            queue.append(what)
        elif stream != self._captured:
            raise MisuseError("another stream while a graph is captured")
        else:
            self._noted.append(what)

    def _step(self, stream: Stream) -> None:
        """Do the next thing of a stream, after those of others that it waits for."""
        queue = self._queue(stream)
        what = queue[0]
        if isinstance(what, _Wait):
            while what.mark.tick is None:
                self._step(what.mark.stream)
        elif isinstance(what, _Mark):
            what.tick = next(self._ticks)
        else:
            what.do()
            next(self._ticks)
        queue.popleft()

    def _copy_to_gpu(self, target: Address, pitch: int, pinned: Bytes, stream: Stream) -> None:
        source, copy = self._pinned_block(pinned), pinned.copy()
        rows = self._rows(target, pitch, pinned)
        self.moved_bytes += pinned.nbytes

        def do() -> None:
            if not np.array_equal(pinned, copy):
                raise MisuseError("what is uploaded was overwritten before")
            rows[:] = copy

        self._ask(stream, _Work(do, (source, rows)))

    def _copy_to_host(self, pinned: Bytes, source: Address, pitch: int, stream: Stream) -> None:
        target = self._pinned_block(pinned)
        rows = self._rows(source, pitch, pinned)
        self.moved_bytes += pinned.nbytes
        pinned[:] = GARBAGE

        def do() -> None:
            pinned[:] = rows

        self._ask(stream, _Work(do, (target, rows)))

    def _rows(self, address: Address, pitch: int, like: Bytes) -> Bytes:
        """Rows of the GPU's memory that lie ``pitch`` bytes apart."""
        count, width = like.shape
        if pitch < width:
            raise MisuseError(f"rows of {width} bytes, {pitch} apart")
        memory = self.block(address, (count - 1) * pitch + width)
        return np.lib.stride_tricks.as_strided(memory, like.shape, (pitch, 1))

    def _new_address(self, size: int) -> Address:
        """A page of addresses between any two blocks belongs to neither."""
        address = Address(self._next_address)
        self._next_address += (size // 0x1000 + 2) * 0x1000
        return address

    def _find(self, address: int) -> tuple[Bytes, int] | None:
        """The memory that holds this address, and how far in it lies."""
        mapped = {self._mapped[place]: block for place, block in self._pinned.items()}
        for start, block in (self._device | mapped).items():
            if start <= address < start + len(block):
                return block, address - start
        return None

    def _pinned_block(self, pinned: Bytes) -> Bytes:
        """The whole of the pinned memory that this is the beginning of."""
        if pinned.ctypes.data not in self._pinned:
            raise MisuseError("the memory of the host is not pinned")
        return self._pinned[pinned.ctypes.data]

    def _give_back(self, name: str, kind: dict[_Key, _Thing], key: _Key) -> _Thing:
        """What was given back; the GPU must be done with it, unless it failed."""
        if key not in kind:
            raise MisuseError(f"{name}: not ours, or given back before")
        thing = kind.pop(key)
        if not self._failed and self._is_awaited(thing):
            raise MisuseError(f"{name}: the GPU still needs it")
        self.check_call(name)
        return thing

    def _is_awaited(self, thing: object) -> bool:
        """Whether a stream will still use this memory or code, or is one with work."""
        if isinstance(thing, deque):
            return bool(thing)
        pending = [
            what for queue in self._streams.values() for what in queue if isinstance(what, _Work)
        ]
        if isinstance(thing, HostKernels):
            return any(what.code is thing for what in pending)
        return isinstance(thing, np.ndarray) and any(
            np.may_share_memory(thing, block) for what in pending for block in what.blocks
        )
