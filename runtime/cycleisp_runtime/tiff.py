"""A bounded reader of TIFF structure: headers, directories and tag values, never pixels.

Every offset and count comes from a stranger and is checked against the file before it is used.
Directories keep the place of their entries and of the pointer that led to them, because the DNG
writer patches exactly that pointer. TIFF 6.0 section 2; SubIFDs: TIFF Technical Note 1.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cycleisp_runtime.errors import InputError

__all__ = ["FORMATS", "Directory", "Entry", "Tiff", "parse_tiff", "shown"]

MAX_DIRECTORIES = 64
MAX_ENTRIES = 4096
MAX_VALUES = 1 << 22
"""Values of one tag; the largest seen in real DNGs (tile arrays, gain maps) stay far below."""

SUB_IFDS = 330
EXIF_IFD = 34665

FORMATS = {
    1: "B",  # BYTE
    2: "s",  # ASCII
    3: "H",  # SHORT
    4: "I",  # LONG
    5: "II",  # RATIONAL
    6: "b",  # SBYTE
    7: "B",  # UNDEFINED
    8: "h",  # SSHORT
    9: "i",  # SLONG
    10: "ii",  # SRATIONAL
    11: "f",  # FLOAT
    12: "d",  # DOUBLE
    13: "I",  # IFD
}
"""TIFF type number -> struct characters of one value."""

_SIZES = {kind: struct.calcsize("=" + layout) for kind, layout in FORMATS.items()}


@dataclass(frozen=True)
class Entry:
    """One tag: its 12 bytes in the directory and the place of its value bytes."""

    tag: int
    kind: int
    count: int
    entry_offset: int
    value_offset: int
    raw: bytes
    """The entry's own 12 bytes, in the file's byte order."""

    @property
    def value_size(self) -> int:
        """Bytes that the values take; 0 for a type that TIFF 6.0 does not define."""
        return _SIZES.get(self.kind, 0) * self.count


@dataclass(frozen=True)
class Directory:
    """One IFD.

    Attributes:
        offset: where it starts in the file.
        entries: in file order; a tag that occurs twice occurs twice here.
        next_offset: the next directory of its chain, 0 for none.
        pointer_offset: the place of the four bytes that hold ``offset``.
        path: how it was reached, such as "IFD0", "IFD0.SubIFD1", "IFD0.Exif".
    """

    offset: int
    entries: tuple[Entry, ...]
    next_offset: int
    pointer_offset: int
    path: str

    def get(self, tag: int) -> Entry | None:
        """The first entry of this tag, or None."""
        return next((entry for entry in self.entries if entry.tag == tag), None)


@dataclass(frozen=True)
class Tiff:
    """All directories of a file, IFD0 first, each SubIFD and the Exif IFD after its parent."""

    data: bytes | mmap.mmap
    byte_order: Literal["<", ">"]
    directories: tuple[Directory, ...]
    source: Path | None

    def numbers(self, entry: Entry) -> tuple[float, ...]:
        """The values as numbers; a rational 0/0 or n/0 is NaN.

        Raises:
            InputError: where the values lie outside the file or are text.
        """
        raw = self.value_bytes(entry)
        layout = FORMATS[entry.kind]
        if entry.kind == 2:
            raise self._error(f"tag {entry.tag} is text where numbers are needed")
        values = struct.unpack(f"{self.byte_order}{entry.count * len(layout)}{layout[0]}", raw)
        if entry.kind in (5, 10):
            pairs = zip(values[::2], values[1::2], strict=True)
            return tuple(a / b if b else float("nan") for a, b in pairs)
        return values

    def text(self, entry: Entry) -> str:
        """The value as text up to the first NUL, undecodable bytes replaced."""
        return self.value_bytes(entry).split(b"\0", 1)[0].decode("utf-8", "replace").strip()

    def value_bytes(self, entry: Entry) -> bytes:
        """The value bytes as they stand in the file.

        Raises:
            InputError: where the type is unknown, the count absurd, or the bytes not all there.
        """
        if entry.kind not in FORMATS:
            raise self._error(f"tag {entry.tag} has the unknown type {entry.kind}")
        if entry.count > MAX_VALUES:
            raise self._error(f"tag {entry.tag} declares {entry.count} values")
        end = entry.value_offset + entry.value_size
        if end > len(self.data):
            raise self._error(f"tag {entry.tag} lies outside the file")
        return bytes(self.data[entry.value_offset : end])

    def find(self, directory: Directory, tag: int) -> tuple[float, ...] | None:
        """The numbers of a tag of this directory, or None where it is absent."""
        entry = directory.get(tag)
        return None if entry is None else self.numbers(entry)

    def _error(self, problem: str) -> InputError:
        return InputError(problem, subject=self.source, hint="the file is damaged")


def shown(values: Sequence[float]) -> str:
    """Numbers of a tag for a message: the first eight, however many a damaged file declares."""
    return ", ".join(f"{value:g}" for value in values[:8]) + ", ..." * (len(values) > 8)


def parse_tiff(data: bytes | mmap.mmap, source: Path | None = None) -> Tiff:
    """All directories of a classic TIFF, with every offset checked; values are read on demand.

    Raises:
        InputError: where this is no classic TIFF, a directory lies outside the file, one is
            reached twice, or there are more than 64 directories or 4096 entries.
    """

    def damaged(problem: str) -> InputError:
        return InputError(problem, subject=source, hint="the file is damaged or not a RAW file")

    if len(data) < 8:
        raise damaged(f"the file has only {len(data)} bytes")
    order: Literal["<", ">"]
    if data[:2] == b"II":
        order = "<"
    elif data[:2] == b"MM":
        order = ">"
    else:
        raise damaged("no TIFF byte-order mark")
    (magic,) = struct.unpack(order + "H", data[2:4])
    if magic == 43:
        raise InputError(
            "BigTIFF is not supported",
            subject=source,
            hint="LibRaw cannot read it either; convert the file to a classic DNG",
        )

    directories: list[Directory] = []
    visited: set[int] = set()

    def long_at(offset: int) -> int:
        if offset + 4 > len(data):
            raise damaged("a directory pointer lies outside the file")
        return int(struct.unpack(order + "I", data[offset : offset + 4])[0])

    def walk(pointer_offset: int, path: str, chained: bool) -> None:
        number = 0
        while (offset := long_at(pointer_offset)) != 0:
            if offset in visited:
                raise damaged("a directory pointer leads back to an earlier directory")
            if len(directories) >= MAX_DIRECTORIES:
                raise damaged(f"more than {MAX_DIRECTORIES} directories")
            visited.add(offset)
            name = f"{path}{number}" if chained else path
            directory = _directory(data, order, offset, pointer_offset, name, damaged)
            directories.append(directory)
            for child_pointer, child_path in _children(directory):
                walk(child_pointer, child_path, chained=False)
            if not chained or directory.next_offset == 0:
                return
            pointer_offset = offset + 2 + 12 * len(directory.entries)
            number += 1

    walk(4, "IFD", chained=True)
    if not directories:
        raise damaged("no directory")
    return Tiff(data, order, tuple(directories), source)


def _directory(
    data: bytes | mmap.mmap,
    order: str,
    offset: int,
    pointer_offset: int,
    path: str,
    damaged: Callable[[str], InputError],
) -> Directory:
    if offset + 2 > len(data):
        raise damaged(f"{path} lies outside the file")
    (count,) = struct.unpack(order + "H", data[offset : offset + 2])
    end = offset + 2 + 12 * count
    if count == 0 or count > MAX_ENTRIES or end > len(data):
        raise damaged(f"{path} declares {count} entries")
    entries = []
    for entry_offset in range(offset + 2, end, 12):
        raw = bytes(data[entry_offset : entry_offset + 12])
        tag, kind, values, pointer = struct.unpack(order + "HHII", raw)
        inline = _SIZES.get(kind, 0) * values <= 4
        value_offset = entry_offset + 8 if inline else pointer
        entries.append(Entry(tag, kind, values, entry_offset, value_offset, raw))
    # Some writers end the file right behind the last entry; that means no further directory.
    following = data[end : end + 4]
    next_offset = struct.unpack(order + "I", following)[0] if len(following) == 4 else 0
    return Directory(offset, tuple(entries), next_offset, pointer_offset, path)


def _children(directory: Directory) -> Iterator[tuple[int, str]]:
    """Places of the pointers to SubIFDs and to the Exif IFD, with the paths they lead to."""
    subs = directory.get(SUB_IFDS)
    if subs is not None and subs.kind in (4, 13):
        for index in range(min(subs.count, MAX_DIRECTORIES)):
            yield subs.value_offset + 4 * index, f"{directory.path}.SubIFD{index}"
    exif = directory.get(EXIF_IFD)
    if exif is not None and exif.kind in (4, 13) and exif.count == 1:
        yield exif.value_offset, f"{directory.path}.Exif"
