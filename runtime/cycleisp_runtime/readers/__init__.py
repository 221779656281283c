"""From a file to a RawFrame: DNG, other RAW formats through LibRaw, and headerless dumps.

A RAW file comes from a stranger. Its structure is checked before LibRaw sees it, LibRaw runs in a
process of its own with limits on time and memory, and what it gives is checked again.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from cycleisp_runtime.dng import is_dng
from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.readers.containers import Container, embedded_tiff, identify
from cycleisp_runtime.readers.dng import read_dng
from cycleisp_runtime.readers.dumps import DumpLayout, read_dump
from cycleisp_runtime.readers.limits import Limits
from cycleisp_runtime.readers.vendor import read_vendor
from cycleisp_runtime.tiff import parse_tiff

__all__ = ["DumpLayout", "Limits", "check_file", "read_frame"]


_DEFAULT_LIMITS = Limits()


def read_frame(
    path: str | os.PathLike[str],
    *,
    limits: Limits = _DEFAULT_LIMITS,
    layout: DumpLayout | None = None,
) -> RawFrame:
    """The Bayer frame in a RAW file; with ``layout``, in a dump without a header.

    Raises:
        InputError: where the file cannot be read, holds no Bayer frame, or exceeds the limits.
    """
    path = Path(path)
    try:
        check_file(path, limits)
        if layout is not None:
            return read_dump(path, layout, limits)
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            container = identify(data, path)
            if container is not Container.TIFF:
                return read_vendor(embedded_tiff(data, container), file, path, limits)
            tiff = parse_tiff(data, path)
            read = read_dng if is_dng(tiff) else read_vendor
            return read(tiff, file, path, limits)
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", subject=path) from error


def check_file(path: Path, limits: Limits = _DEFAULT_LIMITS) -> None:
    """Refuse what opening or mapping would wait for, or fail on.

    Raises:
        InputError: where it is no plain file, is empty, or exceeds the limits.
        OSError: where the system knows no such file.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a file", subject=path)
    if status.st_size == 0:
        raise InputError("the file is empty", subject=path)
    if status.st_size > limits.max_file_bytes:
        raise InputError(
            "the file is too large",
            subject=path,
            met=f"{status.st_size} bytes",
            wanted=f"at most {limits.max_file_bytes}",
        )
