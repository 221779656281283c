"""Headerless sensor dumps: samples whose meaning only the user knows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.readers.limits import Limits
from cycleisp_runtime.readers.plausibility import refuse_dark, signal_warnings

__all__ = ["PACKINGS", "DumpLayout", "read_dump"]

Bytes = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.uint16]


class _Unpack(Protocol):
    """Groups of packed bytes (H, groups, bytes) to their samples (H, groups, samples)."""

    def __call__(self, groups: Bytes, /) -> Samples: ...


@dataclass(frozen=True)
class Packing:
    """How ``samples`` samples share ``size`` bytes; ``bits`` of them carry the value."""

    samples: int
    size: int
    bits: int
    unpack: _Unpack


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
    "mipi10": Packing(samples=4, size=5, bits=10, unpack=_mipi10),
    "mipi12": Packing(samples=2, size=3, bits=12, unpack=_mipi12),
    "huawei10": Packing(samples=4, size=5, bits=10, unpack=_huawei10),
}
"""Names of packings: MIPI CSI-2 1.3, section 11.4, and what programs write."""


@dataclass(frozen=True)
class DumpLayout:
    """How to read a headerless dump.

    Attributes:
        width, height: samples per row, and rows.
        cfa: phase at the first sample.
        packing: a name of ``PACKINGS``.
        black: DN of zero light.
        bits: bits that carry the value, counted from the lowest; None means all of the packing's.
        white: DN of saturation; None means the largest value of ``bits``.
        stride: bytes from one row to the next; None means rows without padding.
        offset: bytes before the first row.

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


def read_dump(path: Path, layout: DumpLayout, limits: Limits) -> RawFrame:
    """The frame that a dump holds when it is read as ``layout`` says.

    Raises:
        InputError: where the file is too small for the layout, or its samples do not fit it.
    """
    if layout.width * layout.height > limits.max_samples:
        raise InputError(
            "the layout's frame is too large",
            subject=path,
            met=f"{layout.width}x{layout.height}",
            wanted=f"at most {limits.max_samples} samples",
        )
    stride, row_bytes = layout.row_stride, layout.row_bytes
    last_row_start = layout.offset + stride * (layout.height - 1)
    file_bytes = path.stat().st_size
    if file_bytes < last_row_start + row_bytes:
        raise InputError(
            "the file is too small for this layout",
            subject=path,
            met=f"{file_bytes} bytes",
            wanted=f"{last_row_start + row_bytes} bytes",
            hint="check width, height, packing and stride",
        )
    stored = np.zeros(stride * layout.height, np.uint8)
    with path.open("rb") as file:
        file.seek(layout.offset)
        file.readinto(stored.data)
    packing = PACKINGS[layout.packing]
    rows = stored.reshape(layout.height, stride)[:, :row_bytes]
    groups = np.ascontiguousarray(rows).reshape(layout.height, -1, packing.size)
    samples = packing.unpack(groups).reshape(layout.height, -1)[:, : layout.width]
    samples = np.ascontiguousarray(samples)
    if samples.max() >> layout.value_bits:
        raise InputError(
            "samples are larger than the layout's bits allow",
            subject=path,
            met=int(samples.max()),
            wanted=f"at most {2**layout.value_bits - 1}",
            hint="check packing and bits",
        )
    refuse_dark(samples, path)
    warnings = list(signal_warnings(samples, layout.black, layout.white_dn, black_is_known=True))
    surplus = file_bytes - layout.offset - stride * layout.height
    if surplus > 0:
        warnings.append(f"{surplus} bytes behind the frame are ignored; is the layout right?")
    return RawFrame(
        samples=samples,
        cfa=layout.cfa,
        black=(layout.black,) * 4,
        white=layout.white_dn,
        levels_from="layout",
        area=Area(0, 0, layout.height, layout.width),
        source=path,
        warnings=tuple(warnings),
    )
