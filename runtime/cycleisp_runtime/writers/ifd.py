"""TIFF directories as bytes: the inverse of ``cycleisp_runtime.tiff``."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.tiff import FORMATS, Entry

__all__ = ["ByteOrder", "Field", "Kind", "directory_bytes", "nearest_rational", "text"]

ByteOrder = Literal["<", ">"]

_LONG_LIMIT = 2**32 - 1
_SLONG_LIMIT = 2**31 - 1
_DIRECTORY_ROOM = 1 << 20
"""Bytes kept free for a directory below the 4 GiB that a TIFF offset can reach."""


class Kind(enum.IntEnum):
    """Types of TIFF values that we write."""

    BYTE = 1
    ASCII = 2
    SHORT = 3
    LONG = 4
    RATIONAL = 5
    UNDEFINED = 7
    SRATIONAL = 10
    DOUBLE = 12


@dataclass(frozen=True)
class Field:
    """A tag and its new values; bytes for the kinds BYTE, ASCII and UNDEFINED."""

    tag: int
    kind: Kind
    values: Sequence[float] | Sequence[Fraction] | bytes

    def payload(self, byte_order: ByteOrder) -> bytes:
        """The value bytes.

        Raises:
            OutputError: where a value does not fit its type.
        """
        if isinstance(self.values, bytes):
            return self.values
        flat: list[float | Fraction] = []
        for value in self.values:
            if self.kind in (Kind.RATIONAL, Kind.SRATIONAL):
                limit = _LONG_LIMIT if self.kind is Kind.RATIONAL else _SLONG_LIMIT
                flat += nearest_rational(Fraction(value), limit).as_integer_ratio()
            else:
                flat.append(value)
        try:
            return struct.pack(f"{byte_order}{len(flat)}{FORMATS[self.kind][0]}", *flat)
        except struct.error as error:
            raise OutputError(
                f"tag {self.tag} cannot hold its new value", met=flat[:4], wanted=self.kind.name
            ) from error


def text(tag: int, value: str) -> Field:
    """A NUL-terminated string: ASCII, or BYTE with UTF-8 where it needs more than ASCII.

    DNG 1.7.1 allows both for its own names (OriginalRawFileName).
    """
    kind = Kind.ASCII if value.isascii() else Kind.BYTE
    return Field(tag, kind, value.encode("utf-8", "replace") + b"\0")


def nearest_rational(value: Fraction, limit: int) -> Fraction:
    """The fraction nearest to ``value`` whose two parts do not exceed ``limit``: it, if it fits."""
    whole = max(1, -(-abs(value.numerator) // value.denominator))
    return value.limit_denominator(max(1, limit // whole))


def directory_bytes(
    fields: Iterable[Field | Entry],
    *,
    offset: int,
    byte_order: ByteOrder,
    next_offset: int = 0,
) -> bytes:
    """A directory that stands at the even ``offset``, with its long values behind it.

    Entries of another directory of the same file are taken over as they are: their values stay
    where they stand. Tags are sorted, and of a tag given twice the first is kept.

    Raises:
        OutputError: where the directory would lie beyond 4 GiB.
    """
    if offset + _DIRECTORY_ROOM > _LONG_LIMIT:
        raise OutputError(
            "a DNG cannot be larger than 4 GiB",
            met=f"{offset / 2**30:.2f} GiB",
            hint="write a .tif instead",
        )
    by_tag: dict[int, Field | Entry] = {}
    for field in fields:
        by_tag.setdefault(field.tag, field)
    values_offset = offset + 2 + 12 * len(by_tag) + 4
    block = bytearray(struct.pack(f"{byte_order}H", len(by_tag)))
    values = bytearray()
    for _, field in sorted(by_tag.items()):
        if isinstance(field, Entry):
            block += field.raw
            continue
        payload = field.payload(byte_order)
        count = len(field.values)
        block += struct.pack(f"{byte_order}HHI", field.tag, field.kind, count)
        if len(payload) <= 4:
            block += payload.ljust(4, b"\0")
        else:
            block += struct.pack(f"{byte_order}I", values_offset + len(values))
            values += payload + bytes(len(payload) % 2)
    block += struct.pack(f"{byte_order}I", next_offset)
    return bytes(block + values)
