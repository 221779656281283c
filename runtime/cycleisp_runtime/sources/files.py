"""Frames of files: RAW files of a folder, or many packed frames in one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from cycleisp_runtime.errors import InputError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.jobs import find_inputs
from cycleisp_runtime.readers import DumpLayout, Limits, check_file, read_frame
from cycleisp_runtime.readers.dumps import check_layout, dump_frame

__all__ = ["folder_frames", "packed_frames"]

_LIMITS = Limits(max_file_bytes=1 << 44)
"""Of a recording, which is read frame by frame: no file system holds a larger file."""


def folder_frames(
    folder: str | os.PathLike[str], *, layout: DumpLayout | None = None
) -> Iterator[RawFrame]:
    """The frames of a folder's RAW files, or of dumps with this layout, by name.

    Raises:
        InputError: where there is no such file, or one cannot be read.
    """
    for path in find_inputs([folder]):
        yield read_frame(path, layout=layout)


def packed_frames(path: Path, layout: DumpLayout) -> Iterator[RawFrame]:
    """The frames of a headerless file, one behind the other, each ``stride * height`` bytes.

    Where the last frame is cut off, it is left out and the frame before it warns.

    Raises:
        InputError: where the file cannot be read or is smaller than one frame, or samples do not
            fit the layout.
    """
    try:
        check_file(path, _LIMITS)
        check_layout(path, layout, _LIMITS)
        with path.open("rb", buffering=0) as file:
            stored_bytes = os.fstat(file.fileno()).st_size - layout.offset
            pitch = layout.row_stride * layout.height
            # The padding behind the very last row may lack.
            count, surplus = divmod(stored_bytes + pitch - layout.frame_bytes, pitch)
            surplus = max(0, surplus - (pitch - layout.frame_bytes))
            for index in range(count):
                stored = np.zeros(layout.frame_bytes, np.uint8)
                file.seek(layout.offset + index * pitch)
                file.readinto(stored.data)
                frame = dump_frame(stored, layout, path)
                if surplus and index == count - 1:
                    cut_off = f"behind {count} frames of {pitch} bytes, {surplus} are ignored"
                    frame = replace(frame, warnings=(cut_off,))
                yield frame
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", subject=path) from error
