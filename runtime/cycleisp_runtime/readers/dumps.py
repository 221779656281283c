"""Headerless sensor dumps: samples whose meaning only the user knows."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.readers.limits import Limits
from cycleisp_runtime.readers.plausibility import refuse_dark, signal_warnings

__all__ = ["PACKINGS", "DumpLayout", "check_layout", "dump_frame", "read_dump"]

Bytes = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.uint16]


class _Unpack(Protocol):
    """Groups of packed bytes (H, groups, bytes) to their samples (H, groups, samples)."""

    def __call__(self, groups: Bytes, /) -> Samples: ...


@dataclass(frozen=True)
class Packing:
    """How ``samples`` samples share ``size`` bytes; ``bits`` of them carry the value.

    Where the value stands ``high``, a sample has all its bits, and a layout's ``bits`` are counted
    from the highest; those below repeat the top ones or are zero, and carry nothing.
    """

    samples: int
    size: int
    bits: int
    unpack: _Unpack
    high: bool = False


def _u8(groups: Bytes) -> Samples:
    return groups.astype(np.uint16)


def _u16le(groups: Bytes) -> Samples:
    return groups.view("<u2").astype(np.uint16, copy=False)


def _u16be(groups: Bytes) -> Samples:
    return groups.view(">u2").astype(np.uint16)


def _mipi10(groups: Bytes) -> Samples:
    """Four high bytes, then one byte with their low two bits, the first sample lowest."""
    low = groups[..., 4:] >> np.array([0, 2, 4, 6], np.uint8) & np.uint8(3)
    return groups[..., :4].astype(np.uint16) << np.uint16(2) | low


def _mipi12(groups: Bytes) -> Samples:
    """Two high bytes, then one byte with their low four bits, the first sample lowest."""
    low = groups[..., 2:] >> np.array([0, 4], np.uint8) & np.uint8(15)
    return groups[..., :2].astype(np.uint16) << np.uint16(4) | low


def _mipi14(groups: Bytes) -> Samples:
    """Four high bytes, then their low six bits as a little-endian number, the first lowest."""
    b0, b1, b2 = np.moveaxis(groups[..., 4:].astype(np.uint32), -1, 0)
    number = (b0 | b1 << np.uint32(8) | b2 << np.uint32(16))[..., None]
    low: Samples = (number >> np.array([0, 6, 12, 18], np.uint32)).astype(np.uint16) & np.uint16(63)
    return groups[..., :4].astype(np.uint16) << np.uint16(6) | low


def _huawei10(groups: Bytes) -> Samples:
    """Five bytes as a Huawei P9 writes them: high and low parts change places from byte to byte."""
    b0, b1, b2, b3, b4 = np.moveaxis(groups.astype(np.uint16), -1, 0)
    return np.stack(
        [
            b0 | b1 >> 6 << 8,
            b1 & 63 | b2 >> 4 << 6,
            b2 & 15 | b3 >> 2 << 4,
            b3 & 3 | b4 << 2,
        ],
        axis=-1,
    )


PACKINGS = {
    "u8": Packing(samples=1, size=1, bits=8, unpack=_u8),
    "u16le": Packing(samples=1, size=2, bits=16, unpack=_u16le),
    "u16be": Packing(samples=1, size=2, bits=16, unpack=_u16be),
    "high16le": Packing(samples=1, size=2, bits=16, unpack=_u16le, high=True),
    "mipi10": Packing(samples=4, size=5, bits=10, unpack=_mipi10),
    "mipi12": Packing(samples=2, size=3, bits=12, unpack=_mipi12),
    "mipi14": Packing(samples=4, size=7, bits=14, unpack=_mipi14),
    "huawei10": Packing(samples=4, size=5, bits=10, unpack=_huawei10),
}
"""Names of packings: MIPI CSI-2 1.3, section 11.4, and what programs write. ``high16le`` is what
the video input of a Jetson (T_R16) and the unpacked formats of a Raspberry Pi 5 put in memory."""


@dataclass(frozen=True)
class DumpLayout:
    """How to read a headerless dump.

    Attributes:
        width, height: samples per row, and rows.
        cfa: phase at the first sample.
        packing: a name of ``PACKINGS``.
        black: DN of zero light.
        bits: bits that carry the value, counted from the packing's end (lowest, or highest where it
            is high); None means all of the packing's, and is refused where it is high, for then
            the value would be scaled without a word.
        white: DN of saturation; None means the largest value of ``bits``.
        stride: bytes from one row to the next; None means rows without padding.
        offset: bytes before the first row of the file; frames behind the first have none.

    Raises:
        SettingsError: where a value is impossible, alone or with the others.
    """

    width: int
    height: int
    cfa: Phase
    packing: str
    black: float
    bits: int | None = None
    white: float | None = None
    stride: int | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if self.packing not in PACKINGS:
            raise SettingsError(
                "unknown packing", met=self.packing, wanted=" | ".join(PACKINGS), subject="layout"
            )
        if self.bits is None and PACKINGS[self.packing].high:
            raise SettingsError(
                f"{self.packing} needs bits", subject="layout", wanted="bits=10, say"
            )
        largest_bits = PACKINGS[self.packing].bits
        for name, value, low, high in (
            ("width", self.width, 2, 1 << 20),
            ("height", self.height, 2, 1 << 20),
            ("bits", self.value_bits, 1, largest_bits),
            ("stride", self.row_stride, self.row_bytes, 1 << 24),
            ("offset", self.offset, 0, 1 << 40),
        ):
            if not low <= value <= high:
                raise SettingsError(
                    f"{name} is impossible", met=value, wanted=f"{low}..{high}", subject="layout"
                )
        if not 0 <= self.black < self.white_dn <= 65535:
            raise SettingsError(
                "levels are impossible",
                met=f"black {self.black:g}, white {self.white_dn:g}",
                wanted="0 <= black < white <= 65535",
                subject="layout",
            )

    @classmethod
    def parse(cls, text: str) -> DumpLayout:
        """The layout that "width=768,height=512,cfa=RGGB,packing=u16le,bits=14,black=600" writes.

        Keys are the attributes; bits, white, stride and offset may be left out.

        Raises:
            SettingsError: where a key is unknown, missing or given twice, or a value malformed.
        """
        known = {field.name for field in fields(cls)}
        given: dict[str, str] = {}
        for item in text.split(","):
            key, equals, value = (part.strip() for part in item.partition("="))
            if not equals or key not in known or key in given:
                raise SettingsError(
                    "not a layout",
                    subject="layout",
                    met=item.strip(),
                    wanted="each of " + ", ".join(sorted(known)) + " at most once, as key=value",
                )
            given[key] = value
        missing = {"width", "height", "cfa", "packing", "black"} - given.keys()
        if missing:
            raise SettingsError("incomplete", subject="layout", wanted=", ".join(sorted(missing)))
        try:
            return cls(
                width=int(given["width"]),
                height=int(given["height"]),
                cfa=Phase(given["cfa"].upper()),
                packing=given["packing"],
                black=float(given["black"]),
                bits=int(given["bits"]) if "bits" in given else None,
                white=float(given["white"]) if "white" in given else None,
                stride=int(given["stride"]) if "stride" in given else None,
                offset=int(given.get("offset", 0)),
            )
        except ValueError as error:
            raise SettingsError("malformed value", subject="layout", met=str(error)) from error

    @property
    def value_bits(self) -> int:
        """Bits that carry the value."""
        return PACKINGS[self.packing].bits if self.bits is None else self.bits

    @property
    def white_dn(self) -> float:
        """DN of saturation."""
        return 2**self.value_bits - 1 if self.white is None else self.white

    @property
    def row_bytes(self) -> int:
        """Bytes of one row without padding; a last group is whole."""
        packing = PACKINGS[self.packing]
        return -(-self.width // packing.samples) * packing.size

    @property
    def row_stride(self) -> int:
        """Bytes from one row to the next."""
        return self.row_bytes if self.stride is None else self.stride

    @property
    def frame_bytes(self) -> int:
        """Bytes from the first row of a frame to the end of its last, whose padding may lack."""
        return self.row_stride * (self.height - 1) + self.row_bytes


def dump_frame(stored: Bytes, layout: DumpLayout, source: Path | None = None) -> RawFrame:
    """The frame in these bytes, whose memory it may share; the layout's offset is not applied.

    Args:
        stored: (N,) uint8 without gaps, from the first sample on.
        layout: how to read them.
        source: the file or device they came from.

    Raises:
        InputError: where there are too few bytes, or the samples do not fit the layout.
    """
    if stored.size < layout.frame_bytes:
        raise InputError(
            "the frame is cut off",
            subject=source,
            met=f"{stored.size} bytes",
            wanted=f"{layout.frame_bytes} bytes",
            hint="check width, height, packing and stride",
        )
    packing = PACKINGS[layout.packing]
    rows = np.lib.stride_tricks.as_strided(
        stored, (layout.height, layout.row_bytes), (layout.row_stride, 1)
    )
    groups = np.ascontiguousarray(rows).reshape(layout.height, -1, packing.size)
    samples = packing.unpack(groups).reshape(layout.height, -1)[:, : layout.width]
    if packing.high:
        samples = samples >> np.uint16(packing.bits - layout.value_bits)
    elif samples.max() >> layout.value_bits:
        raise InputError(
            "samples are larger than the layout's bits allow",
            subject=source,
            met=int(samples.max()),
            wanted=f"at most {2**layout.value_bits - 1}",
            hint="check packing and bits",
        )
    return RawFrame(
        samples=np.ascontiguousarray(samples),
        cfa=layout.cfa,
        black=(layout.black,) * 4,
        white=layout.white_dn,
        levels_from="layout",
        area=Area(0, 0, layout.height, layout.width),
        source=source,
    )


def read_dump(path: Path, layout: DumpLayout, limits: Limits) -> RawFrame:
    """The frame that a dump holds when it is read as ``layout`` says.

    Raises:
        InputError: where the file is too small for the layout, or its samples do not fit it.
    """
    check_layout(path, layout, limits)
    stored = np.zeros(layout.frame_bytes, np.uint8)
    with path.open("rb") as file:
        file.seek(layout.offset)
        file.readinto(stored.data)
    frame = dump_frame(stored, layout, path)
    refuse_dark(frame.samples, path)
    warnings = signal_warnings(frame.samples, layout.black, layout.white_dn, black_is_known=True)
    surplus = path.stat().st_size - layout.offset - layout.row_stride * layout.height
    if surplus > 0:
        behind = f"{surplus} bytes behind the frame are ignored; is the layout right?"
        warnings = (*warnings, behind)
    return replace(frame, warnings=warnings)


def check_layout(path: Path, layout: DumpLayout, limits: Limits) -> None:
    """Nothing, where this file holds a frame of this layout.

    Raises:
        InputError: where the file is too small for it, or the frame larger than the limits.
    """
    if layout.width * layout.height > limits.max_samples:
        raise InputError(
            "the layout's frame is too large",
            subject=path,
            met=f"{layout.width}x{layout.height}",
            wanted=f"at most {limits.max_samples} samples",
        )
    file_bytes = path.stat().st_size
    if file_bytes < layout.offset + layout.frame_bytes:
        raise InputError(
            "the file is too small for this layout",
            subject=path,
            met=f"{file_bytes} bytes",
            wanted=f"{layout.offset + layout.frame_bytes} bytes",
            hint="check width, height, packing and stride",
        )
