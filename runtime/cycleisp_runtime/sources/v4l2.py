"""A V4L2 camera: frames as the sensor's driver puts them into memory that it shares with us.

    open, check, format -> buffers mapped and queued -> stream on -> wait, dequeue, copy, requeue

A driver may grant another format than it was asked for and call that success; so what it granted
is compared, and its row stride used. Frames that it marks as damaged or fills in part are counted
as lost, with those that its counter skips.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from mmap import mmap
from pathlib import Path

import numpy as np

from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.readers import DumpLayout
from cycleisp_runtime.readers.dumps import dump_frame
from cycleisp_runtime.sources import FrameSource
from cycleisp_runtime.sources import v4l2_kernel as v4l2
from cycleisp_runtime.sources.fourcc import fourcc_of

__all__ = ["V4L2Source"]

_BUFFERS = 4
"""One at the driver, one in our hands, two against jitter."""

_SLICE_S = 0.05
"""How long a stop may have to wait."""

_HINTS = {
    errno.EACCES: "add the user to the group video",
    errno.EPERM: "add the user to the group video",
    errno.EBUSY: "another program uses the camera",
    errno.ENOENT: "is the camera connected? ls /dev/video*",
    errno.ENOTTY: "this is no video device",
    errno.ENODEV: "the camera was disconnected; connect it and start again",
    errno.EIO: "the signal was lost; check cable and power, and start again",
}


class V4L2Source(FrameSource):
    """Bayer frames of a camera, until it is stopped; each frame in one piece of memory.

    Args:
        device: its node, such as /dev/video0.
        layout: size, phase, packing, bits and levels that the frames are to have. Stride and
            offset are the device's business.
        timeout_s: how long a whole frame may take to come.
        kernel: system calls.

    Raises:
        SettingsError: where V4L2 has no such format.
    """

    def __init__(
        self,
        device: str | os.PathLike[str],
        layout: DumpLayout,
        *,
        timeout_s: float = 2.0,
        kernel: v4l2.Kernel | None = None,
    ) -> None:
        self._path = Path(device)
        self._layout = layout
        self._fourcc = fourcc_of(layout)
        self._timeout_s = timeout_s
        self._kernel = v4l2.Kernel() if kernel is None else kernel
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[RawFrame]:
        """Frames until ``stop``; the device is open as long as the iteration lasts.

        Raises:
            InputError: where the device is missing or no camera, does not grant the layout,
                delivers no whole frame in time, or vanishes.
        """
        with _translated(self._path), ExitStack() as closing:
            fd = self._kernel.open(self._path)
            closing.callback(self._kernel.close, fd)
            interface = self._find_interface(fd)
            layout = self._set_format(fd, interface)
            buffers = self._map_buffers(fd, interface, layout, closing)
            for index in range(len(buffers)):
                self._ioctl(fd, v4l2.QBUF, v4l2.Buffer.mapped(interface, index))
            self._ioctl(fd, v4l2.STREAMON, ctypes.c_int(interface))
            closing.callback(self._give_up, fd, v4l2.STREAMOFF, ctypes.c_int(interface))
            yield from self._frames(fd, interface, layout, buffers)

    def stop(self) -> None:
        """End the iteration within a twentieth of a second."""
        self._stopped.set()

    def _frames(
        self, fd: int, interface: int, layout: DumpLayout, buffers: list[mmap]
    ) -> Iterator[RawFrame]:
        expected: int | None = None
        deadline = time.monotonic() + self._timeout_s
        while not self._stopped.is_set():
            if time.monotonic() > deadline:
                raise InputError(
                    "the camera stalls",
                    subject=self._path,
                    met=f"no whole frame for {self._timeout_s:g} s, {self.lost} lost so far",
                    hint="on a Jetson, v4l2-ctl --set-ctrl bypass_mode=0; else check the sensor",
                )
            events = self._kernel.wait(fd, _SLICE_S)
            if not events:
                continue
            filled = v4l2.Buffer.mapped(interface, 0)
            try:
                self._ioctl(fd, v4l2.DQBUF, filled)
            except BlockingIOError:
                if not events & select.POLLIN:  # an error that would be reported without end
                    raise InputError(
                        "the camera stopped",
                        subject=self._path,
                        met=f"poll events {events:#x}",
                        hint="connect it and start again",
                    ) from None
                continue
            if expected is not None:
                # Tegra's counter starts anew when its driver recovers: that is no gap.
                gap = (filled.sequence - expected) % 2**32
                self.lost += gap if gap < 2**31 else 0
            expected = filled.sequence + 1
            if filled.index >= len(buffers):
                raise InputError(
                    "the driver gives a buffer that it does not have",
                    subject=self._path,
                    met=filled.index,
                    wanted=f"below {len(buffers)}",
                )
            mapped, plane = buffers[filled.index], filled.plane
            start, size = plane.data_offset, layout.frame_bytes
            present = min(plane.bytesused, len(mapped)) - start
            damaged = filled.flags & v4l2.FLAG_ERROR or present < size
            if damaged:
                self.lost += 1
            else:
                # One copy in a row: capture memory may be uncached, where single reads crawl.
                stored = np.frombuffer(mapped, np.uint8, size, start).copy()
            self._ioctl(fd, v4l2.QBUF, v4l2.Buffer.mapped(interface, filled.index))
            if not damaged:
                yield dump_frame(stored, layout)
                deadline = time.monotonic() + self._timeout_s

    def _find_interface(self, fd: int) -> int:
        """The type of the device's buffers."""
        capability = v4l2.Capability()
        self._ioctl(fd, v4l2.QUERYCAP, capability)
        capabilities = capability.capabilities
        if capabilities & v4l2.CAP_DEVICE_CAPS:
            capabilities = capability.device_caps
        if capabilities & v4l2.CAP_STREAMING:
            if capabilities & v4l2.CAP_VIDEO_CAPTURE:
                return v4l2.VIDEO_CAPTURE
            if capabilities & v4l2.CAP_VIDEO_CAPTURE_MPLANE:
                return v4l2.VIDEO_CAPTURE_MPLANE
        raise InputError(
            "the device does not stream video",
            subject=self._path,
            met=f"capabilities {capabilities:#x}",
            hint="choose another /dev/video node: v4l2-ctl --list-devices",
        )

    def _set_format(self, fd: int, interface: int) -> DumpLayout:
        """The layout with the stride that the device grants."""
        wanted = self._layout
        granted = v4l2.Format(type=interface)
        picture = granted.picture
        picture.width, picture.height = wanted.width, wanted.height
        picture.field = v4l2.FIELD_NONE
        picture.pixelformat = int.from_bytes(self._fourcc.encode(), "little")
        self._ioctl(fd, v4l2.S_FMT, granted)
        met = f"{picture.width}x{picture.height} {_text(picture.pixelformat)}"
        asked = f"{wanted.width}x{wanted.height} {self._fourcc}"
        if met != asked:
            raise InputError(
                "the camera grants another format",
                subject=self._path,
                met=met,
                wanted=asked,
                hint=f"it offers {', '.join(self._offered(fd, interface)) or 'no format'}",
            )
        if granted.planes != 1:
            raise InputError(
                "the camera does not keep a frame in one piece of memory",
                subject=self._path,
                met=f"{granted.planes} planes",
                wanted="1",
                hint="choose another /dev/video node: v4l2-ctl --list-devices",
            )
        stride = granted.plane.bytesperline
        try:
            return replace(wanted, stride=stride or None, offset=0)
        except SettingsError as error:
            raise InputError(
                "the driver's stride is impossible", subject=self._path, met=stride
            ) from error

    def _offered(self, fd: int, interface: int) -> Iterator[str]:
        for index in range(64):
            description = v4l2.FormatDescription(index=index, type=interface)
            try:
                self._ioctl(fd, v4l2.ENUM_FMT, description)
            except OSError:  # EINVAL behind the last one
                return
            yield _text(description.pixelformat)

    def _map_buffers(
        self, fd: int, interface: int, layout: DumpLayout, closing: ExitStack
    ) -> list[mmap]:
        request = v4l2.BufferRequest(_BUFFERS, interface, v4l2.MEMORY_MMAP)
        self._ioctl(fd, v4l2.REQBUFS, request)
        none = v4l2.BufferRequest(0, interface, v4l2.MEMORY_MMAP)
        closing.callback(self._give_up, fd, v4l2.REQBUFS, none)
        if request.count < 2:
            raise InputError(
                "the driver grants too few buffers",
                subject=self._path,
                met=request.count,
                wanted="2 or more",
            )
        buffers = []
        for index in range(request.count):
            buffer = v4l2.Buffer.mapped(interface, index)
            self._ioctl(fd, v4l2.QUERYBUF, buffer)
            plane = buffer.plane
            if plane.length < layout.frame_bytes:
                raise InputError(
                    "the driver's buffers are smaller than a frame",
                    subject=self._path,
                    met=f"{plane.length} bytes",
                    wanted=f"{layout.frame_bytes} bytes",
                )
            mapped = self._kernel.map(fd, plane.length, plane.m.mem_offset)
            closing.callback(mapped.close)
            buffers.append(mapped)
        return buffers

    def _ioctl(self, fd: int, request: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        """The request, again where a signal interrupted it."""
        while True:
            try:
                self._kernel.ioctl(fd, request, argument)
            except InterruptedError:
                continue
            return

    def _give_up(self, fd: int, request: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        """A request on the way out, which a vanished device need not answer."""
        with suppress(OSError):
            self._ioctl(fd, request, argument)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What the system refuses, as one line about this device."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        raise InputError(error.strerror or "the camera fails", subject=path, hint=hint) from error


def _text(fourcc: int) -> str:
    return fourcc.to_bytes(4, "little").decode("ascii", "replace")
