"""DNG files built byte by byte, with layouts and tags that no small real file has.

Independent of the writers that they test: own packing, nothing sorted, nothing merged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Item", "a_dng", "an_opcode_list"]

Place = Literal["first", "second SubIFD", "next"]
"""Which directory holds the mosaic: IFD0, the second of two SubIFDs, or the one that follows."""

BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 10, 12
_LAYOUT = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "I", SRATIONAL: "i", DOUBLE: "d"}


class Item(NamedTuple):
    """A tag; rationals as numerator, denominator, numerator, ..."""

    tag: int
    kind: int
    values: Sequence[float] | bytes


class _Builder:
    def __init__(self, order: str) -> None:
        self.order = order
        self.data = bytearray(b"II" if order == "<" else b"MM")
        self.data += struct.pack(f"{order}HI", 42, 0)

    def add(self, block: bytes) -> int:
        self.data += bytes(len(self.data) % 2)
        self.data += block
        return len(self.data) - len(block)

    def directory(self, items: Iterable[Item], *, next_offset: int | None = 0) -> int:
        entries = []
        for tag, kind, values in items:
            stored = struct.pack(f"{self.order}{len(values)}{_LAYOUT[kind]}", *values)
            count = len(values) // 2 if kind in (RATIONAL, SRATIONAL) else len(values)
            head = struct.pack(f"{self.order}HHI", tag, kind, count)
            if len(stored) > 4:
                stored = struct.pack(f"{self.order}I", self.add(stored))
            entries.append(head + stored.ljust(4, b"\0"))
        block = struct.pack(f"{self.order}H", len(entries)) + b"".join(entries)
        if next_offset is not None:
            block += struct.pack(f"{self.order}I", next_offset)
        return self.add(block)

    def finish(self, first: int) -> bytes:
        self.data[4:8] = struct.pack(f"{self.order}I", first)
        return bytes(self.data)


def a_dng(
    samples: npt.NDArray[np.uint16],
    *,
    order: str = "<",
    place: Place = "first",
    main: Sequence[Item] = (),
    mosaic: Sequence[Item] = (),
    image_types: Sequence[int] = (),
    end_without_next: bool = False,
    follower: bool = False,
) -> bytes:
    """A DNG around 16-bit RGGB samples (H, W) with black 600 and white 15520.

    ``main`` and ``mosaic`` are further tags of the first directory and of the mosaic's, and
    replace those of the same number; ``image_types`` adds a SubIFD of each NewSubFileType;
    ``end_without_next`` lets the file end behind the last entry of the first directory, and
    ``follower`` lets a grey picture follow the mosaic in its chain.
    """
    height, width = samples.shape
    file = _Builder(order)
    strip = file.add(samples.astype(f"{order}u2").tobytes())
    mosaic_items = _merged(
        [
            Item(254, LONG, (0,)),
            Item(256, LONG, (width,)),
            Item(257, LONG, (height,)),
            Item(258, SHORT, (16,)),
            Item(259, SHORT, (1,)),
            Item(262, SHORT, (32803,)),
            Item(273, LONG, (strip,)),
            Item(277, SHORT, (1,)),
            Item(278, LONG, (height,)),
            Item(279, LONG, (samples.nbytes,)),
            Item(33421, SHORT, (2, 2)),
            Item(33422, BYTE, (0, 1, 1, 2)),
            Item(50714, SHORT, (600,)),
            Item(50717, SHORT, (15520,)),
        ],
        mosaic,
    )
    main_items = _merged(
        [
            Item(271, ASCII, b"Acme\0"),
            Item(272, ASCII, b"Acme One\0"),
            Item(50706, BYTE, (1, 4, 0, 0)),
            Item(50708, ASCII, b"Acme One\0"),
            Item(50721, SRATIONAL, (9020, 10000, -2890, 10000, -715, 10000, -4535, 10000, 12436,
                                    10000, 2348, 10000, -934, 10000, 1919, 10000, 7086, 10000)),
            Item(50728, RATIONAL, (1, 2, 1, 1, 2, 3)),
            Item(50778, SHORT, (21,)),
        ],
        main,
    )  # fmt: skip
    others = [file.directory(_picture(file, image_type)) for image_type in image_types]
    following = file.directory(_picture(file, 1)) if follower else 0
    if place == "first":
        items = _merged(main_items, mosaic_items)
        if others:
            items = _merged(items, [Item(330, LONG, others)])
        return file.finish(file.directory(items, next_offset=following))
    offset = file.directory(mosaic_items, next_offset=following)
    main_items = _merged(_picture(file, 1), main_items)
    if place == "next":
        return file.finish(file.directory(main_items, next_offset=offset))
    sub_ifds = [file.directory(_picture(file, 1)), offset, *others]
    main_items = _merged(main_items, [Item(330, LONG, sub_ifds)])
    return file.finish(file.directory(main_items, next_offset=None if end_without_next else 0))


def _picture(file: _Builder, image_type: int) -> list[Item]:
    """An 8x8 grey picture of this NewSubFileType."""
    return [
        Item(254, LONG, (image_type,)),
        Item(256, LONG, (8,)),
        Item(257, LONG, (8,)),
        Item(258, SHORT, (8,)),
        Item(259, SHORT, (1,)),
        Item(262, SHORT, (1,)),
        Item(273, LONG, (file.add(bytes(64)),)),
        Item(277, SHORT, (1,)),
        Item(278, LONG, (8,)),
        Item(279, LONG, (64,)),
    ]


def _merged(items: Sequence[Item], others: Sequence[Item]) -> list[Item]:
    """Both, sorted; of the same tag the other, as often as it is there."""
    replaced = {item.tag for item in others}
    kept = [item for item in items if item.tag not in replaced]
    return sorted([*kept, *others], key=lambda item: item.tag)


def an_opcode_list(*opcodes: tuple[int, bytes]) -> bytes:
    """The bytes of an OpcodeList tag."""
    stored = struct.pack(">I", len(opcodes))
    for number, parameters in opcodes:
        stored += struct.pack(">4I", number, 0x01030000, 0, len(parameters)) + parameters
    return stored
