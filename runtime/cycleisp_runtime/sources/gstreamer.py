"""Frames of a GStreamer pipeline, from 8 to 16 bits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from cycleisp_runtime.errors import InputError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.gstreamer import Pipeline, bayer_caps, load_gstreamer
from cycleisp_runtime.readers import DumpLayout
from cycleisp_runtime.readers.dumps import dump_frame
from cycleisp_runtime.sources import FrameSource

__all__ = ["GStreamerSource"]

_SLICE_S = 0.05
"""How long a stop may have to wait."""


class GStreamerSource(FrameSource):
    """What comes out of a pipeline, until its end.

    Args:
        pipeline: as gst-launch takes it, without a sink, such as "v4l2src device=/dev/video0".
        layout: size, phase, packing (u8, u16le, high16le), bits and levels that the frames are to
            have; without a stride, a buffer's size says how long its rows are.
        timeout_s: how long a whole frame may take to come.

    Raises:
        SettingsError: where GStreamer has no such format.
    """

    def __init__(self, pipeline: str, layout: DumpLayout, *, timeout_s: float = 5.0) -> None:
        if layout.packing not in ("u8", "u16le", "high16le"):
            raise SettingsError(
                "GStreamer has no such Bayer format",
                subject="layout",
                met=f"packing {layout.packing}",
                wanted="u8, u16le or high16le",
            )
        self._pipeline = pipeline
        self._layout = layout
        self._timeout_s = timeout_s
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[RawFrame]:
        """Frames until the pipeline's end or ``stop``; it plays as long as the iteration lasts.

        Raises:
            SettingsError: where GStreamer is missing, or the description no pipeline.
            InputError: where an element fails, frames of the layout cannot be negotiated, or none
                comes in time.
        """
        gst = load_gstreamer()
        layout = self._layout
        caps = bayer_caps(layout.cfa, layout.value_bits, layout.width, layout.height)
        sink = f"appsink name=frames sync=false max-buffers=2 caps={caps}"
        with Pipeline(f"{self._pipeline} ! {sink}", "frames") as pipeline:
            deadline = time.monotonic() + self._timeout_s
            while not self._stopped.is_set():
                sample = pipeline.element.try_pull_sample(int(_SLICE_S * gst.SECOND))
                if sample is not None:
                    frame = self._frame(gst, sample.get_buffer())
                    if frame is None:
                        self.lost += 1
                    else:
                        yield frame
                        deadline = time.monotonic() + self._timeout_s
                    continue
                failure = pipeline.failure()
                if failure is not None:
                    hint = f"it must give {caps}" if "not-negotiated" in failure else None
                    raise InputError(failure, subject=self._pipeline, hint=hint)
                if pipeline.element.is_eos():
                    return
                if time.monotonic() > deadline:
                    raise InputError(
                        "the pipeline stalls",
                        subject=self._pipeline,
                        met=f"no whole frame for {self._timeout_s:g} s, {self.lost} lost so far",
                    )

    def stop(self) -> None:
        """End the iteration within a twentieth of a second."""
        self._stopped.set()

    def _frame(self, gst: Any, buffer: Any) -> RawFrame | None:  # noqa: ANN401  no types
        """The frame in a buffer; None where the buffer is damaged or too short."""
        layout = self._layout
        if layout.stride is None:
            stride = max(buffer.get_size() // layout.height, layout.row_bytes)
            layout = replace(layout, stride=stride)
        damaged = buffer.has_flags(gst.BufferFlags.CORRUPTED)
        if damaged or buffer.get_size() < layout.frame_bytes:
            return None
        mapped, view = buffer.map(gst.MapFlags.READ)
        if not mapped:
            return None
        try:
            stored = np.frombuffer(view.data, np.uint8).copy()  # unmapped memory is not ours
        finally:
            buffer.unmap(view)
        return dump_frame(stored, layout)
