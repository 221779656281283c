"""The part of linux/videodev2.h that a capture needs, and the system calls that carry it.

Structures are field by field as the kernel's header has them, with the word size of this process.
V4L2 has two interfaces: the multi-planar one keeps length, stride and place of the samples in a
plane, the single-planar one in the format or buffer itself. ``picture`` and ``plane`` find them
either way. ``Kernel`` is the seam at which tests put a camera of their own.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
from pathlib import Path
from typing import cast

__all__ = [
    "Buffer",
    "BufferRequest",
    "Capability",
    "Format",
    "FormatDescription",
    "Kernel",
    "Plane",
]

VIDEO_CAPTURE = 1
VIDEO_CAPTURE_MPLANE = 9
MEMORY_MMAP = 1
FIELD_NONE = 1

CAP_VIDEO_CAPTURE = 0x0000_0001
CAP_VIDEO_CAPTURE_MPLANE = 0x0000_1000
CAP_STREAMING = 0x0400_0000
CAP_DEVICE_CAPS = 0x8000_0000

FLAG_ERROR = 0x40
"""The data of the buffer may be corrupt; the buffer itself can be used again."""

u32 = ctypes.c_uint32


class Capability(ctypes.Structure):
    """struct v4l2_capability."""

    _fields_ = [
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", u32),
        ("capabilities", u32),
        ("device_caps", u32),
        ("reserved", u32 * 3),
    ]


class FormatDescription(ctypes.Structure):
    """struct v4l2_fmtdesc."""

    _fields_ = [
        ("index", u32),
        ("type", u32),
        ("flags", u32),
        ("description", ctypes.c_char * 32),
        ("pixelformat", u32),
        ("mbus_code", u32),
        ("reserved", u32 * 3),
    ]


class _PixFormat(ctypes.Structure):
    _fields_ = [
        ("width", u32),
        ("height", u32),
        ("pixelformat", u32),
        ("field", u32),
        ("bytesperline", u32),
        ("sizeimage", u32),
        ("colorspace", u32),
        ("priv", u32),
        ("flags", u32),
        ("ycbcr_enc", u32),
        ("quantization", u32),
        ("xfer_func", u32),
    ]


class _PlanePixFormat(ctypes.Structure):
    _fields_ = [("sizeimage", u32), ("bytesperline", u32), ("reserved", ctypes.c_uint16 * 6)]


class _PixFormatMplane(ctypes.Structure):
    _fields_ = [
        ("width", u32),
        ("height", u32),
        ("pixelformat", u32),
        ("field", u32),
        ("colorspace", u32),
        ("plane_fmt", _PlanePixFormat * 8),
        ("num_planes", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("ycbcr_enc", ctypes.c_uint8),
        ("quantization", ctypes.c_uint8),
        ("xfer_func", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 7),
    ]


class _FormatUnion(ctypes.Union):
    _fields_ = [
        ("pix", _PixFormat),
        ("pix_mp", _PixFormatMplane),
        ("raw_data", ctypes.c_uint8 * 200),
        ("alignment", ctypes.c_void_p),
    ]


class Format(ctypes.Structure):
    """struct v4l2_format."""

    _fields_ = [("type", u32), ("fmt", _FormatUnion)]

    @property
    def picture(self) -> _PixFormat | _PixFormatMplane:
        """Where width, height, pixelformat and field stand."""
        planar = self.type == VIDEO_CAPTURE_MPLANE
        return cast("_PixFormat | _PixFormatMplane", self.fmt.pix_mp if planar else self.fmt.pix)

    @property
    def plane(self) -> _PixFormat | _PlanePixFormat:
        """Where sizeimage and bytesperline of the first plane stand."""
        picture = self.picture
        return picture if isinstance(picture, _PixFormat) else picture.plane_fmt[0]

    @property
    def planes(self) -> int:
        """How many memories a frame is spread over."""
        picture = self.picture
        return 1 if isinstance(picture, _PixFormat) else picture.num_planes


class BufferRequest(ctypes.Structure):
    """struct v4l2_requestbuffers."""

    _fields_ = [
        ("count", u32),
        ("type", u32),
        ("memory", u32),
        ("capabilities", u32),
        ("flags", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 3),
    ]


class _Timecode(ctypes.Structure):
    _fields_ = [("type", u32), ("flags", u32), ("digits", ctypes.c_uint8 * 8)]


class _PlaneMemory(ctypes.Union):
    _fields_ = [("mem_offset", u32), ("userptr", ctypes.c_ulong)]


class Plane(ctypes.Structure):
    """struct v4l2_plane."""

    _fields_ = [
        ("bytesused", u32),
        ("length", u32),
        ("m", _PlaneMemory),
        ("data_offset", u32),
        ("reserved", u32 * 11),
    ]


class _Memory(ctypes.Union):
    _fields_ = [("offset", u32), ("userptr", ctypes.c_ulong), ("planes", ctypes.POINTER(Plane))]


class Buffer(ctypes.Structure):
    """struct v4l2_buffer."""

    _fields_ = [
        ("index", u32),
        ("type", u32),
        ("bytesused", u32),
        ("flags", u32),
        ("field", u32),
        ("timestamp", ctypes.c_long * 2),
        ("timecode", _Timecode),
        ("sequence", u32),
        ("memory", u32),
        ("m", _Memory),
        ("length", u32),
        ("reserved2", u32),
        ("request_fd", ctypes.c_int32),
    ]

    @classmethod
    def mapped(cls, interface: int, index: int) -> Buffer:
        """A buffer of the driver's memory, with room for one plane where it takes any."""
        buffer = cls(index=index, type=interface, memory=MEMORY_MMAP)
        if interface == VIDEO_CAPTURE_MPLANE:
            buffer.m.planes, buffer.length = ctypes.pointer(Plane()), 1
        return buffer

    @property
    def plane(self) -> Plane:
        """Bytes used, length and place of the frame."""
        if self.type == VIDEO_CAPTURE_MPLANE:
            return cast("Plane", self.m.planes[0])
        return Plane(self.bytesused, self.length, _PlaneMemory(self.m.offset))


