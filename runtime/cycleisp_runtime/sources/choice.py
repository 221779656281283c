"""A source by what its name says: a camera, a pipeline, a recording, or RAW files."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.readers import DumpLayout
from cycleisp_runtime.sources.files import folder_frames, packed_frames
from cycleisp_runtime.sources.gstreamer import GStreamerSource
from cycleisp_runtime.sources.v4l2 import V4L2Source

__all__ = ["PIPELINE", "open_source"]

PIPELINE = "gst:"
"""What a GStreamer pipeline begins with."""


def open_source(name: str, layout: DumpLayout | None) -> Iterable[RawFrame]:
    """The frames that ``name`` stands for.

    Args:
        name: "gst:" and a pipeline without a sink; a video device; a file of packed frames, which
            needs a layout; else a RAW file, or a folder of RAW files or of dumps.
        layout: of frames that do not describe themselves.

    Raises:
        SettingsError: where a layout is missing, or one that the source cannot have.
        InputError: where there is no such file.
    """
    if name.startswith(PIPELINE):
        return GStreamerSource(name.removeprefix(PIPELINE), _needed(name, layout))
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", subject=path) from error
    if stat.S_ISCHR(mode):
        return V4L2Source(path, _needed(name, layout))
    if stat.S_ISDIR(mode) or layout is None:
        return folder_frames(path, layout=layout)
    return packed_frames(path, layout)


def _needed(name: str, layout: DumpLayout | None) -> DumpLayout:
    if layout is None:
        raise SettingsError(
            "the frames of a camera do not describe themselves",
            subject=name,
            wanted="--layout with width, height, cfa, packing, bits and black",
        )
    return layout
