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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from cycleisp_runtime.cuda import Address, Bytes, CudaDriver, Event, Stream
from cycleisp_runtime.errors import BackendError, OutOfMemoryError

__all__ = ["FakeCuda", "MisuseError"]

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


_Step = _Work | _Mark | _Wait


@dataclass(eq=False)
class FakeCuda(CudaDriver):
    """The driver of a GPU with a little memory.

    Args:
        integrated: it shares its memory with the host.
        memory: of the GPU, in bytes.
        fault_at: the call, counted from 0, at which the GPU fails, and from which on everything is
            refused; None for a GPU that does not.
        hurry: whether a stream goes on by one step now; asked again and again.
    """

    integrated: bool = False
    memory: int = 1 << 24
    fault_at: int | None = None
    hurry: Callable[[], bool] = lambda: False
    package: str = "fake 1.0"
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._current = threading.local()
        self._released = False
        self._ticks = itertools.count()
        self._numbers = itertools.count(0x1000, 0x1000)
        self._device: dict[Address, Bytes] = {}
        self._pinned: dict[int, Bytes] = {}
        self._mapped: dict[int, Address] = {}
        self._streams: dict[Stream, deque[_Step]] = {}
        self._events: dict[Event, _Mark | None] = {}
        self._users: weakref.WeakSet[object] = weakref.WeakSet()

    def check_nothing_is_left(self) -> None:
        """Everything was given back and nobody holds the context."""
        if self._users:
            gc.collect()
        left = [*self._device, *self._pinned, *self._streams, *self._events, *self._users]
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
        address = Address(next(self._numbers))
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
        self._mapped[pinned.ctypes.data] = Address(next(self._numbers))
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
        source, copy = self._pinned_block(pinned), pinned.copy()
        block = self.block(target, pinned.nbytes)

        def do() -> None:
            if not np.array_equal(pinned, copy):
                raise MisuseError("what is uploaded was overwritten before")
            block[: copy.nbytes] = copy

        self._ask(stream, _Work(do, (source, block)))

    def download(self, pinned: Bytes, source: Address, stream: Stream) -> None:
        """Copy later; until then there is garbage."""
        self.check_call("download")
        target = self._pinned_block(pinned)
        block = self.block(source, pinned.nbytes)
        pinned[:] = GARBAGE

        def do() -> None:
            pinned[:] = block[: pinned.nbytes]

        self._ask(stream, _Work(do, (target, block)))

    def serve(self, user: object) -> None:
        """Take note of something that needs the context as long as it lives."""
        self._users.add(user)

    def launch(self, stream: Stream, kernel: Callable[[], None], *blocks: Bytes) -> None:
        """Run something that works on these blocks later; what TensorRT does by itself."""
        self.check_call("launch")
        self._ask(stream, _Work(kernel, blocks))

    def block(self, address: int, size: int) -> Bytes:
        """The memory that the GPU sees there."""
        mapped = {self._mapped[place]: block for place, block in self._pinned.items()}
        block = (self._device | mapped).get(Address(address))
        if block is None:
            raise MisuseError(f"no memory at {address:#x}")
        if size > len(block):
            raise MisuseError(f"{size} bytes at {address:#x}, where there are {len(block)}")
        return block

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

    def check_call(self, name: str) -> None:
        """Count the call; it must be made inside ``current`` and before ``close``."""
        if self._released:
            raise MisuseError(f"{name}() after close()")
        if not self._depth():
            raise MisuseError(f"{name}() outside current()")
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
        self._queue(stream).append(what)

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
        """Whether a stream will still work on this memory, or is one with work."""
        if isinstance(thing, deque):
            return bool(thing)
        pending = [what for queue in self._streams.values() for what in queue]
        return any(
            thing is block for what in pending if isinstance(what, _Work) for block in what.blocks
        )