_WRITE, _READ = 1, 2


def _request(direction: int, number: int, argument: type[ctypes.Structure | ctypes.c_int]) -> int:
    """_IOC of asm-generic/ioctl.h with V4L2's type 'V'."""
    return direction << 30 | ctypes.sizeof(argument) << 16 | ord("V") << 8 | number


QUERYCAP = _request(_READ, 0, Capability)
ENUM_FMT = _request(_READ | _WRITE, 2, FormatDescription)
S_FMT = _request(_READ | _WRITE, 5, Format)
REQBUFS = _request(_READ | _WRITE, 8, BufferRequest)
QUERYBUF = _request(_READ | _WRITE, 9, Buffer)
QBUF = _request(_READ | _WRITE, 15, Buffer)
DQBUF = _request(_READ | _WRITE, 17, Buffer)
STREAMON = _request(_WRITE, 18, ctypes.c_int)
STREAMOFF = _request(_WRITE, 19, ctypes.c_int)


class Kernel:
    """System calls on a video device; each raises OSError as the kernel answers."""

    def open(self, path: Path) -> int:
        """A descriptor that never waits."""
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ioctl(self, fd: int, request: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        """The request, its argument filled in by the kernel."""
        fcntl.ioctl(fd, request, argument)

    def map(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """A buffer of the device in our memory, to read."""
        return mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)

    def wait(self, fd: int, seconds: float) -> int:
        """Events of poll(2); 0 where none came in time."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return next((events for _, events in poll.poll(1000 * seconds)), 0)

    def close(self, fd: int) -> None:
        """Close the descriptor."""
        os.close(fd)
