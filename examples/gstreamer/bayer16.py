"""A camera app: 16-bit Bayer video out of one GStreamer pipeline, denoised, into another.

python examples/gstreamer/bayer16.py LAYOUT SOURCE SINK
"""

from __future__ import annotations

import argparse
import sys

from cycleisp_runtime import CycleISPError, Denoiser
from cycleisp_runtime.readers import DumpLayout
from cycleisp_runtime.sinks.gstreamer import gstreamer_pipeline
from cycleisp_runtime.sources.gstreamer import GStreamerSource


def main() -> None:
    """From the first pipeline to the second, until the first ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layout", type=DumpLayout.parse, help="width=...,height=...,cfa=...,...")
    parser.add_argument("source", help="a pipeline without a sink")
    parser.add_argument("sink", help="a pipeline without a source")
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()

    with (
        Denoiser.load(options.model) as denoiser,
        gstreamer_pipeline(options.sink) as write,
        denoiser.stream(GStreamerSource(options.source, options.layout)) as results,
    ):
        for result in results:
            write(result)
    seen = results.statistics
    print(f"{seen.frames} frames, {seen.fps or 0.0:.1f} fps, {seen.lost} lost")


if __name__ == "__main__":
    try:
        main()
    except CycleISPError as error:
        sys.exit(f"bayer16.py: {error}")
