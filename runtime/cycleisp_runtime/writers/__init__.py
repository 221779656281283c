"""Writers of frames: DNG in and out, new DNGs, and pictures for looking at."""

from cycleisp_runtime.writers.atomic import atomic_output, check_output
from cycleisp_runtime.writers.frame_writer import OUTPUT_SUFFIXES, write_frame

__all__ = ["OUTPUT_SUFFIXES", "atomic_output", "check_output", "write_frame"]
