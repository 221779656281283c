"""Tag by tag: in what two TIFF or DNG files differ.

    python benchmarks/tag_listing.py OLD NEW

prints one line per tag that was added, removed or changed, in every directory of the files.
"""

from __future__ import annotations

import collections
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from cycleisp_runtime.dng import Tag
from cycleisp_runtime.errors import CycleISPError
from cycleisp_runtime.tiff import FORMATS, Entry, Tiff, parse_tiff

__all__ = ["Difference", "tag_differences"]

_SHOWN_VALUES = 6
_TEXT = 2


@dataclass(frozen=True)
class Difference:
    """What a tag says in the old and in the new file; None where it is absent."""

    old: str | None
    new: str | None

    def __str__(self) -> str:
        return f"{self.old or '(absent)'} -> {self.new or '(absent)'}"


def tag_differences(old: Path, new: Path) -> dict[str, Difference]:
    """Paths such as "IFD0.SubIFD0.BlackLevel", in file order, with what differs there.

    Types, counts and values are compared, byte orders aside. A tag that stands twice in a
    directory is listed as "NAME" and "NAME#2".

    Raises:
        InputError: where a file is no TIFF or is damaged.
    """
    before, after = (_listing(parse_tiff(path.read_bytes(), path)) for path in (old, new))
    return {
        path: Difference(_shown(before.get(path)), _shown(after.get(path)))
        for path in before | after
        if before.get(path) != after.get(path)
    }


@dataclass(frozen=True)
class _Value:
    """Type and value bytes in little-endian order; bytes, so that NaN equals itself."""

    kind: int
    stored: bytes

    @property
    def values(self) -> tuple[float | bytes, ...]:
        if self.kind == _TEXT:
            return (self.stored,)
        kind = FORMATS[self.kind][0]
        return struct.unpack(f"<{len(self.stored) // struct.calcsize(kind)}{kind}", self.stored)


def _listing(tiff: Tiff) -> dict[str, _Value]:
    listing = {}
    for directory in tiff.directories:
        times: collections.Counter[int] = collections.Counter()
        for entry in directory.entries:
            times[entry.tag] += 1
            again = f"#{times[entry.tag]}" if times[entry.tag] > 1 else ""
            listing[f"{directory.path}.{_name(entry.tag)}{again}"] = _value(tiff, entry)
    return listing


def _name(tag: int) -> str:
    return Tag(tag).name if tag in Tag.__members__.values() else str(tag)


def _value(tiff: Tiff, entry: Entry) -> _Value:
    stored = tiff.value_bytes(entry)
    size = struct.calcsize(FORMATS[entry.kind][0])
    if tiff.byte_order == ">":
        stored = b"".join(stored[at : at + size][::-1] for at in range(0, len(stored), size))
    return _Value(entry.kind, stored)


def _shown(value: _Value | None) -> str | None:
    if value is None:
        return None
    shown = " ".join(str(number) for number in value.values[:_SHOWN_VALUES])
    hidden = len(value.values) - _SHOWN_VALUES
    return f"{shown} and {hidden} more" if hidden > 0 else shown


def main() -> None:
    """Print the differences between the two files on the command line."""
    if len(sys.argv) != 3:
        sys.exit("usage: tag_listing.py OLD NEW")
    try:
        differences = tag_differences(Path(sys.argv[1]), Path(sys.argv[2]))
    except (CycleISPError, OSError) as error:
        sys.exit(str(error))
    for path, difference in differences.items():
        print(f"{path}: {difference}")


if __name__ == "__main__":
    main()
