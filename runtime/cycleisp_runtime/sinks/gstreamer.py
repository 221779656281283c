"""Frames into a GStreamer pipeline, as 16-bit Bayer video."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from cycleisp_runtime.denoised import Denoised
from cycleisp_runtime.errors import OutputError
from cycleisp_runtime.gstreamer import Pipeline, bayer_caps, load_gstreamer
from cycleisp_runtime.sinks import Write

__all__ = ["gstreamer_pipeline"]

_PATIENCE_S = 10.0
"""Time for elements to take a frame, and to write what they hold at the end."""


@contextmanager
def gstreamer_pipeline(description: str) -> Iterator[Write]:
    """A pipeline, as gst-launch takes it, without a source; pictures without masked border.

    Buffers are stamped when they come, their rows padded to multiples of 4 bytes as GStreamer does.

    Raises:
        SettingsError: where GStreamer is missing, or the description no pipeline.
        OutputError: where an element fails or does not finish.
    """
    gst = load_gstreamer()
    source = "appsrc name=frames is-live=true do-timestamp=true format=time max-bytes=0"
    with Pipeline(f"{source} ! {description}", "frames") as pipeline:

        def write(denoised: Denoised) -> None:
            frame = denoised.frame
            caps = bayer_caps(frame.cfa, 16, frame.area.width, frame.area.height)
            pipeline.element.set_caps(gst.Caps.from_string(f"{caps},framerate=0/1"))
            rows = np.pad(frame.visible.astype("<u2"), ((0, 0), (0, frame.area.width % 2)))
            deadline = time.monotonic() + _PATIENCE_S
            # appsrc can wait itself, but would do so for ever behind an element that has failed.
            while pipeline.element.get_current_level_bytes() > rows.nbytes:
                failure = pipeline.failure()
                if failure is not None or time.monotonic() > deadline:
                    raise OutputError(failure or "the pipeline stalls", subject=description)
                time.sleep(0.001)
            pipeline.element.push_buffer(gst.Buffer.new_wrapped(rows.tobytes()))

        yield write
        pipeline.element.end_of_stream()
        failure = pipeline.finish(_PATIENCE_S)
        if failure is not None:
            raise OutputError(failure, subject=description)
