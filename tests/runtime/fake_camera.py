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
        bytesused: as the driver counts them; None for those of the data.
        sequence: frame counter; None to count on.
        index: of the buffer; None for the one that has waited longest.
        poll: events that poll reports.
    """

    data: bytes | None = None
    error: int = 0
    flags: int = 0
    bytesused: int | None = None
    sequence: int | None = None
    index: int | None = None
    poll: int = select.POLLIN


class FakeCamera(v4l2.Kernel):
    """Plays a script, then stalls; checks that it is spoken to in the right order.

    Attributes:
        interface: type of its buffers, single-planar or multi-planar.
        fourcc, width, height, stride, buffers, planes: what is granted, whatever is asked for.
        length: bytes of one buffer.
        data_offset: where in a buffer a frame starts.
        capabilities: of the device node.
        asked: width, height, format and field that the caller wanted.
        open_files, mapped: still held by the caller.
        log: names of the requests, in order.
    """

    def __init__(
        self,
        script: Iterable[Event] = (),
        *,
        interface: int = v4l2.VIDEO_CAPTURE,
        fourcc: str = "RG10",
        width: int = 6,
        height: int = 4,
        stride: int = 12,
        buffers: int = 4,
        planes: int = 1,
        length: int | None = None,
        data_offset: int = 0,
    ) -> None:
        self.script = deque(script)
        self.fourcc, self.width, self.height, self.stride = fourcc, width, height, stride
        self.interface, self.buffers, self.planes = interface, buffers, planes
        self.data_offset = data_offset
        self.length = data_offset + stride * height if length is None else length
        self._multi = interface == v4l2.VIDEO_CAPTURE_MPLANE
        captures = v4l2.CAP_VIDEO_CAPTURE_MPLANE if self._multi else v4l2.CAP_VIDEO_CAPTURE
        self.capabilities = captures | v4l2.CAP_STREAMING
        self.open_error = self.ioctl_error = 0
        self.offered = ["RG10", "RG12"]
        self.interruptions = 0
        self.asked: tuple[int, int, str, int] | None = None
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
        assert answer.type == self.interface
        if answer.index >= len(self.offered):
            self._fail(errno.EINVAL)
        answer.pixelformat = int.from_bytes(self.offered[answer.index].encode(), "little")

    def _s_fmt(self, _fd: int, answer: v4l2.Format) -> None:
        assert answer.type == self.interface
        pix = answer.fmt.pix_mp if self._multi else answer.fmt.pix
        fourcc = pix.pixelformat.to_bytes(4, "little").decode()
        self.asked = (pix.width, pix.height, fourcc, pix.field)
        pix.width, pix.height = self.width, self.height
        pix.pixelformat = int.from_bytes(self.fourcc.encode(), "little")
        plane = pix
        if self._multi:
            pix.num_planes, plane = self.planes, pix.plane_fmt[0]
        plane.bytesperline, plane.sizeimage = self.stride, self.length

    def _reqbufs(self, _fd: int, answer: v4l2.BufferRequest) -> None:
        assert not self._streams
        assert answer.type == self.interface
        if answer.count == 0:
            assert all(mapped.closed for mapped in self.mapped)
        else:
            answer.count = self.buffers

    def _querybuf(self, _fd: int, answer: v4l2.Buffer) -> None:
        where = answer.index * self._pitch
        if self._multi:
            assert answer.length == 1
            plane = answer.m.planes[0]
            plane.length, plane.m.mem_offset = self.length, where
        else:
            answer.length, answer.m.offset = self.length, where

    def _qbuf(self, _fd: int, answer: v4l2.Buffer) -> None:
        assert (answer.type, answer.memory) == (self.interface, v4l2.MEMORY_MMAP)
        assert not self._multi or (answer.length == 1 and answer.m.planes)
        assert answer.index not in self._queued
        self._queued.append(answer.index)

    def _streamon(self, _fd: int, answer: ctypes.c_int) -> None:
        assert answer.value == self.interface
        self._streams = True

    def _streamoff(self, _fd: int, answer: ctypes.c_int) -> None:
        assert answer.value == self.interface
        self._streams = False
        self._queued.clear()

    def _dqbuf(self, fd: int, answer: v4l2.Buffer) -> None:
        assert answer.type == self.interface
        event = self.script.popleft()
        if event.error == UNPLUGGED:
            self._gone = True
            self._fail(errno.ENODEV)
        if event.error:
            self._fail(event.error)
        index = self._queued.popleft()
        data = event.data or b""
        os.pwrite(fd, data, index * self._pitch + self.data_offset)
        self._sequence = self._sequence if event.sequence is None else event.sequence
        answer.index = index if event.index is None else event.index
        used = self.data_offset + len(data) if event.bytesused is None else event.bytesused
        if self._multi:
            assert answer.length == 1
            plane = answer.m.planes[0]
            plane.bytesused, plane.data_offset = used, self.data_offset
        else:
            answer.bytesused = used
        answer.flags = event.flags
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
