"""A camera behind the system calls: real structures, real shared memory, a script of what happens.

No kernel module, no root: a memfd stands for the driver's memory, so that mmap is the real one.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cycleisp_runtime.sources import v4l2_kernel as v4l2

__all__ = ["Event", "FakeCamera"]

UNPLUGGED = 1 << 30
"""No errno: every call after it fails with ENODEV."""


@dataclass(frozen=True)
class Event:
    """What the next poll and dequeue meet.

    Attributes:
        data: bytes of the frame; None for no frame.
        error: errno of the dequeue; 0 for none, ``UNPLUGGED`` for ever.
        flags: of the buffer.
        sequence: frame counter; None to count on.
        index: of the buffer; None for the one that has waited longest.
        poll: events that poll reports.
    """

    data: bytes | None = None
    error: int = 0
    flags: int = 0
    sequence: int | None = None
    index: int | None = None
    poll: int = select.POLLIN


class FakeCamera(v4l2.Kernel):
    """Plays a script, then stalls; checks that it is spoken to in the right order.

    Attributes:
        fourcc, width, height, stride, buffers: what is granted, whatever is asked for.
        length: bytes of one buffer.
        capabilities: of the device node.
        open_files, mapped: still held by the caller.
        log: names of the requests, in order.
    """

    def __init__(
        self,
        script: Iterable[Event] = (),
        *,
        fourcc: str = "RG10",
        width: int = 6,
        height: int = 4,
        stride: int = 12,
        buffers: int = 4,
        length: int | None = None,
    ) -> None:
        self.script = deque(script)
        self.fourcc, self.width, self.height, self.stride = fourcc, width, height, stride
        self.buffers = buffers
        self.length = stride * height if length is None else length
        self.capabilities = v4l2.CAP_VIDEO_CAPTURE | v4l2.CAP_STREAMING
        self.open_error = self.ioctl_error = 0
        self.offered = ["RG10", "RG12"]
        self.interruptions = 0
        self.open_files: set[int] = set()
        self.mapped: list[mmap.mmap] = []
        self.log: list[str] = []
        self._queued: deque[int] = deque()
        self._streams = False
        self._sequence = 0
        self._gone = False

    def open(self, path: Path) -> int:
        if self.open_error:
            raise OSError(self.open_error, os.strerror(self.open_error), str(path))
        fd = os.memfd_create("camera", os.MFD_CLOEXEC)
        os.ftruncate(fd, self._pitch * self.buffers)
        self.open_files.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self.open_files.remove(fd)
        os.close(fd)

    def map(self, fd: int, length: int, offset: int) -> mmap.mmap:
        mapped = super().map(fd, length, offset)
        self.mapped.append(mapped)
        return mapped

    @property
    def all_closed(self) -> bool:
        return not self.open_files and all(mapped.closed for mapped in self.mapped)

    def wait(self, fd: int, seconds: float) -> int:
        assert fd in self.open_files
        assert self._streams
        if not self.script:
            time.sleep(seconds)
            return 0
        return self.script[0].poll

    def ioctl(self, fd: int, request: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        assert fd in self.open_files
        if self.interruptions:
            self.interruptions -= 1
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        if self._gone or self.ioctl_error:
            self._fail(self.ioctl_error or errno.ENODEV)
        (name,) = (name for name in _REQUESTS if getattr(v4l2, name) == request)
        self.log.append(name)
        getattr(self, f"_{name.lower()}")(fd, argument)

    @property
    def _pitch(self) -> int:
        return -(-self.length // mmap.PAGESIZE) * mmap.PAGESIZE

    def _fail(self, number: int) -> None:
        raise OSError(number, os.strerror(number))

    def _querycap(self, _fd: int, answer: v4l2.Capability) -> None:
        answer.capabilities = 0x8000_0000 | self.capabilities | 0x0080_0000
        answer.device_caps = self.capabilities

    def _enum_fmt(self, _fd: int, answer: v4l2.FormatDescription) -> None:
        if answer.index >= len(self.offered):
            self._fail(errno.EINVAL)
        answer.pixelformat = int.from_bytes(self.offered[answer.index].encode(), "little")

    def _s_fmt(self, _fd: int, answer: v4l2.Format) -> None:
        assert answer.type == v4l2.VIDEO_CAPTURE
        pix = answer.fmt.pix
        pix.width, pix.height = self.width, self.height
        pix.pixelformat = int.from_bytes(self.fourcc.encode(), "little")
        pix.bytesperline, pix.sizeimage = self.stride, self.length

    def _reqbufs(self, _fd: int, answer: v4l2.BufferRequest) -> None:
        assert not self._streams
        if answer.count == 0:
            assert all(mapped.closed for mapped in self.mapped)
        else:
            answer.count = self.buffers

    def _querybuf(self, _fd: int, answer: v4l2.Buffer) -> None:
        answer.length = self.length
        answer.m.offset = answer.index * self._pitch

    def _qbuf(self, _fd: int, answer: v4l2.Buffer) -> None:
        assert (answer.type, answer.memory) == (v4l2.VIDEO_CAPTURE, v4l2.MEMORY_MMAP)
        assert answer.index not in self._queued
        self._queued.append(answer.index)

    def _streamon(self, _fd: int, answer: ctypes.c_int) -> None:
        assert answer.value == v4l2.VIDEO_CAPTURE
        self._streams = True

    def _streamoff(self, _fd: int, _answer: ctypes.c_int) -> None:
        self._streams = False
        self._queued.clear()

    def _dqbuf(self, fd: int, answer: v4l2.Buffer) -> None:
        event = self.script.popleft()
        if event.error == UNPLUGGED:
            self._gone = True
            self._fail(errno.ENODEV)
        if event.error:
            self._fail(event.error)
        index = self._queued.popleft()
        data = event.data or b""
        os.pwrite(fd, data, index * self._pitch)
        self._sequence = self._sequence if event.sequence is None else event.sequence
        answer.index = index if event.index is None else event.index
        answer.bytesused, answer.flags = len(data), event.flags
        answer.sequence = self._sequence
        self._sequence = (self._sequence + 1) % 2**32


_REQUESTS = (
    "QUERYCAP",
    "ENUM_FMT",
    "S_FMT",
    "REQBUFS",
    "QUERYBUF",
    "QBUF",
    "DQBUF",
    "STREAMON",
    "STREAMOFF",
)
