"""A camera app: frames of a V4L2 camera, or of a recording that plays in a loop, denoised live.

python examples/v4l2_stream/live.py /dev/video0 LAYOUT
python examples/v4l2_stream/live.py recording.raw LAYOUT --fps 15 --frames 100
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cycleisp_runtime import CycleISPError, Denoiser, RawFrame
from cycleisp_runtime.readers import DumpLayout
from cycleisp_runtime.sources.files import packed_frames
from cycleisp_runtime.sources.v4l2 import V4L2Source


def played(recording: Path, layout: DumpLayout, fps: float) -> Iterator[RawFrame]:
    """The recording again and again, a frame every 1 / fps seconds, as a camera would."""
    due = time.monotonic()
    while True:
        for frame in packed_frames(recording, layout):
            time.sleep(max(0.0, due - time.monotonic()))
            due += 1 / fps
            yield frame


def show(picture: npt.NDArray[np.uint16]) -> float:
    """Where an app would draw or encode the picture (H, W) in DN; here, its mean brightness."""
    return float(picture.mean())


def main() -> None:
    """Stream until Ctrl-C or the last frame asked for, with a line that says how it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="a video device or a recording")
    parser.add_argument("layout", type=DumpLayout.parse, help="width=...,height=...,cfa=...,...")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--fps", type=float, default=30.0, help="of a recording")
    parser.add_argument("--frames", type=int, help="stop after so many")
    options = parser.parse_args()
    if not options.fps > 0:
        parser.error("--fps must be above 0")

    source = (
        V4L2Source(options.source, options.layout)
        if options.source.is_char_device()
        else played(options.source, options.layout, options.fps)
    )
    # A viewer wants the newest frame, not every frame.
    with (
        Denoiser.load(options.model) as denoiser,
        denoiser.stream(source, depth=1, policy="drop-oldest") as results,
    ):
        for result in results:
            brightness = show(result.frame.visible)
            now = results.statistics
            latency = now.latency_p50_ms or 0.0
            line = f"{now.frames} frames, {now.fps or 0.0:.1f} fps, latency {latency:.0f} ms, "
            line += f"{now.dropped} dropped, {now.lost} lost, brightness {brightness:.0f}"
            print(f"\r{line}", end="", file=sys.stderr, flush=True)
            if now.frames == options.frames:
                break
    print(file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except CycleISPError as error:
        sys.exit(f"\nlive.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
